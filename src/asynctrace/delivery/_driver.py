"""The task that drives one lane on one event loop: what `_lane.py` decides, this file does.

    run ──▶ take windows, launch requests, wait ──▶ … ──▶ leave

    asked to stop                    leave now: requests under way are given up and their windows put back
    cancelled once                   drain first: until everything is settled and no other task is left in the loop
                                     whose spans could still come, at most for the drain timeout; then leave
    cancelled again                  leave now
    an error of our own              counted, told, and the loop goes on; three in a row fail those who wait

A request is a task that `asyncio.all_tasks()` does not show: `asyncio.run()` cancels all tasks at its end, and a request
that is cancelled half-way would have to be sent again. The driver's own task is shown, so the loop waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from inspect import isawaitable
from typing import Any
from weakref import WeakSet

from .._contracts import Batch, Exporter, ExportResult
from .._diagnostics import Diagnostics
from ._lane import Lane
from ._lane_state import LaneState
from ._open_spans import Heartbeat
from ._options import DeliveryOptions
from ._pace import Lag
from ._tasks import AtLeastOneStep, create_task
from ._window import Window

__all__ = ["LaneDriver"]

_CLOSE_TIMEOUT = 5.0
"""Seconds that an exporter may take to let go of a loop, or to close."""

_ERRORS_IN_A_ROW = 3

_ERROR_PAUSE = 0.05
"""Seconds to wait after an error of our own, so that one that stays does not hold the loop."""

_driver_tasks: WeakSet[asyncio.Task[None]] = WeakSet()


class LaneDriver:
    """Runs `lane` on the loop it is constructed in. `on_progress` is called in that loop after each answer."""

    def __init__(
        self,
        lane: Lane,
        exporter: Exporter,
        *,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        options: DeliveryOptions,
        make_batch: Callable[[Window], Batch],
        diagnostics: Diagnostics,
        drain_timeout: float,
        on_progress: Callable[[], None],
        on_wait: Callable[[], None],
        on_broken: Callable[[Exception], None],
        make_heartbeat: Callable[[Exporter], Heartbeat | None] = lambda exporter: None,
    ) -> None:
        self.lane = lane
        lane.adopt(self)
        self._exporter = exporter
        self._loop = loop
        self._context = context
        self._options = options
        self._make_batch = make_batch
        self._diagnostics = diagnostics
        self._drain_timeout = drain_timeout
        self._on_progress = on_progress
        self._on_wait = on_wait
        self._on_broken = on_broken
        self._make_heartbeat = make_heartbeat
        self._heartbeat: asyncio.Task[None] | None = None
        self._event = asyncio.Event()
        self._lag = Lag()
        self._woken_at: float | None = None
        self._flying: set[asyncio.Task[None]] = set()
        self._starting: asyncio.Task[None] | None = None
        self._leave_by: float | None = None
        self._must_close = False
        self._is_cancelled = False
        self._errors_in_a_row = 0
        self._close_timeout = _CLOSE_TIMEOUT
        self._resume_at = 0.0
        self.task: asyncio.Task[None] = create_task(
            loop, AtLeastOneStep(self._run(), self._drain), name=f"asynctrace lane {lane.name}", context=context
        )
        # A loop that is closed under its tasks has nobody left to warn; the spans wait for the next loop.
        self.task._log_destroy_pending = False  # type: ignore[attr-defined]
        _driver_tasks.add(self.task)

    def wake(self) -> None:
        """Look again: records came, an answer came, a flush began. Only from the lane's loop."""
        if self._woken_at is None:
            self._woken_at = self._loop.time()
        with suppress(RuntimeError):  # the loop was closed under a request
            self._event.set()

    def leave(self, *, close: bool, close_timeout: float = _CLOSE_TIMEOUT) -> None:
        """Leave the loop now; `close` says that the exporter will not be needed again, and may take `close_timeout`."""
        self._must_close = self._must_close or close
        self._close_timeout = close_timeout
        self._leave_by = self._loop.time()
        self.wake()

    @property
    def is_draining(self) -> bool:
        """It was cancelled and has not left."""
        return self._is_cancelled and not self.task.done()

    # The task ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._is_done():
            self._event.clear()
            self._woken_at = None
            # One instant for both: what falls due between two readings would be launched by nobody, and waited for by nobody.
            now = self._loop.time()
            try:
                if now >= self._resume_at:
                    self._launch_due(now)
                await self._wait(now)
            except asyncio.CancelledError:
                if self._is_cancelled or self._must_close:
                    self._leave_by = self._loop.time()
                self._drain()
            except Exception as error:  # noqa: BLE001  (supervised: a defect of ours must not end delivery)
                self._stumbled(error)
        await self._let_go()
        if self._is_cancelled and not self._must_close:
            raise asyncio.CancelledError

    def _launch_due(self, now: float) -> None:
        if self._leave_by is not None and now >= self._leave_by:
            return
        if self.lane.catch_up():
            self._on_progress()
        while (window := self.lane.take(now, self._lag.seconds)) is not None:
            task = create_task(self._loop, self._send(window), name="asynctrace request", context=self._context)
            asyncio._unregister_task(task)
            self._flying.add(task)
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            task.add_done_callback(self._landed)
        self._on_wait()

    async def _wait(self, now: float) -> None:
        """For a call, or until something is due, as seen from `now`."""
        waiting = self.lane.wait_time(now) if now >= self._resume_at else self._resume_at - now
        delays = [waiting, None if self._leave_by is None else max(0.0, self._leave_by - now)]
        due = [delay for delay in delays if delay is not None]
        timer = self._loop.call_at(now + min(due), self._event.set) if due else None
        try:
            await self._event.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._note_lag(timer)

    def _note_lag(self, timer: asyncio.TimerHandle | None) -> None:
        """How much later we run than we were woken, or than the timer was due: no wake-up is for this alone."""
        due, self._woken_at = self._woken_at, None
        if due is None and timer is not None:
            due = timer.when()
        if due is not None:
            self._lag.note(self._loop.time() - due)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._flying.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._diagnostics.error("delivery.exporter_exit", lane=self.lane.name, error=repr(error))

    def _is_done(self) -> bool:
        if self.lane.owner is not self:
            return True
        if self._leave_by is None:
            return False
        return self._loop.time() >= self._leave_by or (self.lane.is_settled and not self._others())

    def _drain(self) -> None:
        """Cancelled: settle what there is, and what the tasks that are cancelled with us still end."""
        self._is_cancelled = True
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        self.lane.interruptions += 1
        if self._leave_by is None:
            now = self._loop.time()
            self._leave_by = now + self._drain_timeout
            self.lane.hurry(self._leave_by, now)
        self.lane.flush_everything()
        for task in self._others():
            task.add_done_callback(self._look_again)

    def _look_again(self, task: asyncio.Task[Any]) -> None:
        self.lane.flush_everything()
        self.wake()

    def _others(self) -> list[asyncio.Task[Any]]:
        """Tasks that are cancelled too and have not ended; the task that cancelled us may be waiting for us."""
        return [task for task in asyncio.all_tasks(self._loop) if task.cancelling() and task not in _driver_tasks]

    def _stumbled(self, error: Exception) -> None:
        self.lane.interruptions += 1
        self._errors_in_a_row += 1
        self._resume_at = self._loop.time() + _ERROR_PAUSE
        self._diagnostics.error("delivery.internal_error", lane=self.lane.name, error=repr(error))
        if self._errors_in_a_row >= _ERRORS_IN_A_ROW:
            self._errors_in_a_row = 0
            self._on_broken(error)

    async def _let_go(self) -> None:
        for task in self._flying:
            task.cancel()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            await asyncio.wait([self._heartbeat], timeout=self._close_timeout)
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
        if self._flying:
            await asyncio.wait(self._flying, timeout=self._close_timeout)
        end = self._exporter.aclose if self._must_close else getattr(self._exporter, "release", None)
        if end is None:
            return
        try:
            async with asyncio.timeout(self._close_timeout):
                closing: Any = end()
                if isawaitable(closing):
                    await closing
        except Exception as error:  # noqa: BLE001  (an exporter that cannot close must not break the program)
            self._diagnostics.warning("delivery.close_failed", lane=self.lane.name, error=repr(error))

    # One request -------------------------------------------------------------------------------------------------

    async def _send(self, window: Window) -> None:
        sent_at = self._loop.time()
        try:
            result = await self._export(window)
        except BaseException:
            if self.lane.owner is self:
                self.lane.put_back(window)
            self.wake()
            raise
        if self.lane.owner is not self:
            self.wake()
            return  # this loop stood still, and the lane has moved on
        try:
            now = self._loop.time()
            state = self.lane.state
            self.lane.answered(window, result, now, now - sent_at)
            self._tell(state, result)
            self._on_progress()
            self._errors_in_a_row = 0
            if self._heartbeat is None and getattr(self._exporter, "takes_open_spans", False):
                self._tell_of_open_spans()
        except Exception as error:  # noqa: BLE001  (supervised, as above)
            self.lane.put_back(window)
            self._stumbled(error)
        finally:
            self.wake()

    def _tell_of_open_spans(self) -> None:
        """From now on; the far side asked for it."""
        heartbeat = None if self._leave_by is not None else self._make_heartbeat(self._exporter)
        if heartbeat is not None:
            task = create_task(self._loop, heartbeat.run(), name="asynctrace open spans", context=self._context)
            asyncio._unregister_task(task)  # as the requests: `asyncio.run()` does not wait for it
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            self._heartbeat = task

    async def _export(self, window: Window) -> ExportResult:
        try:
            async with asyncio.timeout(self._options.export_timeout):
                await self._started()
                answer: Any = self._exporter.export(self._make_batch(window))
                result = await answer if isawaitable(answer) else answer
        except TimeoutError:
            return ExportResult.try_again(reason="timeout")
        except asyncio.CancelledError:
            if self._leave_by is not None and self._loop.time() >= self._leave_by:
                raise
            return ExportResult.try_again(reason="cancelled")  # something below was cancelled, not the request
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  (an exporter's exception means: try again)
            return ExportResult.try_again(reason=type(error).__name__)
        if not (isinstance(result, ExportResult) and isinstance(result.reason, str)):
            return ExportResult.try_again(reason="no_export_result")
        return result

    async def _started(self) -> None:
        """The exporter's optional `start()`, once on this loop; tried again with the next request if it fails."""
        start = getattr(self._exporter, "start", None)
        if start is None:
            return
        if self._starting is None:
            self._starting = create_task(self._loop, start(), name="asynctrace start", context=self._context)
            asyncio._unregister_task(self._starting)
            self._starting._log_destroy_pending = False  # type: ignore[attr-defined]
        starting = self._starting
        try:
            await asyncio.shield(starting)
        except BaseException:
            if starting.done() and self._starting is starting:
                self._starting = None
            raise

    def _tell(self, before: LaneState, result: ExportResult) -> None:
        lane = self.lane
        if lane.state is LaneState.BLOCKED and before is not LaneState.BLOCKED:
            hint = result.detail or "nothing is dropped; check the settings"
            self._diagnostics.error("delivery.blocked", lane=lane.name, reason=result.reason, hint=hint)
        elif lane.state is LaneState.BACKOFF and before is not LaneState.BACKOFF:
            self._diagnostics.warning("delivery.retry", lane=lane.name, reason=result.reason)
