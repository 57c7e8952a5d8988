"""`bind(function)`: carry the current run and component to wherever the function is called, also in another process.

    bound here, called here or in a forked child     the run and component themselves
    pickled, called in another process               a carrier, and the tracer that goes on there

What a call in another process has traced is delivered before the call returns: nobody knows how long that process lives.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import partial, update_wrapper, wraps
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ._borders import carrier_at, continue_from
from ._component import ComponentTraceContext
from ._decorator import InContext
from ._scope import SUPPRESSED, Suppressed, component_var, trace_var

if TYPE_CHECKING:
    from ._recorder import Recorder
    from ._run import TraceContext

__all__ = ["Bound", "Continued", "PlaceInTrace", "bind"]

F = TypeVar("F", bound=Callable[..., Any])
Component = ComponentTraceContext | Suppressed | None


def bind(function: F, recorder: Recorder | None = None) -> F:
    """`function`, which will run in the run and component that are current now, in any thread, task, callback or process.

    Other context variables are untouched. Works for functions, methods, classes, coroutine functions, and objects with a
    `__call__` of either kind; may be called many times, also at once. What is bound to a function can be pickled if that
    can; `recorder` goes with it where nothing is current. Raises `TypeError` for what cannot be called, and for generator
    functions: calling one runs nothing of it, so bind the function that iterates it.
    """
    if not callable(function):
        raise TypeError(f"bind() takes a function, bind(on_done), not {type(function).__name__}")
    called = _what_is_called(function)
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise TypeError(
            f"bind() takes the function that iterates a generator, not the generator function {function!r:.80}"
        )
    run, component = trace_var.get(), component_var.get()
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called):

        @wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            return await InContext(function(*args, **kwargs), PlaceInTrace(run, component))

        return cast(F, call_async)
    return cast(F, Bound(function, run, component, _recorder_of(run, component) or recorder))


class Bound:
    """A function bound to a place in a trace."""

    def __init__(
        self, function: Callable[..., Any], run: TraceContext | None, component: Component, recorder: Recorder | None
    ) -> None:
        update_wrapper(self, function)
        self._function = function
        self._run = run
        self._component = component
        self._recorder = recorder
        self._process = os.getpid()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        try:
            return PlaceInTrace(self._run, self._component).run(self._function, *args, **kwargs)
        finally:
            if self._recorder is not None and os.getpid() != self._process:
                self._recorder._task_ended()

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self) -> tuple[Callable[..., Continued], tuple[Any, ...]]:
        recorder = self._recorder
        is_suppressed = isinstance(self._component, Suppressed)
        carrier = None if recorder is None else carrier_at(recorder, self._run, self._component)
        return Continued, (self._function, recorder, carrier, is_suppressed)

    def __repr__(self) -> str:
        return f"<bound {self._function!r}>"


class Continued:
    """A `Bound` that has come to another process."""

    def __init__(
        self, function: Callable[..., Any], recorder: Recorder | None, carrier: object, is_suppressed: bool
    ) -> None:
        update_wrapper(self, function)
        self._arguments = function, recorder, carrier, is_suppressed

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        function, recorder, carrier, is_suppressed = self._arguments
        if recorder is not None:
            recorder._require()
        run = None if recorder is None or carrier is None else continue_from(recorder, carrier)
        try:
            return PlaceInTrace(run, SUPPRESSED if is_suppressed else None).run(function, *args, **kwargs)
        finally:
            if recorder is not None:
                recorder._task_ended()

    def __reduce__(self) -> tuple[type[Continued], tuple[Any, ...]]:
        return type(self), self._arguments

    def __repr__(self) -> str:
        return f"<bound {self._arguments[0]!r}>"


def _what_is_called(function: Callable[..., Any]) -> Any:
    """The function behind a partial or an object with `__call__`."""
    while isinstance(function, partial):
        function = function.func
    if inspect.isroutine(function) or isinstance(function, type):
        return function
    return type(function).__call__


class PlaceInTrace:
    """A run and a component in which the steps of one call go on: `Context.run()` for these two variables only.

    A coroutine may be closed by a collection in the middle of another task: what was current around a step is put back
    after that step, never after a later one.
    """

    __slots__ = ("_component", "_run")

    def __init__(self, run: TraceContext | None, component: Component) -> None:
        self._run = run
        self._component = component

    def run(self, step: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        outer_run, outer_component = trace_var.get(), component_var.get()
        trace_var.set(self._run)
        component_var.set(self._component)
        try:
            return step(*args, **kwargs)
        finally:
            self._run, self._component = trace_var.get(), component_var.get()
            trace_var.set(outer_run)
            component_var.set(outer_component)


def _recorder_of(run: TraceContext | None, component: Component) -> Recorder | None:
    """The tracer of the innermost scope."""
    if isinstance(component, ComponentTraceContext):
        recorder: Recorder = component._recorder._itself()
        return recorder
    return None if run is None else run._recorder
