"""Exporters work in slices: whatever a batch holds, everything else on the loop has its turn in between.

Measured is the processor time that the loop's thread uses between two turns of a ticker, which the load of the machine
does not change; the collector of cyclic garbage is switched off meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from asynctrace import ExportResult
from asynctrace.delivery import RecordBatch
from asynctrace.exporters import ConsoleExporter, FileExporter, MemoryExporter, OTLPExporter
from asynctrace.exporters._slices import Slices
from asynctrace.testing import FaultServer
from asynctrace.wire import decode_request, encode_request, json_request

from ..patience import patient

pytestmark = pytest.mark.anyio

MakeBatch = Callable[..., RecordBatch]

LONGEST = 0.012
"""Seconds: three slices of 2 ms, doubled."""

PART = 1 / 8
"""Of the time that the same work takes in one go, where this is more: on a slow machine everything takes longer."""

SPANS = 4000
ATTEMPTS = 3


async def longest_turn(work: Coroutine[Any, Any, object]) -> float:
    """The most processor time between two turns of a ticker while `work` runs."""
    task = asyncio.ensure_future(work)
    longest, before = 0.0, time.thread_time()
    while not task.done():
        await asyncio.sleep(0.0005)
        now = time.thread_time()
        longest, before = max(longest, now - before), now
    task.result()
    return longest


async def check_the_loop_goes_on(exporter: Any, make_batch: MakeBatch, in_one_go: float) -> None:
    """In one of a few attempts: what stands in the way on a busy machine does not do so each time."""
    longest = max(LONGEST, in_one_go * PART)
    turns: list[float] = []
    try:
        while len(turns) < ATTEMPTS:
            turns.append(await held_for(exporter, make_batch, first=2 * len(turns) * SPANS))
            if turns[-1] < longest:
                return
    finally:
        await exporter.aclose()
    raise AssertionError(f"held for {min(turns) * 1000:.1f} ms, and in one go for {in_one_go * 1000:.1f} ms")


async def held_for(exporter: Any, make_batch: MakeBatch, first: int = 0) -> float:
    """Seconds of the longest turn while it exports two batches."""
    batches = [make_batch(SPANS, first=first), make_batch(SPANS, first=first + SPANS)]
    gc.collect()
    gc.disable()
    try:
        return await longest_turn(asyncio.wait_for(_export_all(exporter, batches), patient(30)))
    finally:
        gc.enable()


async def _export_all(exporter: Any, batches: list[RecordBatch]) -> None:
    results = await asyncio.gather(*(exporter.export(batch) for batch in batches))
    assert results == [ExportResult.all_accepted(batch) for batch in batches]


class Stubborn(Slices):
    """Everything in one go."""

    async def collect(self, steps: Any) -> list[Any]:
        return list(steps)


MAKERS: dict[str, Callable[[Path, str], Any]] = {
    "memory": lambda path, url: MemoryExporter(),
    "console": lambda path, url: ConsoleExporter(io.StringIO()),
    "file": lambda path, url: FileExporter(path / "spans.jsonl"),
    "otlp": lambda path, url: OTLPExporter(url),
    "otlp gzip": lambda path, url: OTLPExporter(url, compression="gzip"),
    "otlp zstd": lambda path, url: OTLPExporter(url, compression="zstd"),
    "otlp json gzip": lambda path, url: OTLPExporter(url, encoding="json", compression="gzip"),
}


async def in_one_go(exporter: Any, make_batch: MakeBatch) -> float:
    """Seconds for which it would hold the loop if it took no breath."""
    exporter._slices = Stubborn()
    try:
        return await held_for(exporter, make_batch)
    finally:
        await exporter.aclose()


@pytest.mark.parametrize("kind", MAKERS)
async def test_large_batches_do_not_hold_the_loop(kind: str, tmp_path: Path, make_batch: MakeBatch) -> None:
    with FaultServer.in_thread() as server:
        whole = await in_one_go(MAKERS[kind](tmp_path, server.url), make_batch)
        await check_the_loop_goes_on(MAKERS[kind](tmp_path, server.url), make_batch, whole)


@pytest.mark.parametrize("kind", ["memory", "console", "file", "otlp json gzip"])
async def test_the_check_notices_an_exporter_that_works_in_one_go(
    kind: str, tmp_path: Path, make_batch: MakeBatch
) -> None:
    with FaultServer.in_thread() as server:
        whole = await in_one_go(MAKERS[kind](tmp_path, server.url), make_batch)
        exporter = MAKERS[kind](tmp_path, server.url)
        exporter._slices = Stubborn()
        with pytest.raises(AssertionError, match="held for"):
            await check_the_loop_goes_on(exporter, make_batch, whole)


async def test_batches_that_are_worked_on_together_are_done_in_their_order(make_batch: MakeBatch) -> None:
    exporter = MemoryExporter()
    await asyncio.gather(exporter.export(make_batch(SPANS)), exporter.export(make_batch(1)))
    assert [batch.count for batch in exporter.batches] == [SPANS, 1]


async def test_an_export_that_is_cancelled_between_slices_makes_way_for_the_next(make_batch: MakeBatch) -> None:
    exporter = MemoryExporter()
    first = asyncio.ensure_future(exporter.export(make_batch(SPANS)))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(exporter.export(make_batch(1)))
    await asyncio.sleep(0)
    assert not second.done()
    first.cancel()
    await asyncio.wait_for(second, patient(5))
    assert [batch.count for batch in exporter.batches] == [1]


async def test_a_loop_that_stands_still_between_slices_does_not_hold_up_another(make_batch: MakeBatch) -> None:
    exporter = MemoryExporter()
    other = asyncio.new_event_loop()
    try:
        stuck = other.create_task(exporter.export(make_batch(SPANS)))
        other.call_soon(other.stop)
        await asyncio.to_thread(other.run_forever)
        await asyncio.wait_for(exporter.export(make_batch(1)), patient(5))
        assert [batch.count for batch in exporter.batches] == [1]
        await asyncio.to_thread(other.run_until_complete, stuck)
    finally:
        other.close()


async def test_json_made_in_slices_is_the_json_of_the_whole(make_batch: MakeBatch) -> None:
    batch = make_batch(20)
    whole = json_request(
        decode_request(b"".join(encode_request(batch.resource_bytes, batch.scope_bytes, batch.payload)))
    )
    assert await Slices().json_request(batch) == whole
    assert len(json.loads(whole)["resourceSpans"][0]["scopeSpans"][0]["spans"]) == 20
