"""Spans that flow through a stream while something happens to it, and the account of them afterwards."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

from asynctrace._errors import StreamAway, StreamError
from asynctrace.stream import Message, RedisStream

from .places import Place

__all__ = ["Load", "Workers", "at", "message", "within"]

SPANS = 50
"""Of one request."""


def message(number: int, size: int = 200, log: str = "log") -> Message:
    """A request whose key nobody else has."""
    return Message(key=f"{log}:{number * SPANS}:{SPANS}", records=SPANS, body=bytes([number % 251]) * size)


def at(url: str) -> Place:
    """Where a URL leads that needs nothing beside it."""
    return Place(url, 0, False, "", [])


async def within(seconds: float, condition: Any, what: str) -> None:
    """Polls until it is so: the condition is about a server or a count, which tell nobody when they change."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s: {what}")


class Load:
    """Sends requests at a steady rate, each on its own, as an ingest node does. One that is refused is sent again, as a
    sender does, until `patience` seconds are over."""

    def __init__(self, stream: RedisStream, spans_per_second: int, log: str = "log", patience: float = 60.0) -> None:
        self.safe: set[str] = set()
        self.errors: Counter[type[StreamError]] = Counter()
        self.refused: set[str] = set()
        self.lines: set[str] = set()
        self._stream = stream
        self._pause = SPANS / spans_per_second
        self._log = log
        self._patience = patience

    async def __aenter__(self) -> Load:
        self._stop = asyncio.Event()
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await self._running

    async def reach(self, count: int, more: bool = True) -> None:
        """Wait until so many (more) requests are safe."""
        count += len(self.safe) if more else 0
        await within(60, lambda: len(self.safe) >= count or self._running.done(), f"{count} safe requests")
        if self._running.done():
            self._running.result()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.TaskGroup() as requests:
            for number in itertools.count():
                delay = start + number * self._pause - loop.time()
                if delay > 0:
                    await _until(self._stop, delay)
                if self._stop.is_set():
                    return
                requests.create_task(self._send(number))

    async def _send(self, number: int) -> None:
        sent = message(number, log=self._log)
        end = asyncio.get_running_loop().time() + self._patience
        while True:
            try:
                await self._stream.append(sent)
            except StreamError as error:
                self.errors[type(error)] += 1
                self.lines.add(str(error))
                if asyncio.get_running_loop().time() > end:
                    self.refused.add(sent.key)
                    return
                await asyncio.sleep(0.05)
            else:
                self.safe.add(sent.key)
                return


async def _until(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass


class Workers:
    """Claim and acknowledge. `stored` has each request as often as a claim with it was acknowledged, `tokens` each batch as
    it was when it was first claimed: one that comes again has to be the same."""

    def __init__(self, stream: RedisStream, count: int = 1) -> None:
        self.stored: Counter[str] = Counter()
        self.tokens: dict[str, list[str]] = {}
        self.errors: list[str] = []
        self._stream = stream
        self._count = count

    async def __aenter__(self) -> Workers:
        self._tasks = [asyncio.create_task(self._work(f"worker-{number}")) for number in range(self._count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def have(self, keys: set[str], seconds: float = 60.0) -> None:
        """Wait until all of these are stored."""
        try:
            await within(seconds, lambda: keys <= self.stored.keys(), "all that was safe is stored")
        except AssertionError as error:
            missing = keys - self.stored.keys()
            raise AssertionError(
                f"{len(missing)} of {len(keys)} lost: {sorted(missing)[:5]} {self.errors[-3:]}"
            ) from error

    async def _work(self, name: str) -> None:
        while True:
            try:
                claim = await self._stream.claim(name)
                if claim is None:
                    continue
                keys = [delivery.message.key for delivery in claim.deliveries if delivery.message is not None]
                assert self.tokens.setdefault(claim.token, keys) == keys
                await self._stream.acknowledge(claim)
                self.stored.update(keys)
            except StreamAway as error:
                self.errors.append(str(error))
                await asyncio.sleep(0.05)
