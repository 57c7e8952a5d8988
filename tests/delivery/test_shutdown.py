"""`shutdown()`: stop accepting, end what is open, drain, close; once, for one tracer or for all."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import pytest

import asynctrace
from asynctrace import DeliveryOptions, ExportResult, Receipt, Tracer
from asynctrace.exporters import MemoryExporter, OTLPExporter
from asynctrace.testing import Accept, Delay, FaultServer, Hang

from ..patience import patient
from . import doubles
from .harness import (
    BROKEN,
    QUICK,
    Broken,
    MakeTracer,
    assert_arrived_once,
    assert_balanced,
    assert_complete,
    end_spans,
    run_program_async,
    within,
)

pytestmark = pytest.mark.anyio


# ── one tracer, all tracers ─────────────────────────────────────────────────────────────────────────────────


PATIENT = DeliveryOptions(linger=60.0)
"""Nothing is sent before somebody asks for it."""


async def check_shutdown_of_all_is_concurrent(make_tracer: MakeTracer) -> None:
    hold = asyncio.Event()
    async with FaultServer(default=Hang(hold)) as first, FaultServer(default=Hang(hold)) as second:
        tracers = [
            make_tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=PATIENT)
            for server in (first, second)
        ]
        ids = [await _start_and_end(tracer, 10) for tracer in tracers]
        closing = asyncio.create_task(asynctrace.shutdown())
        try:
            await within(5, first.wait_for_requests(1, 4.0), "the first tracer's request")
            await within(5, second.wait_for_requests(1, 1.0), "the second's, while the first one's hangs")
        except TimeoutError as error:
            raise Broken(str(error)) from None
        finally:
            hold.set()
            await within(10, closing, "shutdown of all")
        for server, wanted, tracer in zip((first, second), ids, tracers, strict=True):
            assert_arrived_once(server, wanted)
            assert_complete(tracer.receipt(), 10)
            assert (await end_spans(tracer, 1)) is not None
            assert tracer.receipt().dropped_by_reason == {"after_shutdown": 1}


async def _start_and_end(tracer: Tracer, n: int) -> set[str]:
    await tracer.start()
    return await end_spans(tracer, n)


async def test_shutdown_of_the_module_closes_every_tracer_at_the_same_time() -> None:
    await check_shutdown_of_all_is_concurrent(Tracer)


async def test_two_tracers_with_equal_configuration_share_nothing() -> None:
    async with FaultServer() as server:
        exporter_of_a, exporter_of_b = OTLPExporter(server.url), OTLPExporter(server.url)
        async with (
            Tracer(service="shop", exporters=[exporter_of_a]) as a,
            Tracer(service="shop", exporters=[exporter_of_b]) as b,
        ):
            ids_of_a, ids_of_b = await end_spans(a, 5), await end_spans(b, 7)
            assert_complete(await within(5, a.shutdown(), "shutdown of a"), 5)
            assert b.receipt().ended == 7
            ids_of_b |= await end_spans(b, 1)
            assert_complete(await within(5, b.flush(), "flush of b"), 8)
            assert_arrived_once(server, ids_of_a | ids_of_b)
            assert a.receipt().ended == 5


# ── again, before, after ────────────────────────────────────────────────────────────────────────────────────


async def check_shutdown_twice_is_one_shutdown(make_tracer: MakeTracer) -> None:
    async with FaultServer(default=Delay(0.2)) as server:
        tracer = make_tracer(service="shop", exporters=[OTLPExporter(server.url)])
        ids = await _start_and_end(tracer, 10)
        receipts = await within(
            10, asyncio.gather(tracer.shutdown(), tracer.shutdown(), tracer.shutdown()), "shutdowns"
        )
        receipts.append(await within(0.5, tracer.shutdown(), "one more shutdown"))
        assert all(receipt == receipts[0] for receipt in receipts), f"{receipts}"
        assert_complete(receipts[0], 10)
        assert_arrived_once(server, ids)
        assert len(server.requests) == 1


async def test_shutdown_twice_and_at_once_gives_the_same_receipt() -> None:
    await check_shutdown_twice_is_one_shutdown(Tracer)


async def test_shutdown_before_start_is_complete_at_once() -> None:
    async with FaultServer(default=Hang()) as server:
        tracer = Tracer(service="shop", exporters=[OTLPExporter(server.url)])
        assert_complete(await within(1, tracer.shutdown(), "shutdown"), 0)
        assert_complete(await within(1, tracer.shutdown(), "shutdown again"), 0)


async def test_shutdown_of_a_tracer_that_never_sent_is_complete_at_once() -> None:
    async with FaultServer(default=Hang()) as server:
        tracer = Tracer(service="shop", exporters=[OTLPExporter(server.url)])
        await tracer.start()
        assert_complete(await within(1, tracer.shutdown(), "shutdown"), 0)
        assert server.requests == []


async def test_spans_of_a_tracer_that_was_never_started_are_delivered_by_shutdown() -> None:
    async with FaultServer() as server:
        tracer = Tracer(service="shop", exporters=[OTLPExporter(server.url)])
        ids = await end_spans(tracer, 3)
        assert_complete(await within(5, tracer.shutdown(), "shutdown"), 3)
        assert_arrived_once(server, ids)


async def check_a_cancelled_shutdown_goes_on(make_tracer: MakeTracer) -> None:
    async with FaultServer(default=Delay(0.4)) as server:
        tracer = make_tracer(service="shop", exporters=[OTLPExporter(server.url)])
        ids = await _start_and_end(tracer, 10)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await tracer.shutdown()
        receipt = await within(10, tracer.shutdown(), "the second shutdown")
        assert_balanced(receipt)
        assert_arrived_once(server, ids)
        assert_complete(receipt, 10)


async def test_a_shutdown_whose_caller_was_cancelled_is_finished_by_the_next() -> None:
    await check_a_cancelled_shutdown_goes_on(Tracer)


async def test_spans_after_shutdown_are_counted_and_not_recorded(capfd: pytest.CaptureFixture[str]) -> None:
    async with FaultServer() as server:
        options: dict[str, Any] = {"service": "shop", "delivery": QUICK}
        tracer = Tracer(exporters=[OTLPExporter(server.url)], **options)
        before = await _start_and_end(tracer, 2)
        await tracer.shutdown()
        capfd.readouterr()
        await end_spans(tracer, 5)
        receipt = await within(0.5, tracer.flush(), "flush after shutdown")
        assert_balanced(receipt)
        assert (receipt.accepted, receipt.dropped) == (2, 5)
        assert receipt.dropped_by_reason == {"after_shutdown": 5}
        assert_arrived_once(server, before)
        out, err = capfd.readouterr()
        assert (out + err).count("after_shutdown") == 1, f"not one line:\n{out}{err}"

        async with Tracer(exporters=[OTLPExporter(server.url)], **options) as heir:
            after = await end_spans(heir, 3)
            assert_complete(await within(5, heir.flush(), "flush of the heir"), 3)
        assert_arrived_once(server, before | after)


# ── what is open ────────────────────────────────────────────────────────────────────────────────────────────


async def check_spans_ending_during_shutdown_are_delivered(make_tracer: MakeTracer) -> None:
    async with FaultServer() as server:
        tracer = make_tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK)
        await tracer.start()
        entered, leave = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            async with tracer.trace("request"), tracer.trace_component("slow"):
                entered.set()
                await leave.wait()

        task = asyncio.create_task(work())
        await entered.wait()
        closing = asyncio.create_task(tracer.shutdown(timeout=5.0))
        await asyncio.sleep(0.1)
        leave.set()
        receipt = await within(8, closing, "shutdown")
        await task
        assert {span.name: span.ending for span in server.spans} == {"slow": "ok", "request": "ok"}
        assert_complete(receipt, 2)


async def test_a_span_that_ends_while_shutdown_waits_is_delivered_as_it_ended() -> None:
    await check_spans_ending_during_shutdown_are_delivered(Tracer)


async def check_open_spans_are_exported_incomplete(make_tracer: MakeTracer) -> None:
    async with FaultServer() as server:
        tracer = make_tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK)
        await tracer.start()
        run = tracer.trace("request")
        await run.__aenter__()
        components = [tracer.trace_component(f"depth-{i}", inputs={"i": i}) for i in range(3)]
        for component in components:
            await component.__aenter__()
        receipt = await within(5, tracer.shutdown(timeout=0.5), "shutdown")
        for component in reversed(components):
            await component.__aexit__(None, None, None)
        await run.__aexit__(None, None, None)
        assert [span.name for span in server.spans] == ["depth-2", "depth-1", "depth-0", "request"]
        assert {span.ending for span in server.spans} == {"incomplete"}
        assert server.spans[1].attributes["input.value"] == '{"i":1}'
        assert_complete(receipt, 4)
        assert_balanced(tracer.receipt())
        assert len(server.spans) == 4


async def test_spans_still_open_at_the_deadline_are_exported_incomplete_deepest_first() -> None:
    await check_open_spans_are_exported_incomplete(Tracer)


class NotesTheOrder:
    """An exporter that writes down what happens to it."""

    name = "notes"

    def __init__(self) -> None:
        self.happened: list[str] = []

    async def export(self, batch: Any) -> ExportResult:
        await asyncio.sleep(0)
        self.happened += [span.name for span in batch.spans()]
        return ExportResult.all_accepted(batch)

    async def aclose(self) -> None:
        self.happened.append("closed")


async def check_the_order_of_shutdown(make_tracer: MakeTracer) -> None:
    notes = NotesTheOrder()
    tracer = make_tracer(service="shop", exporters=[notes], delivery=QUICK)
    await tracer.start()
    ended = [f"ended-{i}" for i in range(3)]
    for name in ended:
        async with tracer.trace(name):
            pass
    run = tracer.trace("outer")
    await run.__aenter__()
    inner = tracer.trace_component("inner")
    await inner.__aenter__()
    await within(5, tracer.shutdown(timeout=0.3), "shutdown")
    await end_spans(tracer, 1, "too-late")
    await inner.__aexit__(None, None, None)
    await run.__aexit__(None, None, None)
    assert notes.happened == [*ended, "inner", "outer", "closed"]


async def test_shutdown_stops_then_ends_then_drains_then_closes() -> None:
    await check_the_order_of_shutdown(Tracer)


# ── endings ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_span_ends_once_and_the_second_end_is_counted() -> None:
    memory = MemoryExporter()
    async with Tracer(service="shop", exporters=[memory]) as tracer:
        component = tracer.trace_component("once")
        await component.__aenter__()
        component.end()
        component.end()
        await component.__aexit__(None, None, None)
        assert_complete(await tracer.flush(), 1)
        assert [span.name for span in memory.spans] == ["once"]
        assert "end" in repr(tracer.statistics())


async def test_a_span_whose_handle_is_collected_is_exported_abandoned() -> None:
    memory = MemoryExporter()
    async with Tracer(service="shop", exporters=[memory]) as tracer:

        async def forget() -> None:
            await tracer.trace_component("forgotten").__aenter__()

        await asyncio.create_task(forget())  # a context of its own, which goes away with it
        await asyncio.sleep(0)  # the loop lets go of the task's context
        gc.collect()
        assert_complete(await tracer.flush(), 1)
        assert [(span.name, span.ending) for span in memory.spans] == [("forgotten", "abandoned")]


async def test_ending_one_run_leaves_every_other_run_alone() -> None:
    memory = MemoryExporter()
    async with Tracer(service="shop", exporters=[memory]) as tracer:
        inside, leave = asyncio.Event(), asyncio.Event()

        async def other() -> None:
            async with tracer.trace("same name", session_id="B") as run:
                async with tracer.trace_component("part"):
                    inside.set()
                    await leave.wait()
                run.set_outputs("B")

        async with tracer.trace("same name", session_id="A"):
            task = asyncio.create_task(other())  # started inside A
            await inside.wait()
        assert_complete(await tracer.flush(), 1)
        assert [span.attributes["session.id"] for span in memory.spans] == ["A"]
        leave.set()
        await task
        await tracer.flush()
        roots = [span for span in memory.spans if span.name == "same name"]
        assert [(span.attributes["session.id"], span.ending) for span in roots] == [("A", "ok"), ("B", "ok")]
        assert roots[1].attributes["output.value"] == "B"


# ── shutdown has a deadline ─────────────────────────────────────────────────────────────────────────────────


async def check_leaving_the_block_never_raises_and_never_hangs(make_tracer: MakeTracer) -> None:
    async with FaultServer(default=Hang()) as server:
        began = time.monotonic()
        async with make_tracer(service="shop", exporters=[OTLPExporter(server.url)], shutdown_timeout=0.3) as tracer:
            await end_spans(tracer, 5)
        assert time.monotonic() - began < patient(3.0)
        receipt: Receipt = tracer.receipt()
        assert_balanced(receipt)
        assert receipt.ended == 5
        assert receipt.accepted == 0
        assert not receipt.complete


async def test_leaving_the_block_with_a_hung_backend_is_bounded_and_says_what_is_left() -> None:
    await check_leaving_the_block_never_raises_and_never_hangs(Tracer)


async def test_an_error_in_the_block_is_raised_unchanged_and_everything_arrives() -> None:
    error = RuntimeError("mine")
    async with FaultServer(default=Accept()) as server:

        async def fail() -> None:
            async with Tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
                await end_spans(tracer, 5)
                raise error

        with pytest.raises(RuntimeError) as caught:
            await fail()
        assert caught.value is error
        assert len(server.accepted_ids) == 5


# ── ways to end a program ───────────────────────────────────────────────────────────────────────────────────

PROGRAM = """
import asyncio, os, sys, signal
from asynctrace import Tracer
from asynctrace.exporters import OTLPExporter

