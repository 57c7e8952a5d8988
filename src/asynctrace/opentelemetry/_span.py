"""A component with the face of OpenTelemetry's `Span`.

It has no state of its own: whatever is set goes to the component at once, encoded, and any number of faces may stand for
one component. So what can be read back is what was recorded, masked and cut.

Source: OpenTelemetry specification, "Span"; where that leaves things open, as opentelemetry-sdk does them, but for the
endings: a span that a cancellation leaves is cancelled, and no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace as otel
from opentelemetry.trace.status import Status, StatusCode

from .._contracts import Ending, Link
from .._contracts import StatusCode as OurStatus
from ..tracing import ComponentTraceContext, TraceContext
from ..tracing._endings import classify
from ..tracing._unrecorded import Unrecorded
from ..wire import decode_span

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["KINDS", "Span", "face_of", "links_of"]

KINDS: Final = {kind: kind.value + 1 for kind in otel.SpanKind}
"""OTLP's number for each of OpenTelemetry's kinds."""
_OTEL_KINDS: Final = {number: kind for kind, number in KINDS.items()}
_STATUSES: Final = {StatusCode.OK: OurStatus.OK, StatusCode.ERROR: OurStatus.ERROR}

_TRACE_FLAGS: Final = tuple(map(otel.TraceFlags, range(4)))
"""By their number: bit 0 is sampled, bit 1 a random trace id (W3C Trace Context Level 2)."""
_KNOWN_REMOTE, _REMOTE = 0x100, 0x200
"""`Link.flags` of OTLP: it is known whether the span is remote, and it is."""


class Span(otel.Span):
    """One span. Made by `Tracer.start_span()`, or to show the current component to OpenTelemetry."""

    __slots__ = ("_component", "_context", "_records_exceptions", "_run", "_sets_status")

    def __init__(
        self,
        component: ComponentTraceContext,
        run: TraceContext | None = None,
        records_exceptions: bool = True,
        sets_status: bool = True,
    ) -> None:
        """`run`: the run that `component` is the root span of."""
        self._component = component
        self._run = run
        self._records_exceptions = records_exceptions
        self._sets_status = sets_status
        self._context: otel.SpanContext | None = None

    # Which it is -------------------------------------------------------------------------------------------------

    def get_span_context(self) -> otel.SpanContext:
        """Its ids, whether it is recorded, and the `tracestate` that its trace came with."""
        context = self._context
        if context is None:
            context = self._context = _context_of(self._component, self._run)
        return context

    context = property(get_span_context)

    @property
    def parent(self) -> otel.SpanContext | None:
        """Its parent's ids, or None at a root."""
        component = self._component
        if not component.parent_id:
            return None
        mine = self.get_span_context()
        is_remote = component._parent is None
        return otel.SpanContext(
            mine.trace_id, int(component.parent_id, 16), is_remote, mine.trace_flags, mine.trace_state
        )

    @property
    def name(self) -> str:
        return self._component.name

    @property
    def kind(self) -> otel.SpanKind:
        return _OTEL_KINDS.get(self._component._shape.kind, otel.SpanKind.INTERNAL)

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Those set so far, as they are recorded."""
        return MappingProxyType(decode_span(b"".join(self._component._attributes.values())).attributes)

    @property
    def status(self) -> Status:
        code, text = self._status()
        return Status(StatusCode(code.value), text or None)

    def is_recording(self) -> bool:
        return self._component.is_recording

    # What is set -------------------------------------------------------------------------------------------------

    def set_attribute(self, key: str, value: Any) -> None:
        """A key that is no text, or empty, is left out."""
        if key and isinstance(key, str):
            self._component.set_attribute(key, value)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """`set_attribute()` for each item."""
        self._component.set_attributes(_usable(attributes))

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """`timestamp` is in nanoseconds of the wall clock; None: now."""
        self._component._add_event(str(name), _usable(attributes), timestamp)

    def add_link(self, context: otel.SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        """One that names no span is left out, unless it says something else."""
        link = _link_of(context, attributes)
        if link is not None:
            self._component._add_link(link)

    def update_name(self, name: str) -> None:
        self._component.set_name(str(name))

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """OK stays; unset is no change. A description counts for an error only."""
        if isinstance(status, StatusCode):
            status = Status(status, description if status is StatusCode.ERROR else None)
        if not isinstance(status, Status) or status.status_code not in _STATUSES:
            return
        if self._status()[0] is not OurStatus.OK:
            self._component.set_status(_STATUSES[status.status_code], status.description or "")

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """An event by OpenTelemetry's semantic conventions for exceptions; `attributes` win over them."""
        if not self._component.is_recording:
            return
        name, message, stacktrace = self._component._recorder._encoder.capture.exception(exception)
        fields: dict[str, Any] = {
            "exception.type": name,
            "exception.message": message,
            "exception.stacktrace": stacktrace,
            "exception.escaped": str(escaped),
        }
        self._component._add_event("exception", {**fields, **_usable(attributes)}, timestamp)

    # Its end -----------------------------------------------------------------------------------------------------

    def end(self, end_time: int | None = None) -> None:
        """End it, now or at `end_time` (nanoseconds of the wall clock): as an error if its status is one."""
        self._end_as(Ending.ERROR if self._status()[0] is OurStatus.ERROR else Ending.OK, end_time)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Of `with tracer.start_span("name") as span`, which makes nothing current."""
        if exc is not None:
            self._note(exc, self._records_exceptions, self._sets_status, escaped=True)
        self._end_by(exc)

    def _note(self, exc: BaseException, records: bool, sets_status: bool, *, escaped: bool = False) -> None:
        """What OpenTelemetry writes down of an exception that leaves a block. A cancellation is none of those."""
        if not isinstance(exc, Exception) or not self._component.is_recording:
            return
        if records:
            self.record_exception(exc, escaped=escaped)
        if sets_status:
            _, message, _ = self._component._recorder._encoder.capture.exception(exc)
            self.set_status(StatusCode.ERROR, f"{type(exc).__name__}: {message}")

    def _end_by(self, exc: BaseException | None) -> None:
        """End it as the exception says that left its block. An exception that may not set the status makes no error."""
        if exc is None and self._component._extras is None:
            self._component._end_apart(Ending.OK)
            return
        is_error = self._status()[0] is OurStatus.ERROR
        ending = Ending.OK if exc is None else classify(exc, self._component._recorder._cancelled_types)
        if isinstance(exc, Exception) and ending in (Ending.ERROR, Ending.TIMEOUT) and not is_error:
            ending = Ending.OK
        self._end_as(Ending.ERROR if ending is Ending.OK and is_error else ending, None)

    def _end_as(self, ending: Ending, end_ns: int | None) -> None:
        extras = self._component._extras
        if ending is Ending.OK and extras is not None and extras.status is None and self._component._shape.scope:
            extras.status = (OurStatus.UNSET, "")  # as `Shape.ended_ok` has it for those without extras
        self._component._end_apart(ending, None if end_ns is None else int(end_ns))

    def _status(self) -> tuple[OurStatus, str]:
        extras = self._component._extras
        return (OurStatus.UNSET, "") if extras is None or extras.status is None else extras.status

    def __repr__(self) -> str:
        return f"<asynctrace.opentelemetry.Span {self.name!r} {self.get_span_context()!r}>"


def face_of(component: ComponentTraceContext | None, run: TraceContext | None) -> Span | None:
    """The span that shows what is current to OpenTelemetry: a component, or else the root span of a run."""
    if component is not None:
        return Span(component)
    if run is None or run._recorder is None:
        return None
    return Span(run._root or run._recorder._nothing, run)


def _link_of(context: object, attributes: Mapping[str, Any] | None) -> Link | None:
    """A link for the core, or None where it says nothing."""
    if not isinstance(context, otel.SpanContext) or not (context.is_valid or attributes or context.trace_state):
        return None
    return Link(
        trace_id=otel.format_trace_id(context.trace_id),
        span_id=otel.format_span_id(context.span_id),
        trace_state=context.trace_state.to_header(),
        attributes=dict(_usable(attributes)),
        flags=int(context.trace_flags) & 0xFF | _KNOWN_REMOTE | (_REMOTE if context.is_remote else 0),
    )


def links_of(links: Sequence[otel.Link] | None) -> list[Link]:
    found = (_link_of(link.context, link.attributes) for link in links or () if isinstance(link, otel.Link))
    return [link for link in found if link is not None]


def _usable(attributes: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Without the keys that are no texts, or empty."""
    if not attributes or not isinstance(attributes, Mapping):
        return {}
    if "" not in attributes and all(isinstance(key, str) for key in attributes):
        return attributes
    return {key: value for key, value in attributes.items() if key and isinstance(key, str)}


def _context_of(component: ComponentTraceContext, run: TraceContext | None) -> otel.SpanContext:
    if run is not None:
        trace_id, span_id, is_sampled = run.trace_id, run.span_id, run.is_sampled
    else:
        run = component._run
        trace_id, span_id, is_sampled = component.trace_id, component.span_id, not isinstance(component, Unrecorded)
    is_random = component._recorder._random_ids if run is None else run.is_random
    return otel.SpanContext(
        int(trace_id or "0", 16),
        int(span_id or "0", 16),
        is_remote=False,
        trace_flags=_TRACE_FLAGS[is_sampled + 2 * is_random],
        trace_state=otel.TraceState.from_header([run.tracestate]) if run and run.tracestate else None,
    )
