"""One tracer on any event loop, on several, on none; and what becomes of its lanes when tasks are cancelled."""

# ruff: noqa: SIM117  (the outer block is the far side, the inner one the program)

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from asynctrace import MisuseError, Receipt, Tracer
from asynctrace.delivery import _driver
from asynctrace.exporters import MemoryExporter, OTLPExporter
from asynctrace.testing import Delay, FaultServer, Hang

from ..patience import patient
from .harness import (
    BROKEN,
    QUICK,
    MakeTracer,
    assert_arrived,
    assert_arrived_once,
    assert_balanced,
    assert_complete,
    end_spans,
    end_spans_sync,
    run_program,
    within,
)

# ── programs that end without a word ────────────────────────────────────────────────────────────────────────

HEAD = """
import asyncio, atexit, sys, threading
import {loop}
from asynctrace import Tracer
from asynctrace.exporters import OTLPExporter

class TracerThatDoesNotDrain(Tracer):
    def __init__(self, **options):
        super().__init__(shutdown_timeout=0.0, **options)

tracer = {tracer}(service="shop", exporters=[OTLPExporter(sys.argv[1])])

async def end_spans(n, name="span"):
    for i in range(n):
        async with tracer.trace(f"{{name}}-{{i}}"):
            pass

def end_spans_sync(n, name="span"):
    for i in range(n):
        with tracer.trace(f"{{name}}-{{i}}"):
            pass
"""

PROGRAMS = {
    "main ends right after tracing": """
async def main():
    await end_spans(20)

{loop}.run(main())
""",
    "main ends a while after tracing": """
async def main():
    await end_spans(20)
    await asyncio.sleep(0.1)

{loop}.run(main())
""",
    "tracing begins in a task that is cancelled at the end": """
async def work():
    try:
        await asyncio.sleep(60)
    finally:
        await end_spans(20)

async def main():
    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)

{loop}.run(main())
""",
    "a span is open in a task that is cancelled at the end": """
async def work():
    async with tracer.trace("cancelled"):
        await asyncio.sleep(60)

async def main():
    task = asyncio.create_task(work())
    await end_spans(19)
    await asyncio.sleep(0.01)

{loop}.run(main())
""",
    "main raises": """
async def main():
    await end_spans(20)
    raise SystemExit(0)

{loop}.run(main())
""",
    "two runs, one after the other": """
{loop}.run(end_spans(10, "first"))
{loop}.run(end_spans(10, "second"))
""",
    "a run, then plain code": """
{loop}.run(end_spans(10, "first"))
end_spans_sync(10, "second")
""",
    "plain code, then a run": """
end_spans_sync(10, "first")
{loop}.run(end_spans(10, "second"))
""",
    "plain code only": """
end_spans_sync(20)
""",
    "plain code in a thread": """
thread = threading.Thread(target=end_spans_sync, args=(20,))
thread.start()
thread.join()
""",
    "atexit": """
atexit.register(end_spans_sync, 20)
""",
    "atexit after a run": """
atexit.register(end_spans_sync, 10, "second")
{loop}.run(end_spans(10, "first"))
""",
    "sys.exit in plain code": """
end_spans_sync(20)
sys.exit(0)
""",
    "atexit with shutdown_sync": """
def leave():
    end_spans_sync(10, "second")
    receipt = tracer.shutdown_sync(5.0)
    assert receipt.complete, receipt
    assert receipt.accepted == 20, receipt

atexit.register(leave)
{loop}.run(end_spans(10, "first"))
""",
    "two loops in two threads": """
threads = [threading.Thread(target=lambda n=n: {loop}.run(end_spans(10, n))) for n in ("first", "second")]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
""",
    "a loop that is closed without being asked": """
loop = {loop}.new_event_loop()
loop.run_until_complete(end_spans(20))
loop.close()
""",
    "a loop that is stopped and never closed": """
loop = {loop}.new_event_loop()
loop.run_until_complete(end_spans(20))
""",
    "a daemon thread that still traces": """
import time
def work():
    while True:
        time.sleep(0.001)

threading.Thread(target=work, daemon=True).start()
end_spans_sync(20)
""",
}

