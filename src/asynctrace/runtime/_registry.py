"""The tracers of this process: the default one, and all that are alive, for `shutdown()` and for the exit."""

from __future__ import annotations

import asyncio
import atexit
import gc
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .._contracts import Receipt
from ._loops import run_privately

if TYPE_CHECKING:
    from ._tracer import Tracer

__all__ = [
    "add",
    "alive",
    "configure",
    "default_tracer",
    "deliver_at_exit",
    "remove",
    "set_default",
    "shut_down_all",
    "shut_down_privately",
    "shutdown",
    "shutdown_sync",
]

_lock = threading.RLock()
_alive: dict[int, Tracer] = {}
_default: Tracer | None = None


def add(tracer: Tracer) -> None:
    """It lives until its shutdown, also when nobody holds it any more: its spans must arrive."""
    with _lock:
        _alive[id(tracer)] = tracer


def remove(tracer: Tracer) -> None:
    """It has been shut down."""
    with _lock:
        _alive.pop(id(tracer), None)


def default_tracer() -> Tracer:
    """The tracer that the module-level functions mean; made from the environment where nobody called `configure()`."""
    return _default or _make_default()


def configure(**options: Any) -> Tracer:
    """Make the default tracer: the options are those of `Tracer`. One that was made before goes on until its shutdown.

    Functions that were decorated before with the module's `trace_component` are traced by the new one.
    """
    from ._tracer import Tracer

    tracer = Tracer(**options)
    set_default(tracer)
    return tracer


def set_default(tracer: Tracer | None) -> Tracer | None:
    """Make `tracer` the default one; returns the one before."""
    global _default
    with _lock:
        before, _default = _default, tracer
        if tracer is not None:
            tracer._is_default = True
    return before


def _make_default() -> Tracer:
    with _lock:
        return _default or configure()


def alive() -> list[Tracer]:
    """The tracers that have not been shut down."""
    with _lock:
        return list(_alive.values())


async def shutdown(timeout: float | None = None) -> Receipt:
    """Shut down every tracer alive in this process, all at once. Returns the sum of their receipts."""
    return await shut_down_all(timeout)


def shutdown_sync(timeout: float | None = None) -> Receipt:
    """`shutdown()` for code without a loop."""
    return shut_down_privately(alive(), timeout)


def shut_down_privately(tracers: Sequence[Tracer], timeout: float | None) -> Receipt:
    """`shutdown()` of some, on a loop of this thread's own."""
    return run_privately(
        lambda: _shut_down(tracers, timeout), instead="await asynctrace.shutdown()", before_close=_leave_loop
    )


async def shut_down_all(timeout: float | None, patience: float | None = None) -> Receipt:
    """`shutdown()`, with a limit of its own for spans that are open: `patience` in seconds, None for `timeout`."""
    return await _shut_down(alive(), timeout, patience)


async def _shut_down(tracers: Sequence[Tracer], timeout: float | None, patience: float | None = None) -> Receipt:
    receipts = await asyncio.gather(*(tracer._shutdown(timeout, patience) for tracer in tracers))
    return _sum(tracers, receipts)


async def _leave_loop(loop: asyncio.AbstractEventLoop) -> None:
    for tracer in alive():
        await tracer._delivery.leave_loop(loop)


def _sum(tracers: Sequence[Tracer], receipts: list[Receipt]) -> Receipt:
    """One tracer's own receipt where only one has ended spans; else lanes are named `service/lane`."""
    busy = [receipt for receipt in receipts if receipt.ended] or receipts[:1]
    if len(busy) == 1:
        return busy[0]
    lanes = {
        f"{tracer.service}/{name}": lane
        for tracer, receipt in zip(tracers, receipts, strict=True)
        for name, lane in receipt.lanes.items()
    }
    rejected: dict[str, int] = {}
    dropped: dict[str, int] = {}
    for receipt in receipts:
        for total, part in ((rejected, receipt.rejected_by_reason), (dropped, receipt.dropped_by_reason)):
            for reason, count in part.items():
                total[reason] = total.get(reason, 0) + count
    return Receipt(
        ended=sum(receipt.ended for receipt in receipts),
        accepted=sum(receipt.accepted for receipt in receipts),
        rejected=sum(receipt.rejected for receipt in receipts),
        dropped=sum(receipt.dropped for receipt in receipts),
        spooled=sum(receipt.spooled for receipt in receipts),
        pending=sum(receipt.pending for receipt in receipts),
        recovered=sum(receipt.recovered for receipt in receipts),
        children=sum(receipt.children for receipt in receipts),
        rejected_by_reason=rejected,
        dropped_by_reason=dropped,
        lanes=lanes,
    )


def _at_collection(phase: str, details: dict[str, int]) -> None:
    """Before a full collection: recent components are held, and those whose handles are lost must not be."""
    if phase == "start" and details["generation"] == 2:
        for tracer in list(_alive.values()):
            tracer._open.sift()


gc.callbacks.append(_at_collection)


def _leave_journals() -> None:
    """What has nothing left to deliver has nothing left to keep."""
    for tracer in alive():
        tracer._leave_journal()


@atexit.register
def deliver_at_exit() -> None:
    """The last chance of a program that called nothing: starts no thread, waits at most `shutdown_timeout`."""
    from ._last_chance import end_here, give_up

    tracers = [tracer for tracer in alive() if tracer._has_something_to_deliver]
    try:
        if asyncio._get_running_loop() is None:
            end_here(tracers)
            _leave_journals()
    except KeyboardInterrupt:  # whoever pressed it waits for us, and for nothing else
        give_up(tracers)
    if getattr(sys, "last_type", None) is KeyboardInterrupt:
        # The exit code is that of SIGINT only if no text was executed since, and libraries that are imported on the way
        # out execute some (named tuples do).
        with suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")  # noqa: S102