async def main():
    async with Tracer(service="shop", exporters=[OTLPExporter(sys.argv[1])]) as tracer:
        for i in range(20):
            async with tracer.trace(f"span-{i}"):
                pass
        {ending}

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("return", 0),
        ("sys.exit(3)", 3),
        ("raise ValueError('unhandled')", 1),
        ("raise KeyboardInterrupt", -2),
        ("os.kill(os.getpid(), signal.SIGINT); await asyncio.sleep(10)", -2),
    ],
)
async def test_however_a_program_leaves_the_block_its_spans_arrive(ending: str, code: int) -> None:
    async with FaultServer(default=Delay(0.1)) as server:
        program = await run_program_async(PROGRAM.replace("{ending}", ending), server.url)
        assert program.returncode == code, program.stderr
        assert len(server.accepted_ids) == 20, program.stderr
        assert "never retrieved" not in program.stderr
        assert "was destroyed" not in program.stderr


# ── the checks notice ───────────────────────────────────────────────────────────────────────────────────────


class ShutdownOneAfterTheOther(Tracer):
    """Tracers that wait for one another."""

    _turn: asyncio.Lock | None = None

    async def _shutdown(self, timeout: float | None, patience: float | None) -> Receipt:
        cls = type(self)
        cls._turn = cls._turn or asyncio.Lock()
        async with cls._turn:
            return await super()._shutdown(timeout, patience)


