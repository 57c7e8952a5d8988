"""The routes of one collector, and the end of those who listen."""

from __future__ import annotations

from aiohttp import web

from ..live import Live
from ..receiving import Counters, Receiver
from ..store import Store, StoreReader
from ._changing import Changing
from ._following import Following
from ._listening import Listening
from ._reading import Reading
from ._view import View

__all__ = ["Api"]


class Api:
    """All of it, for one collector. Without `changing` nothing can be pinned or deleted; without `receiver` nothing imported,
    and without `counters` nobody says what came in. `needs_token`: whether a sender has to present one."""

    def __init__(
        self,
        store: StoreReader,
        live: Live,
        *,
        changing: Store | None = None,
        receiver: Receiver | None = None,
        counters: Counters | None = None,
        needs_token: bool = False,
    ) -> None:
        view = View(store, live)
        following = Following(view)
        self._reading = Reading(view, following)
        self._changing = Changing(view, self._reading, changing, receiver, counters, needs_token=needs_token)
        self._listening = Listening(view, following)

    def routes(self) -> list[web.AbstractRouteDef]:
        """Where it answers."""
        return [*self._reading.routes(), *self._changing.routes(), *self._listening.routes()]

    async def close(self, application: web.Application) -> None:
        """Send those away who listen: a signal of the application's shutdown."""
        await self._listening.close()
