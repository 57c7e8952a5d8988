"""What senders send: spans, bodies in every encoding, and a collector to send them to."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import msgspec
import zstandard

from asynctrace._contracts import AttributeValue, Event, Resource, Scope, Span, StatusCode
from asynctrace.collector import Collector, RequestKey, SQLiteStore
from asynctrace.collector._rows import Received
from asynctrace.collector.receiving._scan import Scanner
from asynctrace.wire import (
    ResourceSpans,
    encode_resource,
    encode_scope,
    encode_span,
    frame,
    json_request,
    length_delimited,
)

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
START = 1_700_000_000_000_000_000

COMPRESSORS = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


def span(
    trace: int = 1,
    number: int = 1,
    *,
    parent: int = 0,
    name: str = "work",
    start: int = 0,
    duration: int = 1_000_000,
    status: StatusCode = StatusCode.OK,
    attributes: dict[str, AttributeValue] | None = None,
    events: tuple[Event, ...] = (),
) -> Span:
    """`duration` 0 is an open span; `start` and `duration` are nanoseconds."""
    return Span(
        trace_id=f"{trace:032x}",
        span_id=f"{number:016x}",
        parent_id=f"{parent:016x}" if parent else "",
        name=name,
        start_ns=START + start,
        end_ns=START + start + duration if duration else 0,
        status=status,
        attributes=attributes or {},
        events=events,
    )


def group(*spans: Span, service: str = "shop", schemas: tuple[str, str] = ("", "")) -> ResourceSpans:
    return ResourceSpans(
        resource=Resource(attributes={"service.name": service}, schema_url=schemas[0]),
        scope=Scope(name="tests", schema_url=schemas[1]),
        spans=spans,
    )


def checkout(trace: int = 1) -> ResourceSpans:
    """A small trace with a failed child."""
    return group(
        span(trace, 1, name="checkout", duration=1_200_000_000),
        span(
            trace,
            2,
            parent=1,
            name="retrieve",
            start=1_000_000,
            duration=12_000_000,
            attributes={"input.value": '{"q":"tea"}', "openinference.span.kind": "RETRIEVER"},
            events=(Event(time_ns=START + 3_000_000, name="cache miss", attributes={"shard": 3}),),
        ),
        span(trace, 3, parent=1, name="pay", start=20_000_000, duration=812_000_000, status=StatusCode.ERROR),
    )


def protobuf(groups: Sequence[ResourceSpans]) -> bytes:
    parts: list[bytes] = []
    for part in groups:
        records = [frame(encode_span(each)) for each in part.spans]
        scope = length_delimited(b"\x0a", encode_scope(part.scope)), *records, _schema(part.scope.schema_url)
        resource = length_delimited(b"\x0a", encode_resource(part.resource)), _schema(part.resource.schema_url)
        parts.append(length_delimited(b"\x0a", b"".join((*resource, length_delimited(b"\x12", b"".join(scope))))))
    return b"".join(parts)


def _schema(url: str) -> bytes:
    return length_delimited(b"\x1a", url.encode()) if url else b""


def received(*groups: ResourceSpans, key: RequestKey | None = None) -> Received:
    """What receiving makes of these groups, in one request."""
    body = protobuf(groups)
    intake = Scanner().request(body)
    assert not intake.rejected, intake.reason
    return Received(origins=intake.origins, rows=intake.rows, key=key, size=len(body))


def json_body(groups: Sequence[ResourceSpans]) -> bytes:
    return json_request(list(groups))


class Sender:
    """Posts to a collector over a real connection."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def post(
        self,
        body: object,
        *,
        content_type: str = PROTOBUF,
        encoding: str | None = None,
        path: str = "/v1/traces",
        **headers: str,
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of the answer. `body` may be an async iterator: then it is sent in chunks."""
        sent = {"Content-Type": content_type, **headers}
        if encoding is not None:
            sent["Content-Encoding"] = encoding
        async with self.session.post(f"{self.url}{path}", data=body, headers=sent) as response:
            return response.status, await response.read(), dict(response.headers)

    async def get(self, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        async with self.session.get(f"{self.url}{path}", headers=headers) as response:
            return response.status, await response.read(), dict(response.headers)

    async def traces(self) -> list[dict[str, object]]:
        status, body, _ = await self.get("/api/v1/traces")
        assert status == 200, body
        answer = msgspec.json.decode(body)
        assert set(answer) >= {"traces", "cursor"}
        traces: list[dict[str, object]] = answer["traces"]
        return traces


@contextlib.asynccontextmanager
async def collecting(
    directory: Path | SQLiteStore, *, host: str = "127.0.0.1", token: str | None = None, **options: int
) -> AsyncIterator[Sender]:
    """A collector on a free port, and a sender for it."""
    store = directory if isinstance(directory, SQLiteStore) else SQLiteStore(directory)
    with contextlib.closing(store):
        async with (
            Collector(store, host=host, port=0, token=token, **options) as collector,
            aiohttp.ClientSession() as session,
        ):
            yield Sender(session, collector.url)
