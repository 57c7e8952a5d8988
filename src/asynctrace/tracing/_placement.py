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
from ..propagation import parse_tracestate
from ._component import NEW, OPEN, UNRECORDED, ComponentTraceContext
from ._encoder import Encoder
from ._extras import Extras
from ._heads import ROOT_TAILS, TRACE_ID_TAG, head
from ._open_spans import MOST_RECENT, OpenSpans
from ._run import TraceContext
from ._sampling import ALWAYS_ON, AlwaysOff, Sampler, Sampling, SamplingRequest, ask, asks_inside, for_tracer, is_simple
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
        "_asks_inside",
        "_clock",
        "_encoder",
        "_given_sampler",
        "_is_asked_simply",
        "_is_thinned",
        "_monotonic_ns",
        "_off",
        "_open",
        "_random_ids",
        "_recent",
        "_root_tail",
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
        self._random_ids = bool(getattr(ids, "is_random", False))
        self._root_tail = ROOT_TAILS[self._random_ids]
        self._given_sampler: Sampler = sampler or ALWAYS_ON
        self._samples_all = self._given_sampler is ALWAYS_ON
        self._asks_inside = asks_inside(self._given_sampler)
        self._is_asked_simply = is_simple(self._given_sampler)
        self._begin_sampling()
        self._off = isinstance(sampler, AlwaysOff)
        self._is_thinned = self._off
        """True once anything was not recorded: until then `trace_component` need not look."""
        self._open = OpenSpans()
        self._recent = self._open.recent
        self._shadow: Any = _Shadow(self)
        self._slab: OpenSpanNotes | None = None

    def _begin_sampling(self) -> None:
        """With a count of this process's own."""
        self._sampler = for_tracer(self._given_sampler, self._monotonic_ns)

    def _itself(self) -> Any:
        """The recorder, asked of it or of its shadow."""
        return self

    def _enter_root(self, component: ComponentTraceContext) -> ComponentTraceContext:
        """Enter where nothing is current and every trace is sampled: programs without runs do this for each trace."""
        component._restore = component._parent = component._run = None
        component._head = b"".join((TRACE_ID_TAG, self._trace_id_source(), self._root_tail))
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
        elif scope is not None:
            self._make_unrecorded(component, self._trace_id_source())
            return component
        elif not self._start_trace(component, None):
            self._make_unrecorded(component, component._trace_id)
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
        if outer is not None and not isinstance(outer, Suppressed):
            self._put_inside(run, outer)
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

    def _put_inside(self, run: TraceContext, outer: ComponentTraceContext | TraceContext) -> None:
        """Make `run` part of the trace around it, unless it is a caller's: also where none of it is recorded."""
        if run._remote_parent:
            return
        around = outer if isinstance(outer, TraceContext) else outer.trace
        run._inherit(around)
        run._go_on_in(around)
        run._trace_id = outer.trace_id

    def _enter_root_span(self, run: TraceContext, root: ComponentTraceContext, outer: Scope) -> bool:
        """Give the run's root span its place; False when the run is not recorded."""
        root._run = root._restore = None
        if not self._place_run(run, root, outer):
            return False
        self._describe_run(run, root)
        self._open_span(root)
        root._child_head = head(root._trace_id, root._id, run)
        return True

    def _place_run(self, run: TraceContext, root: ComponentTraceContext, outer: Scope) -> bool:
        if isinstance(outer, Suppressed):
            return False
        if outer is not None and not run._remote_parent:
            return self._enter_below(run, root, outer)
        if isinstance(outer, Unrecorded) or (isinstance(outer, TraceContext) and outer._root is None):
            return False
        return self._start_trace(root, run)

    def _enter_below(
        self, run: TraceContext, root: ComponentTraceContext, outer: ComponentTraceContext | TraceContext
    ) -> bool:
        """Place the run's root span below a local parent; False when it is not recorded."""
        parent = outer._root if isinstance(outer, TraceContext) else outer
        parent = None if isinstance(parent, Unrecorded) else parent
        if parent is not None and parent._child_head is None:
            parent._make_child_head()  # some open with their first child only
        if self._asks_inside:
            trace_id = bytes.fromhex(outer.trace_id)
            if not self._is_chosen(trace_id, root, run, outer.span_id, parent is not None, is_remote=False):
                return False
        elif parent is None:
            return False
        root._parent = parent
        root._offset = self._clock_offset() if parent is None else parent._offset
        run._encode_common(self._encoder)
        root._head = head(bytes.fromhex(outer.trace_id), bytes.fromhex(outer.span_id), run)
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
        root._parent = root._run = None
        if not self._samples_all or (run is not None and run.tracestate):
            decision = run.is_sampled if run is not None and remote_parent else None
            if not self._is_chosen(trace_id, root, run, "" if run is None else run._remote_parent, decision):
                return False
            run = run or root._run
        elif run is not None:
            run.is_sampled = True
        if run is not None:
            run._encode_common(self._encoder)
        root._offset = self._time_ns() - self._monotonic_ns()
        root._head = head(trace_id, remote_parent, run, remote=bool(remote_parent), random=self._random_ids)
        return True

    def _is_chosen(
        self,
        trace_id: bytes,
        root: ComponentTraceContext,
        run: TraceContext | None,
        parent_id: str,
        decision: bool | None,
        *,
        is_remote: bool = True,
    ) -> bool:
        """Ask the sampler about `root`, of `run` if there is one, and write down what it says. `decision` is that of the
        parent; None where there is no parent."""
        shape, sampler = root._shape, self._sampler
        try:
            if is_remote and self._is_asked_simply and (run is None or not run.tracestate):
                answer = sampler.is_sampled(trace_id, shape.name, decision)
            else:
                parent = None if run is None or decision is None else run._remote(trace_id.hex(), parent_id, decision)
                answer = ask(sampler, SamplingRequest(trace_id, shape.name, shape.kind, parent, is_remote))
            is_sampled = answer.is_sampled if isinstance(answer, Sampling) else bool(answer)
            if isinstance(answer, Sampling):
                run = self._noted(root, run, answer)
        except Exception as error:  # noqa: BLE001  (a user's sampler must not break the traced program)
            self._shadow._failed(error)
            is_sampled = True
        if run is not None:
            run.is_sampled = is_sampled
        if run is not None and not is_sampled:
            run._trace_id = trace_id.hex()
        elif not is_sampled:
            root._head = TRACE_ID_TAG + trace_id
        return is_sampled

    def _noted(self, root: ComponentTraceContext, run: TraceContext | None, sampling: Sampling) -> TraceContext | None:
        """The run, with what a sampler wrote; made for it where there was none."""
        tracestate = None if sampling.tracestate is None else parse_tracestate([sampling.tracestate])
        for key, value in sampling.attributes.items():
            root.set_attribute(key, value)
        if run is None and tracestate:
            run = self._shadow._implied_run(root)
        if run is not None and tracestate is not None:
            run.tracestate = tracestate
        return run

    def _open_span(self, component: ComponentTraceContext) -> None:
        component._id = self._span_id()
        component._state = OPEN
        self._recent.append(component)
        if len(self._recent) >= MOST_RECENT:
            self._open.sift()

    def _make_unrecorded(self, component: ComponentTraceContext, trace_id: bytes) -> None:
        self._leave_unrecorded(component, trace_id)
        component_var.set(component)

    def _leave_unrecorded(self, component: ComponentTraceContext, trace_id: bytes) -> None:
        self._is_thinned = True
        component.__class__ = Unrecorded
        component._recorder = self._shadow
        component._parent = component._run = None
        component._head = head(trace_id, b"", None)
        component._id = self._span_id()
        component._state = UNRECORDED
        component._place = -1

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
