"""`start_span()` and `start_as_current_span()` for one instrumentation scope."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry import trace as otel
from opentelemetry.context import Context

from .._contracts import Scope, SpanKind
from ..tracing._scope import component_var
from ..wire import scope_fields
from ._context import enter, leave
from ._parents import parent_in
from ._span import KINDS, Span, links_of

if TYPE_CHECKING:
    from ._provider import TracerProvider

__all__ = ["CurrentSpan", "Tracer"]

F = TypeVar("F", bound=Callable[..., Any])

_INTERNAL, _MOST = SpanKind.INTERNAL, otel.SpanKind.INTERNAL  # members of an enum are slow to look up, and as keys
_KINDS: dict[object, SpanKind] = {kind: SpanKind(number) for kind, number in KINDS.items()}


class Tracer(otel.Tracer):
    """Made by `TracerProvider.get_tracer()`."""

    def __init__(self, provider: TracerProvider, scope: Scope) -> None:
        self._provider = provider
        self._scope = scope_fields(scope)

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: otel.SpanKind = otel.SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[otel.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        """A span that is open and not current. `start_time` is in nanoseconds of the wall clock; None: now."""
        provider = self._provider
        recorder = provider.used()
        current = component_var.get()
        component = recorder._open_apart(
            name if isinstance(name, str) else str(name),
            parent=current
            if context is None and current is not None and current._recorder is recorder  # most of them
            else parent_in(context, recorder, provider.foreign_parents),
            kind=_INTERNAL if kind is _MOST else _KINDS.get(kind, _INTERNAL),
            links=links_of(links) if links else (),
            start_ns=None if start_time is None else int(start_time),
            scope=self._scope,
        )
        span = Span(component, None, record_exception, set_status_on_exception)
        if attributes:
            span.set_attributes(attributes)
        return span

    def start_as_current_span(  # type: ignore[override]  # a context manager of ours, and a decorator, as that of the API is
        self,
        name: str,
        context: Context | None = None,
        kind: otel.SpanKind = otel.SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[otel.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> CurrentSpan:
        """`with tracer.start_as_current_span("name") as span: …`; also decorates functions and coroutine functions."""
        arguments = (name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception)
        return CurrentSpan(self, arguments, end_on_exit)


class CurrentSpan:
    """A span for the length of a block, or of each call of a decorated function."""

    __slots__ = ("_arguments", "_ends", "_entered", "_span", "_tracer")

    _span: Span
    _entered: Any

    def __init__(self, tracer: Tracer, arguments: tuple[Any, ...], ends: bool) -> None:
        self._tracer = tracer
        self._arguments = arguments
        self._ends = ends

    def __enter__(self) -> Span:
        self._span = span = self._tracer.start_span(*self._arguments)
        self._entered = enter(span)
        return span

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        span = self._span
        leave(span, self._entered)
        if exc is not None:
            span._note(exc, span._records_exceptions, span._sets_status)
        if self._ends:
            span._end_by(exc)

    def __call__(self, function: F) -> F:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                with CurrentSpan(self._tracer, self._arguments, self._ends):
                    return await function(*args, **kwargs)

            return call_async  # type: ignore[return-value]

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with CurrentSpan(self._tracer, self._arguments, self._ends):
                return function(*args, **kwargs)

        return call  # type: ignore[return-value]
