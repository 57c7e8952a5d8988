"""The recorder: makes runs and components, and knows what they need: clock, ids, limits, masking, sampling, a sink.

`runtime.Tracer` is a recorder with a life: a span log for its sink, lanes, a start and an end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from .._contracts import Clock, IdSource, Link, SpanKind, SpanSink
from .._diagnostics import Diagnostics
from .._errors import MisuseError
from ..wire import ScalarHeads, encode_attribute, encode_event, encode_link, frame, shrink_record
from ._bind import bind
from ._capture import Capture
from ._component import NEW, OPEN, ComponentTraceContext
from ._extras import Extras, check_metadata, text_attribute
from ._heads import ROOT_TAIL, TRACE_ID_TAG, head
from ._limits import Limits
from ._masking import Masker, MaskOption
from ._open_spans import MOST_RECENT, OpenSpans
from ._run import TraceContext
from ._sampling import ALWAYS_ON, AlwaysOff, Sampler
from ._scope import Suppressed, component_var, current_trace, suppress, trace_var
from ._shape import Shape, parse_kind
from ._unrecorded import Nothing, Unrecorded

__all__ = ["Recorder"]

F = TypeVar("F", bound=Callable[..., Any])
Scope: TypeAlias = ComponentTraceContext | TraceContext | Suppressed | None

_MOST_SHAPES = 4096
_MOST_KEYS = 256
_MOST_VALUES = 64
_LONGEST_REMEMBERED = 64
"""Bounds of what is remembered encoded; names and values beyond them are encoded each time."""


_new = object.__new__
_extras_lock = threading.Lock()


class _NoRecorder:
    """Stands in `Unrecorded._recorder`'s place, so that no component takes an unrecorded one for its parent."""

    __slots__ = ("recorder",)

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.recorder, name)


