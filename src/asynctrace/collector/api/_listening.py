"""What happens, as it happens: a WebSocket for pages, lines of JSON for programs.

    ws /api/v1/live    ◀── {"subscribe": "list", "q": text}             {"unsubscribe": "list"}
                       ◀── {"subscribe": "trace", "trace_id": id, "version": v}             {"unsubscribe": "trace"}
                       ──▶ {"type": "hello", "version": 1, "now_ms": ms}
                       ──▶ {"type": "subscribed", "to": "list", "now_ms": ms}
                       ──▶ {"type": "list", "changed": [summary…], "removed": [id…], "dropped": n, "now_ms": ms}
                       ──▶ {"type": "trace", "trace_id": id, "skeleton": {…, "first": n}, "changed": [[index, duration,
                            status, ending, parent]…], "summary": …, "now_ms": ms}
                           {"type": "trace", "trace_id": id, "gone": true}
                       ──▶ {"type": "error", "error": text, "at": offset or null}
    GET /api/v1/tail   ──▶ a summary for each change of a trace, one a line, for ever

Promises: at most ten messages a second for each client, each with everything that changed since the one before; what a slow
client misses is bounded, and it is told how much; bringing a large trace up to date takes at most a tenth of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import WSCloseCode, WSMsgType, hdrs, web

from ..query import Query, QueryError, parse
from ..store import RunSummary, StoreError
from ._answers import answering, aside
from ._following import Following, Told
from ._view import View

__all__ = ["Listening"]

VERSION: Final = 1
INTERVAL: Final = 0.1
"""Seconds between two messages to a client."""
REST: Final = 9
"""Times as long as reading took, nothing is read again."""
LONGEST_REST: Final = 5.0
PAUSE: Final = 1.0
"""Seconds."""
MOST_TRACES: Final = 4
"""Traces that a client may watch at once."""
HEARTBEAT: Final = 20.0
"""Seconds after which a client that does not answer a ping is taken for gone."""
LONGEST_MESSAGE: Final = 64 * 1024

_encode = msgspec.json.Encoder().encode
Result = TypeVar("Result")


class _Subscription(msgspec.Struct, frozen=True):
    """What a client may say."""

    subscribe: str = ""
    unsubscribe: str = ""
    q: str = ""
    trace_id: str = ""
    version: int = -1


class Listening:
    """Those who listen to one collector."""

    def __init__(self, view: View, following: Following) -> None:
        self._view, self._following = view, following
        self._connections: dict[object, Callable[[], Awaitable[object]]] = {}

    def routes(self) -> list[web.AbstractRouteDef]:
        """Where one can listen."""
        return [web.get("/api/v1/live", self._live), web.get("/api/v1/tail", answering(self._tail))]

    async def close(self) -> None:
        """Send everybody away."""
        for end in list(self._connections.values()):
            with contextlib.suppress(Exception):
                await end()

    async def _live(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT, max_msg_size=LONGEST_MESSAGE, compress=False)
        await socket.prepare(request)
        self._connections[socket] = lambda: socket.close(code=WSCloseCode.GOING_AWAY)
        client = _Client(self._view, self._following, socket)
        try:
            await client.run()
        finally:
            del self._connections[socket]
            await client.close()
        return socket

    async def _tail(self, request: web.Request) -> web.StreamResponse:
        query = parse(request.query.get("q", ""))
        response = web.StreamResponse(
            headers={hdrs.CONTENT_TYPE: "application/x-ndjson", hdrs.CACHE_CONTROL: "no-store"}
        )
        listener = self._view.live.hub.join()
        task = asyncio.current_task()
        if task is not None:
            self._connections[response] = _canceller(task)
        try:
            await response.prepare(request)
            while True:
                news = await listener.news()
                changed, _ = await aside(_summaries, self._view, query, news.changed)
                lines = [_encode(summary) for summary in changed]
                lines += [_encode({"removed": trace_id}) for trace_id in news.removed]
                lines += [_encode({"dropped": news.dropped})] if news.dropped else []
                if lines:
                    await response.write(b"\n".join(lines) + b"\n")
        except ConnectionError:
            return response
        finally:
            self._connections.pop(response, None)
            self._view.live.hub.leave(listener)


def _canceller(task: asyncio.Task[Any]) -> Callable[[], Awaitable[object]]:
    async def cancel() -> None:
        task.cancel()

    return cancel


class _Client:
    """One connection and what it asked for: a task for each."""

    def __init__(self, view: View, following: Following, socket: web.WebSocketResponse) -> None:
        self._view, self._following, self._socket = view, following, socket
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._sending = asyncio.Lock()
        self._next_at = 0.0

    async def run(self) -> None:
        """Until the client goes away."""
        await self._send({"type": "hello", "version": VERSION})
        async for message in self._socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                await self._heed(message.data)

    async def close(self) -> None:
        """Forget what it asked for."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    async def _heed(self, text: str | bytes) -> None:
        try:
            wish = msgspec.json.decode(text, type=_Subscription)
            if wish.unsubscribe:
                self._end(wish.unsubscribe)
            elif wish.subscribe == "list":
                self._begin("list", self._watch_list(parse(wish.q)))
            elif wish.subscribe == "trace" and len(bytes.fromhex(wish.trace_id)) == 16:
                self._begin(wish.trace_id, self._watch_trace(wish.trace_id.lower(), wish.version))
            else:
                raise ValueError('subscribe to "list" or to "trace", with a trace_id')
        except QueryError as error:
            await self._send({"type": "error", "error": error.message, "at": error.start, "end": error.end})
        except ValueError as error:
            await self._send({"type": "error", "error": str(error), "at": None})

    def _begin(self, name: str, watching: Any) -> None:
        self._end(name)
        watched = [each for each in self._tasks if each != "list"]
        if name != "list" and len(watched) >= MOST_TRACES:
            self._end(watched[0])
        self._tasks[name] = asyncio.create_task(watching, name="asynctrace collector watch")

    def _end(self, name: str) -> None:
        if name == "trace":
            for each in [each for each in self._tasks if each != "list"]:
                self._end(each)
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()

    async def _watch_list(self, query: Query) -> None:
        listener = self._view.live.hub.join()
        rest = 0.0
        try:
            await self._send(
                {"type": "subscribed", "to": "list"}
            )  # what it reads from now on has no gap before the news
            while True:
                news = await listener.news(rest)
                (changed, others), rest = await self._timed(_summaries, self._view, query, news.changed)
                # whatever does not fit may be on the client's list: it may have read that before it listened
                message = {"type": "list", "changed": changed, "removed": [*news.removed, *others]}
                await self._send(message | {"dropped": news.dropped})
        finally:
            self._view.live.hub.leave(listener)

    async def _watch_trace(self, trace_id: str, version: int) -> None:
        listener = self._view.live.hub.follow(trace_id)
        told = Told(version)
        try:
            while True:
                message, rest = await self._timed(self._following.news, trace_id, told)
                if message is not None:
                    await self._send(message)
                await listener.news(rest)
        finally:
            self._view.live.hub.leave(listener)

    async def _timed(self, function: Callable[..., Result], *arguments: Any) -> tuple[Result, float]:
        """What it gives, and how many seconds not to ask again. A store that cannot be read is told, and asked again."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                result = await aside(function, *arguments)
            except StoreError as error:
                await self._send({"type": "error", "error": str(error), "at": None})
                await asyncio.sleep(PAUSE)
            else:
                rest = min(LONGEST_REST, REST * (loop.time() - began))
                return result, rest if rest > INTERVAL else 0.0

    async def _send(self, message: dict[str, Any]) -> None:
        """One at a time, and not more than ten a second."""
        async with self._sending:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(0.0, self._next_at - loop.time()))
            body = _encode(message | {"now_ms": self._view.live.now_ns() / 1e6})
            self._next_at = loop.time() + INTERVAL
            with contextlib.suppress(ConnectionError):
                await self._socket.send_str(body.decode())


def _summaries(view: View, query: Query, trace_ids: list[str]) -> tuple[list[RunSummary], list[str]]:
    """The lines of the traces for which `query` holds, and the ids of the others."""
    now_ns = view.live.now_ns()
    found: list[RunSummary] = []
    others: list[str] = []
    for trace_id in trace_ids:
        summary = view.summary(trace_id)
        if summary is not None and view.holds(query, summary, now_ns):
            found.append(summary)
        else:
            others.append(trace_id)
    return found, others
