"""Where a span stands: in which trace, below which parent, recorded or not. Decided on entry, never before.

    nothing current                        a trace of its own, if it is sampled
    a component or run of this tracer      below it
    one of another tracer                  looked through: tracers share nothing
    suppressed, or not sampled             not recorded, and nothing below it

The common case, below a component or a run, is in `ComponentTraceContext.__aenter__()`.
"""

from __future__ import annotations

import threading
from typing import Any, TypeAlias

from .._contracts import Clock, IdSource, OpenSpanNotes
from .._errors import MisuseError
from ._component import NEW, OPEN, UNRECORDED, ComponentTraceContext
from ._encoder import Encoder
from ._extras import Extras
from ._heads import ROOT_TAIL, TRACE_ID_TAG, head
from ._open_spans import MOST_RECENT, OpenSpans
from ._run import TraceContext
from ._sampling import ALWAYS_ON, AlwaysOff, Sampler
from ._scope import Suppressed, component_var, trace_var
from ._unrecorded import Unrecorded

__all__ = ["Placement", "Scope"]

Scope: TypeAlias = ComponentTraceContext | TraceContext | Suppressed | None
"""What a span can find around it."""

_extras_lock = threading.Lock()


class _Shadow:
    """Stands for the recorder in components that are not recorded, so that none is taken for a parent."""

    __slots__ = ("recorder",)

    def __init__(self, recorder: Placement) -> None:
        self.recorder = recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.recorder, name)


