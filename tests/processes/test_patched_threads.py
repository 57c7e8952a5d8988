"""`patch_threads()`: threads and pools carry the current run and component by themselves, and nothing more than that."""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

import asynctrace
from asynctrace import TraceContext, Tracer
from asynctrace.exporters import MemoryExporter
from asynctrace.exporters._aside import run_aside
from asynctrace.processes import patch_threads
from asynctrace.testing import capture_spans
from asynctrace.tracing._scope import component_var, trace_var

from . import wrong_patches
from .doors import BOUND, BY_THEMSELVES, CALLBACKS, LOOPS, PATIENCE, Door, answer_in_thread, plainly, run_on
from .test_threads import (
    POOL_DOORS,
    check_an_exception_passes_unchanged,
    check_many_at_once,
    check_nothing_else_is_carried,
    check_nothing_is_left_behind,
    check_the_parent_is_right,
)

# Ways into a thread that only the patch opens ----------------------------------------------------------------------------


class Answers(threading.Thread):
    """Overrides `run()`, and does not call the one it overrides."""

    def __init__(self, work: Any) -> None:
        super().__init__()
        self.answer: Future[Any] = Future()
        self._work = work

    def run(self) -> None:
        answer_in_thread(self.answer, self._work)


class StartsTwice(Answers):
    """Overrides `start()` too."""

    def start(self) -> None:
        super().start()
        with pytest.raises(RuntimeError, match="only be started once"):
            super().start()


class Counts(ThreadPoolExecutor):
    """Overrides `submit()`, and hands work on in an object of its own."""

    submitted = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.submitted += 1
        return super().submit(functools.partial(fn, *args), **kwargs)


async def subclass_of_thread(carry: Any, work: Any) -> Any:
    thread = Answers(work)
    thread.start()
    return await asyncio.wrap_future(thread.answer)


async def subclass_that_starts_twice(carry: Any, work: Any) -> Any:
    thread = StartsTwice(work)
    thread.start()
    return await asyncio.wrap_future(thread.answer)


async def thread_with_run_of_its_own(carry: Any, work: Any) -> Any:
    """`run` as an attribute of one thread."""
    answer: Future[Any] = Future()
    thread = threading.Thread()
    thread.run = own = lambda: answer_in_thread(answer, work)  # type: ignore[method-assign]
    thread.start()
    try:
        return await asyncio.wrap_future(answer)
    finally:
        thread.join(PATIENCE)
        assert thread.run is own


async def subclass_of_pool(carry: Any, work: Any) -> Any:
    with Counts(1) as pool:
        try:
            return await asyncio.wrap_future(pool.submit(work))
        finally:
            assert pool.submitted == 1


async def fresh_pool(carry: Any, work: Any) -> Any:
    """Its thread is started by the work that needs it."""
    with ThreadPoolExecutor(1, initializer=threading.get_ident) as pool:
        return await asyncio.wrap_future(pool.submit(work))


async def loop_in_a_thread(carry: Any, work: Any) -> Any:
    async def main() -> Any:
        return await asyncio.create_task(asyncio.to_thread(work))

    return await asyncio.wrap_future(_in_a_pool(asyncio.run, main()))


def _in_a_pool(function: Any, *args: Any) -> Any:
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(function, *args)
    finally:
        pool.shutdown(wait=False)


async def thread_in_a_thread(carry: Any, work: Any) -> Any:
    answer: Future[Any] = Future()
    inner = threading.Thread(target=answer_in_thread, args=(answer, work))
    threading.Thread(target=inner.start).start()
    return await asyncio.wrap_future(answer)


ONLY_PATCHED = [
    pytest.param(door, id=door.__name__.replace("_", " "))
    for door in (
        subclass_of_thread,
        subclass_that_starts_twice,
        thread_with_run_of_its_own,
        subclass_of_pool,
        fresh_pool,
        loop_in_a_thread,
        thread_in_a_thread,
    )
]
CARRIED = [*[door for door in BOUND if door.id != "done callback"], *ONLY_PATCHED]
EVERY_DOOR = [*CARRIED, *BY_THEMSELVES, *CALLBACKS]


def patched(kind: str, check: Callable[..., Any], *args: Any) -> None:
    """Run the check on an event loop, with threads patched in the way that is in place."""
    with patch_threads():
        run_on(kind, lambda: check(*args))


# The promises of bind() hold without it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("door", EVERY_DOOR)
def test_work_has_the_component_that_handed_it_over_as_parent(door: Door, loop: str) -> None:
    patched(loop, check_the_parent_is_right, door, plainly)


@pytest.mark.parametrize("door", EVERY_DOOR)
def test_what_goes_through_the_same_door_next_finds_nothing(door: Door) -> None:
    patched("asyncio", check_nothing_is_left_behind, door, plainly)


