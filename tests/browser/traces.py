"""Traces of agents, made from a seed, as the OTLP that a sender would post."""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue

__all__ = ["Span", "Trace", "agent", "chain", "encode", "hour_ago", "just_now", "large", "post", "siblings"]

MILLISECOND = 1_000_000
WORDS = [
    "refund",
    "order",
    "invoice",
    "ticket",
    "vector",
    "index",
    "chunk",
    "token",
    "answer",
    "search",
    "rank",
    "compare",
    "summary",
    "price",
    "policy",
    "customer",
    "shipping",
    "delay",
    "replace",
    "warranty",
    "approve",
    "reject",
    "escalate",
    "lookup",
    "cache",
    "fetch",
    "page",
    "result",
    "source",
    "quote",
    "claim",
]
TOOLS = ("search_web", "read_page", "db.query", "calculator", "send_mail")

Event = tuple[str, float, Mapping[str, Any]]
"""Name, milliseconds after the start of its span, attributes."""


@dataclass
class Span:
    """Times in milliseconds, from the start of the trace."""

    name: str
    start: float
    duration: float | None
    """None while it is open: then it is a notice, as an SDK sends one."""
    parent: int | None = None
    """The number of the parent in the trace; None for a root."""
    type: str = ""
    status: int = 0
    attributes: dict[str, Any] = field(default_factory=dict)
    input: Any = None
    output: Any = None
    events: tuple[Event, ...] = ()
    missing: str = ""
    """The id of a parent that is not there."""

    def facts(self) -> dict[str, Any]:
        """All attributes."""
        found = dict(self.attributes)
        if self.type:
            found["openinference.span.kind"] = self.type.upper()
        for side in ("input", "output"):
            value = getattr(self, side)
            if value is not None:
                found[f"{side}.value"] = value if isinstance(value, str) else json.dumps(value)
        if self.duration is None:
            found["asynctrace.state"] = "open"
        return found


@dataclass
class Trace:
    """Spans by number. `number` becomes the trace id."""

    number: int
    start_ns: int
    spans: list[Span] = field(default_factory=list)
    service: str = "research"

    @property
    def id(self) -> str:
        return f"{self.number:032x}"

    def add(self, span: Span) -> int:
        self.spans.append(span)
        return len(self.spans) - 1

    def span_id(self, number: int) -> str:
        return f"{self.number & 0xFFFF:04x}{number + 1:012x}"


def just_now() -> int:
    return time.time_ns() - 30_000 * MILLISECOND


def hour_ago() -> int:
    return time.time_ns() - 3_600_000 * MILLISECOND


def encode(trace: Trace, numbers: Iterable[int] | None = None) -> bytes:
    """The spans of these numbers, or all, as an export request."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.extend(_attributes({"service.name": trace.service, "host.name": "laptop"}))
    scope = resource.scope_spans.add()
    scope.scope.name, scope.scope.version = "tests", "1"
    for number in range(len(trace.spans)) if numbers is None else numbers:
        span = trace.spans[number]
        made = scope.spans.add(
            trace_id=bytes.fromhex(trace.id),
            span_id=bytes.fromhex(trace.span_id(number)),
            name=span.name,
            kind=1,
            start_time_unix_nano=trace.start_ns + int(span.start * MILLISECOND),
            attributes=_attributes(span.facts()),
        )
        if span.duration is not None:
            made.end_time_unix_nano = made.start_time_unix_nano + int(span.duration * MILLISECOND)
        if span.missing or span.parent is not None:
            made.parent_span_id = bytes.fromhex(span.missing or trace.span_id(span.parent or 0))
        made.status.code = span.status
        for name, moment, attributes in span.events:
            time_ns = made.start_time_unix_nano + int(moment * MILLISECOND)
            made.events.add(name=name, time_unix_nano=time_ns, attributes=_attributes(attributes))
    return request.SerializeToString()


def post(url: str, body: bytes, path: str = "/v1/traces", **headers: str) -> int:
    """The status of the answer."""
    told = {
        "content-type": "application/x-protobuf",
        **{key.replace("_", "-"): value for key, value in headers.items()},
    }
    request = urllib.request.Request(url + path, body, told)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _attributes(values: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in values.items()]


def _value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, list | tuple):
        return AnyValue(array_value=ArrayValue(values=[_value(one) for one in value]))
    return AnyValue(string_value=str(value))


# ── traces ──────────────────────────────────────────────────────────────────────────────────────────────────


def chain(number: int, *names: str, start_ns: int | None = None) -> Trace:
    """One span inside the other, each a second long."""
    trace = Trace(number, start_ns or just_now())
    for depth, name in enumerate(names):
        trace.add(Span(name, depth * 10.0, 1000.0 - depth * 20, depth - 1 if depth else None))
    return trace


def siblings(number: int, count: int, *, errors: int = 0) -> Trace:
    """A root with equal children of 1 ms, 2 ms, …; the last `errors` of them failed."""
    trace = Trace(number, hour_ago())
    trace.add(Span("root", 0, count * 3.0))
    for i in range(count):
        failed = i >= count - errors
        trace.add(Span("work", i * 2.0, i + 1.0, 0, "tool", 2 if failed else 0))
    return trace


def large(number: int, count: int, *, seed: int = 0) -> Trace:
    """`count` spans on four levels, few of them equal beside each other."""
    chance = random.Random(seed)
    trace = Trace(number, hour_ago())
    root = trace.add(Span("batch.import", 0, count * 0.9, None, "chain"))
    for span in _crowd(chance, trace, root, count):
        trace.add(span)
    return trace


def _crowd(chance: random.Random, trace: Trace, root: int, count: int) -> Iterator[Span]:
    kinds = (("chat gpt-x", "llm"), ("db.query", "tool"), ("embed", "embedding"), ("parse", ""))
    at = 0.0
    group = item = root
    while len(trace.spans) < count:
        number = len(trace.spans)
        if number % 100 == 1:
            group = number
            yield Span(f"page {number // 100}", at, 90, root, "chain")
        elif number % 10 == 1:
            item = number
            yield Span(f"document {number // 10 % 7}", at, 9, group, "retriever")
        else:
            name, kind = kinds[number % 4]
            failed = chance.random() < 0.003
            yield Span(name, at + 0.2 * chance.random(), 0.05 + 5 * chance.random(), item, kind, 2 if failed else 0)
        at += 0.9


def _sentence(chance: random.Random, words: int) -> str:
    return " ".join(chance.choice(WORDS) for _ in range(words)).capitalize() + "."


def _chat(chance: random.Random, start: float, duration: float | None, parent: int, model: str, turn: int) -> Span:
    tool = chance.choice(TOOLS)
    system = "You are a careful research assistant.\nAnswer in two sentences, and name your sources."
    conversation: list[dict[str, Any]] = [
        {"role": "system", "parts": [{"type": "text", "content": system}]},
        {"role": "user", "parts": [{"type": "text", "content": _sentence(chance, 9)}]},
    ]
    for i in range(turn):
        wanted = {"q": _sentence(chance, 3), "limit": 5}
        found = {"hits": [{"title": _sentence(chance, 4), "score": round(chance.random(), 3)} for _ in range(2)]}
        call = {"type": "tool_call", "id": f"call_{i}", "name": tool, "arguments": wanted}
        conversation.append({"role": "assistant", "parts": [call]})
        answer = {"type": "tool_call_response", "id": f"call_{i}", "response": found}
        conversation.append({"role": "tool", "parts": [answer]})
    said = [
        {"role": "assistant", "parts": [{"type": "text", "content": _sentence(chance, 40)}], "finish_reason": "stop"}
    ]
    tokens = (chance.randrange(300, 4000), chance.randrange(40, 600))
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": model,
        "gen_ai.usage.input_tokens": tokens[0],
        "gen_ai.input.messages": json.dumps(conversation),
    }
    if duration is not None:
        attributes |= {
            "gen_ai.usage.output_tokens": tokens[1],
            "gen_ai.output.messages": json.dumps(said),
            "gen_ai.usage.cost": round(tokens[0] * 3e-6 + tokens[1] * 15e-6, 6),
        }
    return Span(f"chat {model}", start, duration, parent, "llm", 0, attributes)


STACK = """Traceback (most recent call last):
  File "app/agent.py", line 88, in run
    rows = await db.query(statement, timeout=5.0)
  File "app/db.py", line 41, in query
    async with asyncio.timeout(timeout):
  File "asyncio/timeouts.py", line 115, in __aexit__
    raise TimeoutError from exc_val
