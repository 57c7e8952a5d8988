"""The fault server does what it is told, tells what it saw, and always closes."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import threading
import time

import aiohttp
import msgspec
import pytest
import trustme
import zstandard
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from asynctrace import wire
from asynctrace._contracts import Resource, Scope, Span
from asynctrace.testing._faults import (
    Accept,
    AcceptThenReset,
    Delay,
    Exchange,
    Fault,
    FaultServer,
    Garbage,
    HalfClose,
    Hang,
    OutOfOrder,
    PartialSuccess,
    Redirect,
    RejectWhen,
    ResetBeforeResponse,
    ResetMidBody,
    StallMidBody,
    Status,
    TooLargeOver,
    Truncated,
)

from ..patience import patient

pytestmark = pytest.mark.anyio


def body_of(*numbers: int) -> bytes:
    spans = [Span(trace_id="ab" * 16, span_id=f"{n:016x}", name=f"span {n}") for n in numbers]
    resource = wire.encode_resource(Resource(attributes={"service.name": "shop"}))
    records = [wire.frame(wire.encode_span(span)) for span in spans]
    return b"".join(wire.encode_request(resource, wire.encode_scope(Scope()), records))


async def post(server: FaultServer, *numbers: int, body: bytes | None = None, **headers: str):
    """Status, headers and body of the answer."""
    named = {"content-type": "application/x-protobuf", "x-asynctrace-key": "k"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    content = body_of(*numbers) if body is None else body
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}/v1/traces", data=content, headers=named, allow_redirects=False) as answer,
    ):
        return answer.status, answer.headers, await answer.read()


async def test_it_accepts_by_default_and_keeps_books() -> None:
    async with FaultServer() as server:
        status, _, body = await post(server, 1, 2)
        await post(server, 2, 3)
    assert (status, body) == (200, b"")
    assert [span.name for span in server.spans] == ["span 1", "span 2", "span 2", "span 3"]
    assert dict(server.accepted_ids) == {f"{1:016x}": 1, f"{2:016x}": 2, f"{3:016x}": 1}
    first = server.requests[0]
    assert (first.number, first.path, first.key, first.status) == (0, "/v1/traces", "k", 200)
    assert first.names == ("span 1", "span 2")
    assert first.span_ids == (f"{1:016x}", f"{2:016x}")
    assert first.body_size == len(body_of(1, 2))
    assert first.resource.attributes == {"service.name": "shop"}
    assert first.time <= server.requests[1].time


async def test_planned_faults_come_first_and_in_order() -> None:
    async with FaultServer(default=Status(418)) as server:
        server.plan(Status(500), Accept())
        statuses = [(await post(server, 1))[0] for _ in range(3)]
        server.default = Accept()
        statuses.append((await post(server, 1))[0])
    assert statuses == [500, 200, 418, 200]
    assert [request.status for request in server.requests] == statuses
    assert len(server.spans) == 2


async def test_json_and_compressed_bodies_are_read() -> None:
    json_body = wire.json_request(wire.decode_request(body_of(7)))
    async with FaultServer() as server:
        await post(server, body=gzip.compress(body_of(5)), content_encoding="gzip")
        await post(server, body=zstandard.compress(body_of(6)), content_encoding="zstd")
        _, headers, answer = await post(server, body=json_body, content_type="application/json")
    assert [span.name for span in server.spans] == ["span 5", "span 6", "span 7"]
    assert (headers["content-type"], answer) == ("application/json", b"{}")
    assert server.requests[0].body_size < len(server.requests[0].body) + 30


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"\xff\xff\xff", {}),
        (b"{", {"content_type": "application/json"}),
        (b"no gzip", {"content_encoding": "gzip"}),
        (gzip.compress(b"abc")[:-4], {"content_encoding": "gzip"}),
        (b"no zstd", {"content_encoding": "zstd"}),
        (b"", {"content_encoding": "snappy"}),
    ],
    ids=["bytes", "json", "gzip", "cut gzip", "zstd", "snappy"],
)
async def test_a_body_that_is_no_otlp_gets_400_and_is_kept(body, headers) -> None:
    async with FaultServer() as server:
        status, _, _ = await post(server, body=body, **headers)
    assert status == 400
    assert server.requests[0].error
    assert server.spans == []


@pytest.mark.parametrize(
    ("rejected", "names", "claimed"),
    [(1, ["span 1", "span 2"], 1), (9, [], 9), (lambda span: span.name == "span 1", ["span 2", "span 3"], 1)],
)
async def test_partial_success_takes_over_only_the_rest(rejected, names, claimed) -> None:
    async with FaultServer(default=PartialSuccess(rejected=rejected, message="no room")) as server:
        _, _, body = await post(server, 1, 2, 3)
    assert [span.name for span in server.spans] == names
    response = ExportTraceServiceResponse.FromString(body)
    assert response.partial_success.rejected_spans == claimed
    assert response.partial_success.error_message == "no room"


@pytest.mark.parametrize(
    ("fault", "status", "header", "accepted"),
    [
        (Status(503, retry_after=7), 503, ("Retry-After", "7"), 0),
        (
            Status(429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"),
            429,
            ("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"),
            0,
        ),
        (Redirect("http://elsewhere/"), 307, ("Location", "http://elsewhere/"), 0),
        (RejectWhen(lambda span: span.name == "span 2"), 400, None, 0),
        (RejectWhen(lambda span: span.name == "span 9"), 200, None, 2),
        (TooLargeOver(10), 413, None, 0),
        (TooLargeOver(10_000), 200, None, 2),
        (Garbage(), 200, ("Content-Type", "application/x-protobuf"), 2),
        (Delay(0.01), 200, None, 2),
        (Delay(0.01, then=Status(500)), 500, None, 0),
    ],
)
async def test_an_answering_fault_answers_as_it_says(fault: Fault, status, header, accepted) -> None:
    async with FaultServer(default=fault) as server:
        answered, headers, _ = await post(server, 1, 2)
    assert (answered, len(server.spans)) == (status, accepted)
    if header:
        assert headers[header[0]] == header[1]


@pytest.mark.parametrize(
    ("fault", "error", "accepted"),
    [
        (ResetBeforeResponse(), aiohttp.ClientOSError, 0),
        (AcceptThenReset(), aiohttp.ClientOSError, 1),
        (HalfClose(), aiohttp.ServerDisconnectedError, 0),
        (ResetMidBody(), aiohttp.ClientError, 1),
        (Truncated(), aiohttp.ClientPayloadError, 1),
        (Truncated(accepts=False), aiohttp.ClientPayloadError, 0),
    ],
)
async def test_a_cutting_fault_cuts_the_connection(fault: Fault, error, accepted) -> None:
    async with FaultServer(default=fault) as server:
        with pytest.raises(error):
            await asyncio.wait_for(post(server, 1), patient(10))
    assert len(server.spans) == accepted


async def test_a_hang_ends_with_its_event_or_with_release() -> None:
    of_asyncio, of_threading = asyncio.Event(), threading.Event()
    async with FaultServer() as server:
        for event in (of_asyncio, of_threading, None):
            server.plan(Hang(until=event))
            posting = asyncio.create_task(post(server, 1))
            await server.wait_for_requests(1)
            assert server.spans == []
            if event is None:
                server.release()
            else:
                event.set()
            assert (await asyncio.wait_for(posting, patient(10)))[0] == 200
            server._requests.clear()
            server._spans.clear()


async def test_out_of_order_answers_the_last_request_first() -> None:
    async with FaultServer(default=OutOfOrder(3)) as server:
        finished: list[int] = []

        async def post_and_note(number: int) -> None:
            await post(server, number)
            finished.append(number)

        posting = []
        for number in (1, 2, 3):
            posting.append(asyncio.create_task(post_and_note(number)))
            await server.wait_for_requests(number)
        await asyncio.gather(*posting)
    assert [span.name for span in server.spans] == ["span 3", "span 2", "span 1"]
    assert finished == [3, 2, 1]
    assert server.max_in_flight == 3


async def test_a_group_that_never_fills_is_answered_all_the_same() -> None:
    async with FaultServer(default=OutOfOrder(5, patience=0.05)) as server:
        answers = await asyncio.wait_for(asyncio.gather(post(server, 1), post(server, 2)), patient(10))
    assert [status for status, _, _ in answers] == [200, 200]


class Teapot(msgspec.Struct, frozen=True):
    """A fault of one's own."""

    async def play(self, exchange: Exchange):
        exchange.accept(exchange.spans[:1])
        return exchange.respond(418, b"short and stout", X_Pot="1")


