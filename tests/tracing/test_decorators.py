"""`@trace_component("name")`: every call is a component, and the function stays what it was in every other respect."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from asynctrace.testing import assert_no_context_leaked
from asynctrace.tracing import _decorator

from .faulty import NaiveTracer
from .promises import promise
from .recording import Recording

pytestmark = pytest.mark.anyio


# Functions and coroutine functions


async def test_each_call_of_a_coroutine_function_is_a_component() -> None:
    subject = Recording()

    @subject.tracer.trace_component("step", type="tool", attributes={"n": 1})
    async def step(value: int) -> int:
        subject.tracer.add_log("inside")
        await asyncio.sleep(0)
        return value * 2

    with assert_no_context_leaked():
        async with subject.tracer.trace("run") as run:
            assert await asyncio.gather(*map(step, range(5))) == [0, 2, 4, 6, 8]
    steps = subject.named("step")
    assert len({span.span_id for span in steps}) == 5
    for span in steps:
        assert (span.parent_id, span.ending, span.attributes["n"]) == (run.span_id, "ok", 1)
        assert span.attributes["openinference.span.kind"] == "TOOL"
        assert [event.name for event in span.events] == ["inside"]


def test_a_recursive_function_nests() -> None:
    subject = Recording()

    @subject.tracer.trace_component("fib")
    def fib(n: int) -> int:
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(5) == 5
    assert len(subject.named("fib")) == 15
    assert [span.parent_id for span in subject.spans].count("") == 1


async def test_an_error_passes_unchanged_and_ends_the_component() -> None:
    subject = Recording()
    error = LookupError("mine")

    @subject.tracer.trace_component("plain")
    def plain() -> None:
        raise error

    @subject.tracer.trace_component("later")
    async def later() -> None:
        raise error

    for call in (plain, later):
        with pytest.raises(LookupError) as raised:
            await call() if call is later else call()  # type: ignore[func-returns-value, misc]
        assert raised.value is error
    assert [span.ending for span in subject.spans] == ["error", "error"]


def test_name_documentation_signature_and_kind_of_function_are_preserved() -> None:
    tracer = Recording().tracer

    def plain(a: int, *, b: str = "x") -> str:
        """Plain's own words."""
        return b * a

    async def later(a: int) -> int:
        return a

    def steps(n: int) -> Iterator[int]:
        yield n

    async def async_steps(n: int) -> AsyncIterator[int]:
        yield n

    for function in (plain, later, steps, async_steps):
        decorated = tracer.trace_component("x")(function)
        assert decorated.__name__ == function.__name__
        assert decorated.__qualname__ == function.__qualname__
        assert decorated.__doc__ == function.__doc__
        assert decorated.__module__ == function.__module__
        assert inspect.signature(decorated) == inspect.signature(function)
        for question in (inspect.iscoroutinefunction, inspect.isasyncgenfunction):
            assert question(decorated) == question(function), f"{question.__name__}({function.__name__})"


async def test_methods_class_methods_and_static_methods_can_be_decorated() -> None:
    subject = Recording()

    class Shop:
        factor = 3

        @subject.tracer.trace_component("method")
        async def method(self, n: int) -> int:
            return self.factor * n

        @classmethod
        @subject.tracer.trace_component("class method")
        def class_method(cls) -> int:
            return cls.factor

        @staticmethod
        @subject.tracer.trace_component("static method")
        def static_method(n: int) -> int:
            return n

    assert (await Shop().method(2), Shop.class_method(), Shop.static_method(7)) == (6, 3, 7)
    assert [span.name for span in subject.spans] == ["method", "class method", "static method"]


async def test_one_handle_can_decorate_many_functions() -> None:
    subject = Recording()
    step = subject.tracer.trace_component("step", inputs={"given": 1})
    for function in (step(lambda: 1), step(lambda: 2)):
        function()
    assert [span.attributes["input.value"] for span in subject.spans] == ['{"given":1}'] * 2


# Generators


@contextlib.contextmanager
def no_error_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Neither through logging, nor through the loop's exception handler."""
    contexts: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: contexts.append(context))
    with caplog.at_level(logging.DEBUG):
        yield
    assert contexts == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


