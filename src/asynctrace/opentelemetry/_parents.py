"""Whose child a new span is.

    below a span of the same tracer              its child
    below a remote caller's span                 the first here of its trace; the sampler is told the caller's decision
    below one of another OpenTelemetry           the same, as OpenTelemetry has it; with `foreign_parents=False` it is looked
    provider                                     through
    below one of another asynctrace tracer       looked through: tracers share nothing

The same holds for components, for which runs stand for spans that are not ours.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from opentelemetry import trace as otel
from opentelemetry.context import Context

from ..propagation import RemoteSpan
from ..tracing import Recorder
from ..tracing._apart import Parent
from ..tracing._borders import run_elsewhere
from ..tracing._scope import SUPPRESSED, component_var, trace_var
from ._context import SPAN_KEY, SUPPRESSED_KEY, Place
from ._span import Span

if TYPE_CHECKING:
    from ._provider import TracerProvider

__all__ = ["add_provider", "parent_in", "place_elsewhere"]

_RANDOM = 2
"""The flag of W3C Trace Context Level 2, which older versions of the API have no name for."""
_providers: tuple[weakref.ref[TracerProvider], ...] = ()
"""Replaced as a whole, so that one thread may walk through it while another one adds."""
_lock = threading.Lock()


def add_provider(provider: TracerProvider) -> None:
    """From now on its tracer goes on in traces of others."""
    global _providers
    with _lock:
        _providers = (*(known for known in _providers if known() is not None), weakref.ref(provider))


def parent_in(context: Context | None, recorder: Recorder, foreign_parents: bool) -> Parent:
    """The parent of a span that is started in `context`, or where this code is."""
    if context is None:
        component = component_var.get()
        if component is not None or trace_var.get() is not None:
            return recorder._nearest(component, trace_var.get())
        span: object = otel.get_current_span()
    else:
        if SUPPRESSED_KEY in context:
            return SUPPRESSED
        span = context.get(SPAN_KEY)
    if isinstance(span, Span):
        return recorder._nearest(None, span._run) if span._run is not None else recorder._nearest(span._component, None)
    return _foreign_parent(span, recorder, foreign_parents) if isinstance(span, otel.Span) else None


def _foreign_parent(span: otel.Span, recorder: Recorder, foreign_parents: bool) -> Parent:
    span_context = span.get_span_context()
    if not isinstance(span_context, otel.SpanContext) or not span_context.is_valid:
        return None
    if span_context.is_remote or foreign_parents:
        return _remote(span_context)
    return recorder._nearest(component_var.get(), trace_var.get()) if otel.get_current_span() is span else None


def place_elsewhere(span_context: otel.SpanContext, around: Place) -> Place:
    """What is current below a span that is not ours: for each tracer with a provider a run that stands for it."""
    place = around
    known: set[int] = set()
    for provider in filter(None, (each() for each in _providers)):
        recorder = provider.recorder
        if recorder is None or id(recorder) in known or not (span_context.is_remote or provider.foreign_parents):
            continue
        known.add(id(recorder))
        run = run_elsewhere(recorder, _remote(span_context))
        run._restore_component, run._restore_run = place
        place = (None, run)
    return place


def _remote(span_context: otel.SpanContext) -> RemoteSpan:
    return RemoteSpan(
        otel.format_trace_id(span_context.trace_id),
        otel.format_span_id(span_context.span_id),
        is_sampled=span_context.trace_flags.sampled,
        tracestate=span_context.trace_state.to_header(),
        is_random=bool(span_context.trace_flags & _RANDOM),
    )
