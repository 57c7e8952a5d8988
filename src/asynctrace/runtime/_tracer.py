"""The tracer: a recorder with a life.

    made ── first span, start() ──▶ running ── shutdown() ──▶ closing ── open spans ended or cut, drained ──▶ closed

It owns one span log and the lanes that empty it. Starting is only a courtesy: the first span starts what is needed, on
the running loop, or in a thread of its own where there is none.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Literal
from uuid import uuid4

import msgspec

from .._contracts import AttributeValue, Clock, Exporter, IdSource, Receipt
from .._diagnostics import Diagnostics
from .._errors import DeliveryError, DeliveryTimeout, MisuseError
from ..delivery import (
    DeliveryOptions,
    LaneStatistics,
    NoticeCallback,
    create_stubborn_task,
)
from ..spanlog import SpanLog, WhenFull
from ..tracing import ALWAYS_OFF, ComponentTraceContext, Limits, MaskOption, Recorder, Sampler
from ..tracing._component import ENDED
from ..tracing._open_spans import OpenSpans
from . import _fork, _registry
from ._environment import read_environment
from ._journal import JournalOptions
from ._loops import run_privately
from ._options import (
    Settings,
    callbacks_of,
    check_seam,
    check_types,
    exporters_of,
    journal_of,
    named,
    named_in,
    policy_of,
    propagators_of,
    seconds,
    whole,
)
from ._parts import lane_context, make_parts
from ._sources import SystemClock
from ._travel import Absent, Described, deliver_task, describe, tracer_here

__all__ = ["Statistics", "Tracer"]

_CAPACITY_BYTES = 64 * 1024 * 1024
_SMALLEST_CAPACITY = 64 * 1024
_SHUTDOWN_TIMEOUT = 10.0
_CLOSE_TIMEOUT = 5.0
_GRACE = 1.0
"""Seconds beyond the deadline of a shutdown for the spans that the deadline itself ended, and for closing."""


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """A tracer at one moment."""

    open: int = 0
    """Spans entered and not ended yet."""
    appended: int = 0
    """Records the span log has taken since the start."""
    held_bytes: int = 0
    """Memory held by the span log's segments."""
    held_bytes_peak: int = 0
    late_calls: dict[str, int] = {}
    """Calls on components that had ended, by name: they did nothing."""
    ignored_contexts: dict[str, int] = {}
    """Callers' contexts that could not be used, by reason: `malformed`, `too_large`, `newer_version`; and `baggage`, of which
    not all could be."""
    internal_errors: dict[str, int] = {}
    """Errors inside tracing, by type: contained, each cost at most one field or one span."""
    lanes: dict[str, LaneStatistics] = {}
    journal: str = "memory: journal=False"
    """Whether there is a journal, of which kind, and why."""
    journal_troubles: dict[str, int] = {}
    """Errors of its file system, by kind: from then on records are kept in memory, until it works again."""
    unnoted: int = 0
    """Open spans that found no place in the journal's slab: they are only lost with their process."""


