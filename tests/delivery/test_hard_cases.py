"""Hard cases: what a tracer must survive although nobody does it on purpose."""

# ruff: noqa: SIM117  (the outer block is the far side, the inner one the program)

from __future__ import annotations

import asyncio
import time
from typing import Any

import anyio
import msgspec
import pytest

from asynctrace import DeliveryOptions, DeliveryTimeout, ExportResult, Tracer
from asynctrace.exporters import MemoryExporter, OTLPExporter
from asynctrace.testing import Accept, Delay, FaultServer, Hang, Status

from ..patience import patient
from .harness import (
    QUICK,
    Ticker,
    assert_arrived_once,
    assert_balanced,
    assert_complete,
    end_spans,
    run_program_async,
    until,
    within,
)
from .test_loops_and_threads import Stumbles

pytestmark = pytest.mark.anyio


class NeverAnswers:
    name = "never answers"

    async def export(self, batch: Any) -> ExportResult:
        await asyncio.Event().wait()
        raise AssertionError

    async def aclose(self) -> None:
        pass


# ── lanes beside one another ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest"])
async def test_a_lane_that_hangs_costs_the_others_no_span(policy: str) -> None:
    memory = MemoryExporter()
    async with Tracer(
        service="shop",
        exporters=[memory, NeverAnswers()],
        delivery=QUICK,
        capacity_bytes=1 << 20,
        when_full=policy,
        shutdown_timeout=0.1,
    ) as tracer:
        for ended in range(200, 20_001, 200):
            await end_spans(tracer, 200)
            await memory.wait_for(ended - 1000, timeout=30.0)  # it keeps up: its own backlog never fills the log
        await memory.wait_for(20_000, timeout=30.0)
        receipt = tracer.receipt()
        assert_balanced(receipt)
        assert receipt.lanes["memory"].accepted == 20_000


async def test_what_was_evicted_is_not_pending() -> None:
    async with Tracer(
        service="shop",
        exporters=[NeverAnswers()],
        delivery=QUICK,
        capacity_bytes=256 * 1024,
        when_full="drop_oldest",
        shutdown_timeout=0.1,
    ) as tracer:
        await end_spans(tracer, 100)
        await until(lambda: tracer.statistics().lanes["never answers"].in_flight)
        await end_spans(tracer, 20_000)
        receipt = tracer.receipt()
        assert_balanced(receipt)
        most = 2 * 256 * 1024 // 100  # records that can still be held somewhere
        assert receipt.pending < most, f"{receipt!r}"


# ── cancelled while it shuts down ───────────────────────────────────────────────────────────────────────────

HEAD = """
import asyncio, sys
import anyio
from asynctrace import Tracer
from asynctrace.exporters import OTLPExporter

def make_tracer():
    return Tracer(service="shop", exporters=[OTLPExporter(sys.argv[1])])

async def end_spans(tracer):
    for i in range(20):
        async with tracer.trace(f"span-{i}"):
            pass
"""

PROGRAMS = {
    "an anyio scope around the tracer is cancelled": """
async def main():
    with anyio.move_on_after(0.05):
        async with make_tracer() as tracer:
            await end_spans(tracer)
            await anyio.sleep(10)
""",
    "a task group around the tracer is cancelled": """
async def main():
    async with anyio.create_task_group() as group:
        async def work():
            async with make_tracer() as tracer:
                await end_spans(tracer)
                await anyio.sleep(10)
        group.start_soon(work)
        await anyio.sleep(0.05)
        group.cancel_scope.cancel()
""",
    "main ends while a task shuts down": """
async def main():
    tracer = make_tracer()
    await end_spans(tracer)
    task = asyncio.create_task(tracer.shutdown())
    await asyncio.sleep(0.05)
""",
    "main is cancelled while it shuts down": """
async def main():
    task = asyncio.current_task()
    try:
        async with make_tracer() as tracer:
            await end_spans(tracer)
            asyncio.get_running_loop().call_later(0.05, task.cancel)
    except asyncio.CancelledError:
        pass
""",
}


