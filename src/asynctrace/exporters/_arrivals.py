"""A number that only grows, and those who wait for it to reach theirs.

Promises: counting is safe from any thread; waiting works in any number of event loops and threads at once; a
waiter that gives up or is cancelled leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

__all__ = ["Arrivals"]


class Arrivals:
    """Wakes waiters when `count()` reaches what they wait for. `count` is cheap and safe from any thread."""

    def __init__(self, count: Callable[[], int], noun: str) -> None:
        self._count = count
        self._noun = noun
        self._changed = threading.Condition()
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def notify(self) -> None:
        """Tell every waiter that the number may have grown."""
        with self._changed:
            self._changed.notify_all()
            waiters = tuple(self._waiters)
        for loop, event in waiters:
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:  # that loop was closed under its waiter
                self._waiters.discard((loop, event))

    async def wait_for(self, n: int, timeout: float) -> None:
        """Return when the number is at least `n`; `TimeoutError` after `timeout` seconds."""
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        with self._changed:
            self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout):
                while self._count() < n:
                    await event.wait()
                    event.clear()
        except TimeoutError:
            raise TimeoutError(self._what_is_missing(n, timeout)) from None
        finally:
            with self._changed:
                self._waiters.discard(waiter)

    def wait_for_sync(self, n: int, timeout: float) -> None:
        """`wait_for()` for threads without a running event loop."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._count() >= n, timeout):
                raise TimeoutError(self._what_is_missing(n, timeout))

    def _what_is_missing(self, n: int, timeout: float) -> str:
        return f"{self._count()} of {n} {self._noun} after {timeout} seconds"