class Recorder:
    """Makes spans. Every argument is a seam; `runtime.Tracer` fills them in."""

    __slots__ = (
        "__weakref__",
        "_append_nowait",
        "_attribute_limit",
        "_cancelled_types",
        "_capture",
        "_clock",
        "_diagnostics",
        "_errors",
        "_heads",
        "_is_closed",
        "_is_thinned",
        "_late_calls",
        "_limits",
        "_masker",
        "_monotonic_ns",
        "_nothing",
        "_off",
        "_open",
        "_pairs",
        "_recent",
        "_remembers",
        "_sampler",
        "_samples_all",
        "_shadow",
        "_shapes",
        "_sink",
        "_span_bytes",
        "_span_id",
        "_time_ns",
        "_trace_id_source",
    )

    def __init__(
        self,
        *,
        sink: SpanSink,
        clock: Clock,
        ids: IdSource,
        diagnostics: Diagnostics,
        limits: Limits | None = None,
        mask: MaskOption = None,
        sampler: Sampler | None = None,
        cancelled_types: tuple[type[BaseException], ...] = (),
    ) -> None:
        self._sink = sink
        self._append_nowait = sink.append_nowait
        self._clock = clock
        self._monotonic_ns = clock.monotonic_ns
        self._time_ns = clock.time_ns
        self._span_id = ids.span_id
        self._trace_id_source = ids.trace_id
        self._diagnostics = diagnostics
        self._limits = limits or Limits()
        self._attribute_limit = self._limits.attributes
        self._span_bytes = self._limits.span_bytes
        self._masker = Masker.from_option(mask, on_error=self._failed)
        self._capture = Capture(self._limits, self._masker, clock.monotonic_ns)
        self._sampler: Sampler = sampler or ALWAYS_ON
        self._cancelled_types = cancelled_types
        self._shapes: dict[object, Shape] = {}
        self._pairs: dict[str, dict[object, bytes]] = {}
        self._heads: dict[str, ScalarHeads] = {}
        self._remembers = not self._masker.calls_user_code
        self._open = OpenSpans()
        self._recent = self._open.recent
        self._late_calls: dict[str, int] = {}
        self._errors: dict[str, int] = {}
        self._is_closed = False
        self._samples_all = sampler is None or sampler is ALWAYS_ON
        self._off = isinstance(sampler, AlwaysOff)
        self._is_thinned = self._off
        """True once anything was not recorded: until then `trace_component` need not look."""
        self._shadow: Any = _NoRecorder(self)
        self._nothing: ComponentTraceContext = self._make_nothing(Shape("", None, SpanKind.INTERNAL, ""))

    # Opening -----------------------------------------------------------------------------------------------------

    def trace(
        self,
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
    ) -> TraceContext:
        """Open a run: `async with tracer.trace("checkout", session_id="s-1") as run: …`, also with plain `with`.

        `context` is a remote caller's, from `extract()`: the run continues its trace. Raises `TypeError`.
        """
        if not (run_id is None and session_id is None and user_id is None and project is None):
            _check_texts(run_id=run_id, session_id=session_id, user_id=user_id, project=project)
        if tags is not None:
            _check_tags(tags)
        check_metadata(metadata)
        if context is not None and not isinstance(context, TraceContext):
            raise TypeError(f"context is a TraceContext, from extract(headers), not {type(context).__name__}")
        shape = (self._shapes.get(name) if isinstance(name, str) else None) or self._shape(name, None, None)
        run = TraceContext._of(self, name, run_id, session_id, user_id, project, tags, metadata)
        if self._is_closed:
            self._refuse_after_shutdown()
        if context is not None:
            run._trace_id, run._remote_parent = context.trace_id, context.span_id
            run.is_sampled = context.is_sampled
            run._inherit(context)
        if not (self._off or self._is_closed):
            run._root = root = self._blank(ComponentTraceContext, shape)
            if inputs is not None:
                self._extras_of(root).put("input", self._encode_captured("input", inputs))
        return run

    def trace_component(
        self,
        name: str,
        *,
        type: str | None = None,
        kind: SpanKind | str | None = None,
        inputs: object = None,
        metadata: Mapping[str, object] | None = None,
        attributes: Mapping[str, object] | None = None,
        links: Sequence[TraceContext | ComponentTraceContext | Link] | None = None,
    ) -> ComponentTraceContext:
        """Open a span below the current component or run; without either, a trace of its own.

            async with tracer.trace_component("retrieve", type="retriever", inputs={"q": "tea"}) as component: …

        Also with plain `with`, and as a decorator. `type` is what the component is (`"llm"`, `"tool"`, `"retriever"`),
        `kind` the OTLP span kind. Raises `TypeError` for wrong types.
        """
        try:
            shape = self._shapes.get(name) if type is None and kind is None else self._shapes.get((name, type, kind))
        except TypeError:
            shape = None  # not hashable: the error is raised below
        if shape is None:
            shape = self._shape(name, type, kind)
        if self._is_thinned and self._is_unrecorded_here():
            return shape.nothing or self._make_nothing(shape, inputs, metadata, attributes, links)
        component = _new(ComponentTraceContext)
        component._recorder = self
        component._shape = shape
        component._attributes = {}
        component._extras = component._child_head = None
        component._state = NEW
        if inputs is not None or metadata is not None or attributes is not None or links is not None:
            self._fill(component, inputs, metadata, attributes, links)
        return component

    def start_tracers(
        self,
        run_id: str | None,
        run_name: str,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        project_name: str | None = None,
    ) -> TraceContext:
        """Open a run without a block, for a caller whose start and end are two callbacks. `end_tracers()` ends it."""
        run = self.trace(run_name, run_id=run_id, user_id=user_id, session_id=session_id, project=project_name)
        return run._enter()

    def end_tracers(
        self, outputs: object = None, error: BaseException | None = None, *, run: TraceContext | None = None
    ) -> None:
        """End the run that `start_tracers()` opened: the current one, or `run` where another task opened it.

        Components of the run that are still open are cut: they end `incomplete`, deepest first, with what is known.
        """
        if error is not None and not isinstance(error, BaseException):
            raise TypeError(f"error is an exception, not {type(error).__name__}")
        run = run or self._own_run()
        if run is None:
            self._count_late("end_tracers")
            return
        self._cut_open(within=run)
        if outputs is not None:
            run.set_outputs(outputs)
        run.__exit__(type(error) if error is not None else None, error, None)

    def suppress(self) -> suppress:
        """A region in which nothing is traced."""
        return suppress()

    def bind(self, function: F) -> F:
        """`function`, to be called anywhere (a thread, a callback, an executor) in the run and component of here."""
        return bind(function)

    # The current ones --------------------------------------------------------------------------------------------

    def current_trace(self) -> TraceContext | None:
        """The current run, if it is this tracer's."""
        scope = self._nearest(component_var.get(), trace_var.get())
        if isinstance(scope, ComponentTraceContext):
            return scope.trace
        return scope if isinstance(scope, TraceContext) else None

    def current_component(self) -> ComponentTraceContext | None:
        """The current component, if it is this tracer's."""
        scope = self._nearest(component_var.get(), trace_var.get())
        return scope if isinstance(scope, ComponentTraceContext) else None

    def add_log(self, message: str, /, **fields: object) -> None:
        """`add_log()` of the current component, or of the current run; outside both it does nothing."""
        target = self.current_component() or self.current_trace()
        if target is None:
            self._outside("add_log")
        else:
            target.add_log(message, **fields)

    def set_outputs(self, outputs: object, metadata: Mapping[str, object] | None = None) -> None:
        """`set_outputs()` of the current component, or of the current run; outside both it does nothing."""
        target = self.current_component() or self.current_trace()
        if target is None:
            self._outside("set_outputs")
        else:
            target.set_outputs(outputs, metadata)

    def _outside(self, call: str) -> None:
        self._diagnostics.debug("tracing.outside_any_component", call=call)

    # Entering away from the hot path -----------------------------------------------------------------------------

    def _enter_root(self, component: ComponentTraceContext) -> ComponentTraceContext:
        """Enter where nothing is current and every trace is sampled: programs without runs do this for each trace."""
        component._restore = component._parent = component._run = None
        component._head = b"".join((TRACE_ID_TAG, self._trace_id_source(), ROOT_TAIL))
        self._open_span(component)
        component_var.set(component)
        component._start = start = self._monotonic_ns()
        component._offset = self._time_ns() - start
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
        if run._root is not None:
            run._root._start = self._monotonic_ns()

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
            run._encode_common(self)
            root._parent, root._offset = parent, parent._offset
            root._head = head(parent._trace_id, parent._id, run)
        else:
            run._encode_common(self)
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
            if not self._sampler.is_sampled(trace_id, root._shape.name, decision):
                return False
        root._parent = root._run = None
        root._offset = self._clock_offset()
        root._head = head(trace_id, remote_parent, run, remote=bool(remote_parent))
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
        component._state = OPEN
        component_var.set(component)

    def _is_unrecorded_here(self) -> bool:
        if self._is_closed:
            self._refuse_after_shutdown()
            return True
        if self._off:
            return True
        current = component_var.get()
        if current is None:
            run = trace_var.get()
            return run is not None and run._recorder is self and run._root is None
        return current._recorder is self._shadow

    def _clock_offset(self) -> int:
        return self._clock.time_ns() - self._monotonic_ns()

    # What components need ----------------------------------------------------------------------------------------

    def _blank(self, cls: type[ComponentTraceContext], shape: Shape) -> Any:
        component = _new(cls)
        component._recorder = self
        component._shape = shape
        component._attributes = {}
        component._extras = component._child_head = None
        component._state = NEW
        return component

    def _make_nothing(self, shape: Shape, *given: Any) -> Nothing:
        """It keeps what was given, uncaptured: it may decorate a function that will be recorded at other times."""
        nothing: Nothing = self._blank(Nothing, shape)
        nothing._recorder = self._shadow
        if any(part is not None for part in given):
            nothing._given = dict(zip(("inputs", "metadata", "attributes", "links"), given, strict=True))
        else:
            nothing._given = None
            shape.nothing = nothing
        return nothing

    def _shape(self, name: str, component_type: str | None, kind: SpanKind | str | None) -> Shape:
        if not isinstance(name, str):
            hint = "trace_component('name')(function)" if callable(name) else "trace_component('name')"
            raise TypeError(f"the name is a text, {hint}, not {type(name).__name__}")
        if component_type is not None and not isinstance(component_type, str):
            raise TypeError(f'type is a text like "llm" or "tool", not {type(component_type).__name__}')
        wire_name = self._capture.text(name, self._limits.name_bytes)
        shape = Shape(name, component_type, parse_kind(kind), wire_name)
        if len(self._shapes) < _MOST_SHAPES and len(name) <= _LONGEST_REMEMBERED and wire_name == name:
            key = name if component_type is None and kind is None else (name, component_type, kind)
            self._shapes[key] = shape
        return shape

    def _fill(
        self,
        component: ComponentTraceContext,
        inputs: object,
        metadata: Mapping[str, object] | None,
        attributes: Mapping[str, object] | None,
        links: Sequence[TraceContext | ComponentTraceContext | Link] | None,
    ) -> None:
        check_metadata(metadata)
        if attributes is not None:
            component.set_attributes(attributes)
        if inputs is None and metadata is None and links is None:
            return
        extras = self._extras_of(component)
        if inputs is not None:
            extras.put("input", self._encode_captured("input", inputs))
        if metadata is not None:
            extras.put("metadata", self._encode_metadata(metadata))
        for link in links or ():
            if len(extras.links) >= self._limits.links:
                extras.dropped_links += 1
            else:
                extras.links.append(self._encode_link(link))

    def _template_of(self, component: ComponentTraceContext) -> Callable[[], ComponentTraceContext]:
        """Makes components like this one, which is never entered itself, for a decorated function."""
        shape, attributes, extras = component._shape, component._attributes, component._extras
        if isinstance(component, Nothing) and component._given is not None:
            given = component._given
            return lambda: self._latest().trace_component(shape.name, type=shape.type, kind=shape.kind, **given)

        def fresh() -> ComponentTraceContext:
            recorder = self._latest()
            made = recorder.trace_component(shape.name, type=shape.type, kind=shape.kind)
            if attributes or extras is not None:
                made._attributes = dict(attributes)
                made._extras = extras.copy() if extras is not None else None
            return made

        return fresh

    def _latest(self) -> Recorder:
        """The recorder that a function decorated by this one is traced by; the default tracer may be replaced."""
        return self

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
            self._extras_of(root).put("metadata", self._encode_metadata(run.metadata))

    def _implied_run(self, component: ComponentTraceContext) -> TraceContext:
        """The run of a trace that a component started: made when somebody asks for it."""
        root = component
        while root._parent is not None:
            root = root._parent
        if root._run is None:
            run = TraceContext(name=root._shape.name, is_sampled=not isinstance(root, Unrecorded))
            run._recorder = self
            run._root = root
            root._run = run
        component._run = root._run
        return root._run

    def _own_run(self) -> TraceContext | None:
        run = trace_var.get()
        while run is not None and run._recorder is not self:
            run = run._restore_run
        return run

    def _unrecorded_run(self) -> TraceContext:
        return current_trace() or TraceContext(is_sampled=False)

    def _cut_open(self, within: TraceContext | None = None) -> int:
        """End open components `incomplete`, deepest first; all, or those of one run. Returns how many."""
        components = [c for c in self._open if within is None or (c._run is within and c is not within._root)]
        components.sort(key=_depth, reverse=True)
        for component in components:
            component._cut()
        return len(components)

    # Encoding ----------------------------------------------------------------------------------------------------

    def _encode_attribute(self, key: str, value: object) -> bytes:
        if not isinstance(key, str):
            raise TypeError(f"an attribute key is a text, set_attribute('shard', 3), not {type(key).__name__}")
        captured = self._capture.attribute(value, key)
        field = encode_attribute(b"\x4a", self._key(key), captured)
        if captured is value and len(key) <= _LONGEST_REMEMBERED:
            if isinstance(value, str):
                self._remember(key, value, field)
            elif key not in self._heads and len(self._heads) < _MOST_KEYS and not self._masker.is_secret_key(key):
                self._heads[key] = ScalarHeads(b"\x4a", key)
        return field

    def _remember(self, key: str, value: str, field: bytes) -> None:
        if len(value) > _LONGEST_REMEMBERED or not self._remembers:
            return
        known = self._pairs.get(key)
        if known is None:
            if len(self._pairs) >= _MOST_KEYS:
                return
            known = self._pairs[key] = {}
        if len(known) < _MOST_VALUES:
            known[value] = field

    def _key(self, key: str) -> str:
        return key if len(key) <= _LONGEST_REMEMBERED else self._capture.text(key, self._limits.name_bytes)

    def _encode_captured(self, name: str, value: object) -> bytes:
        """`input.value` or `output.value` with its MIME type (OpenInference semantic conventions)."""
        mime, text = self._capture.snapshot(value, name)
        return text_attribute(f"{name}.value", text) + text_attribute(f"{name}.mime_type", mime.encode())

    def _encode_metadata(self, metadata: Mapping[str, object]) -> bytes:
        return text_attribute("metadata", self._capture.snapshot(dict(metadata), "metadata")[1])

    def _encode_event(self, time_ns: int, name: str, fields: Mapping[str, object]) -> bytes:
        kept = list(fields.items())[: self._attribute_limit]
        attributes = {self._key(key): self._capture.attribute(value, key) for key, value in kept}
        return encode_event(time_ns, self._mask_text(name), attributes, len(fields) - len(kept))

    def _encode_link(self, link: object) -> bytes:
        if isinstance(link, Link):
            attributes = {self._key(key): self._capture.attribute(value, key) for key, value in link.attributes.items()}
            trace_id, span_id = bytes.fromhex(link.trace_id), bytes.fromhex(link.span_id)
            return encode_link(trace_id, span_id, link.trace_state, attributes, link.flags)
        if isinstance(link, TraceContext | ComponentTraceContext) and link.trace_id:
            return encode_link(bytes.fromhex(link.trace_id), bytes.fromhex(link.span_id), "", {}, 0)
        raise TypeError(f"a link is a Link, or a trace or component that was entered, not {type(link).__name__}")

    def _mask_text(self, text: str) -> str:
        return self._capture.text(text, self._limits.attribute_bytes)

    async def _append_waiting(self, record: bytes, exc: BaseException | None) -> None:
        """The span log is full, and the policy is to wait; a cancellation is not made to wait."""
        if isinstance(exc, self._cancelled_types):
            self._sink.append_or_refuse(record)
        else:
            await self._sink.append(record)

    def _cut_record(self, body: bytes) -> bytes:
        """The record of a span that is over `Limits.span_bytes`: its largest texts give way to markers."""
        record = frame(body)
        return shrink_record(record, self._span_bytes) or record

    # Books of misuse and failure ---------------------------------------------------------------------------------

    def _count_late(self, call: str) -> None:
        self._late_calls[call] = self._late_calls.get(call, 0) + 1
        self._diagnostics.debug("tracing.late_call", call=call)

    def _failed(self, error: BaseException) -> None:
        """The failure boundary: an error inside tracing is counted and told once a minute, never raised."""
        name = type(error).__name__
        self._errors[name] = self._errors.get(name, 0) + 1
        self._diagnostics.error("tracing.internal_error", error=name)

    def _refuse_after_shutdown(self) -> None:
        self._sink.refuse("after_shutdown")
        self._diagnostics.warning("tracing.after_shutdown", hint="spans opened after shutdown() are not recorded")


def _depth(component: ComponentTraceContext) -> int:
    depth = 0
    parent = component._parent
    while parent is not None:
        depth += 1
        parent = parent._parent
    return depth


def _check_texts(**options: object) -> None:
    for option, value in options.items():
        if value is not None and not isinstance(value, str):
            raise TypeError(f'{option} is a text, {option}="…", not {type(value).__name__}')


def _check_tags(tags: object) -> None:
    if isinstance(tags, str) or not isinstance(tags, Sequence) or not all(isinstance(tag, str) for tag in tags):
        raise TypeError(f'tags is a list of texts, tags=["nightly"], not {type(tags).__name__}')
