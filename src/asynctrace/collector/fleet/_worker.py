"""The program that takes from the stream and stores.

    claim ─▶ settle ─▶ claim ─▶ …        `at_once` of these beside one another, each on a shard of its own

Promises:

- Any number of workers share a stream, and may come and go: what one leaves behind the others take up after its lease.
- A stream or a store that is away is waited for; nothing is dropped meanwhile.
- `aclose()` claims nothing more and finishes what is claimed, for `grace` seconds at most; what waits for a store that is
  away is given back at once. What is given back another worker stores, under the same token.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp import web

from ..._diagnostics import Diagnostics
from ..._errors import ConfigurationError, StreamError
from ...stream import Stream
from .._guard import Guard
from .._health import Health
from .._site import DEFAULT_HOST, Site, answer_on
from .._upkeep import sweeping
from ..receiving._scan import Scanner
from ..store import Store
from ._metrics import Tally, stream_text, warning_of
from ._requests import has_zstd
from ._settling import LONGEST_PAUSE, SHORTEST_PAUSE, GivenBack, Settling

__all__ = ["Worker"]

AT_ONCE: Final = 2
"""Claims at once: while one waits for the store, the other is read."""
MOST_AT_ONCE: Final = 64
LEASE: Final = 30.0
"""Seconds."""
EXTENSIONS: Final = 6
"""Times that a lease is extended before it would end: a stream that is away for a moment costs no claim."""
SWEEP_EVERY: Final = 30.0
"""Seconds between two sweeps of each worker; there may be many."""
GRACE: Final = 20.0
"""Seconds for claims that are under way when the end begins; Kubernetes waits for 30."""


class Worker(Site):
    """Works from `start()` to `aclose()`, and tells how it is on `host`:`port` (0: a free one). `lease` is that of the
    stream's claims. The stream and the store are the caller's to close. Settings that cannot work raise
    `ConfigurationError`."""

    def __init__(
        self,
        stream: Stream,
        store: Store,
        *,
        name: str = "",
        at_once: int = AT_ONCE,
        lease: float = LEASE,
        grace: float = GRACE,
        host: str = DEFAULT_HOST,
        port: int = 0,
        token: str | None = None,
    ) -> None:
        super().__init__(host, port, token)
        if not 1 <= at_once <= MOST_AT_ONCE:
            raise ConfigurationError(f"{at_once} claims at once are not possible: give 1 to {MOST_AT_ONCE}")
        if not has_zstd():
            raise ConfigurationError(
                "a worker has to read what others compressed with zstd: pip install 'asynctrace[zstd]'"
            )
        self._stream, self._store = stream, store
        self._name = name or f"{socket.gethostname()}-{os.getpid()}"
        self._at_once, self._grace = at_once, grace
        self._extend_every = lease / EXTENSIONS
        self._tally = Tally("asynctrace_worker")
        self._diagnostics = Diagnostics(time.monotonic_ns)
        self._hands: list[Settling] = []
        self._ending = asyncio.Event()
        self._stream_trouble = ""

    async def _begin(self, listener: socket.socket, closers: contextlib.AsyncExitStack) -> None:
        await closers.enter_async_context(sweeping(self._store, every=SWEEP_EVERY))
        threads = closers.enter_context(ThreadPoolExecutor(self._at_once, thread_name_prefix="asynctrace-worker"))
        scanner = Scanner()
        self._hands = [self._settling(scanner, threads) for _ in range(self._at_once)]
        await answer_on([listener], self._application(), closers)
        tasks = [
            asyncio.create_task(self._work(hand, f"{self._name}-{number}"), name="asynctrace worker")
            for number, hand in enumerate(self._hands)
        ]
        closers.push_async_callback(self._finish, tasks)

    async def _finish(self, tasks: list[asyncio.Task[None]]) -> None:
        self._ending.set()
        _, late = await asyncio.wait(tasks, timeout=self._grace)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _settling(self, scanner: Scanner, threads: ThreadPoolExecutor) -> Settling:
        return Settling(
            self._stream,
            self._store,
            self._tally,
            scanner=scanner,
            threads=threads,
            ending=self._ending,
            extend_every=self._extend_every,
        )

    async def _work(self, hand: Settling, name: str) -> None:
        """One claim after the other. Each hand is a worker of its own to the stream: no two share a shard."""
        pause = SHORTEST_PAUSE
        while not self._ending.is_set():
            try:
                claim = await self._stream.claim(name)
                self._stream_trouble, pause = "", SHORTEST_PAUSE
                if claim is not None:
                    self._tally.add("claims")
                    await hand.settle(claim)
            except GivenBack:
                self._tally.add("given_back")
            except StreamError as error:
                self._stream_trouble = str(error)
                self._tally.add("retries", of="stream")
                self._diagnostics.error("collector.stream_away", reason=self._stream_trouble)
                pause = await self._rested(pause)
            except Exception as error:  # noqa: BLE001  (a defect of ours must not end the worker without a word)
                self._diagnostics.error("collector.claim_failed", reason=repr(error))
                pause = await self._rested(pause)

    async def _rested(self, pause: float) -> float:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), pause)
        return min(LONGEST_PAUSE, 2 * pause)

    # How it is ---------------------------------------------------------------------------------------------------

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[Guard(self._host, self._token).middleware()])
        application.add_routes(Health(self._trouble, self._metrics, lambda: warning_of(self._stream)).routes())
        return application

    def _trouble(self) -> str:
        if self._ending.is_set():
            return "stopping"
        return self._stream_trouble or next((hand.store_trouble for hand in self._hands if hand.store_trouble), "")

    async def _metrics(self) -> str:
        return self._tally.text() + await stream_text(self._stream)
