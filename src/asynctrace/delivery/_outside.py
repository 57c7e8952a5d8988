"""Delivery seen from a thread that runs no loop, makes none and starts no thread: the exit, a signal handler.

Everything is asked of the loop that the lanes live in, by `Home.call()`, and waited for with a deadline. Nothing here takes a
lock that the lanes' thread holds for longer than a moment.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from .._errors import DeliveryTimeout
from ._delivery import Delivery
from ._home import Home
from ._waiters import ThreadWaiter

__all__ = ["Outside"]

_LOOK_AGAIN = 0.1
"""Seconds between two looks whether the lanes' loop is still there."""

_BETWEEN_LOOKS = 0.001
"""Seconds until a lock is looked at again. It is held for microseconds."""


class Outside:
    """One `Delivery`, for one ending."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._home = delivery._home
        self._waiter: ThreadWaiter | None = None

    @property
    def is_answered(self) -> bool:
        """The lanes live in a loop that runs in another thread."""
        home = self._home
        return home is not None and home.is_alive and home.loop is not asyncio._get_running_loop()

    @property
    def is_torn_off(self) -> bool:
        """The lanes were cancelled and draining when their loop was stopped."""
        home = self._home
        return home is not None and not home.is_alive and any(driver.is_draining for driver in home.drivers)

    def press(self, target: int, seconds: float) -> None:
        """Begin to flush everything below `target`, which has to be done within `seconds`."""
        self._waiter = ThreadWaiter(target)
        self._delivery._waiters.add(self._waiter)
        self._call(self._press_there, target, seconds)

    def _press_there(self, target: int, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        for lane, _ in self._delivery._lanes:
            lane.flush(target)
            lane.hurry(now + seconds, now)
        if self._home is not None:
            self._home.wake()
        self._delivery._waiters.resolve_below(self._delivery.settled)

    def wait(self, remaining: Callable[[], float]) -> None:
        """Until what was pressed for is settled, the lanes' loop is gone, or no time is `remaining()`, in seconds."""
        waiter = self._waiter
        if waiter is None:
            return
        while (seconds := remaining()) > 0 and self.is_answered:
            if waiter.reached.wait(min(seconds, _LOOK_AGAIN)):
                break
        self._delivery._waiters.remove(waiter)

    def finish(self, reason: str, seconds: float) -> None:
        """Stop the lanes, count what is left as dropped for `reason`, close the exporters; `seconds` at most."""
        delivery = self._delivery
        left = threading.Event()

        def stop(home: Home) -> None:
            home.on_left(left.set)
            delivery._stop_lanes(reason)
            home.leave(close=True, close_timeout=seconds / 2)

        delivery._is_finished = True
        if self.is_answered and self._call(stop, self._home) and left.wait(seconds):
            return
        delivery._stop_lanes(reason)

    def give_up(self, reason: str) -> None:
        """`finish()` for a process that ends at once: count, ask the lanes to leave, and wait for nothing."""
        delivery = self._delivery
        delivery._is_finished = True
        with suppress(Exception):  # its own thread may be in the middle of it, and the process ends anyhow
            delivery._stop_lanes(reason)
            delivery._waiters.fail_all(lambda: DeliveryTimeout("the process ends at once", delivery.receipt()))
        if self._home is not None:
            self._call(partial(self._home.leave, close=True, close_timeout=0.0))

    def call_when_free(self, callback: Callable[[], object]) -> bool:
        """For a signal handler. True where it interrupted its own thread while that held a lock which the lanes' thread
        needs: waiting would be for nothing. `callback` is then called, in any thread, when the lock may be free again."""
        delivery, home = self._delivery, self._home
        if delivery._lock._is_owned():  # type: ignore[attr-defined]
            delivery.when_moved = callback
            return True
        log: Any = delivery._log  # that of a living process
        if not log.is_held_here:
            return False
        if home is not None and home.is_alive:
            return self._call(home.loop.call_later, _BETWEEN_LOOKS, callback)
        if not log.is_storing:
            return False  # nobody else wants it
        delivery.when_moved = callback
        log.wake_at = 0  # the store tells on its way out, and is given a home
        return True

    def _call(self, function: Callable[..., object], *arguments: object) -> bool:
        return self._home is not None and self._home.call(function, *arguments)
