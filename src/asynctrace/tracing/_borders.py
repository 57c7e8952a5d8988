"""A place in a trace, as it crosses the border of a process: written down on one side, gone on from on the other.

The run of the far side is current there, but its root span is not the near side's to change: what is set on it counts as a
late call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ..propagation import (
    NO_BAGGAGE,
    W3C,
    Carried,
    Extracted,
    Propagators,
    RemoteSpan,
    make_carrier,
    read_carrier,
)
from ._component import ENDED, ComponentTraceContext
from ._heads import head
from ._run import TraceContext
from ._scope import Suppressed
from ._unrecorded import Unrecorded

if TYPE_CHECKING:
    from ._placement import Scope
    from ._recorder import Recorder

__all__ = ["carrier_at", "continue_from", "extract", "inject_at", "run_elsewhere", "span_at"]


def span_at(scope: Scope) -> RemoteSpan | None:
    """What a span elsewhere has for its parent if it is made from here; None where nothing is current or traced."""
    if scope is None or isinstance(scope, Suppressed) or not scope.trace_id:
        return None
    if isinstance(scope, TraceContext):
        return scope._remote(scope.trace_id, scope.span_id, scope.is_sampled)
    return scope.trace._remote(scope.trace_id, scope.span_id, not isinstance(scope, Unrecorded))


def inject_at(scope: Scope, carrier: MutableMapping[str, str]) -> None:
    """Write this place into `carrier`, in the formats of the tracer whose it is; nothing where there is nothing to write.
    Raises `TypeError` for what takes no values by name."""
    kind = type(carrier)
    if not hasattr(kind, "__setitem__") or issubclass(kind, list):
        raise TypeError(f"inject() writes into a mapping, headers = {{}}; inject(headers), not {kind.__name__}")
    span = span_at(scope)
    if span is not None:
        run: TraceContext = scope if isinstance(scope, TraceContext) else scope.trace  # type: ignore[union-attr]  # span_at() looked
        recorder = scope._recorder  # type: ignore[union-attr]
        recorder._propagators.inject(carrier, span, run._baggage)  # type: ignore[union-attr]


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


def run_elsewhere(recorder: Recorder, span: RemoteSpan) -> TraceContext:
    """A run to be made current whose components are children of a span that is not ours. The sampler is asked, and told the
    caller's decision."""
    run = TraceContext._from(Carried(span=span))
    run._recorder = recorder
    run.is_sampled = not recorder._off
    if not recorder._off and (not recorder._samples_all or span.tracestate):
        asked_about: ComponentTraceContext = recorder._blank(ComponentTraceContext, recorder._nothing._shape)
        recorder._is_chosen(bytes.fromhex(span.trace_id), asked_about, run, span.span_id, span.is_sampled)
    if run.is_sampled:
        run._encode_common(recorder._encoder)
        run._root = _root_elsewhere(recorder, run, span)
    else:
        recorder._is_thinned = True  # as in `continue_from()`
    return run


def extract(carrier: Mapping[Any, Any] | Iterable[tuple[Any, Any]], propagators: Propagators = W3C) -> TraceContext:
    """See `Recorder.extract()`."""
    try:
        if isinstance(carrier, Mapping) and "asynctrace" in carrier:
            return TraceContext.from_carrier(carrier)
        extracted = propagators.extract(carrier)
    except Exception:  # noqa: BLE001  (a mapping of somebody else, which may do anything)
        extracted = Extracted(None, NO_BAGGAGE, True)
    if extracted.span is not None:
        return TraceContext._from(Carried(span=extracted.span, baggage=extracted.baggage))
    context = TraceContext()
    context._baggage = extracted.baggage
    context._invalid = "malformed" if extracted.is_malformed else ""
    return context


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
