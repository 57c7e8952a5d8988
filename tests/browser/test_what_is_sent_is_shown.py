"""What arrives is shown, however it was sent, as often as it was meant, and whatever came before it."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry import trace as opentelemetry
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from ..collector.processes import Served
from .seeing import IMPATIENCE, Look, rows, runs
from .traces import MILLISECOND, Span, Trace, encode, just_now, post

TREE = [(1, "checkout", "1.500 s"), (2, "chat gpt-x", "900 ms"), (2, "pay", "1.250 s"), (3, "db.query", "5.00 ms")]
ANSWER = "It was sent on Tuesday."
STARTED = just_now()
"""Of all of them, when the tests are collected: it may be long ago when they run."""


def checkout(number: int) -> Trace:
    trace = Trace(number, STARTED)
    root = trace.add(Span("checkout", 0, 1500))
    trace.add(Span("chat gpt-x", 10, 900, root, output=ANSWER))
    pay = trace.add(Span("pay", 100, 1250, root))
    trace.add(Span("db.query", 110, 5, pay))
    return trace


def as_protobuf(url: str, trace: Trace) -> str:
    assert post(url, encode(trace)) == 200
    return trace.id


def as_gzip(url: str, trace: Trace) -> str:
    assert post(url, gzip.compress(encode(trace)), content_encoding="gzip") == 200
    return trace.id


def as_json(url: str, trace: Trace) -> str:
    message = MessageToDict(ExportTraceServiceRequest.FromString(encode(trace)))
    for span in message["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for key in ("traceId", "spanId", "parentSpanId"):
            if key in span:  # OTLP writes ids in hex, where protobuf's JSON has base64
                span[key] = base64.b64decode(span[key]).hex()
    assert post(url, json.dumps(message).encode(), content_type="application/json") == 200
    return trace.id


def by_opentelemetry(url: str, trace: Trace) -> str:
    provider = TracerProvider(resource=Resource.create({"service.name": trace.service}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces")))
    tracer = provider.get_tracer("tests")
    made: list[opentelemetry.Span] = []
    for span in trace.spans:
        above = None if span.parent is None else opentelemetry.set_span_in_context(made[span.parent])
        start_ns = trace.start_ns + int(span.start * MILLISECOND)
        made.append(tracer.start_span(span.name, above, start_time=start_ns, attributes=span.facts()))
    for span, one in zip(reversed(trace.spans), reversed(made), strict=True):
        assert span.duration is not None
        one.end(trace.start_ns + int((span.start + span.duration) * MILLISECOND))
    provider.shutdown()
    return f"{made[0].get_span_context().trace_id:032x}"


def without_its_last_span(url: str, trace: Trace) -> str:
    assert post(url, encode(trace, range(len(trace.spans) - 1))) == 200
    return trace.id


SENDERS: list[Callable[[str, Trace], str]] = [as_protobuf, as_gzip, as_json, by_opentelemetry]


def check_tree(look: Look) -> None:
    page = look.ready()
    seen = [(row["level"], row["name"], row["time"].replace("\u202f", " ")) for row in rows(page)]
    assert seen == TREE
    look.row("chat gpt-x").click()
    page.get_by_role("tab", name="Output").click()
    page.locator(".pane").filter(has_text=ANSWER).wait_for()


@pytest.mark.parametrize("send", SENDERS)
def test_the_same_trace_is_the_same_tree_however_it_is_sent(
    send: Callable[[str, Trace], str], shared: Served, looking: Callable[..., Look]
) -> None:
    trace_id = send(shared.url, checkout(0x5E0 + SENDERS.index(send)))
    check_tree(looking(f"{shared.url}/trace/{trace_id}"))


def check_counts(look: Look, url: str) -> None:
    """One run of four spans: in the list that was open, in one that is opened now, and in the statistics."""
    page = look.ready()
    for _ in range(2):
        look.shows(lambda: [run["spans"] for run in runs(page)] == ["4"], lambda: runs(page))
        page.reload()
        look.ready()
    page.goto(f"{url}/stats?since=24h")
    page.locator(".figures tbody tr").first.wait_for()
    counts = page.locator(".figures tbody td:nth-child(2)").all_inner_texts()
    assert counts == ["1"] * 4


def test_a_body_posted_twice_changes_no_count(own: Served, looking: Callable[..., Look]) -> None:
    look = looking(own.url)
    for _ in range(2):
        as_protobuf(own.url, checkout(0x5F0))
        check_counts(look, own.url)
        look.page.goto(own.url)


def test_after_a_truncated_body_the_next_good_one_is_shown(own: Served, looking: Callable[..., Look]) -> None:
    look = looking(own.url)
    body = encode(checkout(0x5F1))
    assert [post(own.url, body[:length]) for length in (1, len(body) // 2, len(body) - 1)] == [400] * 3
    assert post(own.url, body) == 200
    check_counts(look, own.url)


def test_a_span_that_gets_lost_is_noticed(shared: Served, looking: Callable[..., Look]) -> None:
    trace_id = without_its_last_span(shared.url, checkout(0x5F2))
    with pytest.raises(AssertionError):
        check_tree(looking(f"{shared.url}/trace/{trace_id}"))


def test_a_body_that_counts_twice_is_noticed(own: Served, looking: Callable[..., Look]) -> None:
    for number in (0x5F3, 0x5F4):
        as_protobuf(own.url, checkout(number))
    look = looking(own.url)
    look.patience = IMPATIENCE
    with pytest.raises(AssertionError):
        check_counts(look, own.url)
