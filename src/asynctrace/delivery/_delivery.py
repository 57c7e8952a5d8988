"""Delivery: all lanes of one tracer, where they run, and those who wait for them.

    append ─▶ on_ready() ─▶ home alive? ─ yes ─▶ wake its drivers
                                        └ no ──▶ a running loop in this thread? its loop becomes the home
                                                 else a thread with a loop of its own

Promises:

1. `flush()` returns when every lane has settled everything below a fixed watermark, and not before.
2. Whoever waits, waits for its own watermark: cancelling one waiter disturbs no other and no lane.
3. A loop that ends takes no span with it: its lanes drain, and what is left moves to the next home.
4. Records are freed once every lane is past them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from weakref import WeakSet

from .._contracts import Exporter, LaneReceipt, Receipt
from .._diagnostics import Diagnostics
from .._errors import DeliveryError, DeliveryTimeout
from ..spanlog import ReadableLog
from ._batch import Origin, RecordBatch
from ._callbacks import Callbacks
from ._dead_letters import DeadLetters
from ._driver import LaneDriver
from ._home import Home
from ._lane import Lane
from ._lane_state import LaneStatistics
from ._lane_store import LaneStore, StoredLane
from ._losses import Losses
from ._open_spans import Heartbeat, OpenSpanSource
from ._options import DeliveryOptions
from ._waiters import Waiter, Waiters
from ._window import Window

__all__ = ["Delivery"]

_NEVER = 1 << 62

_CLOSE_TIMEOUT = 5.0
"""Seconds that an exporter may take to close."""

_ANSWER_TIMEOUT = 2.0
"""Seconds in which the lanes' own loop must get to a call; one that does not is taken for hung."""

_SETTLING_TIME = 1.0
"""Seconds after which a loop whose lanes were cancelled, and which still runs, gets its lanes back."""


_inherited: list[object] = []
"""Deliveries of a parent process. Their tasks must not be collected in the child: what they would do at their end, they
would do to the parent's loop and connections."""


