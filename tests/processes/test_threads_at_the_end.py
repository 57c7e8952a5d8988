"""Threads and the end: of a run, of a component, of the program. What they trace arrives once, under the right parent."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import pytest

import asynctrace
from asynctrace import Span, Tracer
from asynctrace.exporters import OTLPExporter
from asynctrace.processes import patch_threads
from asynctrace.testing import Delay, FaultServer, assert_no_context_leaked, assert_no_span_left_open, capture_spans

from ..delivery.harness import run_program
from . import wrong_binds
from .doors import LOOPS, PATIENCE, Carry, plainly, run_on

# A thread that is still running when the program ends --------------------------------------------------------------------

DAEMON = """
import json, sys, threading
import asynctrace
from asynctrace import Tracer
from asynctrace.exporters import OTLPExporter
from asynctrace.processes import patch_threads

tracer = Tracer(service="shop", exporters=[OTLPExporter(sys.argv[1])], journal=False)
carry = {carry}
enough, for_ever = threading.Event(), threading.Event()

def work():
    for number in range(20):
        with tracer.trace_component(f"in daemon {{number}}"):
            pass
    with tracer.trace_component("open in daemon"):
        enough.set()
        for_ever.wait()

with tracer.trace("run"), tracer.trace_component("here") as here:
    threading.Thread(target=carry(work), daemon=True).start()
    enough.wait(30)
print(here.span_id)
"""
PATCHED_DAEMON = DAEMON.replace("carry = {carry}", "patch_threads()\ncarry = lambda function: function")


def check_a_daemon_thread_at_exit(source: str) -> None:
    with FaultServer.in_thread(default=Delay(0.05)) as server:
        program = run_program(source, server.url, timeout=2 * PATIENCE)
        assert (program.returncode, program.stderr) == (0, "")
        here = program.stdout.strip()
        spans = {span.name: span for span in server.spans}
        assert server.accepted_ids.total() == len(server.spans) == len(spans) == 23
        inside = [span for name, span in spans.items() if "in daemon" in name]
        assert [span.parent_id for span in inside] == [here] * 21
        assert spans["open in daemon"].ending == "incomplete"


@pytest.mark.parametrize("source", [DAEMON.format(carry="asynctrace.bind"), PATCHED_DAEMON], ids=["bound", "patched"])
def test_a_daemon_thread_that_still_runs_at_exit_has_its_spans_delivered_below_their_parent(source: str) -> None:
    check_a_daemon_thread_at_exit(source.replace("{{", "{").replace("}}", "}"))


def test_a_daemon_thread_without_its_parent_is_noticed() -> None:
    with pytest.raises(AssertionError):
        check_a_daemon_thread_at_exit(DAEMON.format(carry="(lambda function: function)"))


# A thread that outlives its run ------------------------------------------------------------------------------------------


async def check_a_thread_outlives_its_run(carry: Carry, is_patched: bool = False) -> None:
    """What it opens after the run has ended keeps the parent, and the run's session; the thread next to it has none."""
    async with capture_spans() as captured:
        tracer = captured.tracer
        run_has_ended, late_has_ended = threading.Event(), threading.Event()

        def work() -> None:
            with tracer.trace_component("early"):
                pass
            run_has_ended.wait(PATIENCE)
            with tracer.trace_component("late"), tracer.trace_component("below late"):
                pass
            late_has_ended.set()

        async with tracer.trace("run", session_id="s-7"), tracer.trace_component("here") as here:
            thread = threading.Thread(target=carry(work))
            thread.start()
        run_has_ended.set()
        async with tracer.trace("next"):
            await asyncio.to_thread(thread.join, PATIENCE)
        assert late_has_ended.is_set()
        await captured.flush()
        late = captured.find("late")
        assert captured.find("early").parent_id == late.parent_id == here.span_id
        assert late.trace_id == captured.find("run").trace_id
        assert late.attributes["session.id"] == "s-7"
        assert late.end_ns >= late.start_ns >= captured.find("run").end_ns
        assert captured.find("below late").parent_id == late.span_id
        assert_no_span_left_open(tracer)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_thread_that_outlives_its_run_keeps_its_parent(loop: str) -> None:
    run_on(loop, lambda: check_a_thread_outlives_its_run(asynctrace.bind))


