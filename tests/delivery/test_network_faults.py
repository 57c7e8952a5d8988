"""Whatever the network does, a request has a deadline, an outcome and a counter, and nothing is lost."""

# ruff: noqa: SIM117  (the outer block is the far side, the inner one the program)

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import trustme

from asynctrace import Tracer
from asynctrace.exporters import OTLPExporter
from asynctrace.testing import (
    Accept,
    AcceptThenReset,
    Delay,
    Fault,
    FaultServer,
    HalfClose,
    Hang,
    OutOfOrder,
    PartialSuccess,
    ResetBeforeResponse,
    ResetMidBody,
    StallMidBody,
    Status,
    Truncated,
)

from . import doubles
from .harness import (
    BROKEN,
    QUICK,
    MakeTracer,
    assert_arrived,
    assert_arrived_once,
    assert_balanced,
    assert_complete,
    end_spans,
    producing,
    until,
    within,
)

pytestmark = pytest.mark.anyio

SHORT = msgspec.structs.replace(QUICK, export_timeout=0.5)


async def check_a_fault_has_an_outcome(make_tracer: MakeTracer, fault: Fault) -> None:
    """One fault, then a healthy backend: all arrive, and the lane has counted what happened."""
    async with FaultServer() as server:
        server.plan(fault)
        exporter = OTLPExporter(server.url, timeout=0.3)
        async with make_tracer(service="shop", exporters=[exporter], delivery=SHORT) as tracer:
            ids = await end_spans(tracer, 5)
            receipt = await within(5, tracer.flush(), "flush")
            assert_complete(receipt, 5)
            assert_arrived(server, ids)
            lane = tracer.statistics().lanes["otlp"]
            assert sum(lane.answers.values()) == 1, f"not counted once: {lane.answers}"
            assert "" not in lane.answers, "a failure without a name"
            assert lane.retries == 1
            first, second = server.requests[:2]
            assert first.key == second.key
            assert first.key != ""
            assert first.body == second.body, "repeated with other bytes under the same key"


@pytest.mark.parametrize(
    "fault",
    [
        Hang(),
        ResetBeforeResponse(),
        AcceptThenReset(),
        HalfClose(),
        ResetMidBody(accepts=False),
        StallMidBody(accepts=False),
        Truncated(accepts=False),
    ],
    ids=lambda fault: type(fault).__name__,
)
async def test_a_request_that_fails_is_repeated_under_its_key_and_counted(fault: Fault) -> None:
    await check_a_fault_has_an_outcome(Tracer, fault)


@pytest.mark.parametrize(
    "fault",
    [AcceptThenReset(), ResetMidBody(), StallMidBody(), Truncated()],
    ids=lambda fault: type(fault).__name__,
)
async def test_an_ambiguous_request_is_recognizable_by_its_key(fault: Fault) -> None:
    """The far side took it over and could not say so: whoever removes repeated keys sees each span once."""
    async with FaultServer() as server:
        server.plan(fault, fault)
        exporter = OTLPExporter(server.url, timeout=0.3)
        async with Tracer(service="shop", exporters=[exporter], delivery=SHORT) as tracer:
            ids = await end_spans(tracer, 5)
            assert_complete(await within(5, tracer.flush(), "flush"), 5)
        by_key = {request.key: request.span_ids for request in server.requests}
        once = [span_id for span_ids in by_key.values() for span_id in span_ids]
        assert sorted(once) == sorted(ids)


async def test_different_batches_and_different_tracers_never_share_a_key() -> None:
    keys: list[str] = []
    async with FaultServer() as server:
        for _ in range(3):
            options = msgspec.structs.replace(QUICK, batch_spans=7)
            async with Tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=options) as tracer:
                await end_spans(tracer, 100)
                await within(5, tracer.flush(), "flush")
        keys = [request.key for request in server.requests]
        assert len(set(keys)) == len(keys)


# ── before a connection ─────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def nobody_listens() -> Iterator[str]:
    with socket.socket() as placeholder:  # bound and not listening: the port stays refused
        placeholder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{placeholder.getsockname()[1]}"


