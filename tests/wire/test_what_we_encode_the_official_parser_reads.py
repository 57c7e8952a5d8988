from __future__ import annotations

import enum
import struct
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as OfficialResource
from opentelemetry.proto.trace.v1 import trace_pb2

from asynctrace import wire
from asynctrace._contracts import Event, Link, Resource, Scope, Span, StatusCode
from asynctrace.wire import _values

from . import _official as official

EXAMPLES: list[Any] = [
    *(None, True, False, 0, 1, -1, 1023, 1024, 2047, 2048, 2**63 - 1, -(2**63)),
    *(0.0, -0.0, 1.5, float("inf"), -float("inf"), float("nan")),
    *("", "a", "é", "日本", "🙂", "x" * 127, "x" * 128, "x" * 1911, "x" * 1912, "x" * 100_000),
    *(b"", b"\x00\xff", b"b" * 300),
    *([], {}, [[], {}], {"a": [1, "b", {"c": None}], "": ""}, ["x" * 3000, {"k" * 300: b"y" * 3000}]),
]


def check_values(encode: Callable[[Any], bytes]) -> None:
    for value in EXAMPLES:
        assert official.exact(official.value_of(AnyValue.FromString(encode(value)))) == official.exact(value)


def test_every_attribute_type_arrives_as_it_was_given() -> None:
    check_values(wire.encode_any_value)


def an_encoder_with_big_endian_doubles(value: Any) -> bytes:
    return b"\x21" + struct.pack(">d", value) if isinstance(value, float) else wire.encode_any_value(value)


def an_encoder_that_takes_bools_for_integers(value: Any) -> bytes:
    return wire.encode_any_value(int(value) if isinstance(value, bool) else value)


def an_encoder_that_leaves_empty_values_out(value: Any) -> bytes:
    return wire.encode_any_value(value or None)


def an_encoder_with_lengths_of_one_byte(value: Any) -> bytes:
    if isinstance(value, str):
        return b"\x0a" + bytes([len(value.encode()) & 0x7F]) + value.encode()
    return wire.encode_any_value(value)


@pytest.mark.parametrize(
    "broken",
    [
        an_encoder_with_big_endian_doubles,
        an_encoder_that_takes_bools_for_integers,
        an_encoder_that_leaves_empty_values_out,
        an_encoder_with_lengths_of_one_byte,
    ],
)
def test_the_check_notices(broken: Callable[[Any], bytes]) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - a parser's error or a difference, both are noticed
        check_values(broken)


@given(official.values)
def test_any_value(value: Any) -> None:
    assert official.exact(official.value_of(AnyValue.FromString(wire.encode_any_value(value)))) == official.exact(value)


@given(official.keys, official.values)
def test_a_key_and_its_value_alone_and_as_a_field(key: str, value: Any) -> None:
    message = wire.encode_key_value(key, value)
    assert official.exact(official.attributes_of([KeyValue.FromString(message)])) == official.exact({key: value})
    assert wire.encode_attribute(b"\x4a", key, value) == wire.length_delimited(b"\x4a", message)


@given(official.spans)
@settings(max_examples=200, deadline=None)
def test_a_span_with_everything_in_it(span: Span) -> None:
    message = trace_pb2.Span.FromString(wire.encode_span(span))
    assert official.exact(official.span_of(message)) == official.exact(span)
    assert not message.HasField("status") or message.status != trace_pb2.Status()


@given(official.events, official.links, st.sampled_from(StatusCode), official.texts)
def test_parts_joined_are_a_span(event: Event, link: Link, code: StatusCode, text: str) -> None:
    parts = [
        wire.encode_event(event.time_ns, event.name, event.attributes, event.dropped_attributes),
        wire.encode_link(
            bytes.fromhex(link.trace_id),
            bytes.fromhex(link.span_id),
            link.trace_state,
            link.attributes,
            link.flags,
        ),
        wire.encode_status(code, text),
        wire.encode_attributes(b"\x4a", event.attributes),
    ]
    span = official.span_of(trace_pb2.Span.FromString(b"".join(parts)))
    assert official.exact(span.events) == official.exact((event,))
    assert official.exact(span.links[0].attributes) == official.exact(link.attributes)
    assert (span.links[0].trace_id, span.links[0].flags) == (link.trace_id, link.flags)
    assert (span.status, span.status_message) == (code, text)
    assert official.exact(span.attributes) == official.exact(event.attributes)


