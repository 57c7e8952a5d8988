"""A server of ASGI applications, in the test's own task or on a real port, and clients for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from asynctrace.testing import CapturedSpans, assert_no_context_leaked, assert_no_span_left_open, capture_spans

__all__ = ["PATIENCE", "InThread", "Server", "http_scope", "text_app", "until", "watched", "websocket_scope"]

PATIENCE = 30.0
"""Seconds that only end a test that would hang."""

App = Callable[[Any, Any, Any], Awaitable[None]]


def http_scope(path: str = "/items/7", **changes: Any) -> dict[str, Any]:
    """What uvicorn makes of `GET /items/7`."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("192.0.2.7", 50123),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"shop.example.com"), (b"user-agent", b"tester/1")],
        "state": {},
    } | changes


def websocket_scope(path: str = "/chat/7", **changes: Any) -> dict[str, Any]:
    scope = http_scope(path, type="websocket", scheme="ws", subprotocols=[]) | changes
    del scope["method"]
    return scope


@asynccontextmanager
async def watched(**options: Any) -> AsyncIterator[CapturedSpans]:
    """`capture_spans()` of a tracer that meets no error of its own, and leaves nothing open and nothing current."""
    async with capture_spans(**options) as captured:
        yield captured
        assert_no_span_left_open(captured.tracer)
    assert captured.tracer.statistics().internal_errors == {}
    assert_no_context_leaked()


class Server:
    """Serves one scope, message by message, in this task. The client goes away when `leave()` is called, or when what it
    has to say is over and `stays` is False."""

    def __init__(self, app: App, scope: dict[str, Any], incoming: Iterable[dict[str, Any]] = (), stays: bool = True):
        self.app, self.scope, self.stays = app, scope, stays
        self.sent: list[dict[str, Any]] = []
        self._incoming = list(incoming) or ([{"type": "http.request", "body": b""}] if scope["type"] == "http" else [])
        self._left = asyncio.Event()
        self.refuses = False
        """Sending to a client that went away raises, as since ASGI 2.4; else it does nothing, as uvicorn does."""

    async def run(self) -> Server:
        await self.app(self.scope, self.receive, self.send)
        return self

    def leave(self) -> None:
        self._left.set()

    async def receive(self) -> dict[str, Any]:
        if self._incoming:
            return self._incoming.pop(0)
        if self.stays:
            await self._left.wait()
        kind = "http" if self.scope["type"] == "http" else "websocket"
        return {"type": f"{kind}.disconnect"} | ({"code": 1006} if kind == "websocket" else {})

    async def send(self, message: dict[str, Any]) -> None:
        if self._left.is_set() and self.refuses:
            raise OSError("the client went away")
        self.sent.append(message)
        await asyncio.sleep(0)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])


def text_app(status: int = 200, route: str = "/items/{id}") -> App:
    """Leaves its route where Litestar does, and answers."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["path_template"] = route
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"tea"})

    return app


async def until(is_so: Callable[[], object], what: str) -> None:
    """Poll, for what no event tells of."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        await asyncio.sleep(0.005)


class InThread(uvicorn.Server):
    """uvicorn beside the test, on a port that the system chose. Leaving the block stops it, as a signal would."""

    def __init__(self, app: Any, **options: Any) -> None:
        options = {"lifespan": "off", "ws": "none", "timeout_graceful_shutdown": 5} | options
        super().__init__(uvicorn.Config(app, port=0, log_level="critical", **options))

    def __enter__(self) -> InThread:
        self._thread = threading.Thread(target=self.run)
        self._thread.start()
        deadline = time.monotonic() + PATIENCE
        while not self.started:
            assert time.monotonic() < deadline
            assert self._thread.is_alive(), "it did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *exc: object) -> None:
        self.should_exit = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "it did not stop"

    @property
    def port(self) -> int:
        return int(self.servers[0].sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"
