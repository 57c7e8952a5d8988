"""Waiting for what child processes ended.

    look at the journals of the children ─▶ none holds anything? ─ yes ─▶ the receipt
           ▲                                     │ no
           └── a little later ◀── dead ones: recover them now · living ones: they deliver by themselves

Promises:

1. What children had ended when the call was made is delivered when it returns; of a child that is dead everything, its open
   spans too. What living children end meanwhile is not waited for, so it returns although they go on.
2. Whoever stops waiting, by a deadline or a cancellation, loses nothing: recovery goes on by itself.
3. The event loop is not held: files are read beside it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .._contracts import Receipt
from .._errors import DeliveryTimeout, MisuseError
from ..runtime import Tracer, default_tracer
from ..runtime._journal import Journaling
from ..runtime._loops import run_privately
from ..runtime._options import seconds

if TYPE_CHECKING:
    from ..spanlog.journal._descendants import Held

__all__ = ["collect_children", "collect_children_sync"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two looks: a look reads some files of each child."""


async def collect_children(timeout: float | None = None, *, tracer: Tracer | None = None) -> Receipt:
    """Return when everything that the child processes of `tracer` had ended, and those of its children, is delivered.

    The journals of dead children are recovered by this process at once; what a living child had ended before the call is
    waited for, until it has delivered it itself, or has died and was recovered. Join a child first, and its open spans
    are among that, as `lost`. `tracer` is the default tracer where it is None; without a journal there is nothing to
    wait for. `timeout` in seconds; None waits for as long as it takes. Raises `DeliveryTimeout`, which carries the
    receipt and loses nothing, and `MisuseError` when something is left and the tracer was shut down.
    """
    return await _collect(tracer or default_tracer(), None if timeout is None else seconds("timeout", timeout))


def collect_children_sync(timeout: float | None = None, *, tracer: Tracer | None = None) -> Receipt:
    """`collect_children()` for code without a loop; in a running loop it raises `MisuseError` rather than dead-lock."""
    tracer = tracer or default_tracer()
    allowed = None if timeout is None else seconds("timeout", timeout)
    if asyncio._get_running_loop() is None and tracer._journaling is not None:
        if not tracer._journaling.undelivered_children():
            return tracer._receipt(0)
        tracer.start_sync()  # the lanes, and with them recovery, get a loop that goes on when we are done
    return run_privately(
        lambda: _collect(tracer, allowed),
        instead="await collect_children()",
        before_close=tracer._delivery.leave_loop,
    )


async def _collect(tracer: Tracer, timeout: float | None) -> Receipt:
    journaling, loop = tracer._journaling, asyncio.get_running_loop()
    if journaling is None:
        return tracer._receipt(0)
    deadline = math.inf if timeout is None else loop.time() + timeout
    found = await journaling.look_at_children()
    targets = {path: held.appended for path, held in found.items()}
    pause = _FIRST_PAUSE
    while _is_left(targets, found) and _recovers(tracer, journaling, anew=pause == _FIRST_PAUSE):
        remaining = deadline - loop.time()
        if remaining <= 0:
            raise _timeout(tracer._receipt(len(found)), timeout)
        await asyncio.sleep(min(pause, remaining))
        pause = min(1.5 * pause, _LONGEST_PAUSE)
        found = await journaling.look_at_children()
    return tracer._receipt(len(found))


def _is_left(targets: Mapping[Path, int], found: Mapping[Path, Held]) -> bool:
    """Whether one of the first journals still holds what it held then, or its process has died since."""
    return any(
        path in found and (found[path].is_dead or found[path].settled < target) for path, target in targets.items()
    )


def _recovers(tracer: Tracer, journaling: Journaling, *, anew: bool) -> bool:
    """Have this process recover what is dead, now; False where it keeps no journal, and so recovers none."""
    if tracer._is_closed:
        raise MisuseError(
            "the tracer was shut down, and children have spans left: await collect_children(tracer=tracer) before that"
        )
    tracer._open_journal()
    tracer._delivery.press(0)
    return journaling.recover_now(anew=anew)


def _timeout(receipt: Receipt, timeout: float | None) -> DeliveryTimeout:
    return DeliveryTimeout(f"collect_children() did not finish within {timeout} s: {receipt!r}", receipt)
