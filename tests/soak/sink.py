"""A far side that fails as far sides do, and keeps of each span no more than its id.

Faults come by the number of the request, so that a run of any length has its share of each. A request that is repeated
under the same key counts once: that is how the collector, and any other far side that cares, tells duplicates.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from types import TracebackType

from aiohttp import web

from asynctrace.wire import decode_request, encode_response

__all__ = ["FaultySink", "every"]

Plan = Callable[[int], str]
"""From the number of a request to what happens: "accept", "503", "reset", "take and reset", "hang"."""


def every(**faults: tuple[int, int]) -> Plan:
    """`every(x=(20, 7))`: fault x for each request whose number divided by 20 leaves 7; the first that fits counts. A `_`
    in a name is a space, a leading one is left out, and so is what follows a double one."""
    named = [(name.lstrip("_").split("__")[0].replace("_", " "), *rule) for name, rule in faults.items()]

    def plan(number: int) -> str:
        return next((name for name, of, rest in named if number % of == rest), "accept")

    return plan


class FaultySink:
    """Listens on 127.0.0.1, at the same port after a `restart()`. `hang` is seconds."""

    def __init__(self, plan: Plan, *, hang: float) -> None:
        self.faults: Counter[str] = Counter()
        """What happened to requests."""
        self.arrived: Counter[int] = Counter()
        """How often each span id came, repetitions of a request left out."""
        self.repeated = 0
        """Requests that came under a key that was taken over before."""
        self._plan = plan
        self._hang = hang
        self._keys: set[str] = set()
        self._number = 0
        self._watching: set[asyncio.Event] = set()
        self._port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> FaultySink:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def next_request(self, times: int = 1) -> None:
        """Until so many more requests have come. They may not have been answered yet."""
        arrived = asyncio.Event()
        self._watching.add(arrived)
        try:
            for _ in range(times):
                await arrived.wait()
                arrived.clear()
        finally:
            self._watching.discard(arrived)

    async def restart(self, away: float) -> None:
        """Cut every connection, refuse new ones for `away` seconds, listen again."""
        self.faults["restart"] += 1
        await self._close()
        await asyncio.sleep(away)
        await self._listen()

    async def _listen(self) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/traces", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        fault = self._plan(self._number)
        self._number += 1
        self.faults[fault] += 1
        for arrived in self._watching:
            arrived.set()
        if fault == "503":
            return web.Response(status=503)
        if fault != "reset":
            self._take_over(request.headers["x-asynctrace-key"], body)
        if fault == "hang":
            await asyncio.sleep(self._hang)
        elif fault != "accept" and request.transport is not None:
            request.transport.abort()
        return web.Response(body=encode_response(), content_type="application/x-protobuf")

    def _take_over(self, key: str, body: bytes) -> None:
        if key in self._keys:
            self.repeated += 1
            return
        self._keys.add(key)
        for group in decode_request(body):
            self.arrived.update(int(span.span_id, 16) for span in group.spans)
