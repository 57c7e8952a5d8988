"""Messages of chat models, from the shapes that programs have them in to the one of the semantic conventions.

    {"role": "user", "content": "Which tea?"}                          a chat API's message
    {"role": "user", "parts": [{"type": "text", "content": "…"}]}      the same as the conventions want it
    ChatCompletionMessage(role="assistant", content="Sencha.")         what a client's library has for it: any class with
                                                                       fields, which are read without running its code

- Nothing is believed of what is given: what has no known shape, or raises, becomes a part of its own, as it is.
- The work is bounded by `MOST_MESSAGES` and `MOST_PARTS`; how long a text may be is for the capture to say.

Source: OpenTelemetry semantic conventions, "Generative AI", `gen_ai.input.messages`; OpenInference, `llm.input_messages`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from ._capture_types import Kind, fields_of, kind_of

__all__ = ["MOST_FLATTENED", "MOST_MESSAGES", "MOST_PARTS", "fields_in", "flattened", "listed", "normalized"]

MOST_MESSAGES = 200
"""The newest; a capture visits 10,000 items by default, and would keep the oldest."""
MOST_PARTS = 40
_MOST_FIELDS = 64
MOST_FLATTENED = 64
"""Messages that are also written one attribute for each field; the newest, for a page shows the end of a long chat first."""

Message = dict[str, Any]


def normalized(messages: object, role: str) -> list[Message]:
    """`messages` as a list of `{"role": …, "parts": […]}`; `role` is that of those which name none."""
    newest, left_out = _newest(messages)
    kept = [_message(message, role) for message in newest]
    return [_left_out(left_out), *kept] if left_out else kept


def _newest(messages: object) -> tuple[Sequence[Any], int]:
    """And how many there were before them."""
    if isinstance(messages, Sequence) and not isinstance(messages, str):
        with suppress(Exception):  # the sequence's own code
            return list(messages[-MOST_MESSAGES:]), max(0, len(messages) - MOST_MESSAGES)
    return [messages], 0


def _left_out(count: int) -> Message:
    return {"role": "system", "parts": [{"type": "text", "content": f"[asynctrace: {count} messages left out]"}]}


def _message(message: object, role: str) -> Message:
    fields = fields_in(message)
    if fields is None or ("role" not in fields and not isinstance(message, Mapping)):
        return {"role": role, "parts": [_part(message)]}
    made: Message = {"role": fields.get("role", role), "parts": list(islice(_parts(fields), MOST_PARTS))}
    return made | {key: fields[key] for key in ("name", "finish_reason") if key in fields}


def fields_in(value: object) -> dict[str, Any] | None:
    """Of a mapping, a dataclass, a model of pydantic and the like; None for anything else, and where its own code raises."""
    if type(value) is dict:
        return value
    if isinstance(value, Mapping):
        with suppress(Exception):  # the mapping's own code
            return dict(islice(value.items(), _MOST_FIELDS))
        return None
    return dict(islice(fields_of(value), _MOST_FIELDS)) if kind_of(type(value)) is Kind.FIELDS else None


def listed(value: object) -> Sequence[Any]:
    """A sequence that is no text, as far as it is looked at; anything else by itself, and so one whose own code raises."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        with suppress(Exception):
            return list(islice(value, MOST_PARTS))
    return [value]


def _parts(message: Message) -> Iterator[Any]:
    if "parts" in message:
        yield from map(_plain, listed(message["parts"]))
        return
    content, call_id = message.get("content"), message.get("tool_call_id")
    if call_id is not None:
        yield {"type": "tool_call_response", "id": call_id, "response": content}
    elif content is not None:
        yield from map(_part, listed(content))
    calls = message.get("tool_calls")
    if calls is not None:
        yield from map(_tool_call, listed(calls))


def _plain(part: object) -> Any:
    """One of the conventions' own parts."""
    return fields_in(part) or part


def _part(part: object) -> Any:
    if isinstance(part, str):
        return {"type": "text", "content": part}
    fields = fields_in(part)
    if fields is None:
        return part
    return {"type": "text", "content": fields["text"]} if fields.get("type") == "text" and "text" in fields else fields


def _tool_call(call: object) -> Any:
    fields = fields_in(call)
    if fields is None:
        return call
    named = fields_in(fields.get("function")) or fields
    return {"type": "tool_call", "id": fields.get("id"), "name": named.get("name"), "arguments": named.get("arguments")}


def flattened(prefix: str, messages: Sequence[Message]) -> Iterator[tuple[str, object]]:
    """The newest of `messages` (normalized) as pairs of key and value: `llm.input_messages.0.message.role`, …"""
    for index, message in enumerate(messages[-MOST_FLATTENED:]):
        at = f"{prefix}.{index}.message"
        parts = [part for part in message["parts"] if type(part) is dict]
        yield f"{at}.role", message["role"]
        texts = [part["content"] for part in parts if _is_text(part)]
        if texts:
            yield f"{at}.content", "\n".join(texts)
        calls = [part for part in parts if part.get("type") == "tool_call"]
        for number, call in enumerate(calls):
            yield f"{at}.tool_calls.{number}.tool_call.id", call.get("id")
            yield f"{at}.tool_calls.{number}.tool_call.function.name", call.get("name")
            yield f"{at}.tool_calls.{number}.tool_call.function.arguments", call.get("arguments")
        for part in parts:
            if part.get("type") == "tool_call_response":
                yield f"{at}.tool_call_id", part.get("id")
                yield f"{at}.content", part.get("response")


def _is_text(part: Message) -> bool:
    return part.get("type") == "text" and isinstance(part.get("content"), str)
