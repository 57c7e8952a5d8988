"""What a span is, in the words of each dialect: type, model, tokens, cost, session, user, what went in and what came out."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrace._contracts import AttributeValue, Event
from asynctrace.collector._rows import EMPTY, LONGEST_TOKEN, PREVIEW, Facts, token
from asynctrace.collector.receiving import _dialects as dialects
from asynctrace.collector.receiving._intake import Intake
from asynctrace.collector.receiving._scan import Scanner
from asynctrace.wire import encode_span

from ..wire import _official as official
from .traffic import span


def facts_of(attributes: dict[str, AttributeValue], *events: Event) -> Facts:
    """As a span with these attributes gives them, seen for the first time and out of memory."""
    message = encode_span(span(attributes=attributes, events=events))
    scanner, intake = Scanner(), Intake()
    scanner.spans([message], 0, intake)
    scanner.spans([message], 0, intake)
    first, second = (row.facts for row in intake.rows)
    assert first == second
    return first


def said(facts: Facts) -> dict[str, object]:
    """What differs from a span that says nothing."""
    return {
        name: value for name, value in facts._asdict().items() if value != getattr(EMPTY, name) and name != "tokens"
    }


USER = [{"role": "user", "content": "compare vector dbs"}]
PARTS = [{"role": "user", "parts": [{"type": "text", "content": "compare vector dbs"}]}]
ANSWER = [{"role": "assistant", "parts": [{"type": "text", "content": "it depends"}]}]

CHAT = {"type": "llm", "model": "m-1", "input_tokens": 812, "output_tokens": 64}
TALK = {"input": "compare vector dbs", "output": "it depends"}
WHO = {"session": "s1", "user": "u1"}

DIALECTS: dict[str, tuple[dict[str, AttributeValue], dict[str, object]]] = {
    "asynctrace": (
        {
            "openinference.span.kind": "LLM",
            "gen_ai.request.model": "m-1",
            "gen_ai.usage.input_tokens": 812,
            "gen_ai.usage.output_tokens": 64,
            "gen_ai.usage.cost": 0.05,
            "input.value": "compare vector dbs",
            "output.value": "it depends",
            "session.id": "s1",
            "user.id": "u1",
            "asynctrace.ending": "timeout",
        },
        {**CHAT, **TALK, **WHO, "cost": 0.05, "ending": "timeout"},
    ),
    "GenAI": (
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "m",
            "gen_ai.response.model": "m-1",
            "gen_ai.usage.input_tokens": 812,
            "gen_ai.usage.output_tokens": 64,
            "gen_ai.input.messages": json.dumps([{"role": "system", "parts": []}, *PARTS]),
            "gen_ai.output.messages": json.dumps(ANSWER),
            "gen_ai.conversation.id": "s1",
            "enduser.id": "u1",
        },
        {**CHAT, **TALK, **WHO},
    ),
    "GenAI tool": (
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.call.arguments": '{"q":"tea"}',
            "gen_ai.tool.call.result": "[]",
        },
        {"type": "tool", "input": '{"q":"tea"}', "output": "[]"},
    ),
    "OpenInference": (
        {
            "openinference.span.kind": "LLM",
            "llm.model_name": "m-1",
            "llm.token_count.prompt": 812,
            "llm.token_count.completion": 64,
            "llm.cost.total": 0.05,
            "llm.input_messages.0.message.role": "system",
            "llm.input_messages.0.message.content": "You are …",
            "llm.input_messages.1.message.content": "compare vector dbs",
            "llm.output_messages.0.message.content": "it depends",
            "session.id": "s1",
            "user.id": "u1",
        },
        {**CHAT, **TALK, **WHO, "cost": 0.05},
    ),
    "Traceloop": (
        {
            "llm.request.type": "chat",
            "gen_ai.request.model": "m-1",
            "gen_ai.usage.prompt_tokens": 812,
            "gen_ai.usage.completion_tokens": 64,
            "gen_ai.prompt.0.role": "system",
            "gen_ai.prompt.0.content": "You are …",
            "gen_ai.prompt.1.content": "compare vector dbs",
            "gen_ai.completion.0.content": "it depends",
            "traceloop.association.properties.session_id": "s1",
            "traceloop.association.properties.user_id": "u1",
        },
        {**CHAT, **TALK, **WHO},
    ),
    "Traceloop workflow": (
        {
            "traceloop.span.kind": "workflow",
            "traceloop.entity.input": '{"a":1}',
            "traceloop.entity.output": '{"b":2}',
        },
        {"type": "chain", "input": '{"a":1}', "output": '{"b":2}'},
    ),
    "AgentOps": (
        {
            "agentops.span.kind": "agent",
            "agentops.entity.input": "compare vector dbs",
            "agentops.entity.output": "it depends",
            "gen_ai.usage.total_cost": "0.05",
        },
        {**TALK, "type": "agent", "cost": 0.05},
    ),
    "Langfuse": (
        {
            "langfuse.observation.type": "generation",
            "langfuse.observation.model.name": "m-1",
            "langfuse.observation.usage_details": '{"input":812,"output":64,"total":876}',
            "langfuse.observation.cost_details": '{"input":0.03,"output":0.02,"total":0.05}',
            "langfuse.observation.input": json.dumps(USER),
            "langfuse.observation.output": json.dumps({"role": "assistant", "content": "it depends"}),
            "session.id": "s1",
            "user.id": "u1",
        },
        {**CHAT, **TALK, **WHO, "cost": 0.05},
    ),
    "Langfuse, earlier": (
        {"langfuse.session.id": "s1", "langfuse.user.id": "u1", "langfuse.trace.input": '"tea"'},
        {**WHO, "input": '"tea"'},
    ),
    "Logfire": (
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.response.model": "m-1",
            "gen_ai.usage.input_tokens": 812,
            "gen_ai.usage.output_tokens": 64,
            "operation.cost": 0.05,
            "request_data": json.dumps({"messages": USER, "model": "m"}),
            "response_data": json.dumps({"message": {"role": "assistant", "content": "it depends"}}),
        },
        {**CHAT, **TALK, "cost": 0.05},
    ),
    "Pydantic AI": (
        {
            "gen_ai.operation.name": "invoke_agent",
            "pydantic_ai.all_messages": json.dumps(PARTS),
            "final_result": "it depends",
        },
        {**TALK, "type": "agent"},
    ),
    "Vercel AI": (
        {
            "ai.model.id": "m-1",
            "ai.usage.promptTokens": 812,
            "ai.usage.completionTokens": 64,
            "ai.prompt.messages": json.dumps(USER),
            "ai.response.text": "it depends",
        },
        {**TALK, "model": "m-1", "input_tokens": 812, "output_tokens": 64},
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_is_understood(dialect: str) -> None:
    attributes, wanted = DIALECTS[dialect]
    assert said(facts_of(attributes)) == wanted


def test_the_messages_of_the_earlier_generation_are_events() -> None:
    def event(name: str, **attributes: AttributeValue) -> Event:
        return Event(time_ns=1, name=name, attributes={key.replace("_ai_", "_ai."): v for key, v in attributes.items()})

    first = facts_of(
        {},
        event("gen_ai.content.prompt", gen_ai_prompt=json.dumps(USER)),
        event("gen_ai.content.completion", gen_ai_completion="it depends"),
    )
    second = facts_of(
        {},
        event("gen_ai.user.message", content="compare vector dbs"),
        event("gen_ai.choice", message=json.dumps(ANSWER[0])),
        event("something else", content="x"),
    )
    assert said(first) == {**TALK, "events": 2}
    assert said(second) == {**TALK, "events": 3}


@pytest.mark.parametrize("attributes", [attributes for attributes, _ in DIALECTS.values()], ids=DIALECTS)
def test_the_order_of_attributes_does_not_count(attributes: dict[str, AttributeValue]) -> None:
    backwards = dict(reversed(attributes.items()))
    assert said(facts_of(attributes)) == said(facts_of(backwards))


def test_the_preferred_name_counts_in_any_order() -> None:
    for one, other in itertools.permutations([("gen_ai.response.model", "right"), ("gen_ai.request.model", "wrong")]):
        assert facts_of(dict([one, other])).model == "right"


def test_of_a_conversation_the_last_words_are_shown() -> None:
    talk = [{"role": "system", "content": "You are …"}, *USER, {"role": "tool", "content": None}]
    assert facts_of({"input.value": json.dumps(talk)}).input == "compare vector dbs"
    assert facts_of({"input.value": json.dumps({"messages": talk})}).input == "compare vector dbs"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        '{"role"',
        '[{"role":1}]',
        '{"role":"x"}',
        '[[{"role":"x"}]]',
        '{"messages":{"role":1}}',
        "[" * 5000 + '"role"',
    ],
    ids=["empty", "plain", "cut", "number", "no words", "nested", "no list", "deep"],
)
def test_what_is_no_conversation_is_shown_as_it_is(text: str) -> None:
    assert facts_of({"input.value": text}).input == text[:PREVIEW]


def test_previews_are_short_and_hold_no_half_characters() -> None:
    facts = facts_of({"input.value": "é" * 100_000, "output.value": "🙂" * 300})
    assert (facts.input, facts.output) == ("é" * PREVIEW, "🙂" * PREVIEW)


@pytest.mark.parametrize(
    "nonsense", [-1, True, None, float("nan"), float("inf"), "many", [1], {"a": 1}, b"5", 2**62, "1" * 500], ids=str
)
def test_a_number_that_makes_no_sense_is_passed_over(nonsense: AttributeValue) -> None:
    facts = facts_of({"gen_ai.usage.input_tokens": nonsense, "gen_ai.usage.prompt_tokens": 7})
    assert facts.input_tokens == 7
    cost = facts_of({"gen_ai.usage.cost": nonsense}).cost
    assert cost in (0, 2**62, float("1" * 40))


def test_numbers_may_be_texts_and_values_arrays() -> None:
    facts = facts_of({"gen_ai.usage.input_tokens": "812", "gen_ai.usage.cost": "0.5", "input.value": ["a", {"b": 1}]})
    assert (facts.input_tokens, facts.cost, facts.input) == (812, 0.5, '["a",{"b":1}]')


# ── search tokens ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("Tea", ["tea"]),
        ("Ärger", ["ärger"]),
        ("", [""]),
        ("x" * LONGEST_TOKEN, ["x" * LONGEST_TOKEN]),
        ("é" * LONGEST_TOKEN, ["é" * LONGEST_TOKEN]),
        ("x" * (LONGEST_TOKEN + 1), []),
        ("é" * (LONGEST_TOKEN + 1), []),
        (0, ["0"]),
        (127, ["127"]),
        (128, ["128"]),
        (16384, ["16384"]),
        (-5, ["-5"]),
        (2**63 - 1, [str(2**63 - 1)]),
        (True, ["true"]),
        (0.25, ["0.25"]),
        (["a", 1, ["b"], None, {"c": "d"}], ["a", "1"]),
        ({"a": "b"}, []),
        (b"tea", []),
        (None, []),
    ],
    ids=lambda value: str(value)[:20],
)
def test_each_short_value_has_a_token(value: AttributeValue, texts: list[str]) -> None:
    warm = {"k.1": "first"}  # so that the key is known when the value comes
    scanner, intake = Scanner(), Intake()
    for attributes in (warm, {"k.1": value}, {"k.1": value}):
        scanner.spans([encode_span(span(attributes=attributes))], 0, intake)
    _, cold, again = (row.facts.tokens for row in intake.rows)
    assert list(cold) == list(again) == [token("k.1", text) for text in texts]


@given(st.dictionaries(official.keys, official.values, max_size=5))
@settings(max_examples=100, deadline=None)
def test_every_short_text_and_number_is_found_by_its_token(attributes: dict[str, AttributeValue]) -> None:
    tokens = set(facts_of(attributes).tokens)
    for key, value in attributes.items():
        if isinstance(value, str) and len(value) <= LONGEST_TOKEN:
            assert token(key, value) in tokens
        elif isinstance(value, int) and not isinstance(value, bool):
            assert token(key, str(value)) in tokens


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_dialect_that_is_forgotten_is_caught(dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attributes, wanted = DIALECTS[dialect]
    for key in dialects.RULES.keys() & attributes.keys():
        monkeypatch.delitem(dialects.RULES, key)
    monkeypatch.setattr(dialects, "NUMBERED", ())
    assert said(facts_of(attributes)) != wanted


def test_a_table_in_which_the_last_name_counts_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    backwards = {key: tuple((slot, -rank, read) for slot, rank, read in rules) for key, rules in dialects.RULES.items()}
    monkeypatch.setattr(dialects, "RULES", backwards)
    with pytest.raises(AssertionError):
        test_the_preferred_name_counts_in_any_order()