LEAVES_A_LOOP_BEHIND = {
    "a loop that is closed without being asked",
    "a loop that is stopped and never closed",
    "tracing begins in a task that is cancelled at the end",
}
"""asyncio itself writes about these; nothing may be lost for it."""


def check_a_program_delivers(name: str, loop: str, tracer: str = "Tracer") -> None:
    with FaultServer.in_thread(default=Delay(0.1)) as server:
        source = (HEAD + PROGRAMS[name]).replace("{{", "{").replace("}}", "}")
        source = source.replace("{loop}", loop).replace("{tracer}", tracer)
        program = run_program(source, server.url)
        assert program.returncode == 0, program.stderr
        accepted = server.accepted_ids
        assert len(accepted) == 20, f"{len(accepted)} of 20 arrived\n{program.stderr}"
        assert accepted.total() == 20, "sent twice"
        if name not in LEAVES_A_LOOP_BEHIND:
            assert program.stderr == "", program.stderr


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("name", list(PROGRAMS))
def test_a_program_that_calls_nothing_at_its_end_delivers_everything(name: str, loop: str) -> None:
    if loop == "uvloop" and "{loop}" not in PROGRAMS[name]:
        pytest.skip("this program has no event loop, so uvloop changes nothing in it")
    check_a_program_delivers(name, loop)


def test_the_check_of_programs_notices_lanes_that_do_not_drain() -> None:
    with pytest.raises(AssertionError):
        check_a_program_delivers("main ends right after tracing", "asyncio", "TracerThatDoesNotDrain")


# ── loops, one after the other and at once ──────────────────────────────────────────────────────────────────


def check_two_runs_share_a_tracer(make_tracer: MakeTracer) -> None:
    with FaultServer.in_thread(default=Delay(0.02)) as server:
        tracer = make_tracer(service="shop", exporters=[OTLPExporter(server.url)])
        ids: set[str] = set()

        async def main(flush: bool) -> None:
            ids.update(await end_spans(tracer, 100))
            if flush:
                assert_balanced(await within(5, tracer.flush(), "flush"))
                assert_arrived(server, ids)

        for flush in (True, False, True, False):
            asyncio.run(main(flush))
        receipt = tracer.shutdown_sync(5.0)
        assert_complete(receipt, 400)
        assert_arrived_once(server, ids)


def test_one_tracer_serves_successive_runs() -> None:
    check_two_runs_share_a_tracer(Tracer)


def check_two_loops_share_a_tracer(make_tracer: MakeTracer) -> None:
    with FaultServer.in_thread(default=Delay(0.02)) as server:
        tracer = make_tracer(service="shop", exporters=[OTLPExporter(server.url)])
        ids: list[set[str]] = []
        errors: list[BaseException] = []
        both_run = threading.Barrier(2)

        async def main(name: str) -> None:
            mine: set[str] = set()
            for _ in range(5):
                await asyncio.to_thread(both_run.wait, 5)  # in step, so that both flush at the same time
                mine |= await end_spans(tracer, 50, name)
                assert_balanced(await within(5, tracer.flush(), f"flush from {name}"))
                assert_arrived(server, mine)
            ids.append(mine)

        def run(name: str) -> None:
            try:
                asyncio.run(main(name))
            except BaseException as error:
                both_run.abort()
                errors.append(error)

        _in_threads(lambda: run("first"), lambda: run("second"))
        assert not errors, errors
        receipt = tracer.shutdown_sync(5.0)
        assert_complete(receipt, 500)
        assert_arrived_once(server, set().union(*ids))


