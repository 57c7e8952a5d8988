"""Ending tracers from a thread that runs no loop: at exit, and in a signal handler.

    lanes live in another thread's loop     it is asked to deliver; this thread waits, with a deadline
    lanes live nowhere                      delivered here, on a loop of this thread's own, for as long as the deadline allows

What is not delivered is left to the journal, where there is one.

No thread is started, by nobody: CPython 3.12 and later forbid it at exit, and a signal may have interrupted `threading`
while it held its locks. What would be done beside a loop (looking up a name, compressing) is done in place.
"""

from __future__ import annotations

import concurrent.futures
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from time import monotonic
from typing import TYPE_CHECKING

from ..delivery import DeadLetters, Outside, in_place
from . import _registry

if TYPE_CHECKING:
    from .._contracts import Receipt
    from ._tracer import Tracer

__all__ = ["end_here", "give_up", "is_under_way"]

_GRACE = 1.0
_CLOSE_TIMEOUT = 5.0
"""Seconds for closing, at least and at most, as in `Tracer.shutdown()`."""


class _Ending:
    """One tracer's."""

    def __init__(self, tracer: Tracer, seconds: float | None) -> None:
        self.tracer = tracer
        self._outside = Outside(tracer._delivery)
        self._deadline = monotonic() + (tracer._shutdown_timeout if seconds is None else seconds)
        self._other = _under_way_elsewhere(tracer)
        self._outcome: concurrent.futures.Future[Receipt] = concurrent.futures.Future()

    def remaining(self) -> float:
        return max(0.0, self._deadline - monotonic())

    @property
    def needs_a_loop(self) -> bool:
        """The lanes live nowhere."""
        return self._other is None and not self._outside.is_answered

    @property
    def is_second_time(self) -> bool:
        """The lanes were draining already, and somebody stopped that."""
        return self._outside.is_torn_off

    def prepare(self) -> None:
        """For a shutdown on a loop of this thread's own."""
        self.tracer._shutdown_outcome = None  # whatever loop was at it stands still
        self.tracer._cut_open()

    def begin(self) -> None:
        """Take no new spans; those that are open end here: no code is left that could end them."""
        if self._other is None:
            tracer = self.tracer
            tracer._shutdown_outcome = self._outcome
            tracer._is_closed = tracer._is_thinned = True
            tracer._cut_open()
            self._outside.press(tracer._log.appended, self.remaining())

    def complete(self) -> None:
        if self._other is not None:
            with suppress(concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
                self._other.result(self.remaining())
            return
        self._outside.wait(self.remaining)
        self.tracer._log.close("after_shutdown")
        self._outside.finish("shutdown", max(_GRACE, min(_CLOSE_TIMEOUT, self.remaining())))
        self.tracer._is_over(self._outcome)

    def tell(self) -> None:
        """What the lanes' loop had no time to write and to call."""
        if self.tracer._dead_letters is not None:
            self.tracer._dead_letters.write_waiting()
        if self.tracer._callbacks is not None:
            self.tracer._callbacks.tell_here()


def _under_way_elsewhere(tracer: Tracer) -> concurrent.futures.Future[Receipt] | None:
    """The outcome of a shutdown that another thread's loop is at; a loop that stands still ends nothing any more."""
    outcome, task = tracer._shutdown_outcome, tracer._shutdown_task
    return outcome if outcome is not None and task is not None and task.get_loop().is_running() else None


def _is_interrupted() -> bool:
    """`KeyboardInterrupt` ends the program. A child of multiprocessing has forgotten by now what ended it (CPython 3.13)."""
    process = sys.modules.get("multiprocessing.process")
    is_child = process is not None and process.parent_process() is not None
    return is_child or getattr(sys, "last_type", None) is KeyboardInterrupt


_places = 0


def is_under_way() -> bool:
    """Whether `end_here()` is running, in whatever thread."""
    return _places > 0


def end_here(tracers: Iterable[Tracer], seconds: float | None = None) -> None:
    """Shut `tracers` down, all at once, each within `seconds` (by default its `shutdown_timeout`)."""
    with _alone():
        endings = [_Ending(tracer, seconds) for tracer in tracers]
        here = [ending for ending in endings if ending.needs_a_loop]
        elsewhere = [ending for ending in endings if ending not in here]
        if _is_interrupted():
            give_up([ending.tracer for ending in here if ending.is_second_time])
            here = [ending for ending in here if not ending.is_second_time]
        for ending in elsewhere:
            ending.begin()
        if here:
            for ending in here:
                ending.prepare()
            _registry.shut_down_privately([ending.tracer for ending in here], seconds)
        for ending in elsewhere:
            ending.complete()
        for ending in elsewhere:
            ending.tell()


def give_up(tracers: Iterable[Tracer]) -> None:
    """The process ends now: what is not delivered is counted as dropped for `shutdown`, or stays in the journal."""
    for tracer in tracers:
        with suppress(Exception):
            tracer._is_closed = tracer._is_thinned = True
            tracer._cut_open()
            Outside(tracer._delivery).give_up("shutdown")
            outcome = tracer._shutdown_outcome = tracer._shutdown_outcome or concurrent.futures.Future()
            tracer._is_over(outcome)


@contextmanager
def _alone() -> Iterator[None]:
    """No thread is started meanwhile."""
    global _places
    aside = sys.modules.get("asynctrace.exporters._aside")  # where it is not loaded, no exporter starts any
    _places += 1
    try:
        with nullcontext() if aside is None else aside.in_place(), DeadLetters.in_place(), in_place():
            yield
    finally:
        _places -= 1
