"""Odd orders: runs and regions left out of turn, two tracers inside one another, functions decorated while off."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Iterator
from typing import Any

import pytest

import asynctrace
from asynctrace import MisuseError, Tracer, WaitForRoom
from asynctrace.exporters import MemoryExporter
from asynctrace.testing import assert_no_context_leaked
from asynctrace.tracing import TraceIdRatio

from ..patience import patient
from .recording import Recording

pytestmark = pytest.mark.anyio


async def test_what_one_tracer_does_hides_nothing_of_another() -> None:
    one, two = Recording(), Recording()
    with one.tracer.trace("a") as a, one.tracer.trace_component("a.a") as inner, two.tracer.trace("b") as b:
        one.tracer.add_log("to a.a")
        two.tracer.add_log("to b")
        assert one.tracer.current_trace() is a
        assert one.tracer.current_component() is inner
        assert two.tracer.current_trace() is b
        assert two.tracer.current_component() is None
    assert [event.name for event in one.one("a.a").events] == ["to a.a"]
    assert [event.name for event in two.one("b").events] == ["to b"]


async def test_a_decorated_generator_function_is_still_a_generator_function() -> None:
    def steps() -> Iterator[int]:
        yield 1

    assert inspect.isgeneratorfunction(Recording().tracer.trace_component("x")(steps))


async def test_a_function_decorated_inside_an_unsampled_trace_keeps_its_name() -> None:
    subject = Recording(sampler=TraceIdRatio(0.5))
    for _ in range(30):
        with subject.tracer.trace_component("root"):

            @subject.tracer.trace_component("step", type="tool", attributes={"k": 1})
            def step() -> None: ...

        step()
    assert {span.name for span in subject.spans} == {"root", "step"}


async def test_a_function_decorated_after_a_shutdown_keeps_its_name() -> None:
    await asynctrace.configure(service="a", exporters=[]).shutdown()

    @asynctrace.trace_component("step")
    def step() -> None: ...

    memory = MemoryExporter()
    tracer = asynctrace.configure(service="a", exporters=[memory])
    step()
    await tracer.shutdown()
    assert [span.name for span in memory.spans] == ["step"]


@pytest.mark.parametrize("outer_kind", ["trace", "trace_component"])
async def test_a_run_left_after_the_scope_around_it_leaks_nothing(outer_kind: str) -> None:
    subject = Recording()

    def wrong_order() -> None:
        outer, inner = getattr(subject.tracer, outer_kind)("outer"), subject.tracer.trace("inner")
        outer.__enter__()
        inner.__enter__()
        outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)

    with assert_no_context_leaked():
        wrong_order()


async def test_one_suppressed_region_entered_twice_does_not_suppress_for_ever() -> None:
    region = asynctrace.suppress()
    with assert_no_context_leaked(), region:
        try:
            with region:
                pass
        except MisuseError:
            pass


async def test_waiting_for_room_does_not_delay_a_cancellation() -> None:
    from .test_endings_waiting import TEXT, full_tracer

    async with full_tracer(WaitForRoom(timeout=2.0)) as tracer:
        entered = asyncio.Event()

        async def work(tracer: Tracer = tracer) -> None:
            async with tracer.trace_component("step", attributes={"text": TEXT}):
                entered.set()
                await asyncio.sleep(60)

        task: asyncio.Task[Any] = asyncio.create_task(work())
        await entered.wait()
        began = time.perf_counter()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.perf_counter() - began < patient(0.5)
