"""Streams: what an iterator or async iterator yields, noted on a component while it passes.

    observe()        an existing component notes the chunks; it ends when its block does
    TracedStream     owns its component: from the request to the last chunk, however the consumer leaves
    TracedAsyncStream

A stream that owns its component steps its source where that component is current, so what the source does belongs to it;
between two steps the consumer's current component is the consumer's. Exhausted it ends `ok`; failed, as the exception says;
closed early, dropped or never read, `abandoned`. Everything else that the source can do, the stream can: attributes are
looked up in the source.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._contracts import Ending
from ._decorator import InContext, Place

if TYPE_CHECKING:
    from ._component import ComponentTraceContext

__all__ = ["TracedAsyncStream", "TracedStream", "check_stream", "observe", "own"]

Text = Callable[[Any], "str | None"] | None


def observe(component: ComponentTraceContext, source: Any, text: Text) -> Any:
    """`source`, whose chunks `component` notes. Raises as `check_stream()`."""
    check_stream(source, text)
    kind = _ObservedAsync if hasattr(source, "__aiter__") else _Observed
    return kind(component, source, text)


def own(component: ComponentTraceContext, source: Any, text: Text, place: Place) -> Any:
    """`source` as the stream whose steps are taken in `place`, and whose end is the end of `component`."""
    kind = TracedAsyncStream if hasattr(source, "__aiter__") else TracedStream
    return kind(component, source, text, place)


def check_stream(source: object, text: object) -> None:
    """Raise `TypeError` for what cannot be iterated, and for a `text` that takes no chunk."""
    if not (hasattr(source, "__aiter__") or hasattr(source, "__iter__")):
        first = ": await it first" if inspect.isawaitable(source) else ": call it first" if callable(source) else ""
        raise TypeError(f"a stream is an iterator or async iterator, not {type(source).__name__}{first}")
    if text is not None and not callable(text):
        raise TypeError(f"text is a function, text=lambda chunk: chunk.delta, not {type(text).__name__}")


class _Source:
    """What all of them share: the source, and its other abilities."""

    def __init__(self, component: ComponentTraceContext, source: Any, text: Text) -> None:
        self._component = component
        self._source = source
        self._text = text
        self._steps: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __repr__(self) -> str:
        return f"<traced {self._source!r}>"


class _Observed(_Source):
    def __iter__(self) -> _Observed:
        if self._steps is None:
            self._steps = iter(self._source)
        return self

    def __next__(self) -> Any:
        if self._steps is None:
            self._steps = iter(self._source)
        chunk = next(self._steps)
        self._component._took(chunk, self._text)
        return chunk


class _ObservedAsync(_Source):
    def __aiter__(self) -> _ObservedAsync:
        if self._steps is None:
            self._steps = aiter(self._source)
        return self

    async def __anext__(self) -> Any:
        if self._steps is None:
            self._steps = aiter(self._source)
        chunk = await anext(self._steps)
        self._component._took(chunk, self._text)
        return chunk


class _Owner(_Source):
    """Ends its component once."""

    def __init__(self, component: ComponentTraceContext, source: Any, text: Text, place: Place) -> None:
        super().__init__(component, source, text)
        self._place = place

    def _end(self, exc: BaseException | None = None) -> None:
        if not self._component.is_recording:
            return
        if exc is None:
            self._component._end_apart(Ending.OK)
        else:
            self._component._store(self._component._end_by(exc))

    def _give_up(self) -> None:
        if self._component.is_recording:
            self._component._end_apart(Ending.ABANDONED)

    def __del__(self) -> None:
        try:
            self._give_up()
        except AttributeError:
            return  # never completed


class TracedStream(_Owner):
    """An iterator that is one component. `close()`, or leaving its `with` block, ends it."""

    def __iter__(self) -> TracedStream:
        return self

    def __next__(self) -> Any:
        try:
            if self._steps is None:
                self._steps = self._place.run(iter, self._source)
            chunk = self._place.run(next, self._steps)
        except StopIteration:
            self._end()
            raise
        except BaseException as exc:
            self._end(exc)
            raise
        self._component._took(chunk, self._text)
        return chunk

    def close(self) -> None:
        """Close the source, if it can be closed. Idempotent as the source is."""
        close = getattr(self._source, "close", None)
        try:
            if close is not None:
                self._place.run(close)
        finally:
            self._give_up()

    def __enter__(self) -> TracedStream:
        if hasattr(self._source, "__enter__"):
            self._steps = iter(self._place.run(self._source.__enter__))
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> Any:
        try:
            if hasattr(self._source, "__exit__"):
                return self._place.run(self._source.__exit__, exc_type, exc, traceback)
            self.close()
            return None
        finally:
            self._give_up() if exc is None else self._end(exc)


class TracedAsyncStream(_Owner):
    """An async iterator that is one component. `aclose()`, or leaving its `async with` block, ends it."""

    def __aiter__(self) -> TracedAsyncStream:
        return self

    async def __anext__(self) -> Any:
        try:
            if self._steps is None:
                self._steps = self._place.run(aiter, self._source)
            chunk = await InContext(self._place.run(anext, self._steps), self._place)
        except StopAsyncIteration:
            self._end()
            raise
        except BaseException as exc:
            self._end(exc)
            raise
        self._component._took(chunk, self._text)
        return chunk

    async def aclose(self) -> None:
        """Close the source by its `aclose()` or `close()`, if it has one. Idempotent as the source is."""
        close = getattr(self._source, "aclose", None) or getattr(self._source, "close", None)
        try:
            if close is not None:
                closing = self._place.run(close)
                if inspect.isawaitable(closing):
                    await InContext(closing, self._place)
        finally:
            self._give_up()

    async def __aenter__(self) -> TracedAsyncStream:
        if hasattr(self._source, "__aenter__"):
            entered = await InContext(self._place.run(self._source.__aenter__), self._place)
            self._steps = aiter(entered)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> Any:
        try:
            if hasattr(self._source, "__aexit__"):
                return await InContext(self._place.run(self._source.__aexit__, exc_type, exc, traceback), self._place)
            await self.aclose()
            return None
        finally:
            self._give_up() if exc is None else self._end(exc)
