from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1 import trace_pb2

from asynctrace import wire
from asynctrace._contracts import Event, Link, Span, StatusCode
from asynctrace._errors import WireError

from . import _official as official

MARKER = re.compile(r"\[asynctrace: cut, (\d+) bytes, sha256 ([0-9a-f]{16})\]")
Shrink = Callable[[bytes, int], bytes | None]


def record_of(**fields: Any) -> bytes:
    return wire.frame(wire.encode_span(Span(trace_id="ab" * 16, span_id="cd" * 8, name="n", **fields)))


def marker(content: bytes) -> str:
    return f"[asynctrace: cut, {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()[:16]}]"


def shrunk(record: bytes, limit: int) -> Span:
    smaller = wire.shrink_record(record, limit)
    assert smaller is not None
    assert len(smaller) <= limit
    (span,) = wire.decode_records([smaller])
    return span


def check(shrink: Shrink, span: Span, limit: int) -> None:
    """Small enough, readable, and only values replaced, by markers that tell the truth."""
    record = wire.frame(wire.encode_span(span))
    smaller = shrink(record, limit)
    if smaller is None:
        return
    assert len(smaller) <= limit
    assert list(wire.scan_records(smaller)) == [(0, len(smaller))]
    result = official.span_of(trace_pb2.ScopeSpans.FromString(smaller).spans[0])
    assert bare(result) == bare(span)
    pairs = [(span.attributes, result.attributes), ({"": span.status_message}, {"": result.status_message})]
    pairs += [(old.attributes, new.attributes) for old, new in zip(span.events, result.events, strict=True)]
    pairs += [(old.attributes, new.attributes) for old, new in zip(span.links, result.links, strict=True)]
    for before, after in pairs:
        assert list(before) == list(after)
        for key, value in before.items():
            if official.exact(value) != official.exact(after[key]):
                content = value.encode() if isinstance(value, str) else wire.encode_any_value(value)
                assert after[key] == marker(content)


def bare(span: Span) -> Span:
    return msgspec.structs.replace(
        span,
        attributes={},
        status_message="",
        events=tuple(msgspec.structs.replace(event, attributes={}) for event in span.events),
        links=tuple(msgspec.structs.replace(link, attributes={}) for link in span.links),
    )


@given(official.spans, st.floats(0, 1.1))
@settings(max_examples=200, deadline=None)
def test_any_span_and_any_limit(span: Span, share: float) -> None:
    check(wire.shrink_record, span, int(len(wire.encode_span(span)) * share))


LARGE = Span(
    trace_id="ab" * 16,
    span_id="cd" * 8,
    attributes={"small": "s", "large": "x" * 5000},
    events=(Event(time_ns=1, name="e", attributes={"also": "y" * 4000}),),
)


def a_cut_without_a_marker(record: bytes, limit: int) -> bytes:
    return wire.frame(wire.encode_span(Span(trace_id="ab" * 16, span_id="cd" * 8)))


def a_cut_in_the_middle(record: bytes, limit: int) -> bytes:
    return record[:limit]


def a_cut_that_is_too_small(record: bytes, limit: int) -> bytes | None:
    return wire.shrink_record(record, limit + 10_000)


def a_marker_with_another_hash(record: bytes, limit: int) -> bytes | None:
    smaller = wire.shrink_record(record, limit)
    return smaller and re.sub(rb"sha256 .{16}", b"sha256 " + b"0" * 16, smaller)


@pytest.mark.parametrize(
    "broken",
    [a_cut_without_a_marker, a_cut_in_the_middle, a_cut_that_is_too_small, a_marker_with_another_hash],
)
def test_the_check_notices(broken: Shrink) -> None:
    check(wire.shrink_record, LARGE, 4200)
    with pytest.raises((AssertionError, WireError)):
        check(broken, LARGE, 4200)


def test_a_record_within_the_limit_is_untouched() -> None:
    record = record_of(attributes={"a": "x" * 1000})
    assert wire.shrink_record(record, len(record)) is record


def test_input_and_output_go_first_then_the_largest() -> None:
    attributes = {
        "a": "a" * 900,
        "b": "b" * 5000,
        "input.value": "i" * 1000,
        "output.value": "o" * 2000,
        "c": 5,
    }
    record = record_of(attributes=attributes)
    order = ["output.value", "input.value", "b", "a"]
    for cut in range(1, 5):
        saved = sum(len(attributes[key]) - 70 for key in order[:cut])  # type: ignore[arg-type]
        span = shrunk(record, len(record) - saved)
        markers = {key for key, value in span.attributes.items() if MARKER.fullmatch(str(value))}
        assert markers == set(order[:cut])
        assert all(span.attributes[key] == marker(str(attributes[key]).encode()) for key in markers)


def test_a_cut_input_is_no_json_any_more() -> None:
    record = record_of(
        attributes={
            "input.value": "x" * 3000,
            "input.mime_type": "application/json",
            "output.value": "{}",
            "output.mime_type": "application/json",
        }
    )
    span = shrunk(record, 600)
    assert span.attributes["input.mime_type"] == "text/plain"
    assert span.attributes["output.mime_type"] == "application/json"


@pytest.mark.parametrize(
    "fields",
    [
        {"attributes": {"k": ["x"] * 1000}},
        {"attributes": {"k": {"a": "é" * 1000}}},
        {"attributes": {"k": b"x" * 3000}},
        {"attributes": {"k": "é\U0001f642" * 500}},
        {"events": (Event(time_ns=1, name="exception", attributes={"exception.stacktrace": "x" * 3000}),)},
        {"links": (Link(trace_id="00" * 16, span_id="00" * 8, attributes={"k": "x" * 3000}),)},
        {"status": StatusCode.ERROR, "status_message": "x" * 3000},
    ],
    ids=["array", "map", "bytes", "unicode", "event", "link", "status"],
)
def test_every_place_with_a_large_value_can_be_cut(fields: dict[str, Any]) -> None:
    record = record_of(**fields)
    assert MARKER.search(repr(shrunk(record, 400)))


def test_what_cannot_be_made_small_enough_is_none() -> None:
    assert wire.shrink_record(record_of(attributes={"k": "x" * 1000}), 100) is None
    assert wire.shrink_record(record_of(attributes={f"k{n}": n for n in range(1000)}), 1000) is None
    assert wire.shrink_record(record_of(attributes={"k" * 5000: "v"}), 1000) is None


def test_two_records_or_none_are_a_wire_error() -> None:
    record = record_of()
    for body in (record * 2, b"\x0a\x00", record[:-1]):
        with pytest.raises(WireError):
            wire.shrink_record(body, 1)
