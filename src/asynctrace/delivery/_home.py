"""Where the lanes run just now: one event loop, with one driver for each lane.

A home is the application's own loop, or, in a program without one, a loop in a thread that asynctrace owns. It is left
when the loop ends; the lanes, with their cursors and windows, then move to the next loop that needs them.
"""

from __future__ import annotations

import _thread
import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context

from ._driver import LaneDriver
from ._executor import OwnExecutor

__all__ = ["Home"]

MakeDrivers = Callable[[asyncio.AbstractEventLoop], Sequence[LaneDriver]]


class Home:
    """Made in the thread that needs it; `on_end(home)` is called in its loop when the last driver has left."""

    def __init__(self, make_drivers: MakeDrivers, on_end: Callable[[Home], None]) -> None:
        self._make_drivers = make_drivers
        self._on_end = on_end
        self._drivers: Sequence[LaneDriver] = ()
        self._running = 0
        self._ended = False
        self._owns_loop = False
        self._on_left: list[Callable[[], object]] = []
        self.loop: asyncio.AbstractEventLoop

    def move_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the drivers on `loop`, which runs in the calling thread."""
        self.loop = loop
        self._start()

    def move_into_own_thread(self) -> None:
        """Start a thread with a loop of its own. Raises `RuntimeError` where no thread can be started any more.

        The thread is started below `threading`: the need may arise in a finaliser or a signal handler that interrupted
        `threading` while it held its locks.
        """
        # A loop copies the context in which it is made, and with it the run of whoever ended the first span.
        self.loop = Context().run(asyncio.new_event_loop)
        self._owns_loop = True
        try:
            _thread.start_new_thread(self._own_thread, ())
        except RuntimeError:
            self.loop.close()
            raise

    @property
    def drivers(self) -> Sequence[LaneDriver]:
        return self._drivers

    @property
    def is_alive(self) -> bool:
        """Whether a call into the loop will be answered."""
        return not self._ended and not self.loop.is_closed() and (self._owns_loop or self.loop.is_running())

    def call(self, function: Callable[..., object], *args: object) -> bool:
        """Call in the loop, from any thread; False when the loop is gone."""
        try:
            self.loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return False
        return True

    def on_left(self, callback: Callable[[], object]) -> None:
        """Call `callback` in the loop once the last driver has left."""
        self._on_left.append(callback)

    def wake(self) -> None:
        """Let every driver look again. Only from the loop."""
        for driver in self._drivers:
            driver.wake()

    def leave(self, *, close: bool, close_timeout: float) -> None:
        """Let every driver leave now. Only from the loop."""
        for driver in self._drivers:
            driver.leave(close=close, close_timeout=close_timeout)
        if not self._running:
            self._end()

    def forget_in_child(self) -> None:
        """After a fork: the loop is the parent's. Close this process's copies of its descriptors where they are ours to
        close; nothing may be taken out of its selector, which parent and child share."""
        self._ended = True
        if self._owns_loop:
            for part in ("_selector", "_ssock", "_csock"):
                held = getattr(self.loop, part, None)
                if held is not None:
                    held.close()

    def _start(self) -> None:
        self._drivers = self._make_drivers(self.loop)
        self._running = len(self._drivers)
        for driver in self._drivers:
            driver.task.add_done_callback(self._one_left, context=Context())  # not that of the first run

    def _one_left(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # an error was told already; retrieving it keeps asyncio quiet
        self._running -= 1
        if not self._running:
            self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._on_end(self)
            for callback in self._on_left:
                callback()
            if self._owns_loop:
                self.loop.stop()

    def _own_thread(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        executor = OwnExecutor()
        loop.set_default_executor(executor)
        try:
            loop.call_soon(self._start)
            loop.run_forever()
            loop.run_until_complete(loop.shutdown_asyncgens())
            executor.shutdown()  # not by the loop, which wants a thread for that
        finally:
            self._ended = True
            asyncio.set_event_loop(None)
            loop.close()
