"""Ways to carry the current run and component that are wrong, each in one respect."""

from __future__ import annotations

from contextvars import copy_context
from functools import wraps
from typing import Any

from asynctrace.tracing._scope import component_var, trace_var

__all__ = [
    "binds_at_the_call",
    "binds_to_the_latest",
    "carries_the_run_only",
    "carries_the_whole_context",
    "forgets_to_restore",
    "restores_by_token",
    "restores_wherever_it_ends",
]


def carries_the_whole_context(function: Any) -> Any:
    context = copy_context()

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return context.run(function, *args, **kwargs)

    return call


def binds_at_the_call(function: Any) -> Any:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def binds_to_the_latest(function: Any) -> Any:
    """One place for all."""
    _latest[:] = [trace_var.get(), component_var.get()]

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        outer = trace_var.get(), component_var.get()
        _set(*_latest)
        try:
            return function(*args, **kwargs)
        finally:
            _set(*outer)

    return call


_latest: list[Any] = []


def forgets_to_restore(function: Any) -> Any:
    run, component = trace_var.get(), component_var.get()

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        _set(run, component)
        return function(*args, **kwargs)

    return call


def carries_the_run_only(function: Any) -> Any:
    run = trace_var.get()

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        outer = trace_var.get(), component_var.get()
        _set(run, None)
        try:
            return function(*args, **kwargs)
        finally:
            _set(*outer)

    return call


# Of coroutine functions ----------------------------------------------------------------------------------------------


def restores_by_token(function: Any) -> Any:
    run, component = trace_var.get(), component_var.get()

    @wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        tokens = trace_var.set(run), component_var.set(component)
        try:
            return await function(*args, **kwargs)
        finally:
            trace_var.reset(tokens[0])
            component_var.reset(tokens[1])

    return call


def restores_wherever_it_ends(function: Any) -> Any:
    run, component = trace_var.get(), component_var.get()

    @wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        outer = trace_var.get(), component_var.get()
        _set(run, component)
        try:
            return await function(*args, **kwargs)
        finally:
            _set(*outer)

    return call


def _set(run: Any, component: Any) -> None:
    trace_var.set(run)
    component_var.set(component)
