"""Those who wait for delivery: each in a loop of its own, or in a thread, each for a fixed watermark."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from .._errors import AsynctraceError

__all__ = ["ThreadWaiter", "Waiter", "Waiters"]


class Waiter:
    """One `flush()`: done when every lane's cursor has reached `target`."""

    __slots__ = ("future", "loop", "target")

    def __init__(self, target: int) -> None:
        self.target = target
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()

    def resolve(self, error: BaseException | None = None) -> None:
        """From any thread. A loop that is closed by now has nobody waiting in it."""
        try:
            self.loop.call_soon_threadsafe(self._resolve, error)
        except RuntimeError:
            return

    def _resolve(self, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


class ThreadWaiter:
    """A thread that runs no loop and waits for a watermark."""

    __slots__ = ("loop", "reached", "target")

    def __init__(self, target: int) -> None:
        self.target = target
        self.loop = None
        self.reached = threading.Event()

    def resolve(self, error: BaseException | None = None) -> None:
        """From any thread. An error inside ends the wait too: the receipt says what is left."""
        self.reached.set()


class Waiters:
    """All of a tracer's. Adding, removing and resolving are safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # re-entrant: a signal handler that ends the process waits too
        self._waiting: list[Waiter | ThreadWaiter] = []

    def add(self, waiter: Waiter | ThreadWaiter) -> None:
        """Wait from now on."""
        with self._lock:
            self._waiting.append(waiter)

    def remove(self, waiter: Waiter | ThreadWaiter) -> None:
        """Wait no longer; nobody else is disturbed."""
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def resolve_below(self, cursor: int) -> None:
        """Everything below `cursor` is settled in every lane."""
        for waiter in self._pop(lambda waiter: waiter.target <= cursor):
            waiter.resolve()

    def fail_all(self, make_error: Callable[[], AsynctraceError]) -> None:
        """Delivery cannot say what became of the spans: nobody may be told that all is well."""
        for waiter in self._pop(lambda waiter: True):
            waiter.resolve(make_error())

    def a_running_loop(self) -> asyncio.AbstractEventLoop | None:
        """A loop in which somebody waits."""
        with self._lock:
            loops = [waiter.loop for waiter in self._waiting if waiter.loop is not None and waiter.loop.is_running()]
        return loops[0] if loops else None

    def _pop(self, is_done: Callable[[Waiter | ThreadWaiter], bool]) -> list[Waiter | ThreadWaiter]:
        with self._lock:
            done = [waiter for waiter in self._waiting if is_done(waiter)]
            self._waiting = [waiter for waiter in self._waiting if not is_done(waiter)]
        return done