TimeoutError: the database did not answer within 5 s"""


def agent(number: int, start_ns: int, *, seed: int = 0, steps: int = 4, is_open: bool = False) -> Trace:
    """A research agent: it plans, talks to a model, calls tools, one of them many times, one of which may fail."""
    chance = random.Random(seed)
    trace = Trace(number, start_ns)
    place = {"session.id": f"s-{seed % 7}", "user.id": f"u-{seed % 5}"}
    question, answer = {"question": _sentence(chance, 12)}, {"answer": _sentence(chance, 20)}
    root = trace.add(Span("agent.run research", 0, 0, None, "agent", 0, place, question, answer))
    at = 12.0
    failed = False
    for step in range(steps):
        begin = at
        parent = trace.add(Span(f"step.{'act' if step else 'plan'}", begin, 0, root, "chain"))
        length = chance.uniform(600, 2400)
        trace.add(_chat(chance, at + 4, length, parent, chance.choice(("gpt-x", "claude-y")), step))
        at += 4 + length
        if step == 1:
            for i in range(12):
                asked, found = {"q": _sentence(chance, 3)}, [_sentence(chance, 5)]
                took = chance.uniform(200, 2000)
                trace.add(Span("execute_tool search_web", at + 3 + i * 60, took, parent, "tool", 0, {}, asked, found))
            at += 2400
        elif step:
            inner = trace.add(Span("retrieve", at + 1, 420, parent, "retriever", input=_sentence(chance, 4)))
            trace.add(Span("embed", at + 3, 90, inner, "embedding"))
            trace.add(Span("GET /search", at + 100, 300, inner, events=(("cache miss", 5, {"shard": 3}),)))
            at += 440
        if step == 2 and seed % 3 == 0:
            failed = True
            trace.add(_failure(at, parent))
            at += 5010
        trace.spans[parent].duration = at - begin
        at += 9
    trace.spans[root].duration = at
    if failed and seed % 2 == 0:
        trace.spans[root].status = 2
    if is_open:
        trace.spans[root].duration = trace.spans[root].output = None
        trace.add(_chat(chance, at, None, root, "claude-y", 2))
    return trace


def _failure(at: float, parent: int) -> Span:
    statement = "select * from documents where body @@ $1"
    exception = {
        "exception.type": "TimeoutError",
        "exception.message": "the database did not answer within 5 s",
        "exception.stacktrace": STACK,
    }
    events: tuple[Event, ...] = (("connection taken", 2, {"pool": 4}), ("exception", 5000, exception))
    return Span("db.query", at, 5000, parent, "tool", 2, {"db.system": "postgresql"}, statement, None, events)
