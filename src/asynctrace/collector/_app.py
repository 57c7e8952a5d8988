"""The collector as a whole: OTLP in, a store behind, JSON and a page out: one application, on one address or two.

    POST /v1/traces ─▶ receiving ─▶ Writer ─▶ Store ─▶ api   GET /api/v1/…
                                      │                 page  GET /
                                      └─▶ live ─▶ who listens
    GET /healthz, /readyz, /metrics ─ health

Promises:

- An address that is not loopback needs a token; without one `Collector()` refuses (`ConfigurationError`).
- `start()` binds `port`, or fails; the port that OTLP senders expect is bound beside it only when it is free.
- `aclose()` stops accepting, answers the requests that are there, and commits what was accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

from aiohttp import web

from .._errors import ConfigurationError
from . import page
from ._guard import Guard
from ._health import Health
from ._site import DEFAULT_HOST, Site, answer_on, bind, check_access, url_of
from ._upkeep import sweeping, take_over
from .api import Api
from .live import Live
from .receiving import CAPACITY, Counters, Receiver, Refused, Writer, token_routes
from .store import SQLiteStore, Store, StoreError

__all__ = ["DEFAULT_HOST", "DEFAULT_PORT", "Collector"]

DEFAULT_PORT = 4318
"""The port of OTLP/HTTP."""


class Collector(Site):
    """Receives OTLP for `store` on `host`:`port` (0: a free one), from `start()` to `aclose()`.

    With `otlp_port` it answers there too, if that port is free; `otlp_url` tells. The store is the caller's: it stays
    open after `aclose()`. `capacity` bounds the bytes of bodies between their first read and their commit. `snapshot` is a
    file that tells the next collector which spans were open. Settings
    that cannot work raise `ConfigurationError`.
    """

    def __init__(
        self,
        store: Store,
        *,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        otlp_port: int | None = None,
        token: str | None = None,
        capacity: int = CAPACITY,
        snapshot: Path | None = None,
    ) -> None:
        super().__init__(host, port, token)
        check_access(host, token, otlp_port or 0)
        self._store, self._capacity, self._snapshot = store, capacity, snapshot
        self._otlp_port = otlp_port
        self._otlp_url: str | None = None

    @property
    def otlp_url(self) -> str | None:
        """Where it answers besides, for senders with default settings; None when `otlp_port` was not asked for, or is
        another program's."""
        return self._otlp_url

    async def _begin(self, listener: socket.socket, closers: contextlib.AsyncExitStack) -> None:
        listeners = [listener]
        if self._otlp_port is not None:
            with contextlib.suppress(ConfigurationError):
                listeners.append(closers.enter_context(contextlib.closing(bind(self._host, self._otlp_port))))
        await answer_on(listeners, await self._application(closers), closers)
        self._otlp_url = url_of(listeners[1]) if len(listeners) > 1 else None

    async def _application(self, closers: contextlib.AsyncExitStack) -> web.Application:
        """Its parts, in the order of their life: the last one ends first."""
        counters = Counters()
        live = await closers.enter_async_context(Live(self._span_ids, snapshot=self._snapshot))
        writer = Writer(self._store, counters, committed=live.committed)
        closers.push_async_callback(asyncio.to_thread, writer.close)
        if isinstance(self._store, SQLiteStore):
            await _taken_over(self._store.directory, writer)
        await closers.enter_async_context(sweeping(self._store, swept=live.swept))
        receiver = Receiver(writer, counters, capacity=self._capacity)
        closers.callback(receiver.close)
        api = Api(
            self._store,
            live,
            changing=self._store,
            receiver=receiver,
            counters=counters,
            needs_token=self._token is not None,
        )
        application = web.Application(middlewares=[Guard(self._host, self._token).middleware()])
        application.add_routes(
            [
                *receiver.routes(),
                *token_routes(self._token),
                *api.routes(),
                *page.routes(),
                *_health(writer, counters).routes(),
            ]
        )
        application.on_shutdown.append(api.close)
        return application

    def _span_ids(self, trace_id: bytes) -> list[bytes]:
        stored = self._store.spans_of(trace_id.hex(), messages=False)
        return [row.span_id for row in stored.rows] if stored is not None else []


def _health(writer: Writer, counters: Counters) -> Health:
    async def metrics() -> str:
        return counters.text()

    return Health(lambda: "" if writer.is_alive else "stopping", metrics)


async def _taken_over(directory: Path, writer: Writer) -> None:
    try:
        await asyncio.to_thread(take_over, directory, writer)
    except (StoreError, Refused) as error:
        raise ConfigurationError(f"the store of an earlier version cannot be taken over: {error}") from error
