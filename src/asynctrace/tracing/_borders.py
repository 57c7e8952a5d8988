"""A place in a trace, as it crosses the border of a process: written down on one side, gone on from on the other.

The run of the far side is current there, but its root span is not the near side's to change: what is set on it counts as a
late call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..propagation import Carried, RemoteSpan, extract_headers, make_carrier, read_carrier
from ._component import ENDED, ComponentTraceContext
from ._heads import head
from ._run import TraceContext
from ._scope import Suppressed
from ._unrecorded import Unrecorded

if TYPE_CHECKING:
    from ._placement import Scope
    from ._recorder import Recorder

__all__ = ["carrier_at", "continue_from", "extract", "span_at"]


def span_at(scope: Scope) -> RemoteSpan | None:
    """What a span elsewhere has for its parent if it is made from here; None where nothing is current or traced."""
    if scope is None or isinstance(scope, Suppressed) or not scope.trace_id:
        return None
    if isinstance(scope, TraceContext):
        return RemoteSpan(scope.trace_id, scope.span_id, scope.is_sampled, scope.tracestate)
    is_sampled = not isinstance(scope, Unrecorded)
    return RemoteSpan(scope.trace_id, scope.span_id, is_sampled, scope.trace.tracestate)


def carrier_at(
    recorder: Recorder, run: TraceContext | None, component: ComponentTraceContext | Suppressed | None
) -> dict[str, Any] | None:
    """The place that these two are, as a carrier; None where there is nothing of this recorder."""
    scope = recorder._nearest(component, run)
    span = span_at(scope)
    if span is None:
        return None
    around = scope if isinstance(scope, TraceContext) else scope.trace  # type: ignore[union-attr]  # span_at() looked
    return make_carrier(around._carried(span))


def continue_from(recorder: Recorder, carrier: object) -> TraceContext | None:
    """A run to be made current here, whose components are children of the span that the carrier names. None for a carrier
    that cannot be used: it is counted, and told of once."""
    carried = read_carrier(carrier)
    if isinstance(carried, str):
        recorder._ignored(carried)
        return None
    run = TraceContext._from(carried)
    run._recorder = recorder
    if not carried.span.is_sampled or recorder._off:
        recorder._is_thinned = True  # without a root span nothing below it is recorded
    else:
        run._encode_common(recorder._encoder)
        run._root = _root_elsewhere(recorder, run, carried.span)
    return run


def extract(carrier: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> TraceContext:
    """See `Recorder.extract()`."""
    try:
        if isinstance(carrier, Mapping) and "asynctrace" in carrier:
            return TraceContext.from_carrier(carrier)
        if not isinstance(carrier, Mapping):
            carrier = list(carrier)  # it is read twice
        span = extract_headers(carrier)
        is_invalid = span is None and _has_a_caller(carrier)
    except Exception:  # noqa: BLE001  (a mapping of somebody else, which may do anything)
        span, is_invalid = None, True
    if span is not None:
        return TraceContext._from(Carried(span=span))
    context = TraceContext()
    context._invalid = "malformed" if is_invalid else ""
    return context


def _has_a_caller(carrier: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> bool:
    names = carrier if isinstance(carrier, Mapping) else (name for name, _ in carrier)
    texts = (name.decode("latin-1") if isinstance(name, bytes) else str(name) for name in names)
    return any(text.lower() == "traceparent" for text in texts)


def _root_elsewhere(recorder: Recorder, run: TraceContext, span: RemoteSpan) -> ComponentTraceContext:
    """Stands for a span of another process: it has ended as far as this one is concerned."""
    trace_id, span_id = bytes.fromhex(span.trace_id), bytes.fromhex(span.span_id)
    root: ComponentTraceContext = recorder._blank(ComponentTraceContext, recorder._nothing._shape)
    root._parent = root._run = root._restore = None
    root._head = head(trace_id, b"", None)
    root._child_head = head(trace_id, span_id, run, remote=True)
    root._id = span_id
    root._offset = recorder._clock_offset()
    root._start = 0
    root._place = -1
    root._state = ENDED
    return root