class ShutdownCutsAtOnce(Tracer):
    """No patience for what is still running."""

    async def shutdown(self, timeout: float | None = None) -> Receipt:
        self._cut_open()
        return await super().shutdown(timeout)

    def _cut_open(self) -> None:
        for component in list(self._open):
            component._cut()


class ShutdownSaysNothingOfTheLoss(doubles.BooksCallEverythingAccepted):
    pass


@pytest.mark.parametrize(
    ("check", "make_tracer"),
    [
        (check_shutdown_of_all_is_concurrent, ShutdownOneAfterTheOther),
        (check_shutdown_twice_is_one_shutdown, doubles.ShutdownRunsAgain),
        (check_shutdown_twice_is_one_shutdown, doubles.ShutdownDoesNotDrain),
        (check_a_cancelled_shutdown_goes_on, doubles.ShutdownDoesNotDrain),
        (check_spans_ending_during_shutdown_are_delivered, ShutdownCutsAtOnce),
        (check_open_spans_are_exported_incomplete, doubles.ShutdownForgetsOpenSpans),
        (check_the_order_of_shutdown, doubles.ShutdownForgetsOpenSpans),
        (check_the_order_of_shutdown, doubles.ShutdownClosesFirst),
        (check_leaving_the_block_never_raises_and_never_hangs, ShutdownSaysNothingOfTheLoss),
    ],
)
async def test_each_check_notices_a_double_that_breaks_its_promise(check: Any, make_tracer: MakeTracer) -> None:
    with pytest.raises(BROKEN):
        await check(make_tracer)
