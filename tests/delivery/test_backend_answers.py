"""Every answer of a backend has one meaning, and the receipt says which."""

# ruff: noqa: SIM117  (the outer block is the far side, the inner one the program)

from __future__ import annotations

import asyncio
import email.utils
import itertools
import math
import time
from typing import Any

import msgspec
import pytest

from asynctrace import ExportResult, Tracer
from asynctrace.exporters import MemoryExporter, OTLPExporter
from asynctrace.testing import (
    Accept,
    FaultServer,
    Garbage,
    PartialSuccess,
    Redirect,
    RejectWhen,
    Status,
    TooLargeOver,
)

from ..patience import patient
from . import doubles
from .harness import (
    BROKEN,
    QUICK,
    MakeTracer,
    assert_arrived_once,
    assert_balanced,
    assert_complete,
    end_spans,
    within,
)

pytestmark = pytest.mark.anyio


# ── later ───────────────────────────────────────────────────────────────────────────────────────────────────


async def check_retry_after_is_honored(make_tracer: MakeTracer, status: int = 503, as_date: bool = False) -> None:
    async with FaultServer() as server:
        wait = 1.0
        # HTTP dates have whole seconds: this one is between 1 and 2 seconds away.
        date = email.utils.formatdate(math.ceil(time.time()) + 1, usegmt=True)
        server.plan(Status(status, retry_after=date if as_date else wait))
        neighbor = MemoryExporter()
        exporters = [OTLPExporter(server.url), neighbor]
        async with make_tracer(service="shop", exporters=exporters, delivery=QUICK) as tracer:
            ids = await end_spans(tracer, 5)
            await server.wait_for_requests(1)
            await neighbor.wait_for(5, timeout=0.9)  # others are not affected
            more = await end_spans(tracer, 5)
            receipt = await within(10, tracer.flush(), "flush")
            first, second = (request.time for request in server.requests[:2])
            assert second - first >= (0.9 if as_date else wait), f"asked again after {second - first} s"
            assert_arrived_once(server, ids | more)
            assert_complete(receipt, 10)


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
async def test_nothing_is_sent_before_retry_after_and_others_go_on(status: int, as_date: bool) -> None:
    await check_retry_after_is_honored(Tracer, status, as_date)


async def test_flush_while_retry_after_runs_does_not_send_early() -> None:
    async with FaultServer() as server:
        server.plan(Status(503, retry_after=1))
        async with Tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK) as tracer:
            await end_spans(tracer, 5)
            await server.wait_for_requests(1)
            for _ in range(5):
                with pytest.raises(TimeoutError):
                    await tracer.flush(timeout=0.05)
                await end_spans(tracer, 1)
            assert len(server.requests) == 1
            assert_complete(await within(10, tracer.flush(), "flush"), 10)


async def check_server_errors_are_tried_again(make_tracer: MakeTracer, status: int = 500) -> None:
    async with FaultServer() as server:
        server.plan(*[Status(status)] * 4)
        async with make_tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK) as tracer:
            ids = await end_spans(tracer, 5)
            assert_complete(await within(10, tracer.flush(), "flush"), 5)
            assert_arrived_once(server, ids)
            assert [request.status for request in server.requests] == [status] * 4 + [200]
            assert len({request.key for request in server.requests}) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
async def test_temporary_answers_are_tried_again_under_the_same_key(status: int) -> None:
    await check_server_errors_are_tried_again(Tracer, status)


async def test_backing_off_is_exponential_capped_and_jittered() -> None:
    gaps = []
    options = msgspec.structs.replace(QUICK, backoff_initial=0.05, backoff_max=0.2)
    for _ in range(3):
        async with FaultServer() as server:
            server.plan(*[Status(503)] * 7)
            async with Tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=options) as tracer:
                await end_spans(tracer, 1)
                await within(10, tracer.flush(), "flush")
            times = [request.time for request in server.requests]
            gaps.append([later - earlier for earlier, later in itertools.pairwise(times)])
    assert all(gap < 0.2 + 0.3 for row in gaps for gap in row), f"not capped: {gaps}"
    late = [gap for row in gaps for gap in row[3:]]
    assert max(late) - min(late) > 0.01, f"no jitter: {gaps}"
    assert sum(late) > len(late) * 0.03, f"no back-off: {gaps}"


