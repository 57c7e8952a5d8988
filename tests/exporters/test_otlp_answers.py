"""What each answer of a backend means for a batch, over real sockets."""

from __future__ import annotations

import gzip
import json

import aiohttp
import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from asynctrace import wire
from asynctrace._contracts import Batch, Clock, ExportResult, Outcome
from asynctrace.exporters import OTLPExporter
from asynctrace.testing._faults import (
    Accept,
    Exchange,
    FaultServer,
    Garbage,
    PartialSuccess,
    Redirect,
    RejectWhen,
    Status,
    TooLargeOver,
)

pytestmark = pytest.mark.anyio


async def answer_to(make_batch, *faults, encoding="protobuf", count=3, **settings) -> ExportResult:
    """The last result of one export for each fault."""
    async with FaultServer() as server:
        server.plan(*faults)
        exporter = OTLPExporter(server.url, encoding=encoding, **settings)
        for _ in faults:
            result = await exporter.export(make_batch(count))
        await exporter.aclose()
    return result


# bodies


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
@pytest.mark.parametrize("encoding", ["protobuf", "json"])
@pytest.mark.parametrize("count", [1, 400])
async def test_every_span_arrives_in_every_encoding_and_compression(make_batch, compression, encoding, count) -> None:
    async with FaultServer() as server:
        exporter = OTLPExporter(server.url, compression=compression, encoding=encoding)
        result = await exporter.export(make_batch(count, size=300))
        await exporter.aclose()
    assert (result.accepted, result.rejected, result.outcome) == (count, 0, Outcome.SETTLED)
    assert server.spans[-1].name == f"span {count}"
    assert len(server.accepted_ids) == count
    (request,) = server.requests
    assert request.headers.get("content-encoding") == compression
    assert (request.body_size < len(request.body)) is (compression is not None)


async def test_opentelemetry_reads_the_body(make_batch) -> None:
    async with FaultServer() as server:
        exporter = OTLPExporter(server.url)
        await exporter.export(make_batch(5))
        await exporter.aclose()
    (group,) = ExportTraceServiceRequest.FromString(server.requests[0].body).resource_spans
    assert group.resource.attributes[0].value.string_value == "shop"
    assert group.scope_spans[0].scope.name == "asynctrace"
    assert [span.name for span in group.scope_spans[0].spans] == [f"span {n}" for n in range(1, 6)]


async def test_json_bodies_have_hex_ids_and_integers_as_text(make_batch) -> None:
    async with FaultServer() as server:
        exporter = OTLPExporter(server.url, encoding="json")
        await exporter.export(make_batch(1))
        await exporter.aclose()
    span = json.loads(server.requests[0].body)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert (span["traceId"], span["startTimeUnixNano"]) == (f"{0xAB:032x}", "1000000001")


async def test_a_body_of_many_megabytes_arrives(make_batch) -> None:
    async with FaultServer() as server:
        exporter = OTLPExporter(server.url)
        result = await exporter.export(make_batch(2, size=5_000_000))
        await exporter.aclose()
    assert result.accepted == 2
    assert server.requests[0].body_size > 10_000_000


# statuses


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (400, Outcome.REFUSED),
        (422, Outcome.REFUSED),
        (413, Outcome.TOO_LARGE),
        (408, Outcome.TRY_AGAIN),
        (429, Outcome.TRY_AGAIN),
        (500, Outcome.TRY_AGAIN),
        (502, Outcome.TRY_AGAIN),
        (503, Outcome.TRY_AGAIN),
        (504, Outcome.TRY_AGAIN),
        (599, Outcome.TRY_AGAIN),
        (401, Outcome.BLOCKED),
        (403, Outcome.BLOCKED),
        (404, Outcome.BLOCKED),
        (405, Outcome.BLOCKED),
        (415, Outcome.BLOCKED),
        (301, Outcome.BLOCKED),
        (304, Outcome.BLOCKED),
    ],
)
async def test_a_status_has_one_meaning(make_batch, status: int, outcome: Outcome) -> None:
    result = await answer_to(make_batch, Status(status))
    assert (result.outcome, result.reason, result.accepted) == (outcome, f"http_{status}", 0)


