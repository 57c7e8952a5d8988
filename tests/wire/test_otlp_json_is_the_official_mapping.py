from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from asynctrace import wire
from asynctrace._contracts import Event, Link, Resource, Scope, Span, SpanKind, StatusCode
from asynctrace._errors import WireError

from . import _official as official

IDS = {"traceId", "spanId", "parentSpanId"}


def with_ids(value: Any, convert: Callable[[str], str], at: str = "") -> Any:
    """OTLP's first exception: ids are hex. No attribute can have such a key: they are lists of pairs."""
    if isinstance(value, dict):
        return {key: with_ids(item, convert, key) for key, item in value.items()}
    if isinstance(value, list):
        return [with_ids(item, convert) for item in value]
    return convert(value) if at in IDS else value


def to_hex(text: str) -> str:
    return base64.b64decode(text).hex()


def to_base64(text: str) -> str:
    return base64.b64encode(bytes.fromhex(text)).decode()


def official_json(groups: list[wire.ResourceSpans]) -> Any:
    request = official.official_request(groups)
    return with_ids(json_format.MessageToDict(request, use_integers_for_enums=True), to_hex)


SPAN = Span(
    trace_id="ab" * 16,
    span_id="cd" * 8,
    parent_id="ef" * 8,
    name="n",
    kind=SpanKind.SERVER,
    start_ns=2**63,
    end_ns=2**64 - 1,
    attributes={"i": -1, "b": b"\xfb\xff", "l": [1.5, float("nan"), None, True], "m": {"a": -0.0}, "s": "é"},
    events=(Event(time_ns=5, name="e", attributes={"x": 1}, dropped_attributes=1),),
    links=(Link(trace_id="01" * 16, span_id="02" * 8, trace_state="s", flags=1, attributes={"y": 2}),),
    status=StatusCode.ERROR,
    status_message="no",
    trace_state="t",
    flags=0x101,
    dropped_attributes=1,
    dropped_events=2,
    dropped_links=3,
)
GROUPS = [
    wire.ResourceSpans(
        resource=Resource(attributes={"service.name": "shop"}),
        scope=Scope(name="s", version="1", attributes={"z": 3}, schema_url="https://example.org/1"),
        spans=(SPAN,),
    )
]


def check_json(write: Callable[[list[wire.ResourceSpans]], bytes]) -> None:
    assert json.loads(write(GROUPS)) == official_json(GROUPS)


def test_a_span_with_everything_is_the_official_json() -> None:
    check_json(wire.json_request)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (b'"NaN"', b"null"),
        (b'"intValue":"-1"', b'"intValue":-1'),
        (b'"kind":2', b'"kind":"SPAN_KIND_SERVER"'),
        (b"startTimeUnixNano", b"start_time_unix_nano"),
        (b'"+/8="', b'"-_8="'),
        (b"ab" * 16, b"q6urq6urq6urq6urq6urqw=="),
    ],
)
def test_the_check_notices(right: bytes, wrong: bytes) -> None:
    with pytest.raises(AssertionError):
        check_json(lambda groups: wire.json_request(groups).replace(right, wrong))


@given(official.groups)
@settings(deadline=None)
def test_the_official_parser_reads_our_json(groups: list[wire.ResourceSpans]) -> None:
    document = with_ids(json.loads(wire.json_request(groups)), to_base64)
    request = json_format.ParseDict(document, ExportTraceServiceRequest(), max_recursion_depth=200)
    assert official.exact(official.groups_of(request)) == official.exact(groups)


@given(official.groups)
@settings(deadline=None)
def test_we_read_the_official_json(groups: list[wire.ResourceSpans]) -> None:
    # msgspec writes what json.loads() of the official text holds, but -0.0 and NaN stay what they are
    request = official.official_request(groups)
    document = json_format.MessageToDict(request, use_integers_for_enums=True)
    body = msgspec.json.encode(with_ids(document, to_hex))
    assert official.exact(wire.parse_json_request(body)) == official.exact(groups)


@given(official.groups)
@settings(deadline=None)
def test_we_read_our_own_json(groups: list[wire.ResourceSpans]) -> None:
    assert official.exact(wire.parse_json_request(wire.json_request(groups))) == official.exact(groups)


def test_one_span_alone() -> None:
    document = json.loads(wire.json_request(GROUPS))
    assert document["resourceSpans"][0]["scopeSpans"][0]["spans"] == [wire.json_span(SPAN)]
    assert wire.json_span(Span(trace_id="AB" * 16, span_id="CD" * 8)) == {
        "traceId": "ab" * 16,
        "spanId": "cd" * 8,
        "name": "",
        "kind": 0,
        "startTimeUnixNano": "0",
        "endTimeUnixNano": "0",
        "status": {},
    }


@pytest.mark.parametrize(
    ("given", "json_value"),
    [
        (2**63, {"stringValue": str(2**63)}),
        ("a\ud800", {"stringValue": "a\ufffd"}),
        (float("-inf"), {"doubleValue": "-Infinity"}),
        (bytearray(b"a"), {"bytesValue": "YQ=="}),
        ((), {"arrayValue": {"values": []}}),
        (None, {}),
        (SpanKind.CLIENT, {"intValue": "3"}),
        pytest.param(10**5000, {"stringValue": hex(10**5000)}, id="5001 digits"),
    ],
)
def test_values_that_need_care(given: Any, json_value: Any) -> None:
    span = wire.json_span(Span(trace_id="", span_id="", attributes={"k": given}))
    assert span["attributes"] == [{"key": "k", "value": json_value}]
    assert json.loads(msgspec.json.encode(span))["attributes"][0]["value"] == json_value