class LeaksIntoTheConsumer(NaiveTracer):
    """A bare `with` around the yields: what `NaiveTracer.decorate` does."""


@promise(LeaksIntoTheConsumer, naive=False)
async def test_between_two_yields_the_current_component_is_the_consumers(subject: Any) -> None:
    tracer = subject.tracer

    @tracer.trace_component("steps")
    async def steps() -> AsyncIterator[int]:
        for number in range(3):
            async with tracer.trace_component(f"made {number}"):
                await asyncio.sleep(0)
            yield number

    async with tracer.trace("run"), tracer.trace_component("consumer") as consumer:
        async for number in steps():
            assert tracer.current_component() is consumer
            async with tracer.trace_component(f"used {number}"):
                pass
    ids = {span.name: span.span_id for span in subject.spans}
    for span in subject.spans:
        if span.name != "run":
            above = "steps" if span.name.startswith("made") else "run" if span.name == "consumer" else "consumer"
            assert span.parent_id == ids[above], span.name
    assert subject.one("steps").ending == "ok"


async def test_the_same_holds_for_a_plain_generator_and_for_values_sent_thrown_and_returned() -> None:
    subject = Recording()
    tracer = subject.tracer

    @tracer.trace_component("steps")
    def steps() -> Any:
        with tracer.trace_component("made"):
            received = yield 1
        try:
            yield received * 2
        except KeyError:
            yield "caught"
        return "returned"

    def consume() -> Iterator[Any]:
        result = yield from steps()
        yield result

    with tracer.trace_component("consumer") as consumer:
        generator: Any = consume()
        assert next(generator) == 1
        assert tracer.current_component() is consumer
        assert generator.send(21) == 42
        assert generator.throw(KeyError()) == "caught"
        assert next(generator) == "returned"
        assert tracer.current_component() is consumer
    assert subject.one("made").parent_id == subject.one("steps").span_id
    assert subject.one("steps").parent_id == consumer.span_id
    assert subject.one("steps").ending == "ok"


async def test_values_sent_to_and_thrown_into_an_async_generator_reach_it() -> None:
    subject = Recording()

    @subject.tracer.trace_component("steps")
    async def steps() -> Any:
        received = yield 1
        try:
            yield received * 2
        except KeyError:
            yield "caught"

    generator: Any = steps()
    assert await anext(generator) == 1
    assert await generator.asend(21) == 42
    assert await generator.athrow(KeyError()) == "caught"
    with pytest.raises(StopAsyncIteration):
        await anext(generator)
    assert subject.one("steps").ending == "ok"


def make_steps(subject: Any, cleaned: list[str]) -> Any:
    @subject.tracer.trace_component("steps")
    async def steps() -> AsyncIterator[int]:
        try:
            async with subject.tracer.trace_component("inside"):
                while True:
                    await asyncio.sleep(0)
                    yield 1
        finally:
            cleaned.append("cleaned up")

    return steps


async def drop_by_break(steps: Any) -> None:
    async with contextlib.aclosing(steps()) as generator:
        async for _ in generator:
            break


async def drop_by_collection(steps: Any) -> None:
    async for _ in steps():
        break
    gc.collect()
    for _ in range(5):  # the loop's hook closes it in a task
        await asyncio.sleep(0)


async def drop_by_another_task(steps: Any) -> None:
    generator = steps()
    await anext(generator)
    await asyncio.create_task(generator.aclose())


DROPS = [drop_by_break, drop_by_collection, drop_by_another_task]