async def test_a_fault_of_ones_own_can_be_played() -> None:
    async with FaultServer(default=Teapot()) as server:
        status, headers, body = await post(server, 1, 2)
    assert (status, headers["X-Pot"], body) == (418, "1", b"short and stout")
    assert len(server.spans) == 1


async def test_waiting_counts_different_spans_and_gives_up_with_a_number() -> None:
    async with FaultServer() as server:
        await post(server, 1)
        await post(server, 1)
        with pytest.raises(TimeoutError, match="1 of 2 spans"):
            await server.wait_for_spans(2, timeout=0.01)
        waiting = asyncio.create_task(server.wait_for_spans(2))
        await post(server, 2)
        assert len(await waiting) == 3
        assert len(await server.wait_for_requests(3)) == 3


# closing


@pytest.mark.parametrize("fault", [Hang(), StallMidBody(), HalfClose(), Delay(60), OutOfOrder(9, patience=60)])
async def test_closing_cuts_what_hangs(fault: Fault) -> None:
    server = FaultServer(default=fault)
    await server.start()
    posting = asyncio.create_task(post(server, 1))
    await server.wait_for_requests(1)
    began = time.monotonic()
    await server.aclose()
    await server.aclose()
    assert time.monotonic() - began < patient(3)
    with pytest.raises(aiohttp.ClientError):
        await asyncio.wait_for(posting, patient(10))


