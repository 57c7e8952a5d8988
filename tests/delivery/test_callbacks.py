"""Callbacks are told of what became of spans, beside the lanes: nobody waits for them, and their failures stay theirs.

A promise is a coroutine function `check_…(make_callbacks)`; the test gives it `Callbacks`, the last tests a faulty double.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from asynctrace import DeliveryNotice, ExportResult, MisuseError, Tracer, current_component
from asynctrace._diagnostics import Diagnostics
from asynctrace.delivery import Callbacks
from asynctrace.delivery import _callbacks as module
from asynctrace.exporters import MemoryExporter, OTLPExporter
from asynctrace.testing import FaultServer
from asynctrace.testing._faults import PartialSuccess, RejectWhen

from ..patience import patient
from .harness import BROKEN, QUICK, Broken, Ticker, end_spans, until, within

pytestmark = pytest.mark.anyio

Make = Callable[..., Callbacks]


class Told(Diagnostics):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(time.monotonic_ns)
        self.events: list[str] = []

    def error(self, event: str, **fields: object) -> None:
        self.events.append(f"{event} {fields.get('callback', '')}")


def make(make_callbacks: Make, **options: Any) -> Callbacks:
    options.setdefault("diagnostics", Told())
    return make_callbacks(**options)


def drop(count: int = 1, reason: str = "refused", lane: str = "") -> DeliveryNotice:
    return DeliveryNotice(kind="drop", lane=lane, reason=reason, count=count)


# ── the callbacks alone ─────────────────────────────────────────────────────────────────────────────────────


async def check_nobody_waits(make_callbacks: Make) -> None:
    """A plain function that sleeps and a coroutine function that never ends: the loop and `tell()` go on."""
    release = threading.Event()
    never = asyncio.Event()

    async def hang(notice: DeliveryNotice) -> None:
        await never.wait()

    callbacks = make(make_callbacks, on_drop=lambda notice: release.wait(patient(2.0)), on_reject=hang)
    try:
        async with Ticker() as ticker:
            began = time.perf_counter()
            for _ in range(5):
                callbacks.tell(drop())
                callbacks.tell(DeliveryNotice(kind="reject", count=1))
            assert time.perf_counter() - began < patient(1.5), "tell() waits"
            await asyncio.sleep(0.2)
        assert ticker.longest < patient(1.0), f"the loop stood still for {ticker.longest} s"
    finally:
        release.set()
        never.set()
        await callbacks.drained(5)


async def test_nobody_waits_for_a_callback() -> None:
    await check_nobody_waits(Callbacks)


async def check_no_count_is_lost(make_callbacks: Make) -> None:
    seen: list[DeliveryNotice] = []
    callbacks = make(make_callbacks, on_drop=seen.append)
    for number in range(3000):
        callbacks.tell(drop(number % 3 + 1, reason=f"reason {number % 5}", lane=f"lane {number % 2}"))
    assert len(callbacks._waiting) <= module.MOST_WAITING, "the queue is not bounded"
    assert await callbacks.drained(10)
    assert sum(notice.count for notice in seen) == 6000, "counts are gone"
    by_lane = sum(notice.count for notice in seen if (notice.lane, notice.reason) == ("lane 1", "reason 0"))
    assert by_lane == sum(number % 3 + 1 for number in range(3000) if number % 2 == 1 and number % 5 == 0)


async def test_when_too_many_wait_they_are_summed_up_and_no_count_is_lost() -> None:
    await check_no_count_is_lost(Callbacks)


async def test_reasons_without_end_take_bounded_memory() -> None:
    seen: list[DeliveryNotice] = []
    callbacks = make(Callbacks, on_drop=seen.append)
    for number in range(2000):
        callbacks.tell(drop(reason=str(number)))
    assert len(callbacks._waiting) + len(callbacks._sums) <= module.MOST_WAITING + module.MOST_SUMS + 4
    assert await callbacks.drained(10)
    assert sum(notice.count for notice in seen) == 2000
    assert {notice.reason for notice in seen} >= {"0", "511", module.OTHER}


async def check_failures_stay_in_the_callback(make_callbacks: Make) -> None:
    told, errors, seen = Told(), list[BaseException](), list[str]()

    def broken(notice: DeliveryNotice) -> None:
        raise ValueError(notice.reason)

    async def broken_too(notice: DeliveryNotice) -> None:
        raise asyncio.CancelledError

    async def hanging(notice: DeliveryNotice) -> None:
        await asyncio.Event().wait()

    def exits(notice: DeliveryNotice) -> None:
        seen.append(notice.kind)
        raise SystemExit(3)

    callbacks = make(
        make_callbacks, on_drop=broken, on_reject=broken_too, on_spool=hanging, on_recover=exits,
        diagnostics=told, on_error=errors.append, deadline=0.1,
    )  # fmt: skip
    kinds: tuple[Any, ...] = ("drop", "reject", "spool", "recover")
    for kind in kinds * 2:
        callbacks.tell(DeliveryNotice(kind=kind, count=1))
    assert await callbacks.drained(2), "one failure ended it all"
    names = [type(error).__name__ for error in errors]
    assert sorted(names) == sorted(["ValueError", "CancelledError", "TimeoutError", "SystemExit"] * 2)
    assert sorted(told.events) == [f"delivery.callback_failed on_{kind}" for kind in sorted(kinds)], "told once each"
    assert seen == ["recover"] * 2


async def test_what_a_callback_raises_is_counted_and_told_once() -> None:
    await check_failures_stay_in_the_callback(Callbacks)


async def test_a_plain_function_that_hangs_holds_one_thread() -> None:
    release, inside = threading.Event(), list[int]()

    def hang(notice: DeliveryNotice) -> None:
        inside.append(threading.active_count())
        release.wait(10)

    callbacks = make(Callbacks, on_drop=hang, deadline=0.05)
    for _ in range(5):
        callbacks.tell(drop())
    assert await callbacks.drained(5)
    assert len(inside) == 1
    release.set()
    callbacks.tell(drop())
    assert await callbacks.drained(5)
    assert len(inside) == 2, "it is called again once it came back"


async def test_a_plain_function_may_give_an_awaitable_and_an_object_may_be_called() -> None:
    seen: list[str] = []

    async def later(notice: DeliveryNotice) -> None:
        seen.append(asyncio.current_task().get_name())  # type: ignore[union-attr]

    class Alert:
        async def __call__(self, notice: DeliveryNotice) -> None:
            seen.append(threading.current_thread().name)

    callbacks = make(Callbacks, on_drop=lambda notice: later(notice), on_reject=Alert())
    callbacks.tell(drop())
    callbacks.tell(DeliveryNotice(kind="reject", count=1))
    callbacks.tell(DeliveryNotice(kind="reject", count=0))
    callbacks.tell(DeliveryNotice(kind="spool", count=1))
    assert await callbacks.drained(5)
    assert seen == ["asynctrace callbacks", threading.current_thread().name]


def test_a_notice_that_was_cut_off_by_the_end_of_its_loop_is_told_on_the_next() -> None:
    begun: list[int] = []
    done: list[int] = []

    async def slow(notice: DeliveryNotice) -> None:
        begun.append(notice.count)
        await asyncio.sleep(0.05 if len(begun) > 1 else 30)
        done.append(notice.count)

    callbacks = make(Callbacks, on_drop=slow)

    async def first() -> None:
        callbacks.tell(drop(7))
        await until(lambda: begun)

    async def second() -> None:
        assert await callbacks.drained(5)

    asyncio.run(first())
    asyncio.run(second())
    assert (begun, done) == ([7, 7], [7])


def test_without_a_loop_notices_wait_and_can_be_told_in_place() -> None:
    seen: list[DeliveryNotice] = []

    async def never_called(notice: DeliveryNotice) -> None:
        raise Broken("called without a loop")

    callbacks = make(Callbacks, on_drop=seen.append, on_reject=never_called)
    callbacks.tell(drop(3))
    callbacks.tell(DeliveryNotice(kind="reject", count=1))
    assert seen == []
    callbacks.tell_here()
    assert [notice.count for notice in seen] == [3]


def test_where_no_thread_can_be_started_a_plain_function_is_called_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr("asynctrace.delivery._callbacks._thread.start_new_thread", refuse)
    seen: list[DeliveryNotice] = []
    callbacks = make(Callbacks, on_drop=seen.append)

    async def main() -> None:
        callbacks.tell(drop())
        assert await callbacks.drained(5)

    asyncio.run(main())
    assert len(seen) == 1


# ── a tracer's ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("option", ["on_drop", "on_reject", "on_spool", "on_recover"])
def test_what_cannot_be_called_is_a_type_error(option: str) -> None:
    with pytest.raises(TypeError, match=option):
        Tracer(service="shop", exporters=[], **{option: "print"})


async def check_each_rejection_is_told(make_tracer: Callable[..., Tracer]) -> None:
    seen: list[DeliveryNotice] = []
    async with FaultServer(default=RejectWhen(lambda span: span.name.endswith(("-3", "-7")))) as server:
        async with make_tracer(
            service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK, on_reject=seen.append
        ) as tracer:
            await end_spans(tracer, 10)
            receipt = await tracer.flush()
        server.plan(PartialSuccess(rejected=2, message="two too many"))
    assert receipt.rejected == 2
    assert sorted(notice.first or 0 for notice in seen) == [3, 7], "one notice for each culprit"
    assert {(notice.kind, notice.lane, notice.reason, notice.count) for notice in seen} == {
        ("reject", "otlp", "backend_rejected", 1)
    }
    assert {notice.detail for notice in seen} == {"400 Bad Request: a span is not acceptable"}
    assert len({notice.journal_id for notice in seen}) == 1


async def test_each_rejection_is_told_with_the_answer() -> None:
    await check_each_rejection_is_told(Tracer)


async def check_each_drop_is_told_once(make_tracer: Callable[..., Tracer]) -> None:
    """Two lanes, a log that is full: what came to no lane is told once, what each lane dropped is told for each."""
    seen: list[DeliveryNotice] = []
    async with FaultServer(default=PartialSuccess(rejected=0)) as server:
        tracer = make_tracer(
            service="shop",
            exporters=[MemoryExporter(), OTLPExporter("http://127.0.0.1:9", name="away")],
            capacity_spans=50,
            shutdown_timeout=0.3,
            delivery=QUICK,
            journal=False,
            on_drop=seen.append,
        )
        await end_spans(tracer, 200)
        receipt = await tracer.shutdown()
        assert not server.requests
    told: dict[tuple[str, str], int] = {}
    for notice in seen:
        told[notice.lane, notice.reason] = told.get((notice.lane, notice.reason), 0) + notice.count
    away = receipt.lanes["away"].dropped_by_reason
    assert set(away) == {"refused", "shutdown"}
    assert told == {("", "refused"): away["refused"], ("away", "shutdown"): away["shutdown"]}


async def test_each_drop_is_told_once() -> None:
    await check_each_drop_is_told_once(Tracer)


async def test_evictions_are_told_for_the_lane_that_lost_them() -> None:
    seen: list[DeliveryNotice] = []
    exporters = [OTLPExporter("http://127.0.0.1:9", name="away")]
    tracer = Tracer(
        service="shop", exporters=exporters, capacity_spans=50, when_full="drop_oldest", journal=False,
        shutdown_timeout=0.2, delivery=QUICK, on_drop=seen.append,
    )  # fmt: skip
    await end_spans(tracer, 500)
    receipt = await tracer.shutdown()
    evicted = sum(notice.count for notice in seen if (notice.lane, notice.reason) == ("away", "evicted"))
    assert evicted == receipt.dropped_by_reason["evicted"] > 0


async def test_nothing_is_traced_in_a_callback_and_its_errors_are_in_the_statistics() -> None:
    inside: list[object] = []
    exporter = MemoryExporter()

    class Refusing(MemoryExporter):
        async def export(self, batch: Any) -> ExportResult:
            return ExportResult(rejected=batch.count, reason="no")

    def alert(notice: DeliveryNotice) -> None:
        with tracer.trace("inside a callback"):
            inside.append(current_component())
        raise MisuseError("on purpose")

    tracer = Tracer(service="shop", exporters=[exporter, Refusing(name="refusing")], journal=False, on_reject=alert)
    async with tracer:
        await end_spans(tracer, 1)
        await tracer.flush()
    assert inside == [None]
    assert {span.name for span in exporter.spans} == {"span-0"}
    assert tracer.statistics().internal_errors == {"MisuseError": 1}


async def check_no_lane_waits(make_tracer: Callable[..., Tracer]) -> None:
    release = threading.Event()

    class Picky(MemoryExporter):
        async def export(self, batch: Any) -> ExportResult:
            await super().export(batch)
            return ExportResult(accepted=batch.count - 1, rejected=1, reason="picky")

    try:
        tracer = make_tracer(
            service="shop", exporters=[Picky()], delivery=QUICK, journal=False, shutdown_timeout=1.0,
            on_reject=lambda notice: release.wait(60),
        )  # fmt: skip
        began = time.perf_counter()
        for _ in range(5):
            await end_spans(tracer, 10)
            await within(2.0, tracer.flush(), "a flush beside a callback that hangs")
        assert time.perf_counter() - began < patient(2.0), "a flush waited for a callback"
        assert tracer.receipt().accepted == 45
    finally:
        release.set()
        await tracer.shutdown()


async def test_no_lane_waits_for_a_callback() -> None:
    await check_no_lane_waits(Tracer)


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


class CallsAtOnce(Callbacks):
    """In `tell()` itself."""

    def tell(self, notice: DeliveryNotice) -> None:
        super().tell(notice)
        self._task = None
        self.tell_here()


class CallsInTheLoop(Callbacks):
    async def _in_thread(self, function: Any, notice: DeliveryNotice) -> Any:
        return function(notice), None


class ForgetsWhatIsTooMuch(Callbacks):
    def _add(self, notice: DeliveryNotice) -> None:
        if len(self._waiting) < module.MOST_WAITING:
            self._waiting.append(notice)


class KeepsThemAll(Callbacks):
    def _add(self, notice: DeliveryNotice) -> None:
        self._waiting.append(notice)


class TellsEveryError(Callbacks):
    def _failed(self, kind: str, error: BaseException) -> None:
        self._told_errors.clear()
        super()._failed(kind, error)


class HasNoDeadline(Callbacks):
    def __init__(self, **options: Any) -> None:
        super().__init__(**(options | {"deadline": 60}))


class EndsWithTheFirstFailure(Callbacks):
    def _failed(self, kind: str, error: BaseException) -> None:
        raise error


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        (check_nobody_waits, CallsInTheLoop),
        (check_nobody_waits, CallsAtOnce),
        (check_no_count_is_lost, ForgetsWhatIsTooMuch),
        (check_no_count_is_lost, KeepsThemAll),
        (check_failures_stay_in_the_callback, TellsEveryError),
        (check_failures_stay_in_the_callback, HasNoDeadline),
    ],
)
async def test_callbacks_that_break_a_promise_are_caught(check: Callable[[Make], Any], wrong: Make) -> None:
    with pytest.raises(BROKEN):
        await check(wrong)


def tracer_that(**forced: Any) -> Any:
    def make_tracer(**options: Any) -> Tracer:
        return Tracer(**{**options, **forced})

    return make_tracer


@pytest.mark.parametrize("check", [check_each_rejection_is_told, check_each_drop_is_told_once])
async def test_a_tracer_that_forgets_its_callbacks_is_caught(check: Callable[[Any], Any]) -> None:
    with pytest.raises(AssertionError):
        await check(tracer_that(on_reject=None, on_drop=None))


async def test_drops_told_for_each_lane_again_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_each_lane(receipt: Any, refused: Any) -> dict[tuple[str, str], int]:
        return {
            (name, reason): count
            for name, lane in receipt.lanes.items()
            for reason, count in lane.dropped_by_reason.items()
        }

    monkeypatch.setattr("asynctrace.delivery._losses._dropped", of_each_lane)
    with pytest.raises(AssertionError):
        await check_each_drop_is_told_once(Tracer)


async def test_a_lane_that_waits_for_its_callback_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Callbacks, "_in_thread", CallsInTheLoop._in_thread)
    with pytest.raises(BROKEN):
        await check_no_lane_waits(tracer_that(on_reject=lambda notice: time.sleep(0.6)))
