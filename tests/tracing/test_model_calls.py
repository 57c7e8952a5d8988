"""What a component says about models and tools, in the words that the field's pages read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest

from asynctrace import ALWAYS_OFF
from asynctrace.testing import ManualClock
from asynctrace.tracing import ComponentTraceContext, _messages

from .recording import Recording

QUESTION = [
    {"role": "system", "content": "You are brief."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "Which tea?"}, {"type": "image_url", "image_url": {"url": "u"}}],
    },
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"q":"tea"}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "Sencha"},
]


def attributes_of(calls: Any, **options: Any) -> dict[str, Any]:
    subject = Recording(**options)
    with subject.tracer.trace_component("chat", type="llm") as component:
        calls(component)
    return dict(subject.one("chat").attributes)


def test_a_model_is_named_in_both_conventions() -> None:
    def calls(component: ComponentTraceContext) -> None:
        component.set_model(
            "gpt-x",
            provider="openai",
            parameters={"temperature": 0.2, "max_tokens": 100, "service_tier": "flex"},
            response_model="gpt-x-0613",
            response_id="r-1",
            finish_reasons=["stop"],
        )

    found = attributes_of(calls)
    assert found["gen_ai.request.model"] == "gpt-x"
    assert found["gen_ai.response.model"] == found["llm.model_name"] == "gpt-x-0613"
    assert found["gen_ai.provider.name"] == found["gen_ai.system"] == found["llm.provider"] == "openai"
    assert (found["gen_ai.operation.name"], found["gen_ai.response.id"]) == ("chat", "r-1")
    assert list(found["gen_ai.response.finish_reasons"]) == ["stop"]
    assert (found["gen_ai.request.temperature"], found["gen_ai.request.max_tokens"]) == (0.2, 100)
    assert "gen_ai.request.service_tier" not in found
    assert json.loads(found["llm.invocation_parameters"])["service_tier"] == "flex"


@pytest.mark.parametrize(
    ("component_type", "operation"),
    [("llm", "chat"), ("embedding", "embeddings"), ("tool", "execute_tool"), (None, None)],
)
def test_the_operation_follows_from_the_type(component_type: str | None, operation: str | None) -> None:
    subject = Recording()
    with subject.tracer.trace_component("call", type=component_type) as component:
        component.set_model("m")
    assert subject.one("call").attributes.get("gen_ai.operation.name") == operation


def test_usage_is_said_in_both_conventions_and_the_last_call_stays() -> None:
    def calls(component: ComponentTraceContext) -> None:
        component.set_usage(input_tokens=1, cost=1)
        component.set_usage(input_tokens=120, output_tokens=30, cached_tokens=100, reasoning_tokens=10, cost=0.0021)

    found = attributes_of(calls)
    assert found["gen_ai.usage.input_tokens"] == found["llm.token_count.prompt"] == 120
    assert found["gen_ai.usage.output_tokens"] == found["llm.token_count.completion"] == 30
    assert found["llm.token_count.total"] == 150
    assert found["gen_ai.usage.cache_read.input_tokens"] == found["llm.token_count.prompt_details.cache_read"] == 100
    assert found["llm.token_count.completion_details.reasoning"] == 10
    assert found["gen_ai.usage.cost"] == found["llm.cost.total"] == found["operation.cost"] == 0.0021


def test_messages_of_a_chat_api_are_written_as_both_conventions_want_them() -> None:
    found = attributes_of(lambda component: component.set_messages(QUESTION, "Sencha.", system="Be brief."))
    messages = json.loads(found["gen_ai.input.messages"])
    assert messages[0] == {"role": "system", "parts": [{"type": "text", "content": "You are brief."}]}
    assert messages[1]["parts"][0] == {"type": "text", "content": "Which tea?"}
    assert messages[1]["parts"][1]["type"] == "image_url"
    assert messages[2]["parts"] == [{"type": "tool_call", "id": "c1", "name": "search", "arguments": '{"q":"tea"}'}]
    assert messages[3]["parts"] == [{"type": "tool_call_response", "id": "c1", "response": "Sencha"}]
    assert json.loads(found["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Sencha."}]}
    ]
    assert json.loads(found["gen_ai.system_instructions"]) == [{"type": "text", "content": "Be brief."}]
    assert found["llm.input_messages.1.message.role"] == "user"
    assert found["llm.input_messages.1.message.content"] == "Which tea?"
    assert found["llm.input_messages.2.message.tool_calls.0.tool_call.function.name"] == "search"
    assert found["llm.input_messages.2.message.tool_calls.0.tool_call.function.arguments"] == '{"q":"tea"}'
    assert found["llm.input_messages.3.message.tool_call_id"] == "c1"
    assert found["llm.output_messages.0.message.content"] == "Sencha."


@dataclass
class Function:
    name: str
    arguments: str


@dataclass
class Call:
    id: str
    function: Function


@dataclass
class Text:
    text: str
    type: str = "text"


class MappingThatRaises(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("a mapping's own code")

    def __iter__(self) -> Iterator[str]:
        return iter(["role"])

    def __len__(self) -> int:
        return 1


class SequenceThatRaises(Sequence[Any]):
    def __getitem__(self, index: Any) -> Any:
        raise RuntimeError("a sequence's own code")

    def __len__(self) -> int:
        return 3


class Answer(pydantic.BaseModel):
    """As clients of chat APIs have it."""

    role: str = "assistant"
    content: Any = None
    tool_calls: list[Any] | None = None


def check_objects_are_messages() -> None:
    asked = Answer(tool_calls=[Call("c1", Function("search", '{"q":"tea"}'))])
    found = attributes_of(
        lambda c: c.set_messages([asked, Answer(role="user", content=[Text("Which?")])], Answer(content="Sencha."))
    )
    assert json.loads(found["gen_ai.input.messages"]) == [
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "c1", "name": "search", "arguments": '{"q":"tea"}'}],
        },
        {"role": "user", "parts": [{"type": "text", "content": "Which?"}]},
    ]
    assert found["llm.input_messages.0.message.tool_calls.0.tool_call.function.name"] == "search"
    assert (found["llm.output_messages.0.message.role"], found["llm.output_messages.0.message.content"]) == (
        "assistant",
        "Sencha.",
    )


def test_objects_of_a_clients_library_are_messages_too() -> None:
    check_objects_are_messages()


def test_objects_that_are_not_looked_into_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_messages, "fields_in", lambda value: value if isinstance(value, dict) else None)
    with pytest.raises(AssertionError):
        check_objects_are_messages()


@pytest.mark.parametrize(
    "odd",
    [
        [],
        {},
        [None],
        [7, b"x", object()],
        [Text("no role"), Answer(role="user", content=object(), tool_calls=[object(), None])],
        {"role": object(), "content": {"a": object()}},
        [[["deep"]]],
        {"parts": 3},
        MappingThatRaises(),
        [MappingThatRaises()],
        SequenceThatRaises(),
        {"role": "user", "content": SequenceThatRaises()},
        {"role": "user", "content": [MappingThatRaises()]},
        {"role": "user", "tool_calls": [MappingThatRaises()]},
        {"role": "user", "parts": [MappingThatRaises()]},
        range(3),
    ],
)
def test_messages_of_no_known_shape_are_kept_as_they_are(odd: object) -> None:
    found = attributes_of(lambda component: component.set_messages(odd))
    assert isinstance(json.loads(found["gen_ai.input.messages"]), list)


def test_parameters_and_reasons_whose_own_code_raises_are_kept_as_they_are() -> None:
    def calls(component: ComponentTraceContext) -> None:
        component.set_model("m", parameters=MappingThatRaises(), finish_reasons=SequenceThatRaises())

    found = attributes_of(calls)
    assert (found["llm.model_name"], "llm.invocation_parameters" in found) == ("m", True)


def test_a_long_chat_is_bounded_and_its_newest_messages_stay() -> None:
    chat = [{"role": "user", "content": f"message {number}"} for number in range(5000)]
    found = attributes_of(lambda component: component.set_messages(chat), clock=ManualClock())
    assert "message 4999" in found["gen_ai.input.messages"]
    assert "message 4799" not in found["gen_ai.input.messages"]
    assert "4800 messages left out" in found["gen_ai.input.messages"]
    assert found["llm.input_messages.63.message.content"] == "message 4999"
    assert "llm.input_messages.64.message.content" not in found


def test_secrets_in_messages_are_masked() -> None:
    secret = "sk-proj-" + "a1B2" * 12

    def calls(component: ComponentTraceContext) -> None:
        component.set_messages(f"my key is {secret}", system=f"use {secret}")
        component.set_tool("fetch", arguments={"password": "hunter2", "url": f"https://u:{secret}@host/"})

    found = attributes_of(calls)
    assert secret not in repr(found)
    assert "hunter2" not in repr(found)


def test_a_tool_is_named_with_its_call() -> None:
    def calls(component: ComponentTraceContext) -> None:
        component.set_tool("search", call_id="c1", arguments={"q": "tea"}, result=["Sencha"])

    found = attributes_of(calls)
    assert found["gen_ai.tool.name"] == found["tool.name"] == "search"
    assert (found["gen_ai.tool.call.id"], found["gen_ai.operation.name"]) == ("c1", "execute_tool")
    assert json.loads(found["gen_ai.tool.call.arguments"]) == json.loads(found["tool.parameters"]) == {"q": "tea"}
    assert json.loads(found["gen_ai.tool.call.result"]) == ["Sencha"]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda c: c.set_model(7), "model is a text"),
        (lambda c: c.set_model("m", provider=7), "provider is a text"),
        (lambda c: c.set_model("m", parameters=[1]), "parameters is a mapping"),
        (lambda c: c.set_model("m", finish_reasons="stop"), "finish_reasons is a list"),
        (lambda c: c.set_usage(input_tokens="7"), "input_tokens is a whole number"),
        (lambda c: c.set_usage(input_tokens=True), "input_tokens is a whole number"),
        (lambda c: c.set_usage(output_tokens=-1), "output_tokens is a number of tokens"),
        (lambda c: c.set_usage(cost="free"), "cost is a number"),
        (lambda c: c.set_usage(cost=float("nan")), "cost is zero or more"),
        (lambda c: c.set_tool(None), "name is a text"),
        (lambda c: c.set_messages("a", system=7), "system is a text"),
    ],
)
def test_misuse_is_an_error_at_once(call: Any, error: str) -> None:
    subject = Recording()
    with subject.tracer.trace_component("chat") as component, pytest.raises((TypeError, ValueError), match=error):
        call(component)


def test_after_the_end_and_where_nothing_is_recorded_nothing_happens() -> None:
    subject = Recording()
    with subject.tracer.trace_component("chat") as ended:
        pass
    with Recording(sampler=ALWAYS_OFF).tracer.trace_component("chat") as unrecorded:
        pass
    for component in (ended, unrecorded):
        component.set_model("m", parameters={"temperature": 1})
        component.set_usage(input_tokens=1, output_tokens=1, cost=0)
        component.set_messages("a", "b", system="c")
        component.set_tool("t", arguments={})
        assert component._extras is None
    assert "gen_ai.request.model" not in subject.one("chat").attributes
    assert subject.tracer._late_calls["set_messages"] == 1


def test_a_convention_that_is_left_out_is_noticed() -> None:
    found = attributes_of(lambda component: component.set_attribute("gen_ai.request.model", "gpt-x"))
    assert "llm.model_name" not in found
