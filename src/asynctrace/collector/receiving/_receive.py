"""`POST /v1/traces`, `/v1/logs`, `/v1/metrics`: from a request to its answer (OTLP 1.x, "OTLP/HTTP").

    read (bounded) ─▶ expand, read into rows (thread) ─▶ Sink.take: commit, or stream ─▶ 200

Promises:

- 200 is sent after the sink took the request, never before.
- A request that is known, by the key its sender gave or by what it holds, is answered 200, and nothing is stored again.
- Every answer has the encoding of the request: an `ExportTraceServiceResponse`, or for errors a
  `google.rpc.Status`, as protobuf or as JSON. Where notices of open spans are welcome, every good answer says so.
- 400 (no OTLP), 413 (too large), 415 (unknown type or encoding): sending the same again will not help.
  429 and 503 with `Retry-After`: nothing is known to be stored, send it again. 500: a defect here, said on stderr.
- Metrics are answered 200, counted, and not kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import msgspec
from aiohttp import hdrs, web

from ..._diagnostics import Diagnostics
from ..._errors import WireError
from ...wire import encode_varint, length_delimited
from .._keys import KEY_HEADER, RequestKey, parse_key
from .._rows import Received
from ..store import StoreError
from ._admission import Admission, Behind, Ticket
from ._body import Refused, expand
from ._counters import Counters
from ._intake import TooMany
from ._scan import Scanner
from ._signals import JSON, PROTOBUF, READERS, Signal, partial_success, paths_of
from ._sink import Sent, Sink

__all__ = ["CAPACITY", "MAX_BODY", "MAX_EXPANDED", "OPEN_SPANS_HEADER", "Receiver"]

MAX_BODY: Final = 32 * 1024 * 1024
"""Bytes of a request body as it is sent."""
MAX_EXPANDED: Final = 128 * 1024 * 1024
"""Bytes of a request body after decompression."""
CAPACITY: Final = 64 * 1024 * 1024
"""Bytes of bodies between their first read and their commit; a single larger body may enter alone."""
MOST_PIECES: Final = 1000
"""Of a body that trickles in; more are joined. Each takes some forty bytes beside its own, which `Admission` knows not."""
SMALL_PIECE: Final = 64
"""Bytes, on average."""
DECODERS: Final = 2
"""Threads that decode: one more than one, so that a large body does not hold up the small ones."""
OPEN_SPANS_HEADER: Final = "x-asynctrace-open-spans"
"""With the value 1: whoever reads this may send notices of spans that are still open."""

STATUS_CODES: Final = {400: 3, 413: 3, 415: 3, 429: 8, 500: 13, 503: 14}
"""HTTP status to google.rpc.Code: INVALID_ARGUMENT, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE."""


class Receiver:
    """Takes requests in for `sink` until `close()`. `welcomes_notices`: there is somebody to show open spans to."""

    def __init__(
        self,
        sink: Sink,
        counters: Counters,
        *,
        capacity: int = CAPACITY,
        max_body: int = MAX_BODY,
        welcomes_notices: bool = True,
    ) -> None:
        self._sink = sink
        self._counters = counters
        self._headers = {OPEN_SPANS_HEADER: "1"} if welcomes_notices else {}
        self._max_body = max_body
        self._admission = Admission(capacity)
        self._scanner = Scanner()
        self._diagnostics = Diagnostics(time.monotonic_ns)
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="asynctrace-collector-decoder")

    def routes(self) -> list[web.AbstractRouteDef]:
        """Where OTLP is taken."""
        return [
            route
            for signal in Signal
            for path in paths_of(signal)
            for route in (web.post(path, partial(self._answer, signal)), web.options(path, _preflight))
        ]

    async def keep(self, body: bytes, content_type: str, encoding: str = "identity") -> Received:
        """Take over spans that were kept as a file, and log records beside them in JSON, each time anew. Raises `Refused`,
        `Behind`, `StoreError`."""
        with self._admission.ticket() as ticket:
            ticket.grow(len(body))
            sent = Sent(Signal.TRACES, content_type, encoding, body)
            received = await asyncio.get_running_loop().run_in_executor(self._decoders, self._decode_file, sent)
            ticket.grow(max(0, received.size - len(body)))
            if received.rows or received.logs:
                await self._sink.take(received, sent)
        return received

    def close(self) -> None:
        """End the decoding threads."""
        self._decoders.shutdown()

    async def _answer(self, signal: Signal, request: web.Request) -> web.Response:
        content_type = JSON if request.content_type == JSON else PROTOBUF
        try:
            answer = self._success(signal, await self._take(signal, request), content_type)
        except Refused as refusal:
            answer = _failure(refusal.status, refusal.reason, content_type)
        except Behind as behind:
            answer = _failure(behind.status, behind.reason, content_type, behind.retry_after)
        except StoreError as error:
            self._diagnostics.error("collector.store_failed", reason=str(error))
            answer = _failure(503, str(error), content_type)
        except Exception as error:  # noqa: BLE001  (a defect of ours must not look like a dead collector)
            self._diagnostics.error("collector.request_failed", reason=repr(error))
            answer = _failure(500, "the collector failed on this request", content_type)
        self._counters.answered(signal, answer.status)
        return answer

    async def _take(self, signal: Signal, request: web.Request) -> Received:
        content_type = request.content_type
        if content_type not in (PROTOBUF, JSON):
            raise Refused(415, f"Content-Type {content_type!r} is not supported: send {PROTOBUF} or {JSON}")
        encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()
        with self._admission.ticket() as ticket:
            body = await self._read(request, ticket)
            self._counters.read(len(body))
            if signal is Signal.METRICS:
                return _NOTHING
            sent = Sent(signal, content_type, encoding, body)
            work = partial(self._decode, sent, request.headers.getall(KEY_HEADER, []))
            received, ignored = await asyncio.get_running_loop().run_in_executor(self._decoders, work)
            ticket.grow(received.size - len(body) if received.size > len(body) else 0)
            if received.rows or received.logs:
                await self._sink.take(received, sent)
            self._counters.took(received, ignored)
        return received

    async def _read(self, request: web.Request, ticket: Ticket) -> bytes:
        if (request.content_length or 0) > self._max_body:
            raise self._too_large()
        pieces: list[bytes] = []
        size = 0
        while piece := await request.content.readany():
            ticket.grow(len(piece))
            pieces.append(piece)
            size += len(piece)
            if size > self._max_body:
                raise self._too_large()
            if len(pieces) > MOST_PIECES and size < len(pieces) * SMALL_PIECE:
                pieces = [b"".join(pieces)]
        return b"".join(pieces)

    def _too_large(self) -> Refused:
        return Refused(413, f"the body is larger than {self._max_body} bytes: send fewer spans at once")

    def _success(self, signal: Signal, received: Received, content_type: str) -> web.Response:
        body = partial_success(signal, received.rejected, received.reason, content_type)
        return web.Response(body=body, content_type=content_type, headers=self._headers)

    def _decode_file(self, sent: Sent) -> Received:
        spans, _ = self._decode(sent, [])
        if sent.content_type != JSON:
            return msgspec.structs.replace(spans, key=None)
        beside, _ = self._decode(sent._replace(signal=Signal.LOGS), [])
        return msgspec.structs.replace(
            spans,
            key=None,
            origins=spans.origins + beside.origins,
            logs=[log._replace(origin=log.origin + len(spans.origins)) for log in beside.logs],
            rejected=spans.rejected + beside.rejected,
            reason=spans.reason or beside.reason,
        )

    def _decode(self, sent: Sent, keys: list[str]) -> tuple[Received, int]:
        """What the body holds, and how many log records of it are nobody's."""
        signal = sent.signal
        expanded = expand(sent.body, sent.encoding, MAX_EXPANDED)
        try:
            intake = READERS[signal, sent.content_type](self._scanner, expanded)
        except WireError as error:
            raise Refused(400, f"the body is no OTLP {signal} request: {error}") from error
        except TooMany as error:
            raise Refused(413, str(error)) from error
        # one with a flaw is judged anew each time it comes, and a notice means something each time
        is_final = not intake.rejected and not intake.notices
        records = len(intake.rows) + len(intake.logs)
        received = Received(
            origins=intake.origins,
            rows=intake.rows,
            logs=intake.logs,
            rejected=intake.rejected,
            reason=intake.reason,
            key=(parse_key(keys, records) or _key_of(sent, records)) if is_final and records else None,
            size=len(expanded),
        )
        return received, intake.ignored


_NOTHING: Final = Received(origins=[], rows=[])


def _key_of(sent: Sent, records: int) -> RequestKey:
    """Of a request whose sender gives no key: the same bytes are the same request."""
    return RequestKey(f"{sent.signal}-{hashlib.sha256(sent.body).hexdigest()[:40]}", 0, records)


def _failure(status: int, reason: str, content_type: str, retry_after: float = 1.0) -> web.Response:
    code = STATUS_CODES[status]
    if content_type == JSON:
        body = msgspec.json.encode({"code": code, "message": reason})
    else:
        body = b"\x08" + encode_varint(code) + length_delimited(b"\x12", reason.encode("utf-8", "replace"))
    response = web.Response(status=status, body=body, content_type=content_type)
    if status in (429, 503):
        response.headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(retry_after)))
    return response


async def _preflight(request: web.Request) -> web.Response:
    return web.Response(status=204)