async def test_a_backend_that_is_away_is_asked_by_one_request_at_a_time() -> None:
    async with FaultServer(default=Status(503)) as server:
        options = msgspec.structs.replace(QUICK, backoff_initial=0.1, backoff_max=0.2, batch_spans=10)
        async with Tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=options) as tracer:
            ids = await end_spans(tracer, 200)
            with pytest.raises(TimeoutError):
                await tracer.flush(timeout=1.0)
            # 4 may be under way when the first answer comes; then one for each back-off of 0 to 0.2 seconds.
            assert len(server.requests) <= 40, f"{len(server.requests)} requests in a second"
            server.default = Accept()
            assert_complete(await within(10, tracer.flush(), "flush"), 200)
            assert_arrived_once(server, ids)


# ── refused ─────────────────────────────────────────────────────────────────────────────────────────────────


async def check_only_the_culprit_is_rejected(
    make_tracer: MakeTracer, status: int = 400, n: int = 256, culprits: tuple[int, ...] = (77,)
) -> None:
    names = {f"span-{i}" for i in culprits}
    fault = RejectWhen(lambda span: span.name in names, status)
    async with (
        FaultServer(default=fault) as server,
        make_tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK) as tracer,
    ):
        ids = await end_spans(tracer, n)
        receipt = await within(20, tracer.flush(), "flush")
        assert_balanced(receipt)
        assert (receipt.ended, receipt.accepted, receipt.rejected) == (n, n - len(culprits), len(culprits))
        arrived = {span.name for span in server.spans}
        assert arrived == {f"span-{i}" for i in range(n)} - names
        assert len(server.accepted_ids) == server.accepted_ids.total(), "accepted spans were sent again"
        assert server.accepted_ids.keys() <= ids
        # 2·log₂ n + 1 for one culprit in one batch, and the batches the lane had cut by itself
        most = len(culprits) * (2 * math.ceil(math.log2(n)) + 1) + 4
        assert len(server.requests) <= most, f"{len(server.requests)} requests, at most {most}"
        alone = [r for r in server.requests if r.names in [(name,) for name in names]]
        assert len(alone) == len(culprits), "a culprit was tried again, or not found alone"
        settled = len(server.requests)
        await end_spans(tracer, 1, "afterwards")
        await within(10, tracer.flush(), "flush")
        assert all(not names & set(request.names) for request in server.requests[settled:])


@pytest.mark.parametrize("culprits", [(77,), (0,), (255,), (3, 200)])
@pytest.mark.parametrize("status", [400, 422])
async def test_a_refused_batch_is_halved_until_the_culprit_is_found(status: int, culprits: tuple[int, ...]) -> None:
    await check_only_the_culprit_is_rejected(Tracer, status, culprits=culprits)


async def check_refusals_never_mix_up_the_order_of_answers(make_tracer: MakeTracer) -> None:
    """Many small batches in flight, culprits in several of them, a backend that is away now and then."""
    bad = {f"span-{i}" for i in range(0, 400, 37)}
    options = msgspec.structs.replace(QUICK, batch_spans=16)
    async with FaultServer(default=RejectWhen(lambda span: span.name in bad)) as server:
        server.plan(Accept(), Status(503), Accept(), Status(500), Accept())
        async with make_tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=options) as tracer:
            await end_spans(tracer, 400)
            receipt = await within(20, tracer.flush(), "flush")
            assert_balanced(receipt)
            arrived = [span.name for span in server.spans]
            assert len(arrived) == len(set(arrived)) == receipt.accepted
            assert receipt.rejected == 400 - len(arrived)
            assert {f"span-{i}" for i in range(400)} - set(arrived) <= bad


async def test_refusals_in_several_batches_in_flight_lose_nothing() -> None:
    await check_refusals_never_mix_up_the_order_of_answers(Tracer)


# ── blocked ─────────────────────────────────────────────────────────────────────────────────────────────────


async def check_a_blocked_lane_keeps_everything(make_tracer: MakeTracer, status: int = 401) -> None:
    async with FaultServer(default=Status(status)) as server:
        options = msgspec.structs.replace(QUICK, blocked_interval=0.2)
        async with make_tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=options) as tracer:
            ids = await end_spans(tracer, 50)
            await server.wait_for_requests(3, timeout=patient(1.5))
            receipt = tracer.receipt()
            assert_balanced(receipt)
            assert (receipt.pending, receipt.rejected, receipt.dropped) == (50, 0, 0), f"{receipt!r}"
            times = [request.time for request in server.requests]
            assert times[2] - times[1] >= 0.19, "not tried slowly"
            server.default = Accept()
            assert_complete(await within(5, tracer.flush(), "flush once it works"), 50)
            assert_arrived_once(server, ids)


@pytest.mark.parametrize("status", [401, 403, 404, 405])
async def test_a_lane_blocked_by_its_configuration_keeps_everything_and_resumes(status: int) -> None:
    await check_a_blocked_lane_keeps_everything(Tracer, status)


