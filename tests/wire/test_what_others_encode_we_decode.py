from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from asynctrace import wire
from asynctrace._contracts import Resource, Scope, Span, SpanKind, StatusCode
from asynctrace._errors import WireError

from . import _official as official

EVERYTHING = Span(
    trace_id="ab" * 16,
    span_id="cd" * 8,
    parent_id="ef" * 8,
    name="é" * 100,
    kind=SpanKind.CONSUMER,
    start_ns=2**63,
    end_ns=2**64 - 1,
    attributes={"a": -1, "b": [1.5, {"c": b"\xff"}], "d": None, "e": "x" * 300, "f": False},
    status=StatusCode.ERROR,
    status_message="no",
    trace_state="a=b",
    flags=0x301,
    dropped_attributes=1,
    dropped_events=2,
    dropped_links=2**32 - 1,
)


def check_span(decode: Callable[[bytes], Span]) -> None:
    message = official.official_span(EVERYTHING)
    assert official.exact(decode(message.SerializeToString())) == official.exact(EVERYTHING)


def test_every_field_of_a_span_is_read() -> None:
    check_span(wire.decode_span)


@pytest.mark.parametrize(
    "broken",
    [
        lambda body: wire.decode_span(body[: body.index(b"\x7a")]),
        lambda body: wire.decode_span(body.replace(b"\x39", b"\x41", 1)),
        lambda body: wire.decode_span(body.replace(b"\xff" * 9 + b"\x01", b"\x01" + b"\x00" * 9)),
        lambda body: EVERYTHING.__class__(trace_id="ab" * 16, span_id="cd" * 8),
    ],
    ids=["forgets the status", "mixes up the times", "reads -1 as unsigned", "reads only ids"],
)
def test_the_check_notices_a_decoder_that(broken: Callable[[bytes], Span]) -> None:
    with pytest.raises((AssertionError, WireError)):
        check_span(broken)


@given(official.spans)
@settings(max_examples=200, deadline=None)
def test_spans_of_the_official_encoder(span: Span) -> None:
    body = official.official_span(span).SerializeToString()
    assert official.exact(wire.decode_span(body)) == official.exact(span)
    assert official.exact(wire.decode_span(memoryview(body))) == official.exact(span)


@given(official.spans)
@settings(deadline=None)
def test_what_we_encode_we_decode(span: Span) -> None:
    message = wire.encode_span(span)
    assert official.exact(wire.decode_span(message)) == official.exact(span)
    record = wire.frame(message)
    cut = len(record) // 2
    slices = [memoryview(record)[:cut], record[cut:], record]
    assert official.exact(wire.decode_records(slices)) == official.exact((span, span))


@given(official.groups)
@settings(deadline=None)
def test_requests_of_the_official_encoder(groups: list[wire.ResourceSpans]) -> None:
    request = official.official_request(groups)
    assert official.exact(wire.decode_request(request.SerializeToString())) == official.exact(groups)


def test_one_group_for_each_pair_of_resource_and_scope() -> None:
    request = ExportTraceServiceRequest()
    for service in ("a", "b"):
        outer = request.resource_spans.add()
        outer.resource.attributes.extend(official.official_attributes({"service.name": service}))
        for scope in ("x", "y"):
            outer.scope_spans.add().scope.name = scope
    request.resource_spans.add()
    pairs = [
        (group.resource.attributes["service.name"], group.scope.name)
        for group in wire.decode_request(request.SerializeToString())
    ]
    assert pairs == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]


def test_no_resource_and_no_scope_are_empty_ones() -> None:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add().name = "alone"
    (group,) = wire.decode_request(request.SerializeToString())
    assert (group.resource, group.scope, group.spans[0].name) == (Resource(), Scope(), "alone")


@pytest.mark.parametrize("rejected", [0, 1, 2**63 - 1])
def test_responses(rejected: int) -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = rejected
    answer.partial_success.error_message = "é"
    assert wire.decode_response(answer.SerializeToString()) == (rejected, "é")
    assert wire.decode_response(wire.encode_response(rejected, "é")) == (rejected, "é")


def test_a_response_that_says_nothing_and_one_that_cannot_be() -> None:
    assert wire.decode_response(b"") == (0, "")
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = -5
    assert wire.decode_response(answer.SerializeToString()) == (0, "")


# -- the freedom of the encoding