def test_a_patched_thread_that_outlives_its_run_keeps_its_parent() -> None:
    with patch_threads():
        run_on("asyncio", lambda: check_a_thread_outlives_its_run(plainly))


@pytest.mark.parametrize("carry", [plainly, wrong_binds.binds_at_the_call, wrong_binds.carries_the_run_only])
def test_a_late_component_without_its_parent_is_noticed(carry: Carry) -> None:
    with pytest.raises((AssertionError, KeyError)):
        run_on("asyncio", lambda: check_a_thread_outlives_its_run(carry))


# A component that ends in another thread -----------------------------------------------------------------------------------


async def check_a_component_ends_in_another_thread(end: Any) -> None:
    """It ends once, wherever that is. In a thread of its own nothing else becomes current by that; in a bound one, and here,
    what was around it is current again."""
    async with capture_spans() as captured:
        tracer = captured.tracer

        def unbound(component: Any) -> None:
            with assert_no_context_leaked(), tracer.trace_component("unbound") as mine:
                end(component)
                assert tracer.current_component() is mine

        def bound(component: Any) -> None:
            end(component)
            with tracer.trace_component("bound"):
                pass

        with ThreadPoolExecutor(1) as pool:
            for work in (lambda: unbound, lambda: asynctrace.bind(bound)):
                async with tracer.trace_component("outer") as outer:
                    component = tracer.trace_component("handed over").start()
                    await asyncio.wrap_future(pool.submit(work(), component))
                    component.end()  # counted, and not a second record
                    assert tracer.current_component() is outer
                await asyncio.wrap_future(pool.submit(_nothing_is_current))
        await captured.flush()
        handed_over, outers = captured.by_name["handed over"], captured.by_name["outer"]
        assert [span.parent_id for span in handed_over] == [span.span_id for span in outers]
        assert [span.ending for span in handed_over] == ["ok", "ok"]
        assert captured.find("unbound").parent_id == ""
        assert captured.find("bound").parent_id == outers[1].span_id
        assert tracer.statistics().late_calls == {"end": 2}


def _nothing_is_current() -> None:
    assert asynctrace.current_component() is None
    assert asynctrace.current_trace() is None


def end(component: Any) -> None:
    component.end()


def leave(component: Any) -> None:
    component.__exit__(None, None, None)


@pytest.mark.parametrize("how", [end, leave])
def test_a_component_may_be_ended_by_another_thread(how: Any) -> None:
    run_on("asyncio", lambda: check_a_component_ends_in_another_thread(how))


def test_a_component_that_is_not_ended_there_is_noticed() -> None:
    with pytest.raises(AssertionError):
        run_on("asyncio", lambda: check_a_component_ends_in_another_thread(lambda component: None))


def check_one_component_is_ended_once_by_many(make: Any, rounds: int = 200, threads: int = 4) -> None:
    with capture_spans() as captured:
        together = threading.Barrier(threads)

        def race() -> None:
            for component in components:
                together.wait(PATIENCE)
                component.end()

        components = [make(captured.tracer, number) for number in range(rounds)]
        racing = [threading.Thread(target=race) for _ in range(threads)]
        for thread in racing:
            thread.start()
        for thread in racing:
            thread.join(PATIENCE)
        assert Counter(span.name for span in captured.spans) == {f"of all {number}": 1 for number in range(rounds)}
        assert captured.tracer.statistics().late_calls == {"end": rounds * (threads - 1)}


def test_a_component_that_many_threads_end_at_once_ends_once() -> None:
    check_one_component_is_ended_once_by_many(lambda tracer, number: tracer.trace_component(f"of all {number}").start())


class EndsEachTime:
    """Two that end one component both find it open."""

    def __init__(self, tracer: Tracer, number: int) -> None:
        self._tracer, self._name = tracer, f"of all {number}"

    def end(self) -> None:
        self._tracer.trace_component(self._name).start().end()


def test_a_component_that_ends_twice_is_noticed() -> None:
    with pytest.raises(AssertionError):
        check_one_component_is_ended_once_by_many(EndsEachTime, rounds=3)


# Everything at once ------------------------------------------------------------------------------------------------------


