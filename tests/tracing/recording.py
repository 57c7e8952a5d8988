"""A recorder whose records end in a list: tracing alone, without a span log, a lane or an event loop."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from typing import Any

from asynctrace._contracts import Span
from asynctrace._diagnostics import Diagnostics
from asynctrace.testing import SeededIds
from asynctrace.tracing import Recorder
from asynctrace.wire import decode_records

_seeds = itertools.count()


class SystemClock:
    def time_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class ListSink:
    """Keeps records; implements `SpanSink`."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.refused: list[str] = []
        self.refused_traces: dict[bytes, int] = {}
        self.is_scoped = False

    def append_nowait(self, record: bytes) -> bool:
        self.records.append(record)
        return True

    async def append(self, record: bytes) -> None:
        raise AssertionError("there is always room")

    def append_sync(self, record: bytes) -> None:
        raise AssertionError("there is always room")

    def append_or_refuse(self, record: bytes) -> None:
        self.append_nowait(record)

    def refuse(self, reason: str) -> None:
        self.refused.append(reason)


class CountingSink(ListSink):
    """Forgets records at once."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def append_nowait(self, record: bytes) -> bool:
        self.count += 1
        return True


class Recording:
    """The subject of a check: a tracer, and what it recorded."""

    def __init__(self, *, sink: ListSink | None = None, clock: Any = None, **options: Any) -> None:
        self.sink = sink or ListSink()
        self.tracer = Recorder(
            sink=self.sink,
            clock=clock or SystemClock(),
            ids=SeededIds(next(_seeds)),
            diagnostics=Diagnostics(time.monotonic_ns),
            cancelled_types=(asyncio.CancelledError,),
            **options,
        )

    @property
    def spans(self) -> tuple[Span, ...]:
        return decode_records(self.sink.records)

    def collect(self) -> None:
        """A full garbage collection, before which a tracer lets go of the components it holds."""
        self.tracer._open.sift()
        gc.collect()

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Span:
        (span,) = self.named(name)
        return span