def top_level_fields(message: bytes) -> list[bytes]:
    """The fields of a message that has no groups, each with its tag."""
    fields, position = [], 0
    while position < len(message):
        start = position
        tag, position = _varint(message, position)
        if tag & 7 == 0:
            _, position = _varint(message, position)
        elif tag & 7 == 2:
            length, position = _varint(message, position)
            position += length
        else:
            position += 8 if tag & 7 == 1 else 4
        fields.append(message[start:position])
    return fields


def _varint(message: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (message[position] & 127) << shift
        shift, position = shift + 7, position + 1
        if message[position - 1] < 128:
            return number, position


UNKNOWN = [
    b"\xf8\x3f\x05",  # field 1023, varint
    b"\xf9\x3f12345678",  # 64 bits
    b"\xfa\x3f\x03abc",  # length-delimited
    b"\xfd\x3f1234",  # 32 bits
    b"\xfb\x3f\x08\x01\xfb\x3f\xfc\x3f\xfc\x3f",  # a group in a group
    b"\x0b\x00\x0a\x0c",  # field number 0 in a group
    b"\x08\x07",  # trace_id as a varint
    b"\x2d1234",  # name as 32 bits
    b"\x3a\x02\x01\x02",  # start time packed
    b"\x85\x01\x01\x00\x00\x00",  # flags, known: the last one counts
    b"\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # kind -1
    b"\x30\xac\x02",  # kind 300
    b"\x7a\x02\x18\x63",  # status code 99, message merged
    b"\x50\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a count cut to 32 bits
    b"\x48\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # attributes as a varint
]


@given(official.spans, st.lists(st.sampled_from(UNKNOWN)), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_any_order_and_unknown_fields_mean_the_same_to_us_as_to_the_official_parser(
    span: Span, unknown: list[bytes], random: random.Random
) -> None:
    fields = top_level_fields(wire.encode_span(span)) * 2 + unknown
    random.shuffle(fields)
    body = b"".join(fields)
    expected = official.span_of(trace_pb2.Span.FromString(body))
    assert official.exact(wire.decode_span(body)) == official.exact(expected)


def test_a_resource_behind_its_spans_in_two_halves_is_one() -> None:
    halves = [wire.encode_resource(Resource(attributes={key: 1})) for key in "ab"]
    scope_spans = wire.length_delimited(b"\x12", b"")
    first, second = (wire.length_delimited(b"\x0a", half) for half in halves)
    body = wire.length_delimited(b"\x0a", first + scope_spans + second)
    (group,) = wire.decode_request(body)
    assert group.resource == Resource(attributes={"a": 1, "b": 1})
    assert [group] == official.groups_of(ExportTraceServiceRequest.FromString(body))


@given(st.lists(official.values, max_size=5))
def test_several_alternatives_of_a_value_count_as_in_the_official_parser(values: list[Any]) -> None:
    merged = b"".join(map(wire.encode_any_value, values))
    split = [wire.length_delimited(b"\x12", wire.encode_any_value(value)) for value in values]
    for fields in (wire.length_delimited(b"\x12", merged), b"".join(split)):
        pair = b"\x0a\x01k" + fields
        body = wire.length_delimited(b"\x4a", pair)
        expected = official.span_of(trace_pb2.Span.FromString(body))
        assert official.exact(wire.decode_span(body)) == official.exact(expected)


def test_an_alternative_that_only_profiles_use_is_no_value() -> None:
    body = wire.length_delimited(
        b"\x4a", b"\x0a\x01k\x12\x05\x0a\x01a" + AnyValue(string_value_strindex=3).SerializeToString()
    )
    assert wire.decode_span(body).attributes == {"k": None}


@given(official.groups, st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_body_is_read_as_officially_or_refused(
    groups: list[wire.ResourceSpans], choose: st.DataObject
) -> None:
    body = bytearray(official.official_request(groups).SerializeToString() or b"\x0a\x02\x12\x00")
    for _ in range(choose.draw(st.integers(1, 4))):
        body[choose.draw(st.integers(0, len(body) - 1))] = choose.draw(st.integers(0, 255))
    del body[choose.draw(st.sampled_from([len(body), choose.draw(st.integers(0, len(body)))])) :]
    try:
        expected = official.groups_of(ExportTraceServiceRequest.FromString(bytes(body)))
    except DecodeError:
        expected = None
    try:
        decoded = wire.decode_request(body)
    except WireError:
        decoded = None
    assert expected is None or official.exact(decoded) == official.exact(expected)
