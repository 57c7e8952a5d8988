"""A component ends exactly once, with the ending that fits how it was left; the program's exception passes
unchanged."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from asynctrace._contracts import StatusCode

from .faulty import (
    AlwaysOk,
    EndsEveryTime,
    NeverAbandons,
    OnlyKnowsExceptions,
    RaisesACopy,
    SwallowsExceptions,
    WaitsWhileLeaving,
)
from .promises import promise
from .recording import Recording

pytestmark = pytest.mark.anyio

PLAIN_ERROR = RuntimeError("boom")

LEFT_BY: dict[str, tuple[Callable[[], BaseException], str]] = {
    "exception": (lambda: RuntimeError("boom"), "error"),
    "cancellation": (asyncio.CancelledError, "cancelled"),
    "timeout": (TimeoutError, "timeout"),
    "keyboard interrupt": (KeyboardInterrupt, "cancelled"),
    "generator exit": (GeneratorExit, "abandoned"),
    "group of errors": (lambda: BaseExceptionGroup("all", [ValueError(), KeyError()]), "error"),
    "group of cancellations": (lambda: BaseExceptionGroup("all", [asyncio.CancelledError()]), "cancelled"),
    "group of timeouts": (
        lambda: ExceptionGroup("all", [TimeoutError(), ExceptionGroup("in", [TimeoutError()])]),
        "timeout",
    ),
    "mixed group": (lambda: BaseExceptionGroup("all", [asyncio.CancelledError(), ValueError()]), "error"),
    "exit with a code": (lambda: SystemExit(3), "error"),
}


@promise(AlwaysOk, OnlyKnowsExceptions, SwallowsExceptions, RaisesACopy)
async def test_each_way_of_leaving_has_its_ending_and_the_same_exception_object_goes_on(subject: Any) -> None:
    for way, (make, _) in LEFT_BY.items():
        for colour in ("async", "plain"):
            error = make()
            seen: BaseException | None = None
            try:
                if colour == "async":
                    async with subject.tracer.trace_component(f"{way}, {colour}"):
                        raise error
                else:
                    with subject.tracer.trace_component(f"{way}, {colour}"):
                        raise error
            except BaseException as raised:
                seen = raised
            assert seen is error, f"{way}, {colour}: {seen!r} instead of {error!r}"
            assert seen.__cause__ is None
            assert seen.__context__ is None
        assert subject.tracer.current_component() is None
    endings = {name: span.ending for name in (span.name for span in subject.spans) if (span := subject.one(name))}
    assert endings == {f"{way}, {color}": end for way, (_, end) in LEFT_BY.items() for color in ("async", "plain")}


async def test_returning_breaking_and_leaving_without_a_code_end_ok() -> None:
    subject = Recording()

    async def returns() -> None:
        async with subject.tracer.trace_component("return"):
            return

    await returns()
    for _ in range(3):
        async with subject.tracer.trace_component("break"):
            break
    with pytest.raises(SystemExit), subject.tracer.trace_component("exit"):
        raise SystemExit
    assert [(span.name, span.ending, span.status) for span in subject.spans] == [
        (name, "ok", StatusCode.OK) for name in ("return", "break", "exit")
    ]


async def test_an_error_carries_type_message_stack_and_status() -> None:
    subject = Recording()
    with pytest.raises(RuntimeError):
        async with subject.tracer.trace_component("step"):
            raise RuntimeError("boom")
    span = subject.one("step")
    assert (span.status, span.status_message) == (StatusCode.ERROR, "boom")
    (event,) = span.events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "RuntimeError"
    assert event.attributes["exception.message"] == "boom"
    assert "test_an_error_carries" in str(event.attributes["exception.stacktrace"])


async def test_a_cancelled_component_has_no_error() -> None:
    subject = Recording()
    with pytest.raises(asyncio.CancelledError):
        async with subject.tracer.trace_component("step"):
            raise asyncio.CancelledError
    assert (subject.one("step").status, subject.one("step").events) == (StatusCode.UNSET, ())


async def test_an_exception_recorded_by_hand_changes_no_ending() -> None:
    subject = Recording()
    async with subject.tracer.trace_component("step") as component:
        component.record_exception(ValueError("handled"))
    span = subject.one("step")
    assert (span.ending, span.events[0].attributes["exception.message"]) == ("ok", "handled")


async def test_an_exception_that_lies_about_itself_still_reaches_the_program() -> None:
    subject = Recording()

    class Liar(Exception):
        def __str__(self) -> str:
            raise OSError("no text")

        __repr__ = __str__

    error = Liar()
    with pytest.raises(Liar) as raised:
        async with subject.tracer.trace_component("step"):
            raise error
    assert raised.value is error
    assert subject.one("step").ending == "error"


# Real cancellations ----------------------------------------------------------------------------------------


@promise(AlwaysOk, OnlyKnowsExceptions)
async def test_a_deadline_inside_ends_timeout_and_one_around_ends_cancelled(subject: Any) -> None:
    tracer = subject.tracer
    with pytest.raises(TimeoutError):
        async with tracer.trace_component("around"), asyncio.timeout(0.01), tracer.trace_component("inside"):
            await asyncio.sleep(60)
    assert subject.one("around").ending == "timeout"
    assert subject.one("inside").ending == "cancelled"


@promise(OnlyKnowsExceptions)
async def test_a_cancelled_task_ends_all_its_components_and_is_cancelled(subject: Any) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with subject.tracer.trace("run"), subject.tracer.trace_component("step"):
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert [(span.name, span.ending) for span in subject.spans] == [("step", "cancelled"), ("run", "cancelled")]


@promise(OnlyKnowsExceptions)
async def test_a_failing_sibling_cancels_the_others_in_a_task_group(subject: Any) -> None:
    async def fails() -> None:
        async with subject.tracer.trace_component("fails"):
            await asyncio.sleep(0)
            raise RuntimeError("boom")

    async def waits() -> None:
        async with subject.tracer.trace_component("waits"):
            await asyncio.sleep(60)

    async def both() -> None:
        async with subject.tracer.trace_component("group"), asyncio.TaskGroup() as group:
            group.create_task(waits())
            group.create_task(fails())

    with pytest.raises(BaseExceptionGroup):
        await both()
    assert {span.name: span.ending for span in subject.spans} == {
        "fails": "error",
        "waits": "cancelled",
        "group": "error",
    }


async def test_an_anyio_scope_that_gives_up_leaves_the_component_around_it_ok() -> None:
    subject = Recording()
    async with subject.tracer.trace_component("around"):
        with anyio.move_on_after(0.01):
            async with subject.tracer.trace_component("inside"):
                await anyio.sleep(60)
    assert subject.one("inside").ending == "cancelled"
    assert subject.one("around").ending == "ok"


@promise(WaitsWhileLeaving)
async def test_leaving_during_a_cancellation_waits_for_nothing(subject: Any) -> None:
    """A second cancellation, or any task, gets no chance to run between the error and the end of the
    block."""
    order: list[str] = []
    entered = asyncio.Event()

    async def work() -> None:
        try:
            async with subject.tracer.trace("run"), subject.tracer.trace_component("step"):
                entered.set()
                try:
                    await asyncio.sleep(60)
                finally:
                    asyncio.get_running_loop().call_soon(order.append, "somebody else")
                    order.append("leaving")
        finally:
            order.append("left")

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel("because")
    with pytest.raises(asyncio.CancelledError, match="because"):
        await task
    assert order[:2] == ["leaving", "left"]


@promise(WaitsWhileLeaving)
def test_entering_and_leaving_never_yield_to_the_loop(subject: Any) -> None:
    """Driven by hand: a coroutine that awaits nothing ends with its first step."""

    async def work() -> None:
        async with subject.tracer.trace("run"), subject.tracer.trace_component("step"):
            pass

    coroutine = work()
    try:
        coroutine.send(None)
    except StopIteration:
        return
    with contextlib.suppress(RuntimeError):  # one that waits again while it is closed
        coroutine.close()
    raise AssertionError("entering or leaving waited for something")


# Once ------------------------------------------------------------------------------------------------------


@promise(EndsEveryTime)
async def test_ending_twice_is_one_record(subject: Any) -> None:
    component = subject.tracer.trace_component("step").start()
    component.end()
    component.end()
    component.__exit__(None, None, None)
    assert [span.name for span in subject.spans] == ["step"]


async def test_ending_by_hand_inside_the_block_is_counted_once_more_by_the_block() -> None:
    subject = Recording()
    async with subject.tracer.trace_component("step") as component:
        component.end()
        assert not component.is_recording
        assert subject.tracer.current_component() is None
    assert [span.ending for span in subject.spans] == ["ok"]
    assert subject.tracer._late_calls == {"end": 1}


async def test_an_error_after_end_is_not_swallowed() -> None:
    subject = Recording()

    async def fails_late() -> None:
        async with subject.tracer.trace_component("step") as component:
            component.end()
            raise KeyError("late")

    with pytest.raises(KeyError):
        await fails_late()
    assert subject.one("step").ending == "ok"


async def test_of_many_threads_that_end_one_component_exactly_one_does() -> None:
    subject = Recording()
    for _ in range(200):
        component = subject.tracer.trace_component("step")
        component.__enter__()
        together = threading.Barrier(3)

        def end(component: Any = component, together: threading.Barrier = together) -> None:
            together.wait()
            component.end()

        threads = [threading.Thread(target=end) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        component._restore_from_afar()
    assert len(subject.named("step")) == 200
    assert subject.tracer._late_calls == {"end": 400}


@promise(NeverAbandons)
async def test_a_handle_that_is_lost_ends_abandoned(subject: Any) -> None:
    async def leaves_it() -> None:
        subject.tracer.trace_component("lost").start()

    await asyncio.create_task(leaves_it())
    await asyncio.sleep(0)  # the step of the loop that woke this task still held the other one
    subject.collect()
    assert [(span.name, span.ending) for span in subject.spans] == [("lost", "abandoned")]


async def test_a_run_that_is_lost_ends_abandoned() -> None:
    subject = Recording()

    async def leaves_it() -> None:
        subject.tracer.start_tracers("r", "lost run")

    await asyncio.create_task(leaves_it())
    await asyncio.sleep(0)  # the step of the loop that woke this task still held the other one
    subject.collect()
    assert [(span.name, span.ending) for span in subject.spans] == [("lost run", "abandoned")]


async def test_a_coroutine_that_is_dropped_half_way_ends_abandoned() -> None:
    subject = Recording()

    class Pause:
        def __await__(self) -> Any:
            yield

    async def work() -> None:
        async with subject.tracer.trace_component("step"):
            await Pause()

    coroutine = work()
    coroutine.send(None)
    del coroutine
    subject.collect()
    assert [(span.name, span.ending) for span in subject.spans] == [("step", "abandoned")]


async def test_a_handle_never_entered_is_no_span() -> None:
    subject = Recording()
    subject.tracer.trace_component("never")
    subject.tracer.trace("never")
    gc.collect()
    assert subject.spans == ()
