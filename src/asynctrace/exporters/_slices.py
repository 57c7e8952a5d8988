"""Python work on batches that would hold the event loop, done there a slice at a time.

A thread is no way out for it: one that computes gives the interpreter up every 5 ms only, and the loop asks for it after
each wait: while 512 spans became JSON in a thread everything else ran up to 13 ms late; in slices, 2 ms.
What gives the interpreter up by itself (files, compression, name servers) belongs beside the loop: `_aside`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

import msgspec

from .._contracts import Batch, Span
from ..wire import (
    decode_records,
    decode_request,
    encode_request,
    encode_scoped_request,
    group_by_scope,
    join_json_request,
    json_record,
    scan_records,
    scope_of,
    take_scope,
)

__all__ = ["SLICE", "Slices"]

SLICE: Final = 0.002
"""Seconds of work after which whatever else is ready has its turn."""

TURNS: Final = 3
"""Turns of the loop between two slices. What others do takes several (a timer fires, its future wakes a task, which writes),
and with one turn they would wait for a slice in each: the lag of a ticker was 6 ms instead of 2."""

T = TypeVar("T")


class Slices:
    """The turns of one exporter on its event loop.

    Batches that are worked on at the same time take turns as wholes, in the order in which they began: together
    they hold the loop no longer than one, and they are done in that order.
    """

    def __init__(self) -> None:
        self._line: list[tuple[asyncio.AbstractEventLoop, object]] = []

    async def spans(self, batch: Batch) -> tuple[Span, ...]:
        """The records decoded. Raises `WireError` for damaged bytes."""
        return tuple(await self.collect(decode_records((record,))[0] for record in _records(batch.payload)))

    async def json_request(self, batch: Batch) -> bytes:
        """The batch as an OTLP/JSON request. Raises `WireError` for damaged bytes, else as `json_record()`."""
        (own,) = decode_request(b"".join(encode_request(batch.resource_bytes, batch.scope_bytes, ())))
        if not batch.is_scoped:
            spans = await self.collect(json_record(record) for record in _records(batch.payload))
            return join_json_request(own.resource, [(own.scope, spans)])
        taken = await self.collect(_taken_as_json(record) for record in _records(batch.payload))
        groups = group_by_scope(taken).items()
        return join_json_request(own.resource, [(scope_of(named) if named else own.scope, s) for named, s in groups])

    async def scoped_request(self, batch: Batch) -> bytes:
        """The batch as an OTLP request in which records stand in their own scopes. Raises `WireError` for damaged bytes."""
        taken = await self.collect(take_scope(bytes(record)) for record in _records(batch.payload))
        return encode_scoped_request(batch.resource_bytes, batch.scope_bytes, group_by_scope(taken))

    async def collect(self, steps: Iterable[T]) -> list[T]:
        """What `steps` yields. Each step should take much less than a slice."""
        loop = asyncio.get_running_loop()
        place = (loop, object())
        self._line.append(place)
        try:
            while self._is_behind_another(place):  # noqa: ASYNC110  (the one before us works all the time)
                await asyncio.sleep(0)
            return await _in_slices(steps, loop)
        finally:
            self._line.remove(place)

    def _is_behind_another(self, place: tuple[asyncio.AbstractEventLoop, object]) -> bool:
        """Only on its own loop: another may stand still."""
        return next(one for one in self._line if one[0] is place[0]) is not place


async def _in_slices(steps: Iterable[T], loop: asyncio.AbstractEventLoop) -> list[T]:
    done: list[T] = []
    until = loop.time() + SLICE
    for step in steps:
        done.append(step)
        if loop.time() >= until:
            await _let_others_run()
            until = loop.time() + SLICE
    return done


async def _let_others_run() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def _taken_as_json(record: memoryview) -> tuple[bytes, msgspec.Raw]:
    named, rest = take_scope(bytes(record))
    return named, json_record(rest)


def _records(payload: Sequence[bytes | memoryview]) -> Iterator[memoryview]:
    contiguous = memoryview(b"".join(payload))
    for start, end in scan_records(contiguous):
        yield contiguous[start:end]
