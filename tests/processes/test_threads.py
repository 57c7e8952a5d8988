"""Without any patch: work in a thread, or in a callback, has the parent that was current where it was handed over.

`asyncio.to_thread()`, `anyio.to_thread` and callbacks of the loop carry it by themselves, everything else by `bind()`.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.to_thread
import pytest

import asynctrace
from asynctrace import Receipt, Tracer, WaitForRoom
from asynctrace.exporters import MemoryExporter
from asynctrace.testing import assert_no_context_leaked, capture_spans

from . import wrong_binds
from .doors import BOUND, BY_THEMSELVES, CALLBACKS, LOOPS, PATIENCE, Carry, Door, plainly, pool_of_one, run_on

EVERY_DOOR = [*BY_THEMSELVES, *BOUND, *CALLBACKS]
color: ContextVar[str] = ContextVar("color", default="none")


# One at a time -------------------------------------------------------------------------------------------------------


async def check_the_parent_is_right(door: Door, carry: Carry) -> None:
    async with capture_spans() as captured:
        tracer = captured.tracer

        def work() -> int:
            with tracer.trace_component("there"):
                return 42

        async with tracer.trace("run", session_id="s-7", user_id="u-7") as run, tracer.trace_component("here") as here:
            with assert_no_context_leaked():
                assert await door(carry, work) == 42
        await captured.flush()
        there = captured.find("there")
        assert (there.trace_id, there.parent_id) == (run.trace_id, here.span_id)
        assert (there.attributes["session.id"], there.attributes["user.id"]) == ("s-7", "u-7")
        assert captured.tracer.receipt().complete


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("door", EVERY_DOOR)
def test_work_has_the_component_that_handed_it_over_as_parent(door: Door, loop: str) -> None:
    run_on(loop, lambda: check_the_parent_is_right(door, asynctrace.bind))


async def check_nothing_is_left_behind(door: Door, carry: Carry) -> None:
    """What goes through the same door next, from nowhere, is a trace of its own."""
    async with capture_spans() as captured:
        tracer = captured.tracer

        def work(name: str) -> None:
            with tracer.trace_component(name):
                pass

        async with tracer.trace("run", session_id="s-7"), tracer.trace_component("here"):
            await door(carry, lambda: work("there"))
            unfinished = tracer.trace_component("unfinished")
            await door(carry, unfinished.start)
        await door(plainly, lambda: work("after"))
        unfinished.end()
        await captured.flush()
        after = captured.find("after")
        assert after.parent_id == ""
        assert "session.id" not in after.attributes
        assert after.trace_id != captured.find("there").trace_id


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("door", EVERY_DOOR)
def test_what_goes_through_the_same_door_next_finds_nothing(door: Door, loop: str) -> None:
    run_on(loop, lambda: check_nothing_is_left_behind(door, asynctrace.bind))


async def check_an_exception_passes_unchanged(door: Door, carry: Carry) -> None:
    error = LookupError("no tea")
    async with capture_spans() as captured:

        def work() -> None:
            with captured.tracer.trace_component("there"):
                raise error

        async with captured.tracer.trace("run"):
            with pytest.raises(LookupError) as caught:
                await door(carry, work)
            assert caught.value is error
            assert (error.__cause__, error.__context__) == (None, None)
        await captured.flush()
        assert captured.find("there").ending == "error"
        assert captured.find("run").ending == "ok"


@pytest.mark.parametrize("door", EVERY_DOOR)
def test_an_exception_passes_unchanged(door: Door) -> None:
    run_on("asyncio", lambda: check_an_exception_passes_unchanged(door, asynctrace.bind))


async def check_nothing_else_is_carried(door: Door, carry: Carry) -> None:
    """Other variables are what they are where the work runs; and what the work sets there stays there."""
    pool = pool_of_one()
    color.set("of the caller")
    pool.submit(color.set, "of the thread").result(PATIENCE)
    async with capture_spans() as captured, captured.tracer.trace("run"):
        assert await door(carry, color.get) == "of the thread"
        await door(carry, lambda: color.set("changed"))
    assert pool.submit(color.get).result(PATIENCE) == "changed"


POOL_DOORS = [door for door in BOUND if door.id in ("given executor", "submitted", "mapped")]


@pytest.mark.parametrize("door", POOL_DOORS)
def test_other_context_variables_stay_as_python_has_them(door: Door) -> None:
    run_on("asyncio", lambda: check_nothing_else_is_carried(door, asynctrace.bind))


# Many at once --------------------------------------------------------------------------------------------------------


async def check_many_at_once(carry: Carry, tasks: int = 200, threads: int = 8) -> None:
    """Each task has a run of its own; what it does in the shared threads is below the component it was sent from."""
    wanted: set[tuple[str, str, str, str]] = set()

    async with capture_spans() as captured:
        tracer = captured.tracer
        limiter = anyio.CapacityLimiter(threads)

        def work(name: str, pause: float) -> str:
            with tracer.trace_component(name) as there:
                threading.Event().wait(pause)
                with tracer.trace_component(f"below {name}") as below:
                    wanted.add((f"below {name}", below.span_id, there.span_id, name))
                return there.span_id

        with ThreadPoolExecutor(threads) as pool:

            async def submit(name: str, pause: float) -> str:
                return await asyncio.wrap_future(pool.submit(carry(work), name, pause))

            async def in_executor(name: str, pause: float) -> str:
                return await asyncio.get_running_loop().run_in_executor(pool, carry(work), name, pause)

            async def in_anyio(name: str, pause: float) -> str:
                return await anyio.to_thread.run_sync(work, name, pause, limiter=limiter)

            async def task(number: int) -> None:
                ways = [submit, in_executor, in_anyio, lambda *args: asyncio.to_thread(work, *args)]
                chance = random.Random(number)
                name = f"task {number}"
                async with tracer.trace(f"run of {name}", session_id=name), tracer.trace_component("here") as here:
                    span_id = await ways[number % len(ways)](name, chance.random() / 200)
                    wanted.add((name, span_id, here.span_id, name))

            await asyncio.gather(*(task(number) for number in range(tasks)))
        await captured.flush()
        found = {
            (span.name, span.span_id, span.parent_id, span.attributes["session.id"])
            for span in captured.spans
            if span.name.startswith(("task", "below"))
        }
        assert len(found) == 2 * tasks
        assert found == wanted


@pytest.mark.parametrize("loop", LOOPS)
def test_200_tasks_in_8_threads_have_exact_parents(loop: str) -> None:
    run_on(loop, lambda: check_many_at_once(asynctrace.bind))


# Callbacks of the loop, and a full span log ------------------------------------------------------------------------------


class Gate(MemoryExporter):
    """Takes nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = asyncio.Event()

    async def export(self, batch: Any) -> Any:
        await self.is_open.wait()
        return await super().export(batch)


