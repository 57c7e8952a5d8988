"""Senders that note what was acknowledged, and a look at what a stream holds."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Sequence

import aiohttp

from asynctrace.collector._keys import KEY_HEADER
from asynctrace.stream import Message, RedisStream

from ..traffic import PROTOBUF
from .programs import Program, body_of, name_of

__all__ = ["SPANS", "Senders", "append"]

SPANS = 20
"""In each trace, which is one request."""
AT_ONCE = 6


class Senders:
    """A few at once, each trace in a request of its own, under a key: what is not acknowledged is sent again, or given up."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.acknowledged: list[int] = []
        self.statuses: set[int] = set()

    async def send(self, url: str, count: int) -> None:
        """So many more traces, whatever that takes."""
        waiting = [next(self._numbers) for _ in range(count)]
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(self._send_some(session, url, waiting) for _ in range(AT_ONCE)))

    async def send_and(self, program: Program, count: int, end: Callable[[], object]) -> None:
        """Load, and in the middle of it, after `count` more were acknowledged, its end."""
        sending = asyncio.create_task(self.send_until_death(program.url))
        wanted = len(self.acknowledged) + count
        while len(self.acknowledged) < wanted:
            assert program.process.poll() is None
            await asyncio.sleep(0.001)
        await asyncio.to_thread(end)
        await sending

    async def send_until_death(self, url: str) -> None:
        """As many as are taken before nobody answers any more. What is under way then was not acknowledged."""
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(self._send_all(session, url) for _ in range(AT_ONCE)))

    @property
    def expected(self) -> dict[str, int]:
        """What a list has to show at least."""
        return {name_of(trace): SPANS for trace in self.acknowledged}

    async def _send_some(self, session: aiohttp.ClientSession, url: str, waiting: list[int]) -> None:
        while waiting:
            trace = waiting.pop()
            if not await self._is_taken(session, url, trace):
                waiting.append(trace)
                await asyncio.sleep(0.1)

    async def _send_all(self, session: aiohttp.ClientSession, url: str) -> None:
        with contextlib.suppress(aiohttp.ClientError):
            while True:
                await self._is_taken(session, url, next(self._numbers))

    async def _is_taken(self, session: aiohttp.ClientSession, url: str, trace: int) -> bool:
        headers = {"Content-Type": PROTOBUF, KEY_HEADER: f"log-{trace}:0:{SPANS}"}
        async with session.post(f"{url}/v1/traces", data=body_of(trace, SPANS), headers=headers) as answer:
            self.statuses.add(answer.status)
            if answer.status == 200:
                self.acknowledged.append(trace)
            return answer.status == 200


async def append(url: str, prefix: str, messages: Sequence[Message]) -> None:
    """Into the stream, as a producer does it."""
    stream = RedisStream(url, prefix=prefix, shards=8)
    try:
        for message in messages:
            await stream.append(message)
    finally:
        await stream.aclose()
