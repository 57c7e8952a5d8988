"""Functions of the program that are told what became of spans: dropped, rejected, spooled, recovered.

    Callbacks(on_drop=alert, on_reject=count).tell(DeliveryNotice(kind="drop", …))

    tell() ──▶ a bounded queue ──▶ one task on the lanes' loop ──▶ a plain function: in a thread
                                                              └──▶ a coroutine function: in the task

Promises

1. Nobody who ends a span waits for a callback, and no lane does: `tell()` only puts the notice into the queue.
2. Notices come one after the other, in order. When more than `MOST_WAITING` wait, those of one kind, lane and reason
   become one with the sum of their counts: no count is lost.
3. An exception, or a call that takes longer than the deadline, is counted, told once for each callback, and goes no
   further. A plain function that hangs holds one thread; nothing is called beside it.
4. Nothing is traced in a callback.
5. A notice whose callback was cut off by the end of its event loop is told again on the next one.
"""

from __future__ import annotations

import _thread
import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Literal

import msgspec

from .._diagnostics import Diagnostics
from ._tasks import create_task

__all__ = ["Callbacks", "DeliveryNotice", "NoticeCallback"]

MOST_WAITING = 256
"""Notices that wait one by one; more are summed up."""
MOST_SUMS = 256
"""Different kinds, lanes and reasons that are summed up; exporters may invent reasons. What comes then counts as `OTHER`."""
OTHER = "other"
DEADLINE = 5.0
"""Seconds for one call."""
_LOOK_AGAIN = 0.01
"""Seconds; only while a shutdown waits."""

Kind = Literal["drop", "reject", "spool", "recover"]


class DeliveryNotice(msgspec.Struct, frozen=True, kw_only=True):
    """What a callback is given."""

    kind: Kind
    lane: str = ""
    """The exporter's name; empty for spans that were dropped before any lane had them."""
    reason: str = ""
    """As in the receipt: "evicted", "backend_rejected", …"""
    count: int
    """How many spans."""
    detail: str = ""
    """What the far side said; of several notices that were summed up, the first."""
    first: int | None = None
    """The number of the first record in its log, where it is known."""
    journal_id: str = ""
    """Names the log, as in the keys of requests."""


NoticeCallback = Callable[[DeliveryNotice], object]


