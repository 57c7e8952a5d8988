"""`bind(function)`: carry the current run and component to wherever the function is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

from ._scope import component_var, trace_var

__all__ = ["bind"]

F = TypeVar("F", bound=Callable[..., Any])


def bind(function: F) -> F:
    """`function`, which will run in the run and component that are current now, in any thread, task or callback.

    Other context variables are untouched. Works for functions and coroutine functions; may be called many times, also
    at once. Raises `TypeError` for what cannot be called.
    """
    if not callable(function):
        raise TypeError(f"bind() takes a function, bind(on_done), not {type(function).__name__}")
    run, component = trace_var.get(), component_var.get()

    @contextmanager
    def here() -> Iterator[None]:
        outer_run, outer_component = trace_var.get(), component_var.get()
        trace_var.set(run)
        component_var.set(component)
        try:
            yield
        finally:
            trace_var.set(outer_run)
            component_var.set(outer_component)

    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with here():
                return await function(*args, **kwargs)

        return cast(F, call_async)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with here():
            return function(*args, **kwargs)

    return cast(F, call)
