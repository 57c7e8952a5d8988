"""What a store needs besides rows: its bounds kept while the collector runs, and a store of an earlier format taken over.

Promises:

- What is beyond the bounds goes within `EVERY` seconds and what a sweep takes, and who looks at it is told; a sweep that
  fails is said on stderr and tried again.
- The spans of a store of format 1 go the way of all spans, before the collector answers; what cannot be taken over stays
  where it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from .._diagnostics import Diagnostics
from ._site import beside
from .receiving import Writer, read_kept
from .store import Store, StoreError, has_old, old_bodies, retire_old

__all__ = ["EVERY", "sweeping", "take_over"]

EVERY = 10.0
"""Seconds between two sweeps."""


@contextlib.asynccontextmanager
async def sweeping(
    store: Store, *, every: float = EVERY, swept: Callable[[int], object] = lambda traces: None
) -> AsyncIterator[None]:
    """Keep the store within its bounds until the block is left. `swept` is told how many traces went."""
    async with beside(_sweep(store, every, swept), "collector sweep"):
        yield


async def _sweep(store: Store, every: float, swept: Callable[[int], object]) -> None:
    diagnostics = Diagnostics(time.monotonic_ns)
    while True:
        await asyncio.sleep(every)
        try:
            gone = await asyncio.to_thread(store.sweep)
        except StoreError as error:
            diagnostics.error("collector.sweep_failed", reason=str(error))
        else:
            if gone.traces:
                swept(gone.traces)


def take_over(directory: Path, writer: Writer) -> None:
    """Add what a store of format 1 in `directory` holds. Blocks. Raises `StoreError`, `Refused`."""
    if has_old(directory):
        for body in old_bodies(directory):
            writer.submit(read_kept(body)).result()
        retire_old(directory)
