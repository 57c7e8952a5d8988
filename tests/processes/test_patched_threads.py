"""`patch_threads()`: threads and pools carry the current run and component by themselves, and nothing more than that."""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

import asynctrace
from asynctrace import TraceContext, Tracer
from asynctrace.exporters import MemoryExporter
from asynctrace.exporters._aside import run_aside
from asynctrace.processes import ThreadPatch, _threads, patch_threads
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


async def check_a_process_pool_belongs_to_nobody() -> None:
    """Its own thread calls the callbacks of everybody; the first run that submits starts it."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    called = threading.Event()
    async with capture_spans() as captured:
        tracer = captured.tracer

        def on_done(_: Any) -> None:
            with tracer.trace_component("on done"):
                called.set()

        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            async with tracer.trace("first"):
                assert await asyncio.wrap_future(pool.submit(len, "abc")) == 3
            pool.submit(len, "ab").add_done_callback(on_done)
            await asyncio.to_thread(called.wait, PATIENCE)
        await captured.flush()
        assert captured.find("on done").parent_id == ""


def test_the_thread_of_a_process_pool_belongs_to_nobody() -> None:
    patched("asyncio", check_a_process_pool_belongs_to_nobody)


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


# In and out --------------------------------------------------------------------------------------------------------------


def methods() -> tuple[Any, Any]:
    return ThreadPoolExecutor.submit, threading.Thread.start


def carries() -> bool:
    """Whether a thread has the run it was started in."""
    found: list[Any] = []
    run = TraceContext(name="here")

    def start() -> None:
        trace_var.set(run)
        thread = threading.Thread(target=lambda: found.append(trace_var.get()))
        thread.start()
        thread.join(PATIENCE)
        with ThreadPoolExecutor(1) as pool:
            found.append(pool.submit(trace_var.get).result(PATIENCE))

    Context().run(start)
    assert found in ([run, run], [None, None])
    return found == [run, run]


def test_nothing_is_patched_until_it_is_asked_for() -> None:
    assert not carries()


def check_everything_is_as_it_was() -> None:
    before = methods()
    with patch_threads() as patch:
        assert isinstance(patch, ThreadPatch)
        assert repr(patch) == "<ThreadPatch in place>"
        assert carries()
    assert repr(patch) == "<ThreadPatch restored>"
    assert methods() == before
    assert not carries()


def test_restored_it_is_as_it_was() -> None:
    check_everything_is_as_it_was()


def test_it_holds_until_everybody_who_asked_for_it_has_restored() -> None:
    before = methods()
    with patch_threads() as outer:
        layer = methods()
        with patch_threads() as inner:
            assert methods() == layer
            assert carries()
        inner.restore()
        assert carries()
        outer.restore()
        assert methods() == before
    outer.restore()
    assert methods() == before


def test_many_threads_may_ask_for_it_at_once() -> None:
    before = methods()
    together = threading.Barrier(8)
    wrong: list[BaseException] = []

    def in_and_out() -> None:
        together.wait(PATIENCE)
        try:
            for _ in range(100):
                with patch_threads():
                    assert _threads.ThreadPoolExecutor.submit is not before[0]
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=in_and_out) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not wrong
    assert methods() == before


@contextmanager
def another_patcher(*, says_what_it_wraps: bool = True) -> Iterator[list[str]]:
    """As libraries do it; it notes each call."""
    calls: list[str] = []
    before = methods()

    def around(original: Any, name: str) -> Any:
        def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return original(self, *args, **kwargs)

        return functools.wraps(original)(patched) if says_what_it_wraps else patched

    ThreadPoolExecutor.submit, threading.Thread.start = (  # type: ignore[method-assign]
        around(before[0], "submit"),
        around(before[1], "start"),
    )
    try:
        yield calls
    finally:
        ThreadPoolExecutor.submit, threading.Thread.start = before  # type: ignore[method-assign]


def check_one_that_patched_before_is_left_in_place() -> None:
    with another_patcher() as calls:
        theirs = methods()
        with patch_threads():
            assert carries()
            assert calls == ["start", "submit", "start"]
        assert methods() == theirs


def test_one_that_patched_before_is_left_in_place() -> None:
    check_one_that_patched_before_is_left_in_place()


def check_one_that_patched_since_is_left_in_place() -> None:
    before = methods()
    patch = patch_threads()
    ours = methods()
    with another_patcher() as calls:
        theirs = methods()
        patch.restore()
        assert methods() == theirs
        assert not carries()
        assert calls == ["start", "submit", "start"]
        with patch_threads():
            assert methods() == theirs, "one layer of ours is enough"
            assert carries()
    assert methods() == ours
    with patch_threads():
        assert carries()
    assert methods() == before


def test_one_that_patched_since_is_left_in_place_and_ours_below_does_nothing() -> None:
    check_one_that_patched_since_is_left_in_place()


def check_one_that_gave_timers_a_method_of_their_own() -> None:
    """As OpenTelemetry does: what `Timer` had inherited was that of before."""
    found: list[Any] = []
    run = TraceContext(name="here")

    def start() -> None:
        trace_var.set(run)
        timer = threading.Timer(0, lambda: found.append(trace_var.get()))
        timer.start()
        timer.join(PATIENCE)

    def of_others(timer: threading.Timer) -> None:
        inherited(timer)

    inherited = threading.Thread.start
    threading.Timer.start = of_others  # type: ignore[method-assign]
    try:
        with patch_threads():
            Context().run(start)
        assert threading.Timer.start is of_others
        Context().run(start)
    finally:
        del threading.Timer.start  # type: ignore[misc]
    assert found == [run, None]


def test_timers_carry_although_another_gave_them_a_method_of_their_own() -> None:
    check_one_that_gave_timers_a_method_of_their_own()


def test_one_that_does_not_say_what_it_wraps_gets_a_layer_over_it() -> None:
    before = methods()
    patch = patch_threads()
    with another_patcher(says_what_it_wraps=False):
        theirs = methods()
        patch.restore()
        with patch_threads():
            assert carries()
        assert methods() == theirs
        assert not carries()
    with patch_threads():
        pass
    assert methods() == before


# What was wrong without it stays what it was --------------------------------------------------------------------------------


def in_a_run(function: Callable[[], Any]) -> Any:
    def entered() -> Any:
        trace_var.set(TraceContext(name="here"))
        return function()

    with patch_threads():
        return Context().run(entered)


def test_a_thread_that_could_not_be_started_keeps_nothing() -> None:
    ran: list[Any] = []
    thread = threading.Thread(target=lambda: ran.append(trace_var.get()))

    def start() -> None:
        before = threading.stack_size(1 << 46)
        try:
            with pytest.raises(RuntimeError, match="can't start new thread"):
                thread.start()
        finally:
            threading.stack_size(before)

    in_a_run(start)
    assert "run" not in vars(thread)
    thread.run()
    assert ran == [None]


def test_a_thread_that_was_never_initialized_says_what_python_says() -> None:
    class Forgets(threading.Thread):
        def __init__(self) -> None:
            pass

    with pytest.raises(RuntimeError, match=r"thread\.__init__\(\) not called"):
        in_a_run(lambda: Forgets().start())


def test_what_cannot_be_called_fails_where_it_is_called() -> None:
    with ThreadPoolExecutor(1) as pool:
        future = in_a_run(lambda: pool.submit(3))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="'int' object is not callable"):
            future.result(PATIENCE)
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'fn'"):
            in_a_run(lambda: pool.submit())  # type: ignore[call-arg]
    with pytest.raises(RuntimeError, match="after shutdown"):
        in_a_run(lambda: pool.submit(len, "abc"))


def test_what_is_carried_looks_like_the_function_and_can_be_taken_to_another_interpreter() -> None:
    """As some subclasses of pools do; the run stays here."""
    carried = in_a_run(lambda: _threads._carried(Path.exists))
    assert carried is not Path.exists
    assert carried.__name__ == "exists"
    assert pickle.loads(pickle.dumps(carried)) is Path.exists


class WithContext(threading.Thread):
    """What `Thread(context=…)` is from Python 3.14 on."""

    def __init__(self, *, context: Context | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._context = context

    def _bootstrap(self) -> None:
        (self._context or Context()).run(super()._bootstrap)  # type: ignore[misc]


def check_a_context_of_its_own_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives a thread a context has said what is current in it."""
    thread_class: Any = threading.Thread if sys.version_info >= (3, 14) else WithContext
    monkeypatch.setattr(_threads, "_CAN_HAVE_A_CONTEXT", True)
    context = Context()
    context.run(trace_var.set, TraceContext(name="elsewhere"))
    found: list[Any] = []

    def start() -> None:
        for given in (context, None):
            thread = thread_class(target=lambda: found.append(trace_var.get()), context=given)
            thread.start()
            thread.join(PATIENCE)

    in_a_run(start)
    assert [run and run.name for run in found] == ["elsewhere", "here"]