def _in_threads(*work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a thread hangs"


def test_one_tracer_serves_two_loops_at_once() -> None:
    check_two_loops_share_a_tracer(Tracer)


def test_a_loop_that_ends_hands_its_lanes_to_the_other() -> None:
    with FaultServer.in_thread(default=Delay(0.05)) as server:
        tracer = Tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK)
        started, ended = threading.Event(), threading.Event()
        ids: set[str] = set()

        async def short() -> None:
            await tracer.start()  # the lanes live here
            ids.update(await end_spans(tracer, 10, "short"))
            started.set()

        async def long() -> None:
            await asyncio.to_thread(started.wait, 5)
            ids.update(await end_spans(tracer, 10, "long"))
            await asyncio.to_thread(ended.wait, 5)
            ids.update(await end_spans(tracer, 10, "after"))
            assert_balanced(await within(5, tracer.flush(), "flush"))
            assert_arrived(server, ids)

        def run_short() -> None:
            asyncio.run(short())
            ended.set()

        _in_threads(run_short, lambda: asyncio.run(long()))
        assert_complete(tracer.shutdown_sync(5.0), 30)
        assert_arrived_once(server, ids)


# ── without a loop ──────────────────────────────────────────────────────────────────────────────────────────


def test_plain_code_flushes_and_shuts_down() -> None:
    with FaultServer.in_thread(default=Delay(0.05)) as server:
        with Tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
            ids = end_spans_sync(tracer, 20)
            assert_complete(tracer.flush_sync(5.0), 20)
            assert_arrived_once(server, ids)
            ids |= end_spans_sync(tracer, 5)
        assert_complete(tracer.receipt(), 25)
        assert_arrived_once(server, ids)


def test_plain_code_after_a_closed_loop_flushes() -> None:
    with FaultServer.in_thread() as server:
        tracer = Tracer(service="shop", exporters=[OTLPExporter(server.url)])
        ids = asyncio.run(end_spans(tracer, 5))
        ids |= end_spans_sync(tracer, 5)
        assert_complete(tracer.flush_sync(5.0), 10)
        ids |= asyncio.run(end_spans(tracer, 5))
        assert_complete(tracer.shutdown_sync(5.0), 15)
        assert_arrived_once(server, ids)


def test_flushing_from_a_thread_while_a_loop_runs_elsewhere() -> None:
    with FaultServer.in_thread(default=Delay(0.05)) as server:

        async def main() -> None:
            async with Tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
                ids = await end_spans(tracer, 10)
                assert_complete(await within(5, asyncio.to_thread(tracer.flush_sync, 4.0), "flush_sync"), 10)
                assert_arrived_once(server, ids)
                receipt = await within(5, asyncio.to_thread(tracer.shutdown_sync, 4.0), "shutdown_sync")
                assert_complete(receipt, 10)

        asyncio.run(main())


def test_flush_sync_keeps_its_deadline() -> None:
    with FaultServer.in_thread(default=Hang()) as server:
        tracer = Tracer(service="shop", exporters=[OTLPExporter(server.url)], journal=False)
        end_spans_sync(tracer, 3)
        began = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            tracer.flush_sync(0.2)
        assert time.monotonic() - began < patient(1.0)
        receipt: Receipt = caught.value.receipt  # type: ignore[attr-defined]
        assert receipt.pending == 3
        receipt = tracer.shutdown_sync(0.2)
        assert_balanced(receipt)
        assert receipt.dropped == 3


@pytest.mark.anyio
@pytest.mark.parametrize("call", ["flush_sync", "shutdown_sync", "start_sync", "__enter__"])
async def test_calls_that_would_dead_lock_a_running_loop_say_so(call: str) -> None:
    async with Tracer(service="shop", exporters=[MemoryExporter()]) as tracer:
        with pytest.raises(MisuseError, match=r"await|async with"):
            getattr(tracer, call)()
        await end_spans(tracer, 1)
        assert_complete(await tracer.flush(), 1)


