"""Draining before a signal ends the process. Opt-in: nothing here runs unless the program asks for it.

    first signal ──▶ the program's own handler, if it had one ──▶ drain, with a deadline ──▶ end as the signal would have
    second, while draining ──▶ wait no longer, count what is left, end

Where the draining happens:

    a loop runs in the main thread     on that loop, so lanes and tasks go on; the end comes from a callback in it
    none, lanes in another thread      that thread drains; the handler waits for it
    none, lanes nowhere                on a loop of the handler's own

A handler may interrupt any line, ours included. One that finds its own thread inside a lock of ours waits for nothing: it
has itself called again once the lock is free.

Ending "as the signal would have": SIGTERM, and SIGINT where it had its default action, end the process by the signal itself,
so a shell sees 143 or 130 and a parent -15 or -2. SIGINT where Python would have raised `KeyboardInterrupt` raises it.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from .._errors import MisuseError
from ..delivery import Outside, create_stubborn_task
from . import _registry
from ._last_chance import end_here, give_up, is_under_way
from ._loops import when_closed
from ._options import seconds

__all__ = ["SignalHandlers", "after_fork_in_child", "install_signal_handlers"]

_OPEN_SPANS = 1.0
"""Seconds in which open spans may still end where nobody told the program to stop: most requests take less, and a loop that
runs for ever would take the whole deadline."""

_SIGQUIT: signal.Signals | None = getattr(signal, "SIGQUIT", None)

_installed: SignalHandlers | None = None


class SignalHandlers:
    """What `install_signal_handlers()` returns: `restore()` takes the handlers out again, also as the end of a `with`."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._timeout: float | None = None
        self._draining: int | None = None
        self._postponed: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeps_quit = False

    def restore(self) -> None:
        """Put back what was there before, for each signal that nobody took over since. Only in the main thread."""
        _check_thread("restore()")
        for number, before in list(self._before.items()):
            if signal.getsignal(number) == self._handle:
                signal.signal(number, before)
            del self._before[number]

    def __enter__(self) -> SignalHandlers:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore()

    def __repr__(self) -> str:
        names = ", ".join(signal.Signals(number).name for number in sorted(self._before))
        return f"<SignalHandlers {names or 'restored'}>"

    def _install(self, numbers: Iterable[signal.Signals], timeout: float | None) -> None:
        self._timeout = timeout
        for number in numbers:
            before = signal.getsignal(number)
            if before == self._handle or before is None or before == signal.SIG_IGN:
                continue  # ours; not Python's, so it could not be put back; or ignored on purpose, as under nohup
            self._before[number] = before
            signal.signal(number, self._handle)

    # In the handler ----------------------------------------------------------------------------------------------

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._draining is None and is_under_way():
            self._draining = number  # the program was ending already, and waited for us
        if self._draining is not None:
            self._end_now()
            return
        tracers = _registry.alive()
        if self._postponed is None:
            self._tell_the_program(number, frame)
        loop = asyncio._get_running_loop()
        if loop is None and self._postpone(number, tracers):
            return
        self._postponed = None
        self._draining = number
        self._listen_for_quit()
        if loop is not None:
            loop.call_soon_threadsafe(self._drain_on, loop)
            return
        end_here(tracers, self._timeout)
        self._end()

    def _tell_the_program(self, number: int, frame: FrameType | None) -> None:
        """Before anything else: it may stop taking work, or end the program in a way of its own by an exception."""
        before = self._before.get(number)
        if callable(before) and before is not signal.default_int_handler:
            before(number, frame)

    def _postpone(self, number: int, tracers: Iterable[Any]) -> bool:
        """True where this thread holds a lock that the lanes' thread needs: it will call again."""

        def again() -> None:
            signal.pthread_kill(threading.main_thread().ident or 0, number)

        if not any(Outside(tracer._delivery).call_when_free(again) for tracer in tracers):
            return False
        self._postponed = number
        return True

    # On a loop ---------------------------------------------------------------------------------------------------

    def _drain_on(self, loop: asyncio.AbstractEventLoop) -> None:
        from ._parts import lane_context

        self._loop = loop
        work = create_stubborn_task(self._drain(), context=lane_context(), name="asynctrace signal")
        work.add_done_callback(lambda task: self._drained(loop, task))

    async def _drain(self) -> None:
        before = self._before.get(self._draining or 0)
        is_told = callable(before) and before is not signal.default_int_handler
        await _registry.shut_down_all(self._timeout, None if is_told else _OPEN_SPANS)

    def _drained(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # shutdown() never raises; whatever it was, the process ends now
        if self._draining is not None:
            self._end()

    def _loop_closed(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """The loop that was to drain has stopped before it was done; also called at exit, for any loop."""
        if self._draining is not None and (loop is None or loop is self._loop):
            end_here(_registry.alive(), self._timeout)
            self._end()

    # The end -----------------------------------------------------------------------------------------------------

    def _listen_for_quit(self) -> None:
        if _SIGQUIT is not None and signal.getsignal(_SIGQUIT) == signal.SIG_DFL:
            self._keeps_quit = True
            signal.signal(_SIGQUIT, self._handle)

    def _end_now(self) -> None:
        give_up(_registry.alive())
        self._end()

    def _end(self) -> None:
        """As the first signal would have ended the process."""
        number, self._draining = self._draining, None
        before = self._before.get(number or 0)
        self._stop_listening()
        if number is None:
            return
        if before is signal.default_int_handler:
            signal.default_int_handler(number, None)
        _write_out()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _stop_listening(self) -> None:
        if self._keeps_quit and _SIGQUIT is not None:
            self._keeps_quit = False
            signal.signal(_SIGQUIT, signal.SIG_DFL)
        self.restore()


def install_signal_handlers(
    signals: Iterable[int] = (signal.SIGTERM, signal.SIGINT), timeout: float | None = None
) -> SignalHandlers:
    """Deliver before `signals` end the process: every tracer is shut down, at most for `timeout` seconds (by default each
    tracer's `shutdown_timeout`), and then the signal does what it would have done, so that the exit code stays.

    A handler of the program's own is called first. A second signal while draining ends the process at once. Calling it again
    changes the timeout and takes over what was taken over since. Signals that are ignored stay ignored. Raises `MisuseError`
    outside the main thread, where Python sets no handlers, and `TypeError` or `ConfigurationError` for a wrong option.

    Not for programs in a web server that has handlers of its own: install it before the server runs, or shut down in its
    lifespan.
    """
    global _installed
    _check_thread("install_signal_handlers()")
    numbers = [_checked(number) for number in signals]
    wait = None if timeout is None else seconds("timeout", timeout)
    if _installed is None:
        _installed = SignalHandlers()
        when_closed.append(_installed._loop_closed)
        atexit.register(_installed._loop_closed)
    _installed._install(numbers, wait)
    return _installed


def after_fork_in_child() -> None:
    """The parent's draining is not the child's."""
    if _installed is not None:
        _installed._draining = _installed._postponed = None


def _checked(number: object) -> signal.Signals:
    if not isinstance(number, int):
        raise TypeError(f"signals are like signal.SIGTERM, not {type(number).__name__}")
    try:
        return signal.Signals(number)
    except ValueError:
        raise TypeError(f"signals are like signal.SIGTERM; there is no signal {number}") from None


def _check_thread(call: str) -> None:
    if threading.current_thread() is not threading.main_thread():
        raise MisuseError(f"{call} works in the main thread only, at the start of the program")


def _write_out() -> None:
    """A signal's default action writes nothing that Python still holds."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