async def test_a_request_whose_client_left_is_not_played_to_its_end() -> None:
    async with FaultServer(default=Delay(0.2)) as server:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(post(server, 1), 0.05)
        server.default = Accept()
        await asyncio.sleep(0.3)
        await post(server, 2)
    assert [span.name for span in server.spans] == ["span 2"]


async def test_after_closing_nobody_listens_and_the_port_can_be_used_again() -> None:
    async with FaultServer() as server:
        await post(server, 1)
    with pytest.raises(aiohttp.ClientConnectorError):
        await post(server, 2)
    async with FaultServer(port=server.port) as again:
        assert (await post(again, 3))[0] == 200
    assert len(server.spans) == 1


# in a thread, and over TLS


def test_it_serves_programs_without_a_loop_from_a_thread() -> None:
    with FaultServer.in_thread() as server:
        server.plan(Status(503))
        assert asyncio.run(post(server, 1))[0] == 503
        assert asyncio.run(post(server, 1))[0] == 200
        assert len(server.wait_for_spans_sync(1)) == 1
        assert len(server.wait_for_requests_sync(2)) == 2
        with pytest.raises(TimeoutError, match="2 of 3 requests"):
            server.wait_for_requests_sync(3, timeout=0.01)


def test_a_thread_with_a_hanging_request_ends() -> None:
    async def leave_a_request_behind(server: FaultServer) -> None:
        with pytest.raises((TimeoutError, aiohttp.ClientError)):
            await asyncio.wait_for(post(server, 1), 0.05)

    with FaultServer.in_thread(default=Hang()) as server:
        asyncio.run(leave_a_request_behind(server))
    assert not any(thread.name == "asynctrace-fault-server" for thread in threading.enumerate())


def test_a_port_that_is_taken_is_told_to_the_caller() -> None:
    with (
        FaultServer.in_thread() as server,
        pytest.raises(OSError, match="in use"),
        FaultServer.in_thread(port=server.port),
    ):
        pass


async def test_it_speaks_tls() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with FaultServer(ssl_context=context) as server, aiohttp.ClientSession() as session:
        assert server.url.startswith("https://127.0.0.1:")
        async with session.post(server.url, data=body_of(1), ssl=trusting) as answer:
            assert answer.status == 200
    assert len(server.spans) == 1
