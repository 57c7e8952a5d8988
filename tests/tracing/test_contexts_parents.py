"""Every component is the child of the one around it, however the tasks were started, and leaving restores
exactly."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from asynctrace.testing import assert_no_context_leaked

from .faulty import ForgetsToRestore, NeverRestores, OneScopeForAll
from .promises import promise
from .recording import Recording

pytestmark = pytest.mark.anyio

DEPTH = 50
SIBLINGS = 20
TASKS = 10_000

Work = Callable[[int], Awaitable[None]]


@promise(ForgetsToRestore, NeverRestores)
async def test_fifty_nested_components_form_a_chain_and_leaving_each_restores_the_one_around(subject: Any) -> None:
    async def nest(depth: int) -> None:
        before = subject.tracer.current_component()
        async with subject.tracer.trace_component(f"level {depth}") as component:
            assert subject.tracer.current_component() is component
            if depth + 1 < DEPTH:
                await nest(depth + 1)
            assert subject.tracer.current_component() is component
        assert subject.tracer.current_component() is before

    async with subject.tracer.trace("run"):
        await nest(0)
    parents = {span.name: span.parent_id for span in subject.spans}
    ids = {span.name: span.span_id for span in subject.spans}
    assert parents["level 0"] == ids["run"]
    for depth in range(1, DEPTH):
        assert parents[f"level {depth}"] == ids[f"level {depth - 1}"]


async def gather(work: Work) -> None:
    await asyncio.gather(*map(work, range(SIBLINGS)))


async def task_group(work: Work) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(SIBLINGS):
            group.create_task(work(number))


async def anyio_group(work: Work) -> None:
    async with anyio.create_task_group() as group:
        for number in range(SIBLINGS):
            group.start_soon(work, number)


async def create_task_with_context(work: Work) -> None:
    here = contextvars.copy_context()
    await asyncio.gather(*(asyncio.create_task(work(number), context=here.copy()) for number in range(SIBLINGS)))


async def eager_tasks(work: Work) -> None:
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks exist from Python 3.12 on")
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        await asyncio.gather(*(asyncio.create_task(work(number)) for number in range(SIBLINGS)))
    finally:
        loop.set_task_factory(None)


async def callbacks(work: Work) -> None:
    """Tasks that callbacks of the loop start, not the task itself."""
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []
    for number in range(SIBLINGS):
        loop.call_soon(lambda n=number: tasks.append(asyncio.ensure_future(work(n))))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.gather(*tasks)


WAYS = [gather, task_group, anyio_group, create_task_with_context, eager_tasks, callbacks]


@pytest.mark.parametrize("start", WAYS)
async def test_siblings_have_the_parent_they_were_started_in(start: Callable[[Work], Awaitable[None]]) -> None:
    await check_siblings(Recording(), start)


@pytest.mark.parametrize("start", WAYS)
async def test_siblings_with_a_wrong_parent_are_noticed(start: Callable[[Work], Awaitable[None]]) -> None:
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        await check_siblings(OneScopeForAll(), start)


async def check_siblings(subject: Any, start: Callable[[Work], Awaitable[None]]) -> None:
    async def work(number: int) -> None:
        async with subject.tracer.trace_component(f"sibling {number}") as sibling:
            await asyncio.sleep(0)
            assert subject.tracer.current_component() is sibling
            async with subject.tracer.trace_component(f"child {number}"):
                await asyncio.sleep(0.001 * (number % 3))
            assert subject.tracer.current_component() is sibling

    async with subject.tracer.trace("run"), subject.tracer.trace_component("parent") as parent:
        await start(work)
        assert subject.tracer.current_component() is parent
    spans = {span.name: span for span in subject.spans}
    for number in range(SIBLINGS):
        assert spans[f"sibling {number}"].parent_id == spans["parent"].span_id
        assert spans[f"child {number}"].parent_id == spans[f"sibling {number}"].span_id


@promise(OneScopeForAll, naive=False)
async def test_among_ten_thousand_concurrent_tasks_no_parent_is_wrong(subject: Any) -> None:
    gate = asyncio.Event()

    async def work(number: int) -> None:
        async with subject.tracer.trace_component(f"{number} a"):
            await gate.wait()
            async with subject.tracer.trace_component(f"{number} b"):
                await asyncio.sleep(0)
                async with subject.tracer.trace_component(f"{number} c"):
                    await asyncio.sleep(0)

    async with subject.tracer.trace("run"):
        tasks = [asyncio.create_task(work(number)) for number in range(TASKS)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks)
    ids = {span.name: span.span_id for span in subject.spans}
    assert len(ids) == len(subject.spans) == 3 * TASKS + 1
    above = {"a": "run", "b": "{} a", "c": "{} b"}
    wrong = [
        span.name
        for span in subject.spans
        if span.name != "run" and span.parent_id != ids[above[span.name[-1]].format(span.name[:-2])]
    ]
    assert wrong == []


async def test_a_task_that_outlives_its_parent_keeps_it() -> None:
    subject = Recording()
    go = asyncio.Event()

    async def work() -> None:
        await go.wait()
        async with subject.tracer.trace_component("late"):
            pass

    async with subject.tracer.trace("run") as run, subject.tracer.trace_component("parent") as parent:
        task = asyncio.create_task(work())
    go.set()
    await task
    late = subject.one("late")
    assert (late.parent_id, late.trace_id) == (parent.span_id, run.trace_id)


async def test_a_task_cancelled_before_its_first_step_has_no_span() -> None:
    subject = Recording()

    async def work() -> None:
        async with subject.tracer.trace_component("never"):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert subject.spans == ()


async def test_two_tracers_in_one_task_have_a_tree_each() -> None:
    one, two = Recording(), Recording()
    with assert_no_context_leaked():
        async with (
            one.tracer.trace_component("a"),
            two.tracer.trace_component("b"),
            one.tracer.trace_component("a.a"),
            two.tracer.trace_component("b.b"),
        ):
            pass
    assert one.one("a.a").parent_id == one.one("a").span_id
    assert two.one("b.b").parent_id == two.one("b").span_id
    assert two.one("b").parent_id == ""
    assert one.one("a").trace_id != two.one("b").trace_id
