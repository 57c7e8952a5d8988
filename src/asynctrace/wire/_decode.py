"""Bytes back to spans: for consoles, files, tests and the collector; never on the hot path.

Promises, for every sequence of bytes

1. The answer is spans or a `WireError`, nothing else, in time proportional to the bytes.
2. What the official parser accepts is accepted with the same meaning: fields in any order, unknown fields and
   unknown enum numbers, repeated singular fields (the last one counts, messages are merged), wire types
   that do not belong to a field. Ids of a wrong length are kept as they are; judging them is the reader's.
3. Values inside one another are limited to `MAX_DEPTH`, more than fits in the 100 messages of the official
   parsers.

Of a repeated attribute key the last value counts.

Source: opentelemetry/proto/{common,resource,trace}/v1/*.proto of OTLP 1.x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, TypeAlias

import msgspec

from .._contracts import AttributeValue, Event, Link, Resource, Scope, Span, SpanKind, StatusCode
from .._errors import WireError
from ._fields import read_fields

__all__ = [
    "ResourceSpans",
    "decode_attribute",
    "decode_event",
    "decode_link",
    "decode_records",
    "decode_request",
    "decode_resource",
    "decode_response",
    "decode_scope",
    "decode_span",
    "decode_status",
]

MAX_DEPTH = 64

Attributes: TypeAlias = dict[str, AttributeValue]
Scalars: TypeAlias = dict[int, tuple[str, Callable[[bytes, int, int], Any]]]
"""The singular fields of a message: the tag, the name in the decoded form, how to read it."""


class ResourceSpans(msgspec.Struct, frozen=True, kw_only=True):
    """The spans of one (resource, scope) pair of a request."""

    resource: Resource
    scope: Scope
    spans: tuple[Span, ...] = ()


def decode_request(body: bytes | memoryview) -> list[ResourceSpans]:
    """Decode an `ExportTraceServiceRequest`: one `ResourceSpans` for each (resource, scope) pair, in order.

    Raises `WireError`.
    """
    buffer = bytes(body)
    groups: list[ResourceSpans] = []
    for tag, first, last in read_fields(buffer, 0, len(buffer)):
        if tag == 0x0A:
            groups += _resource_spans(buffer, first, last)
    return groups


def decode_response(body: bytes | memoryview) -> tuple[int, str]:
    """Decode an `ExportTraceServiceResponse` to the number of rejected spans and the message.

    A negative number of rejected spans reads as 0. Raises `WireError`.
    """
    buffer = bytes(body)
    fields: dict[str, Any] = {}
    for tag, first, last in read_fields(buffer, 0, len(buffer)):
        if tag == 0x0A:
            _read(buffer, first, last, _PARTIAL_SUCCESS, fields)
    return max(0, fields.get("rejected", 0)), fields.get("message", "")


def decode_records(payload: Sequence[bytes | memoryview]) -> tuple[Span, ...]:
    """Decode slices which, laid end to end, are records. Raises `WireError`."""
    buffer = b"".join(payload)
    return _scope_spans(buffer, 0, len(buffer))[1]


def decode_span(message: bytes | memoryview) -> Span:
    """Decode a `Span` message. Raises `WireError`."""
    buffer = bytes(message)
    return _span(buffer, 0, len(buffer))


def decode_resource(message: bytes) -> Resource:
    """Decode a `Resource` message. Raises `WireError`."""
    fields: dict[str, Any] = {}
    _read(message, 0, len(message), {}, fields, attributes_tag=0x0A)
    return Resource(**fields)


def decode_scope(message: bytes) -> Scope:
    """Decode an `InstrumentationScope` message. Raises `WireError`."""
    fields: dict[str, Any] = {}
    _read(message, 0, len(message), _SCOPE, fields, attributes_tag=0x1A)
    return Scope(**fields)


def decode_attribute(message: bytes) -> tuple[str, AttributeValue]:
    """Decode a `KeyValue` message. Raises `WireError`."""
    attributes: Attributes = {}
    _key_value(message, 0, len(message), attributes, MAX_DEPTH)
    return attributes.popitem()


def decode_event(message: bytes) -> Event:
    """Decode an `Event` message of a span. Raises `WireError`."""
    return _event(message, 0, len(message))


def decode_link(message: bytes) -> Link:
    """Decode a `Link` message of a span. Raises `WireError`."""
    return _link(message, 0, len(message))


def decode_status(message: bytes) -> StatusCode:
    """The code of a `Status` message. Raises `WireError`."""
    fields: dict[str, Any] = {}
    _read(message, 0, len(message), _STATUS, fields)
    return StatusCode(fields.get("status", StatusCode.UNSET))


def _resource_spans(buffer: bytes, position: int, end: int) -> list[ResourceSpans]:
    fields: dict[str, Any] = {}
    scopes: list[tuple[Scope, tuple[Span, ...]]] = []
    for tag, first, last in read_fields(buffer, position, end):
        if tag == 0x0A:
            _read(buffer, first, last, {}, fields, attributes_tag=0x0A)
        elif tag == 0x12:
            scopes.append(_scope_spans(buffer, first, last))
        elif tag == 0x1A:
            fields["schema_url"] = _text(buffer, first, last)
    resource = Resource(**fields)  # may stand behind its spans
    return [ResourceSpans(resource=resource, scope=scope, spans=spans) for scope, spans in scopes]


def _scope_spans(buffer: bytes, position: int, end: int) -> tuple[Scope, tuple[Span, ...]]:
    fields: dict[str, Any] = {}
    spans: list[Span] = []
    for tag, first, last in read_fields(buffer, position, end):
        if tag == 0x12:
            spans.append(_span(buffer, first, last))
        elif tag == 0x0A:
            _read(buffer, first, last, _SCOPE, fields, attributes_tag=0x1A)
        elif tag == 0x1A:
            fields["schema_url"] = _text(buffer, first, last)
    return Scope(**fields), tuple(spans)


def _span(buffer: bytes, position: int, end: int) -> Span:
    fields: dict[str, Any] = {"trace_id": "", "span_id": ""}
    attributes: Attributes = {}
    events: list[Event] = []
    links: list[Link] = []
    for tag, first, last in read_fields(buffer, position, end):
        known = _SPAN.get(tag)
        if known is not None:
            fields[known[0]] = known[1](buffer, first, last)
        elif tag == 0x4A:
            _key_value(buffer, first, last, attributes, MAX_DEPTH)
        elif tag == 0x5A:
            events.append(_event(buffer, first, last))
        elif tag == 0x6A:
            links.append(_link(buffer, first, last))
        elif tag == 0x7A:
            _read(buffer, first, last, _STATUS, fields)
    return Span(attributes=attributes, events=tuple(events), links=tuple(links), **fields)


def _event(buffer: bytes, position: int, end: int) -> Event:
    fields: dict[str, Any] = {"time_ns": 0, "name": ""}
    _read(buffer, position, end, _EVENT, fields, attributes_tag=0x1A)
    return Event(**fields)


def _link(buffer: bytes, position: int, end: int) -> Link:
    fields: dict[str, Any] = {"trace_id": "", "span_id": ""}
    _read(buffer, position, end, _LINK, fields, attributes_tag=0x22)
    return Link(**fields)


def _read(
    buffer: bytes,
    position: int,
    end: int,
    scalars: Scalars,
    fields: dict[str, Any],
    *,
    attributes_tag: int = 0,
) -> None:
    """Read a message into `fields`; reading a second one into the same dict merges them as protobuf does."""
    for tag, first, last in read_fields(buffer, position, end):
        known = scalars.get(tag)
        if known is not None:
            fields[known[0]] = known[1](buffer, first, last)
        elif tag == attributes_tag:
            _key_value(buffer, first, last, fields.setdefault("attributes", {}), MAX_DEPTH)


def _key_value(buffer: bytes, position: int, end: int, attributes: Attributes, depth: int) -> None:
    key, value = "", None
    for tag, first, last in read_fields(buffer, position, end):
        if tag == 0x0A:
            key = _text(buffer, first, last)
        elif tag == 0x12:
            value = _any_value(buffer, first, last, value, depth)
    attributes[key] = value


def _any_value(buffer: bytes, position: int, end: int, value: AttributeValue, depth: int) -> AttributeValue:
    """Read an `AnyValue` over `value`: the last alternative counts, the same message twice is merged."""
    if depth < 1:
        raise WireError(f"more than {MAX_DEPTH} values inside one another at offset {position}")
    for tag, first, last in read_fields(buffer, position, end):
        read = _VALUES.get(tag)
        if read is not None:
            value = read(buffer, first, last)
        elif tag == 0x2A:
            value = value if isinstance(value, list) else []
            _array(buffer, first, last, value, depth - 1)
        elif tag == 0x32:
            value = value if isinstance(value, dict) else {}
            _map(buffer, first, last, value, depth - 1)
    return value


def _array(buffer: bytes, position: int, end: int, values: list[AttributeValue], depth: int) -> None:
    for tag, first, last in read_fields(buffer, position, end):
        if tag == 0x0A:
            values.append(_any_value(buffer, first, last, None, depth))


def _map(buffer: bytes, position: int, end: int, values: Attributes, depth: int) -> None:
    for tag, first, last in read_fields(buffer, position, end):
        if tag == 0x0A:
            _key_value(buffer, first, last, values, depth)


_double_at = Struct("<d").unpack_from


def _text(buffer: bytes, first: int, last: int) -> str:
    try:
        return buffer[first:last].decode()
    except UnicodeDecodeError as error:
        raise WireError(f"the text at offset {first} is not UTF-8: {error.reason}") from None


def _hex(buffer: bytes, first: int, last: int) -> str:
    return buffer[first:last].hex()


def _content(buffer: bytes, first: int, last: int) -> bytes:
    return buffer[first:last]


def _fixed(buffer: bytes, first: int, last: int) -> int:
    return int.from_bytes(buffer[first:last], "little")


def _double(buffer: bytes, first: int, last: int) -> float:
    number: float = _double_at(buffer, first)[0]
    return number


# Readers of varints: `first` is the number itself.


def _unsigned(buffer: bytes, first: int, last: int) -> int:
    return first & 0xFFFF_FFFF


def _signed(buffer: bytes, first: int, last: int) -> int:
    return first - 2**64 if first >= 2**63 else first


def _boolean(buffer: bytes, first: int, last: int) -> bool:
    return first != 0


def _kind(buffer: bytes, first: int, last: int) -> SpanKind:
    return _KINDS.get(first & 0xFFFF_FFFF, SpanKind.UNSPECIFIED)


def _code(buffer: bytes, first: int, last: int) -> StatusCode:
    return _CODES.get(first & 0xFFFF_FFFF, StatusCode.UNSET)


def _nothing(buffer: bytes, first: int, last: int) -> None:
    return None


_KINDS: dict[int, SpanKind] = {kind.value: kind for kind in SpanKind}
_CODES: dict[int, StatusCode] = {code.value: code for code in StatusCode}

_VALUES: dict[int, Callable[[bytes, int, int], AttributeValue]] = {
    0x0A: _text,
    0x10: _boolean,
    0x18: _signed,
    0x21: _double,
    0x3A: _content,
    0x40: _nothing,  # string_value_strindex: an alternative of the oneof that only profiles can resolve
}
_SPAN: Scalars = {
    0x0A: ("trace_id", _hex),
    0x12: ("span_id", _hex),
    0x1A: ("trace_state", _text),
    0x22: ("parent_id", _hex),
    0x2A: ("name", _text),
    0x30: ("kind", _kind),
    0x39: ("start_ns", _fixed),
    0x41: ("end_ns", _fixed),
    0x50: ("dropped_attributes", _unsigned),
    0x60: ("dropped_events", _unsigned),
    0x70: ("dropped_links", _unsigned),
    0x85: ("flags", _fixed),
}
_EVENT: Scalars = {
    0x09: ("time_ns", _fixed),
    0x12: ("name", _text),
    0x20: ("dropped_attributes", _unsigned),
}
_LINK: Scalars = {
    0x0A: ("trace_id", _hex),
    0x12: ("span_id", _hex),
    0x1A: ("trace_state", _text),
    0x28: ("dropped_attributes", _unsigned),
    0x35: ("flags", _fixed),
}
_STATUS: Scalars = {0x12: ("status_message", _text), 0x18: ("status", _code)}
_SCOPE: Scalars = {0x0A: ("name", _text), 0x12: ("version", _text)}
_PARTIAL_SUCCESS: Scalars = {0x08: ("rejected", _signed), 0x12: ("message", _text)}