async def check_threads_and_tasks_together(carry: Carry, threads: int = 16, tasks: int = 200, steps: int = 6) -> None:
    """Threads and tasks, each with runs of its own, hand work to the same pools in every way, at random. What the server
    took over is exactly what they say they made: the same ids, parents, traces and sessions."""
    made: list[tuple[str, str, str, str]] = []
    errors: list[BaseException] = []
    with FaultServer.in_thread(default=Delay(0.01)) as server:
        async with Tracer(service="shop", exporters=[OTLPExporter(server.url)], journal=False) as tracer:
            loop = asyncio.get_running_loop()
            limiter = anyio.CapacityLimiter(8)

            def note(component: Any, parent_id: str, session: str) -> None:
                made.append((component.span_id, parent_id, component.trace_id, session))

            def work(parent_id: str, session: str, depth: int) -> None:
                with tracer.trace_component("work") as here:
                    note(here, parent_id, session)
                    if depth:
                        inner.submit(carry(work), here.span_id, session, depth - 1).result(PATIENCE)

            async def in_loop(parent_id: str, session: str) -> None:
                async with tracer.trace_component("in loop") as here:
                    note(here, parent_id, session)
                    await asyncio.to_thread(work, here.span_id, session, 0)

            async def one_step(chance: random.Random, parent_id: str, session: str) -> None:
                way = chance.randrange(5)
                if way == 0:
                    await asyncio.to_thread(work, parent_id, session, 1)
                elif way == 1:
                    await anyio.to_thread.run_sync(work, parent_id, session, 0, limiter=limiter)
                elif way == 2:
                    await loop.run_in_executor(pool, carry(work), parent_id, session, 1)
                elif way == 3:
                    await asyncio.create_task(in_loop(parent_id, session))
                else:
                    thread = threading.Thread(target=carry(work), args=(parent_id, session, 0))
                    thread.start()
                    await asyncio.to_thread(thread.join, PATIENCE)

            async def task(number: int) -> None:
                chance, session = random.Random(number), f"task {number}"
                async with tracer.trace(session, session_id=session) as run:
                    note(run, "", session)
                    async with tracer.trace_component("here") as here:
                        note(here, run.span_id, session)
                        for _ in range(chance.randrange(1, steps)):
                            await one_step(chance, here.span_id, session)

            def in_thread(number: int) -> None:
                chance, session = random.Random(-number), f"thread {number}"
                try:
                    for _ in range(steps):
                        with tracer.trace(session, session_id=session) as run:
                            note(run, "", session)
                            if chance.random() < 0.5:
                                pool.submit(carry(work), run.span_id, session, 1).result(PATIENCE)
                            else:
                                asyncio.run_coroutine_threadsafe(in_loop(run.span_id, session), loop).result(PATIENCE)
                except BaseException as error:
                    errors.append(error)

            with ThreadPoolExecutor(8) as pool, ThreadPoolExecutor(8) as inner:
                started = [threading.Thread(target=in_thread, args=(number,)) for number in range(threads)]
                for thread in started:
                    thread.start()
                await asyncio.gather(*(task(number) for number in range(tasks)))
                for thread in started:
                    await asyncio.to_thread(thread.join, PATIENCE)
            assert not errors, errors
            receipt = await tracer.flush(PATIENCE)
        assert (receipt.ended, receipt.accepted) == (len(made), len(made))
        assert Counter(map(_place, server.spans)) == Counter(made)
        assert len({span_id for span_id, *_ in made}) == len(made)


def _place(span: Span) -> tuple[str, str, str, str]:
    return span.span_id, span.parent_id, span.trace_id, str(span.attributes["session.id"])


@pytest.mark.parametrize("loop", LOOPS)
def test_16_threads_and_200_tasks_have_exact_parents_at_the_server(loop: str) -> None:
    run_on(loop, lambda: check_threads_and_tasks_together(asynctrace.bind))


def test_16_patched_threads_and_200_tasks_have_exact_parents_at_the_server() -> None:
    with patch_threads():
        run_on("asyncio", lambda: check_threads_and_tasks_together(plainly))


@pytest.mark.parametrize("carry", [plainly, wrong_binds.binds_to_the_latest])
def test_parents_that_mix_are_noticed_at_the_server(carry: Carry) -> None:
    with pytest.raises((AssertionError, KeyError)):
        run_on("asyncio", lambda: check_threads_and_tasks_together(carry, threads=4, tasks=20))
