"""OTLP/protobuf to rows: reads what lists and filters need, checks everything, and keeps each span's bytes as they came.

    request ── read_fields ─▶ resource, scope ── loop ─▶ span ── head: one struct ── loop ─▶ attributes, events, status
                                                          └── any other shape ─▶ decode_span()

Nearly every span has the shape that encoders give it: fields in the order of their numbers. Its ids, name and times are
read by two `Struct`s, and of each short attribute everything that is known about these very bytes is remembered, so that
it is read once. A span of another shape is decoded: slower, with the same answer.

Promises, for every sequence of bytes

1. A span is accepted exactly when `decode_span()` and OTLP's rules for ids accept it and `encode_span()` could write it, and
   its row says the same.
2. A body whose frame is broken is refused as a whole (`WireError`); a span that is broken inside its frame is rejected
   alone.
3. Time and memory are proportional to the bytes; a body of more than `MOST_PARTS` of them is refused.

Source: opentelemetry/proto/trace/v1/trace.proto of OTLP 1.x.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from struct import Struct
from struct import error as StructError
from typing import Any, Final, TypeAlias

import msgspec

from ..._contracts import AttributeValue, Span
from ..._errors import WireError
from ...wire import (
    decode_attribute,
    decode_event,
    decode_link,
    decode_resource,
    decode_scope,
    decode_span,
    decode_status,
    encode_any_value,
    encode_span,
    length_delimited,
    read_fields,
    read_varint,
)
from .._rows import EMPTY, LONGEST_TOKEN, Facts, Origin, SpanRow, hashed
from ._dialects import (
    NO_RANKS,
    Finding,
    Known,
    Rule,
    facts_from,
    findings,
    know_by,
    know_event,
    rules_for,
    settle,
    tokens_of,
    whole,
)
from ._intake import Intake

__all__ = ["Scanner", "schema_url"]

REMEMBERED: Final = 96
"""Bytes of an attribute that is remembered. Fewer than `LONGEST_TOKEN`: each short text has a token."""
MOST_REMEMBERED: Final = 8192
"""Attributes, each some 400 bytes with what is known of it. Then those that are not seen again are forgotten, and all of
those that say more than one thing."""
MOST_KEYS: Final = 4096
MOST_ORIGINS: Final = 256
LARGEST_ORIGIN: Final = 8192
"""Bytes of a resource and its scope that are remembered."""

TRACE_ID_FLAW: Final = "trace_id must be 16 bytes and not all zero"
SPAN_ID_FLAW: Final = "span_id must be 8 bytes and not all zero"
PARENT_ID_FLAW: Final = "parent_span_id must be 8 bytes or empty"

_SPAN_ID = re.compile("[0-9a-f]{16}")
_NO_TRACE = bytes(16)
_NO_SPAN = bytes(8)
_ids_at = Struct("<H16sH8sH8sBB").unpack_from
_TRACE_FIRST, _SPAN_NEXT, _PARENT_NEXT = 0x100A, 0x0812, 0x0822
"""A tag and a length of one byte each, as a number."""
_times_at = Struct("<BBBQBQ").unpack_from
_double_at = Struct("<d").unpack_from
_TIMES_SIZE = 20
_new: Any = tuple.__new__

Remembered: TypeAlias = tuple[bytes, int, int, Any]
"""What nearly all attributes say: one search token and at most one finding (its slot, rank and value; slot 0 for none). One
object instead of four: a memory that others use as well makes reading them the larger part of the time."""
_NOT_FOUND: Final[Finding] = (0, 0, None)
_OK_STATUS = {b"": 0, b"\x18\x00": 0, b"\x18\x01": 1, b"\x18\x02": 2}


class Scanner:
    """Remembers attributes and resources from one request to the next. Used by several threads at once."""

    def __init__(self) -> None:
        self._attributes: dict[bytes, Remembered] = {}
        self._earlier: dict[bytes, Remembered] = {}
        self._others: dict[bytes, Known] = {}
        self._keys: dict[bytes, tuple[str, bytes, tuple[Rule, ...]]] = {}
        self._origins: dict[tuple[bytes, bytes, str, str], Origin] = {}

    def request(self, body: bytes) -> Intake:
        """All spans of an `ExportTraceServiceRequest`. `WireError`, `TooMany`."""
        intake = Intake()
        for tag, first, last in read_fields(body, 0, len(body)):
            intake.count(1)
            if tag == 0x0A:
                self._resource_spans(body, first, last, intake)
        return intake

    def origin(self, resource: bytes, scope: bytes, resource_schema: str = "", scope_schema: str = "") -> Origin:
        """The origin of spans, from the encoded messages. `WireError` when one is none."""
        key = (resource, scope, resource_schema, scope_schema)
        origin = self._origins.get(key)
        if origin is None:
            attributes = decode_resource(resource).attributes
            _check_depth((*attributes.values(), *decode_scope(scope).attributes.values()))
            service = attributes.get("service.name")
            tokens = tuple(token for key, value in attributes.items() for token in tokens_of(key, value))
            origin = Origin(
                resource, scope, service if isinstance(service, str) else "", tokens, resource_schema, scope_schema
            )
            if len(self._origins) >= MOST_ORIGINS:
                self._origins.clear()
            if sum(map(len, key)) <= LARGEST_ORIGIN:
                self._origins[key] = origin
        return origin

    def span(self, message: bytes, origin: int, intake: Intake) -> None:
        """Read one `Span` message into `intake`, or reject it there."""
        try:
            intake.rows.append(self._row(message, origin, intake))
        except (WireError, ValueError) as error:
            intake.reject(f"a span is malformed: {error}")
        except _Flaw as flaw:
            intake.reject(str(flaw))

    def _resource_spans(self, body: bytes, position: int, end: int, intake: Intake) -> None:
        resource: list[bytes] = []
        schema = ""
        scopes: list[tuple[int, int]] = []
        for tag, first, last in read_fields(body, position, end):
            intake.count(1)
            if tag == 0x0A:
                resource.append(body[first:last])  # what comes twice is merged, and messages laid end to end are merged
            elif tag == 0x12:
                scopes.append((first, last))
            elif tag == 0x1A:
                schema = schema_url(body[first:last])
        if not scopes:
            self.origin(b"".join(resource), b"", schema)
        for first, last in scopes:
            self._scope_spans(body, first, last, (b"".join(resource), schema), intake)

    def _scope_spans(self, body: bytes, position: int, end: int, resource: tuple[bytes, str], intake: Intake) -> None:
        scope: list[bytes] = []
        schema = ""
        number = len(intake.origins)
        while position < end:
            if body[position] != 0x12:
                field = next(read_fields(body, position, end), None)
                if field is None:
                    break
                tag, first, position = field
                intake.count(1)
                if tag == 0x0A:
                    scope.append(body[first:position])
                elif tag == 0x12:  # written in more bytes than it needs
                    self.span(body[first:position], number, intake)
                elif tag == 0x1A:
                    schema = schema_url(body[first:position])
                continue
            first = position + 3
            if first <= end and body[first - 2] > 0x7F > body[first - 1]:  # the two bytes that most lengths have
                length = body[first - 2] & 0x7F | body[first - 1] << 7
            else:
                length, first = read_varint(body, position + 1, end)
            position = first + length
            if position > end:
                raise WireError(f"a span at offset {first} is {length} bytes long, {end - first} are left")
            self.span(body[first:position], number, intake)
        intake.origins.append(self.origin(resource[0], b"".join(scope), resource[1], schema))

    def _row(self, message: bytes, origin: int, intake: Intake) -> SpanRow:
        """One span, in the usual shape or in any other."""
        try:
            lead, trace_id, between, span_id, above, parent_id, tag, length = _ids_at(message)
            first = 40
            if above != _PARENT_NEXT:
                parent_id, tag, length, first = b"", message[28], message[29], 30
            if lead != _TRACE_FIRST or between != _SPAN_NEXT or tag != 0x2A or length > 0x7F:
                return self._decoded(message, origin, intake)
            position = first + length
            kind_tag, kind, start_tag, start_ns, end_tag, end_ns = _times_at(message, position)
            if kind_tag != 0x30 or start_tag != 0x39 or end_tag != 0x41 or kind > 5:
                return self._decoded(message, origin, intake)
            name = message[first:position].decode()
            rest = self._rest(message, position + _TIMES_SIZE, intake)
        except (StructError, IndexError, UnicodeDecodeError):
            return self._decoded(message, origin, intake)
        if rest is None:
            return self._decoded(message, origin, intake)
        status, facts = rest
        if trace_id == _NO_TRACE or span_id == _NO_SPAN:
            raise _Flaw(TRACE_ID_FLAW if trace_id == _NO_TRACE else SPAN_ID_FLAW)
        if parent_id == _NO_SPAN:
            parent_id = b""
        fields = (trace_id, span_id, parent_id, name, kind, start_ns, end_ns, status, origin, message, facts)
        row: SpanRow = _new(SpanRow, fields)
        return _opened(row, intake) if facts.is_open else row

    def _rest(self, message: bytes, position: int, intake: Intake) -> tuple[int, Facts] | None:
        """Everything behind the times; `None` for a shape that is not usual.

        One loop without a function for each kind of field: a call costs as much as reading one.
        """
        remembered = self._attributes
        tokens: list[bytes] = []
        facts, ranks = [*EMPTY], [*NO_RANKS]
        size = len(message)
        status = parts = events = links = 0
        while position < size:
            tag = message[position]
            length = message[position + 1]
            position += 2
            if tag == 0x4A and length <= REMEMBERED:  # nearly always, and nearly always it is known
                stop = position + length
                content = message[position:stop]
                known = remembered.get(content)
                if known is not None and stop <= size:
                    parts += 1
                    token, slot, rank, value = known
                    tokens.append(token)
                    if rank <= ranks[slot]:
                        ranks[slot] = rank
                        facts[slot] = value
                    position = stop
                    continue
            if length > 0x7F:
                second = message[position]
                if second > 0x7F:
                    length, position = read_varint(message, position - 1, size)
                else:
                    length = length & 0x7F | second << 7
                    position += 1
            stop = position + length
            if tag == 0x4A:
                if stop > size:
                    return None
                parts += 1
                if length > REMEMBERED:
                    several, found = self._know_long(message, position, stop)
                else:
                    several, found = self._know(message[position:stop])  # its length may take more bytes than it needs
                tokens += several
                if found:
                    settle(facts, ranks, found)
            elif tag == 0x7A:
                if stop > size or status:
                    return None
                content = message[position:stop]
                status = _OK_STATUS.get(content, -1)
                if status < 0:
                    status = int(decode_status(content))
            elif tag == 0x5A:
                if stop > size:
                    return None
                events += 1
                event = decode_event(message[position:stop])
                _check_depth(event.attributes.values())
                parts += 1 + len(event.attributes)
                settle(facts, ranks, know_event(event.name, event.attributes))
            elif tag == 0x6A:
                if stop > size:
                    return None
                links += 1
                _check_depth(decode_link(message[position:stop]).attributes.values())
            elif tag == 0x85 and size - position == 4 and message[position - 1] == 1:
                break  # flags, four bytes, the last field
            else:
                return None
            position = stop
        intake.count(1 + parts + links)
        said = whole(facts, tuple(tokens), events, links)
        return status, said if said != EMPTY else EMPTY

    def _know(self, content: bytes) -> Known:
        """What a short attribute says that was not seen lately."""
        remembered = self._earlier.get(content)
        if remembered is not None:
            self._remember(content, remembered)
            return remembered[:1], (remembered[1:],)
        known = self._others.get(content)
        if known is not None:
            return known
        known = self._know_quickly(content) or self._know_slowly(content)
        tokens, found = known
        if len(tokens) == 1 and len(found) <= 1:
            slot, rank, value = found[0] if found else _NOT_FOUND
            self._remember(content, (tokens[0], slot, rank, value))
        else:
            if len(self._others) >= MOST_REMEMBERED:
                self._others.clear()
            self._others[content] = known
        return known

    def _remember(self, content: bytes, remembered: Remembered) -> None:
        if len(self._attributes) >= MOST_REMEMBERED:
            self._earlier, self._attributes = self._attributes, {}
        self._attributes[content] = remembered

    def _know_long(self, message: bytes, first: int, stop: int) -> Known:
        """What an attribute says that is too long to be remembered: nearly always a text under a known key."""
        try:
            middle = first + 2 + message[first + 1]
            key, _, rules = self._keys[message[first:middle]]
            position = middle + 2
            length = message[middle + 1]
            if length > 0x7F:
                length = length & 0x7F | message[position] << 7
                position += 1
            is_text = message[middle] == 0x12 and message[position] == 0x0A
            if is_text and position + length == stop and length < 0x4000:  # of three bytes two were read
                inner = message[position + 1]
                position += 2
                if inner > 0x7F:
                    inner = inner & 0x7F | message[position] << 7
                    position += 1
                if position + inner == stop:
                    text = message[position:stop].decode()  # also where nobody reads it: what is no text is refused
                    return () if len(text) > LONGEST_TOKEN else tokens_of(key, text), findings(rules, text)
        except (IndexError, KeyError, UnicodeDecodeError):
            pass
        return self._know_slowly(message[first:stop])

    def _know_quickly(self, content: bytes) -> Known | None:
        """Of a short one: for a known key with a text or a number that fills it to its end; `None` for anything else."""
        try:
            middle = content[1] + 2
            key, prefix, rules = self._keys[content[:middle]]
            position = middle + 2
            length = content[middle + 1]
            if length > 0x7F:
                length = length & 0x7F | content[position] << 7
                position += 1
            if content[middle] != 0x12 or position + length != len(content):
                return None
            tag, inner = content[position], content[position + 1]
            position += 2
            if tag == 0x0A:
                if inner > 0x7F:
                    inner = inner & 0x7F | content[position] << 7
                    position += 1
                encoded = content[position:]
                if len(encoded) != inner:
                    return None
                if not encoded.isascii():
                    return know_by(key, rules, encoded.decode())
                return (hashed(prefix + encoded.lower()),), (findings(rules, encoded.decode()) if rules else ())
            if tag == 0x18 and length == 3 and inner > 0x7F > content[position]:
                inner = inner & 0x7F | content[position] << 7
            elif tag == 0x21 and length == 9:
                (double,) = _double_at(content, position - 1)
                return (hashed(prefix + repr(double).encode()),), findings(rules, double)
            elif tag != 0x18 or length != 2 or inner > 0x7F:
                return None
            return (hashed(prefix + b"%d" % inner),), findings(rules, inner)
        except (IndexError, KeyError, UnicodeDecodeError):
            return None

    def _know_slowly(self, content: bytes) -> Known:
        key, value = decode_attribute(content)
        _check_depth((value,))
        head = length_delimited(b"\x0a", key.encode())
        if len(head) < 0x80 and content.startswith(head):
            if len(self._keys) >= MOST_KEYS:
                self._keys.clear()
            self._keys[head] = (key, head[2:] + b"=", rules_for(key))
        return know_by(key, rules_for(key), value)

    def _decoded(self, message: bytes, origin: int, intake: Intake) -> SpanRow:
        """The row of a span of any shape."""
        intake.count(1 + sum(1 for _ in read_fields(message, 0, len(message))))
        span = decode_span(message)
        _check_depth(span.attributes.values())
        for event in span.events:
            _check_depth(event.attributes.values())
        for link in span.links:
            _check_depth(link.attributes.values())
        identities = _identities(span)
        facts = _facts(span)
        row = SpanRow(
            *identities, span.name, span.kind, span.start_ns, span.end_ns, span.status, origin, message, facts
        )
        return _opened(row, intake) if facts.is_open else row


class _Flaw(Exception):
    """OTLP calls the span invalid."""


def schema_url(field: bytes) -> str:
    """The address of a schema; what is no text makes the body no OTLP. `WireError`."""
    try:
        return field.decode()
    except UnicodeDecodeError as error:
        raise WireError(f"a schema_url is not UTF-8: {error.reason}") from None


def _check_depth(values: Iterable[AttributeValue]) -> None:
    """Values can be nested deeper than we write them: such a span could be kept, and not given back. `WireError`."""
    for value in values:
        if isinstance(value, list | dict):
            try:
                encode_any_value(value)
            except ValueError as error:
                raise WireError(str(error)) from None


def _identities(span: Span) -> tuple[bytes, bytes, bytes]:
    trace_id, span_id, parent_id = map(bytes.fromhex, (span.trace_id, span.span_id, span.parent_id))
    if len(trace_id) != 16 or trace_id == _NO_TRACE:
        raise _Flaw(TRACE_ID_FLAW)
    if len(span_id) != 8 or span_id == _NO_SPAN:
        raise _Flaw(SPAN_ID_FLAW)
    if len(parent_id) not in (0, 8):
        raise _Flaw(PARENT_ID_FLAW)
    return trace_id, span_id, (b"" if parent_id == _NO_SPAN else parent_id)


def _facts(span: Span) -> Facts:
    known = [know_by(key, rules_for(key), value) for key, value in span.attributes.items()]
    tokens = tuple(token for each, _ in known for token in each)
    found = [finding for _, each in known for finding in each]
    for event in span.events:
        found += know_event(event.name, event.attributes)
    if not tokens and not found and not span.events and not span.links:
        return EMPTY
    return facts_from(tokens, found, len(span.events), len(span.links))


def _opened(row: SpanRow, intake: Intake) -> SpanRow:
    """A notice of an open span, under the ids of that span.

    Logfire gives the notice an id of its own below the span it is about, and tells that span's parent in an attribute.
    """
    intake.notices += 1
    span = decode_span(row.message)
    if span.attributes.get("logfire.span_type") != "pending_span":
        return row._replace(end_ns=0)
    parent = span.attributes.get("logfire.pending_parent_id")
    parent_id = parent if isinstance(parent, str) and _SPAN_ID.fullmatch(parent) and parent.strip("0") else ""
    real = msgspec.structs.replace(span, span_id=span.parent_id, parent_id=parent_id, end_ns=0)
    _, span_id, above = _identities(real)
    return row._replace(span_id=span_id, parent_id=above, end_ns=0, message=encode_span(real))