@pytest.mark.parametrize("drop", DROPS)
async def test_a_generator_dropped_early_ends_abandoned_and_quietly(
    drop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    subject = Recording()
    cleaned: list[str] = []
    with no_error_is_logged(caplog), assert_no_context_leaked():
        await drop(make_steps(subject, cleaned))
    assert cleaned == ["cleaned up"]
    assert [(span.name, span.ending) for span in subject.spans] == [("inside", "abandoned"), ("steps", "abandoned")]


def test_a_generator_still_open_when_the_loop_ends_is_abandoned_too() -> None:
    subject = Recording()
    cleaned: list[str] = []
    kept: list[Any] = []

    async def main() -> None:
        kept.append(make_steps(subject, cleaned)())
        await anext(kept[0])

    asyncio.run(main())
    assert cleaned == ["cleaned up"]
    assert [(span.name, span.ending) for span in subject.spans] == [("inside", "abandoned"), ("steps", "abandoned")]


def check_the_end_of_a_loop_is_quiet() -> None:
    """Cleaning up takes a while: the loop closes all generators that it knows at once."""
    subject = Recording()
    kept: list[Any] = []
    said: list[Any] = []

    @subject.tracer.trace_component("steps")
    async def steps() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            async with subject.tracer.trace_component("clean-up"):
                await asyncio.sleep(0)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context["message"]))
        kept.append(steps())
        await anext(kept[0])

    asyncio.run(main())
    assert said == []
    assert [(span.name, span.ending) for span in subject.spans] == [("clean-up", "ok"), ("steps", "abandoned")]


def test_a_generator_that_takes_a_while_to_clean_up_is_closed_once_when_the_loop_ends() -> None:
    check_the_end_of_a_loop_is_quiet()


def test_a_generator_that_the_loop_closes_beside_its_wrapper_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_decorator, "_first_step", lambda generator: generator.__anext__())
    with pytest.raises(AssertionError):
        check_the_end_of_a_loop_is_quiet()


def test_a_plain_generator_dropped_early_ends_abandoned() -> None:
    subject = Recording()

    @subject.tracer.trace_component("steps")
    def steps() -> Iterator[int]:
        yield 1
        yield 2

    for _ in steps():
        break
    gc.collect()
    generator = steps()
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    assert [(span.name, span.ending) for span in subject.spans] == [("steps", "abandoned")] * 2


async def test_what_a_dropped_generator_does_to_clean_up_belongs_to_it() -> None:
    subject = Recording()

    def clean_up(kind: str) -> None:
        subject.tracer.add_log(f"{kind} is cleaning")
        with subject.tracer.trace_component(f"{kind} clean-up"):
            pass

    @subject.tracer.trace_component("plain")
    def plain() -> Iterator[int]:
        try:
            yield 1
        finally:
            clean_up("plain")

    @subject.tracer.trace_component("later")
    async def later() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            clean_up("later")

    async with subject.tracer.trace_component("consumer"):
        for _ in plain():
            break
        async with contextlib.aclosing(later()) as generator:  # type: ignore[type-var]
            async for _ in generator:
                break
    for kind in ("plain", "later"):
        assert subject.one(f"{kind} clean-up").parent_id == subject.one(kind).span_id
        assert [log.name for log in subject.one(kind).events] == [f"{kind} is cleaning"]
    assert subject.one("consumer").events == ()


async def test_a_generator_that_fails_ends_error_with_the_same_exception() -> None:
    subject = Recording()
    error = ValueError("third")

    @subject.tracer.trace_component("steps")
    async def steps() -> AsyncIterator[int]:
        yield 1
        raise error

    with pytest.raises(ValueError, match="third") as raised:
        async for _ in steps():
            pass
    assert raised.value is error
    assert subject.one("steps").ending == "error"


async def test_a_generator_cancelled_while_it_waits_ends_cancelled() -> None:
    subject = Recording()
    waiting = asyncio.Event()

    @subject.tracer.trace_component("steps")
    async def steps() -> AsyncIterator[int]:
        yield 1
        waiting.set()
        await asyncio.sleep(60)
        yield 2

    async def consume() -> None:
        async for _ in steps():
            pass

    task = asyncio.create_task(consume())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert subject.one("steps").ending == "cancelled"


async def test_a_generator_never_started_is_no_span() -> None:
    subject = Recording()

    @subject.tracer.trace_component("steps")
    async def steps() -> AsyncIterator[int]:
        yield 1

    await steps().aclose()  # type: ignore[attr-defined]
    gc.collect()
    assert subject.spans == ()


async def test_a_decorated_generator_can_be_a_context_manager_and_a_timeout_works_in_it() -> None:
    subject = Recording()

    @contextlib.asynccontextmanager
    @subject.tracer.trace_component("resource")
    async def resource() -> AsyncIterator[str]:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        yield "ready"

    async with resource() as state:
        assert state == "ready"
        assert subject.tracer.current_component() is None
    assert subject.one("resource").ending == "ok"
