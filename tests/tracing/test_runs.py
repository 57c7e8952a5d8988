"""Several tracers in one process: each has its own contexts, its own spans and its own end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

import asynctrace
from asynctrace import Batch, ExportResult, Tracer
from asynctrace.exporters import MemoryExporter
from asynctrace.testing import ManualClock, assert_no_context_leaked, assert_tree

pytestmark = pytest.mark.anyio


def make(*exporters: Any, **options: Any) -> Tracer:
    return Tracer(service="test", exporters=list(exporters), journal=False, **options)


class SlowToClose(MemoryExporter):
    """Takes its time to close, and notes when it began."""

    def __init__(self, all_are_closing: asyncio.Event, count: list[int]) -> None:
        super().__init__()
        self.all_are_closing, self.count = all_are_closing, count

    async def aclose(self) -> None:
        self.count[0] -= 1
        if not self.count[0]:
            self.all_are_closing.set()
        await self.all_are_closing.wait()


async def test_the_modules_shutdown_closes_all_tracers_concurrently() -> None:
    """Each exporter closes only when all of them are closing: one after the other would not end."""
    await asynctrace.shutdown()  # of what other tests left alive
    all_are_closing, count = asyncio.Event(), [3]
    exporters = [SlowToClose(all_are_closing, count) for _ in range(3)]
    tracers = [make(exporter) for exporter in exporters]
    for tracer in tracers:
        with tracer.trace("run"), tracer.trace_component("step"):
            pass
    async with asyncio.timeout(30):
        receipt = await asynctrace.shutdown()
    assert [len(exporter.spans) for exporter in exporters] == [2, 2, 2]
    assert (receipt.ended, receipt.accepted) == (6, 6)


async def test_closing_one_after_the_other_is_noticed() -> None:
    all_are_closing, count = asyncio.Event(), [3]
    tracers = [make(SlowToClose(all_are_closing, count)) for _ in range(3)]
    for tracer in tracers:
        await tracer.start()
        with tracer.trace("run"):
            pass
    first = asyncio.create_task(tracers[0].shutdown())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await asyncio.shield(first)
    await asyncio.gather(first, *(tracer.shutdown() for tracer in tracers[1:]))


async def test_a_tracers_shutdown_closes_only_its_own() -> None:
    one, two = MemoryExporter(), MemoryExporter()
    first, second = make(one), make(two)
    async with second.trace("open") as run:
        with first.trace("first"):
            pass
        await first.shutdown()
        async with second.trace_component("still works"):
            pass
        assert second.current_trace() is run
    await second.flush()
    assert_tree(one.spans, "first ok")
    assert_tree(two.spans, "open ok\n  still works ok")
    await second.shutdown()


async def test_two_tracers_of_equal_configuration_share_nothing() -> None:
    one, two = MemoryExporter(), MemoryExporter()
    first, second = make(one), make(two)
    with first.trace("a"), second.trace("b"), first.trace_component("a.a"), second.trace_component("b.b") as inner:
        assert second.current_component() is inner
        assert first.current_component() is not inner
        second.add_log("to b.b")
    await asyncio.gather(first.flush(), second.flush())
    assert_tree(one.spans, "a ok\n  a.a ok")
    assert_tree(two.spans, "b ok\n  b.b ok")
    logs = {span.name: [event.name for event in span.events] for span in (*one.spans, *two.spans)}
    assert logs == {"a": [], "a.a": [], "b": [], "b.b": ["to b.b"]}
    instances = [exporter.batches[0].resource.attributes["service.instance.id"] for exporter in (one, two)]
    assert len(set(instances)) == 1, "one process"
    assert len({span.trace_id for span in (*one.spans, *two.spans)}) == 2
    assert one.batches[0].key.partition(":")[0] != two.batches[0].key.partition(":")[0]
    assert (first.receipt().ended, second.receipt().ended) == (2, 2)
    await asyncio.gather(first.shutdown(), second.shutdown())


async def test_the_modules_functions_mean_the_default_tracer() -> None:
    exporter = MemoryExporter()
    tracer = asynctrace.configure(service="test", exporters=[exporter], journal=False)

    @asynctrace.trace_component("decorated")
    async def decorated() -> None:
        asynctrace.set_outputs("made")

    with assert_no_context_leaked():
        async with asynctrace.trace("run") as run:
            assert asynctrace.current_trace() is run
            async with asynctrace.trace_component("step", type="tool") as step:
                assert asynctrace.current_component() is step
                asynctrace.add_log("here")
            with asynctrace.suppress():
                await decorated()
            await decorated()
        asynctrace.start_tracers("r", "by callbacks", user_id="u")
        asynctrace.end_tracers({"ok": True})
    receipt = await asynctrace.flush()
    assert receipt == asynctrace.receipt() == tracer.receipt()
    assert asynctrace.statistics().open == 0
    assert_tree(
        exporter.spans,
        """
        run ok
          step [tool] ok
          decorated ok
        by callbacks ok
        """,
    )
    second = MemoryExporter()
    await tracer.shutdown()
    asynctrace.configure(service="test", exporters=[second], journal=False)
    await decorated()
    await asynctrace.shutdown()
    assert_tree(second.spans, "decorated ok")


# Several exporters, slow lanes


class FailsToStart(MemoryExporter):
    async def start(self) -> None:
        raise OSError("no such backend")


class FailsToSend(MemoryExporter):
    async def export(self, batch: Batch) -> ExportResult:
        raise OSError("no route")


class Hangs(MemoryExporter):
    async def export(self, batch: Batch) -> ExportResult:
        await asyncio.sleep(30)
        return ExportResult.all_accepted(batch)


async def test_a_broken_exporter_keeps_nothing_from_the_others_and_each_has_its_own_receipt() -> None:
    good = MemoryExporter(name="good")
    broken = [FailsToStart(name="start"), FailsToSend(name="send"), Hangs(name="hang")]
    tracer = make(*broken, good, shutdown_timeout=0.2)
    for number in range(50):
        with tracer.trace_component(f"step {number}"):
            pass
    await good.wait_for(50, timeout=20)
    receipt = await tracer.shutdown()
    assert receipt.lanes["good"].accepted == 50
    assert receipt.lanes["good"].complete
    for name in ("start", "send", "hang"):
        lane = receipt.lanes[name]
        assert (lane.ended, lane.accepted) == (50, 0)
        assert lane.ended == lane.accepted + lane.rejected + lane.dropped + lane.spooled + lane.pending
    assert (receipt.ended, receipt.accepted, receipt.complete) == (50, 0, False)


class Delayed(MemoryExporter):
    async def export(self, batch: Batch) -> ExportResult:
        await asyncio.sleep(1)
        return await super().export(batch)


async def test_a_lane_delayed_by_a_second_changes_no_time() -> None:
    delayed = Delayed()
    clock = ManualClock()
    tracer = make(delayed, clock=clock)
    began = clock.time_ns()
    with tracer.trace_component("step"):
        clock.advance(0.5)
    clock.advance(3600)
    await tracer.shutdown()
    (span,) = delayed.spans
    assert (span.start_ns, span.duration_ns) == (began, 500_000_000)


def test_a_program_without_a_loop_traces_flushes_and_ends() -> None:
    program = """
import asynctrace
from asynctrace.exporters import MemoryExporter
memory = MemoryExporter()
with asynctrace.Tracer(service="script", exporters=[memory], journal=False) as tracer:
    with tracer.trace("script"), tracer.trace_component("step"):
        pass
    receipt = tracer.flush_sync(timeout=10)
    assert receipt.accepted == 2, receipt
print(len(memory.spans), tracer.receipt())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    expected = "2 Receipt(ended=2, accepted=2, rejected=0, dropped=0, spooled=0, pending=0)\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")
