"""`flush()` returns when every span that ended before the call is settled, and never says more than it knows."""

# ruff: noqa: SIM117  (the outer block is the far side, the inner one the program)

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import msgspec
import pytest

from asynctrace import DeliveryTimeout, Limits, Receipt, Tracer
from asynctrace.exporters import OTLPExporter
from asynctrace.testing import Accept, Delay, FaultServer, Hang, Status

from . import doubles
from .harness import (
    BATCH,
    BROKEN,
    QUICK,
    Broken,
    MakeTracer,
    Ticker,
    assert_arrived,
    assert_arrived_once,
    assert_balanced,
    assert_complete,
    end_spans,
    producing,
    within,
)

pytestmark = pytest.mark.anyio


# ── it waits ────────────────────────────────────────────────────────────────────────────────────────────────


async def check_every_span_is_answered_when_flush_returns(
    make_tracer: MakeTracer, n: int = 10 * BATCH + 3, hold: float = 0.2
) -> None:
    server = FaultServer(default=Delay(hold))
    async with server, make_tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
        ids = await end_spans(tracer, n)
        receipt = await within(30, tracer.flush(), "flush")
        assert_arrived_once(server, ids)
        assert_complete(receipt, n)
        assert all(request.status == 200 for request in server.requests)


@pytest.mark.parametrize("n", [1, BATCH - 1, BATCH, BATCH + 1, 10 * BATCH + 3])
async def test_flush_returns_only_after_every_span_was_answered(n: int) -> None:
    await check_every_span_is_answered_when_flush_returns(Tracer, n, hold=0.5)


async def check_a_slow_first_request_is_waited_for(make_tracer: MakeTracer) -> None:
    server = FaultServer(default=Delay(0.1))
    server.plan(Delay(1.0))
    async with server, make_tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
        ids = await end_spans(tracer, 10 * BATCH + 3)
        receipt = await within(30, tracer.flush(), "flush")
        assert_arrived_once(server, ids)
        assert_complete(receipt, len(ids))


async def test_a_first_request_ten_times_slower_than_the_others_is_waited_for() -> None:
    await check_a_slow_first_request_is_waited_for(Tracer)


async def check_a_request_in_flight_is_waited_for(make_tracer: MakeTracer) -> None:
    server = FaultServer(default=Delay(0.4))
    async with (
        server,
        make_tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK) as tracer,
    ):
        ids = await end_spans(tracer, 1)
        await server.wait_for_requests(1)
        receipt = await within(10, tracer.flush(), "flush")
        assert_arrived_once(server, ids)
        assert_complete(receipt, 1)


async def test_nothing_queued_and_one_request_in_flight_is_not_nothing_to_do() -> None:
    await check_a_request_in_flight_is_waited_for(Tracer)


async def check_batches_split_by_bytes_are_flushed(make_tracer: MakeTracer) -> None:
    limit = 512 * 1024
    server = FaultServer(default=Delay(0.05))
    async with server, make_tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
        ids = set()
        for _ in range(12):
            async with tracer.trace("large") as run:
                run.set_outputs("x" * 240_000)
                ids.add(run.span_id)
        receipt = await within(10, tracer.flush(), "flush")
        assert_arrived_once(server, ids)
        assert_complete(receipt, 12)
        assert all(len(request.body) <= limit + 1024 for request in server.requests)
        assert min(len(str(span.attributes["output.value"])) for span in server.spans) == 240_000


async def test_spans_pushed_back_by_the_byte_limit_are_part_of_the_flush() -> None:
    await check_batches_split_by_bytes_are_flushed(Tracer)


# ── for what came before, not for what comes after ──────────────────────────────────────────────────────────


async def check_flush_returns_while_spans_keep_coming(make_tracer: MakeTracer) -> None:
    server = FaultServer(default=Delay(0.05))
    async with (
        server,
        make_tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK) as tracer,
        producing(tracer, every=0.01, at_once=10) as later,
    ):
        await server.wait_for_requests(1)
        for _ in range(3):
            ids = await end_spans(tracer, 20) | later
            receipt = await within(2, tracer.flush(), "flush beside a producer")
            assert_arrived(server, ids)
            assert_balanced(receipt)


async def test_flush_returns_at_its_watermark_while_spans_keep_coming() -> None:
    await check_flush_returns_while_spans_keep_coming(Tracer)


