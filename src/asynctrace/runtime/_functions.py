"""The functions of the module `asynctrace`: the same as the methods of `Tracer`, meaning the default tracer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, TypeVar

from .._contracts import Link, Receipt, SpanKind
from ..tracing import ComponentTraceContext, TraceContext, current_component, current_trace, inject_at
from ..tracing import bind as bind_here
from ..tracing import extract as extract_from
from . import _registry
from ._registry import default_tracer
from ._tracer import Statistics

__all__ = [
    "add_log",
    "bind",
    "end_tracers",
    "extract",
    "flush",
    "flush_sync",
    "inject",
    "receipt",
    "set_outputs",
    "start_tracers",
    "statistics",
    "trace",
    "trace_component",
    "trace_stream",
]


F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S")


def trace(
    name: str,
    *,
    run_id: str | None = None,
    session_id: str | None = None,
    user_id: str | None = None,
    project: str | None = None,
    tags: Sequence[str] | None = None,
    metadata: Mapping[str, object] | None = None,
    inputs: object = None,
    context: TraceContext | None = None,
    kind: SpanKind | str | None = None,
    attributes: Mapping[str, object] | None = None,
    links: Sequence[TraceContext | ComponentTraceContext | Link] | None = None,
) -> TraceContext:
    """`Tracer.trace()` of the default tracer."""
    return default_tracer().trace(
        name,
        run_id=run_id,
        session_id=session_id,
        user_id=user_id,
        project=project,
        tags=tags,
        metadata=metadata,
        inputs=inputs,
        context=context,
        kind=kind,
        attributes=attributes,
        links=links,
    )


def trace_component(
    name: str,
    *,
    type: str | None = None,
    kind: SpanKind | str | None = None,
    inputs: object = None,
    metadata: Mapping[str, object] | None = None,
    attributes: Mapping[str, object] | None = None,
    links: Sequence[TraceContext | ComponentTraceContext | Link] | None = None,
) -> ComponentTraceContext:
    """`Tracer.trace_component()` of the default tracer."""
    return default_tracer().trace_component(
        name, type=type, kind=kind, inputs=inputs, metadata=metadata, attributes=attributes, links=links
    )


def trace_stream(
    name: str,
    source: S,
    *,
    type: str | None = None,
    kind: SpanKind | str | None = None,
    inputs: object = None,
    metadata: Mapping[str, object] | None = None,
    attributes: Mapping[str, object] | None = None,
    links: Sequence[TraceContext | ComponentTraceContext | Link] | None = None,
    text: Callable[[Any], str | None] | None = None,
) -> S:
    """`Tracer.trace_stream()` of the default tracer."""
    return default_tracer().trace_stream(
        name,
        source,
        type=type,
        kind=kind,
        inputs=inputs,
        metadata=metadata,
        attributes=attributes,
        links=links,
        text=text,
    )


def start_tracers(
    run_id: str | None,
    run_name: str,
    *,
    user_id: str | None = None,
    session_id: str | None = None,
    project_name: str | None = None,
) -> TraceContext:
    """`Tracer.start_tracers()` of the default tracer."""
    return default_tracer().start_tracers(
        run_id, run_name, user_id=user_id, session_id=session_id, project_name=project_name
    )


def end_tracers(outputs: object = None, error: BaseException | None = None, *, run: TraceContext | None = None) -> None:
    """`Tracer.end_tracers()` of the default tracer."""
    default_tracer().end_tracers(outputs, error, run=run)


def add_log(message: str, /, **fields: object) -> None:
    """Add a log line to the current component or run, of whichever tracer; outside both it does nothing."""
    target = current_component() or current_trace()
    if target is None:
        default_tracer()._outside("add_log")
    else:
        target.add_log(message, **fields)


def set_outputs(outputs: object, metadata: Mapping[str, object] | None = None) -> None:
    """Set the outputs of the current component or run, of whichever tracer; outside both it does nothing."""
    target = current_component() or current_trace()
    if target is None:
        default_tracer()._outside("set_outputs")
    else:
        target.set_outputs(outputs, metadata)


def bind(function: F) -> F:
    """`function`, to be called anywhere (a thread, a callback, an executor, another process) in the run and component of
    here. Called in another process it returns when what it traced is delivered; pickled, it takes the settings of its tracer
    along, of the default one where nothing is current. Raises `TypeError` for what cannot be called."""
    return bind_here(function, _registry._default)


def inject(carrier: MutableMapping[str, str]) -> None:
    """`Tracer.inject()` of whichever tracer is current here."""
    inject_at(current_component() or current_trace(), carrier)


def extract(carrier: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> TraceContext:
    """`Tracer.extract()` of the default tracer; where none was made, of one without settings."""
    tracer = _registry._default
    return extract_from(carrier) if tracer is None else tracer.extract(carrier)


async def flush(timeout: float | None = None, *, trace_id: str | None = None) -> Receipt:
    """`Tracer.flush()` of the default tracer."""
    return await default_tracer().flush(timeout, trace_id=trace_id)


def flush_sync(timeout: float | None = None, *, trace_id: str | None = None) -> Receipt:
    """`Tracer.flush_sync()` of the default tracer."""
    return default_tracer().flush_sync(timeout, trace_id=trace_id)


def receipt() -> Receipt:
    """`Tracer.receipt()` of the default tracer."""
    return default_tracer().receipt()


def statistics() -> Statistics:
    """`Tracer.statistics()` of the default tracer."""
    return default_tracer().statistics()
