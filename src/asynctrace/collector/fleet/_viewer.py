"""The program that shows: the page and the API of the collector on a store that other processes write.

Promises:

- It receives nothing: OTLP that is sent here is answered 404, and where to send it.
- What others store is on the page within a second or two; see `_lookout`. Spans that are open are not: nobody stores them.
- Tokens, hosts and origins are judged as the collector judges them.
"""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack

import msgspec
from aiohttp import web

from .. import page
from .._guard import Guard
from .._health import Health
from .._site import DEFAULT_HOST, Site, answer_on, beside
from ..api import Api
from ..live import Live
from ..receiving import OTLP_PATHS
from ..store import Store, StoreReader
from ._lookout import EVERY, Lookout
from ._metrics import Tally, sample

__all__ = ["Viewer"]


class Viewer(Site):
    """Shows `store` on `host`:`port` (0: a free one), from `start()` to `aclose()`. `changing` is where traces are pinned and
    deleted, None where they cannot be. The store is the caller's to close. Settings that cannot work raise
    `ConfigurationError`."""

    def __init__(
        self,
        store: StoreReader,
        *,
        changing: Store | None = None,
        host: str = DEFAULT_HOST,
        port: int = 4318,
        token: str | None = None,
        every: float = EVERY,
    ) -> None:
        super().__init__(host, port, token)
        self._store, self._changing, self._every = store, changing, every
        self._tally = Tally("asynctrace_view")

    async def _begin(self, listener: socket.socket, closers: AsyncExitStack) -> None:
        live = await closers.enter_async_context(Live())
        lookout = Lookout(self._store, live.hub, self._tally, every=self._every)
        await closers.enter_async_context(beside(lookout.run(), "viewer lookout"))
        await answer_on([listener], self._application(live, lookout), closers)

    def _application(self, live: Live, lookout: Lookout) -> web.Application:
        api = Api(self._store, live, changing=self._changing, needs_token=self._token is not None)
        application = web.Application(middlewares=[Guard(self._host, self._token).middleware()])
        application.add_routes(
            [
                *api.routes(),
                *page.routes(),
                *Health(lambda: lookout.trouble, lambda: self._metrics(live)).routes(),
                *(web.post(path, _receives_nothing) for path in sorted(OTLP_PATHS)),
            ]
        )
        application.on_shutdown.append(api.close)
        return application

    async def _metrics(self, live: Live) -> str:
        return self._tally.text() + sample("asynctrace_view_listeners", "gauge", len(live.hub))


async def _receives_nothing(request: web.Request) -> web.Response:
    answer = {"error": "this one only shows: send OTLP where `asynctrace ingest` runs", "at": None}
    return web.Response(status=404, body=msgspec.json.encode(answer), content_type="application/json")