@pytest.mark.parametrize("status", [200, 202, 204, 207])
async def test_every_2xx_means_accepted(make_batch, status: int) -> None:
    assert (await answer_to(make_batch, Status(status))).accepted == 3


@pytest.mark.parametrize(
    "garbage",
    [
        Garbage(),
        Garbage(b"<html>hello</html>", "text/html"),
        Garbage(b"{not json", "application/json"),
        Garbage(b"[]", "application/json"),
        Garbage(b'{"partialSuccess": {"rejectedSpans": "many"}}', "application/json"),
        Garbage(b"x" * 10_000_000, "application/json"),
    ],
)
async def test_a_2xx_that_cannot_be_read_means_accepted(make_batch, garbage: Garbage) -> None:
    result = await answer_to(make_batch, garbage, Accept())
    assert (result.outcome, result.accepted) == (Outcome.SETTLED, 3)


async def test_one_bad_span_refuses_the_batch_and_only_that_one(make_batch) -> None:
    fault = RejectWhen(lambda span: span.name == "span 2")
    assert (await answer_to(make_batch, fault)).outcome is Outcome.REFUSED
    assert (await answer_to(make_batch, fault, count=1)).accepted == 1


async def test_too_large_is_said_by_the_server(make_batch) -> None:
    assert (await answer_to(make_batch, TooLargeOver(100))).outcome is Outcome.TOO_LARGE
    assert (await answer_to(make_batch, TooLargeOver(100_000))).accepted == 3


# partial success


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
@pytest.mark.parametrize(("claimed", "rejected"), [(0, 0), (1, 1), (3, 3), (10**12, 3)])
async def test_a_partial_success_counts_only_what_was_rejected(make_batch, encoding, claimed, rejected) -> None:
    result = await answer_to(make_batch, PartialSuccess(rejected=claimed), encoding=encoding)
    assert (result.outcome, result.accepted, result.rejected) == (Outcome.SETTLED, 3 - rejected, rejected)
    assert result.reason == ("backend_rejected" if rejected else "")


class CompressedPartialSuccess(msgspec.Struct, frozen=True):
    """A server that compresses although it was asked not to."""

    async def play(self, exchange: Exchange):
        body = gzip.compress(wire.encode_response(2, "no"))
        return exchange.respond(200, body, Content_Type="application/x-protobuf", Content_Encoding="gzip")


async def test_a_compressed_partial_success_is_understood(make_batch) -> None:
    assert (await answer_to(make_batch, CompressedPartialSuccess())).rejected == 2


# when to come back


