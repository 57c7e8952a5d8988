"""Tracers and exporters that break one promise each, so that the checks are known to notice.

Every one is a `Tracer` that was changed in a few lines through its public methods; the name says what is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import msgspec

from asynctrace import DeliveryOptions, ExportResult, Receipt, Tracer
from asynctrace.exporters import OTLPExporter

# ── flush ───────────────────────────────────────────────────────────────────────────────────────────────────


class FlushReturnsAtOnce(Tracer):
    async def flush(self, timeout: float | None = None, *, trace_id: str | None = None) -> Receipt:
        return self.receipt()


class FlushWaitsForOneAnswer(Tracer):
    """The batch in flight counts as everything."""

    async def flush(self, timeout: float | None = None, *, trace_id: str | None = None) -> Receipt:
        before = self.receipt()
        drain = asyncio.create_task(super().flush())
        while self.receipt().accepted == before.accepted and self.receipt().pending:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        drain.cancel()
        await asyncio.wait([drain])
        return self.receipt()


class FlushWaitsForAnEmptyLog(Tracer):
    """No watermark: spans that come later are waited for, and more come all the time."""

    async def flush(self, timeout: float | None = None, *, trace_id: str | None = None) -> Receipt:
        receipt = await super().flush(timeout)
        while receipt.pending:
            receipt = await super().flush(timeout)
        return receipt


class FlushersJoinTheFirst(Tracer):
    """A second caller gets the answer of the flush that is running."""

    _running: asyncio.Task[Receipt] | None = None

    async def flush(self, timeout: float | None = None, *, trace_id: str | None = None) -> Receipt:
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(super().flush())
        return await asyncio.shield(self._running)


class FlushDiesWithItsWaiter(Tracer):
    """One drain for all, and the first waiter that is cancelled takes it along."""

    _running: asyncio.Task[Receipt] | None = None

    async def flush(self, timeout: float | None = None, *, trace_id: str | None = None) -> Receipt:
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(super().flush())
        return await self._running


class FlushSwallowsItsDeadline(Tracer):
    async def flush(self, timeout: float | None = None, *, trace_id: str | None = None) -> Receipt:
        with contextlib.suppress(TimeoutError):
            return await super().flush(timeout)
        return self.receipt()


class FlushIgnoresItsDeadline(Tracer):
    async def flush(self, timeout: float | None = None, *, trace_id: str | None = None) -> Receipt:
        return await super().flush(0.4)


class FlushHoldsTheLoop(Tracer):
    async def flush(self, timeout: float | None = None, *, trace_id: str | None = None) -> Receipt:
        flushed = asyncio.create_task(super().flush(timeout))
        await asyncio.sleep(0.1)
        time.sleep(0.2)  # noqa: ASYNC251
        return await flushed


class FlushIgnoresTheTrace(Tracer):
    """`trace_id` is accepted and forgotten: a request waits for the spans of all others."""

    async def flush(self, timeout: float | None = None, *, trace_id: str | None = None) -> Receipt:
        return await super().flush(timeout)


# ── books ───────────────────────────────────────────────────────────────────────────────────────────────────


class BooksForgetPending(Tracer):
    def receipt(self) -> Receipt:
        return msgspec.structs.replace(super().receipt(), pending=0)

    async def flush(self, timeout: float | None = None, *, trace_id: str | None = None) -> Receipt:
        await super().flush(timeout)
        return msgspec.structs.replace(super().receipt(), accepted=0)


class BooksCallEverythingAccepted(Tracer):
    """The optimism of `force_flush() -> True`."""

    def receipt(self) -> Receipt:
        return _rosy(super().receipt())

    async def flush(self, timeout: float | None = None, *, trace_id: str | None = None) -> Receipt:
        with contextlib.suppress(TimeoutError):
            await super().flush(timeout)
        return self.receipt()

    async def shutdown(self, timeout: float | None = None) -> Receipt:
        return _rosy(await super().shutdown(timeout))


def _rosy(receipt: Receipt) -> Receipt:
    return msgspec.structs.replace(
        receipt,
        accepted=receipt.ended,
        rejected=0,
        dropped=0,
        pending=0,
        dropped_by_reason={},
        rejected_by_reason={},
        lanes={},
    )


# ── shutdown ────────────────────────────────────────────────────────────────────────────────────────────────


class ShutdownDoesNotDrain(Tracer):
    async def shutdown(self, timeout: float | None = None) -> Receipt:
        return await super().shutdown(0.0)


class ShutdownClosesFirst(Tracer):
    """The exporters are closed before they have everything."""

    async def shutdown(self, timeout: float | None = None) -> Receipt:
        for exporter in self._theirs:
            await exporter.aclose()
        return await super().shutdown(timeout)

    def __init__(self, *, exporters: list[Any], **options: Any) -> None:
        self._theirs = exporters
        super().__init__(exporters=exporters, **options)


class ShutdownRunsAgain(Tracer):
    """Each call has an answer of its own."""

    _times = 0

    async def shutdown(self, timeout: float | None = None) -> Receipt:
        receipt = await super().shutdown(timeout)
        self._times += 1
        return msgspec.structs.replace(receipt, recovered=self._times)


class ShutdownForgetsOpenSpans(Tracer):
    """Closes without looking for what is still open: the handles are ended by nobody."""

    async def shutdown(self, timeout: float | None = None) -> Receipt:
        self._open = type(self._open)()
        return await super().shutdown(timeout)


# ── exporters that lie to the lane ──────────────────────────────────────────────────────────────────────────


class LyingExporter(OTLPExporter):
    """What was refused counts as accepted, what was taken as not yet sent."""

    def __init__(self, *arguments: Any, lie: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lie = lie
        self._seen: set[str] = set()

    async def export(self, batch: Any) -> ExportResult:
        if self._lie == "sends twice":
            await super().export(batch)
        result = await super().export(batch)
        if self._lie == "everything is accepted":
            return ExportResult.all_accepted(batch)
        if self._lie == "first answers do not count" and batch.key not in self._seen:
            self._seen.add(batch.key)
            return ExportResult.try_again(after=0.0)
        if self._lie == "Retry-After is ignored" and result.after is not None:
            return ExportResult.try_again(after=0.0)
        if self._lie == "never again" and result.accepted == 0:
            return ExportResult(rejected=batch.count, reason="gave_up")
        return result


def lying(lie: str) -> Any:
    """A maker of tracers whose OTLP exporters tell `lie`."""

    def make_tracer(*, exporters: list[Any], **options: Any) -> Tracer:
        return Tracer(
            exporters=[
                LyingExporter(*exporter._given[:1], timeout=exporter._given[2], name=exporter.name, lie=lie)
                if type(exporter) is OTLPExporter
                else exporter
                for exporter in exporters
            ],
            **options,
        )

    make_tracer.__name__ = lie.replace(" ", "_")
    return make_tracer


def with_options(**forced: Any) -> Any:
    """A maker of tracers with other options than the test asked for."""

    def make_tracer(**options: Any) -> Tracer:
        return Tracer(**{**options, **forced})

    make_tracer.__name__ = "_".join(forced)
    return make_tracer


def with_delivery(**forced: Any) -> Any:
    """A maker of tracers whose lanes have other options than the test asked for."""

    def make_tracer(*, delivery: DeliveryOptions | None = None, **options: Any) -> Tracer:
        delivery = msgspec.structs.replace(delivery or DeliveryOptions(), **forced)
        return Tracer(delivery=delivery, **options)

    make_tracer.__name__ = "_".join(forced)
    return make_tracer


a_request_for_every_few_spans = with_delivery(batch_spans=20, batch_spans_most=20)
