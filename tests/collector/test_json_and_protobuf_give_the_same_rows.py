"""OTLP/JSON as clients write it: the same rows as from protobuf, and one bad span spoils no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrace import WireError
from asynctrace.collector.receiving import _json as json
from asynctrace.collector.receiving._intake import Intake, TooMany
from asynctrace.collector.receiving._json import json_logs, json_spans
from asynctrace.collector.receiving._scan import Scanner
from asynctrace.wire import ResourceSpans, json_request, parse_json_request, read_json_spans

from ..wire import _official as official
from .traffic import protobuf

Reader = Callable[[Scanner, bytes], Intake]

IDS = {"traceId": "0102030405060708090a0b0c0d0e0f10", "spanId": "0102030405060708"}
SPAN: dict[str, Any] = {**IDS, "name": "work", "startTimeUnixNano": "1700000000000000000"}

groups = st.lists(
    st.builds(
        ResourceSpans,
        resource=official.resources,
        scope=official.scopes,
        spans=st.lists(official.spans, max_size=3).map(tuple),
    ),
    max_size=2,
)


def body_of(*spans: Any) -> bytes:
    return msgspec.json.encode({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]})


def check_the_same_rows(read: Reader, request: list[ResourceSpans]) -> None:
    request = parse_json_request(json_request(request))  # JSON knows only one NaN
    from_protobuf, from_json = Scanner().request(protobuf(request)), read(Scanner(), json_request(request))
    assert from_json.rejected == from_protobuf.rejected
    assert from_json.rows == from_protobuf.rows
    assert from_json.origins == from_protobuf.origins


@given(groups)
@settings(max_examples=100, deadline=None)
def test_json_and_protobuf_give_the_same_rows(request_: list[ResourceSpans]) -> None:
    check_the_same_rows(json_spans, request_)


@pytest.mark.parametrize(
    "change",
    [
        {"traceId": IDS["traceId"].upper()},
        {"startTimeUnixNano": 1_700_000_000_000_000_000},
        {"startTimeUnixNano": 1.7e18},
        {"kind": "SPAN_KIND_INTERNAL"},
        {"unknown": {"nested": [1, {"a": None}]}},
        {"attributes": None, "events": None, "links": None, "status": None},
        {"attributes": [None], "events": [None]},
        {"parentSpanId": ""},
        {"parentSpanId": "0000000000000000"},
    ],
    ids=str,
)
def test_the_forms_that_clients_choose_are_read(change: dict[str, Any]) -> None:
    intake = json_spans(Scanner(), body_of({**SPAN, **change}))
    (row,) = intake.rows
    assert (row.trace_id.hex(), row.name, row.start_ns, row.parent_id) == (IDS["traceId"], "work", 17 * 10**17, b"")


BAD: dict[str, Any] = {
    "base64 ids": {**SPAN, "traceId": "AQIDBAUGBwgJCgsMDQ4PEA==", "spanId": "AQIDBAUGBwg="},
    "a short id": {**SPAN, "spanId": "0102"},
    "an id of zeros": {**SPAN, "spanId": "0" * 16},
    "no ids": {"name": "work"},
    "an id that is a number": {**SPAN, "traceId": 7},
    "a name that is a list": {**SPAN, "name": ["work"]},
    "attributes as an object": {**SPAN, "attributes": {"a": 1}},
    "a value as a text": {**SPAN, "attributes": [{"key": "a", "value": "b"}]},
    "a time that is a word": {**SPAN, "startTimeUnixNano": "now"},
    "a time before 1970": {**SPAN, "startTimeUnixNano": -1},
    "a time beyond 64 bits": {**SPAN, "startTimeUnixNano": str(2**64)},
    "base64 that is none": {**SPAN, "attributes": [{"key": "a", "value": {"bytesValue": "é"}}]},
    "events as a text": {**SPAN, "events": "none"},
}


def check_a_bad_span_spoils_no_other(read: Reader, bad: Any) -> None:
    good = [{**SPAN, "spanId": f"{number:016x}"} for number in (1, 2)]
    intake = read(Scanner(), body_of(good[0], bad, good[1]))
    assert [row.span_id.hex() for row in intake.rows] == [f"{number:016x}" for number in (1, 2)]
    assert intake.rejected == 1
    assert intake.reason


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_span_is_rejected_alone(bad: Any) -> None:
    check_a_bad_span_spoils_no_other(json_spans, bad)


@pytest.mark.parametrize("spans", [7, [7], ["x"], [[]], {}], ids=str)
def test_what_is_no_list_of_spans_is_refused(spans: Any) -> None:
    body = msgspec.json.encode({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})
    with pytest.raises(WireError):
        json_spans(Scanner(), body)


def test_a_log_record_that_is_mistyped_is_rejected_alone() -> None:
    records = [IDS, {**IDS, "severityNumber": "loud"}, {**IDS, "severityNumber": "SEVERITY_NUMBER_INFO"}]
    body = msgspec.json.encode({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]})
    intake = json_logs(Scanner(), body)
    assert (len(intake.logs), intake.rejected) == (2, 1)


def test_braces_are_counted_before_anything_is_made_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "MOST_BRACES", 1000)
    with pytest.raises(TooMany, match="send fewer"):
        json_spans(Scanner(), b"{" * 1001)


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


def all_or_nothing(scanner: Scanner, body: bytes) -> Intake:
    for _, _, spans in read_json_spans(body):
        for each in spans:
            if isinstance(each, WireError):
                raise each
    return json_spans(scanner, body)


def says_nothing(scanner: Scanner, body: bytes) -> Intake:
    intake = json_spans(scanner, body)
    intake.rejected = 0
    return intake


@pytest.mark.parametrize("broken", [all_or_nothing, says_nothing])
def test_a_reader_that_spoils_or_hides_is_caught(broken: Reader) -> None:
    with pytest.raises((AssertionError, WireError)):
        check_a_bad_span_spoils_no_other(broken, BAD["base64 ids"])
