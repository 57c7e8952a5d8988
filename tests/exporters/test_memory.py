"""MemoryExporter keeps what it is given, for any thread to read."""

from __future__ import annotations

import asyncio
import threading

import pytest

from asynctrace._contracts import Exporter
from asynctrace.exporters import MemoryExporter

pytestmark = pytest.mark.anyio


async def test_it_keeps_spans_and_batches_in_order_and_accepts_all(make_batch) -> None:
    memory = MemoryExporter()
    assert isinstance(memory, Exporter)
    first = await memory.export(make_batch(2, key="a"))
    await memory.export(make_batch(1, key="b", first=3))
    assert (first.accepted, first.rejected) == (2, 0)
    assert [span.name for span in memory.spans] == ["span 1", "span 2", "span 3"]
    assert [(kept.key, kept.count) for kept in memory.batches] == [("a", 2), ("b", 1)]
    assert memory.batches[0].resource.attributes["service.name"] == "shop"


async def test_two_instances_share_nothing(make_batch) -> None:
    one, other = MemoryExporter(), MemoryExporter(name="other")
    await one.export(make_batch())
    assert (len(one.spans), len(other.spans), other.name) == (3, 0, "other")


async def test_what_was_read_does_not_change_afterwards(make_batch) -> None:
    memory = MemoryExporter()
    await memory.export(make_batch(1))
    spans = memory.spans
    await memory.export(make_batch(1))
    memory.clear()
    assert len(spans) == 1
    assert memory.spans == []


async def test_the_spans_stay_after_closing(make_batch) -> None:
    memory = MemoryExporter()
    await memory.export(make_batch())
    await memory.aclose()
    await memory.aclose()
    assert len(memory.spans) == 3


async def test_waiting_ends_when_enough_has_come(make_batch) -> None:
    memory = MemoryExporter()
    waiting = asyncio.create_task(memory.wait_for(4, timeout=10))
    await memory.export(make_batch(3))
    await asyncio.sleep(0)
    assert not waiting.done()
    await memory.export(make_batch(1, first=4))
    assert len(await waiting) == 4


async def test_waiting_in_vain_says_how_many_came(make_batch) -> None:
    memory = MemoryExporter()
    await memory.export(make_batch(3))
    with pytest.raises(TimeoutError, match="3 of 4 spans"):
        await memory.wait_for(4, timeout=0.01)


def test_it_is_filled_from_many_threads_and_waited_for_in_another(make_batch) -> None:
    memory = MemoryExporter()

    def fill(number: int) -> None:
        for index in range(50):
            asyncio.run(memory.export(make_batch(2, first=number * 1000 + index * 2)))

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    spans = asyncio.run(memory.wait_for(800, timeout=30))
    for thread in threads:
        thread.join()
    assert len({span.span_id for span in spans}) == 800