async def check_callbacks_do_not_wait_for_their_own_loop(
    make_tracer: Any, callbacks: int = 20, each: int = 50, patience: float = PATIENCE
) -> None:
    """The lanes run on the loop that the callbacks would stop; threads do wait, and lose nothing."""
    gate = Gate()
    longest = 0.0
    async with make_tracer(
        service="shop",
        exporters=[gate],
        journal=False,
        capacity_spans=200,
        when_full=WaitForRoom(timeout=4 * PATIENCE),
    ) as tracer:
        called = asyncio.Event()
        below: list[str] = []

        def callback(number: int) -> None:
            nonlocal longest
            started = time.monotonic()
            for _ in range(each):
                with tracer.trace_component(f"callback {number}"):
                    pass
            longest = max(longest, time.monotonic() - started)
            if number == callbacks - 1:
                called.set()

        def in_thread() -> None:
            for _ in range(each):
                with tracer.trace_component("in thread") as component:
                    below.append(component.parent_id)

        async with tracer.trace("run"), tracer.trace_component("here") as here:
            for number in range(callbacks):
                asyncio.get_running_loop().call_soon(callback, number)
            await called.wait()
            dropped = tracer.receipt().dropped
            thread = asyncio.create_task(asyncio.to_thread(in_thread))
            gate.is_open.set()
            await thread
        receipt: Receipt = await tracer.flush(PATIENCE)
    assert longest < patience
    assert dropped > 0, "the span log was not full"
    assert receipt.ended == callbacks * each + each + 2
    assert receipt.accepted + receipt.dropped == receipt.ended
    assert set(receipt.dropped_by_reason) == {"refused"}
    assert below == [here.span_id] * each
    assert sum(span.name == "in thread" for span in gate.spans) == each


@pytest.mark.parametrize("loop", LOOPS)
def test_callbacks_that_end_spans_do_not_stop_their_loop_when_the_span_log_is_full(loop: str) -> None:
    run_on(loop, lambda: check_callbacks_do_not_wait_for_their_own_loop(Tracer))


# The checks notice ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", BOUND)
@pytest.mark.parametrize("carry", [plainly, wrong_binds.binds_at_the_call, wrong_binds.carries_the_run_only])
def test_a_wrong_parent_is_noticed(door: Door, carry: Carry) -> None:
    with pytest.raises(AssertionError):
        run_on("asyncio", lambda: check_the_parent_is_right(door, carry))


@pytest.mark.parametrize("door", POOL_DOORS)
def test_a_run_that_stays_in_the_thread_is_noticed(door: Door) -> None:
    try:
        with pytest.raises(AssertionError):
            run_on("asyncio", lambda: check_nothing_is_left_behind(door, wrong_binds.forgets_to_restore))
    finally:
        pool_of_one().submit(wrong_binds.forgets_to_restore(int)).result(PATIENCE)  # nothing is current here: nor there


@pytest.mark.parametrize("door", POOL_DOORS)
def test_a_context_that_is_carried_whole_is_noticed(door: Door) -> None:
    with pytest.raises(AssertionError):
        run_on("asyncio", lambda: check_nothing_else_is_carried(door, wrong_binds.carries_the_whole_context))


@pytest.mark.parametrize("carry", [plainly, wrong_binds.binds_to_the_latest])
def test_parents_that_mix_among_many_are_noticed(carry: Carry) -> None:
    with pytest.raises((AssertionError, KeyError)):
        run_on("asyncio", lambda: check_many_at_once(carry))


def test_an_exception_that_is_replaced_is_noticed() -> None:
    def replaces(function: Any) -> Any:
        def call() -> Any:
            try:
                return function()
            except Exception as error:
                raise LookupError(str(error)) from error

        return call

    (submitted,) = [door.values[0] for door in BOUND if door.id == "submitted"]
    with pytest.raises(AssertionError):
        run_on("asyncio", lambda: check_an_exception_passes_unchanged(submitted, replaces))


class WaitsWhereverItIs(Tracer):
    """An ending that waits for room in the very thread whose loop would make it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        sink: Any = self._sink
        waits = iter([2.0])

        class Waits:
            def __getattr__(self, name: str) -> Any:
                return getattr(sink, name)

            def append_sync(self, record: bytes) -> None:
                threading.Event().wait(next(waits, 0.0))
                sink.append_sync(record)

        self._sink = Waits()  # type: ignore[assignment]


def test_a_callback_that_waits_for_its_own_loop_is_caught() -> None:
    with pytest.raises(AssertionError):
        run_on("asyncio", lambda: check_callbacks_do_not_wait_for_their_own_loop(WaitsWhereverItIs, patience=1.0))
