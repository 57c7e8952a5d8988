"""Spans that are opened without becoming current: for those whose end is another callback, and for instrumentations that
say themselves where a span stands and when it began.

    below a component or a run of here      its child
    below a span of another process         the first of the trace here; the sampler is asked, and told the caller's decision
    below None                              a trace of its own, if it is sampled
    not sampled, suppressed, shut down      not recorded, and nothing below it
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ..propagation import Carried, RemoteSpan
from ._component import ComponentTraceContext
from ._run import TraceContext
from ._scope import Suppressed
from ._unrecorded import Unrecorded

if TYPE_CHECKING:
    from ._recorder import Recorder

__all__ = ["Parent", "open_apart"]

Parent: TypeAlias = ComponentTraceContext | TraceContext | RemoteSpan | Suppressed | None


def open_apart(recorder: Recorder, component: ComponentTraceContext, parent: Parent, start_ns: int | None) -> None:
    """Give `component` its place, and open it at `start_ns` (wall clock, nanoseconds), or now."""
    component._restore = component._run = None
    if recorder._is_closed:
        recorder._refuse_after_shutdown()
    if recorder._is_closed or recorder._off or not _place(recorder, component, parent):
        run = component._run or _run_of(recorder, parent)
        recorder._leave_unrecorded(component, _trace_of(recorder, parent))
        component._run = run  # for who injects here: baggage and `tracestate` go on all the same
        return
    recorder._open_span(component)
    component._start = recorder._monotonic_ns() if start_ns is None else start_ns - component._offset
    if recorder._slab is not None:
        component._note_open()


def _place(recorder: Recorder, component: ComponentTraceContext, parent: Parent) -> bool:
    """False where it is not to be recorded."""
    if parent is None:
        return recorder._start_trace(component, None)
    if isinstance(parent, RemoteSpan):
        return _place_below_remote(recorder, component, parent)
    if isinstance(parent, TraceContext):
        if parent._root is not None:
            recorder._adopt(component, parent._root, parent)
        return parent._root is not None
    if isinstance(parent, Suppressed | Unrecorded):
        return False
    recorder._adopt(component, parent, parent._run)
    return True


def _place_below_remote(recorder: Recorder, component: ComponentTraceContext, parent: RemoteSpan) -> bool:
    run = TraceContext._of(recorder, component.name, None, None, None, None, None, None)
    recorder._continue(run, TraceContext._from(Carried(span=parent)))
    is_recorded = recorder._start_trace(component, run)
    component._run = run  # until `_end_apart()`: the run knows the parent's id and the tracestate
    if is_recorded:
        run._root = component
    return is_recorded


def _run_of(recorder: Recorder, parent: Parent) -> TraceContext | None:
    """Of what is not recorded: what is known of the trace around."""
    if isinstance(parent, RemoteSpan):
        run = TraceContext._from(Carried(span=parent))
        run._recorder, run.is_sampled = recorder, False
        return run
    if isinstance(parent, TraceContext):
        return parent
    return None if parent is None or isinstance(parent, Suppressed) else parent._run


def _trace_of(recorder: Recorder, parent: Parent) -> bytes:
    """What is not recorded still belongs to its caller's trace."""
    trace_id = "" if parent is None or isinstance(parent, Suppressed) else parent.trace_id
    return bytes.fromhex(trace_id) if trace_id else recorder._trace_id_source()
