"""Each operator of the language, asked of a running collector over its API and of the directory that it keeps: one answer."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from asynctrace._collector_source import Directory, Running
from asynctrace._contracts import Event, Span, SpanKind, StatusCode
from asynctrace.collector.query import parse
from asynctrace.collector.query._match import Candidate, matches
from asynctrace.wire import ResourceSpans

from ..processes import serving
from ..traffic import PROTOBUF, group, protobuf, received, span

SECOND = 10**9


def shop() -> ResourceSpans:
    said = {"session.id": "s1", "user.id": "u-7"}
    root = span(0xA << 124, 1, name="checkout", duration=3 * SECOND, attributes=said)
    lookup = {"input.value": '{"q":"Earl Grey"}', "openinference.span.kind": "RETRIEVER", "http.route": "/tea"}
    retrieve = span(0xA << 124, 2, parent=1, name="retrieve tea", start=SECOND, duration=SECOND, attributes=lookup)
    failed = {"asynctrace.ending": "timeout", "retries": 3, "output.value": "no refund today"}
    pay = span(0xA << 124, 3, parent=1, name="pay", duration=2 * SECOND, status=StatusCode.ERROR, attributes=failed)
    return group(root, retrieve, pay, service="shop")


def bot() -> ResourceSpans:
    usage = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "claude-y",
        "gen_ai.usage.input_tokens": 900,
        "gen_ai.usage.output_tokens": 200,
        "gen_ai.usage.cost": 0.06,
        "is_streamed": True,
    }
    said = (Event(time_ns=1, name="note", attributes={"text": "weather in Lund"}),)
    made = span(0xB << 124, 1, name="agent run", start=60 * SECOND, duration=5_000_000, attributes=usage, events=said)
    return group(_of_kind(made, SpanKind.CLIENT), service="bot")


def _of_kind(made: Span, kind: SpanKind) -> Span:
    return Span(**{field: getattr(made, field) for field in Span.__struct_fields__} | {"kind": kind})


def recent() -> ResourceSpans:
    now = time.time_ns()
    made = span(0xC << 124, 1, name="just now", attributes={"asynctrace.ending": "lost"}, status=StatusCode.ERROR)
    fields = {"start_ns": now - 60 * SECOND, "end_ns": now - 59 * SECOND}
    orphan = span(0xC << 124, 2, parent=99, name="step")
    return group(*(_at(each, **fields) for each in (made, orphan)), service="shop")


def _at(made: Span, **fields: int) -> Span:
    return Span(**{field: getattr(made, field) for field in Span.__struct_fields__} | fields)


def unfinished() -> ResourceSpans:
    """A notice, as an SDK sends it."""
    notice = {"asynctrace.state": "open"}
    made = span(0xD << 124, 1, name="poll", duration=0, status=StatusCode.UNSET, attributes=notice)
    return group(made, service="inbox")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Directory]]:
    with serving(tmp_path_factory.mktemp("store")) as served:
        for body in (shop(), bot(), recent(), unfinished()):
            _ask(served.url, "/v1/traces", "POST", protobuf([body]))
        _ask(served.url, f"/api/v1/pins/{0xB << 124:032x}", "PUT")
        _until_saved(served.directory)
        yield Running(served.url), Directory(served.directory)


def _ask(url: str, path: str, method: str, body: bytes | None = None) -> None:
    request = urllib.request.Request(f"{url}{path}", body, {"Content-Type": PROTOBUF}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def _until_saved(directory: Path) -> None:
    """What is open is in memory; a directory shows what its snapshot holds."""
    deadline = time.monotonic() + 30
    while not any(directory.glob("open-spans.msgpack")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


ALL = "abcd"
TRACES = [
    ("", ALL),
    ("service:shop", "ac"),
    ("service:sh*", "ac"),
    ("-service:shop", "bd"),
    ("name:pay", "a"),
    ('name:"retrieve*"', "a"),
    ("name:*run", "b"),
    ("name:PAY", "a"),
    ("agent", "b"),
    ("TRIEVE", "a"),
    ('"agent run"', "b"),
    ("attr.http.route:/tea", "a"),
    ("attr.http.route:/t*", "a"),
    ("attr.http.route:*", "a"),
    ("attr.retries=3", "a"),
    ("attr.retries>=3", "a"),
    ("attr.retries>3", ""),
    ("attr.is_streamed:true", "b"),
    ("dur>2s", "ad"),  # what is open has lasted until now
    ("dur>=3s", "ad"),
    ("dur<10ms", "b"),
    ("dur<=5ms", "b"),
    ("dur=1s", "ac"),
    ("status:error", "ac"),
    ("status:ok", "abc"),
    ("kind:client", "b"),
    ("type:llm", "b"),
    ("type:retriever", "a"),
    ("model:claude*", "b"),
    ("ending:timeout", "a"),
    ("ending:lost", "c"),
    ("scope:tests", ALL),
    ("scope:other", ""),
    ("is:open", "d"),
    ("is:ended", "abc"),
    ("is:lost", "c"),
    ("is:error", "ac"),
    ("is:root", ALL),
    ("is:pinned", "b"),
    ("is:late", ""),
    ("cost>0.05", "b"),
    ("cost<0.05", "acd"),
    ("tokens>1000", "b"),
    ("tokens>=1101", ""),
    ("spans>2", "a"),
    ("spans=2", "c"),
    ("errors>0", "ac"),
    ('input:"earl grey"', "a"),
    ("input:*", "a"),
    ("output:refund", "a"),
    ('text:"weather in"', "b"),
    ("session:s1", "a"),
    ("session:s*", "a"),
    ("user:u-7", "a"),
    ("since:1h", "c"),
    ("until:1h", "abd"),
    ("since:2023-01-01 until:2024-01-01", "abd"),
    ("id:b", "b"),
    (f"id:{0xA << 124:032x}", "a"),
    # of one span together
    ("name:pay status:error", "a"),
    ("name:checkout status:error", ""),
    ("name:pay -status:error", ""),
    ("-kind:unspecified", "b"),
    ("service:shop dur>2s since:1h", ""),
]


@pytest.mark.parametrize(("query", "expected"), TRACES)
def test_a_query_for_traces(sources: tuple[Running, Directory], query: str, expected: str) -> None:
    for source in sources:
        found = source.traces(parse(query), 50).traces
        assert "".join(sorted(trace.trace_id[0] for trace in found)) == expected, source.where


SPANS = [
    ("", [0, 1, 2]),
    ("tea", [1]),
    ("is:root", [0]),
    ("-is:root", [1, 2]),
    ("dur>1s", [0, 2]),
    ("is:error", [2]),
    ("session:s1", [0]),
    ("service:shop type:retriever", [1]),
    ("spans>1", []),
    ("attr.service.name:shop status:ok", [0, 1]),
    ("id:000000000000000", [0, 1, 2]),
    ("id:0000000000000002", [1]),
    ("since:1h", []),
]


@pytest.mark.parametrize(("query", "expected"), SPANS)
def test_a_query_for_the_spans_of_one_trace(
    sources: tuple[Running, Directory], query: str, expected: list[int]
) -> None:
    for source in sources:
        whole = source.whole(f"{0xA << 124:032x}")
        now_ns = time.time_ns()
        rows = range(len(whole.rows))
        found = [index for index in rows if matches(parse(query), whole.candidate(index), whole.summary, now_ns)]
        assert found == expected, source.where


def test_a_damaged_message_is_only_read_where_it_is_asked_for() -> None:
    made = received(shop())
    row = made.rows[0]._replace(message=b"\xff\xff")
    candidate = Candidate(row, made.origins[0])
    summary = None
    assert matches(parse("checkout status:ok dur>1s"), candidate, summary, 0)  # type: ignore[arg-type]
