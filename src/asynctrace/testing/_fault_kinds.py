"""What can happen to one request at a `FaultServer`.

A fault is a small frozen value with one coroutine method, `play(exchange)`, that answers, or returns `None`
after cutting the connection. Your own can stand beside the ones here:

    class TeapotOnMondays(msgspec.Struct, frozen=True):
        async def play(self, exchange):
            return exchange.respond(418)
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec
from aiohttp import web

from .._contracts import Resource, Span
from ..wire import encode_response

if TYPE_CHECKING:
    from ._faults import FaultServer

__all__ = [
    "ReceivedRequest",
    "Exchange",
    "Fault",
    "Group",
    # answers
    "Accept",
    "PartialSuccess",
    "RejectWhen",
    "TooLargeOver",
    "Status",
    "Redirect",
    "Garbage",
    # time
    "Delay",
    "Hang",
    "OutOfOrder",
    # connections
    "ResetBeforeResponse",
    "AcceptThenReset",
    "HalfClose",
    "ResetMidBody",
    "StallMidBody",
    "Truncated",
]


class ReceivedRequest(msgspec.Struct, kw_only=True):
    """One request as it came. Header names are lower case."""

    number: int
    """Counts from 0 in the order of arrival."""
    time: float
    """Seconds of the monotonic clock when the whole body was there."""
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    """Decompressed."""
    body_size: int
    """Bytes on the wire."""
    key: str
    """The sender's name for these records: the header `x-asynctrace-key`."""
    resource: Resource
    spans: tuple[Span, ...]
    error: str = ""
    """Why the body could not be read."""
    status: int | None = None
    """What was answered; `None` while nothing is, and when the connection was cut."""

    @property
    def names(self) -> tuple[str, ...]:
        """The spans' names."""
        return tuple(span.name for span in self.spans)

    @property
    def span_ids(self) -> tuple[str, ...]:
        """The spans' ids."""
        return tuple(span.span_id for span in self.spans)


class Fault(Protocol):
    """How one request is treated."""

    async def play(self, exchange: Exchange) -> web.StreamResponse | None:
        """Answer, or cut the connection and return `None`."""