@pytest.mark.parametrize("door", EVERY_DOOR)
def test_an_exception_passes_unchanged(door: Door) -> None:
    patched("asyncio", check_an_exception_passes_unchanged, door, plainly)


@pytest.mark.parametrize("door", POOL_DOORS)
def test_other_context_variables_stay_as_python_has_them(door: Door) -> None:
    copy_context().run(patched, "asyncio", check_nothing_else_is_carried, door, plainly)


@pytest.mark.parametrize("loop", LOOPS)
def test_200_tasks_in_8_threads_have_exact_parents(loop: str) -> None:
    patched(loop, check_many_at_once, plainly)


@pytest.mark.parametrize("door", CARRIED)
def test_bind_wins_over_the_patch(door: Door) -> None:
    """Who binds says where the work belongs."""

    async def elsewhere(carry: Any, work: Any) -> Any:
        bound = asynctrace.bind(work)
        with asynctrace.suppress():
            return await door(plainly, bound)

    patched("asyncio", check_the_parent_is_right, elsewhere, plainly)


@pytest.mark.parametrize("door", CARRIED)
def test_what_is_suppressed_stays_so_in_the_thread(door: Door) -> None:
    async def check() -> None:
        async with capture_spans() as captured, captured.tracer.trace("run"):
            with asynctrace.suppress():
                await door(plainly, lambda: captured.tracer.trace_component("there").start().end())
            await captured.flush()
            assert captured.spans == ()

    patched("asyncio", check)


async def check_it_belongs_to_where_it_was_submitted() -> None:
    """The pool is busy: by the time the work runs, something else is current where it was submitted."""
    async with capture_spans() as captured:
        tracer = captured.tracer
        may_go_on = threading.Event()

        def work(name: str) -> None:
            with tracer.trace_component(name):
                pass

        with ThreadPoolExecutor(1) as pool:
            pool.submit(may_go_on.wait, PATIENCE)
            async with tracer.trace_component("first") as first:
                one = pool.submit(work, "of first")
            async with tracer.trace_component("second") as second:
                two = pool.submit(work, "of second")
                may_go_on.set()
                await asyncio.wrap_future(one)
                await asyncio.wrap_future(two)
        await captured.flush()
        assert captured.find("of first").parent_id == first.span_id
        assert captured.find("of second").parent_id == second.span_id


def test_work_belongs_to_where_it_was_submitted_whenever_it_runs() -> None:
    patched("asyncio", check_it_belongs_to_where_it_was_submitted)


# Threads that serve everybody ----------------------------------------------------------------------------------------------


async def check_a_pool_started_in_a_run_is_free_after_it() -> None:
    with ThreadPoolExecutor(1) as pool:

        async def through_one_thread(carry: Any, work: Any) -> Any:
            return await asyncio.wrap_future(pool.submit(work))

        await check_nothing_is_left_behind(through_one_thread, plainly)


def test_a_pool_that_was_started_in_a_run_is_free_after_it() -> None:
    patched("asyncio", check_a_pool_started_in_a_run_is_free_after_it)


