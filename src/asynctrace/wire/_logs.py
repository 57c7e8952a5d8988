"""Log records: bytes to values and back. The collector reads them; the tracer writes none.

Promises: those of `_decode` for every sequence of bytes; what `decode_log()` gives, `encode_log()` writes so that it reads
the same.

Source: opentelemetry/proto/logs/v1/logs.proto of OTLP 1.x.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError
from typing import Any

import msgspec

from .._contracts import AttributeValue
from ._decode import MAX_DEPTH, Attributes, Scalars, _any_value, _fixed, _hex, _key_value, _text, _unsigned
from ._fields import read_fields
from ._values import encode_any_value, encode_attributes, encode_text
from ._varint import encode_varint, length_delimited

__all__ = ["Log", "decode_log", "encode_log"]

_fixed64 = Struct("<Q").pack
_fixed32 = Struct("<I").pack


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded `LogRecord`. Ids are lower-case hex, empty where it has none; times are nanoseconds since the Unix epoch."""

    time_ns: int = 0
    """0: unknown, see `observed_ns`."""
    observed_ns: int = 0
    severity: int = 0
    severity_text: str = ""
    body: AttributeValue = None
    attributes: dict[str, AttributeValue] = {}
    trace_id: str = ""
    span_id: str = ""
    event_name: str = ""
    dropped_attributes: int = 0
    flags: int = 0


def decode_log(message: bytes) -> Log:
    """Decode a `LogRecord` message. Raises `WireError`."""
    fields: dict[str, Any] = {}
    attributes: Attributes = {}
    body: AttributeValue = None
    for tag, first, last in read_fields(message, 0, len(message)):
        known = _LOG.get(tag)
        if known is not None:
            fields[known[0]] = known[1](message, first, last)
        elif tag == 0x2A:
            body = _any_value(message, first, last, body, MAX_DEPTH)
        elif tag == 0x32:
            _key_value(message, first, last, attributes, MAX_DEPTH)
    return Log(body=body, attributes=attributes, **fields)


def encode_log(log: Log) -> bytes:
    """A `LogRecord` message. Errors as in `encode_span()`."""
    body = b"" if log.body is None else length_delimited(b"\x2a", encode_any_value(log.body))
    try:
        parts = [
            _present(b"\x09", _fixed64(log.time_ns)),
            _number(b"\x10", log.severity),
            _optional(b"\x1a", encode_text(log.severity_text)),
            body,
            encode_attributes(b"\x32", log.attributes),
            _number(b"\x38", log.dropped_attributes),
            _present(b"\x45", _fixed32(log.flags)),
            _optional(b"\x4a", bytes.fromhex(log.trace_id)),
            _optional(b"\x52", bytes.fromhex(log.span_id)),
            _present(b"\x59", _fixed64(log.observed_ns)),
            _optional(b"\x62", encode_text(log.event_name)),
        ]
    except StructError:
        raise ValueError("a number of a log record does not fit its field") from None
    return b"".join(parts)


def _optional(tag: bytes, body: bytes) -> bytes:
    return length_delimited(tag, body) if body else b""


def _present(tag: bytes, fixed: bytes) -> bytes:
    return tag + fixed if fixed.strip(b"\0") else b""


def _number(tag: bytes, number: int) -> bytes:
    return tag + encode_varint(number) if number else b""


_LOG: Scalars = {
    0x09: ("time_ns", _fixed),
    0x10: ("severity", _unsigned),
    0x1A: ("severity_text", _text),
    0x38: ("dropped_attributes", _unsigned),
    0x45: ("flags", _fixed),
    0x4A: ("trace_id", _hex),
    0x52: ("span_id", _hex),
    0x59: ("observed_ns", _fixed),
    0x62: ("event_name", _text),
}
