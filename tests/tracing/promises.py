"""A promise is a check function; its test runs it on the real thing, and on tracers with a fault it must
catch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from .faulty import NaiveTracer
from .recording import Recording

# What a broken tracer does to a program: a wrong record, a record too many or too few, an exception of its
# own.
_CAUGHT = (AssertionError, ValueError, BaseExceptionGroup)


def promise(*faulty: type[NaiveTracer], naive: bool = True) -> Callable[[Callable[[Any], Any]], Callable[..., Any]]:
    """Make a test of a check. The check must pass for `Recording` (and `NaiveTracer`) and fail for each of
    `faulty`."""

    def decorate(check: Callable[[Any], Any]) -> Callable[..., Any]:
        keeping = [Recording, NaiveTracer] if naive else [Recording]
        subjects = [pytest.param(make, None, id=make.__name__) for make in keeping]
        subjects += [pytest.param(make, _CAUGHT, id=make.__name__) for make in faulty]
        test: Callable[..., Any]
        if inspect.iscoroutinefunction(check):

            async def test(make: Any, caught: Any) -> None:
                if caught is None:
                    return await check(make())
                with pytest.raises(caught):
                    await check(make())

        else:

            def test(make: Any, caught: Any) -> None:
                if caught is None:
                    return check(make())
                with pytest.raises(caught):
                    check(make())

        test.__name__ = test.__qualname__ = check.__name__
        test.__doc__, test.__module__ = check.__doc__, check.__module__
        return pytest.mark.parametrize(("make", "caught"), subjects)(test)

    return decorate
