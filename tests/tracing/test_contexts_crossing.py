"""Over a border: entered here and left there, threads, callbacks, executors, code without a loop."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import anyio.to_thread
import pytest

from asynctrace.testing import assert_no_context_leaked

from .faulty import OneScopeForAll, ResetsByToken
from .promises import promise
from .recording import Recording

pytestmark = pytest.mark.anyio


# Entered in one task, left in another ----------------------------------------------------------------------


@promise(ResetsByToken)
async def test_a_component_entered_in_one_task_may_be_left_in_another(subject: Any) -> None:
    component = subject.tracer.trace_component("fixture")
    await asyncio.create_task(component.__aenter__())
    await asyncio.create_task(component.__aexit__(None, None, None))
    assert subject.one("fixture").ending == "ok"
    assert subject.tracer.current_component() is None


@promise(ResetsByToken)
async def test_leaving_in_another_task_does_not_change_what_is_current_there(subject: Any) -> None:
    component = subject.tracer.trace_component("fixture")
    await asyncio.create_task(component.__aenter__())
    async with subject.tracer.trace_component("mine") as mine:
        await component.__aexit__(None, None, None)
        assert subject.tracer.current_component() is mine
    assert subject.one("mine").parent_id == ""


@promise(ResetsByToken)
async def test_a_run_may_be_kept_open_by_a_lifespan_in_another_task(subject: Any) -> None:
    started, stop = asyncio.Event(), asyncio.Event()
    async with AsyncExitStack() as stack:

        async def lifespan() -> None:
            await stack.enter_async_context(subject.tracer.trace("service"))
            await stack.enter_async_context(subject.tracer.trace_component("up"))
            started.set()
            await stop.wait()

        task = asyncio.create_task(lifespan())
        await started.wait()
        stop.set()
        await task
    assert [span.name for span in subject.spans] == ["up", "service"]
    assert subject.one("up").parent_id == subject.one("service").span_id


async def test_components_left_in_the_wrong_order_end_all_and_leak_nothing() -> None:
    subject = Recording()
    with assert_no_context_leaked():
        outer, inner = subject.tracer.trace_component("outer"), subject.tracer.trace_component("inner")
        outer.__enter__()
        inner.__enter__()
        outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)
    assert sorted(span.name for span in subject.spans) == ["inner", "outer"]
    with subject.tracer.trace_component("next"):
        pass
    assert subject.one("next").parent_id == ""


async def test_a_run_left_before_its_component_leaks_nothing() -> None:
    subject = Recording()
    with assert_no_context_leaked():
        run, component = subject.tracer.trace("run"), subject.tracer.trace_component("inside")
        run.__enter__()
        component.__enter__()
        run.__exit__(None, None, None)
        component.__exit__(None, None, None)


# Threads ---------------------------------------------------------------------------------------------------


async def check_thread(subject: Any, carry: Any) -> None:
    def work() -> None:
        with subject.tracer.trace_component("in thread"):
            subject.tracer.add_log("there", thread=threading.current_thread().name)

    async with subject.tracer.trace("run"), subject.tracer.trace_component("here") as here:
        await carry(work)
        assert subject.tracer.current_component() is here
    assert subject.one("in thread").parent_id == here.span_id
    assert subject.one("in thread").events[0].attributes["thread"] != threading.current_thread().name


async def bound_in_executor(work: Any) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        await loop.run_in_executor(pool, Recording().tracer.bind(work))


async def bound_in_thread(work: Any) -> None:
    thread = threading.Thread(target=Recording().tracer.bind(work))
    thread.start()
    await asyncio.to_thread(thread.join)


async def unbound_in_executor(work: Any) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        await loop.run_in_executor(pool, work)


@pytest.mark.parametrize("carry", [asyncio.to_thread, anyio.to_thread.run_sync, bound_in_executor, bound_in_thread])
async def test_work_in_a_thread_has_the_component_it_was_started_from_as_parent(carry: Any) -> None:
    await check_thread(Recording(), carry)


async def test_a_thread_that_knows_nothing_of_its_parent_is_noticed() -> None:
    with pytest.raises(AssertionError):
        await check_thread(Recording(), unbound_in_executor)


# Callbacks -------------------------------------------------------------------------------------------------


async def test_a_callback_of_the_loop_belongs_to_the_component_that_handed_it_out() -> None:
    subject = Recording()
    called = asyncio.Event()

    def callback() -> None:
        with subject.tracer.trace_component("callback"):
            called.set()

    async with subject.tracer.trace_component("giver") as giver:
        asyncio.get_running_loop().call_soon(callback)
    async with subject.tracer.trace_component("other"):
        await called.wait()
    assert subject.one("callback").parent_id == giver.span_id


async def check_bound_callback(subject: Any, bind: Any) -> None:
    """Handed out in one component, called in another by code that never heard of tracing."""
    callbacks: list[Any] = []

    def on_done(answer: int, *, extra: str) -> str:
        with subject.tracer.trace_component("on done"):
            return f"{answer}{extra}"

    async with subject.tracer.trace("first"), subject.tracer.trace_component("giver"):
        callbacks.append(bind(on_done))
    async with subject.tracer.trace("second"), subject.tracer.trace_component("caller") as caller:
        assert callbacks[0](4, extra="2") == "42"
        assert subject.tracer.current_component() is caller
    spans = {span.name: span for span in subject.spans}
    assert spans["on done"].parent_id == spans["giver"].span_id
    assert spans["on done"].trace_id == spans["first"].trace_id


async def test_a_callback_is_bound_to_the_component_it_was_handed_out_in() -> None:
    subject = Recording()
    await check_bound_callback(subject, subject.tracer.bind)


async def test_a_callback_that_belongs_to_its_caller_is_noticed() -> None:
    with pytest.raises(AssertionError):
        await check_bound_callback(Recording(), lambda function: function)


async def test_a_bound_coroutine_function_runs_where_it_was_bound() -> None:
    subject = Recording()

    async def work() -> None:
        await asyncio.sleep(0)
        async with subject.tracer.trace_component("work"):
            pass

    async with subject.tracer.trace_component("giver") as giver:
        bound = subject.tracer.bind(work)
    async with subject.tracer.trace_component("caller") as caller:
        await bound()
        assert subject.tracer.current_component() is caller
    assert subject.one("work").parent_id == giver.span_id


async def test_a_bound_function_keeps_its_name_and_may_be_called_from_many_threads_at_once() -> None:
    subject = Recording()

    def work(number: int) -> int:
        with subject.tracer.trace_component("work"):
            return number

    async with subject.tracer.trace_component("giver") as giver:
        bound = subject.tracer.bind(work)
    assert bound.__name__ == "work"
    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(bound, range(100))) == list(range(100))
    assert {span.parent_id for span in subject.named("work")} == {giver.span_id}


async def test_a_signal_handler_of_the_loop_may_trace() -> None:
    subject = Recording()
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def handler() -> None:
        with subject.tracer.trace_component("handler"):
            done.set()

    async with subject.tracer.trace_component("giver") as giver:
        loop.call_soon_threadsafe(handler)
        loop.call_later(0, functools.partial(contextvars.Context().run, handler))
        await done.wait()
        await asyncio.sleep(0.01)
    assert sorted(span.parent_id for span in subject.named("handler")) == ["", giver.span_id]


# Without a loop --------------------------------------------------------------------------------------------


@promise(OneScopeForAll, naive=True)
def test_plain_code_in_threads_has_a_tree_for_each_thread(subject: Any) -> None:
    together = threading.Barrier(4)

    def work(number: int) -> None:
        with subject.tracer.trace(f"run {number}"):
            together.wait()
            with subject.tracer.trace_component(f"outer {number}"):
                together.wait()
                with subject.tracer.trace_component(f"inner {number}"):
                    together.wait()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spans = {span.name: span for span in subject.spans}
    for number in range(4):
        assert spans[f"run {number}"].parent_id == ""
        assert spans[f"outer {number}"].parent_id == spans[f"run {number}"].span_id
        assert spans[f"inner {number}"].parent_id == spans[f"outer {number}"].span_id


def test_plain_code_without_a_loop_traces_with_plain_blocks_and_decorators() -> None:
    subject = Recording()

    @subject.tracer.trace_component("step", type="tool")
    def step(value: int) -> int:
        return value + 1

    with assert_no_context_leaked(), subject.tracer.trace("script"), ExitStack() as stack:
        stack.enter_context(subject.tracer.trace_component("block"))
        assert step(1) == 2
    assert subject.one("step").parent_id == subject.one("block").span_id
    assert subject.one("block").parent_id == subject.one("script").span_id


async def test_synchronous_code_called_from_a_task_is_its_child() -> None:
    subject = Recording()

    def plain() -> None:
        with subject.tracer.trace_component("plain"):
            pass

    async with subject.tracer.trace_component("task"):
        plain()
    assert subject.one("plain").parent_id == subject.one("task").span_id
