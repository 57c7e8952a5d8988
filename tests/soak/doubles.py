"""Tracers and exporters that are wrong once in ten thousand spans, or a little with each: the soak must see it."""

from __future__ import annotations

from typing import Any

import msgspec

from asynctrace import ExportResult, Tracer
from asynctrace.wire import scan_records

__all__ = ["DOUBLES"]

ONE_IN = 10_000


class LosesOnTheWayIn(Tracer):
    """One record in ten thousand is neither stored nor counted."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        append, self._times = self._append_nowait, 0

        def append_most(record: bytes) -> bool:
            self._times += 1
            return self._times % ONE_IN == 0 or append(record)

        self._append_nowait = append_most


class Wrapped:
    """An exporter around the real one."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.name = inner.name

    async def export(self, batch: Any) -> ExportResult:
        result: ExportResult = await self._inner.export(batch)
        return result

    async def release(self) -> None:
        await self._inner.release()

    async def aclose(self) -> None:
        await self._inner.aclose()


class Shorter:
    """A batch without its last record."""

    def __init__(self, batch: Any) -> None:
        whole = b"".join(batch.payload)
        *_, (start, _) = scan_records(whole)
        self.payload = [whole[:start]]
        self.count, self.size, self.key, self.is_scoped = batch.count, start, batch.key, batch.is_scoped
        self.resource, self.resource_bytes, self.scope_bytes = batch.resource, batch.resource_bytes, batch.scope_bytes


class LosesOnTheWayOut(Wrapped):
    """Once in ten thousand spans a batch leaves without its last record, and counts as whole."""

    _seen = 0

    async def export(self, batch: Any) -> ExportResult:
        before, self._seen = self._seen, self._seen + batch.count
        return await super().export(Shorter(batch) if before // ONE_IN < self._seen // ONE_IN else batch)


class KeepsWhatItSent(Wrapped):
    """Each batch is remembered."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._kept: list[bytes] = []

    async def export(self, batch: Any) -> ExportResult:
        self._kept.append(b"".join(batch.payload) * 6)
        return await super().export(batch)


class CallsItAccepted(Wrapped):
    """After a failure the spans are given up, and told to have arrived."""

    async def export(self, batch: Any) -> ExportResult:
        await super().export(batch)
        return ExportResult.all_accepted(batch)


class Double(msgspec.Struct, frozen=True):
    tracer: type[Tracer] = Tracer
    exporter: Any = lambda inner: inner


DOUBLES = {
    "sound": Double(),
    "loses on the way in": Double(tracer=LosesOnTheWayIn),
    "loses on the way out": Double(exporter=LosesOnTheWayOut),
    "calls it accepted": Double(exporter=CallsItAccepted),
    "leaks": Double(exporter=KeepsWhatItSent),
}
