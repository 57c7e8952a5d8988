"""OTLP/protobuf to rows: reads what lists and filters need, checks everything, and keeps each span's bytes as they came.

    request ── read_fields ─▶ resource, scope ── loop ─▶ spans ── head: one struct ── loop ─▶ attributes, events, status
                                                          └── any other shape ─▶ decode_span()

Nearly every span has the shape that encoders give it: fields in the order of their numbers. Its ids, name and times are
read by one `Struct`, and of each short attribute everything that is known about these very bytes is remembered, so that
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
from typing import Any, Final

import msgspec

from ..._contracts import Span
from ..._errors import WireError
from ...wire import (
    decode_event,
    decode_link,
    decode_resource,
    decode_scope,
    decode_span,
    decode_status,
    encode_span,
    read_fields,
    read_varint,
)
from .._rows import EMPTY, LONGEST_TOKEN, SLOT, Facts, Origin, SpanRow
from ._attributes import REMEMBERED, Attributes, before_text, check_depth
from ._dialects import (
    NO_RANKS,
    facts_from,
    know_by,
    know_event,
    rules_for,
    settle,
    tokens_of,
)
from ._intake import Intake

__all__ = ["Scanner", "schema_url"]

MOST_ORIGINS: Final = 256
LARGEST_ORIGIN: Final = 8192
"""Bytes of a resource and its scope that are remembered."""
PART_OF_A_RESOURCE: Final = 64
"""Bytes of a resource that count as a part of the request."""
TOGETHER: Final = 256
"""Spans that are cut out of a body before they are read, and counted."""

TRACE_ID_FLAW: Final = "trace_id must be 16 bytes and not all zero"
SPAN_ID_FLAW: Final = "span_id must be 8 bytes and not all zero"
PARENT_ID_FLAW: Final = "parent_span_id must be 8 bytes or empty"

_SPAN_ID = re.compile("[0-9a-f]{16}")
_NO_TRACE = bytes(16)
_NO_SPAN = bytes(8)
_NOTHING = [*EMPTY]
_TOKENS, _IS_OPEN, _EVENTS, _LINKS = (SLOT[name] for name in ("tokens", "is_open", "events", "links"))
_new: Any = tuple.__new__

_LONGEST_NAME: Final = 0x7F
_HEADS = [Struct(f"<H16sH8sH8sH{size}sHBQBQ").unpack_from for size in range(_LONGEST_NAME + 1)]
_ROOT_HEADS = [Struct(f"<H16sH8sH{size}sHBQBQ").unpack_from for size in range(_LONGEST_NAME + 1)]
"""Of a span whose name has so many bytes: its ids, name, kind and times, and between them what stands before each."""
_HEAD_SIZE, _ROOT_HEAD_SIZE = 60, 50
"""Without the name."""
_TRACE_FIRST, _SPAN_NEXT, _PARENT_NEXT = 0x100A, 0x0812, 0x0822
"""A tag and a length, as a number."""
_KINDS = {kind << 8 | 0x30: kind for kind in range(6)}
"""By its tag and itself, as a number."""
_STATUSES = {b"": 0, b"\x18\x00": 0, b"\x18\x01": 1, b"\x18\x02": 2}


class Scanner:
    """Remembers attributes and resources from one request to the next. Used by several threads at once."""

    def __init__(self, attributes: Attributes | None = None) -> None:
        self._attributes = attributes if attributes is not None else Attributes()
        self._origins: dict[tuple[bytes, bytes, str, str], Origin] = {}

    def request(self, body: bytes) -> Intake:
        """All spans of an `ExportTraceServiceRequest`. `WireError`, `TooMany`."""
        intake = Intake()
        for tag, first, last in read_fields(body, 0, len(body)):
            intake.count(1)
            if tag == 0x0A:
                self._resource_spans(body, first, last, intake)
        return intake

    def origin(
        self, intake: Intake, resource: bytes, scope: bytes, resource_schema: str = "", scope_schema: str = ""
    ) -> Origin:
        """The origin of spans, from the encoded messages. `WireError` when one is none, `TooMany`.

        A resource is there again for each of its scopes, so it counts again for each.
        """
        intake.count(len(resource) // PART_OF_A_RESOURCE)
        key = (resource, scope, resource_schema, scope_schema)
        origin = self._origins.get(key)
        if origin is None:
            service, tokens = _of_resource(resource, intake)
            check_depth(decode_scope(scope).attributes.values())
            origin = Origin(resource, scope, service, tokens, resource_schema, scope_schema)
            if len(self._origins) >= MOST_ORIGINS:
                self._origins.clear()
            if sum(map(len, key)) <= LARGEST_ORIGIN:
                self._origins[key] = origin
        return origin

    def spans(self, messages: Iterable[bytes], origin: int, intake: Intake) -> None:
        """Read `Span` messages into `intake`, or reject them there, each alone. `TooMany`.

        One loop without a function for each kind of field: a call costs as much as reading one.
        """
        attributes = self._attributes
        keys = attributes.keys
        counted = 0
        for message in messages:
            try:
                if message[28] == 0x22:
                    length = message[39]
                    (
                        lead,
                        trace_id,
                        between,
                        span_id,
                        above,
                        parent_id,
                        tag,
                        name,
                        kind,
                        start_tag,
                        start,
                        end_tag,
                        end,
                    ) = _HEADS[length](message)
                    position = _HEAD_SIZE + length
                else:
                    length = message[29]
                    lead, trace_id, between, span_id, tag, name, kind, start_tag, start, end_tag, end = _ROOT_HEADS[
                        length
                    ](message)
                    above, parent_id = _PARENT_NEXT, b""
                    position = _ROOT_HEAD_SIZE + length
                if (
                    lead != _TRACE_FIRST
                    or between != _SPAN_NEXT
                    or above != _PARENT_NEXT
                    or tag & 0xFF != 0x2A
                    or start_tag != 0x39
                    or end_tag != 0x41
                    or trace_id == _NO_TRACE
                    or span_id == _NO_SPAN
                ):
                    raise _Unusual

                known = attributes.known.get
                tokens: list[bytes] = []
                facts, ranks = [*EMPTY], [*NO_RANKS]
                status = parts = 0  # `parts` and the tokens together: attributes, events with theirs, links
                size = len(message)
                while position < size:
                    stop = position + message[position + 1] + 2
                    remembered = known(message[position:stop])
                    if remembered is not None:  # as nearly always: an attribute whose bytes are known
                        token, slot, rank, value = remembered
                        tokens.append(token)
                        if slot and rank <= ranks[slot]:
                            ranks[slot] = rank
                            facts[slot] = value
                        position = stop
                        continue
                    tag = message[position]
                    first = position + 2
                    length = stop - first
                    if length > 0x7F:
                        high = message[first]
                        if high > 0x7F:
                            length, first = read_varint(message, position + 1, size)
                        else:
                            length = length & 0x7F | high << 7
                            first += 1
                        stop = first + length
                    if stop > size:
                        raise _Unusual
                    if tag == 0x4A:
                        if length > REMEMBERED:
                            middle = first + 2 + message[first + 1]
                            key, before = keys.get(message[first:middle]), before_text(stop - middle)
                            if key is not None and before is not None and message.startswith(before, middle):
                                text = message[middle + len(before) : stop].decode()  # also where nobody reads it
                                several = tokens_of(key[0], text) if len(text) <= LONGEST_TOKEN else ()
                                tokens += several
                                parts += 1 - len(several)
                                for slot, rank, read in key[2]:
                                    value = read(text)
                                    if value and rank <= ranks[slot]:
                                        ranks[slot] = rank
                                        facts[slot] = value
                                position = stop
                                continue
                        several, found = (
                            attributes.learn(message[position:stop])
                            if length <= REMEMBERED and first == position + 2
                            else attributes.read(message[first:stop])
                        )
                        tokens += several
                        settle(facts, ranks, found)
                        parts += 1 - len(several)
                    elif tag == 0x7A and not status:  # of two, decoding knows which counts
                        content = message[first:stop]
                        code = _STATUSES.get(content)
                        status = int(decode_status(content)) if code is None else code
                    elif tag == 0x85 and message[position + 1] == 1 and size - position == 6:
                        break  # flags, of a tag of two bytes and four more: the last field
                    else:
                        parts += _aside(tag, message[first:stop], facts, ranks)
                    position = stop

                facts[_TOKENS] = tuple(tokens)
                row: SpanRow = _new(
                    SpanRow,
                    (
                        trace_id,
                        span_id,
                        b"" if parent_id == _NO_SPAN else parent_id,
                        name.decode(),
                        _KINDS[kind],
                        start,
                        end,
                        status,
                        origin,
                        message,
                        _new(Facts, facts) if tokens or facts != _NOTHING else EMPTY,
                    ),
                )
                intake.rows.append(_opened(row, intake) if facts[_IS_OPEN] else row)
                counted += 1 + parts + len(tokens)
            except (_Unusual, _Flaw, LookupError, ValueError, StructError):  # or malformed: decoding it tells
                self._decode(message, origin, intake)
        intake.count(counted)

    def _decode(self, message: bytes, origin: int, intake: Intake) -> None:
        """Read one span of any shape into `intake`, or reject it there."""
        try:
            intake.count(1 + sum(1 for _ in read_fields(message, 0, len(message))))
            span = decode_span(message)
            check_depth(span.attributes.values())
            for event in span.events:
                check_depth(event.attributes.values())
            for link in span.links:
                check_depth(link.attributes.values())
            identities = _identities(span)
            facts = _facts(span)
            row = SpanRow(
                *identities, span.name, span.kind, span.start_ns, span.end_ns, span.status, origin, message, facts
            )
            intake.rows.append(_opened(row, intake) if facts.is_open else row)
        except _Flaw as flaw:
            intake.reject(str(flaw))
        except ValueError as error:
            intake.reject(f"a span is malformed: {error}")

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
        whole = b"".join(resource)
        if not scopes:
            self.origin(intake, whole, b"", schema)
        for first, last in scopes:
            self._scope_spans(body, first, last, (whole, schema), intake)

    def _scope_spans(self, body: bytes, position: int, end: int, resource: tuple[bytes, str], intake: Intake) -> None:
        scope: list[bytes] = []
        schema = ""
        number = len(intake.origins)
        messages: list[bytes] = []
        while position < end:
            if len(messages) == TOGETHER:
                self.spans(messages, number, intake)
                messages.clear()
            first = position + 3
            if body[position] != 0x12:
                field = next(read_fields(body, position, end), None)
                if field is None:
                    break
                tag, first, position = field
                intake.count(1)
                if tag == 0x0A:
                    scope.append(body[first:position])
                elif tag == 0x12:  # written in more bytes than it needs
                    messages.append(body[first:position])
                elif tag == 0x1A:
                    schema = schema_url(body[first:position])
                continue
            if first <= end and (low := body[position + 1]) > 0x7F > (high := body[position + 2]):
                length = low & 0x7F | high << 7  # of two bytes, as most lengths are
            else:
                length, first = read_varint(body, position + 1, end)
            position = first + length
            if position > end:
                raise WireError(f"a span at offset {first} is {length} bytes long, {end - first} are left")
            messages.append(body[first:position])
        self.spans(messages, number, intake)
        intake.origins.append(self.origin(intake, resource[0], b"".join(scope), resource[1], schema))


class _Unusual(Exception):
    """The span has another shape than most, or is none."""


class _Flaw(Exception):
    """OTLP calls the span invalid."""


def schema_url(field: bytes) -> str:
    """The address of a schema; what is no text makes the body no OTLP. `WireError`."""
    try:
        return field.decode()
    except UnicodeDecodeError as error:
        raise WireError(f"a schema_url is not UTF-8: {error.reason}") from None


def _aside(tag: int, content: bytes, facts: list[Any], ranks: list[int]) -> int:
    """An event or a link: counted, and what it says. Of how many parts it is."""
    if tag == 0x5A:
        event = decode_event(content)
        check_depth(event.attributes.values())
        facts[_EVENTS] += 1
        settle(facts, ranks, know_event(event.name, event.attributes))
        return 1 + len(event.attributes)
    if tag == 0x6A:
        check_depth(decode_link(content).attributes.values())
        facts[_LINKS] += 1
        return 1
    raise _Unusual


def _of_resource(resource: bytes, intake: Intake) -> tuple[str, tuple[bytes, ...]]:
    """Its service and its search tokens. `WireError`."""
    if intake.resource is None or intake.resource[0] != resource:
        attributes = decode_resource(resource).attributes
        check_depth(attributes.values())
        service = attributes.get("service.name")
        tokens = tuple(token for key, value in attributes.items() for token in tokens_of(key, value))
        intake.resource = (resource, service if isinstance(service, str) else "", tokens)
    _, name, tokens = intake.resource
    return name, tokens


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
    span = decode_span(row.message)
    if span.attributes.get("logfire.span_type") != "pending_span":
        intake.notices += 1
        return row._replace(end_ns=0)
    parent = span.attributes.get("logfire.pending_parent_id")
    parent_id = parent if isinstance(parent, str) and _SPAN_ID.fullmatch(parent) and parent.strip("0") else ""
    real = msgspec.structs.replace(span, span_id=span.parent_id, parent_id=parent_id, end_ns=0)
    _, span_id, above = _identities(real)
    row = row._replace(span_id=span_id, parent_id=above, end_ns=0, message=encode_span(real))
    intake.notices += 1
    return row
