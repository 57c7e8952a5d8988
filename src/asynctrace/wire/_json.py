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

from .._contracts import AttributeValue, Event, Link, Span
from ._decode import ResourceSpans, decode_records
from ._values import MAX_DEPTH, encode_text

__all__ = ["join_json_request", "json_record", "json_request", "json_span"]

Json: TypeAlias = dict[str, Any]


def json_request(groups: Iterable[ResourceSpans]) -> bytes:
    """An `ExportTraceServiceRequest` as UTF-8 JSON, one `resourceSpans` item for each group.

    Raises `TypeError` and `ValueError` as `encode_any_value()` does.
    """
    return msgspec.json.encode(
        {"resourceSpans": [_resource_spans(group, [json_span(span) for span in group.spans]) for group in groups]}
    )


def json_record(record: bytes | memoryview) -> msgspec.Raw:
    """One record as encoded JSON, for `join_json_request()`. Raises `WireError`, else errors as in `json_request()`."""
    (span,) = decode_records((record,))
    return msgspec.Raw(msgspec.json.encode(json_span(span)))


def join_json_request(around: ResourceSpans, spans: Sequence[msgspec.Raw]) -> bytes:
    """`json_request()` of one group whose spans were encoded one by one: `around` gives resource and scope."""
    return msgspec.json.encode({"resourceSpans": [_resource_spans(around, spans)]})


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


def _resource_spans(group: ResourceSpans, spans: Sequence[Json | msgspec.Raw]) -> Json:
    scope = {
        **_present("name", _text(group.scope.name)),
        **_present("version", _text(group.scope.version)),
        **_present("attributes", _attributes(group.scope.attributes)),
    }
    return {
        "resource": _present("attributes", _attributes(group.resource.attributes)),
        "scopeSpans": [{"scope": scope, "spans": spans}],
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
