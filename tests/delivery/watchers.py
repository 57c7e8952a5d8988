"""A backend that asks for open spans, and exporters and schedules that break one promise about them each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType

from aiohttp import web

from asynctrace._contracts import OpenSpan, Span
from asynctrace.delivery._open_spans import Schedule
from asynctrace.exporters import OTLPExporter
from asynctrace.wire import decode_request, encode_response


class Watcher:
    """Takes everything over; with `asks` it wants to hear of open spans, until it answers `notice_status`."""

    def __init__(self, *, asks: bool = True, notice_status: int = 200) -> None:
        self.asks, self.notice_status = asks, notice_status
        self.ended: list[Span] = []
        self.notices: list[Span] = []
        self.keys: list[str | None] = []
        """The request key of each request with notices."""
        self._something = asyncio.Event()

    async def __aenter__(self) -> Watcher:
        application = web.Application()
        application.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        spans = [span for group in decode_request(await request.read()) for span in group.spans]
        are_notices = bool(spans) and not spans[0].end_ns
        (self.notices if are_notices else self.ended).extend(spans)
        if are_notices:
            self.keys.append(request.headers.get("x-asynctrace-key"))
        self._something.set()
        headers = {"x-asynctrace-open-spans": "1"} if self.asks else {}
        status = self.notice_status if are_notices else 200
        return web.Response(status=status, body=encode_response(), headers=headers)

    async def notice_of(self, name: str, times: int = 1) -> Span:
        """Wait for the notice of a span; give the latest."""
        async with asyncio.timeout(30):
            while len(found := [span for span in self.notices if span.name == name]) < times:
                self._something.clear()
                await self._something.wait()
        return found[-1]


class TellsEverybody(OTLPExporter):
    """Does not wait to be asked."""

    @property  # type: ignore[override]
    def takes_open_spans(self) -> bool:
        return True

    @takes_open_spans.setter
    def takes_open_spans(self, value: bool) -> None:
        """It knows better."""


class TellsAtOnce(Schedule):
    """Of spans that will have ended in a moment, too."""

    def due(self, spans: Iterable[OpenSpan], now: float) -> list[bytes]:
        return [span.record() for span in spans]


class TellsOnce(Schedule):
    """And is then silent, so that the far side takes the span for lost."""

    def due(self, spans: Iterable[OpenSpan], now: float) -> list[bytes]:
        return super().due(spans, 0.0)


class NeverForgets(Schedule):
    """Keeps what has ended."""

    def due(self, spans: Iterable[OpenSpan], now: float) -> list[bytes]:
        before = self._told
        records = super().due(spans, now)
        self._told = before | self._told
        return records
