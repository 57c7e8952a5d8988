"""`patch_threads()` comes and goes, alone and among other patches, and what was an error without it is the same error."""

from __future__ import annotations

import functools
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest

from asynctrace import TraceContext
from asynctrace.processes import ThreadPatch, _threads, patch_threads
from asynctrace.tracing._scope import trace_var

from . import wrong_patches
from .doors import PATIENCE
from .wrong_patches import methods

# In and out --------------------------------------------------------------------------------------------------------------


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
        before = threading.stack_size(1 << 60)  # no address space has it
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

CHECKS: dict[str, Callable[..., Any]] = {
    "as it was": lambda _: check_everything_is_as_it_was(),
    "others before": lambda _: check_one_that_patched_before_is_left_in_place(),
    "others since": lambda _: check_one_that_patched_since_is_left_in_place(),
    "timers": lambda _: check_one_that_gave_timers_a_method_of_their_own(),
    "a context of its own": check_a_context_of_its_own_is_respected,
}


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        ("others before", wrong_patches.holds_on_after_restore),
        ("as it was", wrong_patches.holds_on_after_restore),
        ("others since", wrong_patches.leaves_others_out),
        ("others since", wrong_patches.wraps_without_end),
        ("timers", wrong_patches.forgets_timers),
        ("a context of its own", wrong_patches.ignores_contexts),
    ],
)
def test_each_check_notices_a_patch_that_breaks_its_promise(
    check: str, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    CHECKS[check](monkeypatch)
    with wrong_patches.in_place(fault), pytest.raises(AssertionError):
        CHECKS[check](monkeypatch)
