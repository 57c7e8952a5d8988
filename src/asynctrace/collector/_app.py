"""The collector as a whole: OTLP in, a store behind, JSON out, on one address.

    POST /v1/traces ─▶ Receiver ─▶ Writer ─▶ Store ─▶ GET /api/v1/traces
                                                      GET /api/v1/traces/{trace_id}.otlp.json
    GET /healthz   200 while the process lives
    GET /readyz    200 while spans can be committed, else 503

Promises:

- An address that is not loopback needs a token; without one `start()` refuses (`ConfigurationError`).
- `aclose()` stops accepting, answers the requests that are there, and commits what was accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from types import TracebackType

from aiohttp import web

from .._errors import ConfigurationError
from ._api import routes
from ._guard import Guard, is_loopback
from ._receive import CAPACITY, Receiver
from ._store import Store
from ._writer import Writer

__all__ = ["DEFAULT_HOST", "DEFAULT_PORT", "Collector"]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 4318
"""The port of OTLP/HTTP."""
GRACE = 10.0
"""Seconds that requests have to finish after `aclose()`."""

WELCOME = """asynctrace collector

POST /v1/traces                           OTLP/HTTP, protobuf or JSON
GET  /api/v1/traces                       traces, newest first
GET  /api/v1/traces/{trace_id}.otlp.json  one trace
GET  /healthz, /readyz

On this machine: asynctrace ls, asynctrace show TRACE
"""


class Collector:
    """Receives OTLP for `store` on `host`:`port` (0: a free one), from `start()` to `aclose()`.

    The store is the caller's: it stays open after `aclose()`. `capacity` bounds the bytes of bodies between
    their first read and their commit. Settings that cannot work raise `ConfigurationError`.
    """

    def __init__(
        self,
        store: Store,
        *,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        token: str | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        if token is not None and not token.strip():
            raise ConfigurationError("the token is empty: give a secret of your own, or no token at all")
        if not 0 <= port <= 65535:
            raise ConfigurationError(f"{port} is no port: give 1 to 65535, or 0 for a free one")
        if token is None and not is_loopback(host):
            raise ConfigurationError(
                f"{host} can be reached from other machines: give a token (--token or ASYNCTRACE_TOKEN), "
                f"or bind to {DEFAULT_HOST}"
            )
        self._store, self._host, self._port, self._token = store, host, port, token
        self._capacity = capacity
        self._closers = contextlib.AsyncExitStack()
        self._url: str | None = None

    @property
    def url(self) -> str:
        """Where it answers, without a slash at the end."""
        if self._url is None:
            raise RuntimeError("the collector has no address before start()")
        return self._url

    async def start(self) -> None:
        """Bind and answer. `ConfigurationError` when the address cannot be used."""
        listener = _bind(self._host, self._port)
        async with contextlib.AsyncExitStack() as closers:
            closers.callback(listener.close)
            writer = Writer(self._store)
            closers.push_async_callback(_in_thread, writer.close)
            receiver = Receiver(writer, capacity=self._capacity)
            closers.callback(receiver.close)
            # the receiver undoes compression itself, within bounds
            runner = web.AppRunner(
                self._application(receiver, writer), auto_decompress=False, access_log=None, shutdown_timeout=GRACE
            )
            closers.push_async_callback(runner.cleanup)
            await runner.setup()
            await web.SockSite(runner, listener).start()
            self._url = _url(listener)
            self._closers = closers.pop_all()

    async def aclose(self) -> None:
        """Finish what was accepted, then stop. Idempotent."""
        await self._closers.aclose()

    async def __aenter__(self) -> Collector:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _application(self, receiver: Receiver, writer: Writer) -> web.Application:
        application = web.Application(middlewares=[Guard(self._host, self._token).middleware()])
        application.add_routes(
            [
                web.post("/v1/traces", receiver.handle),
                web.options("/v1/traces", _preflight),
                *routes(self._store),
                web.get("/", _welcome),
                web.get("/healthz", _healthy),
                web.get("/readyz", _Readiness(writer).answer),
            ]
        )
        return application


class _Readiness:
    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def answer(self, request: web.Request) -> web.Response:
        if self._writer.is_alive:
            return web.Response(text="ready\n")
        return web.Response(status=503, text="stopping\n")


async def _welcome(request: web.Request) -> web.Response:
    return web.Response(text=WELCOME)


async def _healthy(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _preflight(request: web.Request) -> web.Response:
    return web.Response(status=204)


def _bind(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "is in use: stop the program that holds it, or give another --port (0 picks a free one)"
        else:
            reason = f"cannot be used: {error.strerror}"
        raise ConfigurationError(f"{host}:{port} {reason}") from error


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _in_thread(blocking: Callable[[], None]) -> None:
    await asyncio.to_thread(blocking)