class Delivery:
    """Moves what `log` holds to `exporters`, one lane each, by name.

    `origin` names the log for ever, in the keys of its batches; `new_context` makes the context that lanes run in;
    `drain_timeout` is how long (seconds) lanes that are cancelled may go on to drain; `on_home` is called in each loop
    that the lanes move to; `open_spans` is asked for the spans that are open, where a far side wants to know.
    """

    def __init__(
        self,
        log: ReadableLog,
        exporters: Sequence[tuple[str, Exporter]],
        *,
        options: DeliveryOptions,
        origin: Origin,
        drain_timeout: float,
        diagnostics: Diagnostics,
        random: Callable[[], float],
        new_context: Callable[[], Context],
        on_home: Callable[[asyncio.AbstractEventLoop], object] = lambda loop: None,
        dead_letters: DeadLetters | None = None,
        callbacks: Callbacks | None = None,
        open_spans: OpenSpanSource | None = None,
    ) -> None:
        self._log = log
        self._options = options
        self._origin = origin
        self._on_home = on_home
        self._drain_timeout = drain_timeout
        self._diagnostics = diagnostics
        self._new_context = new_context
        self._lanes = [(Lane(name, log, options, random), exporter) for name, exporter in exporters]
        self._lock = threading.RLock()
        self._home: Home | None = None
        self._is_moving = False
        self._is_finished = False
        self._has_run = False
        self.when_moved: Callable[[], object] | None = None
        """Called once, when a thread that was giving the lanes a home has left the lock for it."""
        self._left_loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        self._waiters = Waiters()
        self._told_losses = 0
        self._losses = Losses(origin, dead_letters, callbacks)
        self._losses.watch(lane for lane, _ in self._lanes)
        self._is_kept = self._is_resumed = False
        self._open_spans = open_spans

    # With a journal ----------------------------------------------------------------------------------------------

    def keep_in(self, stores: Mapping[str, LaneStore]) -> None:
        """Let each lane write down in its store, from the first record on, what must outlive this process."""
        for lane, _ in self._lanes:
            lane.keep_in(stores[lane.name])
        self._is_kept = True

    def resume(self, stores: Mapping[str, StoredLane]) -> None:
        """Go on where the lanes of a dead process stood. Before anything else."""
        for lane, _ in self._lanes:
            lane.resume(stores[lane.name])
        self._is_kept = self._is_resumed = True
        receipt = self.receipt()
        self._told_losses = receipt.dropped + receipt.rejected  # told by the process that had them
        self._losses.pass_over(receipt, {})
        for lane, _ in self._lanes:
            lane.repeat_windows(stores[lane.name])

    @property
    def is_settled(self) -> bool:
        """Nothing waits and nothing is under way, in any lane."""
        return all(lane.is_settled for lane, _ in self._lanes)

    # Waking ------------------------------------------------------------------------------------------------------

    def on_ready(self) -> None:
        """Records are ready. From any thread, a signal handler, a finaliser; never raises, never waits."""
        self._log.wake_at = _NEVER
        try:
            home = self._home
            if home is None or not home.is_alive or not home.call(home.wake):
                self.ensure_running()
        except Exception as error:  # noqa: BLE001  (the traced program is what called: it must not see this)
            self._diagnostics.error("delivery.cannot_start", error=repr(error))

    def ensure_running(self) -> None:
        """Give the lanes a home if they have none: the loop that runs in this thread, or a thread of their own."""
        with self._lock:
            if self._is_moving or self._is_finished or (self._home is not None and self._home.is_alive):
                return
            self._is_moving = True
            try:
                self._move()
            finally:
                self._is_moving = False
        if self.when_moved is not None and not self._lock._is_owned():  # type: ignore[attr-defined]
            callback, self.when_moved = self.when_moved, None
            callback()

    def _move(self) -> None:
        home = Home(self._make_drivers, self._home_ended)
        loop = asyncio._get_running_loop()
        if loop is not None and loop in self._left_loops:
            return  # it is ending: what is left waits for the next loop
        self._home = home
        self._has_run = True
        if loop is not None:
            home.move_in(loop)
            return
        try:
            home.move_into_own_thread()
        except RuntimeError:  # the interpreter is shutting down: the last flush will find the records
            self._home = None

    def _make_drivers(self, loop: asyncio.AbstractEventLoop) -> Sequence[LaneDriver]:
        loop.call_soon(self._on_home, loop)
        return [
            LaneDriver(
                lane,
                exporter,
                loop=loop,
                context=self._new_context(),
                options=self._options,
                make_batch=self._make_batch,
                diagnostics=self._diagnostics,
                drain_timeout=self._drain_timeout,
                on_progress=self._progressed,
                on_wait=self._set_wake,
                on_broken=self._broke,
                make_heartbeat=self._make_heartbeat,
            )
            for lane, exporter in self._lanes
        ]

    def _home_ended(self, home: Home) -> None:
        """The drivers have left their loop, because it ends or somebody cancelled every task in it."""
        with self._lock:
            if self._home is home:
                self._home = None
        if self._is_finished:
            return
        self._log.wake_at = self._log.appended + 1
        waiting_loop = self._waiters.a_running_loop()
        if waiting_loop is not None:
            waiting_loop.call_soon_threadsafe(self.ensure_running)
        self._left_loops.add(home.loop)
        if not home.loop.is_closed():
            home.loop.call_later(_SETTLING_TIME, self._come_back, home.loop)

    def _come_back(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop goes on after all."""
        self._left_loops.discard(loop)
        if not all(lane.is_settled for lane, _ in self._lanes):
            self.ensure_running()

    # Flushing ----------------------------------------------------------------------------------------------------

    async def flush(self, target: int, timeout: float | None) -> None:
        """Return when every lane has settled everything below `target`.

        Raises `DeliveryTimeout` after `timeout` seconds (None: waits for as long as it takes, because giving up would be
        a silent loss), and `DeliveryError` when a lane cannot go on for a reason of its own.
        """
        if self._is_settled(target) or self._is_finished:  # finished: what is left will not be settled here any more
            return
        waiter = Waiter(target)
        self._waiters.add(waiter)
        try:
            self.press(target, timeout)
            async with asyncio.timeout(timeout):
                await waiter.future
        except TimeoutError:
            if self._is_settled(target):
                return
            receipt = self.receipt()
            raise DeliveryTimeout(f"flush() did not finish within {timeout} s: {receipt!r}", receipt) from None
        finally:
            self._waiters.remove(waiter)

    def press(self, target: int, timeout: float | None = None) -> None:
        """Begin to flush, without waiting: lanes stop lingering, and a blocked one tries at once."""
        self._left_loops.discard(asyncio.get_running_loop())
        now = asyncio.get_running_loop().time()
        for lane, _ in self._lanes:
            lane.flush(target)
            if timeout is not None:
                lane.hurry(now + timeout, now)
        home = self._home
        if home is None or not home.is_alive or not home.call(home.wake):
            self.ensure_running()
        if self._is_settled(target):  # the last answer came before this waiter was known
            self._waiters.resolve_below(target)

    def _is_settled(self, target: int) -> bool:
        return all(lane.cursor >= target for lane, _ in self._lanes)

    async def leave_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Leave `loop`, which is the running one and about to end; what is not settled waits for the next."""
        home = self._home
        if home is None or home.loop is not loop or not home.is_alive:
            return
        left: asyncio.Future[None] = loop.create_future()
        home.on_left(lambda: _resolve(left))
        home.leave(close=False, close_timeout=_CLOSE_TIMEOUT)
        await left

    @property
    def settled(self) -> int:
        """Every lane is past this record."""
        return min((lane.cursor for lane, _ in self._lanes), default=self._log.appended)

    @property
    def is_needed(self) -> bool:
        """Something is not settled, or lanes are running."""
        return not self._is_settled(self._log.appended) or (self._home is not None and self._home.is_alive)

    # Finishing ---------------------------------------------------------------------------------------------------

    async def finish(self, reason: str, close_timeout: float = _CLOSE_TIMEOUT) -> None:
        """Stop every lane, count what is left as dropped for `reason`, close the exporters.

        With a journal nothing is dropped: what is left stays there. Giving up the requests under way, and then closing,
        may take `close_timeout` seconds each.
        """
        with self._lock:
            self._is_finished = True
            home = self._home
        if home is None or not home.is_alive or not await self._finish_at_home(home, reason, close_timeout):
            self._stop_lanes(reason)
            if self._has_run:
                await self._close_exporters(close_timeout)
        await self._losses.wait_until_told(close_timeout)

    async def _finish_at_home(self, home: Home, reason: str, close_timeout: float) -> bool:
        """Finish in the lanes' own loop, which may be another one; False when it does not answer."""
        loop = asyncio.get_running_loop()
        left: asyncio.Future[None] = loop.create_future()

        def stop() -> None:
            home.on_left(lambda: loop.call_soon_threadsafe(_resolve, left))
            self._stop_lanes(reason)
            home.leave(close=True, close_timeout=close_timeout)

        home.call(stop)
        try:
            async with asyncio.timeout(2 * close_timeout + _ANSWER_TIMEOUT):
                await left
        except TimeoutError:
            return False
        return True

    def _stop_lanes(self, reason: str) -> None:
        for lane, _ in self._lanes:
            lane.stop(reason, keep=self._is_kept)
        receipt = self.receipt()
        self._told_losses = receipt.dropped + receipt.rejected  # the shutdown tells of them, once
        if not self._is_resumed:  # what a dead process spooled, stays spooled
            self._losses.tell_spooled(receipt)
        self._progressed()

    async def _close_exporters(self, close_timeout: float) -> None:
        for lane, exporter in self._lanes:
            try:
                async with asyncio.timeout(close_timeout):
                    await exporter.aclose()
            except Exception as error:  # noqa: BLE001  (an exporter that cannot close must not break the program)
                self._diagnostics.warning("delivery.close_failed", lane=lane.name, error=repr(error))

    # Fork --------------------------------------------------------------------------------------------------------

    def forget_in_child(self) -> None:
        """After a fork: lanes, loop and connections are the parent's, and another `Delivery` takes the place of this one."""
        self._is_finished = True
        home, self._home = self._home, None
        if home is not None:
            _inherited.append((self, home))
            home.forget_in_child()
        for _, exporter in self._lanes:
            forget = getattr(exporter, "after_fork_in_child", None)
            if forget is not None:
                forget()

    # What drivers call back --------------------------------------------------------------------------------------

    def _make_batch(self, window: Window) -> RecordBatch:
        key = self._origin.key(window.first, window.count)
        return RecordBatch(self._origin, key, window.count, window.payload, self._log.is_scoped)

    def _make_heartbeat(self, exporter: Exporter) -> Heartbeat | None:
        if self._open_spans is None:
            return None
        return Heartbeat(
            exporter, self._open_spans, lambda records: RecordBatch(self._origin, "", len(records), records)
        )

    def _progressed(self) -> None:
        for lane, _ in self._lanes:
            self._losses.take_rejections(lane)
        settled = self.settled
        self._log.release(settled, max((lane.cursor for lane, _ in self._lanes), default=settled))
        self._waiters.resolve_below(settled)
        self._tell_losses()

    def _set_wake(self) -> None:
        """The appending threads call again when the first lane has enough; or at once, if it has by now."""
        now = asyncio.get_running_loop().time()
        self._log.wake_at = wake_at = min((lane.wake_at(now) for lane, _ in self._lanes), default=_NEVER)
        if self._log.appended >= wake_at:
            self._log.wake_at = _NEVER
            home = self._home
            if home is not None:
                home.call(home.wake)
        self._tell_losses()

    def _broke(self, error: Exception) -> None:
        receipt = self.receipt()
        self._waiters.fail_all(
            lambda: DeliveryError(f"delivery failed inside and cannot settle the spans: {error!r}", receipt)
        )

    def _tell_losses(self) -> None:
        receipt = self.receipt()
        lost = receipt.dropped + receipt.rejected
        self._losses.tell_drops(receipt, self._log.totals()[1])
        if lost > self._told_losses:
            self._told_losses = lost
            self._diagnostics.warning(
                "delivery.loss",
                dropped=receipt.dropped_by_reason,
                rejected=receipt.rejected_by_reason,
                receipt=repr(receipt),
            )

    # Books -------------------------------------------------------------------------------------------------------

    def receipt(self) -> Receipt:
        """The balance at this moment: that of the least complete lane, and each lane's own."""
        appended, refused = self._log.totals()
        lanes = {lane.name: lane.receipt(appended, refused) for lane, _ in self._lanes}
        if not lanes:
            return _receipt_without_lanes(appended, refused)
        worst = min(lanes.values(), key=lambda lane: lane.accepted)
        fields = {field: getattr(worst, field) for field in LaneReceipt.__struct_fields__}
        return Receipt(**fields, lanes=lanes)

    def lane_statistics(self) -> Mapping[str, LaneStatistics]:
        """Each lane at this moment."""
        return {lane.name: lane.statistics() for lane, _ in self._lanes}


def _receipt_without_lanes(appended: int, refused: dict[str, int]) -> Receipt:
    dropped = dict(refused)
    if appended:
        dropped["no_exporter"] = dropped.get("no_exporter", 0) + appended
    lost = sum(dropped.values())
    return Receipt(ended=lost, dropped=lost, dropped_by_reason=dropped)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