class Tracer(Recorder):
    """Traces one service, and can tell what became of every span.

        async with Tracer(service="shop", exporters=[OTLPExporter("http://127.0.0.1:4318")]) as tracer:
            async with tracer.trace("checkout"): …

    `exporters`: None is one `OTLPExporter` as the `OTEL_*` variables say, by default to http://127.0.0.1:4318.
    `capacity_bytes`, `capacity_spans`: the bound of the span log (64 MiB, no count). `when_full`: `"drop_newest"`,
    `"drop_oldest"`, `"wait"` or `WaitForRoom(timeout=…)`. `shutdown_timeout`: seconds. `mask`: None for the built-in
    rules, a function `(key, text) -> text` that comes after them, or False. `journal`: where what has ended outlives the
    process: `"auto"` in the state directory if that is possible, True or a path for one that must be, False for none;
    `sync` seconds between two syncs to its disk. `when_full="journal"` lets the log grow there.
    `propagators`: the formats of `inject()` and `extract()`, of `"tracecontext"`, `"baggage"` (these two by default),
    `"b3"` and `"b3multi"`. Raises `ConfigurationError` or `TypeError` for what cannot work, here and not later.
    """

    __slots__ = (
        "_callbacks",
        "_dead_letters",
        "_delivery",
        "_given",
        "_has_children",
        "_ids",
        "_is_default",
        "_journaling",
        "_key",
        "_life_lock",
        "_log",
        "_log_id",
        "_parent_log",
        "_pickled",
        "_settings",
        "_shutdown_outcome",
        "_shutdown_task",
        "_shutdown_timeout",
        "service",
    )

    def __init__(
        self,
        service: str | None = None,
        exporters: Sequence[Exporter] | None = None,
        *,
        journal: Literal["auto"] | bool | str | PathLike[str] | JournalOptions = "auto",
        sync: float | None = None,
        when_full: WhenFull | str = "drop_newest",
        capacity_bytes: int = _CAPACITY_BYTES,
        capacity_spans: int | None = None,
        shutdown_timeout: float = _SHUTDOWN_TIMEOUT,
        mask: MaskOption = None,
        limits: Limits | None = None,
        sampler: Sampler | None = None,
        propagators: Sequence[str] | None = None,
        resource: Mapping[str, AttributeValue] | None = None,
        delivery: DeliveryOptions | None = None,
        on_drop: NoticeCallback | None = None,
        on_reject: NoticeCallback | None = None,
        on_spool: NoticeCallback | None = None,
        on_recover: NoticeCallback | None = None,
        clock: Clock | None = None,
        ids: IdSource | None = None,
    ) -> None:
        check_types(service=(service, str), limits=(limits, Limits), delivery=(delivery, DeliveryOptions))
        check_types(resource=(resource, Mapping))
        check_seam("sampler", sampler, "is_sampled")
        check_seam("clock", clock, "time_ns", "monotonic_ns")
        check_seam("ids", ids, "trace_id", "span_id")
        environment = read_environment()
        self.service = service or named_in(resource) or environment.service or "unknown_service"
        self._shutdown_timeout = seconds("shutdown_timeout", shutdown_timeout)
        clock = clock or SystemClock()
        journaling = journal_of(journal, sync, environment)
        policy, capacity = policy_of(when_full, journaling, whole("capacity_bytes", capacity_bytes, _SMALLEST_CAPACITY))
        self._is_default = self._has_children = False
        self._key = str(uuid4())
        self._pickled: tuple[dict[str, bytes], str] | None = None
        given: dict[str, Any] = {
            "service": self.service,
            "exporters": exporters,
            "journal": journal,
            "sync": sync,
            "when_full": when_full,
            "capacity_bytes": capacity_bytes,
            "capacity_spans": capacity_spans,
            "shutdown_timeout": shutdown_timeout,
            "mask": mask,
            "limits": limits,
            "sampler": sampler,
            "propagators": propagators,
            "resource": resource,
            "delivery": delivery,
            "on_drop": on_drop,
            "on_reject": on_reject,
            "on_spool": on_spool,
            "on_recover": on_recover,
        }
        self._given = {name: value for name, value in given.items() if value is not None}
        self._settings = Settings(
            capacity_bytes=capacity,
            capacity_spans=None if capacity_spans is None else whole("capacity_spans", capacity_spans, 1),
            when_full=policy,
            exporters=named(exporters_of(exporters, environment, clock)),
            delivery=delivery or DeliveryOptions(),
            service=self.service,
            resource=resource or {},
            resource_of_environment=environment.resource,
            ids=ids,
            diagnostics=Diagnostics(clock.monotonic_ns),
            clock=clock,
            journal=journaling,
            callbacks=callbacks_of(on_drop=on_drop, on_reject=on_reject, on_spool=on_spool, on_recover=on_recover),
        )
        self._parent_log = _fork.line_of_descent(self._settings)  # `JournalMeta.parent`: counts until that is opened
        super().__init__(
            sink=self._own(),
            clock=clock,
            ids=self._ids,
            diagnostics=self._settings.diagnostics,
            limits=limits,
            mask=mask,
            sampler=ALWAYS_OFF if environment.is_disabled else sampler or environment.sampler,
            propagators=propagators_of(propagators, environment, self._settings.diagnostics),
            cancelled_types=(asyncio.CancelledError,),
        )
        self._slab = self._journaling
        _registry.add(self)
        _fork.deliver_at_the_end_of_a_child()

    def _own(self) -> SpanLog:
        """Make what belongs to this process and to no other: log, lanes, journal, randomness. A forked child calls it
        again, before any other code of the child runs."""
        parts = make_parts(self, self._settings, self._shutdown_timeout)
        self._ids, self._log, self._delivery, self._journaling = parts.ids, parts.log, parts.delivery, parts.journaling
        self._callbacks, self._dead_letters, self._log_id = parts.callbacks, parts.dead_letters, parts.log_id
        self._life_lock = threading.RLock()  # re-entrant: a signal may end the process in the middle of a shutdown
        self._shutdown_outcome: concurrent.futures.Future[Receipt] | None = None
        self._shutdown_task: asyncio.Task[None] | None = None
        return self._log

    def _open_journal(self) -> None:
        if self._journaling is not None:
            self._journaling.open()

    def _leave_journal(self) -> None:
        if self._journaling is not None:
            self._journaling.end()

    # Starting ----------------------------------------------------------------------------------------------------

    async def start(self) -> Tracer:
        """Give the lanes this loop now, rather than at the first span. Idempotent."""
        self._open_journal()
        self._delivery.ensure_running()
        return self

    def start_sync(self) -> Tracer:
        """For programs without a loop: start the thread that owns one. Idempotent."""
        if asyncio._get_running_loop() is not None:
            raise MisuseError("an event loop is running in this thread: await tracer.start()")
        self._open_journal()
        self._delivery.ensure_running()
        return self

    async def __aenter__(self) -> Tracer:
        return await self.start()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.shutdown()

    def __enter__(self) -> Tracer:
        if asyncio._get_running_loop() is not None:
            raise MisuseError("an event loop is running in this thread: async with Tracer(…) as tracer: …")
        return self.start_sync()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown_sync()

    # Waiting -----------------------------------------------------------------------------------------------------

    async def flush(self, timeout: float | None = None, *, trace_id: str | None = None) -> Receipt:
        """Return when every span that ended before this call is settled in every lane.

        `timeout` in seconds; None waits for as long as it takes. `trace_id` (32 hex digits) waits only as far as the last
        span of that trace. Raises `DeliveryTimeout`, which carries the receipt and loses nothing, and `DeliveryError`
        when delivery fails inside. A refusal by the far side is no error: it is in the receipt.
        """
        if timeout is not None:
            timeout = seconds("timeout", timeout)
        self._open.sift()  # lost handles end here, and their spans are part of this flush
        target = self._log.appended if trace_id is None else self._end_of_trace(trace_id)
        await self._delivery.flush(target, timeout)
        return await self._receipt_aside()

    def flush_sync(self, timeout: float | None = None, *, trace_id: str | None = None) -> Receipt:
        """`flush()` for code without a loop; in a running loop it raises `MisuseError` rather than dead-lock."""
        return run_privately(
            lambda: self.flush(timeout, trace_id=trace_id),
            instead="await tracer.flush()",
            before_close=self._delivery.leave_loop,
        )

    async def shutdown(self, timeout: float | None = None) -> Receipt:
        """Take no new spans, let open ones end, deliver, close. Never raises because of a far side.

        Open spans may end until the deadline (`timeout` in seconds, by default `shutdown_timeout`); those that do not are
        cut, deepest first, ending `incomplete`. What cannot be delivered in time is counted `dropped` for the reason
        `shutdown`, and one warning carries the receipt. Idempotent: every call gets the same receipt.
        """
        return await self._shutdown(timeout, None)

    async def _shutdown(self, timeout: float | None, patience: float | None) -> Receipt:
        """Open spans may end for `patience` seconds; None: until the deadline."""
        allowed = self._shutdown_timeout if timeout is None else seconds("timeout", timeout)
        patience = allowed if patience is None else min(patience, allowed)
        with self._life_lock:
            is_first = self._shutdown_outcome is None
            outcome = self._shutdown_outcome = self._shutdown_outcome or concurrent.futures.Future()
        if is_first:
            outcome.set_running_or_notify_cancel()  # from now on no waiter can cancel it
            # A task of its own, because the first caller may be cancelled while others wait.
            self._shutdown_task = create_stubborn_task(
                self._shut_down(allowed, patience, outcome, self._around()),
                context=lane_context(),
                name="asynctrace shutdown",
            )
        return await asyncio.shield(asyncio.wrap_future(outcome))

    def shutdown_sync(self, timeout: float | None = None) -> Receipt:
        """`shutdown()` for code without a loop; in a running loop it raises `MisuseError` rather than dead-lock."""
        return run_privately(
            lambda: self.shutdown(timeout),
            instead="await tracer.shutdown()",
            before_close=self._delivery.leave_loop,
        )

    # Books -------------------------------------------------------------------------------------------------------

    def receipt(self) -> Receipt:
        """What became of every span so far, without waiting. Safe from any thread. Once this process has forked, it reads
        the journals of its children, some milliseconds for each that lives."""
        journaling = self._journaling if self._has_children else None
        return self._receipt(0 if journaling is None else len(journaling.undelivered_children()))

    def _receipt(self, children: int) -> Receipt:
        receipt = self._delivery.receipt()
        recovered = 0 if self._journaling is None else self._journaling.recovered
        if recovered or children:
            receipt = msgspec.structs.replace(receipt, recovered=recovered, children=children)
        return receipt

    async def _receipt_aside(self) -> Receipt:
        """`receipt()`, but the journals of children are read beside the event loop."""
        journaling = self._journaling if self._has_children else None
        return self._receipt(0 if journaling is None else len(await journaling.look_at_children()))

    def statistics(self) -> Statistics:
        """Counters of this tracer and its lanes, without waiting. Safe from any thread."""
        return Statistics(
            open=len(self._open),
            appended=self._log.appended,
            held_bytes=self._log.held_bytes,
            held_bytes_peak=self._log.peak_bytes,
            late_calls=dict(self._late_calls),
            ignored_contexts=dict(self._ignored_contexts),
            internal_errors=dict(self._errors),
            lanes=dict(self._delivery.lane_statistics()),
            **({} if self._journaling is None else self._journaling.statistics()),
        )

    def __repr__(self) -> str:
        return f"<Tracer {self.service!r} {self.receipt()!r}>"

    # Ending ------------------------------------------------------------------------------------------------------

    async def _shut_down(
        self,
        allowed: float,
        patience: float,
        outcome: concurrent.futures.Future[Receipt],
        callers: set[ComponentTraceContext],
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + allowed
        self._is_closed = self._is_thinned = True
        try:
            await self._deliver_the_rest(deadline, deadline - allowed + patience, loop, callers)
            if self._journaling is not None:
                await self._journaling.finish_recovery(max(0.0, deadline - loop.time()))
        except Exception as error:  # noqa: BLE001  (a defect of ours must not keep a program from ending)
            self._failed(error)
        finally:
            self._log.close("after_shutdown")
            _registry.remove(self)
            try:
                await self._delivery.finish("shutdown", max(_GRACE, min(_CLOSE_TIMEOUT, deadline - loop.time())))
            finally:
                self._is_over(outcome)

    def _is_over(self, outcome: concurrent.futures.Future[Receipt]) -> None:
        """Leave the journal, tell those who wait, and once whoever reads the log."""
        _registry.remove(self)
        self._leave_journal()
        receipt = self.receipt()
        if outcome.done():
            return
        if not receipt.complete and receipt.ended:
            self._diagnostics.warning("runtime.shutdown_incomplete", receipt=repr(receipt))
        outcome.set_result(receipt)

    async def _deliver_the_rest(
        self, deadline: float, cut_at: float, loop: asyncio.AbstractEventLoop, callers: set[ComponentTraceContext]
    ) -> None:
        self._delivery.press(self._log.appended, deadline - loop.time())
        await self._open_spans_ended(cut_at, loop, callers)
        grace = _GRACE if self._cut_open() else 0.0
        try:
            await self._delivery.flush(self._log.appended, max(deadline - loop.time(), grace, 0.0))
        except DeliveryTimeout:
            return  # the receipt and the warning say what is left
        except DeliveryError as error:
            self._failed(error)

    async def _open_spans_ended(
        self, deadline: float, loop: asyncio.AbstractEventLoop, callers: set[ComponentTraceContext]
    ) -> None:
        """Wait until no span is open but those around the caller, which cannot end while it waits; or the deadline."""
        one_more = asyncio.Event()
        append = self._sink.append_nowait

        def append_and_tell(record: bytes) -> bool:
            stored = append(record)
            loop.call_soon_threadsafe(one_more.set)
            return stored

        self._append_nowait = append_and_tell
        try:
            async with asyncio.timeout_at(deadline):
                while any(component not in callers for component in self._open):
                    await one_more.wait()
                    one_more.clear()
        except TimeoutError:
            return
        finally:
            self._append_nowait = append

    def _end_of_trace(self, trace_id: str) -> int:
        try:
            needle = bytes.fromhex(trace_id)
        except (ValueError, TypeError):
            needle = b""
        if len(needle) != 16:
            raise TypeError(f"trace_id has 32 hex digits, flush(trace_id=run.trace_id), not {trace_id!r:.80}")
        last = self._log.last_number_of(needle, self._delivery.settled)
        return 0 if last is None else last + 1

    def _around(self) -> set[ComponentTraceContext]:
        """The components that the calling code runs in."""
        around: set[ComponentTraceContext] = set()
        run = self.current_trace()
        component = self.current_component() or (run._root if run is not None else None)
        while component is not None:
            around.add(component)
            component = component._parent
        return around

    # Other processes ---------------------------------------------------------------------------------------------

    def __reduce__(self) -> tuple[Callable[[Described], Tracer | Absent], tuple[Described]]:
        return tracer_here, (describe(self),)

    def _task_ended(self) -> None:
        """In a process that may end with its next task: what this one traced is delivered before its result is."""
        if self._delivery.settled < self._log.appended and asyncio._get_running_loop() is None:
            deliver_task(self)

    def _begin_anew(self) -> None:
        """In a forked child: leave everything to the parent that is the parent's, and make one's own.

        Spans that were open at the fork have ended as far as this process is concerned: they can still be parents, and
        leaving their blocks records nothing, but counts in `late_calls`.
        """
        for component in self._open.abandon():
            component._state = ENDED
            component._place = -1
        old_log, old_delivery = self._log, self._delivery
        self._diagnostics.after_fork_in_child()
        self._parent_log = self._line_of_descent
        self._sink = self._own()
        self._slab = self._journaling
        self._append_nowait = self._log.append_nowait
        self._span_id, self._trace_id_source = self._ids.span_id, self._ids.trace_id
        self._open = OpenSpans()
        self._recent = self._open.recent
        self._begin_sampling()
        self._late_calls, self._ignored_contexts, self._errors = {}, {}, {}
        self._is_closed = self._has_children = False
        old_delivery.forget_in_child()
        old_log.after_fork_in_child()

    @property
    def _line_of_descent(self) -> str:
        """`_parent_log` of the tracers that go on for this one in child processes."""
        return "" if self._journaling is None else self._journaling.line_of_descent()

    @property
    def _has_something_to_deliver(self) -> bool:
        return self._delivery.is_needed or bool(self._open)

    def _latest(self) -> Recorder:
        return _registry.default_tracer() if self._is_default else self