async def check_many_flushes_are_one_drain(make_tracer: MakeTracer) -> None:
    server = FaultServer(default=Delay(0.3))
    async with server, make_tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:

        async def work() -> Receipt:
            ids = await end_spans(tracer, 5)
            receipt = await tracer.flush()
            assert_arrived(server, ids)
            return receipt

        receipts = await within(20, asyncio.gather(*(work() for _ in range(50))), "50 flushes")
        for receipt in receipts:
            assert_balanced(receipt)
        assert len(server.requests) <= 8, f"{len(server.requests)} requests"


async def test_fifty_flushes_at_once_are_one_drain() -> None:
    await check_many_flushes_are_one_drain(Tracer)


async def test_flushes_that_join_over_time_share_requests() -> None:
    async with FaultServer(default=Delay(0.3)) as server:
        async with Tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:

            async def work(i: int) -> None:
                await asyncio.sleep(i * 0.004)
                ids = await end_spans(tracer, 5)
                await tracer.flush()
                assert_arrived(server, ids)

            async with producing(tracer, every=0.02):
                await within(20, asyncio.gather(*(work(i) for i in range(50))), "50 flushes")
            assert len(server.requests) <= 20, f"{len(server.requests)} requests"


async def check_a_joiner_gets_its_own_answer(make_tracer: MakeTracer) -> None:
    server = FaultServer(default=Delay(0.3))
    async with server, make_tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
        early = await end_spans(tracer, 3)
        first = asyncio.create_task(tracer.flush())
        await server.wait_for_requests(1)
        late = await end_spans(tracer, 3)
        receipt = await within(10, tracer.flush(), "the joiner's flush")
        assert_arrived(server, early | late)
        assert_complete(receipt, 6)
        assert_balanced(await within(10, first, "the first flush"))


async def test_a_caller_that_joins_a_running_flush_waits_for_its_own_spans() -> None:
    await check_a_joiner_gets_its_own_answer(Tracer)


async def check_only_the_named_trace_is_waited_for(make_tracer: MakeTracer) -> None:
    one_at_a_time = msgspec.structs.replace(QUICK, max_in_flight=1, export_timeout=60.0)
    server = FaultServer(default=Accept())
    hold = asyncio.Event()
    server.plan(Accept(), Hang(hold))
    async with (
        server,
        make_tracer(
            service="shop", exporters=[OTLPExporter(server.url, timeout=60.0)], delivery=one_at_a_time
        ) as tracer,
    ):
        try:
            async with tracer.trace("mine") as mine:
                pass
            await server.wait_for_spans(1)
            other = await end_spans(tracer, 1, "other")
            await server.wait_for_requests(2)
            await within(1, tracer.flush(trace_id=mine.trace_id), "flush of a trace that has arrived")
            assert not other & server.accepted_ids.keys()
            async with tracer.trace("last") as last:
                pass
            waiting = asyncio.create_task(tracer.flush(trace_id=last.trace_id))
            await asyncio.wait([waiting], timeout=0.1)
            assert not waiting.done(), "flush of a trace returned before its span was sent"
        finally:
            hold.set()
        await within(5, waiting, "flush of a trace")
        assert_arrived(server, {mine.span_id, last.span_id})


async def test_flush_of_one_trace_waits_for_that_trace_only() -> None:
    await check_only_the_named_trace_is_waited_for(Tracer)


# ── deadlines and cancellation ──────────────────────────────────────────────────────────────────────────────


async def check_a_cancelled_waiter_harms_nobody(make_tracer: MakeTracer) -> None:
    server = FaultServer(default=Delay(0.4))
    async with server, make_tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
        ids = await end_spans(tracer, 5)

        async def impatient() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await tracer.flush()

        results: list[Any] = await within(
            10, asyncio.gather(impatient(), tracer.flush(), tracer.flush(), return_exceptions=True), "flush"
        )
        for result in results[1:]:
            assert isinstance(result, Receipt), f"another waiter got {result!r}"
            assert_complete(result, 5)
        assert_arrived_once(server, ids)
        assert len(server.requests) == 1, "the request in flight was broken off"


async def test_cancelling_one_waiter_leaves_the_drain_and_the_others_alone() -> None:
    await check_a_cancelled_waiter_harms_nobody(Tracer)


