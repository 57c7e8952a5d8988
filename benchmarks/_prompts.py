"""Spans of an agent with prompts in them, about 850 bytes each, the same for the same seed, made quickly.

A trace is a conversation: eight spans, of which three are calls of a model. The input of each call begins with the same
instructions and repeats what was said before; what is new is drawn from 4,000 words as often as a language uses its words
(the n-th word 1/n times as often as the first). One attribute has 20,000 values, so that it can be searched for.
"""

from __future__ import annotations

import json
import random
from typing import NamedTuple

from asynctrace._contracts import Resource, Scope
from asynctrace.collector._rows import Facts, Origin, Received, SpanRow, token
from asynctrace.wire import encode_attribute, encode_resource, encode_scope

__all__ = ["CUSTOMERS", "SPANS_OF_TRACE", "Conversation", "Prompts"]

CUSTOMERS = 20_000
SPANS_OF_TRACE = 8
STEPS = (
    ("agent.run", ""), ("step.plan", ""), ("chat gpt-x", "llm"), ("execute_tool search", "tool"),
    ("db.query", ""), ("chat gpt-x", "llm"), ("render", ""), ("chat claude-y", "llm"),
)  # fmt: skip
START_NS = 1_700_000_000 * 10**9
BETWEEN_TRACES_NS = 100_000_000
POOL = 1500
"""Conversations whose words are drawn; after that many they come again, each time with other ids, times and customers."""
LETTERS = "etaoinshrdlucmfwypvbgk"
SAID = 190
"""Characters."""
INSTRUCTIONS = 230

MODELS = {"chat gpt-x": "gpt-x", "chat claude-y": "claude-y"}


class Step(NamedTuple):
    """One span of a conversation, but ids, times and customer."""

    name: str
    attributes: bytes
    facts: Facts
    as_json: str


Conversation = tuple[Step, ...]


class Prompts:
    """Gives requests of `spans` spans, for ever."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._traces = 0
        words = ["".join(self._random.choices(LETTERS, k=self._random.randint(2, 9))) for _ in range(4000)]
        self._words = self._random.choices(words, [1 / n for n in range(1, 4001)], k=120_000)
        self._instructions = self._text(INSTRUCTIONS)
        self._pool = [self._conversation() for _ in range(POOL)]
        scope = encode_scope(Scope(name="prompts", version="1"))
        self._origins = [
            Origin(
                encode_resource(Resource(attributes={"service.name": service, "host.name": "a", "process.pid": 7})),
                scope,
                service,
                (token("service.name", service), token("host.name", "a"), token("process.pid", "7")),
            )
            for service in ("shop", "bank")
        ]
        self.as_json: list[str] = []
        """The attributes of the last request's spans."""

    def request(self, spans: int = 4096) -> Received:
        """The next spans, whole traces."""
        rows: list[SpanRow] = []
        self.as_json = []
        while len(rows) < spans:
            rows += self._trace()
        return Received(origins=self._origins, rows=rows)

    def _trace(self) -> list[SpanRow]:
        rnd = self._random
        trace_id, parent = rnd.randbytes(16), b""
        at = START_NS + self._traces * BETWEEN_TRACES_NS
        service = self._traces & 1
        self._traces += 1
        rows = []
        for step in self._pool[self._traces % POOL]:
            span_id = rnd.randbytes(8)
            end = at + int(rnd.lognormvariate(16, 1.5))
            status = 2 if rnd.random() < 0.02 else 1
            customer = f"c{rnd.randrange(CUSTOMERS)}"
            message = b"".join(
                (
                    b"\x0a\x10", trace_id, b"\x12\x08", span_id, b"\x22\x08" if parent else b"", parent,
                    b"\x2a", bytes([len(step.name)]), step.name.encode(), b"\x30\x01",
                    b"\x39", at.to_bytes(8, "little"), b"\x41", end.to_bytes(8, "little"),
                    step.attributes, encode_attribute(b"\x4a", "customer.id", customer), b"\x7a\x02\x18", bytes([status]),
                )
            )  # fmt: skip
            facts = step.facts._replace(tokens=(*step.facts.tokens, token("customer.id", customer)))
            rows.append(SpanRow(trace_id, span_id, parent, step.name, 1, at, end, status, service, message, facts))
            self.as_json.append(f'{step.as_json}"customer.id":"{customer}"}}')
            parent = parent or span_id
            at += 1_000_000
        return rows

    def _conversation(self) -> Conversation:
        session = f"s{self._random.randrange(3000)}"
        said = [self._text(SAID)]
        steps = []
        for name, kind in STEPS:
            given = f"{self._instructions} {' '.join(said)}"[:600] if kind == "llm" else said[-1]
            said.append(self._text(SAID))
            steps.append(self._step(name, kind, session, given, said[-1]))
        return tuple(steps)

    def _step(self, name: str, kind: str, session: str, given: str, answer: str) -> Step:
        values: dict[str, str | int] = {"input.value": given, "output.value": answer, "session.id": session}
        values["deployment.environment.name"] = "production"
        if kind == "llm":
            values["gen_ai.request.model"] = MODELS[name]
            values["gen_ai.usage.input_tokens"] = self._random.randrange(3000)
            values["gen_ai.usage.output_tokens"] = self._random.randrange(400)
        if kind:
            values["openinference.span.kind"] = kind.upper()
        facts = Facts(
            tokens=tuple(token(key, str(value)) for key, value in values.items() if len(str(value)) <= 128),
            type=kind,
            input=given[:200],
            output=answer[:200],
            session=session,
            model=str(values.get("gen_ai.request.model", "")),
            input_tokens=int(values.get("gen_ai.usage.input_tokens", 0)),
            output_tokens=int(values.get("gen_ai.usage.output_tokens", 0)),
            cost=0.01 if kind == "llm" else 0.0,
        )
        attributes = b"".join(encode_attribute(b"\x4a", key, value) for key, value in values.items())
        return Step(name, attributes, facts, json.dumps(values)[:-1] + ",")

    def _text(self, size: int) -> str:
        first = self._random.randrange(len(self._words) - size)
        return " ".join(self._words[first : first + size // 2])[:size]