@pytest.mark.parametrize("name", list(PROGRAMS))
async def test_a_cancelled_shutdown_still_drains_within_its_deadline(name: str) -> None:
    async with FaultServer(default=Delay(0.3)) as server:
        program = await run_program_async(HEAD + PROGRAMS[name] + "\nasyncio.run(main())\n", server.url)
        assert program.returncode == 0, program.stderr
        assert len(server.accepted_ids) == 20, program.stderr


async def test_an_anyio_scope_that_ends_before_the_shutdown_loses_nothing() -> None:
    async with FaultServer(default=Delay(0.2)) as server:
        with anyio.move_on_after(0.05):
            async with Tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
                ids = await end_spans(tracer, 20)
                await anyio.sleep(10)
        assert_complete(await within(5, tracer.shutdown(), "shutdown"), 20)
        assert_arrived_once(server, ids)


# ── deadlines ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_flush_never_blames_a_deadline_that_it_met() -> None:
    for _ in range(20):
        async with Tracer(service="shop", exporters=[MemoryExporter()]) as tracer:
            await end_spans(tracer, 3)
            try:
                receipt = await tracer.flush(timeout=0)
            except DeliveryTimeout as error:
                assert error.receipt.pending > 0, f"{error}"  # noqa: PT017
            else:
                assert_complete(receipt, 3)


class HangsOnClose:
    name = "hangs on close"

    async def export(self, batch: Any) -> ExportResult:
        return ExportResult.all_accepted(batch)

    async def aclose(self) -> None:
        await asyncio.Event().wait()


class IsDeaf:
    """Swallows cancellations."""

    name = "is deaf"

    async def export(self, batch: Any) -> ExportResult:
        ends = time.monotonic() + 4.0
        while time.monotonic() < ends:
            try:
                await asyncio.sleep(0.5)
            except asyncio.CancelledError:
                continue
        return ExportResult.try_again()

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("exporter", [HangsOnClose(), IsDeaf()], ids=lambda exporter: exporter.name)
async def test_an_exporter_that_does_not_let_go_does_not_stretch_the_shutdown(exporter: Any) -> None:
    began = time.monotonic()
    async with Tracer(service="shop", exporters=[exporter], delivery=QUICK, shutdown_timeout=0.2) as tracer:
        await end_spans(tracer, 3)
        await until(lambda: tracer.statistics().lanes[exporter.name].requests)
    assert time.monotonic() - began < patient(2.0)


async def test_retry_after_holds_although_a_later_answer_blocks_the_lane() -> None:
    async with FaultServer() as server:
        server.plan(Delay(0.05, Status(503, retry_after=1)), Delay(0.1, Status(401)))
        options = msgspec.structs.replace(QUICK, batch_spans=5, max_in_flight=2)
        async with Tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=options) as tracer:
            await end_spans(tracer, 10)
            await server.wait_for_requests(2)
            await until(lambda: tracer.statistics().lanes["otlp"].answers.get("http_401"))
            assert_complete(await within(5, tracer.flush(), "flush"), 10)
            times = [request.time for request in server.requests]
            assert times[2] - times[0] >= 1.0, f"asked again after {times[2] - times[0]} s"


# ── defects ─────────────────────────────────────────────────────────────────────────────────────────────────


class RaisesOnce:
    name = "raises once"

    def __init__(self, error: BaseException) -> None:
        self._errors = [error]

    async def export(self, batch: Any) -> ExportResult:
        if self._errors:
            raise self._errors.pop()
        return ExportResult.all_accepted(batch)

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        GeneratorExit(),
        BaseExceptionGroup("several", [GeneratorExit()]),
        StopIteration(),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_an_exporter_raises_means_try_again(error: BaseException) -> None:
    async with Tracer(service="shop", exporters=[RaisesOnce(error)], delivery=QUICK, shutdown_timeout=0.2) as tracer:
        await end_spans(tracer, 3)
        assert_complete(await within(2, tracer.flush(), "flush"), 3)