class Callbacks:
    """The callbacks of one tracer. `on_error` is called with what a callback raised; `new_context` makes the context that
    callbacks run in; `deadline` is in seconds."""

    def __init__(
        self,
        *,
        on_drop: NoticeCallback | None = None,
        on_reject: NoticeCallback | None = None,
        on_spool: NoticeCallback | None = None,
        on_recover: NoticeCallback | None = None,
        diagnostics: Diagnostics,
        on_error: Callable[[BaseException], object] = lambda error: None,
        new_context: Callable[[], Context] = Context,
        deadline: float = DEADLINE,
    ) -> None:
        given = {"drop": on_drop, "reject": on_reject, "spool": on_spool, "recover": on_recover}
        self._functions = {kind: function for kind, function in given.items() if function is not None}
        self._diagnostics = diagnostics
        self._on_error = on_error
        self._new_context = new_context
        self._deadline = deadline
        self._told_errors: set[str] = set()
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """Forget the parent's loop, threads and notices: the parent tells of those."""
        self._lock = threading.RLock()  # a signal handler may tell of something too
        self._waiting: deque[DeliveryNotice] = deque()
        self._sums: dict[tuple[str, str, str], DeliveryNotice] = {}
        self._current: DeliveryNotice | None = None
        self._task: asyncio.Task[None] | None = None
        self._calls: dict[str, Future[Any]] = {}

    def wants(self, kind: Kind) -> bool:
        """Whether there is a callback for it: who has to work for a notice asks first."""
        return kind in self._functions

    def tell(self, notice: DeliveryNotice) -> None:
        """Have the callback called, soon, if there is one and the count is not 0. Never waits, never raises.

        Outside an event loop the notice waits for the next call in one, for `drained()` or for `tell_here()`.
        """
        if notice.kind not in self._functions or notice.count <= 0:
            return
        with self._lock:
            self._add(notice)
        loop = asyncio._get_running_loop()
        if loop is not None:
            self._run_on(loop)

    async def drained(self, timeout: float) -> bool:
        """Return when every notice was told, or after `timeout` seconds: whether it was."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while self._has_more() or self._current is not None:
            self._run_on(loop)
            if loop.time() >= end:
                return False
            await asyncio.sleep(_LOOK_AGAIN)
        return True

    def tell_here(self) -> None:
        """Call what waits in this thread, at the end of a process where nothing else can be started. Coroutine functions
        are not called. Blocks for as long as the callbacks take."""
        while (notice := self._next()) is not None:
            function = self._functions[notice.kind]
            if not _is_coroutine_function(function):
                _, error = _call(self._new_context(), function, notice)
                if error is not None:
                    self._failed(notice.kind, error)
            self._current = None

    # The queue ---------------------------------------------------------------------------------------------------

    def _add(self, notice: DeliveryNotice) -> None:
        if len(self._waiting) < MOST_WAITING and not self._sums:
            self._waiting.append(notice)
            return
        key = (notice.kind, notice.lane, notice.reason)
        if key not in self._sums and len(self._sums) >= MOST_SUMS:
            key = (notice.kind, "", OTHER)
            notice = msgspec.structs.replace(notice, lane="", reason=OTHER, detail="", first=None)
        before = self._sums.get(key)
        if before is not None:
            notice = msgspec.structs.replace(before, count=before.count + notice.count)
        self._sums[key] = notice

    def _has_more(self) -> bool:
        return bool(self._waiting or self._sums)

    def _next(self) -> DeliveryNotice | None:
        """The notice to tell now; it stays `_current` until it was told."""
        with self._lock:
            if self._current is None:
                if not self._waiting:
                    self._waiting.extend(self._sums.values())
                    self._sums.clear()
                self._current = self._waiting.popleft() if self._waiting else None
            return self._current

    # The task ----------------------------------------------------------------------------------------------------

    def _run_on(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if self._is_running:
                return
            self._task = task = create_task(loop, self._run(), context=self._new_context(), name="asynctrace callbacks")
        asyncio._unregister_task(task)  # asyncio.run() cancels what it sees; a call that is cut off would be repeated
        task._log_destroy_pending = False  # type: ignore[attr-defined]

    @property
    def _is_running(self) -> bool:
        return self._task is not None and not self._task.done() and self._task.get_loop().is_running()

    async def _run(self) -> None:
        while (notice := self._next()) is not None:
            try:
                async with asyncio.timeout(self._deadline):
                    await self._tell_one(notice)
            except KeyboardInterrupt:
                self._current = None
                raise
            except GeneratorExit:  # the loop was closed under us
                raise
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                self._failed(notice.kind, error)  # the callback raised it
            except BaseException as error:  # noqa: BLE001  (a callback's own failure is no failure of delivery)
                self._failed(notice.kind, error)
            self._current = None

    async def _tell_one(self, notice: DeliveryNotice) -> None:
        function = self._functions[notice.kind]
        error: BaseException | None = None
        if _is_coroutine_function(function):
            answer = function(notice)
        else:
            answer, error = await self._in_thread(function, notice)
        if error is not None:  # not raised again: what ends a program must not do so from here
            self._failed(notice.kind, error)
        elif isawaitable(answer):
            await answer

    async def _in_thread(self, function: NoticeCallback, notice: DeliveryNotice) -> tuple[object, BaseException | None]:
        """A thread of its own, started below `threading`, as this may run where that was interrupted."""
        before = self._calls.get(notice.kind)
        if before is not None:  # a call that outlasted its deadline
            await asyncio.wrap_future(before)
        call: Future[Any] = Future()
        call.set_running_or_notify_cancel()  # a deadline ends the waiting, not the call
        self._calls[notice.kind] = call
        arguments = (call, self._new_context(), function, notice)
        try:
            _thread.start_new_thread(_call_and_tell, arguments)
        except RuntimeError:  # the interpreter is shutting down
            _call_and_tell(*arguments)
        answer: tuple[object, BaseException | None] = await asyncio.wrap_future(call)
        return answer

    def _failed(self, kind: str, error: BaseException) -> None:
        self._on_error(error)
        if kind not in self._told_errors:
            self._told_errors.add(kind)
            self._diagnostics.error("delivery.callback_failed", callback=f"on_{kind}", error=repr(error))


def _call_and_tell(call: Future[Any], context: Context, function: NoticeCallback, notice: DeliveryNotice) -> None:
    call.set_result(_call(context, function, notice))


def _call(context: Context, function: NoticeCallback, notice: DeliveryNotice) -> tuple[object, BaseException | None]:
    try:
        return context.run(function, notice), None
    except BaseException as error:  # noqa: BLE001  (told where the call was asked for)
        return None, error


def _is_coroutine_function(function: NoticeCallback) -> bool:
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(type(function), "__call__", None))  # noqa: B004
