"""Whether a program of the collector lives, whether it can do its work, and what it counted.

GET /healthz   200 while the process lives
GET /readyz    200 while it can do its work, with what is wrong beside that; else 503 and what is in the way
GET /metrics   the counters, in the text format of Prometheus
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

__all__ = ["Health"]

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Health:
    """The three answers of one program. `trouble` says what is in the way, nothing while nothing is; `metrics` gives the
    counters; `warning` is what somebody should look at though it works."""

    def __init__(
        self,
        trouble: Callable[[], str],
        metrics: Callable[[], Awaitable[str]],
        warning: Callable[[], str] = lambda: "",
    ) -> None:
        self._trouble, self._warning = trouble, warning
        self._counted = metrics

    def routes(self) -> list[web.AbstractRouteDef]:
        """Where they are asked for."""
        return [
            web.get("/healthz", self._alive),
            web.get("/readyz", self._ready),
            web.get("/metrics", self._metrics),
        ]

    async def _alive(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:
        trouble = self._trouble()
        if trouble:
            return web.Response(status=503, text=f"{trouble}\n")
        warning = self._warning()
        return web.Response(text=f"ready, degraded: {warning}\n" if warning else "ready\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=(await self._counted()).encode(), headers={"Content-Type": METRICS_TYPE})
