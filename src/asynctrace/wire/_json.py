"""Spans as OTLP/JSON.

It is the protobuf JSON mapping with the exceptions of OTLP: ids are lower-case hex instead of base64, enums
are numbers, names are camelCase. 64-bit integers are decimal text, bytes are base64, and a double that JSON
has no number for is `"NaN"`, `"Infinity"` or `"-Infinity"`.

Promises: the same limits and replacements as in the binary encoding (`_values`); a span always has its ids,
name, kind, times and status, other fields only when they hold something; `parse_json_request()` reads it.

Source: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from .._contracts import AttributeValue, Event, Link, Resource, Scope, Span
from ._decode import ResourceSpans, decode_records
from ._logs import Log
from ._values import MAX_DEPTH, encode_text

__all__ = ["join_json_request", "json_record", "json_request", "json_span"]

Json: TypeAlias = dict[str, Any]


def json_request(groups: Iterable[ResourceSpans], logs: Iterable[tuple[Resource, Scope, Sequence[Log]]] = ()) -> bytes:
    """An `ExportTraceServiceRequest` as UTF-8 JSON, one `resourceSpans` item for each group. With `logs` the object is an
    `ExportLogsServiceRequest` as well; readers of the one pass over the fields of the other.

    Raises `TypeError` and `ValueError` as `encode_any_value()` does.
    """
    spans = [
        _resource_spans(group.resource, [(group.scope, [json_span(span) for span in group.spans])]) for group in groups
    ]
    records = [_resource_logs(resource, scope, some) for resource, scope, some in logs]
    return msgspec.json.encode({"resourceSpans": spans, **_present("resourceLogs", records)})


def json_record(record: bytes | memoryview) -> msgspec.Raw:
    """One record as encoded JSON, for `join_json_request()`. Raises `WireError`, else errors as in `json_request()`."""
    (span,) = decode_records((record,))
    return msgspec.Raw(msgspec.json.encode(json_span(span)))


def join_json_request(resource: Resource, scopes: Iterable[tuple[Scope, Sequence[msgspec.Raw]]]) -> bytes:
    """A request of one resource, whose spans were encoded one by one."""
    return msgspec.json.encode({"resourceSpans": [_resource_spans(resource, scopes)]})


def json_span(span: Span) -> Json:
    """One span as it stands in `scopeSpans[].spans[]`. Errors as in `json_request()`."""
    return {
        "traceId": span.trace_id.lower(),
        "spanId": span.span_id.lower(),
        **_present("traceState", _text(span.trace_state)),
        **_present("parentSpanId", span.parent_id.lower()),
        **_present("flags", span.flags),
        "name": _text(span.name),
        "kind": int(span.kind),
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        **_present("attributes", _attributes(span.attributes)),
        **_present("droppedAttributesCount", span.dropped_attributes),
        **_present("events", [_event(event) for event in span.events]),
        **_present("droppedEventsCount", span.dropped_events),
        **_present("links", [_link(link) for link in span.links]),
        **_present("droppedLinksCount", span.dropped_links),
        "status": {**_present("message", _text(span.status_message)), **_present("code", int(span.status))},
    }


def _resource_spans(resource: Resource, scopes: Iterable[tuple[Scope, Sequence[Json | msgspec.Raw]]]) -> Json:
    return {
        "resource": _present("attributes", _attributes(resource.attributes)),
        "scopeSpans": [_scope_spans(scope, spans) for scope, spans in scopes],
        **_present("schemaUrl", _text(resource.schema_url)),
    }


def _scope_spans(scope: Scope, spans: Sequence[Json | msgspec.Raw]) -> Json:
    return {"scope": _scope(scope), "spans": spans, **_present("schemaUrl", _text(scope.schema_url))}


def _scope(scope: Scope) -> Json:
    return {
        **_present("name", _text(scope.name)),
        **_present("version", _text(scope.version)),
        **_present("attributes", _attributes(scope.attributes)),
    }


def _resource_logs(resource: Resource, scope: Scope, logs: Iterable[Log]) -> Json:
    records = {"scope": _scope(scope), "logRecords": [_log(log) for log in logs]}
    return {
        "resource": _present("attributes", _attributes(resource.attributes)),
        "scopeLogs": [{**records, **_present("schemaUrl", _text(scope.schema_url))}],
        **_present("schemaUrl", _text(resource.schema_url)),
    }


def _log(log: Log) -> Json:
    return {
        **_present("timeUnixNano", str(log.time_ns) if log.time_ns else ""),
        **_present("observedTimeUnixNano", str(log.observed_ns) if log.observed_ns else ""),
        **_present("severityNumber", log.severity),
        **_present("severityText", _text(log.severity_text)),
        **({} if log.body is None else {"body": _any_value(log.body, MAX_DEPTH)}),
        **_present("attributes", _attributes(log.attributes)),
        **_present("droppedAttributesCount", log.dropped_attributes),
        **_present("flags", log.flags),
        "traceId": log.trace_id.lower(),
        **_present("spanId", log.span_id.lower()),
        **_present("eventName", _text(log.event_name)),
    }


def _event(event: Event) -> Json:
    return {
        "timeUnixNano": str(event.time_ns),
        "name": _text(event.name),
        **_present("attributes", _attributes(event.attributes)),
        **_present("droppedAttributesCount", event.dropped_attributes),
    }


def _link(link: Link) -> Json:
    return {
        "traceId": link.trace_id.lower(),
        "spanId": link.span_id.lower(),
        **_present("traceState", _text(link.trace_state)),
        **_present("attributes", _attributes(link.attributes)),
        **_present("droppedAttributesCount", link.dropped_attributes),
        **_present("flags", link.flags),
    }


def _present(name: str, value: Any) -> Json:
    return {name: value} if value else {}


def _text(text: str) -> str:
    return text if text.isascii() else encode_text(text).decode()


def _attributes(attributes: Mapping[str, AttributeValue], depth: int = MAX_DEPTH) -> list[Json]:
    return [{"key": _text(key), "value": _any_value(value, depth)} for key, value in attributes.items()]


def _any_value(value: AttributeValue, depth: int) -> Json:
    if depth < 1:
        raise ValueError(f"an attribute holds at most {MAX_DEPTH} values inside one another")
    if value is None:
        return {}
    for kind, convert in _CONVERTERS:
        if isinstance(value, kind):
            return convert(value, depth)
    raise TypeError(f"OTLP cannot carry a {type(value).__name__}")


def _boolean(value: bool, depth: int) -> Json:
    return {"boolValue": value}


def _integer(value: int, depth: int) -> Json:
    try:
        text = str(int(value))
    except ValueError:
        text = hex(value)
    return {"intValue" if -(2**63) <= value < 2**63 else "stringValue": text}


def _double(value: float, depth: int) -> Json:
    if math.isfinite(value):
        return {"doubleValue": float(value)}
    return {"doubleValue": "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"}


def _string(value: str, depth: int) -> Json:
    return {"stringValue": _text(value)}


def _bytes(value: bytes | bytearray | memoryview, depth: int) -> Json:
    return {"bytesValue": binascii.b2a_base64(value, newline=False).decode("ascii")}


def _map(value: Mapping[str, AttributeValue], depth: int) -> Json:
    return {"kvlistValue": {"values": _attributes(value, depth - 1)}}


def _array(value: Sequence[AttributeValue], depth: int) -> Json:
    return {"arrayValue": {"values": [_any_value(item, depth - 1) for item in value]}}


_CONVERTERS: tuple[tuple[type | tuple[type, ...], Callable[[Any, int], Json]], ...] = (
    (str, _string),
    (bool, _boolean),
    (int, _integer),
    (float, _double),
    ((bytes, bytearray, memoryview), _bytes),
    (Mapping, _map),
    (Sequence, _array),
)
"""Asked in this order: a bool is an int, text and bytes are sequences."""
