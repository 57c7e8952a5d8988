"""Spans and what they are made of, as bytes: event, link, status, the whole span, the record around it.

`encode_event`, `encode_link` and `encode_status` write a field of a `Span` (tag, length, message), so that
a span is its parts joined. `encode_span` starts from the decoded form: complete, and slow; the tracer
joins parts instead.

Promises: fields appear in the order of their numbers; fields that hold their default are left out
(proto3); a number that does not fit its field is a `ValueError`.

Source: opentelemetry/proto/trace/v1/trace.proto of OTLP 1.x.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from struct import error as StructError

from .._contracts import AttributeValue, Event, Link, Span
from ._values import encode_attribute, encode_attributes, encode_text
from ._varint import TABLE_SIZE, VARINTS, encode_varint, length_delimited

__all__ = ["encode_event", "encode_link", "encode_span", "encode_status", "frame"]

_event_head = Struct("<BQB").pack
_times = Struct("<BQBQ").pack
_fixed32 = Struct("<I").pack
_MAX_32 = 0xFFFF_FFFF


def encode_event(time_ns: int, name: str, attributes: Mapping[str, AttributeValue], dropped: int = 0) -> bytes:
    """Field 11 of a `Span`: tag 0x5a, length, `Event` message.

    `time_ns` is nanoseconds since the Unix epoch, `dropped` how many attributes were left out. Raises
    `TypeError` and `ValueError` as `encode_any_value()` does, and `ValueError` for a time outside 64 bits.
    """
    text = encode_text(name)
    try:
        parts = [_event_head(0x09, time_ns, 0x12), encode_varint(len(text)), text]
    except StructError:
        raise ValueError(f"an event's time is 0 to 2**64 - 1 nanoseconds, not {time_ns!r:.40}") from None
    for key, value in attributes.items():
        parts.append(encode_attribute(b"\x1a", key, value))
    if dropped:
        parts.append(_count(b"\x20", dropped))
    return length_delimited(b"\x5a", b"".join(parts))


def encode_link(
    trace_id: bytes,
    span_id: bytes,
    trace_state: str,
    attributes: Mapping[str, AttributeValue],
    flags: int,
    dropped: int = 0,
) -> bytes:
    """Field 13 of a `Span`: tag 0x6a, length, `Link` message. Errors as in `encode_event()`."""
    parts = [
        _optional(b"\x0a", trace_id),
        _optional(b"\x12", span_id),
        _optional(b"\x1a", encode_text(trace_state)),
        encode_attributes(b"\x22", attributes),
        _count(b"\x28", dropped),
        _flags(b"\x35", flags),
    ]
    return length_delimited(b"\x6a", b"".join(parts))


def encode_status(code: int, message: str = "") -> bytes:
    """Field 15 of a `Span`: tag 0x7a, length, `Status` message; empty for UNSET without a message."""
    body = _optional(b"\x12", encode_text(message)) + _count(b"\x18", code)
    return length_delimited(b"\x7a", body) if body else b""


def encode_span(span: Span) -> bytes:
    """A `Span` message.

    Raises `ValueError` for ids that are no hex and for numbers that do not fit, else as `encode_any_value()`.
    """
    parts = [
        _optional(b"\x0a", bytes.fromhex(span.trace_id)),
        _optional(b"\x12", bytes.fromhex(span.span_id)),
        _optional(b"\x1a", encode_text(span.trace_state)),
        _optional(b"\x22", bytes.fromhex(span.parent_id)),
        _optional(b"\x2a", encode_text(span.name)),
        _count(b"\x30", span.kind),
        _start_and_end(span),
        encode_attributes(b"\x4a", span.attributes),
        _count(b"\x50", span.dropped_attributes),
        *map(_event, span.events),
        _count(b"\x60", span.dropped_events),
        *map(_link, span.links),
        _count(b"\x70", span.dropped_links),
        encode_status(span.status, span.status_message),
        _flags(b"\x85\x01", span.flags),
    ]
    return b"".join(parts)


FRAMES: tuple[bytes, ...] = tuple(b"\x12" + varint for varint in VARINTS)
"""`FRAMES[n]` is what stands before a `Span` message of n bytes in a record."""


def frame(span_message: bytes) -> bytes:
    """A record: field 2 of a `ScopeSpans`, that is 0x12, length, `Span` message."""
    length = len(span_message)
    return (FRAMES[length] if length < TABLE_SIZE else b"\x12" + encode_varint(length)) + span_message


def _start_and_end(span: Span) -> bytes:
    try:
        return _times(0x39, span.start_ns, 0x41, span.end_ns)
    except StructError:
        raise ValueError(f"span times are 0 to 2**64 - 1 ns, not {span.start_ns!r:.40}, {span.end_ns!r:.40}") from None


def _event(event: Event) -> bytes:
    return encode_event(event.time_ns, event.name, event.attributes, event.dropped_attributes)


def _link(link: Link) -> bytes:
    return encode_link(
        bytes.fromhex(link.trace_id),
        bytes.fromhex(link.span_id),
        link.trace_state,
        link.attributes,
        link.flags,
        link.dropped_attributes,
    )


def _optional(tag: bytes, body: bytes) -> bytes:
    return length_delimited(tag, body) if body else b""


def _count(tag: bytes, number: int) -> bytes:
    """A uint32 or enum field; nothing for zero."""
    if not 0 <= number <= _MAX_32:
        raise ValueError(f"a count is 0 to 2**32 - 1, not {number}")
    return tag + encode_varint(number) if number else b""


def _flags(tag: bytes, flags: int) -> bytes:
    """A fixed32 field; nothing for zero."""
    if not 0 <= flags <= _MAX_32:
        raise ValueError(f"flags are 0 to 2**32 - 1, not {flags}")
    return tag + _fixed32(flags) if flags else b""
