"""The instrumentation scope of a record that somebody else's instrumentation made.

A record has no place for a scope: that belongs to the request around it, which has the tracer's own. So it names another
one by attributes, next to one another, and a request in OTLP puts them back where they belong:

    in the record                             in the request
    otel.scope.name                           ScopeSpans.scope.name
    otel.scope.version                        ScopeSpans.scope.version
    otel.scope.schema_url                     ScopeSpans.schema_url
    otel.scope.attributes.<key>               ScopeSpans.scope.attributes[key]

Promises: records without `otel.scope.name` stay as they are, in the tracer's scope; in each scope the order of records
stays; the request is not larger than `request_size()` says of the records as they were.

Source: OpenTelemetry specification, "Mapping of InstrumentationScope to non-OTLP formats", which names the first two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from .._contracts import Scope
from ._decode import decode_span
from ._fields import read_fields, read_varint
from ._request import encode_scope
from ._span import frame
from ._values import encode_attribute, encode_text
from ._varint import encode_varint, length_delimited

__all__ = ["encode_scoped_request", "group_by_scope", "scope_fields", "scope_of", "take_scope"]

T = TypeVar("T")

_PREFIX = b"otel.scope."
_NAME = b"\x0a\x0fotel.scope.name"
"""The key in its `KeyValue`: what is looked for before anything is read."""
_LENGTH_DELIMITED = frozenset((0x0A, 0x12, 0x1A, 0x22, 0x2A, 0x4A))
_FIXED = {0x30: 0, 0x85: 4, 0x39: 7, 0x41: 7}
"""Bytes of other fields of a span, by the first of their tag, beyond two: kind, flags, start, end."""
_NAME_KEY, _VERSION_KEY, _SCHEMA_KEY = "otel.scope.name", "otel.scope.version", "otel.scope.schema_url"
_ATTRIBUTE_PREFIX = "otel.scope.attributes."


def scope_fields(scope: Scope) -> bytes:
    """The attributes by which a record names `scope`, as fields of a `Span`. Errors as in `encode_any_value()`."""
    attributes = {_NAME_KEY: scope.name, _VERSION_KEY: scope.version, _SCHEMA_KEY: scope.schema_url}
    named = {key: value for key, value in attributes.items() if value or key == _NAME_KEY}
    further = {_ATTRIBUTE_PREFIX + key: value for key, value in scope.attributes.items()}
    return b"".join(encode_attribute(b"\x4a", key, value) for key, value in {**named, **further}.items())


def scope_of(fields: bytes) -> Scope:
    """The scope that `scope_fields()` made these of. Raises `WireError`."""
    attributes = decode_span(fields).attributes
    return Scope(
        name=str(attributes.get(_NAME_KEY, "")),
        version=str(attributes.get(_VERSION_KEY, "")),
        schema_url=str(attributes.get(_SCHEMA_KEY, "")),
        attributes={
            key.removeprefix(_ATTRIBUTE_PREFIX): value
            for key, value in attributes.items()
            if key.startswith(_ATTRIBUTE_PREFIX)
        },
    )


def take_scope(record: bytes) -> tuple[bytes, bytes]:
    """(the attributes that name a scope, the record without them); nothing, and the record itself, where it names none.
    Raises `WireError` when it is no record."""
    if _NAME not in record:  # much faster than reading it
        return b"", record
    start, first, last = _find_in_ours(record) or _find(record)
    fields = record[first:last]
    if _NAME not in fields:
        return b"", record
    return fields, frame(record[start:first] + record[last:])


def group_by_scope(taken: Iterable[tuple[bytes, T]]) -> dict[bytes, list[T]]:
    """What `take_scope()` gave, by scope, in the order in which scopes come first."""
    groups: dict[bytes, list[T]] = {}
    for fields, record in taken:
        groups.setdefault(fields, []).append(record)
    return groups


def encode_scoped_request(resource: bytes, scope: bytes, groups: Mapping[bytes, Sequence[bytes]]) -> bytes:
    """An `ExportTraceServiceRequest` of one resource, with a `ScopeSpans` for each group; `scope` is that of the records
    that name none. Raises `WireError`."""
    parts = [length_delimited(b"\x0a", resource)]
    for fields, records in groups.items():
        named = scope_of(fields) if fields else None
        head = length_delimited(b"\x0a", scope if named is None else encode_scope(named))
        schema = length_delimited(b"\x1a", encode_text(named.schema_url)) if named and named.schema_url else b""
        parts.append(length_delimited(b"\x12", b"".join((head, *records, schema))))
    return length_delimited(b"\x0a", b"".join(parts))


def _find_in_ours(record: bytes) -> tuple[int, int, int] | None:
    """`_find()` for records as the tracer writes them, in a third of the time: every field before the scope is short."""
    try:
        start = at = 2 if record[1] < 0x80 else 3
        if record[start - 1] >= 0x80:
            return None
        while not (record[at] == 0x4A and record.startswith(_PREFIX, at + 4)):
            size = record[at + 1] if record[at] in _LENGTH_DELIMITED else _FIXED[record[at]]
            if size >= 0x80:
                return None
            at += 2 + size
        first = at
        while record[at] == 0x4A and record[at + 1] < 0x80 and record.startswith(_PREFIX, at + 4):
            at += 2 + record[at + 1]
    except (IndexError, KeyError):
        return None
    return (start, first, at) if at > first else None


def _find(record: bytes) -> tuple[int, int, int]:
    """Where the `Span` message begins, and where the attributes that name its scope begin and end."""
    length, start = read_varint(record, 1, len(record))
    first = last = 0
    for tag, content, end in read_fields(record, start, start + length):
        if tag == 0x4A and record[content : content + 1] == b"\x0a" and record.startswith(_PREFIX, content + 2):
            first = first or content - 1 - len(encode_varint(end - content))
            last = end
        elif first:
            break
    return start, first, last
