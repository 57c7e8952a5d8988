"""Records that name another instrumentation scope arrive in it, also where a batch is halved."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from asynctrace import Tracer, wire
from asynctrace._contracts import Ending, Scope
from asynctrace.delivery import RecordBatch
from asynctrace.exporters import MemoryExporter, OTLPExporter, _otlp
from asynctrace.testing._faults import FaultServer, Status
from asynctrace.wire import scope_fields

from .conftest import a_span, batch_of

LIBRARY = Scope(name="library", version="2", schema_url="https://example.org/1")


@pytest.fixture
def server():
    with FaultServer.in_thread() as running:
        yield running


def scoped_batch() -> RecordBatch:
    """Spans 1 and 3 are the tracer's, span 2 the library's."""
    named = wire.decode_span(scope_fields(LIBRARY)).attributes
    spans = [a_span(1), msgspec.structs.replace(a_span(2), attributes={**named, "mine": 2}), a_span(3)]
    batch = batch_of(spans)
    batch.is_scoped = True
    return batch


def scopes_of(body: bytes) -> dict[tuple[str, str, str], list[tuple[str, list[str]]]]:
    """For each scope its spans, as name and keys of their attributes."""
    request = ExportTraceServiceRequest.FromString(body)
    (outer,) = request.resource_spans
    return {
        (inner.scope.name, inner.scope.version, inner.schema_url): [
            (span.name, [attribute.key for attribute in span.attributes]) for span in inner.spans
        ]
        for inner in outer.scope_spans
    }


IN_SCOPES = {
    ("asynctrace", "0", ""): [("span 1", []), ("span 3", [])],
    ("library", "2", "https://example.org/1"): [("span 2", ["mine"])],
}


def check_protobuf(server: FaultServer, **options: Any) -> None:
    batch = scoped_batch()
    exporter = OTLPExporter(server.url, **options)

    async def export() -> None:
        assert (await exporter.export(batch)).accepted == batch.count
        await exporter.aclose()

    asyncio.run(export())
    assert scopes_of(server.requests[0].body) == IN_SCOPES


def test_each_span_arrives_in_its_scope(server: FaultServer) -> None:
    check_protobuf(server)


def test_also_where_the_body_is_compressed(server: FaultServer) -> None:
    check_protobuf(server, compression="gzip")


def test_an_exporter_that_does_not_look_is_noticed(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def one_scope(slices: object, batch: RecordBatch) -> bytes:
        return b"".join(wire.encode_request(batch.resource_bytes, batch.scope_bytes, batch.payload))

    monkeypatch.setattr(_otlp.Slices, "scoped_request", one_scope)
    with pytest.raises(AssertionError):
        check_protobuf(server)


def test_each_span_arrives_in_its_scope_as_json(server: FaultServer) -> None:
    batch = scoped_batch()
    exporter = OTLPExporter(server.url, encoding="json")

    async def export() -> None:
        assert (await exporter.export(batch)).accepted == batch.count
        await exporter.aclose()

    asyncio.run(export())
    (outer,) = json.loads(server.requests[0].body)["resourceSpans"]
    found = {
        (inner["scope"]["name"], inner["scope"]["version"], inner.get("schemaUrl", "")): [
            (span["name"], [attribute["key"] for attribute in span.get("attributes", ())]) for span in inner["spans"]
        ]
        for inner in outer["scopeSpans"]
    }
    assert found == IN_SCOPES


def test_a_batch_that_holds_none_is_sent_as_it_lies(server: FaultServer) -> None:
    """No record is looked at: not even one that names a scope."""
    batch = scoped_batch()
    batch.is_scoped = False
    exporter = OTLPExporter(server.url)

    async def body() -> Any:
        return await exporter._body(batch)

    parts = asyncio.run(body())
    assert all(sent is lies for sent, lies in zip(parts[1:], batch.payload, strict=True))


def end_some(tracer: Tracer, *, scoped: bool) -> None:
    scope = scope_fields(LIBRARY) if scoped else b""
    for n in range(4):
        tracer._open_apart(f"span {n}", parent=None, scope=scope)._end_apart(Ending.OK)


@pytest.mark.parametrize("scoped", [False, True])
def test_the_batches_of_a_log_with_such_records_say_so(scoped: bool) -> None:
    seen: list[bool] = []

    class Looks(MemoryExporter):
        async def export(self, batch: Any) -> Any:
            seen.append(batch.is_scoped)
            return await super().export(batch)

    with Tracer(service="shop", exporters=[Looks()], journal=False) as tracer:
        end_some(tracer, scoped=scoped)
    assert set(seen) == {scoped}


def test_a_refused_batch_is_halved_and_its_halves_are_in_their_scopes(server: FaultServer) -> None:
    server.plan(Status(400))
    with Tracer(service="shop", exporters=[OTLPExporter(server.url)], journal=False) as tracer:
        end_some(tracer, scoped=True)
    assert tracer.receipt().complete
    halves = [scopes_of(request.body) for request in server.requests if request.status == 200]
    assert [list(half) for half in halves] == [[("library", "2", "https://example.org/1")]] * 2
    assert sorted(name for half in halves for spans in half.values() for name, _ in spans) == [
        f"span {n}" for n in range(4)
    ]
