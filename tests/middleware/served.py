"""What the tests of doors share: an aiohttp application on a port of the machine, and waiting for a span's end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from asynctrace import Span
from asynctrace.testing import CapturedSpans

__all__ = ["ended", "served"]


@asynccontextmanager
async def served(app: web.Application, **options: Any) -> AsyncIterator[str]:
    """Yields its URL, without a slash at the end. `options` are those of `web.AppRunner`."""
    runner = web.AppRunner(app, access_log=None, **options)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def ended(captured: CapturedSpans, name: str, count: int = 1) -> list[Span]:
    """The spans of that name, once there are so many."""
    async with asyncio.timeout(30):
        while True:
            await captured.flush()
            found = captured.by_name.get(name, [])
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)
