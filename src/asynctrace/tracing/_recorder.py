"""The recorder: makes runs and components, and knows what they need: clock, ids, limits, masking, sampling, a sink.

`runtime.Tracer` is a recorder with a life: a span log for its sink, lanes, a start and an end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, TypeVar, cast

from .._contracts import Clock, IdSource, Link, SpanKind, SpanSink
from .._diagnostics import Diagnostics
from ..propagation import W3C, Propagators
from ._apart import Parent, open_apart
from ._bind import PlaceInTrace, bind
from ._borders import extract, inject_at
from ._component import NEW, ComponentTraceContext
from ._encoder import LONGEST_REMEMBERED, Encoder
from ._extras import check_metadata
from ._limits import Limits
from ._masking import Masker, MaskOption
from ._placement import Placement
from ._run import TraceContext
from ._sampling import Sampler
from ._scope import component_var, current_trace, suppress, trace_var
from ._shape import Shape, parse_kind
from ._stream import check_stream, own
from ._unrecorded import Nothing, Unrecorded

__all__ = ["Recorder"]

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S")

_MOST_SHAPES = 4096
"""Names beyond so many are encoded each time."""

_HEX = re.compile("[0-9a-f]+").fullmatch

_new = object.__new__


class Recorder(Placement):
    """Makes spans. Every argument is a seam; `runtime.Tracer` fills them in."""

    __slots__ = (
        "_append_nowait",
        "_attribute_limit",
        "_cancelled_types",
        "_diagnostics",
        "_errors",
        "_heads",
        "_ignored_contexts",
        "_is_closed",
        "_late_calls",
        "_limits",
        "_nothing",
        "_pairs",
        "_propagators",
        "_shapes",
        "_sink",
        "_span_bytes",
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
        propagators: Propagators = W3C,
    ) -> None:
        self._limits = limits or Limits()
        self._errors: dict[str, int] = {}
        self._late_calls: dict[str, int] = {}
        self._ignored_contexts: dict[str, int] = {}
        self._diagnostics = diagnostics
        masker = Masker.from_option(mask, on_error=self._failed)
        super().__init__(clock, ids, Encoder(self._limits, masker, clock.monotonic_ns), sampler)
        self._sink = sink
        self._cancelled_types = cancelled_types
        self._propagators = propagators
        self._shapes: dict[object, Shape] = {}
        self._is_closed = False
        self._nothing: ComponentTraceContext = self._make_nothing(Shape("", None, SpanKind.INTERNAL, ""))
        # Bound here because the hot path uses them for every span.
        self._append_nowait = sink.append_nowait
        self._pairs, self._heads = self._encoder.pairs, self._encoder.heads
        self._attribute_limit = self._limits.attributes
        self._span_bytes = self._limits.span_bytes

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
        kind: SpanKind | str | None = None,
        attributes: Mapping[str, object] | None = None,
        links: Sequence[TraceContext | ComponentTraceContext | Link] | None = None,
    ) -> TraceContext:
        """Open a run: `async with tracer.trace("checkout", session_id="s-1") as run: …`, also with plain `with`.

        `context` is a remote caller's: the run continues its trace. `kind`, `attributes` and `links` are those of its root
        span. Raises `TypeError`.
        """
        if not (run_id is None and session_id is None and user_id is None and project is None):
            _check_texts(run_id=run_id, session_id=session_id, user_id=user_id, project=project)
        if tags is not None:
            _check_tags(tags)
        check_metadata(metadata)
        if context is not None and not isinstance(context, TraceContext):
            raise TypeError(f"context is a TraceContext, not {type(context).__name__}")
        shape = self._shapes.get(name) if kind is None and isinstance(name, str) else None
        if shape is None:
            shape = self._shape_of(name, None, parse_kind(kind))
        run = TraceContext._of(self, name, run_id, session_id, user_id, project, tags, metadata)
        if self._is_closed:
            self._refuse_after_shutdown()
        if context is not None:
            self._continue(run, context)
        if not (self._off or self._is_closed):
            run._root = root = self._blank(ComponentTraceContext, shape)
            if attributes is not None:
                root.set_attributes(attributes)
            if inputs is not None or links is not None:
                self._fill(root, inputs, None, links)
        return run

    def _continue(self, run: TraceContext, context: TraceContext) -> None:
        """Make `run` go on in a remote caller's trace; one whose ids are malformed is ignored, and told of. Baggage goes
        along with or without a trace."""
        if context._baggage or context._baggage.left_out:
            run._baggage = self._encoder.masked_baggage(context._baggage)
            if run._baggage.left_out:
                self._ignored("baggage")
        if context._invalid or not (_is_hex(context.trace_id, 32) and _is_hex(context.span_id, 16)):
            if context._invalid or context.trace_id or context.span_id:  # else nobody called
                self._ignored(context._invalid or "malformed")
            return
        run._trace_id, run._remote_parent = context.trace_id, context.span_id
        run.is_sampled = context.is_sampled
        run._go_on_in(context)
        run._inherit(context)

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
            shape = self._shape_as_given(name, type, kind)
        if self._is_thinned and self._is_unrecorded_here():
            return shape.nothing or self._make_nothing(shape, inputs, metadata, attributes, links)
        component = _new(ComponentTraceContext)
        component._recorder = self
        component._shape = shape
        component._attributes = {}
        component._extras = component._child_head = None
        component._state = NEW
        if attributes is not None:
            component.set_attributes(attributes)
        if inputs is not None or metadata is not None or links is not None:
            self._fill(component, inputs, metadata, links)
        return component

    def trace_stream(
        self,
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
        """`source`, an iterator or async iterator, as a component that lasts from here to its last chunk.

            answer = tracer.trace_stream("chat", await client.create(stream=True), type="llm", text=lambda c: c.delta)
            async for chunk in answer: …

        Noted are how many chunks came, the time to the first, and what came, as the outputs; closed early, dropped or never
        read it ends `abandoned`. `text` says what of a chunk is the answer's text. What else the source can do, the stream
        can. Raises `TypeError` for wrong types.
        """
        check_metadata(metadata)
        check_stream(source, text)
        scope = self._nearest(component_var.get(), trace_var.get())
        component = self._open_apart(
            name, parent=scope, kind=parse_kind(kind), type=type, attributes=attributes, links=links or ()
        )
        if inputs is not None or metadata is not None:
            self._fill(component, inputs, metadata, None)
        return cast(S, own(component, source, text, PlaceInTrace(trace_var.get(), component)))

    def _open_apart(
        self,
        name: str,
        *,
        parent: Parent,
        kind: SpanKind = SpanKind.INTERNAL,
        type: str | None = None,
        attributes: Mapping[str, object] | None = None,
        links: Sequence[TraceContext | ComponentTraceContext | Link] = (),
        start_ns: int | None = None,
        scope: bytes = b"",
    ) -> ComponentTraceContext:
        """Open a span below `parent` without making it current; `_end_apart()` ends it. `start_ns` is a wall-clock time in
        nanoseconds, `scope` the `scope_fields()` of somebody else's instrumentation."""
        component: ComponentTraceContext = self._blank(ComponentTraceContext, self._shape_of(name, type, kind, scope))
        if scope:
            self._sink.is_scoped = True
        if attributes is not None:
            component.set_attributes(attributes)
        if links:
            self._fill(component, None, None, links)
        open_apart(self, component, parent, start_ns)
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
        """`function`, to be called anywhere (a thread, a callback, an executor, another process) in the run and component of
        here. Called in another process it returns when what it traced is delivered."""
        return bind(function, self)

    def inject(self, carrier: MutableMapping[str, str]) -> None:
        """Set `traceparent`, `tracestate` and `baggage`, as far as there is one, to where this code is: for the headers of a
        request, the environment of a program. Other formats are set where `Tracer(propagators=…)` names them. Nothing is set
        where nothing is current. Raises `TypeError` for lists and the like. Source: W3C Trace Context, W3C Baggage."""
        inject_at(self._nearest(component_var.get(), trace_var.get()), carrier)

    def extract(self, carrier: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> TraceContext:
        """The caller's context, for `trace(context=…)`: from headers, of whatever case, from an environment, or from what
        `TraceContext.to_carrier()` made. Never raises; without anything to be used it has no ids."""
        return extract(carrier, self._propagators)

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

    def _require(self) -> None:
        """Raise what keeps this recorder from working in this process: here, nothing does."""

    def _task_ended(self) -> None:
        """A bound function has returned, or raised, in a process other than that of its `bind()`."""

    def _ignored(self, reason: str) -> None:
        """A caller's context could not be used."""
        self._ignored_contexts[reason] = self._ignored_contexts.get(reason, 0) + 1
        self._diagnostics.warning("tracing.ignored_context", reason=reason)

    def _outside(self, call: str) -> None:
        self._diagnostics.debug("tracing.outside_any_component", call=call)

    # What components need ------------------------------------------------------------------------------------------------

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

    def _shape_as_given(self, name: str, component_type: str | None, kind: SpanKind | str | None) -> Shape:
        """`_shape_of()`, and remembered under the arguments as they came, for the next call of `trace_component()`."""
        shape = self._shape_of(name, component_type, parse_kind(kind))
        if (component_type is not None or kind is not None) and self._is_remembered(shape):
            self._shapes[name, component_type, kind] = shape
        return shape

    def _shape_of(self, name: str, component_type: str | None, kind: SpanKind, scope: bytes = b"") -> Shape:
        if not isinstance(name, str):
            hint = "trace_component('name')(function)" if callable(name) else "trace_component('name')"
            raise TypeError(f"the name is a text, {hint}, not {type(name).__name__}")
        if component_type is not None and not isinstance(component_type, str):
            raise TypeError(f'type is a text like "llm" or "tool", not {type(component_type).__name__}')
        is_plain = component_type is None and kind is SpanKind.INTERNAL and not scope
        key = name if is_plain else (name, component_type, int(kind), scope)  # the enum's own hash takes 0.3 µs
        shape = self._shapes.get(key)
        if shape is None:
            shape = Shape(name, component_type, kind, self._wire_name(name), scope)
            if self._is_remembered(shape):
                self._shapes[key] = shape
        return shape

    def _wire_name(self, name: str) -> str:
        return self._encoder.capture.text(name, self._limits.name_bytes)

    def _is_remembered(self, shape: Shape) -> bool:
        return (
            len(self._shapes) < _MOST_SHAPES
            and len(shape.name) <= LONGEST_REMEMBERED
            and self._wire_name(shape.name) == shape.name
        )

    def _fill(
        self,
        component: ComponentTraceContext,
        inputs: object,
        metadata: Mapping[str, object] | None,
        links: Sequence[TraceContext | ComponentTraceContext | Link] | None,
    ) -> None:
        check_metadata(metadata)
        extras = self._extras_of(component)
        if inputs is not None:
            extras.put("input", self._encoder.captured("input", inputs))
        if metadata is not None:
            extras.put("metadata", self._encoder.metadata(metadata))
        for link in links or ():
            if len(extras.links) >= self._limits.links:
                extras.dropped_links += 1
            else:
                extras.links.append(self._encoder.link(link))

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

    def _implied_run(self, component: ComponentTraceContext) -> TraceContext:
        """The run of a trace that a component started: made when somebody asks for it."""
        root = component
        while root._parent is not None:
            root = root._parent
        if root._run is None:
            is_sampled = not isinstance(root, Unrecorded)
            run = TraceContext(name=root._shape.name, is_sampled=is_sampled, is_random=self._random_ids)
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

    async def _append_waiting(self, record: bytes, exc: BaseException | None) -> None:
        """The span log is full, and the policy is to wait; a cancellation is not made to wait."""
        if isinstance(exc, self._cancelled_types):
            self._sink.append_or_refuse(record)
        else:
            await self._sink.append(record)

    # Books of misuse and failure ---------------------------------------------------------------------------------

    def _count_late(self, call: str) -> None:
        self._late_calls[call] = self._late_calls.get(call, 0) + 1
        self._diagnostics.debug("tracing.late_call", call=call)

    def _failed(self, error: BaseException) -> None:
        """The failure boundary: an error inside tracing is counted and told once a minute, never raised."""
        self._count_error(error)
        self._diagnostics.error("tracing.internal_error", error=type(error).__name__)

    def _count_error(self, error: BaseException) -> None:
        name = type(error).__name__
        self._errors[name] = self._errors.get(name, 0) + 1

    def _refuse_after_shutdown(self) -> None:
        self._sink.refuse("after_shutdown")
        self._diagnostics.warning("tracing.after_shutdown", hint="spans opened after shutdown() are not recorded")


def _is_hex(text: str, digits: int) -> bool:
    return len(text) == digits and _HEX(text) is not None and text.strip("0") != ""


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