# ── cancelled, dead, replaced ───────────────────────────────────────────────────────────────────────────────


def _cancel_all_others() -> int:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    return len(others)


def check_cancelling_every_task_loses_nothing(make_tracer: MakeTracer) -> None:
    """Also within a run that goes on: a test runner, a REPL, a framework's own shutdown."""
    with FaultServer.in_thread(default=Delay(0.1)) as server:

        async def main() -> None:
            async with make_tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
                ids = await end_spans(tracer, 20, "before")
                await asyncio.sleep(0)
                assert _cancel_all_others() >= 1, "the lanes are tasks of this loop"
                ids |= await end_spans(tracer, 20, "after")
                assert_complete(await within(5, tracer.flush(), "flush"), 40)
                for _ in range(3):
                    _cancel_all_others()
                    await asyncio.sleep(0.02)
                    ids |= await end_spans(tracer, 20, "again")
                assert_complete(await within(5, tracer.flush(), "flush"), 100)
                assert_arrived_once(server, ids)
                statistics = tracer.statistics().lanes["otlp"]
                assert statistics.interruptions >= 1, f"{statistics}"

        asyncio.run(main())


def test_a_foreign_cancellation_of_every_task_loses_nothing_and_is_counted() -> None:
    check_cancelling_every_task_loses_nothing(Tracer)


@pytest.mark.anyio
async def test_a_cancelled_flush_in_flight_is_no_second_request() -> None:
    async with FaultServer(default=Delay(0.2)) as server:
        async with Tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
            await end_spans(tracer, 5)
            tasks = [asyncio.create_task(tracer.flush()) for _ in range(5)]
            await server.wait_for_requests(1)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert_complete(await within(5, tracer.flush(), "flush"), 5)
            assert len(server.requests) == 1


class Stumbles:
    """Makes the lane's own code raise, `times` times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self._left = times
        self._launch_due = _driver.LaneDriver._launch_due
        monkeypatch.setattr(_driver.LaneDriver, "_launch_due", lambda driver, now: self.launch_due(driver, now))

    def launch_due(self, driver: Any, now: float) -> None:
        if self._left:
            self._left -= 1
            raise RuntimeError("a defect in a lane")
        self._launch_due(driver, now)


@pytest.mark.anyio
async def test_an_error_inside_a_lane_is_counted_and_delivery_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FaultServer() as server:
        async with Tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK) as tracer:
            ids = await end_spans(tracer, 5)
            assert_complete(await within(5, tracer.flush(), "flush"), 5)
            Stumbles(monkeypatch, 2)
            ids |= await end_spans(tracer, 5)
            assert_complete(await within(5, tracer.flush(), "flush"), 10)
            assert_arrived_once(server, ids)
            assert tracer.statistics().lanes["otlp"].interruptions >= 1


# ── the checks notice ───────────────────────────────────────────────────────────────────────────────────────


class DiesWhenCancelled(Tracer):
    """A lane that takes a cancellation for its end: what it had is forgotten."""

    async def flush(self, timeout: float | None = None, *, trace_id: str | None = None) -> Receipt:
        return self.receipt()


class OneLoopOnly(Tracer):
    """Bound to the loop that it saw first."""

    _loop: asyncio.AbstractEventLoop | None = None

    async def flush(self, timeout: float | None = None, *, trace_id: str | None = None) -> Receipt:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        assert self._loop is loop, "attached to a different loop"
        return await super().flush(timeout)


@pytest.mark.parametrize(
    ("check", "make_tracer"),
    [
        (check_two_runs_share_a_tracer, OneLoopOnly),
        (check_two_loops_share_a_tracer, OneLoopOnly),
        (check_cancelling_every_task_loses_nothing, DiesWhenCancelled),
    ],
)
def test_each_check_notices_a_double_that_breaks_its_promise(check: Any, make_tracer: MakeTracer) -> None:
    with pytest.raises(BROKEN):
        check(make_tracer)
