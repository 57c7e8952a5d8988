"""Which attribute says what: the one table of the dialects that senders speak.

Known are the conventions of OpenTelemetry for generative AI (messages in attributes, and before that in events),
OpenInference, Traceloop (OpenLLMetry) and AgentOps, Langfuse, Logfire, Vercel's AI SDK, and asynctrace's own.

Promises: of several attributes that say the same, the one that stands first in its line of the table counts, whatever
their order in the span; of an attribute that is there twice, the last one. A value that makes no sense for what it
should say is passed over. No value raises.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from ..._contracts import AttributeValue, Span
from .._rows import EMPTY, LONGEST_TOKEN, PREVIEW, SLOT, Facts, token

__all__ = [
    "NO_RANKS",
    "Finding",
    "Known",
    "Rule",
    "facts_from",
    "facts_of",
    "findings",
    "know_by",
    "know_event",
    "rules_for",
    "settle",
    "tokens_of",
]


Finding: TypeAlias = tuple[int, int, Any]
"""What one attribute says: (field of `Facts`, rank, value). Of a field's findings the one with the lowest rank counts."""
Known: TypeAlias = tuple[tuple[bytes, ...], tuple[Finding, ...]]
"""Of one attribute: its search tokens, and what it says."""

NO_RANKS: Final = (-1, *[10**9] * (len(Facts._fields) - 1))
"""Of nothing found yet. No finding is about the first field, the tokens: 0 is a slot that takes nothing."""

# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────

TYPES: Final = {
    "chat": "llm",
    "completion": "llm",
    "text_completion": "llm",
    "generate_content": "llm",
    "generation": "llm",
    "embeddings": "embedding",
    "execute_tool": "tool",
    "invoke_agent": "agent",
    "create_agent": "agent",
    "invoke_workflow": "chain",
    "workflow": "chain",
    "task": "chain",
    "rerank": "reranker",
    "span": "",
    "unknown": "",
}
"""What other conventions call the types of OpenInference. What is not here keeps its name."""

LONGEST_NAME: Final = 200
"""Characters of a type, model, session or user: a list shows them."""
LONGEST_PARSED: Final = 32 * 1024
"""Characters of a conversation that is read for its preview; the beginning of a longer one is shown as it is."""
JSON_BEGINS: Final = frozenset("[{ \t\r\n")
"""A list or an object, or white space before it (RFC 8259)."""
MESSAGES_IN: Final = ("messages", "choices", "generations", "message", "kwargs")
ARGUMENTS_IN: Final = ("arguments", "args", "input")
DEEPEST_MESSAGE: Final = 8
"""Levels."""
MOST_TOKENS: Final = 2**53
"""More are no count of tokens: it is also where JavaScript's integers end."""
MOST_ELEMENTS: Final = 32
"""Elements of an array that have a search token."""

Reader: TypeAlias = Callable[[AttributeValue], Any]
"""From an attribute's value to that of the fact; the fact's default for a value that makes no sense."""


def _name(value: AttributeValue) -> str:
    return value[:LONGEST_NAME] if isinstance(value, str) else ""


def _type(value: AttributeValue) -> str:
    name = _name(value).lower()
    return TYPES.get(name, name)


def _count(value: AttributeValue) -> int:
    if type(value) is int:
        return value if 0 < value < MOST_TOKENS else 0
    number = _amount(value)
    return int(number) if number < MOST_TOKENS else 0


