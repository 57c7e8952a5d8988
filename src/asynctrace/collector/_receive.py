"""`POST /v1/traces`: from a request to its answer (OTLP 1.x, "OTLP/HTTP").

    read (bounded) ─▶ expand, decode (thread) ─▶ Writer.submit ─▶ commit ─▶ 200

Promises:

- 200 is sent after the commit, never before.
- A request that is known by its key is answered 200, and nothing is stored again.
- Every answer has the encoding of the request: an `ExportTraceServiceResponse`, or for errors a
  `google.rpc.Status`, as protobuf or as JSON.
- 400 (no OTLP), 413 (too large), 415 (unknown type or encoding): sending the same again will not help.
  503 with `Retry-After`: nothing is known to be stored, send it again. 500: a defect here, said on stderr.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec
from aiohttp import hdrs, web

from .._diagnostics import Diagnostics
from ..wire import encode_response, encode_varint, length_delimited
from ._body import JSON, PROTOBUF, Received, Refused, expand, parse
from ._keys import KEY_HEADER, RequestKey, parse_key
from ._store import StoreError
from ._writer import Admission, Behind, Ticket, Writer

__all__ = ["CAPACITY", "MAX_BODY", "MAX_EXPANDED", "Receiver"]

MAX_BODY: Final = 32 * 1024 * 1024
"""Bytes of a request body as it is sent."""
MAX_EXPANDED: Final = 128 * 1024 * 1024
"""Bytes of a request body after decompression."""
CAPACITY: Final = 64 * 1024 * 1024
"""Bytes of bodies between their first read and their commit; a single larger body may enter alone."""
DECODERS: Final = 2
"""Threads that decode: one more than one, so that a large body does not hold up the small ones."""
RETRY_AFTER: Final = "1"
"""Seconds; the queue drains in less."""

STATUS_CODES: Final = {400: 3, 413: 3, 415: 3, 500: 13, 503: 14}
"""HTTP status to google.rpc.Code: INVALID_ARGUMENT, INTERNAL, UNAVAILABLE."""


class Receiver:
    """Takes requests in until `close()`."""

    def __init__(self, writer: Writer, *, capacity: int = CAPACITY, max_body: int = MAX_BODY) -> None:
        self._writer = writer
        self._max_body = max_body
        self._admission = Admission(capacity)
        self._diagnostics = Diagnostics(time.monotonic_ns)
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="asynctrace-collector-decoder")

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one export request."""
        is_json = request.content_type == JSON
        try:
            return _success(await self._take(request), is_json=is_json)
        except Refused as refusal:
            return _failure(refusal.status, refusal.reason, is_json=is_json)
        except Behind:
            return _failure(503, "the collector is behind, send this again", is_json=is_json)
        except StoreError as error:
            self._diagnostics.error("collector.store_failed", reason=str(error))
            return _failure(503, str(error), is_json=is_json)
        except Exception as error:  # noqa: BLE001  (a defect of ours must not look like a dead collector)
            self._diagnostics.error("collector.request_failed", reason=repr(error))
            return _failure(500, "the collector failed on this request", is_json=is_json)

    def close(self) -> None:
        """End the decoding threads."""
        self._decoders.shutdown()

    async def _take(self, request: web.Request) -> Received:
        content_type = request.content_type
        if content_type not in (PROTOBUF, JSON):
            raise Refused(415, f"Content-Type {content_type!r} is not supported: send {PROTOBUF} or {JSON}")
        encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()
        with self._admission.ticket() as ticket:
            body = await self._read(request, ticket)
            received = await asyncio.get_running_loop().run_in_executor(
                self._decoders, _decode, body, encoding, content_type
            )
            ticket.grow(received.size - len(body) if received.size > len(body) else 0)
            if received.groups:
                await asyncio.wrap_future(self._writer.submit(received.groups, _key(request, received)))
        return received

    async def _read(self, request: web.Request, ticket: Ticket) -> bytes:
        if (request.content_length or 0) > self._max_body:
            raise self._too_large()
        body = bytearray()
        while piece := await request.content.readany():
            ticket.grow(len(piece))
            body += piece
            if len(body) > self._max_body:
                raise self._too_large()
        return bytes(body)

    def _too_large(self) -> Refused:
        return Refused(413, f"the body is larger than {self._max_body} bytes: send fewer spans at once")


def _key(request: web.Request, received: Received) -> RequestKey | None:
    """The key of a request that is taken over whole. One with a flaw is judged anew each time it comes."""
    if received.rejected:
        return None
    return parse_key(request.headers.getall(KEY_HEADER, ()), received.accepted)


def _decode(body: bytes, encoding: str, content_type: str) -> Received:
    return parse(expand(body, encoding, MAX_EXPANDED), content_type)


def _success(received: Received, *, is_json: bool) -> web.Response:
    if not is_json:
        body = encode_response(received.rejected, received.reason) if received.rejected else encode_response()
        return web.Response(body=body, content_type=PROTOBUF)
    partial = {"rejectedSpans": str(received.rejected), "errorMessage": received.reason}
    answer = {"partialSuccess": partial} if received.rejected else {}
    return web.Response(body=msgspec.json.encode(answer), content_type=JSON)


def _failure(status: int, reason: str, *, is_json: bool) -> web.Response:
    code = STATUS_CODES[status]
    if is_json:
        body = msgspec.json.encode({"code": code, "message": reason})
    else:
        body = b"\x08" + encode_varint(code) + length_delimited(b"\x12", reason.encode("utf-8", "replace"))
    response = web.Response(status=status, body=body, content_type=JSON if is_json else PROTOBUF)
    if status == 503:
        response.headers[hdrs.RETRY_AFTER] = RETRY_AFTER
    return response
