"""`bind()`: what it takes, what it keeps, and that nothing but the run and the component is carried."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import Context, ContextVar, copy_context
from typing import Any

import pytest

from asynctrace import bind
from asynctrace.testing import assert_no_context_leaked

from ..processes import wrong_binds
from .recording import Recording

color: ContextVar[str] = ContextVar("color", default="none")

# What it takes -------------------------------------------------------------------------------------------------------


class Work:
    """Traces `there` by its methods; may be called itself."""

    def __init__(self, subject: Recording, number: int = 41) -> None:
        self.subject = subject
        self.number = number

    def method(self, more: int = 1) -> int:
        with self.subject.tracer.trace_component("there"):
            return self.number + more

    __call__ = method

    async def coroutine_method(self, more: int = 1) -> int:
        await asyncio.sleep(0)
        return self.method(more)


class AsyncWork(Work):
    async def __call__(self, more: int = 1) -> int:  # type: ignore[override]
        return await self.coroutine_method(more)


class Traced:
    """Traces when an object is made."""

    subject: Recording

    def __init__(self) -> None:
        with self.subject.tracer.trace_component("there"):
            self.value = 42

    @classmethod
    def of_class(cls) -> int:
        return cls().value

    @staticmethod
    def static() -> int:
        return Traced().value

    def __eq__(self, other: object) -> bool:
        return self.value == other

    __hash__ = None  # type: ignore[assignment]


def decorated(subject: Recording) -> Callable[[], int]:
    @subject.tracer.trace_component("there")
    def function() -> int:
        return 42

    return function


def class_of(subject: Recording) -> type[Traced]:
    Traced.subject = subject
    return Traced


@pytest.fixture(autouse=True)
def a_class_that_keeps_nothing() -> Iterator[None]:
    yield
    if "subject" in vars(Traced):
        del Traced.subject


KINDS: dict[str, Callable[[Recording], Any]] = {
    "bound method": lambda subject: Work(subject).method,
    "lambda": lambda subject: lambda: Work(subject).method(),
    "partial": lambda subject: functools.partial(Work(subject).method, 1),
    "partial of a partial": lambda subject: functools.partial(functools.partial(Work.method, more=1), Work(subject)),
    "callable object": Work,
    "class": class_of,
    "class method": lambda subject: class_of(subject).of_class,
    "static method": lambda subject: class_of(subject).static,
    "decorated function": decorated,
    "bound again": lambda subject: bind(Work(subject).method),
    "coroutine method": lambda subject: Work(subject).coroutine_method,
    "partial of a coroutine method": lambda subject: functools.partial(Work(subject).coroutine_method, 1),
    "callable object with a coroutine": AsyncWork,
}


async def check_it_runs_where_it_was_bound(kind: str, carry: Any) -> None:
    subject = Recording()
    tracer = subject.tracer
    with tracer.trace("first"), tracer.trace_component("here") as here:
        bound = carry(KINDS[kind](subject))
    with tracer.trace("second"), tracer.trace_component("elsewhere") as elsewhere:
        result = bound()
        if inspect.isawaitable(result):
            result = await result
        assert result == 42
        assert tracer.current_component() is elsewhere
    assert subject.one("there").parent_id == here.span_id
    assert subject.one("there").trace_id == subject.one("first").trace_id


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_can_be_called_runs_where_it_was_bound(kind: str) -> None:
    asyncio.run(check_it_runs_where_it_was_bound(kind, bind))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bound again"])
def test_what_is_not_bound_is_noticed(kind: str) -> None:
    with pytest.raises(AssertionError):
        asyncio.run(check_it_runs_where_it_was_bound(kind, lambda function: function))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "coroutine" in kind])
def test_a_bind_that_only_makes_the_coroutine_where_it_should_is_noticed(kind: str) -> None:
    with pytest.raises(AssertionError):
        asyncio.run(check_it_runs_where_it_was_bound(kind, wrong_binds.carries_the_run_only))


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Generates:
    def __call__(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize(
    "function",
    [generator, async_generator, functools.partial(generator), functools.partial(async_generator), Generates()],
    ids=["generator", "async generator", "partial", "partial of async", "object"],
)
def test_a_generator_function_is_refused_since_calling_it_runs_nothing(function: Any) -> None:
    with pytest.raises(TypeError, match="iterates a generator"):
        bind(function)


@pytest.mark.parametrize("nothing", [None, 3, "print", [print]])
def test_what_cannot_be_called_is_refused(nothing: Any) -> None:
    with pytest.raises(TypeError, match=r"bind\(on_done\)"):
        bind(nothing)


# What it keeps -------------------------------------------------------------------------------------------------------


def price(tea: str, *, grams: int = 100) -> float:
    """What it costs."""
    return len(tea) * grams / 100


async def price_of(tea: str) -> float:
    """The same, later."""
    return price(tea)


@pytest.mark.parametrize("function", [price, price_of, Work.method])
def test_name_documentation_and_signature_stay(function: Any) -> None:
    bound = bind(function)
    for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(bound, attribute) == getattr(function, attribute)
    assert inspect.signature(bound) == inspect.signature(function)


def test_a_coroutine_function_is_still_one() -> None:
    """Frameworks ask, and call everything else in a thread."""
    assert inspect.iscoroutinefunction(bind(price_of))
    assert not inspect.iscoroutinefunction(bind(price))


def test_arguments_pass_as_they_are() -> None:
    assert bind(price)("Sencha", grams=50) == 3.0
    with pytest.raises(TypeError, match="unexpected keyword argument 'ounces'"):
        bind(price)("Sencha", ounces=3)  # type: ignore[call-arg]


# What it leaves alone ------------------------------------------------------------------------------------------------


def check_other_variables_are_left_alone(carry: Any) -> None:
    def work() -> str:
        seen = color.get()
        color.set("set inside")
        return seen

    color.set("where it was bound")
    bound = carry(work)
    color.set("where it is called")
    assert bound() == "where it is called"
    assert color.get() == "set inside"


def test_other_context_variables_are_left_alone() -> None:
    copy_context().run(check_other_variables_are_left_alone, bind)


def test_a_bind_that_carries_the_whole_context_is_noticed() -> None:
    with pytest.raises(AssertionError):
        copy_context().run(check_other_variables_are_left_alone, wrong_binds.carries_the_whole_context)


def check_it_may_be_called_inside_itself(carry: Any) -> None:
    depths: list[int] = []

    def work(depth: int) -> None:
        depths.append(depth)
        if depth:
            bound(depth - 1)

    bound = carry(work)
    bound(3)
    assert depths == [3, 2, 1, 0]


def test_it_may_be_called_inside_itself() -> None:
    check_it_may_be_called_inside_itself(bind)


def test_a_bind_that_can_only_be_entered_once_is_noticed() -> None:
    with pytest.raises(RuntimeError):
        check_it_may_be_called_inside_itself(wrong_binds.carries_the_whole_context)


def check_what_it_leaves_open_is_not_left_current(carry: Any) -> None:
    subject = Recording()
    component = subject.tracer.trace_component("open")
    with assert_no_context_leaked():
        carry(component.start)()
    component.end()


def test_a_component_that_it_leaves_open_is_not_current_after_it() -> None:
    check_what_it_leaves_open_is_not_left_current(bind)


def test_a_component_that_stays_current_is_noticed() -> None:
    with pytest.raises(AssertionError):
        copy_context().run(check_what_it_leaves_open_is_not_left_current, wrong_binds.forgets_to_restore)


# A coroutine may be closed elsewhere -----------------------------------------------------------------------------------


def check_a_coroutine_may_end_in_another_context(carry: Any, end: Callable[[Any], object]) -> None:
    """As by a collection, which runs in the middle of anything."""
    subject = Recording()
    tracer = subject.tracer
    there: list[Any] = []

    async def work() -> None:
        with tracer.trace_component("there") as component:
            there.append(component)
            await asyncio.Future()

    with tracer.trace("first"), tracer.trace_component("here") as here:
        bound = carry(work)

    def begin() -> Any:
        tracer.trace_component("around").start()
        coroutine = bound()
        coroutine.send(None)
        return coroutine

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        coroutines = [Context().run(begin)]
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    with assert_no_context_leaked(), tracer.trace("second"), tracer.trace_component("elsewhere") as elsewhere:
        end(coroutines)
        assert tracer.current_component() is elsewhere
    assert subject.one("there").parent_id == here.span_id
    assert subject.one("there").ending == "abandoned"


def close(coroutines: list[Any]) -> None:
    coroutines.pop().close()


def collect(coroutines: list[Any]) -> None:
    coroutines.clear()
    gc.collect()


@pytest.mark.parametrize("end", [close, collect])
def test_a_bound_coroutine_may_be_ended_in_another_context(end: Any) -> None:
    check_a_coroutine_may_end_in_another_context(bind, end)


@pytest.mark.parametrize("carry", [wrong_binds.restores_by_token, wrong_binds.restores_wherever_it_ends])
def test_a_coroutine_that_restores_into_a_foreign_context_is_noticed(carry: Any) -> None:
    with pytest.raises((AssertionError, ValueError)):
        Context().run(check_a_coroutine_may_end_in_another_context, carry, close)


async def check_every_step_is_where_it_was_bound(carry: Any) -> None:
    subject = Recording()
    tracer = subject.tracer

    async def work() -> str:
        async with tracer.trace_component("first step"):
            await asyncio.sleep(0)
        async with tracer.trace_component("second step"), asyncio.TaskGroup() as group:
            group.create_task(below())
        return "done"

    async def below() -> None:
        async with tracer.trace_component("below"):
            await asyncio.sleep(0)

    async with tracer.trace_component("here") as here:
        bound = carry(work)
    async with tracer.trace_component("caller") as caller:
        assert await bound() == "done"
        assert tracer.current_component() is caller
    assert {span.parent_id for span in subject.spans if span.name.endswith("step")} == {here.span_id}
    assert subject.one("below").parent_id == subject.one("second step").span_id


def test_every_step_of_a_bound_coroutine_is_where_it_was_bound() -> None:
    asyncio.run(check_every_step_is_where_it_was_bound(bind))


def test_steps_that_are_somewhere_else_are_noticed() -> None:
    with pytest.raises(AssertionError):
        asyncio.run(check_every_step_is_where_it_was_bound(wrong_binds.carries_the_run_only))


async def check_a_cancellation_reaches_what_is_bound(carry: Any) -> None:
    subject = Recording()

    async def work() -> None:
        async with subject.tracer.trace_component("there"):
            await asyncio.Event().wait()

    with assert_no_context_leaked(), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await carry(work)()
    assert subject.one("there").ending == "cancelled"


def test_a_cancellation_reaches_what_is_bound() -> None:
    asyncio.run(check_a_cancellation_reaches_what_is_bound(bind))
