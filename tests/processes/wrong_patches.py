"""Patches of threads that are wrong, each in one respect: put in place by `with fault(): …` around the checks, which call
`patch_threads()` themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import pytest

from asynctrace.delivery import _home
from asynctrace.exporters import _aside
from asynctrace.processes import _threads
from asynctrace.spanlog.journal import _keeper
from asynctrace.tracing._scope import component_var, trace_var

__all__ = [
    "binds_at_the_run",
    "carries_the_whole_context",
    "forgets_to_restore",
    "forgets_timers",
    "holds_on_after_restore",
    "ignores_contexts",
    "in_place",
    "keeps_what_it_carries",
    "leaks_into_the_pool",
    "leaves_others_out",
    "methods",
    "starts_own_threads_in_the_run",
    "wraps_without_end",
]


def methods() -> tuple[Any, Any]:
    """What is patched."""
    return ThreadPoolExecutor.submit, threading.Thread.start


@contextmanager
def in_place(fault: Callable[[], Any]) -> Iterator[None]:
    """A block with a wrong patch; after it nothing is patched, whatever the wrong one left."""
    before = methods()
    try:
        with fault():
            yield
    finally:
        _threads._held.clear()
        _threads._ours.clear()
        ThreadPoolExecutor.submit, threading.Thread.start = before  # type: ignore[method-assign]


@contextmanager
def _with(name: str, value: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_threads, name, value)
        yield


class _CarriesAll:
    def __init__(self, function: Callable[..., Any], *_: Any) -> None:
        self._context = copy_context()
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._context.run(self._function, *args, **kwargs)


def carries_the_whole_context() -> Any:
    return _with("_Carried", _CarriesAll)


class _AtTheRun:
    """Looks for the run where the work runs."""

    def __init__(self, function: Callable[..., Any], *_: Any) -> None:
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)


def binds_at_the_run() -> Any:
    return _with("_Carried", _AtTheRun)


class _Leaks(_threads._Carried):
    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        trace_var.set(self._run)
        component_var.set(self._component)
        return self._function(*args, **kwargs)


def forgets_to_restore() -> Any:
    return _with("_Carried", _Leaks)


def ignores_contexts() -> Any:
    return _with("_has_a_context_of_its_own", lambda thread: False)


def leaks_into_the_pool() -> Any:
    """The thread that a pool starts inside a run belongs to that run for ever."""
    return _with("_SERVANTS", frozenset())


def keeps_what_it_carries() -> Any:
    def carry_into(thread: threading.Thread) -> Callable[[], object]:
        setattr(thread, "run", _threads._carried(thread.run))  # noqa: B010
        return _threads._nothing

    return _with("_carry_into", carry_into)


class _TakesOutAnything(_threads._Method):
    """Puts back what was there when it came."""

    def put_in(self) -> None:
        self._before = vars(self._owner).get(self._name)
        super().put_in()

    def take_out(self) -> None:
        if self._before is not None:
            setattr(self._owner, self._name, self._before)


class _WrapsWithoutEnd(_threads._Method):
    def put_in(self) -> None:
        _threads._ours.clear()
        super().put_in()


class _HoldsOn(_threads._Method):
    def take_out(self) -> None:
        return None


def _with_methods(kind: type[_threads._Method]) -> Any:
    methods = (
        kind(ThreadPoolExecutor, "submit", _threads._carrying_submit),
        kind(threading.Thread, "start", _threads._carrying_start),
        _threads._Method(threading.Timer, "start", _threads._carrying_start),
    )
    return _with("_METHODS", methods)


def leaves_others_out() -> Any:
    return _with_methods(_TakesOutAnything)


def wraps_without_end() -> Any:
    return _with_methods(_WrapsWithoutEnd)


def holds_on_after_restore() -> Any:
    return _with_methods(_HoldsOn)


def forgets_timers() -> Any:
    return _with("_METHODS", _threads._METHODS[:2])


class _Here:
    """In the place of an empty context: the one that is there."""

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


@contextmanager
def starts_own_threads_in_the_run() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (_home, _keeper, _aside):
            patch.setattr(module, "Context", _Here)
        yield