@pytest.mark.parametrize(
    ("retry_after", "after"),
    [
        (None, None),
        (2, 2.0),
        (0, 0.0),
        (0.5, 0.5),
        (-5, 0.0),
        (10**9, 3600.0),
        ("soon", None),
        ("nan", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 3600.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_kept_within_sense(make_batch, status, retry_after, after) -> None:
    result = await answer_to(make_batch, Status(status, retry_after=retry_after))
    assert (result.outcome, result.after) == (Outcome.TRY_AGAIN, after)


class DatedAnswer(msgspec.Struct, frozen=True):
    """503 until a date; `date` is what the server says it is now."""

    date: str

    async def play(self, exchange: Exchange):
        return exchange.respond(503, Retry_After="Wed, 21 Oct 2015 07:28:30 GMT", Date=self.date)


async def test_a_retry_date_counts_from_the_servers_own_date(make_batch) -> None:
    result = await answer_to(make_batch, DatedAnswer("Wed, 21 Oct 2015 07:28:00 GMT"))
    assert result.after == 30.0


class At(Clock):
    """A clock that stands still."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def time_ns(self) -> int:
        return self.seconds * 10**9

    def monotonic_ns(self) -> int:
        return 0


async def test_without_a_readable_date_the_clock_is_asked(make_batch) -> None:
    clock = At(1445412500)  # 07:28:20
    assert (await answer_to(make_batch, DatedAnswer("today"), clock=clock)).after == 10.0
    assert (await answer_to(make_batch, DatedAnswer("today"))).after is None


# redirects


async def test_a_redirect_within_the_origin_is_followed_once_with_the_whole_body(make_batch) -> None:
    async with FaultServer() as server:
        server.plan(Redirect("/elsewhere"))
        exporter = OTLPExporter(server.url)
        result = await exporter.export(make_batch(key="k"))
        await exporter.aclose()
    assert result.accepted == 3
    assert [(request.path, request.key) for request in server.requests] == [
        ("/v1/traces", "k"),
        ("/elsewhere", "k"),
    ]
    assert server.requests[0].body == server.requests[1].body


async def test_a_second_redirect_is_not_followed(make_batch) -> None:
    async with FaultServer(default=Redirect("/round-and-round")) as server:
        exporter = OTLPExporter(server.url)
        result = await exporter.export(make_batch())
        await exporter.aclose()
    assert (result.outcome, len(server.requests)) == (Outcome.BLOCKED, 2)


class FollowsRedirects:
    """A faulty double: what aiohttp does when left to itself."""

    def __init__(self, endpoint: str, headers: dict[str, str]) -> None:
        self.endpoint, self.headers = endpoint, headers

    async def export(self, batch: Batch) -> ExportResult:
        body = b"".join(wire.encode_request(b"", b"", batch.payload))
        headers = {**self.headers, "content-type": "application/x-protobuf"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.endpoint, data=body, headers=headers) as response,
        ):
            return ExportResult.all_accepted(batch) if response.ok else ExportResult.blocked("http")

    async def aclose(self) -> None:
        """Holds nothing."""


async def check_that_no_credential_goes_to_another_host(make_exporter, make_batch, status: int) -> None:
    async with FaultServer() as elsewhere, FaultServer(default=Redirect(elsewhere.url, status)) as server:
        exporter = make_exporter(server.url, headers={"x-api-key": "secret"})
        result = await exporter.export(make_batch())
        await exporter.aclose()
        assert result.outcome is Outcome.BLOCKED
        assert elsewhere.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_host_is_not_followed(make_batch, status: int) -> None:
    await check_that_no_credential_goes_to_another_host(OTLPExporter, make_batch, status)


async def test_the_check_for_redirects_catches_a_client_that_follows_them(make_batch) -> None:
    with pytest.raises(AssertionError):
        await check_that_no_credential_goes_to_another_host(FollowsRedirects, make_batch, 307)


# books


async def test_answers_are_counted_by_reason(make_batch) -> None:
    async with FaultServer() as server:
        server.plan(Status(503), Status(503), PartialSuccess(rejected=1), Accept())
        exporter = OTLPExporter(server.url)
        for _ in range(4):
            await exporter.export(make_batch())
        await exporter.aclose()
    statistics = exporter.statistics()
    assert (statistics.requests, statistics.by_reason) == (4, {"http_503": 2, "backend_rejected": 1})
    assert statistics.sent_bytes == sum(request.body_size for request in server.requests)


async def test_the_servers_message_is_logged_once_for_each_reason(make_batch) -> None:
    import structlog

    with structlog.testing.capture_logs() as logs:
        async with FaultServer() as server:
            exporter = OTLPExporter(server.url)
            server.plan(Status(503, body=b"away"), Status(503, body=b"still away"), Status(400, body=b"bad"))
            for _ in range(3):
                await exporter.export(make_batch())
            await exporter.aclose()
    assert [(entry["event"], entry["log_level"], entry["message"]) for entry in logs] == [
        ("exporters.answer", "debug", "away"),
        ("exporters.answer", "debug", "bad"),
    ]