async def check_a_process_pool_belongs_to_nobody(folder: Path) -> None:
    """Its own thread calls the callbacks of everybody; the first run that submits starts it."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    called = threading.Event()
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240  (nothing else runs here yet)
    may_end = folder / "may end"
    os.mkfifo(may_end)
    async with capture_spans() as captured:
        tracer = captured.tracer

        def on_done(_: Any) -> None:
            with tracer.trace_component("on done"):
                called.set()

        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            async with tracer.trace("first"):
                assert await asyncio.wrap_future(pool.submit(len, "abc")) == 3
            # A callback of what is done already would be called here and now.
            pool.submit(may_end.read_text).add_done_callback(on_done)
            await asyncio.to_thread(may_end.write_text, "now")
            await asyncio.to_thread(called.wait, PATIENCE)
        await captured.flush()
        assert captured.find("on done").parent_id == ""


def test_the_thread_of_a_process_pool_belongs_to_nobody(tmp_path: Path) -> None:
    patched("asyncio", check_a_process_pool_belongs_to_nobody, tmp_path)


_numbers = itertools.count()


def a_name() -> str:
    """Of a run that no other test has: what failed before holds its own."""
    return f"kept {next(_numbers)}"


def runs_alive(name: str) -> int:
    gc.collect()
    return sum(type(found) is TraceContext and found.name == name for found in gc.get_objects())


async def check_threads_keep_no_run() -> None:
    """Neither those that have done their work, while somebody holds them, nor those of pools, which wait for more."""
    name = a_name()
    async with capture_spans() as captured:
        tracer = captured.tracer
        held: list[Any] = []
        with ThreadPoolExecutor(2) as pool:

            def work() -> None:
                with tracer.trace_component("there"):
                    pass

            async with tracer.trace(name), tracer.trace_component("here"):
                held += [threading.Thread(target=work), threading.Timer(0, work), Answers(work)]
                held += [StartsTwice(work)]
                for thread in held:
                    thread.start()
                held += [pool.submit(work), pool.submit(work)]
                await asyncio.wrap_future(held[-1])
                await anyio.to_thread.run_sync(work)
                await asyncio.to_thread(work)
                for thread in held[:4]:
                    await asyncio.to_thread(thread.join, PATIENCE)
            await captured.flush()
            assert len(captured.by_name["there"]) == 8
            await asyncio.sleep(0)
            assert runs_alive(name) == 0


def test_no_thread_keeps_a_run_when_its_work_is_done() -> None:
    patched("asyncio", check_threads_keep_no_run)


async def check_own_threads_keep_no_run(state: Path) -> None:
    """A journal's keeper, and work beside the loop: started inside a run, they belong to none."""
    name = a_name()
    async with capture_spans() as captured:
        async with captured.tracer.trace(name):
            assert trace_var.get() is not None
            assert await run_aside(lambda: (trace_var.get(), component_var.get())) == (None, None)
            other = await Tracer(service="other", exporters=[MemoryExporter()], journal=str(state)).start()
            async with other.trace("of the other"):
                pass
        assert any(thread.name == "asynctrace journal" for thread in threading.enumerate())
        await captured.flush()
        assert runs_alive(name) == 0
        await other.shutdown()


def test_no_thread_of_asynctrace_keeps_a_run(tmp_path: Path) -> None:
    patched("asyncio", check_own_threads_keep_no_run, tmp_path)


def check_lanes_in_their_own_thread_keep_no_run() -> None:
    """A program without a loop: the first span ends inside a run, and starts the thread."""
    name = a_name()
    with patch_threads(), capture_spans() as captured:
        with captured.tracer.trace(name):
            other = Tracer(service="other", exporters=[MemoryExporter()], journal=False)
            with other.trace("of the other"):
                pass
        captured.tracer.flush_sync(PATIENCE)
        assert other.statistics().lanes
        assert runs_alive(name) == 0
        other.shutdown_sync()


def test_lanes_in_a_thread_of_their_own_keep_no_run() -> None:
    check_lanes_in_their_own_thread_keep_no_run()


# The checks notice ---------------------------------------------------------------------------------------------------

(FRESH_POOL,) = [door.values[0] for door in ONLY_PATCHED if door.id == "fresh pool"]
(SUBMITTED,) = [door.values[0] for door in BOUND if door.id == "submitted"]


CHECKS: dict[str, Callable[..., Any]] = {
    "its parent": lambda _: patched("asyncio", check_the_parent_is_right, FRESH_POOL, plainly),
    "nothing else": lambda _: patched("asyncio", check_nothing_else_is_carried, SUBMITTED, plainly),
    "where it was submitted": lambda _: patched("asyncio", check_it_belongs_to_where_it_was_submitted),
    "a pool's thread": lambda _: patched("asyncio", check_a_pool_started_in_a_run_is_free_after_it),
    "a process pool": lambda path: patched("asyncio", check_a_process_pool_belongs_to_nobody, path),
    "keeping no run": lambda _: patched("asyncio", check_threads_keep_no_run),
    "own threads": lambda path: patched("asyncio", check_own_threads_keep_no_run, path),
    "lanes": lambda _: check_lanes_in_their_own_thread_keep_no_run(),
}


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        ("its parent", wrong_patches.binds_at_the_run),
        ("where it was submitted", wrong_patches.binds_at_the_run),
        ("nothing else", wrong_patches.carries_the_whole_context),
        ("a pool's thread", wrong_patches.leaks_into_the_pool),
        ("a pool's thread", wrong_patches.forgets_to_restore),
        ("a process pool", wrong_patches.leaks_into_the_pool),
        ("keeping no run", wrong_patches.keeps_what_it_carries),
        ("keeping no run", wrong_patches.leaks_into_the_pool),
        ("keeping no run", wrong_patches.forgets_to_restore),
        ("own threads", wrong_patches.starts_own_threads_in_the_run),
        ("lanes", wrong_patches.starts_own_threads_in_the_run),
    ],
)
def test_each_check_notices_a_patch_that_breaks_its_promise(check: str, fault: Any, tmp_path: Path) -> None:
    CHECKS[check](tmp_path / "right")
    with wrong_patches.in_place(fault), pytest.raises(AssertionError):
        Context().run(CHECKS[check], tmp_path / "wrong")