async def check_a_deadline_tells_the_truth(make_tracer: MakeTracer) -> None:
    hold = asyncio.Event()
    server = FaultServer(default=Hang(hold))
    patient = msgspec.structs.replace(QUICK, export_timeout=60.0)
    async with (
        server,
        make_tracer(service="shop", exporters=[OTLPExporter(server.url, timeout=60.0)], delivery=patient) as tracer,
    ):
        try:
            ids = await end_spans(tracer, 10)
            took = []
            for _ in range(3):  # the best of three: others use this machine too
                began = time.perf_counter()
                receipt = await _receipt_of_the_timeout(tracer, 0.2)
                took.append(time.perf_counter() - began)
                assert_balanced(receipt)
                assert receipt.pending > 0
                assert not receipt.complete
                assert receipt.dropped == 0
            assert 0.19 <= min(took) < 0.3, f"took {took}"
        finally:
            hold.set()
        assert_complete(await within(10, tracer.flush(), "the later flush"), 10)
        assert_arrived_once(server, ids)


async def _receipt_of_the_timeout(tracer: Tracer, timeout: float) -> Receipt:
    try:
        result = await tracer.flush(timeout=timeout)
    except DeliveryTimeout as error:
        return error.receipt
    raise Broken(f"flush(timeout={timeout}) against a hung backend returned {result!r}")


async def test_a_deadline_raises_with_the_receipt_and_loses_nothing() -> None:
    assert issubclass(DeliveryTimeout, TimeoutError)
    await check_a_deadline_tells_the_truth(Tracer)


async def check_the_loop_goes_on(make_tracer: MakeTracer, hold: float = 2.0) -> None:
    async def longest_gap(make_tracer: MakeTracer | None) -> float:
        with FaultServer.in_thread(default=Delay(hold)) as server:
            if make_tracer is None:
                async with Ticker() as ticker:
                    await asyncio.sleep(hold)
                return ticker.longest
            async with make_tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
                await end_spans(tracer, 100)
                async with Ticker() as ticker:
                    assert_complete(await tracer.flush(), 100)
                return ticker.longest

    gaps = []
    for _ in range(3):  # others use this machine too: only a gap that a run without a flush does not have counts
        gap = await longest_gap(make_tracer)
        control = 0.0 if gap < 0.020 else await longest_gap(None)
        if gap < 0.020 + control:
            return
        gaps.append((gap, control))
    raise Broken(f"(longest gap, of a run without a flush): {gaps}")


async def test_the_event_loop_never_stalls_during_a_flush() -> None:
    await check_the_loop_goes_on(Tracer)


# ── it never says more than it knows ────────────────────────────────────────────────────────────────────────


async def check_refused_spans_are_rejected(make_tracer: MakeTracer) -> None:
    server = FaultServer(default=Status(400))
    async with (
        server,
        make_tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK) as tracer,
    ):
        await end_spans(tracer, 7)
        receipt = await within(10, tracer.flush(), "flush")
        assert_balanced(receipt)
        assert (receipt.ended, receipt.accepted, receipt.rejected) == (7, 0, 7), f"{receipt!r}"
        assert not receipt.complete
        with pytest.raises(Exception, match="not every span arrived"):
            receipt.raise_for_loss()


async def test_a_backend_that_refuses_gives_an_incomplete_receipt() -> None:
    await check_refused_spans_are_rejected(Tracer)


async def check_the_books_balance_at_any_instant(make_tracer: MakeTracer) -> None:
    server = FaultServer(default=Delay(0.02))
    server.plan(Status(503), Status(400), Status(429, retry_after=0.1))
    looks = 0
    async with (
        server,
        make_tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK) as tracer,
        producing(tracer, every=0.002, at_once=5),
    ):
        async with asyncio.timeout(20):
            while server.accepted_ids.total() < 500:
                assert_balanced(tracer.receipt())
                looks += 1
                await asyncio.sleep(0.001)
        assert_balanced(await within(10, tracer.flush(), "flush"))
    assert looks > 20


async def test_the_books_balance_at_every_instant() -> None:
    await check_the_books_balance_at_any_instant(Tracer)


class AnswersNonsense:
    """An exporter whose answers cannot be true."""

    name = "nonsense"

    def __init__(self, answer: object) -> None:
        self._answer = answer

    async def export(self, batch: Any) -> Any:
        return self._answer

    async def aclose(self) -> None:
        pass


async def check_an_impossible_answer_settles_nothing(make_tracer: MakeTracer, answer: object) -> None:
    exporter = AnswersNonsense(answer)
    async with make_tracer(service="shop", exporters=[exporter], delivery=QUICK, shutdown_timeout=0.2) as tracer:
        await end_spans(tracer, 10)
        try:
            receipt = await within(5, tracer.flush(timeout=0.2), "flush")
        except Broken:
            raise
        except Exception as error:
            receipt = getattr(error, "receipt", tracer.receipt())
        assert_balanced(receipt)
        assert receipt.ended == 10
        assert not receipt.complete
        assert receipt.accepted <= 3


