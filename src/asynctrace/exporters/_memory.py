"""Spans kept in memory, decoded: for tests and for looking at one's own traces in a notebook.

Promises: each instance has its own state; what was exported can be read from any thread and stays after
`aclose()`. Nothing bounds what it keeps but `clear()`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import msgspec

from .._contracts import Batch, ExportResult, Resource, Span
from ._arrivals import Arrivals
from ._slices import Slices

__all__ = ["KeptBatch", "MemoryExporter"]


class KeptBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What one `export()` brought. `size` is the bytes of its records on the wire."""

    key: str
    size: int
    resource: Resource
    spans: tuple[Span, ...]

    @property
    def count(self) -> int:
        """How many spans."""
        return len(self.spans)


class MemoryExporter:
    """Keeps every batch.

    memory = MemoryExporter()
    async with asynctrace.Tracer(service="shop", exporters=[memory]) as tracer:
        async with tracer.trace("checkout"):
            ...
        await tracer.flush()
    assert [span.name for span in memory.spans] == ["checkout"]
    """

    def __init__(self, *, name: str = "memory") -> None:
        self._name = name
        self._batches: list[KeptBatch] = []
        self._arrivals = Arrivals(self._count, "spans")
        self._slices = Slices()

    @property
    def name(self) -> str:
        """The lane's name in the receipt."""
        return self._name

    @property
    def batches(self) -> list[KeptBatch]:
        """A copy of what came so far, in the order of arrival."""
        return list(self._batches)

    @property
    def spans(self) -> list[Span]:
        """The spans of all batches, in the order of arrival: children before their parents."""
        return [span for batch in self.batches for span in batch.spans]

    async def export(self, batch: Batch) -> ExportResult:
        """Keep the batch. Accepts everything."""
        spans = await self._slices.spans(batch)
        self._batches.append(KeptBatch(key=batch.key, size=batch.size, resource=batch.resource, spans=spans))
        self._arrivals.notify()
        return ExportResult.all_accepted(batch)

    async def wait_for(self, n: int, timeout: float = 5.0) -> list[Span]:
        """The spans, as soon as there are at least `n`; `TimeoutError` after `timeout` seconds."""
        await self._arrivals.wait_for(n, timeout)
        return self.spans

    def clear(self) -> None:
        """Forget everything kept so far."""
        self._batches = []

    async def aclose(self) -> None:
        """Nothing to free: the spans stay readable."""

    def __reduce__(self) -> tuple[Callable[..., MemoryExporter], tuple[()]]:
        """For another process, which keeps its spans itself: they cannot be seen here."""
        return functools.partial(type(self), name=self._name), ()

    def __repr__(self) -> str:
        return f"MemoryExporter(name={self._name!r}, spans={self._count()})"

    def _count(self) -> int:
        return sum(batch.count for batch in tuple(self._batches))