def test_a_context_that_a_thread_was_given_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    check_a_context_of_its_own_is_respected(monkeypatch)


# The checks notice ---------------------------------------------------------------------------------------------------

(FRESH_POOL,) = [door.values[0] for door in ONLY_PATCHED if door.id == "fresh pool"]
(SUBMITTED,) = [door.values[0] for door in BOUND if door.id == "submitted"]


async def check_a_pool_started_in_a_run_is_free_after_it() -> None:
    with ThreadPoolExecutor(1) as pool:

        async def through_one_thread(carry: Any, work: Any) -> Any:
            return await asyncio.wrap_future(pool.submit(work))

        await check_nothing_is_left_behind(through_one_thread, plainly)


def test_a_pool_that_was_started_in_a_run_is_free_after_it() -> None:
    patched("asyncio", check_a_pool_started_in_a_run_is_free_after_it)


CHECKS: dict[str, Callable[..., Any]] = {
    "its parent": lambda *_: patched("asyncio", check_the_parent_is_right, FRESH_POOL, plainly),
    "nothing else": lambda *_: patched("asyncio", check_nothing_else_is_carried, SUBMITTED, plainly),
    "where it was submitted": lambda *_: patched("asyncio", check_it_belongs_to_where_it_was_submitted),
    "a pool's thread": lambda *_: patched("asyncio", check_a_pool_started_in_a_run_is_free_after_it),
    "a process pool": lambda *_: patched("asyncio", check_a_process_pool_belongs_to_nobody),
    "keeping no run": lambda *_: patched("asyncio", check_threads_keep_no_run),
    "own threads": lambda path, _: patched("asyncio", check_own_threads_keep_no_run, path),
    "lanes": lambda *_: check_lanes_in_their_own_thread_keep_no_run(),
    "as it was": lambda *_: check_everything_is_as_it_was(),
    "others before": lambda *_: check_one_that_patched_before_is_left_in_place(),
    "others since": lambda *_: check_one_that_patched_since_is_left_in_place(),
    "timers": lambda *_: check_one_that_gave_timers_a_method_of_their_own(),
    "a context of its own": lambda _, monkeypatch: check_a_context_of_its_own_is_respected(monkeypatch),
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
        ("as it was", wrong_patches.holds_on_after_restore),
        ("others since", wrong_patches.leaves_others_out),
        ("others since", wrong_patches.wraps_without_end),
        ("timers", wrong_patches.forgets_timers),
        ("a context of its own", wrong_patches.ignores_contexts),
    ],
)
def test_each_check_notices_a_patch_that_breaks_its_promise(
    check: str, fault: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = methods()
    CHECKS[check](tmp_path / "right", monkeypatch)
    try:
        with fault(), pytest.raises(AssertionError):
            Context().run(CHECKS[check], tmp_path / "wrong", monkeypatch)
    finally:
        _threads._held.clear()
        _threads._ours.clear()
        ThreadPoolExecutor.submit, threading.Thread.start = before  # type: ignore[method-assign]