@given(official.resources, official.scopes, st.lists(official.spans, max_size=3))
@settings(deadline=None)
def test_records_behind_a_header_are_a_request(resource: Resource, scope: Scope, spans: list[Span]) -> None:
    payload = [memoryview(wire.frame(wire.encode_span(span))) for span in spans]
    first, second = wire.encode_resource(resource), wire.encode_scope(scope)
    parts = wire.encode_request(first, second, payload)
    body = b"".join(parts)
    assert parts[1:] == payload
    assert all(sent is given for sent, given in zip(parts[1:], payload, strict=True))
    assert wire.request_size(first, second, sum(map(len, payload))) == len(body)
    (group,) = official.groups_of(ExportTraceServiceRequest.FromString(body))
    assert official.exact(group) == official.exact(
        wire.ResourceSpans(
            resource=resource, scope=msgspec.structs.replace(scope, schema_url=""), spans=tuple(spans)
        )  # the tracer's own scope has none
    )


def test_a_resource_and_a_scope_alone_are_messages() -> None:
    resource = OfficialResource.FromString(wire.encode_resource(Resource(attributes={"service.name": "shop"})))
    assert official.attributes_of(resource.attributes) == {"service.name": "shop"}
    scope = InstrumentationScope.FromString(wire.encode_scope(Scope(name="n", version="1", attributes={"a": 1})))
    assert (scope.name, scope.version, official.attributes_of(scope.attributes)) == ("n", "1", {"a": 1})


@pytest.mark.parametrize(("rejected", "message"), [(0, ""), (3, ""), (0, "careful"), (2**40, "é" * 200)])
def test_a_response(rejected: int, message: str) -> None:
    answer = ExportTraceServiceResponse.FromString(wire.encode_response(rejected, message))
    assert (answer.partial_success.rejected_spans, answer.partial_success.error_message) == (
        rejected,
        message,
    )


@pytest.mark.parametrize(
    ("given", "arrives"),
    [
        ("\ud800", "\ufffd"),
        ("a\udfffb\ud83d", "a\ufffdb\ufffd"),
        ("\ud83d\ude42", "🙂"),
        ("\ud800" * 3000, "\ufffd" * 3000),
        (2**63, str(2**63)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        pytest.param(10**4000, "1" + "0" * 4000, id="4001 digits"),
        pytest.param(10**5000, hex(10**5000), id="5001 digits"),
    ],
)
def test_what_protobuf_cannot_hold_is_replaced(given: Any, arrives: str) -> None:
    for pair in (
        wire.encode_key_value("k", given),
        wire.encode_attribute(b"", "k", given)[len(wire.encode_varint(len(wire.encode_key_value("k", given)))) :],
    ):
        assert official.attributes_of([KeyValue.FromString(pair)]) == {"k": arrives}


def test_lone_surrogates_in_keys_and_names_are_replaced() -> None:
    event = wire.encode_event(1, "n\udc00", {"k\udc00": "v"})
    span = official.span_of(trace_pb2.Span.FromString(event))
    assert span.events == (Event(time_ns=1, name="n\ufffd", attributes={"k\ufffd": "v"}),)


class Color(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 7


class Celsius(float): ...


class Token(bytes): ...


@pytest.mark.parametrize(
    ("given", "arrives"),
    [
        (Color.RED, "red"),
        (Level.HIGH, 7),
        (Celsius(1.5), 1.5),
        (Token(b"t"), b"t"),
        (bytearray(b"b"), b"b"),
        (memoryview(b"m"), b"m"),
        ((1, 2), [1, 2]),
        (deque([1]), [1]),
        (range(2), [0, 1]),
        (OrderedDict(a=1), {"a": 1}),
    ],
)
def test_relatives_of_the_known_types_are_taken(given: Any, arrives: Any) -> None:
    assert official.value_of(AnyValue.FromString(wire.encode_any_value(given))) == arrives
    pair = KeyValue.FromString(wire.encode_key_value("k", given))
    assert official.attributes_of([pair]) == {"k": arrives}


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, Exception(), [object()], {"a": {1}}, iter([1])])
def test_other_types_are_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match="OTLP cannot carry"):
        wire.encode_attribute(b"\x4a", "k", value)