async def test_a_blocked_lane_writes_one_error_line(capfd: pytest.CaptureFixture[str]) -> None:
    async with (
        FaultServer(default=Status(401)) as server,
        Tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK, shutdown_timeout=0.1) as tracer,
    ):
        await end_spans(tracer, 5)
        await server.wait_for_requests(5)
        out, err = capfd.readouterr()
        assert (out + err).lower().count("error") == 1, f"{out}{err}"


# ── too large ───────────────────────────────────────────────────────────────────────────────────────────────


async def check_large_batches_are_split(make_tracer: MakeTracer) -> None:
    limit = 20_000
    async with (
        FaultServer(default=TooLargeOver(limit)) as server,
        make_tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK) as tracer,
    ):
        ids = set()
        for _ in range(200):
            async with tracer.trace("middling") as run:
                run.set_attribute("text", "x" * 1000)
                ids.add(run.span_id)
        assert_complete(await within(10, tracer.flush(), "flush"), 200)
        assert_arrived_once(server, ids)
        told = len([request for request in server.requests if request.status == 413])
        assert told <= 30, f"{told} requests over the limit"
        for _ in range(10):  # the limit is remembered
            async with tracer.trace("middling") as run:
                run.set_attribute("text", "x" * 1000)
        await within(10, tracer.flush(), "flush")
        again = len([request for request in server.requests if request.status == 413])
        assert again == told


async def test_a_batch_over_the_limit_of_the_server_is_split() -> None:
    await check_large_batches_are_split(Tracer)


async def check_a_large_span_is_cut(make_tracer: MakeTracer) -> None:
    async with (
        FaultServer(default=TooLargeOver(20_000)) as server,
        make_tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK) as tracer,
    ):
        small = await end_spans(tracer, 3)
        async with tracer.trace("large", inputs="question") as run:
            run.set_outputs("x" * 100_000)
        receipt = await within(10, tracer.flush(), "flush")
        assert_complete(receipt, 4)
        assert_arrived_once(server, small | {run.span_id})
        (large,) = [span for span in server.spans if span.name == "large"]
        assert large.attributes["input.value"] == "question"
        marker = str(large.attributes["output.value"])
        assert len(marker) < 20_000
        assert "100000" in marker.replace("_", "").replace(",", ""), marker[:300]


async def test_a_single_span_over_the_limit_loses_its_largest_field_only() -> None:
    await check_a_large_span_is_cut(Tracer)


async def test_a_span_that_cannot_be_cut_small_enough_is_rejected_and_counted() -> None:
    async with FaultServer(default=TooLargeOver(10)) as server:
        async with Tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK) as tracer:
            await end_spans(tracer, 3)
            receipt = await within(10, tracer.flush(), "flush")
            assert_balanced(receipt)
            assert (receipt.accepted, receipt.rejected) == (0, 3)
            assert receipt.rejected_by_reason == {"oversize": 3}
            assert len(server.requests) < 40


# ── accepted ────────────────────────────────────────────────────────────────────────────────────────────────


async def check_partial_success_is_final(make_tracer: MakeTracer) -> None:
    async with FaultServer(default=PartialSuccess(rejected=3)) as server:
        async with make_tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
            await end_spans(tracer, 10)
            receipt = await within(10, tracer.flush(), "flush")
            assert_balanced(receipt)
            assert (receipt.ended, receipt.accepted, receipt.rejected) == (10, 7, 3), f"{receipt!r}"
            assert len(server.requests) == 1
            server.default = Accept()
            await end_spans(tracer, 1)
            await within(10, tracer.flush(), "flush")
            assert len(server.requests[1].spans) == 1, "settled spans were sent again"


async def test_partial_success_counts_what_failed_and_sends_nothing_again() -> None:
    await check_partial_success_is_final(Tracer)


async def test_partial_success_of_more_than_was_sent_is_bounded() -> None:
    async with FaultServer(default=PartialSuccess(rejected=1000)) as server:
        async with Tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
            await end_spans(tracer, 10)
            receipt = await within(10, tracer.flush(), "flush")
            assert_balanced(receipt)
            assert (receipt.ended, receipt.rejected) == (10, 10)


