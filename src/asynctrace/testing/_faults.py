"""An OTLP/HTTP endpoint that misbehaves on request.

    async with FaultServer() as server:
        server.plan(Status(503, retry_after=1), ResetBeforeResponse())   # the first two requests
        server.default = Accept()                                        # every later one
        ...
        await server.wait_for_spans(20)

Promises:

- The sockets, the HTTP and the bodies are real; the server listens on 127.0.0.1 at a port of its own.
- `spans` and `accepted_ids` hold what the server took over, `requests` everything that came, in order.
- A request whose client has gone away is not played to its end.
- Closing never hangs, whatever the faults are doing; what hangs is cut.

"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from aiohttp import web

from .._contracts import Resource, Span
from .._errors import WireError
from ..exporters._arrivals import Arrivals
from ..wire import decode_request, parse_json_request
from ._fault_kinds import (
    Accept,
    AcceptThenReset,
    Delay,
    Exchange,
    Fault,
    Garbage,
    Group,
    HalfClose,
    Hang,
    OutOfOrder,
    PartialSuccess,
    ReceivedRequest,
    Redirect,
    RejectWhen,
    ResetBeforeResponse,
    ResetMidBody,
    StallMidBody,
    Status,
    TooLargeOver,
    Truncated,
)

if TYPE_CHECKING:
    import ssl

__all__ = [
    "FaultServer",
    "ReceivedRequest",
    "Exchange",
    "Fault",
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

MAX_BODY = 256 * 1024 * 1024
"""Bytes of one request, before and after decompression."""

CLOSE_WITHIN = 5.0
"""Seconds after which closing gives up on what still runs."""

_TURNS_TO_CUT = 5
"""Turns of the loop in which a connection that was accepted, or aborted, comes to its end."""


class FaultServer:
    """An OTLP/HTTP endpoint, whatever the path. `port` 0: a free one. With `ssl_context`: TLS only."""

    def __init__(
        self, *, default: Fault | None = None, ssl_context: ssl.SSLContext | None = None, port: int = 0
    ) -> None:
        self.default: Fault = default if default is not None else Accept()
        self.port = port
        self.max_in_flight = 0
        """The most requests that were being answered at one time."""
        self._ssl_context = ssl_context
        self._plan: deque[Fault] = deque()
        self._requests: list[ReceivedRequest] = []
        self._spans: list[Span] = []
        self._accepted: Counter[str] = Counter()
        self._request_arrivals = Arrivals(lambda: len(self._requests), "requests")
        self._span_arrivals = Arrivals(lambda: len(self._accepted), "spans")
        self._groups: dict[OutOfOrder, Group] = {}
        self._in_flight = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._release_event: asyncio.Event | None = None
        self._runner: web.AppRunner | None = None
        self._listener: socket.socket | None = None

    # what it is told

    def plan(self, *faults: Fault) -> None:
        """One fault for each of the next requests, after those already planned; then `default`."""
        self._plan.extend(faults)

    def release(self) -> None:
        """Let go everything that hangs now. Safe from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._release_now)

    # what it has seen

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"{'http' if self._ssl_context is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[ReceivedRequest]:
        """A copy of what came so far."""
        return list(self._requests)

    @property
    def spans(self) -> list[Span]:
        """What was taken over, in order, duplicates included."""
        return list(self._spans)

    @property
    def accepted_ids(self) -> Counter[str]:
        """How often each span id was taken over."""
        return self._accepted.copy()

    async def wait_for_requests(self, n: int, timeout: float = 10.0) -> list[ReceivedRequest]:
        """The requests, once there are `n`; `TimeoutError` after `timeout` seconds. For any event loop."""
        await self._request_arrivals.wait_for(n, timeout)
        return self.requests

    async def wait_for_spans(self, n: int, timeout: float = 10.0) -> list[Span]:
        """The accepted spans, once there are `n` different ids; `TimeoutError` after `timeout` seconds."""
        await self._span_arrivals.wait_for(n, timeout)
        return self.spans

    def wait_for_requests_sync(self, n: int, timeout: float = 10.0) -> list[ReceivedRequest]:
        """`wait_for_requests()` for threads without an event loop."""
        self._request_arrivals.wait_for_sync(n, timeout)
        return self.requests

    def wait_for_spans_sync(self, n: int, timeout: float = 10.0) -> list[Span]:
        """`wait_for_spans()` for threads without an event loop."""
        self._span_arrivals.wait_for_sync(n, timeout)
        return self.spans

    # its life

    async def start(self) -> None:
        """Listen."""
        self._loop = asyncio.get_running_loop()
        self._release_event = asyncio.Event()
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        options = {"handler_cancellation": True, "auto_decompress": False, "shutdown_timeout": 0.1}
        self._runner = web.AppRunner(app, access_log=None, **options)  # type: ignore[arg-type]
        await self._runner.setup()
        self._listener = listener = socket.create_server(("127.0.0.1", self.port))
        await web.SockSite(self._runner, listener, ssl_context=self._ssl_context).start()
        self.port = listener.getsockname()[1]

    async def aclose(self) -> None:
        """Cut every connection and stop listening. Idempotent; the books stay readable."""
        runner, self._runner = self._runner, None
        if runner is None or runner.server is None:
            return
        server = runner.server
        if (
            self._listener is not None
        ):  # a connection that asyncio has accepted, and not yet begun, would never be closed
            with contextlib.suppress(RuntimeError):  # other loops have listeners of their own
                asyncio.get_running_loop().remove_reader(self._listener)
            for _ in range(_TURNS_TO_CUT):
                await asyncio.sleep(0)
        transports = [connection.transport for connection in server.connections]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN):
                await runner.cleanup()
        for _ in range(_TURNS_TO_CUT):
            transports += [connection.transport for connection in server.connections]  # of who came meanwhile
            for transport in transports:
                if isinstance(transport, asyncio.WriteTransport):
                    transport.abort()  # one that is only closed writes out first, and nobody may be reading
            transports.clear()
            await asyncio.sleep(0)

    async def __aenter__(self) -> FaultServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @classmethod
    @contextlib.contextmanager
    def in_thread(
        cls, *, default: Fault | None = None, ssl_context: ssl.SSLContext | None = None, port: int = 0
    ) -> Iterator[FaultServer]:
        """The same server on a loop of its own thread, for programs and tests without one."""
        server = cls(default=default, ssl_context=ssl_context, port=port)
        life = _ThreadedLife(server)
        life.start()
        try:
            yield server
        finally:
            life.stop()

    # one request

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self._in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self._in_flight)
        try:
            return await self._answer(request)
        finally:
            self._in_flight -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        received = _received(len(self._requests), request, body)
        self._requests.append(received)
        fault = self._plan.popleft() if self._plan else self.default
        exchange = Exchange(self, request, received)
        self._request_arrivals.notify()
        if received.error:
            response: web.StreamResponse | None = exchange.respond(400, received.error.encode())
        else:
            response = await fault.play(exchange)
        if response is None:
            return web.Response()  # goes nowhere: the connection is cut
        received.status = response.status
        return response

    # for faults

    def take_over(self, spans: tuple[Span, ...]) -> None:
        """Count spans as accepted."""
        self._spans += spans
        self._accepted.update(span.span_id for span in spans)
        self._span_arrivals.notify()

    async def wait_released(self) -> None:
        """Return at the next `release()`."""
        if self._release_event is not None:
            await self._release_event.wait()

    def _release_now(self) -> None:
        if self._release_event is not None:
            self._release_event.set()
        self._release_event = asyncio.Event()

    def group_of(self, fault: OutOfOrder) -> Group:
        """The group that a request held by `fault` belongs to."""
        group = self._groups.get(fault)
        if group is None or group.is_full:
            group = self._groups[fault] = Group()
        return group


