"""Random programs of calls of OpenTelemetry's API, run with any provider, and what was recorded, in a form that can be
compared."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace import TracerProvider as SDKProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from asynctrace import Span
from asynctrace.opentelemetry import TracerProvider

from ..tracing.recording import Recording

__all__ = ["Block", "Failure", "Provider", "Recorded", "Step", "blocks", "run_on_ours", "run_on_the_sdk"]

OURS = ("asynctrace.", "otel.scope.")
"""Attributes that asynctrace adds."""


class Step(NamedTuple):
    """One call on the span of the block."""

    call: str
    arguments: tuple[Any, ...]


class Block(NamedTuple):
    """One span, how it is opened, and what happens in it."""

    how: str
    name: str
    options: dict[str, Any]
    body: list[Any]
    raises: BaseException | None
    end: int | None


class Recorded(NamedTuple):
    """One span. `number` and `parent` count blocks in the order in which they began; -1 is no span here."""

    number: int
    parent: int
    name: str
    kind: int
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any], int | None]]
    links: list[tuple[int, int, str, dict[str, Any]]]
    status: tuple[str, str]
    start: int | None
    end: int | None


class Failure(Exception):
    """What programs raise."""


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
keys = st.sampled_from(["a", "b", "http.method", "", "c.d"])
scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts
values = (
    st.none()
    | scalars
    | st.binary(max_size=4)
    | st.lists(scalars, max_size=3)
    | st.dictionaries(st.sampled_from("xyz"), scalars, max_size=2)
)
attributes = st.none() | st.dictionaries(keys, values, max_size=3)
moments = st.none() | st.integers(1, 2**62)
contexts = st.builds(
    SpanContext,
    trace_id=st.integers(0, 3),
    span_id=st.integers(0, 3),
    is_remote=st.booleans(),
    trace_flags=st.sampled_from([TraceFlags(0), TraceFlags(1)]),
    trace_state=st.sampled_from([TraceState(), TraceState([("k", "v")])]),
)
links = st.builds(Link, contexts, attributes)
descriptions = st.none() | texts

steps = st.one_of(
    st.builds(Step, st.just("set_attribute"), st.tuples(keys, values)),
    st.builds(Step, st.just("set_attributes"), st.tuples(st.dictionaries(keys, values, max_size=3))),
    st.builds(Step, st.just("add_event"), st.tuples(texts, attributes, moments)),
    st.builds(Step, st.just("add_link"), st.tuples(contexts, attributes)),
    st.builds(Step, st.just("update_name"), st.tuples(texts)),
    st.builds(Step, st.just("set_status"), st.tuples(st.sampled_from(StatusCode), descriptions)),
    st.builds(Step, st.just("set_status"), st.tuples(st.builds(Status, st.sampled_from(StatusCode)))),
    st.builds(
        Step, st.just("record_exception"), st.tuples(st.builds(Failure, texts), attributes, moments, st.booleans())
    ),
    st.builds(Step, st.just("end"), st.tuples(moments)),
)
options = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(SpanKind),
        "attributes": attributes,
        "links": st.none() | st.lists(links, max_size=2),
        "start_time": moments,
        "record_exception": st.booleans(),
        "set_status_on_exception": st.booleans(),
    },
)
HOW = ("start_as_current_span", "start_span", "use_span", "left open by its block")


def _block(body: st.SearchStrategy[Any]) -> st.SearchStrategy[Block]:
    return st.builds(
        Block,
        st.sampled_from(HOW),
        texts,
        options,
        st.lists(steps | body, max_size=5),
        st.none() | st.builds(Failure, texts),
        moments,
    )


blocks = st.recursive(_block(steps), _block, max_leaves=4)


class _Run:
    """A program that runs on a tracer; it knows which span belongs to which block."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self.tracer = tracer
        self.numbers: dict[int, int] = {}
        self.set_times: dict[int, tuple[int | None, int | None]] = {}

    def block(self, block: Block) -> None:
        with contextlib.suppress(Failure):
            getattr(self, "_" + block.how.replace(" ", "_"))(block)

    def _start_as_current_span(self, block: Block) -> None:
        with self.tracer.start_as_current_span(block.name, **block.options) as span:
            self._body(span, block)

    def _start_span(self, block: Block) -> None:
        with self.tracer.start_span(block.name, **block.options) as span:
            self._body(span, block)

    def _use_span(self, block: Block) -> None:
        span = self.tracer.start_span(block.name, **block.options)
        flags = {k: v for k, v in block.options.items() if k in ("record_exception", "set_status_on_exception")}
        with trace.use_span(span, end_on_exit=True, **flags):
            self._body(span, block)

    def _left_open_by_its_block(self, block: Block) -> None:
        try:
            with self.tracer.start_as_current_span(block.name, **block.options, end_on_exit=False) as span:
                self._body(span, block)
        finally:
            self._ended(span, block.end)
            span.end(block.end)

    def _body(self, span: trace.Span, block: Block) -> None:
        context = span.get_span_context()
        self.numbers[context.span_id] = len(self.numbers)
        self.set_times[context.span_id] = (block.options.get("start_time"), None)
        for step in block.body:
            if isinstance(step, Block):
                self.block(step)
                continue
            if step.call == "end":
                self._ended(span, *step.arguments)
            getattr(span, step.call)(*step.arguments)
        if block.raises is not None:
            raise block.raises

    def _ended(self, span: trace.Span, end: int | None) -> None:
        if span.is_recording():
            span_id = span.get_span_context().span_id
            self.set_times[span_id] = (self.set_times[span_id][0], end)


