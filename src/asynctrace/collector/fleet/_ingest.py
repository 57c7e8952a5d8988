"""The program that receives, and keeps nothing: OTLP in, messages out.

Promises:

- It answers 200 when the request is in the stream, or synced to its own disk while the stream is away; see `_stream_sink`.
- It asks for no notices of open spans: nobody here could show them.
- `aclose()` stops accepting and answers the requests that are there. What is still spilled stays on the disk for the next
  process.
"""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack

import msgspec
from aiohttp import web

from ...stream import LocalSpill, Stream
from .._guard import Guard
from .._health import Health
from .._site import DEFAULT_HOST, Site, answer_on, beside
from ..receiving import CAPACITY, Counters, Receiver, token_routes
from ._metrics import Tally, as_counters, sample, stream_text, warning_of
from ._stream_sink import StreamSink

__all__ = ["Ingest"]


class Ingest(Site):
    """Receives for `stream` on `host`:`port` (0: a free one), from `start()` to `aclose()`; both are the caller's to close,
    and so is `spill`. Settings that cannot work raise `ConfigurationError`."""

    def __init__(
        self,
        stream: Stream,
        *,
        spill: LocalSpill | None = None,
        host: str = DEFAULT_HOST,
        port: int = 4318,
        token: str | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        super().__init__(host, port, token)
        self._stream, self._spill, self._capacity = stream, spill, capacity
        self._counters, self._tally = Counters(), Tally("asynctrace_ingest")

    async def _begin(self, listener: socket.socket, closers: AsyncExitStack) -> None:
        sink = StreamSink(self._stream, self._spill, self._tally)
        await closers.enter_async_context(beside(sink.look_after(), "ingest stream"))
        await answer_on([listener], self._application(sink, closers), closers)

    def _application(self, sink: StreamSink, closers: AsyncExitStack) -> web.Application:
        receiver = Receiver(sink, self._counters, capacity=self._capacity, welcomes_notices=False)
        closers.callback(receiver.close)
        application = web.Application(middlewares=[Guard(self._host, self._token).middleware()])
        application.add_routes(
            [
                *receiver.routes(),
                *token_routes(self._token),
                *Health(lambda: sink.trouble, self._metrics, lambda: warning_of(self._stream)).routes(),
                web.get("/", _elsewhere),
                web.get("/api/{rest:.*}", _elsewhere),
            ]
        )
        return application

    async def _metrics(self) -> str:
        text = self._counters.text() + self._tally.text()
        if self._spill is not None:
            text += as_counters("asynctrace_spill", self._spill.statistics())
            text += sample("asynctrace_spill_bytes", "gauge", self._spill.stored_bytes)
        return text + await stream_text(self._stream)


async def _elsewhere(request: web.Request) -> web.Response:
    answer = {"error": "this one only receives: ask where `asynctrace view` runs", "at": None}
    return web.Response(status=404, body=msgspec.json.encode(answer), content_type="application/json")