class Placement:
    """The half of `Recorder` that gives spans their place, with what that needs: clock, ids, sampler, open spans."""

    __slots__ = (
        "__weakref__",
        "_clock",
        "_encoder",
        "_is_thinned",
        "_monotonic_ns",
        "_off",
        "_open",
        "_recent",
        "_sampler",
        "_samples_all",
        "_shadow",
        "_slab",
        "_span_id",
        "_time_ns",
        "_trace_id_source",
    )

    def __init__(self, clock: Clock, ids: IdSource, encoder: Encoder, sampler: Sampler | None) -> None:
        self._clock = clock
        self._monotonic_ns = clock.monotonic_ns
        self._time_ns = clock.time_ns
        self._span_id = ids.span_id
        self._trace_id_source = ids.trace_id
        self._encoder = encoder
        self._sampler: Sampler = sampler or ALWAYS_ON
        self._samples_all = self._sampler is ALWAYS_ON
        self._off = isinstance(sampler, AlwaysOff)
        self._is_thinned = self._off
        """True once anything was not recorded: until then `trace_component` need not look."""
        self._open = OpenSpans()
        self._recent = self._open.recent
        self._shadow: Any = _Shadow(self)
        self._slab: OpenSpanNotes | None = None

    def _itself(self) -> Any:
        """The recorder, asked of it or of its shadow."""
        return self

    def _enter_root(self, component: ComponentTraceContext) -> ComponentTraceContext:
        """Enter where nothing is current and every trace is sampled: programs without runs do this for each trace."""
        component._restore = component._parent = component._run = None
        component._head = b"".join((TRACE_ID_TAG, self._trace_id_source(), ROOT_TAIL))
        self._open_span(component)
        component_var.set(component)
        component._start = start = self._monotonic_ns()
        component._offset = self._time_ns() - start
        if self._slab is not None:
            component._note_open()
        return component

    def _enter_apart(
        self, component: ComponentTraceContext, current: ComponentTraceContext | Suppressed | None
    ) -> ComponentTraceContext:
        """Enter where the parent is not simply the current component: a root, a trace of another tracer, unrecorded."""
        component._restore = current
        scope = self._nearest(current, trace_var.get())
        if isinstance(scope, ComponentTraceContext):
            self._adopt(component, scope, scope._run)
        elif isinstance(scope, TraceContext) and scope._root is not None:
            self._adopt(component, scope._root, scope)
        elif scope is not None or not self._start_trace(component, None):
            self._make_unrecorded(component)
            return component
        self._open_span(component)
        component_var.set(component)
        component._start = self._monotonic_ns()
        if self._slab is not None:
            component._note_open()
        return component

    def _enter_run(self, run: TraceContext) -> None:
        root = run._root
        if (root is not None and root._state != NEW) or trace_var.get() is run:
            raise MisuseError("a run is entered once: call trace() again for the next one")
        run._restore_component = component_var.get()
        run._restore_run = trace_var.get()
        outer = None
        if run._restore_component is not None or run._restore_run is not None:
            outer = self._nearest(run._restore_component, run._restore_run)
        if root is not None and not self._enter_root_span(run, root, outer):
            run._root = None
        if run._root is None:
            self._is_thinned = True
            run.is_sampled = False
            run._trace_id = run._trace_id or self._trace_id_source().hex()
            run._span_id = self._span_id().hex()
        trace_var.set(run)
        component_var.set(None)
        if root is not None and run._root is root:
            root._start = self._monotonic_ns()
            if self._slab is not None:
                root._note_open()

    def _enter_root_span(self, run: TraceContext, root: ComponentTraceContext, outer: Scope) -> bool:
        """Give the run's root span its place; False when the run is not recorded."""
        if isinstance(outer, Suppressed | Unrecorded):
            return False
        parent = outer._root if isinstance(outer, TraceContext) else outer
        if isinstance(outer, TraceContext) and parent is None:
            return False
        root._run = root._restore = None
        if parent is not None and not run._remote_parent:
            run._inherit(outer if isinstance(outer, TraceContext) else parent.trace)
            run._encode_common(self._encoder)
            root._parent, root._offset = parent, parent._offset
            root._head = head(parent._trace_id, parent._id, run)
        else:
            if run.session_id is not None or run.user_id is not None:
                run._encode_common(self._encoder)
            if not self._start_trace(root, run):
                return False
        self._describe_run(run, root)
        self._open_span(root)
        root._child_head = head(root._trace_id, root._id, run)
        return True

    def _nearest(self, component: ComponentTraceContext | Suppressed | None, run: TraceContext | None) -> Scope:
        """The innermost scope that counts for this recorder. Scopes of other recorders are looked through."""
        while True:
            if component is None:
                if run is None or run._recorder is self:
                    return run
                component, run = run._restore_component, run._restore_run
            elif isinstance(component, Suppressed) or component._recorder in (self, self._shadow):
                return component
            else:
                component = component._restore

    def _adopt(self, component: ComponentTraceContext, parent: ComponentTraceContext, run: TraceContext | None) -> None:
        component._parent = parent
        component._head = parent._child_head or parent._make_child_head()
        component._run = run
        component._offset = parent._offset

    def _start_trace(self, root: ComponentTraceContext, run: TraceContext | None) -> bool:
        """Make `root`, of `run` if there is one, the first span of a trace here; False when it is not sampled."""
        if run is not None and run._remote_parent:
            trace_id, remote_parent = bytes.fromhex(run._trace_id), bytes.fromhex(run._remote_parent)
        else:
            trace_id, remote_parent = self._trace_id_source(), b""
        if self._sampler is not ALWAYS_ON:
            decision = run.is_sampled if run is not None and remote_parent else None
            if not self._ask_sampler(trace_id, root._shape.name, decision):
                return False
        root._parent = root._run = None
        root._offset = self._time_ns() - self._monotonic_ns()
        root._head = head(trace_id, remote_parent, run, remote=bool(remote_parent))
        return True

    def _ask_sampler(self, trace_id: bytes, name: str, decision: bool | None) -> bool:
        try:
            return bool(self._sampler.is_sampled(trace_id, name, decision))
        except Exception as error:  # noqa: BLE001  (a user's sampler must not break the traced program)
            self._shadow._failed(error)
            return True

    def _open_span(self, component: ComponentTraceContext) -> None:
        component._id = self._span_id()
        component._state = OPEN
        self._recent.append(component)
        if len(self._recent) >= MOST_RECENT:
            self._open.sift()

    def _make_unrecorded(self, component: ComponentTraceContext) -> None:
        self._is_thinned = True
        component.__class__ = Unrecorded
        component._recorder = self._shadow
        component._parent = component._run = None
        component._head = head(self._trace_id_source(), b"", None)
        component._id = self._span_id()
        component._state = UNRECORDED
        component_var.set(component)

    def _clock_offset(self) -> int:
        return self._time_ns() - self._monotonic_ns()

    def _extras_of(self, component: ComponentTraceContext) -> Extras:
        with _extras_lock:  # two threads may add their first log at once
            if component._extras is None:
                component._extras = Extras()
            return component._extras

    def _describe_run(self, run: TraceContext, root: ComponentTraceContext) -> None:
        root.set_attribute("asynctrace.run.name", run.name)
        if run.run_id is not None:
            root.set_attribute("asynctrace.run.id", run.run_id)
        if run.project is not None:
            root.set_attribute("asynctrace.project", run.project)
        if run.tags:
            root.set_attribute("tag.tags", run.tags)
        if run.metadata:
            self._extras_of(root).put("metadata", self._encoder.metadata(run.metadata))
