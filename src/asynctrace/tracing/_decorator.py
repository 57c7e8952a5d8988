"""`@trace_component("name")` on a function, a coroutine function, a generator or an async generator.

A generator is stepped in a context of its own: between two yields the consumer's current component is the consumer's.
Dropping it early (`break`, `aclose()`, garbage collection) ends its component `abandoned`. What it yields is noted, see
`_stream_notes`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextvars import Context, copy_context
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

if TYPE_CHECKING:
    from ._component import ComponentTraceContext

__all__ = ["InContext", "Place", "decorate"]

F = TypeVar("F", bound=Callable[..., Any])
Template = Callable[[], "ComponentTraceContext"]
"""Makes a fresh component for each call."""


def decorate(template: Template, function: F) -> F:
    """Wrap `function` so that each call is a component made by `template`. Raises `TypeError` for anything else."""
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"trace_component('name') decorates functions, not {function!r:.80}")
    if inspect.isasyncgenfunction(function):
        return cast(F, _async_generator(template, function))
    if inspect.isgeneratorfunction(function):
        return cast(F, _generator(template, function))
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004  (what it is, not whether)
        return cast(F, _coroutine_function(template, function))
    return cast(F, _function(template, function))


def _function(template: Template, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with template():
            return function(*args, **kwargs)

    return call


def _coroutine_function(template: Template, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        async with template():
            return await function(*args, **kwargs)

    return call


def _generator(template: Template, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        component = template()

        def body() -> Generator[Any, Any, Any]:
            with component:
                return (yield from function(*args, **kwargs))

        return (yield from _step(body(), copy_context(), component))

    return call


def _step(
    generator: Generator[Any, Any, Any], context: Context, component: ComponentTraceContext
) -> Generator[Any, Any, Any]:
    """Run each step of `generator` in `context`, and note what it yields; otherwise the same generator."""
    try:
        item = context.run(next, generator)
        while True:
            component._took(item)
            try:
                sent = yield item
            except GeneratorExit:
                raise
            except BaseException as exc:  # noqa: BLE001  (the consumer's throw() belongs to the generator)
                item = context.run(generator.throw, exc)
            else:
                item = context.run(generator.send, sent)
    except StopIteration as stop:
        return stop.value
    finally:
        context.run(generator.close)


def _async_generator(template: Template, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        context = copy_context()
        generator = function(*args, **kwargs)
        component = template()
        context.run(component.__enter__)
        exc_info: tuple[Any, Any, Any] = (None, None, None)
        try:
            step = InContext(_first_step(generator), context)
            while True:
                try:
                    item = await step
                except StopAsyncIteration:
                    break
                component._took(item)
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as exc:  # noqa: BLE001  (the consumer's athrow() belongs to the generator)
                    step = InContext(generator.athrow(exc), context)
                else:
                    step = InContext(generator.asend(sent), context)
        except BaseException as exc:
            exc_info = (type(exc), exc, exc.__traceback__)
            raise
        finally:
            try:
                await InContext(generator.aclose(), context)
            finally:
                context.run(component.__exit__, *exc_info)

    return call


def _first_step(generator: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Begin `generator` without the event loop's notice: at its end a loop closes at once all that it has seen begin, and
    this one is closed by the generator around it. Two closings of one generator are an error."""
    noticed = sys.get_asyncgen_hooks().firstiter
    sys.set_asyncgen_hooks(firstiter=None)
    try:
        return generator.__anext__()
    finally:
        sys.set_asyncgen_hooks(firstiter=noticed)


class Place(Protocol):
    """Where a step can be run: a `Context`, or what is like one."""

    def run(self, step: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any: ...


class InContext:
    """Await `awaitable` with each of its steps in `context`; what it waits for reaches the event loop unchanged."""

    __slots__ = ("_context", "_steps")

    def __init__(self, awaitable: Awaitable[Any], context: Place) -> None:
        self._steps = awaitable.__await__()
        self._context = context

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # type: ignore[return-value]  # an iterator with send() and throw() is all that await needs

    def __iter__(self) -> InContext:
        return self

    def __next__(self) -> Any:
        return self._context.run(next, self._steps)

    def send(self, value: Any) -> Any:
        return self._context.run(self._steps.send, value)

    def throw(
        self,
        exc: BaseException | type[BaseException],
        value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> Any:
        return self._context.run(self._steps.throw, exc if value is None else value)  # type: ignore[arg-type, unused-ignore]

    def close(self) -> None:
        self._context.run(self._steps.close)