class Exchange:
    """One request and what a fault can do with it."""

    def __init__(self, server: FaultServer, request: web.Request, received: ReceivedRequest) -> None:
        self.server = server
        self.request = received
        self._http = request

    @property
    def spans(self) -> tuple[Span, ...]:
        """What the request brought."""
        return self.request.spans

    @property
    def is_json(self) -> bool:
        """Whether the body is OTLP JSON."""
        return "json" in self.request.headers.get("content-type", "")

    def accept(self, spans: tuple[Span, ...] | None = None) -> None:
        """Take spans over; all of the request's when not told which."""
        self.server.take_over(self.spans if spans is None else spans)

    def respond(self, status: int, body: bytes = b"", **headers: str) -> web.Response:
        """An answer with `body`; underscores in header names become hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    def export_response(self, rejected: int = 0, message: str = "") -> web.Response:
        """200 with an `ExportTraceServiceResponse` in the encoding of the request."""
        body = encode_response(rejected, message)
        if self.is_json:
            partial = {"rejectedSpans": str(rejected), "errorMessage": message}
            body = msgspec.json.encode({"partialSuccess": partial} if rejected or message else {})
        kind = "application/json" if self.is_json else "application/x-protobuf"
        return self.respond(200, body, Content_Type=kind)

    def send_raw(self, content: bytes) -> None:
        """Write bytes to the connection as they are."""
        if self._http.transport is not None:
            self._http.transport.write(content)

    def send_half(self, status: int = 200) -> None:
        """A good head and less of the body than it announces."""
        head = f"HTTP/1.1 {status} Half\r\nContent-Type: application/x-protobuf\r\nContent-Length: 1000\r\n\r\n"
        self.send_raw(head.encode() + b"\x0a")
        self.request.status = status

    def reset(self) -> None:
        """Cut the connection so that the client sees ECONNRESET."""
        transport = self._http.transport
        if transport is None:
            return
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    def close(self) -> None:
        """Close the connection after what was written."""
        if self._http.transport is not None:
            self._http.transport.close()

    def half_close(self) -> None:
        """Send the end of the stream, go on reading."""
        if self._http.transport is not None and self._http.transport.can_write_eof():
            self._http.transport.write_eof()


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────


class Accept(msgspec.Struct, frozen=True):
    """Takes everything over and says so."""

    async def play(self, exchange: Exchange) -> web.StreamResponse:
        exchange.accept()
        return exchange.export_response()


class PartialSuccess(msgspec.Struct, frozen=True, kw_only=True):
    """Takes some over. `rejected`: how many are not (from the end), or a function that is true for those."""

    rejected: int | Callable[[Span], bool]
    message: str = "some spans were rejected"

    async def play(self, exchange: Exchange) -> web.StreamResponse:
        spans = exchange.spans
        if isinstance(self.rejected, int):
            accepted, rejected = spans[: max(0, len(spans) - self.rejected)], self.rejected
        else:
            refuse = self.rejected
            accepted = tuple(span for span in spans if not refuse(span))
            rejected = len(spans) - len(accepted)
        exchange.accept(accepted)
        return exchange.export_response(rejected, self.message)


class Status(msgspec.Struct, frozen=True):
    """Answers with a status. `retry_after` is seconds, or an HTTP date as text."""

    code: int
    retry_after: float | str | None = None
    body: bytes = b""

    async def play(self, exchange: Exchange) -> web.StreamResponse:
        headers = {} if self.retry_after is None else {"Retry_After": str(self.retry_after)}
        return exchange.respond(self.code, self.body, **headers)


class RejectWhen(msgspec.Struct, frozen=True):
    """400 for a request with a span of which `predicate` is true; other requests are accepted."""

    predicate: Callable[[Span], bool]
    status: int = 400

    async def play(self, exchange: Exchange) -> web.StreamResponse:
        if any(self.predicate(span) for span in exchange.spans):
            return exchange.respond(self.status, b"a span is not acceptable")
        return await Accept().play(exchange)


class TooLargeOver(msgspec.Struct, frozen=True):
    """413 for a request of more than `limit` bytes (decompressed); other requests are accepted."""

    limit: int

    async def play(self, exchange: Exchange) -> web.StreamResponse:
        if len(exchange.request.body) > self.limit:
            return exchange.respond(413)
        return await Accept().play(exchange)


class Redirect(msgspec.Struct, frozen=True):
    """Sends the client to `location`."""

    location: str
    status: int = 307

    async def play(self, exchange: Exchange) -> web.StreamResponse:
        return exchange.respond(self.status, Location=self.location)


class Garbage(msgspec.Struct, frozen=True):
    """Takes everything over, and answers 200 with bytes that are no OTLP."""

    body: bytes = b"\xff\xff\xff<html>"
    content_type: str = "application/x-protobuf"

    async def play(self, exchange: Exchange) -> web.StreamResponse:
        exchange.accept()
        return exchange.respond(200, self.body, Content_Type=self.content_type)


# ── time ────────────────────────────────────────────────────────────────────────────────────────────────────


class Delay(msgspec.Struct, frozen=True):
    """Waits, then plays another fault."""

    seconds: float
    then: Fault = Accept()

    async def play(self, exchange: Exchange) -> web.StreamResponse | None:
        await asyncio.sleep(self.seconds)
        return await self.then.play(exchange)


class Hang(msgspec.Struct, frozen=True):
    """Does nothing until `until` (an event of asyncio or threading) is set, or `server.release()`."""

    until: asyncio.Event | threading.Event | None = None
    then: Fault = Accept()

    async def play(self, exchange: Exchange) -> web.StreamResponse | None:
        if self.until is None:
            await exchange.server.wait_released()
        while self.until is not None and not self.until.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # it may belong to another loop or to a thread: nothing to await
        return await self.then.play(exchange)


class OutOfOrder(msgspec.Struct, frozen=True, eq=False):
    """Holds requests until `count` have come, then answers the last one first.

    A group that is not full after `patience` seconds is answered as it is. One value, one group at a time.
    """

    count: int = 2
    then: Fault = Accept()
    patience: float = 2.0

    async def play(self, exchange: Exchange) -> web.StreamResponse | None:
        group = exchange.server.group_of(self)
        turn = group.join(self.count)
        try:
            await group.wait_for(turn, self.patience)
            return await self.then.play(exchange)
        finally:
            group.pass_on(turn)


class Group:
    """Requests held together; turns are taken from the last to the first."""

    def __init__(self) -> None:
        self.is_full = False
        self._turns: list[asyncio.Event] = []

    def join(self, count: int) -> int:
        self._turns.append(asyncio.Event())
        if len(self._turns) >= count:
            self._begin()
        return len(self._turns) - 1

    async def wait_for(self, turn: int, patience: float) -> None:
        try:
            async with asyncio.timeout(None if self.is_full else patience):
                await self._turns[turn].wait()
        except TimeoutError:
            self._begin()
            await self._turns[turn].wait()

    def pass_on(self, turn: int) -> None:
        if turn:
            self._turns[turn - 1].set()

    def _begin(self) -> None:
        if not self.is_full:
            self.is_full = True
            self._turns[-1].set()


# ── connections ─────────────────────────────────────────────────────────────────────────────────────────────


class ResetBeforeResponse(msgspec.Struct, frozen=True):
    """Reads the request, takes nothing over, resets the connection."""

    async def play(self, exchange: Exchange) -> None:
        exchange.reset()


class AcceptThenReset(msgspec.Struct, frozen=True):
    """Takes everything over and resets the connection before it could say so: the ambiguous case."""

    async def play(self, exchange: Exchange) -> None:
        exchange.accept()
        exchange.reset()


class HalfClose(msgspec.Struct, frozen=True):
    """Takes nothing over, ends its side of the connection without an answer and stays."""

    async def play(self, exchange: Exchange) -> None:
        exchange.half_close()
        await exchange.server.wait_released()


class ResetMidBody(msgspec.Struct, frozen=True):
    """Sends a status and a part of the body, then resets the connection."""

    status: int = 200
    accepts: bool = True

    async def play(self, exchange: Exchange) -> None:
        _half_answer(exchange, self.status, self.accepts)
        await asyncio.sleep(0.02)  # a reset destroys what the client has not read yet
        exchange.reset()


class StallMidBody(msgspec.Struct, frozen=True):
    """Sends a status and a part of the body, then nothing more."""

    status: int = 200
    accepts: bool = True

    async def play(self, exchange: Exchange) -> None:
        _half_answer(exchange, self.status, self.accepts)
        await exchange.server.wait_released()
        exchange.close()


class Truncated(msgspec.Struct, frozen=True):
    """Announces a longer body than it sends, then closes the connection in good order."""

    status: int = 200
    accepts: bool = True

    async def play(self, exchange: Exchange) -> None:
        _half_answer(exchange, self.status, self.accepts)
        exchange.close()


def _half_answer(exchange: Exchange, status: int, accepts: bool) -> None:
    if accepts:
        exchange.accept()
    exchange.send_half(status)
