"""Export requests over real sockets: what is acknowledged is in the store, once, whatever its encoding."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import aiohttp
import anyio.to_thread
import msgspec
import pytest
import zstandard
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from asynctrace._tree import render_tree
from asynctrace.collector import Collector, SQLiteReader, SQLiteStore
from asynctrace.collector.receiving._counters import Counters
from asynctrace.collector.receiving._writer import Writer
from asynctrace.wire import decode_response, parse_json_request

from .doubles import StoreOnAFullDisk, StoreThatChokes, StoreThatCountsTwice, StoreThatHolds
from .traffic import (
    COMPRESSORS,
    JSON,
    PROTOBUF,
    Sender,
    checkout,
    collecting,
    group,
    json_body,
    protobuf,
    received,
    span,
)

pytestmark = pytest.mark.anyio

TREE = """\
● checkout                                                            1.20 s
├─ ● retrieve [retriever]                                            12.0 ms
│      input  {"q":"tea"}
│      +2.00 ms cache miss shard=3
└─ ✕ pay                                                      error   812 ms"""


def tree(directory: Path, trace_id: str = f"{1:032x}") -> str:
    groups = SQLiteReader(directory).trace(trace_id)
    return render_tree([each for part in groups for each in part.spans], width=76)


@pytest.mark.parametrize("encoding", COMPRESSORS)
@pytest.mark.parametrize("content_type", [PROTOBUF, JSON])
async def test_every_encoding_shows_the_same_tree(tmp_path: Path, content_type: str, encoding: str) -> None:
    body = protobuf([checkout()]) if content_type == PROTOBUF else json_body([checkout()])
    async with collecting(tmp_path) as sender:
        status, answer, headers = await sender.post(
            COMPRESSORS[encoding](body), content_type=content_type, encoding=encoding
        )
        assert (status, headers["Content-Type"]) == (200, content_type)
        assert answer == (b"" if content_type == PROTOBUF else b"{}")
        assert tree(tmp_path) == TREE


@pytest.mark.parametrize(
    ("encoding", "compressed"),
    [
        ("deflate", lambda body: zlib.compress(body, wbits=-15)),
        ("gzip", lambda body: gzip.compress(body[:50]) + gzip.compress(body[50:])),
        ("zstd", lambda body: b"".join(zstandard.compress(part) for part in (body[:50], body[50:]))),
        ("GZIP", gzip.compress),
    ],
    ids=["deflate without a header", "two gzip members", "two zstd frames", "upper case"],
)
async def test_rarer_forms_of_an_encoding_are_read(tmp_path: Path, encoding: str, compressed: object) -> None:
    assert callable(compressed)
    async with collecting(tmp_path) as sender:
        status, answer, _ = await sender.post(compressed(protobuf([checkout()])), encoding=encoding)
        assert status == 200, answer
        assert tree(tmp_path) == TREE


async def test_a_body_in_chunks_is_read(tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        body = gzip.compress(protobuf([checkout()]))
        for start in range(0, len(body), 50):
            yield body[start : start + 50]

    async with collecting(tmp_path) as sender:
        assert (await sender.post(chunks(), encoding="gzip"))[0] == 200
        assert tree(tmp_path) == TREE


async def test_the_official_sdk_is_understood(tmp_path: Path) -> None:
    def work(url: str) -> None:
        provider = TracerProvider(resource=Resource.create({"service.name": "official"}))
        exporter = OTLPSpanExporter(f"{url}/v1/traces", compression=Compression.Gzip)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        tracer = provider.get_tracer("tests")
        with tracer.start_as_current_span("parent"):
            for number in range(600):
                with tracer.start_as_current_span("child", attributes={"number": number}) as child:
                    child.add_event("log")
        provider.shutdown()

    async with collecting(tmp_path) as sender:
        await anyio.to_thread.run_sync(work, sender.url)
        (trace,) = await sender.traces()
        assert trace | {"name": "parent", "service": "official", "spans": 601, "errors": 0} == trace
        assert tree(tmp_path, str(trace["trace_id"])).count("● child") == 600


async def test_a_trace_is_given_back_as_otlp_json(tmp_path: Path) -> None:
    async with collecting(tmp_path) as sender:
        await sender.post(protobuf([checkout()]))
        status, body, headers = await sender.get(f"/api/v1/traces/{1:032x}.otlp.json")
        assert (status, headers["Content-Type"]) == (200, JSON)
        assert parse_json_request(body) == [checkout()]
        assert (await sender.get(f"/api/v1/traces/{2:032x}.otlp.json"))[0] == 404
        assert (await sender.get("/api/v1/traces/nonsense.otlp.json"))[0] == 400


async def test_the_answer_waits_for_the_commit(tmp_path: Path) -> None:
    store = StoreThatHolds(tmp_path)
    async with collecting(store) as sender:
        answer = asyncio.create_task(sender.post(protobuf([checkout()])))
        try:
            await anyio.to_thread.run_sync(store.entered.wait)
            done, _ = await asyncio.wait([answer], timeout=0.2)
            assert not done
            assert await sender.traces() == []
            assert (await sender.get("/readyz"))[0] == 200  # a slow commit holds up nothing else
        finally:
            store.release.set()
        assert (await answer)[0] == 200
        assert len(await sender.traces()) == 1


def check_what_was_answered_does_not_wait(make: Callable[..., Writer], directory: Path) -> None:
    counters, waiting = Counters(), []
    with contextlib.closing(StoreThatHolds(directory)) as store:
        writer = make(store, counters)
        committed = writer.submit(received(checkout()))
        assert counters.waiting == 3
        committed.add_done_callback(lambda answered: waiting.append(counters.waiting))  # in the writer's thread
        store.release.set()
        writer.close()
    assert waiting == [0]


def test_what_was_answered_is_not_counted_as_waiting(tmp_path: Path) -> None:
    check_what_was_answered_does_not_wait(Writer, tmp_path)


class AnswersAndThenCounts(Writer):
    def _answer(self, group: Any, error: Exception | None) -> None:
        for submission in group:
            submission.committed.set_result(None)
        super()._answer([each._replace(committed=Future()) for each in group], error)


def test_a_writer_that_answers_and_then_counts_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_what_was_answered_does_not_wait(AnswersAndThenCounts, tmp_path)


async def test_what_was_accepted_is_committed_and_answered_before_the_end(tmp_path: Path) -> None:
    with contextlib.closing(StoreThatHolds(tmp_path)) as store:
        async with aiohttp.ClientSession() as session:
            collector = Collector(store, port=0)
            await collector.start()
            answer = asyncio.create_task(Sender(session, collector.url).post(protobuf([checkout()])))
            await anyio.to_thread.run_sync(store.entered.wait)
            closing = asyncio.create_task(collector.aclose())
            done, _ = await asyncio.wait([closing, answer], timeout=0.2)
            assert not done
            store.release.set()
            assert (await answer)[0] == 200
            await closing
        assert store.statistics().spans == 3


async def double_post(store: SQLiteStore) -> list[object]:
    async with collecting(store) as sender:
        for _ in range(2):
            assert (await sender.post(protobuf([checkout()])))[0] == 200
            assert (await sender.post(json_body([checkout()]), content_type=JSON))[0] == 200
        (trace,) = await sender.traces()
        return [trace["spans"], trace["errors"], trace["open"], store.statistics().spans]


async def test_a_body_posted_again_changes_no_count(tmp_path: Path) -> None:
    assert await double_post(SQLiteStore(tmp_path / "real")) == [3, 1, 0, 3]
    assert await double_post(StoreThatCountsTwice(tmp_path / "faulty")) != [3, 1, 0, 3]


async def test_bad_spans_are_rejected_and_their_neighbors_stored(tmp_path: Path) -> None:
    request = ExportTraceServiceRequest.FromString(protobuf([group(*(span(1, n) for n in range(1, 6)))]))
    _, short, zero, other_trace, orphan = request.resource_spans[0].scope_spans[0].spans
    short.span_id, zero.span_id, other_trace.trace_id, orphan.parent_span_id = b"2", bytes(8), b"", b"parent"
    async with collecting(tmp_path) as sender:
        status, answer, _ = await sender.post(request.SerializeToString())
        assert status == 200
        rejected, reason = decode_response(answer)
        assert rejected == 4
        assert "span_id must be 8 bytes and not all zero" in reason
        official = ExportTraceServiceResponse.FromString(answer)
        assert official.partial_success.rejected_spans == 4
        assert (await sender.traces())[0]["spans"] == 1


async def test_json_names_its_rejected_spans_too(tmp_path: Path) -> None:
    bad = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"00","spanId":"0102030405060708"}]}]}]}'
    async with collecting(tmp_path) as sender:
        status, answer, _ = await sender.post(bad, content_type=JSON)
        assert status == 200
        partial = msgspec.json.decode(answer)["partialSuccess"]
        assert partial["rejectedSpans"] == "1"
        assert "trace_id" in partial["errorMessage"]


async def test_values_too_deep_to_store_reject_one_span_only(tmp_path: Path) -> None:
    deep = b'{"stringValue":"x"}'
    for _ in range(40):
        deep = b'{"arrayValue":{"values":[' + deep + b"]}}"
    body = json_body([group(span(1, 1), span(1, 2, attributes={"deep": "DEEP"}))])
    body = body.replace(b'{"stringValue":"DEEP"}', deep)
    async with collecting(tmp_path) as sender:
        status, answer, _ = await sender.post(body, content_type=JSON)
        assert (status, msgspec.json.decode(answer)["partialSuccess"]["rejectedSpans"]) == (200, "1")
        assert (await sender.traces())[0]["spans"] == 1


async def test_a_store_that_cannot_commit_asks_to_come_again(tmp_path: Path) -> None:
    store = StoreOnAFullDisk(tmp_path)
    async with collecting(store) as sender:
        status, answer, headers = await sender.post(protobuf([checkout()]))
        assert (status, headers["Retry-After"]) == (503, "1")
        assert b"disk is full" in answer
        store.full = False
        assert (await sender.post(protobuf([checkout()])))[0] == 200
        assert len(await sender.traces()) == 1


async def test_a_body_that_cannot_be_stored_does_not_take_its_neighbors_along(tmp_path: Path) -> None:
    bodies = [protobuf([group(span(n, 1, name="choke" if n == 5 else "work"))]) for n in range(1, 11)]
    async with collecting(StoreThatChokes(tmp_path)) as sender:
        answers = await asyncio.gather(*map(sender.post, bodies))
        assert [status for status, _, _ in answers] == [200] * 4 + [500] + [200] * 5
        assert len(await sender.traces()) == 9


async def test_a_collector_that_is_behind_says_so_and_recovers(tmp_path: Path) -> None:
    store = StoreThatHolds(tmp_path)
    body = protobuf([checkout()])
    async with collecting(store, capacity=3 * len(body)) as sender:
        first = [asyncio.create_task(sender.post(body))]
        try:
            await anyio.to_thread.run_sync(store.entered.wait)
            first += [asyncio.create_task(sender.post(body)) for _ in range(9)]
            refused, _ = await asyncio.wait(first, timeout=10, return_when=asyncio.FIRST_COMPLETED)
            status, _, headers = refused.pop().result()
            assert (status, headers["Retry-After"]) == (503, "1")
        finally:
            store.release.set()
        statuses = sorted([(await each)[0] for each in first])
        assert statuses == [200] * 3 + [503] * 7
        assert (await sender.post(body))[0] == 200