def run_on_the_sdk(block: Block) -> list[Recorded]:
    exporter = InMemorySpanExporter()
    provider = SDKProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    run = _Run(provider.get_tracer("tests", "1"))
    run.block(block)
    return sorted(_of_sdk(span, run) for span in exporter.get_finished_spans())


Provider = Callable[[Any], trace.TracerProvider]


def run_on_ours(block: Block, make_provider: Provider = TracerProvider) -> list[Recorded]:
    recording = Recording(mask=False)
    run = _Run(make_provider(recording.tracer).get_tracer("tests", "1"))
    run.block(block)
    assert not recording.tracer._errors
    return sorted(_of_ours(span, run) for span in recording.spans)


def _of_sdk(span: ReadableSpan, run: _Run) -> Recorded:
    assert span.context is not None
    start, end = run.set_times[span.context.span_id]
    return Recorded(
        number=run.numbers[span.context.span_id],
        parent=run.numbers[span.parent.span_id] if span.parent is not None else -1,
        name=span.name,
        kind=span.kind.value + 1,
        attributes=_plain(span.attributes),
        events=[_event(e.name, e.attributes, e.timestamp, run) for e in span.events],
        links=[
            (at.context.trace_id, at.context.span_id, at.context.trace_state.to_header(), _plain(at.attributes))
            for at in span.links
        ],
        status=(span.status.status_code.name, span.status.description or ""),
        start=span.start_time if start is not None else None,
        end=span.end_time if end is not None else None,
    )


def _of_ours(span: Span, run: _Run) -> Recorded:
    start, end = run.set_times[int(span.span_id, 16)]
    return Recorded(
        number=run.numbers[int(span.span_id, 16)],
        parent=run.numbers[int(span.parent_id, 16)] if span.parent_id else -1,
        name=span.name,
        kind=span.kind.value,
        attributes=_plain({key: value for key, value in span.attributes.items() if not key.startswith(OURS)}),
        events=[_event(e.name, e.attributes, e.time_ns, run) for e in span.events],
        links=[(int(at.trace_id, 16), int(at.span_id, 16), at.trace_state, _plain(at.attributes)) for at in span.links],
        status=(span.status.name, span.status_message),
        start=span.start_ns if start is not None else None,
        end=span.end_ns if end is not None else None,
    )


def _event(name: str, given: Any, time_ns: int, run: _Run) -> tuple[str, dict[str, Any], int | None]:
    """A time that nobody gave is left out, and a stack trace: it names other lines."""
    kept = {key: value for key, value in _plain(given).items() if key != "exception.stacktrace"}
    return (name, kept, time_ns if time_ns < 2**62 and not _is_now(time_ns) else None)


def _is_now(time_ns: int) -> bool:
    return abs(time.time_ns() - time_ns) < 3600 * 10**9


def _plain(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Attributes in a form in which True is not 1, and a tuple is a list."""
    return {key: _exact(given[key]) for key in sorted(given or {})}


def _exact(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _exact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(item) for item in value]
    return (type(value).__name__, repr(value))