def _amount(value: AttributeValue) -> float:
    if type(value) is float:
        return value if 0 < value < math.inf else 0
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return 0
    try:
        number = float(value[:40] if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return 0
    return number if math.isfinite(number) and number > 0 else 0


def _is(expected: str) -> Reader:
    return lambda value: value == expected


def _said(value: AttributeValue) -> str:
    """A preview: of a conversation what was said last, of anything else its beginning."""
    text = value if isinstance(value, str) else _json(value)
    if text[:1] in JSON_BEGINS and len(text) <= LONGEST_PARSED and ('"role"' in text or '"lc"' in text):
        text = _last_message(text) or text
    return text[:PREVIEW]


def _json(value: AttributeValue) -> str:
    if value is None or isinstance(value, bytes):
        return ""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        return ""


def _last_message(text: str) -> str:
    try:
        conversation = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return ""
    return _last_words(conversation, DEEPEST_MESSAGE)


def _last_words(conversation: Any, deepest: int) -> str:
    """Of messages, which lie in lists, or under the name that an API's request or answer has for them."""
    if isinstance(conversation, list):
        return next(filter(None, (_last_words(each, deepest - 1) for each in reversed(conversation) if deepest)), "")
    if not isinstance(conversation, dict):
        return ""
    inside = (conversation.get(name) for name in MESSAGES_IN if deepest)
    found = (_last_words(each, deepest - 1) for each in inside if isinstance(each, list | dict))
    return next(filter(None, found), "") or _words(conversation)


def _words(message: dict[str, Any]) -> str:
    """The text of a message: `content` (text, or a list of parts), or `parts`; else the tools that it calls."""
    content = message.get("content") or message.get("parts")
    if isinstance(content, list):
        parts = (
            part.get("text") or part.get("content") or part.get("response")
            for part in content
            if isinstance(part, dict)
        )
        text = " ".join(part for part in parts if isinstance(part, str))
        return text or _calls(content)
    return content if isinstance(content, str) else _calls(message.get("tool_calls"))


def _calls(parts: Any) -> str:
    """`name(arguments)` of each call of a tool."""
    calls = (
        (part.get("function") or part for part in parts if isinstance(part, dict)) if isinstance(parts, list) else ()
    )
    return " ".join(filter(None, map(_call, calls)))


def _call(function: Any) -> str:
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        return ""
    given = next((function[key] for key in ARGUMENTS_IN if key in function), "")
    return f"{name}({given if isinstance(given, str) else _json(given)})"


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────

TABLE: Final[tuple[tuple[str, Reader, tuple[str, ...]], ...]] = (
    ("ending", _name, ("asynctrace.ending",)),
    ("is_open", _is("open"), ("asynctrace.state",)),
    ("is_open", _is("pending_span"), ("logfire.span_type",)),
    ("dropped", _count, ("asynctrace.dropped_spans",)),
    (
        "type",
        _type,
        (
            "openinference.span.kind",
            "langfuse.observation.type",
            "gen_ai.operation.name",
            "traceloop.span.kind",
            "agentops.span.kind",
            "llm.request.type",
        ),
    ),
    (
        "model",
        _name,
        (
            "gen_ai.response.model",
            "gen_ai.request.model",
            "llm.model_name",
            "embedding.model_name",
            "langfuse.observation.model.name",
            "ai.model.id",
            "llm.response.model",
            "llm.request.model",
        ),
    ),
    (
        "session",
        _name,
        (
            "session.id",
            "gen_ai.conversation.id",
            "langfuse.session.id",
            "traceloop.association.properties.session_id",
        ),
    ),
    (
        "user",
        _name,
        ("user.id", "langfuse.user.id", "enduser.id", "traceloop.association.properties.user_id"),
    ),
    (
        "input_tokens",
        _count,
        (
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.prompt_tokens",
            "llm.token_count.prompt",
            "llm.usage.prompt_tokens",
            "ai.usage.inputTokens",
            "ai.usage.promptTokens",
        ),
    ),
    (
        "output_tokens",
        _count,
        (
            "gen_ai.usage.output_tokens",
            "gen_ai.usage.completion_tokens",
            "llm.token_count.completion",
            "llm.usage.completion_tokens",
            "ai.usage.outputTokens",
            "ai.usage.completionTokens",
        ),
    ),
    (
        "cost",
        _amount,
        (
            "gen_ai.usage.cost",
            "gen_ai.usage.total_cost",
            "llm.cost.total",
            "llm.usage.total_cost",
            "operation.cost",
        ),
    ),
    (
        "input",
        _said,
        (
            "input.value",
            "langfuse.observation.input",
            "gen_ai.input.messages",
            "gen_ai.tool.call.arguments",
            "traceloop.entity.input",
            "gen_ai.prompt",
            "pydantic_ai.all_messages",
            "all_messages_events",
            "request_data",
            "tool_arguments",
            "ai.prompt.messages",
            "ai.prompt",
            "langfuse.trace.input",
        ),
    ),
    (
        "output",
        _said,
        (
            "output.value",
            "langfuse.observation.output",
            "gen_ai.output.messages",
            "gen_ai.tool.call.result",
            "traceloop.entity.output",
            "gen_ai.completion",
            "final_result",
            "response_data",
            "tool_response",
            "ai.response.text",
            "langfuse.trace.output",
        ),
    ),
)
"""A field of `Facts`, how its value is read, and the attributes that say it, the preferred one first."""

NUMBERED: Final = (
    (re.compile(r"gen_ai\.prompt\.(\d{1,4})\.content"), "input"),
    (re.compile(r"llm\.input_messages\.(\d{1,4})\.message\.content"), "input"),
    (re.compile(r"gen_ai\.completion\.(\d{1,4})\.content"), "output"),
    (re.compile(r"llm\.output_messages\.(\d{1,4})\.message\.content"), "output"),
)
"""Conversations with an attribute for each message: the last message counts."""
OF_A_KIND: Final = re.compile(r"agentops\.[a-z]+\.(input|output)")
"""AgentOps puts the span's kind into the name."""
AFTER_THE_TABLE: Final = 100_000

DETAILS: Final = {
    "langfuse.observation.usage_details": (("input_tokens", "input", _count), ("output_tokens", "output", _count)),
    "langfuse.observation.cost_details": (("cost", "total", _amount),),
}
"""Attributes that are JSON objects: which of their members says what."""
DETAILS_RANK: Final = 50

EVENTS: Final = {
    "gen_ai.content.prompt": ("input", "gen_ai.prompt"),
    "gen_ai.user.message": ("input", "content"),
    "gen_ai.content.completion": ("output", "gen_ai.completion"),
    "gen_ai.choice": ("output", "message"),
}
"""Messages that are events of the span: the field, and the event's attribute with the text."""
EVENTS_RANK: Final = 200_000

Rule: TypeAlias = tuple[int, int, Reader]
"""What an attribute says: the field's number, the rank, how its value is read."""


def _member(name: str, read: Reader) -> Reader:
    """Of an attribute that is a JSON object, as text or as a map."""

    def read_member(value: AttributeValue) -> Any:
        try:
            details = msgspec.json.decode(value) if isinstance(value, str) else value
        except (msgspec.DecodeError, RecursionError):
            return 0
        return read(details.get(name)) if isinstance(details, Mapping) else 0

    return read_member


RULES: Final[dict[str, tuple[Rule, ...]]] = {
    **{key: ((SLOT[field], rank, read),) for field, read, keys in TABLE for rank, key in enumerate(keys)},
    **{
        key: tuple((SLOT[field], DETAILS_RANK, _member(name, read)) for field, name, read in members)
        for key, members in DETAILS.items()
    },
}


def rules_for(key: str) -> tuple[Rule, ...]:
    """What an attribute of this name says."""
    rules = RULES.get(key, ())
    if rules:
        return rules
    for pattern, field in NUMBERED if key.endswith(".content") else ():
        if match := pattern.fullmatch(key):
            return ((SLOT[field], AFTER_THE_TABLE - int(match[1]), _said),)
    match = OF_A_KIND.fullmatch(key)
    return ((SLOT[match[1]], AFTER_THE_TABLE, _said),) if match else ()


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────


def know_by(key: str, rules: tuple[Rule, ...], value: AttributeValue) -> Known:
    """What one attribute says, and by which tokens it is found; `rules` are those of its key."""
    return tokens_of(key, value), findings(rules, value)


def findings(rules: tuple[Rule, ...], value: AttributeValue) -> tuple[Finding, ...]:
    """What `value` says by these rules."""
    if not rules:
        return ()
    if len(rules) == 1:
        ((slot, rank, read),) = rules
        found = read(value)
        return ((slot, rank, found),) if found else ()
    return tuple((slot, rank, found) for slot, rank, read in rules if (found := read(value)))


def know_event(name: str, attributes: Mapping[str, AttributeValue]) -> tuple[Finding, ...]:
    """What an event of the span says."""
    told = EVENTS.get(name)
    if told is None:
        return ()
    field, key = told
    text = _said(attributes.get(key) or attributes.get("content"))
    return ((SLOT[field], EVENTS_RANK, text),) if text else ()


def tokens_of(key: str, value: AttributeValue) -> tuple[bytes, ...]:
    """The search tokens of an attribute: one of a scalar, one of each scalar in an array, none of longer texts."""
    if isinstance(value, str):
        return (token(key, value),) if len(value) <= LONGEST_TOKEN else ()
    if isinstance(value, bool):
        return (token(key, "true" if value else "false"),)
    if isinstance(value, int | float):
        return (token(key, repr(value)),)
    if isinstance(value, list):
        return tuple(
            each for item in value[:MOST_ELEMENTS] if not isinstance(item, list) for each in tokens_of(key, item)
        )
    return ()


def facts_from(tokens: tuple[bytes, ...], found: Iterable[Finding], events: int = 0, links: int = 0) -> Facts:
    """Everything that was found in one span."""
    facts, ranks = [*EMPTY], [*NO_RANKS]
    settle(facts, ranks, found)
    facts[SLOT["tokens"]], facts[SLOT["events"]], facts[SLOT["links"]] = tokens, events, links
    return Facts._make(facts)


def settle(facts: list[Any], ranks: list[int], found: Iterable[Finding]) -> None:
    """Of each field the finding with the lowest rank goes into `facts`, its rank into `ranks`; of equal ones the last."""
    for slot, rank, value in found:
        if rank <= ranks[slot]:
            ranks[slot] = rank
            facts[slot] = value


def facts_of(span: Span) -> Facts:
    """What a decoded span says, without search tokens."""
    by_attributes = (findings(rules_for(key), value) for key, value in span.attributes.items())
    by_events = (know_event(event.name, event.attributes) for event in span.events)
    found = (each for several in (*by_attributes, *by_events) for each in several)
    return facts_from((), found, len(span.events), len(span.links))
