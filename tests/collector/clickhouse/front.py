"""What stands between a store and ClickHouse, and loses things.

with Front(server.port) as front:
    front.plan("spans_in", LostAnswer())      # the next request that names it
    store = ClickHouseStore(server.url("t1", port=front.port))
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections import defaultdict, deque
from types import TracebackType
from typing import Protocol

import aiohttp
import trustme
from aiohttp import web

__all__ = ["Answer", "CutBody", "Front", "Late", "LostAnswer", "Unsent"]


class Fault(Protocol):
    async def play(self, front: Front, request: web.Request, body: bytes) -> web.StreamResponse: ...


class LostAnswer:
    """ClickHouse did it, and nobody hears of it."""

    async def play(self, front: Front, request: web.Request, body: bytes) -> web.StreamResponse:
        await front.forward(request, body)
        return cut(request)


class Unsent:
    """The connection breaks before ClickHouse sees anything."""

    async def play(self, front: Front, request: web.Request, body: bytes) -> web.StreamResponse:
        return cut(request)


class CutBody:
    """ClickHouse gets the first half, and then the connection breaks."""

    async def play(self, front: Front, request: web.Request, body: bytes) -> web.StreamResponse:
        _, writer = await asyncio.open_connection("127.0.0.1", front.behind)
        head = "".join(f"{name}: {value}\r\n" for name, value in passed_on(request).items())
        writer.write(
            f"POST {request.raw_path} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode()
        )
        writer.write(body[: len(body) // 2])
        await writer.drain()
        writer.close()
        return cut(request)


class Late:
    """ClickHouse does it, and the answer comes when it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    async def play(self, front: Front, request: web.Request, body: bytes) -> web.StreamResponse:
        answer = await front.forward(request, body)
        await asyncio.to_thread(self.let_go.wait, 30)
        return answer


class Answer:
    """One of its own, as a proxy, an old server or another program gives."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        self.status, self.text, self.headers = status, text, headers

    async def play(self, front: Front, request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(status=self.status, text=self.text, headers=self.headers)


class Front:
    """Listens on a port of its own; what is not planned otherwise is passed on to the port `behind`."""

    def __init__(self, behind: int, *, certificate: trustme.LeafCert | None = None) -> None:
        self.behind = behind
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(self._tls)
        self.port = 0
        self.seen: list[tuple[str, str]] = []
        """(what was asked, its deduplication token), in order."""
        self._plans: dict[str, deque[Fault]] = defaultdict(deque)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def plan(self, named: str, *faults: Fault) -> None:
        """For the next requests that have `named` in their statement."""
        self._plans[named].extend(faults)

    def __enter__(self) -> Front:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def forward(self, request: web.Request, body: bytes) -> web.Response:
        url = f"http://127.0.0.1:{self.behind}{request.raw_path}"
        async with self._session.post(url, data=body, headers=passed_on(request)) as answer:
            text = await answer.read()
            kept = {name: value for name, value in answer.headers.items() if name.startswith("X-ClickHouse")}
            return web.Response(status=answer.status, body=text, headers=kept)

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession()
        app = web.Application(client_max_size=2**28)
        app.router.add_post("/", self._handle)
        self._runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        statement = request.query.get("query") or body.decode()
        self.seen.append((statement, request.query.get("insert_deduplication_token", "")))
        for named, faults in self._plans.items():
            if named in statement and faults:
                return await faults.popleft().play(self, request, body)
        return await self.forward(request, body)


def passed_on(request: web.Request) -> dict[str, str]:
    names = ("X-ClickHouse-User", "X-ClickHouse-Key", "X-ClickHouse-Database", "Content-Encoding", "Accept-Encoding")
    return {name: request.headers[name] for name in names if name in request.headers}


def cut(request: web.Request) -> web.StreamResponse:
    """Nothing more is sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