class _ThreadedLife:
    """Runs a server from start to close on a loop in a thread."""

    def __init__(self, server: FaultServer) -> None:
        self._server = server
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="asynctrace-fault-server", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(2 * CLOSE_WITHIN)

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:  # noqa: BLE001  # told to the thread that started the server
            self._error = error
        finally:
            self._ready.set()

    async def _live(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        async with self._server:
            self._ready.set()
            await self._stopping.wait()


# ── reading bodies ──────────────────────────────────────────────────────────────────────────────────────────


def _received(number: int, request: web.Request, body: bytes) -> ReceivedRequest:
    headers = {name.lower(): value for name, value in request.headers.items()}
    received = ReceivedRequest(
        number=number,
        time=time.monotonic(),
        method=request.method,
        path=request.raw_path,
        headers=headers,
        body=body,
        body_size=len(body),
        key=headers.get("x-asynctrace-key", ""),
        resource=Resource(),
        spans=(),
    )
    try:
        _read_body(received)
    except (WireError, ValueError, zlib.error) as error:
        received.error = f"{type(error).__name__}: {error}"
    return received


def _read_body(received: ReceivedRequest) -> None:
    received.body = _decompressed(received.body, received.headers.get("content-encoding", "identity"))
    is_json = "json" in received.headers.get("content-type", "")
    groups = parse_json_request(received.body) if is_json else decode_request(received.body)
    received.spans = tuple(span for group in groups for span in group.spans)
    if groups:
        received.resource = groups[0].resource


def _decompressed(body: bytes, encoding: str) -> bytes:
    """`ValueError` for an unknown encoding, bytes that end early, and more than `MAX_BODY` bytes."""
    if encoding == "identity":
        return body
    if encoding == "zstd":
        return _unzstd(body)
    if encoding != "gzip":
        raise ValueError(f"unknown content encoding {encoding}")
    inflater = zlib.decompressobj(wbits=31)
    content = inflater.decompress(body, MAX_BODY)
    if not inflater.eof:
        raise ValueError("the compressed body ends early or is too large")
    return content


def _unzstd(body: bytes) -> bytes:
    import zstandard

    try:
        with zstandard.ZstdDecompressor().stream_reader(body) as reader:
            return reader.read(MAX_BODY)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