async def test_a_defect_in_a_lane_does_not_hold_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Tracer(service="shop", exporters=[MemoryExporter()], delivery=QUICK, shutdown_timeout=0.2) as tracer:
        await asyncio.sleep(0.01)
        Stumbles(monkeypatch, 100_000)
        async with Ticker() as ticker:
            await end_spans(tracer, 5)
            await asyncio.sleep(0.1)
        monkeypatch.undo()
        assert ticker.longest < 0.1, f"{ticker.longest} s"


async def test_flush_raises_on_a_defect_in_a_lane_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Tracer(service="shop", exporters=[MemoryExporter()], delivery=QUICK, shutdown_timeout=0.5) as tracer:
        await end_spans(tracer, 5)
        Stumbles(monkeypatch, 200_000)
        with pytest.raises(Exception, match=r".") as caught:
            await within(5, tracer.flush(timeout=4.0), "flush")
        assert not isinstance(caught.value, AssertionError), "flush hung"
        assert_balanced(tracer.receipt())
        assert tracer.receipt().pending == 5
        monkeypatch.undo()
        assert_complete(await within(5, tracer.flush(), "flush, once it is mended"), 5)


async def test_one_large_span_cannot_break_the_bound() -> None:
    async with FaultServer(default=Status(503)) as server:
        async with Tracer(
            service="shop",
            exporters=[OTLPExporter(server.url)],
            delivery=QUICK,
            capacity_bytes=128 * 1024,
            shutdown_timeout=0.1,
        ) as tracer:
            for _ in range(5):
                async with tracer.trace("large") as run:
                    run.set_outputs("x" * 200_000)
                await end_spans(tracer, 3)
            statistics, receipt = tracer.statistics(), tracer.receipt()
            assert_balanced(receipt)
            assert receipt.ended == 20
            assert statistics.held_bytes_peak <= 128 * 1024, f"{statistics.held_bytes_peak} bytes"


async def test_leaving_the_block_with_something_left_warns_once(capfd: pytest.CaptureFixture[str]) -> None:
    async with FaultServer(default=Hang()) as server:
        async with Tracer(service="shop", exporters=[OTLPExporter(server.url)], shutdown_timeout=0.2) as tracer:
            await end_spans(tracer, 5)
            capfd.readouterr()
        out, err = capfd.readouterr()
        assert (out + err).lower().count("warning") == 1, f"{out}{err}"


QUIET_PROGRAMS = {
    "a loop that is closed without being asked": """
tracer = make_tracer()
loop = asyncio.new_event_loop()
loop.run_until_complete(end_spans(tracer))
loop.close()
""",
    "tracing begins in a task that is cancelled at the end": """
tracer = make_tracer()

async def work():
    try:
        await asyncio.sleep(60)
    finally:
        await end_spans(tracer)

async def main():
    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)

asyncio.run(main())
""",
}


@pytest.mark.parametrize("name", list(QUIET_PROGRAMS))
async def test_a_loop_that_ends_over_the_lanes_says_nothing_about_them(name: str) -> None:
    async with FaultServer(default=Delay(0.1)) as server:
        program = await run_program_async(HEAD + QUIET_PROGRAMS[name], server.url)
        assert len(server.accepted_ids) == 20
        assert "was destroyed" not in program.stderr, program.stderr


async def test_a_slow_lane_does_not_hold_back_what_a_flush_of_the_others_says() -> None:
    hold = asyncio.Event()
    async with FaultServer(default=Hang(hold)) as slow, FaultServer(default=Accept()) as quick:
        exporters = [OTLPExporter(slow.url, name="slow"), OTLPExporter(quick.url, name="quick")]
        async with Tracer(service="shop", exporters=exporters, delivery=DeliveryOptions()) as tracer:
            await end_spans(tracer, 5)
            with pytest.raises(DeliveryTimeout) as caught:
                await tracer.flush(timeout=0.3)
            lanes = caught.value.receipt.lanes
            assert (lanes["slow"].pending, lanes["quick"].accepted) == (5, 5)
            hold.set()
            assert_complete(await within(5, tracer.flush(), "flush"), 5)