@pytest.mark.parametrize("answer", [None, True, 10, "ok"])
async def test_an_answer_that_is_no_result_never_counts_as_accepted(answer: object) -> None:
    await check_an_impossible_answer_settles_nothing(Tracer, answer)


@pytest.mark.parametrize(("accepted", "rejected"), [(3, 0), (0, 0), (3, 99)])
async def test_an_answer_that_does_not_add_up_never_counts_as_complete(accepted: int, rejected: int) -> None:
    from asynctrace import ExportResult

    answer = ExportResult(accepted=accepted, rejected=rejected)
    await check_an_impossible_answer_settles_nothing(Tracer, answer)


async def test_an_answer_cannot_accept_more_than_was_sent() -> None:
    from asynctrace import ExportResult

    exporter = AnswersNonsense(ExportResult(accepted=99))
    async with Tracer(service="shop", exporters=[exporter], delivery=QUICK, shutdown_timeout=0.2) as tracer:
        await end_spans(tracer, 10)
        receipt = await within(5, tracer.flush(), "flush")
        assert_balanced(receipt)
        assert receipt.ended == 10
        assert receipt.accepted <= 10


async def test_flush_with_nothing_to_do_is_complete_at_once() -> None:
    async with FaultServer(default=Hang()) as server:
        async with Tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
            assert_complete(await within(1, tracer.flush(), "flush"), 0)
            assert server.requests == []


async def test_a_span_at_the_size_limit_is_delivered_or_counted() -> None:
    async with (
        FaultServer() as server,
        Tracer(service="shop", exporters=[OTLPExporter(server.url)], limits=Limits(span_bytes=4096)) as tracer,
    ):
        async with tracer.trace("large") as run:
            for i in range(100):
                run.set_attribute(f"key-{i}", "x" * 200)
        receipt = await within(5, tracer.flush(), "flush")
        assert_balanced(receipt)
        assert receipt.ended == 1
        assert receipt.accepted == len(server.spans)


# ── the checks notice ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("check", "make_tracer"),
    [
        (check_every_span_is_answered_when_flush_returns, doubles.FlushReturnsAtOnce),
        (check_every_span_is_answered_when_flush_returns, doubles.FlushWaitsForOneAnswer),
        (check_every_span_is_answered_when_flush_returns, doubles.lying("sends twice")),
        (check_a_slow_first_request_is_waited_for, doubles.FlushReturnsAtOnce),
        (check_a_request_in_flight_is_waited_for, doubles.FlushReturnsAtOnce),
        (check_batches_split_by_bytes_are_flushed, doubles.FlushWaitsForOneAnswer),
        (check_flush_returns_while_spans_keep_coming, doubles.FlushWaitsForAnEmptyLog),
        (check_flush_returns_while_spans_keep_coming, doubles.FlushReturnsAtOnce),
        (check_many_flushes_are_one_drain, doubles.a_request_for_every_few_spans),
        (check_a_joiner_gets_its_own_answer, doubles.FlushersJoinTheFirst),
        (check_only_the_named_trace_is_waited_for, doubles.FlushIgnoresTheTrace),
        (check_only_the_named_trace_is_waited_for, doubles.FlushReturnsAtOnce),
        (check_a_cancelled_waiter_harms_nobody, doubles.FlushDiesWithItsWaiter),
        (check_a_deadline_tells_the_truth, doubles.FlushSwallowsItsDeadline),
        (check_a_deadline_tells_the_truth, doubles.FlushIgnoresItsDeadline),
        (partial(check_the_loop_goes_on, hold=0.4), doubles.FlushHoldsTheLoop),
        (check_refused_spans_are_rejected, doubles.BooksCallEverythingAccepted),
        (check_refused_spans_are_rejected, doubles.lying("everything is accepted")),
        (partial(check_an_impossible_answer_settles_nothing, answer=None), doubles.BooksCallEverythingAccepted),
        (check_the_books_balance_at_any_instant, doubles.BooksForgetPending),
    ],
)
async def test_each_check_notices_a_double_that_breaks_its_promise(check: Any, make_tracer: MakeTracer) -> None:
    with pytest.raises(BROKEN):
        await check(make_tracer)