@contextlib.contextmanager
def nobody_accepts() -> Iterator[str]:
    """A full backlog: the system completes no further handshake, so a client waits for its own deadline."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def nobody_has_that_name() -> Iterator[str]:
    yield "http://no-such-host.invalid:4318"


async def check_a_far_side_that_is_not_there(make_tracer: MakeTracer, url: str, patience: float = 8.0) -> None:
    exporter = OTLPExporter(url, timeout=0.3)
    async with make_tracer(service="shop", exporters=[exporter], delivery=SHORT, shutdown_timeout=0.2) as tracer:
        await end_spans(tracer, 5)
        await until(lambda: tracer.statistics().lanes["otlp"].requests >= 3, patience)
        receipt = tracer.receipt()
        assert_balanced(receipt)
        assert (receipt.accepted, receipt.pending, receipt.rejected) == (0, 5, 0), f"{receipt!r}"
        answers = tracer.statistics().lanes["otlp"].answers
        assert sum(answers.values()) >= 2
        assert "" not in answers
        with pytest.raises(TimeoutError):
            await tracer.flush(timeout=0.1)


@pytest.mark.parametrize("missing", [nobody_listens, nobody_accepts, nobody_has_that_name])
async def test_a_far_side_that_is_not_there_keeps_the_spans_waiting(missing: Any) -> None:
    with missing() as url:
        await check_a_far_side_that_is_not_there(Tracer, url)


async def test_a_backend_that_comes_up_later_gets_everything() -> None:
    with nobody_listens() as url:
        port = int(url.rpartition(":")[2])
    async with Tracer(service="shop", exporters=[OTLPExporter(url)], delivery=QUICK) as tracer:
        ids = await end_spans(tracer, 20)
        with pytest.raises(TimeoutError):
            await tracer.flush(timeout=0.3)
        async with FaultServer(port=port) as server:
            assert_complete(await within(5, tracer.flush(), "flush"), 20)
            assert_arrived_once(server, ids)
        ids |= await end_spans(tracer, 20)
        with pytest.raises(TimeoutError):
            await tracer.flush(timeout=0.3)
        async with FaultServer(port=port) as restarted:
            assert_complete(await within(5, tracer.flush(), "flush"), 40)
            assert_arrived(restarted, ids - server.accepted_ids.keys())


# ── TLS ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _tls(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


async def test_a_trusted_certificate_delivers(tmp_path: Any) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with FaultServer(ssl_context=_tls(authority)) as server:
        exporter = OTLPExporter(server.url, ca_file=tmp_path / "ca.pem")
        async with Tracer(service="shop", exporters=[exporter]) as tracer:
            ids = await end_spans(tracer, 5)
            assert_complete(await within(5, tracer.flush(), "flush"), 5)
            assert_arrived_once(server, ids)


@pytest.mark.parametrize("wrong", ["stranger", "other name", "no TLS"])
async def test_a_tls_error_blocks_the_lane_and_keeps_everything(tmp_path: Any, wrong: str) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    (stranger if wrong == "stranger" else authority).cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = (
        None if wrong == "no TLS" else _tls(authority, "elsewhere.example" if wrong == "other name" else "127.0.0.1")
    )
    async with FaultServer(ssl_context=context) as server:
        url = server.url.replace("http://", "https://")
        exporter = OTLPExporter(url, ca_file=tmp_path / "ca.pem", timeout=1.0)
        async with Tracer(service="shop", exporters=[exporter], delivery=SHORT, shutdown_timeout=0.2) as tracer:
            await end_spans(tracer, 5)
            await until(lambda: tracer.statistics().lanes["otlp"].answers)
            receipt = tracer.receipt()
            assert_balanced(receipt)
            assert (receipt.accepted, receipt.pending) == (0, 5)
            if wrong != "no TLS":
                assert tracer.statistics().lanes["otlp"].state == "blocked"
            assert server.spans == []


# ── many at once ────────────────────────────────────────────────────────────────────────────────────────────


async def check_answers_out_of_order_are_acknowledged_in_order(make_tracer: MakeTracer) -> None:
    options = msgspec.structs.replace(QUICK, batch_spans=10, batch_spans_most=10)
    async with FaultServer(default=OutOfOrder(4, patience=0.1)) as server:
        async with make_tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=options) as tracer:
            ids = await end_spans(tracer, 120)
            flushing = asyncio.create_task(tracer.flush())
            while not flushing.done():
                receipt = tracer.receipt()
                assert_balanced(receipt)
                assert receipt.accepted <= len(server.accepted_ids), "acknowledged before it was answered"
                await asyncio.sleep(0.002)
            assert_complete(await flushing, 120)
            assert_arrived_once(server, ids)
            assert server.max_in_flight > 1, "one at a time"


async def test_answers_out_of_order_are_acknowledged_in_order() -> None:
    await check_answers_out_of_order_are_acknowledged_in_order(Tracer)


def _weather(seed: int, n: int) -> list[Fault]:
    chance = random.Random(seed)
    kinds: list[Fault] = [
        Accept(),
        Accept(),
        Delay(0.02),
        Status(503),
        Status(429, retry_after=0.05),
        Status(500),
        ResetBeforeResponse(),
        AcceptThenReset(),
        ResetMidBody(),
        Truncated(),
        PartialSuccess(rejected=1),
        Status(413),
        Status(400),
    ]
    return [chance.choice(kinds) for _ in range(n)]


async def check_bad_weather_is_accounted_for(make_tracer: MakeTracer, seed: int = 1) -> None:
    """Any faults in any order: what the books call accepted has arrived, and nothing is missing from them."""
    options = msgspec.structs.replace(QUICK, batch_spans=32)
    async with FaultServer() as server:
        server.plan(*_weather(seed, 60))
        async with make_tracer(
            service="shop", exporters=[OTLPExporter(server.url, timeout=0.5)], delivery=options
        ) as tracer:
            async with producing(tracer, every=0.002, at_once=20) as ids:
                await asyncio.sleep(0.5)
            receipt = await within(30, tracer.flush(), "flush")
            assert_balanced(receipt)
            assert receipt.ended == len(ids)
            assert receipt.pending == receipt.dropped == 0
            arrived = server.accepted_ids.keys()
            assert arrived <= ids
            assert receipt.accepted <= len(arrived), "called accepted and never taken over"
            assert len(ids - arrived) <= receipt.rejected, "missing and not in the books"
            by_key: dict[str, tuple[str, ...]] = {}
            for request in server.requests:
                assert by_key.setdefault(request.key, request.span_ids) == request.span_ids


@pytest.mark.parametrize("seed", range(6))
async def test_in_any_weather_every_span_is_accounted_for(seed: int) -> None:
    await check_bad_weather_is_accounted_for(Tracer, seed)


# ── the checks notice ───────────────────────────────────────────────────────────────────────────────────────


async def check_a_reset(make_tracer: MakeTracer) -> None:
    await check_a_fault_has_an_outcome(make_tracer, ResetBeforeResponse())


async def check_nobody_listens(make_tracer: MakeTracer) -> None:
    with nobody_listens() as url:
        await check_a_far_side_that_is_not_there(make_tracer, url, patience=0.5)


@pytest.mark.parametrize(
    ("check", "make_tracer"),
    [
        (check_a_reset, doubles.lying("never again")),
        (check_a_reset, doubles.lying("sends twice")),
        (check_a_reset, doubles.lying("everything is accepted")),
        (check_nobody_listens, doubles.lying("everything is accepted")),
        (check_nobody_listens, doubles.lying("never again")),
        (check_answers_out_of_order_are_acknowledged_in_order, doubles.BooksCallEverythingAccepted),
        (check_answers_out_of_order_are_acknowledged_in_order, doubles.with_delivery(max_in_flight=1)),
        (check_bad_weather_is_accounted_for, doubles.lying("everything is accepted")),
    ],
)
async def test_each_check_notices_a_double_that_breaks_its_promise(check: Any, make_tracer: MakeTracer) -> None:
    with pytest.raises(BROKEN):
        await check(make_tracer)