def test_what_otlp_cannot_carry_is_an_error_here_too() -> None:
    with pytest.raises(TypeError, match="cannot carry"):
        wire.json_span(Span(trace_id="", span_id="", attributes={"k": object()}))  # type: ignore[dict-item]
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="at most 32"):
        wire.json_span(Span(trace_id="", span_id="", attributes={"k": loop}))


# -- what senders really send


def parsed(span: str) -> Span:
    (group,) = wire.parse_json_request(f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}'.encode())
    return group.spans[0]


def parsed_value(value: str) -> Any:
    return parsed(f'{{"attributes":[{{"key":"k","value":{value}}}]}}').attributes["k"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"intValue":5}', 5),
        ('{"intValue":"5"}', 5),
        ('{"intValue":5.0}', 5),
        ('{"intValue":"-9223372036854775808"}', -(2**63)),
        ('{"doubleValue":5}', 5.0),
        ('{"doubleValue":"2.5"}', 2.5),
        ('{"doubleValue":"-Infinity"}', float("-inf")),
        ('{"stringValue":""}', ""),
        ('{"stringValue":null}', None),
        ('{"boolValue":false}', False),
        ('{"bytesValue":"-_8"}', b"\xfb\xff"),
        ('{"bytesValue":"+/8="}', b"\xfb\xff"),
        ('{"arrayValue":{}}', []),
        ('{"arrayValue":{"values":[{},null,{"intValue":1}]}}', [None, None, 1]),
        ('{"kvlistValue":{"values":null}}', {}),
        ('{"kvlistValue":{"values":[{"key":"a"}]}}', {"a": None}),
        ('{"somethingNew":[1,{"a":2}]}', None),
        ("{}", None),
        ("null", None),
    ],
)
def test_values_as_senders_write_them(text: str, value: Any) -> None:
    assert official.exact(parsed_value(text)) == official.exact(value)


def test_fields_as_senders_write_them() -> None:
    span = parsed(
        '{"traceId":"ABCDEF0123456789abcdef0123456789","spanId":"0123456789ABCDEF","parentSpanId":null,'
        '"startTimeUnixNano":1700000000000000000,"endTimeUnixNano":"1700000000000000001","kind":"SPAN_KIND_CLIENT",'
        '"status":{"code":"STATUS_CODE_OK"},"events":[{"timeUnixNano":1.0e3}],"links":null,"flags":257,"new":{}}'
    )
    assert (span.trace_id, span.span_id) == ("abcdef0123456789abcdef0123456789", "0123456789abcdef")
    assert (span.start_ns, span.end_ns) == (1700000000000000000, 1700000000000000001)
    assert (span.parent_id, span.kind, span.status) == ("", SpanKind.CLIENT, StatusCode.OK)
    assert (span.events, span.links, span.flags) == ((Event(time_ns=1000, name=""),), (), 257)


@pytest.mark.parametrize("number", ["6", "-1", '"99"', '"SPAN_KIND_NEW"'])
def test_an_unknown_kind_is_unspecified(number: str) -> None:
    assert parsed(f'{{"kind":{number}}}').kind is SpanKind.UNSPECIFIED


@pytest.mark.parametrize("body", [b"{}", b'{"resourceSpans":null}', b'{"resourceSpans":[null,{}]}', b'{"x":[1]}'])
def test_nothing_inside_is_no_group(body: bytes) -> None:
    assert wire.parse_json_request(body) == []


@pytest.mark.parametrize(
    "span",
    [
        "[]",
        '{"traceId":"q6urq6urq6urq6urq6urqw=="}',
        '{"traceId":"ab cd"}',
        '{"traceId":"abc"}',
        '{"traceId":5}',
        '{"name":5}',
        '{"flags":-1}',
        '{"flags":4294967296}',
        '{"flags":1.5}',
        '{"flags":"1_0"}',
        '{"flags":" 1"}',
        '{"flags":""}',
        '{"flags":1e999}',
        '{"kind":true}',
        '{"kind":"CLIENT"}',
        '{"startTimeUnixNano":"18446744073709551616"}',
        '{"attributes":{"a":1}}',
        '{"attributes":[{"value":{"intValue":"9223372036854775808"}}]}',
        '{"attributes":[{"value":{"doubleValue":"x"}}]}',
        '{"attributes":[{"value":{"bytesValue":"a"}}]}',
        '{"attributes":[{"value":{"bytesValue":"é"}}]}',
        '{"attributes":[{"value":{"boolValue":"true"}}]}',
        '{"name":"\\ud800"}',
        '{"name":"x"',
    ],
)
def test_what_is_no_otlp_is_a_wire_error(span: str) -> None:
    with pytest.raises(WireError):
        parsed(span)


def test_nesting_has_the_limit_of_the_binary_form() -> None:
    def arrays(levels: int) -> str:
        return '{"arrayValue":{"values":[' * levels + "{}" + "]}}" * levels

    assert parsed_value(arrays(63)) != []
    for levels in (64, 100_000):
        with pytest.raises(WireError, match=r"inside one another|too deeply"):
            parsed_value(arrays(levels))