@pytest.mark.parametrize("body", [b"", b"\xff\xff\xff<html>", b"\x0a\xff"])
async def test_a_2xx_with_an_unreadable_body_is_accepted_once(body: bytes) -> None:
    async with FaultServer(default=Garbage(body)) as server:
        async with Tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
            ids = await end_spans(tracer, 10)
            assert_complete(await within(10, tracer.flush(), "flush"), 10)
            assert_arrived_once(server, ids)


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_every_2xx_is_an_acknowledgement(status: int) -> None:
    async with FaultServer(default=Status(status)) as server:
        async with Tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
            await end_spans(tracer, 10)
            assert_complete(await within(10, tracer.flush(), "flush"), 10)
            assert len(server.requests) == 1


# ── redirected ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_credentials_never_follow_a_redirect_to_another_host(status: int) -> None:
    async with FaultServer() as stranger:
        async with FaultServer(
            default=Redirect(stranger.url.replace("127.0.0.1", "localhost") + "/v1/traces", status)
        ) as server:
            exporter = OTLPExporter(server.url, headers={"authorization": "Bearer secret"})
            async with Tracer(service="shop", exporters=[exporter], delivery=QUICK, shutdown_timeout=0.1) as tracer:
                await end_spans(tracer, 5)
                await server.wait_for_requests(2)
                receipt = tracer.receipt()
                assert_balanced(receipt)
                assert (receipt.accepted, receipt.pending) == (0, 5)
        assert stranger.requests == []


# ── several backends ────────────────────────────────────────────────────────────────────────────────────────


class RaisesOnStart:
    name = "raises on start"

    async def start(self) -> None:
        raise RuntimeError("no")

    async def export(self, batch: Any) -> ExportResult:
        raise AssertionError("exported without a start")

    async def aclose(self) -> None:
        pass


class RaisesOnExport:
    name = "raises on export"

    async def export(self, batch: Any) -> ExportResult:
        raise RuntimeError("no")

    async def aclose(self) -> None:
        raise RuntimeError("nor this")


class NeverAnswers:
    name = "never answers"

    async def export(self, batch: Any) -> ExportResult:
        await asyncio.Event().wait()
        raise AssertionError

    async def aclose(self) -> None:
        pass


async def check_broken_lanes_stay_alone(make_tracer: MakeTracer) -> None:
    memory = MemoryExporter()
    async with FaultServer() as server:
        exporters = [RaisesOnStart(), OTLPExporter(server.url), RaisesOnExport(), memory, NeverAnswers()]
        async with make_tracer(service="shop", exporters=exporters, delivery=QUICK, shutdown_timeout=0.3) as tracer:
            ids = await end_spans(tracer, 20)
            await server.wait_for_spans(20, timeout=patient(2.0))
            await memory.wait_for(20, timeout=patient(2.0))
            assert_arrived_once(server, ids)
            with pytest.raises(TimeoutError):
                await tracer.flush(timeout=0.1)
            receipt = tracer.receipt()
            assert_balanced(receipt)
            accepted = {name: lane.accepted for name, lane in receipt.lanes.items()}
            assert accepted == {
                "raises on start": 0,
                "otlp": 20,
                "raises on export": 0,
                "memory": 20,
                "never answers": 0,
            }
            assert receipt.accepted == 0, "the receipt looks better than its worst lane"


async def test_lanes_that_fail_or_hang_do_not_disturb_the_others() -> None:
    await check_broken_lanes_stay_alone(Tracer)


# ── the checks notice ───────────────────────────────────────────────────────────────────────────────────────

GIVES_UP = doubles.lying("never again")


@pytest.mark.parametrize(
    ("check", "make_tracer"),
    [
        (check_retry_after_is_honored, doubles.lying("Retry-After is ignored")),
        (check_server_errors_are_tried_again, GIVES_UP),
        (check_server_errors_are_tried_again, doubles.lying("sends twice")),
        (check_only_the_culprit_is_rejected, GIVES_UP),
        (check_only_the_culprit_is_rejected, doubles.lying("everything is accepted")),
        (check_refusals_never_mix_up_the_order_of_answers, doubles.lying("everything is accepted")),
        (check_refusals_never_mix_up_the_order_of_answers, doubles.lying("sends twice")),
        (check_a_blocked_lane_keeps_everything, GIVES_UP),
        (check_large_batches_are_split, GIVES_UP),
        (check_a_large_span_is_cut, GIVES_UP),
        (check_partial_success_is_final, doubles.lying("everything is accepted")),
        (check_partial_success_is_final, doubles.lying("first answers do not count")),
        (check_broken_lanes_stay_alone, doubles.BooksCallEverythingAccepted),
    ],
)
async def test_each_check_notices_a_double_that_breaks_its_promise(check: Any, make_tracer: MakeTracer) -> None:
    with pytest.raises(BROKEN):
        await check(make_tracer)
