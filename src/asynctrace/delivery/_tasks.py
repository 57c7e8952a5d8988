"""Tasks that do not die with the first cancellation.

`asyncio.run()` cancels every task at its end, and waits for them: for most that is the end, for delivery it is the moment
when what is left must still arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any

__all__ = ["AtLeastOneStep", "create_patient_task", "create_stubborn_task", "create_task"]


_LAST_WAIT = 2.0
"""Seconds for work that was cancelled to let go of what it holds."""


class AtLeastOneStep(Coroutine[Any, Any, None]):
    """A coroutine that a cancellation cannot end before it began: `asyncio.run(main())` may cancel a lane that was
    created in the last step of `main()`. The early cancellation is told to `on_cancelled` instead."""

    __slots__ = ("_coroutine", "_has_begun", "_on_cancelled")

    def __init__(self, coroutine: Coroutine[Any, Any, None], on_cancelled: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._on_cancelled = on_cancelled
        self._has_begun = False

    def send(self, value: Any) -> Any:
        self._has_begun = True
        return self._coroutine.send(value)

    def throw(self, *exc_info: Any) -> Any:
        if self._has_begun:
            return self._coroutine.throw(*exc_info)
        self._on_cancelled()
        return self.send(None)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        return self._coroutine.__await__()


def create_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None], *, context: Context, name: str
) -> asyncio.Task[None]:
    """A task of `loop` that begins in a later turn of it, whatever the program's task factory makes of its own tasks.

    An eager task begins inside this call, in `context`. Where that is the caller's own, as among the tasks of a lane, Python
    refuses to enter it again, and has lost track of the current task by then.
    """
    return asyncio.Task(work, loop=loop, context=context, name=name)


def create_stubborn_task(work: Coroutine[Any, Any, None], *, context: Context, name: str) -> asyncio.Task[None]:
    """A task of the running loop that does `work`, which is bounded in time; the first cancellation does not stop it,
    the second does."""
    loop = asyncio.get_running_loop()
    inner = create_task(loop, work, context=context, name=name)
    asyncio._unregister_task(inner)  # asyncio.run() sees, and waits for, the one around it
    return create_task(loop, AtLeastOneStep(_outlast(inner), lambda: None), context=context, name=name)


async def _outlast(inner: asyncio.Task[None]) -> None:
    was_cancelled = False
    while not inner.done():
        try:
            await asyncio.wait((inner,))
        except asyncio.CancelledError:
            if was_cancelled:
                inner.cancel()
            was_cancelled = True
    if not inner.cancelled():
        inner.result()


def create_patient_task(
    work: Coroutine[Any, Any, None], *, leave: Callable[[], object], patience: float, context: Context, name: str
) -> asyncio.Task[None]:
    """A task of the running loop that does `work`, which goes on until `leave()` is called. The first cancellation calls
    it and gives the work `patience` seconds to end by itself; the second cancels it."""
    loop = asyncio.get_running_loop()
    inner = create_task(loop, work, context=context, name=name)
    asyncio._unregister_task(inner)
    inner._log_destroy_pending = False  # type: ignore[attr-defined]  # a loop may be closed under its tasks
    task = create_task(
        loop,
        AtLeastOneStep(_be_patient(inner, leave, patience), leave),  # type: ignore[arg-type]
        context=context,
        name=name,
    )
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    return task


async def _be_patient(inner: asyncio.Task[None], leave: Callable[[], object], patience: float) -> None:
    try:
        await asyncio.wait((inner,))
    except asyncio.CancelledError:
        leave()
        with suppress(asyncio.CancelledError):
            await asyncio.wait((inner,), timeout=patience)
        if not inner.done():
            inner.cancel()
            await asyncio.wait((inner,), timeout=_LAST_WAIT)
    if inner.done() and not inner.cancelled():
        inner.result()
