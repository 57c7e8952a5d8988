"""The far side of every benchmark: an HTTP/1.1 keep-alive server in a process of its own.

It promises:

- a span request is answered at once (or after `--latency`, or with 503 during `--unavailable`, or never
  with `--hang`), before anything in it is looked at: the sink's CPU is never on the path that is measured;
- bodies that were answered 2xx are kept and counted when `GET /stats` asks, by parsers that are not
  asynctrace's (opentelemetry-proto, msgspec), so "all arrived" means distinct span ids, not requests;
- it prints its port as the first line and ends when its standard input does.

The paths are those of OTLP (`/v1/traces`), Datadog's agent (`/v0.4/traces`, `/v0.5/traces`) and Zipkin
(`/api/v2/spans`).
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

__all__ = ["Sink", "count"]

OTLP = "/v1/traces"
DATADOG_DICTS = "/v0.4/traces"
DATADOG_TABLES = "/v0.5/traces"
ZIPKIN = "/api/v2/spans"

SPAN_ID_COLUMN = 4
"""Where a span's id is in a row of Datadog's v0.5 format."""


def _otlp(body: bytes) -> Iterable[tuple[bytes, int]]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest.FromString(body)
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield span.span_id, span.ByteSize()


def _datadog_dicts(body: bytes) -> Iterable[tuple[int, int]]:
    for trace in msgspec.msgpack.decode(body):
        for span in trace:
            yield span["span_id"], 0


def _datadog_tables(body: bytes) -> Iterable[tuple[int, int]]:
    _strings, traces = msgspec.msgpack.decode(body)
    for trace in traces:
        for span in trace:
            yield span[SPAN_ID_COLUMN], 0


def _zipkin(body: bytes) -> Iterable[tuple[str, int]]:
    for span in msgspec.json.decode(body):
        yield span["id"], 0


PARSERS: dict[str, Callable[[bytes], Iterable[tuple[Any, int]]]] = {
    OTLP: _otlp,
    DATADOG_DICTS: _datadog_dicts,
    DATADOG_TABLES: _datadog_tables,
    ZIPKIN: _zipkin,
}
OPENINGS = {OTLP: ("200 OK", b""), ZIPKIN: ("202 Accepted", b"")}
AGENT_INFORMATION = json.dumps({"version": "7.60.0", "endpoints": [DATADOG_DICTS, DATADOG_TABLES]}).encode()


def count(bodies: Iterable[tuple[str, bytes]]) -> tuple[list[Any], int]:
    """The span ids of `bodies` (path, body), repeats included, and the bytes of the OTLP spans among them."""
    ids: list[Any] = []
    size = 0
    for path, body in bodies:
        for span_id, span_bytes in PARSERS[path](body):
            ids.append(span_id)
            size += span_bytes
    return ids, size


class Sink:
    """What has arrived, and how to answer."""

    def __init__(self, *, latency: float = 0.0, unavailable: float = 0.0, hang: bool = False) -> None:
        self.latency = latency
        self.unavailable = unavailable
        self.hang = hang
        self.first: float | None = None
        self.requests = 0
        self.refused = 0
        self._kept: list[tuple[str, bytes]] = []
        self._seen: set[Any] = set()
        self._spans = 0
        self._span_bytes = 0

    def take(self, path: str, body: bytes) -> bytes | None:
        """Keep a request for spans; the answer, or `None` for no answer at all."""
        now = time.monotonic()
        self.first = now if self.first is None else self.first
        self.requests += 1
        if self.hang:
            return None
        if now - self.first < self.unavailable:
            self.refused += 1
            return _answer("503 Service Unavailable", b"")
        self._kept.append((path, body))
        status, text = OPENINGS.get(path, ("200 OK", b'{"rate_by_service":{}}'))
        return _answer(status, text)

    def stats(self) -> dict[str, int]:
        """Spans, distinct span ids, OTLP span bytes, requests, refused requests."""
        kept, self._kept = self._kept, []
        ids, size = count(kept)
        self._spans += len(ids)
        self._seen.update(ids)
        self._span_bytes += size
        return {
            "spans": self._spans,
            "distinct": len(self._seen),
            "span_bytes": self._span_bytes,
            "requests": self.requests,
            "refused": self.refused,
        }


def _answer(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class _Connection(asyncio.Protocol):
    """One keep-alive connection: bodies by length or chunked, one request at a time."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (request := self._next_request()) is not None:
            self._respond(*request)

    def _next_request(self) -> tuple[str, bytes] | None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = self._received[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        taken = self._body(end + 4, headers)
        if taken is None:
            return None
        body, consumed = taken
        del self._received[:consumed]
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        return first.split(" ")[1], body

    def _body(self, start: int, headers: dict[str, str]) -> tuple[bytes, int] | None:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._chunks(start)
        end = start + int(headers.get("content-length", "0"))
        return (bytes(self._received[start:end]), end) if len(self._received) >= end else None

    def _chunks(self, position: int) -> tuple[bytes, int] | None:
        body = bytearray()
        while (line_end := self._received.find(b"\r\n", position)) >= 0:
            size = int(self._received[position:line_end].split(b";")[0], 16)
            chunk = line_end + 2
            position = chunk + size + 2
            if len(self._received) < position:
                return None
            if size == 0:
                return bytes(body), position
            body += self._received[chunk : chunk + size]
        return None

    def _respond(self, path: str, body: bytes) -> None:
        if path in PARSERS:
            answer = self._sink.take(path, body)
            if answer is not None and self._sink.latency:
                asyncio.get_running_loop().call_later(self._sink.latency, self._write, answer)
            elif answer is not None:
                self._write(answer)
        elif path == "/stats":
            self._write(_answer("200 OK", json.dumps(self._sink.stats()).encode()))
        else:
            self._write(_answer("200 OK", AGENT_INFORMATION if path == "/info" else b"{}"))

    def _write(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


async def _serve(sink: Sink) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(sink), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def _main() -> None:
    parser = argparse.ArgumentParser(description="Receive spans, answer, count when asked.")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--unavailable", type=float, default=0.0, help="answer 503 for so many seconds")
    parser.add_argument("--hang", action="store_true", help="never answer a span request")
    given = parser.parse_args()
    asyncio.run(_serve(Sink(latency=given.latency, unavailable=given.unavailable, hang=given.hang)))


if __name__ == "__main__":
    _main()