@pytest.mark.parametrize("key", [1, None, b"k", ("a",)])
def test_a_key_that_is_no_text_is_a_type_error(key: Any) -> None:
    with pytest.raises(TypeError, match="key is a str"):
        wire.encode_attribute(b"\x4a", key, 1)
    with pytest.raises(TypeError, match="key is a str"):
        wire.encode_any_value({key: 1})


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = wrap(None)
    for _ in range(depth - 1):
        value = wrap(value)
    return value


def map_of(value: Any) -> Any:
    return {} if value is None else {"a": value}


def test_the_deepest_value_is_still_read_by_the_official_parser() -> None:
    deepest = nested(32, map_of)
    event = wire.encode_event(1, "e", {"k": deepest})
    body = b"".join(wire.encode_request(b"", b"", [wire.frame(event)]))
    ((group,),) = [official.groups_of(ExportTraceServiceRequest.FromString(body))]
    assert group.spans[0].events[0].attributes == {"k": deepest}
    assert wire.decode_request(body) == [group]


@pytest.mark.parametrize("wrap", [map_of, lambda value: [] if value is None else [value]])
def test_one_level_more_is_a_value_error(wrap: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match="at most 32"):
        wire.encode_attribute(b"\x4a", "k", nested(33, wrap))


def test_a_list_that_holds_itself_is_a_value_error() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="at most 32"):
        wire.encode_any_value(loop)


def test_many_different_keys_do_not_fill_the_memory() -> None:
    for number in range(6000):
        wire.encode_attribute(b"\x4a", f"key.{number}", 1)
    wire.encode_attribute(b"\x4a", "k" * 1_000_000, 1)
    assert len(_values._key_fields) <= 4096
    assert max(map(len, _values._key_fields)) <= 128
    message = wire.encode_key_value("key.5999", 1)
    assert official.attributes_of([KeyValue.FromString(message)]) == {"key.5999": 1}


@given(st.integers(0, 2**64 - 1) | st.sampled_from([2**7 - 1, 2**7, 2**14 - 1, 2**14, 2**63, 2**64 - 1]))
def test_a_varint_is_what_the_official_encoder_writes(number: int) -> None:
    signed = number - 2**64 if number >= 2**63 else number
    assert b"\x18" + wire.encode_varint(number) == AnyValue(int_value=signed).SerializeToString()


@pytest.mark.parametrize("number", [-1, 2**64, pytest.param(10**5000, id="5001 digits")])
def test_a_varint_outside_64_bits_is_a_value_error(number: int) -> None:
    with pytest.raises(ValueError, match="varint"):
        wire.encode_varint(number)


@pytest.mark.parametrize(
    "encode",
    [
        lambda: wire.encode_event(-1, "e", {}),
        lambda: wire.encode_event(2**64, "e", {}),
        lambda: wire.encode_event(1, "e", {}, dropped=-1),
        lambda: wire.encode_link(b"", b"", "", {}, flags=2**32),
        lambda: wire.encode_span(Span(trace_id="xy", span_id="")),
        lambda: wire.encode_span(Span(trace_id="", span_id="", start_ns=-1)),
        lambda: wire.encode_span(Span(trace_id="", span_id="", dropped_links=2**32)),
    ],
)
def test_numbers_that_do_not_fit_are_value_errors(encode: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own words
        encode()
