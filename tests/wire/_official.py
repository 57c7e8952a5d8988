"""The official protobuf classes as a second opinion: spans to and from them, and spans to try."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import msgspec
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from asynctrace._contracts import (
    AttributeValue,
    Event,
    Link,
    Resource,
    Scope,
    Span,
    SpanKind,
    StatusCode,
)
from asynctrace.wire import ResourceSpans

# -- official to ours


def value_of(message: common_pb2.AnyValue) -> AttributeValue:
    kind = message.WhichOneof("value")
    if kind is None or kind == "string_value_strindex":
        return None
    if kind == "array_value":
        return [value_of(item) for item in message.array_value.values]
    if kind == "kvlist_value":
        return attributes_of(message.kvlist_value.values)
    value: AttributeValue = getattr(message, kind)
    return value


def attributes_of(pairs: Iterable[common_pb2.KeyValue]) -> dict[str, AttributeValue]:
    return {pair.key: value_of(pair.value) for pair in pairs}


def span_of(message: trace_pb2.Span) -> Span:
    return Span(
        trace_id=message.trace_id.hex(),
        span_id=message.span_id.hex(),
        parent_id=message.parent_span_id.hex(),
        name=message.name,
        kind=SpanKind(message.kind) if message.kind in range(6) else SpanKind.UNSPECIFIED,
        start_ns=message.start_time_unix_nano,
        end_ns=message.end_time_unix_nano,
        attributes=attributes_of(message.attributes),
        events=tuple(map(event_of, message.events)),
        links=tuple(map(link_of, message.links)),
        status=StatusCode(message.status.code) if message.status.code in range(3) else StatusCode.UNSET,
        status_message=message.status.message,
        trace_state=message.trace_state,
        flags=message.flags,
        dropped_attributes=message.dropped_attributes_count,
        dropped_events=message.dropped_events_count,
        dropped_links=message.dropped_links_count,
    )


def event_of(message: trace_pb2.Span.Event) -> Event:
    return Event(
        time_ns=message.time_unix_nano,
        name=message.name,
        attributes=attributes_of(message.attributes),
        dropped_attributes=message.dropped_attributes_count,
    )


def link_of(message: trace_pb2.Span.Link) -> Link:
    return Link(
        trace_id=message.trace_id.hex(),
        span_id=message.span_id.hex(),
        trace_state=message.trace_state,
        attributes=attributes_of(message.attributes),
        dropped_attributes=message.dropped_attributes_count,
        flags=message.flags,
    )


def groups_of(request: ExportTraceServiceRequest) -> list[ResourceSpans]:
    return [
        ResourceSpans(
            resource=Resource(attributes=attributes_of(outer.resource.attributes)),
            scope=Scope(
                name=inner.scope.name,
                version=inner.scope.version,
                attributes=attributes_of(inner.scope.attributes),
                schema_url=inner.schema_url,
            ),
            spans=tuple(map(span_of, inner.spans)),
        )
        for outer in request.resource_spans
        for inner in outer.scope_spans
    ]


# -- ours to official


def official_value(value: Any) -> common_pb2.AnyValue:
    message = common_pb2.AnyValue()
    if isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int):
        message.int_value = value
    elif isinstance(value, float):
        message.double_value = value
    elif isinstance(value, str):
        message.string_value = value
    elif isinstance(value, bytes):
        message.bytes_value = value
    elif isinstance(value, dict):
        message.kvlist_value.SetInParent()
        message.kvlist_value.values.extend(official_attributes(value))
    elif value is not None:
        message.array_value.SetInParent()
        message.array_value.values.extend(map(official_value, value))
    return message


def official_attributes(attributes: dict[str, AttributeValue]) -> list[common_pb2.KeyValue]:
    return [common_pb2.KeyValue(key=key, value=official_value(value)) for key, value in attributes.items()]


def official_span(span: Span) -> trace_pb2.Span:
    message = trace_pb2.Span(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id),
        trace_state=span.trace_state,
        name=span.name,
        kind=span.kind.value,  # type: ignore[arg-type]
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=official_attributes(span.attributes),
        dropped_attributes_count=span.dropped_attributes,
        events=map(official_event, span.events),
        dropped_events_count=span.dropped_events,
        links=map(official_link, span.links),
        dropped_links_count=span.dropped_links,
        flags=span.flags,
    )
    message.status.code = span.status.value  # type: ignore[assignment]
    message.status.message = span.status_message
    return message


def official_event(event: Event) -> trace_pb2.Span.Event:
    return trace_pb2.Span.Event(
        time_unix_nano=event.time_ns,
        name=event.name,
        attributes=official_attributes(event.attributes),
        dropped_attributes_count=event.dropped_attributes,
    )


def official_link(link: Link) -> trace_pb2.Span.Link:
    return trace_pb2.Span.Link(
        trace_id=bytes.fromhex(link.trace_id),
        span_id=bytes.fromhex(link.span_id),
        trace_state=link.trace_state,
        attributes=official_attributes(link.attributes),
        dropped_attributes_count=link.dropped_attributes,
        flags=link.flags,
    )


def official_request(groups: list[ResourceSpans]) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    for group in groups:
        outer = request.resource_spans.add()
        outer.resource.attributes.extend(official_attributes(group.resource.attributes))
        inner = outer.scope_spans.add()
        inner.scope.name, inner.scope.version = group.scope.name, group.scope.version
        inner.scope.attributes.extend(official_attributes(group.scope.attributes))
        inner.schema_url = group.scope.schema_url
        inner.spans.extend(map(official_span, group.spans))
    return request


# -- comparing


def exact(value: Any) -> Any:
    """A form in which `==` tells True from 1, -0.0 from 0.0, and finds NaN equal to itself."""
    if isinstance(value, float):
        return "NaN" if value != value else ("double", struct.pack("<d", value))
    if isinstance(value, dict):
        return ("map", [(key, exact(item)) for key, item in value.items()])
    if isinstance(value, (list, tuple)):
        return [exact(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return [(name, exact(getattr(value, name))) for name in value.__struct_fields__]
    return (type(value).__name__, value)


# -- things to try

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["", "é", "日本", "🙂" * 50, "\x00", "x" * 126, "x" * 127, "x" * 128, "y" * 1911, "y" * 1912, "z" * 20000]
)
keys = texts | st.sampled_from(["http.method", "k" * 127, "k" * 128, "k" * 3000])
integers = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(
    [0, 1, -1, 127, 128, 1023, 1024, 2047, 2048, 16383, 16384, 2**63 - 1, -(2**63)]
)
doubles = st.floats() | st.sampled_from([0.0, -0.0, float("nan"), float("inf"), -float("inf"), 5e-324])
scalars = st.none() | st.booleans() | integers | doubles | texts | st.binary(max_size=200)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
attributes = st.dictionaries(keys, values, max_size=4)
trace_ids = st.binary(min_size=16, max_size=16).map(bytes.hex)
span_ids = st.binary(min_size=8, max_size=8).map(bytes.hex)
times = st.integers(0, 2**64 - 1)
counts = st.sampled_from([0, 1, 127, 128, 2**32 - 1]) | st.integers(0, 2**32 - 1)

events = st.builds(Event, time_ns=times, name=texts, attributes=attributes, dropped_attributes=counts)
links = st.builds(
    Link,
    trace_id=trace_ids,
    span_id=span_ids,
    trace_state=texts,
    attributes=attributes,
    dropped_attributes=counts,
    flags=counts,
)
spans = st.builds(
    Span,
    trace_id=trace_ids,
    span_id=span_ids,
    parent_id=st.just("") | span_ids,
    name=texts,
    kind=st.sampled_from(SpanKind),
    start_ns=times,
    end_ns=times,
    attributes=attributes,
    events=st.lists(events, max_size=2).map(tuple),
    links=st.lists(links, max_size=2).map(tuple),
    status=st.sampled_from(StatusCode),
    status_message=texts,
    trace_state=texts,
    flags=counts,
    dropped_attributes=counts,
    dropped_events=counts,
    dropped_links=counts,
)
resources = st.builds(Resource, attributes=attributes)
scopes = st.builds(Scope, name=texts, version=texts, attributes=attributes, schema_url=texts)
groups = st.lists(
    st.builds(ResourceSpans, resource=resources, scope=scopes, spans=st.lists(spans, max_size=2).map(tuple)),
    max_size=2,
)
