"""Checks for the end of a test: is anything still open, has anything leaked into the context?

with assert_no_context_leaked():
    await handle(request)
assert_no_span_left_open(tracer)
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..runtime import Tracer

__all__ = ["assert_no_context_leaked", "assert_no_span_left_open"]


def assert_no_span_left_open(tracer: Tracer) -> None:
    """Raise `AssertionError`, naming them, while components of `tracer` have been entered and not ended."""
    __tracebackhide__ = True
    left = list(tracer._open)
    if left:
        raise AssertionError(f"{len(left)} spans are still open: {left!r}")


class assert_no_context_leaked:
    """A block, async or plain, after which the current run, component and `suppress()` are those from before it.

    Raises `AssertionError` otherwise, unless the block raises: then the block's own exception is the news.
    """

    _before: tuple[object, object]

    def __enter__(self) -> None:
        self._before = _current()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        after = _current()
        if exc is None and not all(new is old for new, old in zip(after, self._before, strict=True)):
            raise AssertionError(f"the context leaked: {self._before!r} before the block, {after!r} after it")

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        self.__exit__(exc_type, exc, traceback)


def _current() -> tuple[object, object]:
    # The variables themselves: in a suppressed region both functions say None, and that leaks too.
    from ..tracing._scope import component_var, trace_var

    return trace_var.get(), component_var.get()
