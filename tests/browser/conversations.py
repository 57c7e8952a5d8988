"""The same conversation as each SDK writes it down, in the attributes and events of its conventions.

It is: a system message, a question, a call of the tool `lookup_order` with {"order": "A-17"}, its result, and an answer.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

__all__ = ["ANSWER", "CONVERSATIONS", "QUESTION", "RESULT", "SYSTEM", "Conversation"]

SYSTEM = "You are the support desk."
QUESTION = "Where is my order A-17?"
RESULT = "sent on Tuesday"
ANSWER = "It was sent on Tuesday."
ARGUMENTS = json.dumps({"order": "A-17"})
CALL = {"id": "call_1", "type": "function", "function": {"name": "lookup_order", "arguments": ARGUMENTS}}
TOKENS = (1234, 56)


class Conversation(NamedTuple):
    attributes: dict[str, Any]
    events: tuple[tuple[str, float, dict[str, Any]], ...] = ()


OPENAI = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": QUESTION},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": RESULT},
]
ANTHROPIC = {
    "system": SYSTEM,
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "lookup_order", "input": {"order": "A-17"}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": RESULT}]},
    ],
}
GENAI_USAGE = {"gen_ai.usage.input_tokens": TOKENS[0], "gen_ai.usage.output_tokens": TOKENS[1]}
LOGFIRE = [
    {"event.name": "gen_ai.system.message", "content": SYSTEM, "role": "system"},
    {"event.name": "gen_ai.user.message", "content": QUESTION, "role": "user", "gen_ai.message.index": 0},
    {"event.name": "gen_ai.assistant.message", "role": "assistant", "tool_calls": [CALL], "gen_ai.message.index": 1},
    {"event.name": "gen_ai.tool.message", "content": RESULT, "role": "tool", "id": "call_1", "name": "lookup_order"},
]
LANGCHAIN = [
    [
        {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "SystemMessage"], "kwargs": {"content": SYSTEM}},
        {
            "lc": 1,
            "type": "constructor",
            "id": ["langchain", "schema", "HumanMessage"],
            "kwargs": {"content": QUESTION},
        },
        {
            "lc": 1,
            "type": "constructor",
            "id": ["langchain", "schema", "AIMessage"],
            "kwargs": {
                "content": "",
                "tool_calls": [{"name": "lookup_order", "args": {"order": "A-17"}, "id": "call_1"}],
            },
        },
        {
            "lc": 1,
            "type": "constructor",
            "id": ["langchain", "schema", "ToolMessage"],
            "kwargs": {"content": RESULT, "tool_call_id": "call_1"},
        },
    ]
]

CONVERSATIONS = {
    "GenAI, messages in attributes": Conversation(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.system_instructions": json.dumps([{"type": "text", "content": SYSTEM}]),
            "gen_ai.input.messages": json.dumps(
                [
                    {"role": "user", "parts": [{"type": "text", "content": QUESTION}]},
                    {
                        "role": "assistant",
                        "parts": [
                            {
                                "type": "tool_call",
                                "id": "call_1",
                                "name": "lookup_order",
                                "arguments": {"order": "A-17"},
                            }
                        ],
                    },
                    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1", "response": RESULT}]},
                ]
            ),
            "gen_ai.output.messages": json.dumps(
                [{"role": "assistant", "parts": [{"type": "text", "content": ANSWER}], "finish_reason": "stop"}]
            ),
            **GENAI_USAGE,
        }
    ),
    "GenAI, events": Conversation(
        {"gen_ai.operation.name": "chat", "gen_ai.system": "openai", **GENAI_USAGE},
        (
            ("gen_ai.system.message", 1, {"content": SYSTEM}),
            ("gen_ai.user.message", 2, {"content": QUESTION}),
            ("gen_ai.assistant.message", 3, {"tool_calls": json.dumps([CALL])}),
            ("gen_ai.tool.message", 4, {"content": RESULT, "id": "call_1"}),
            (
                "gen_ai.choice",
                5,
                {"index": 0, "finish_reason": "stop", "message": json.dumps({"role": "assistant", "content": ANSWER})},
            ),
        ),
    ),
    "Traceloop": Conversation(
        {
            "llm.request.type": "chat",
            "gen_ai.prompt.0.role": "system",
            "gen_ai.prompt.0.content": SYSTEM,
            "gen_ai.prompt.1.role": "user",
            "gen_ai.prompt.1.content": QUESTION,
            "gen_ai.prompt.2.role": "assistant",
            "gen_ai.prompt.2.tool_calls.0.id": "call_1",
            "gen_ai.prompt.2.tool_calls.0.name": "lookup_order",
            "gen_ai.prompt.2.tool_calls.0.arguments": ARGUMENTS,
            "gen_ai.prompt.3.role": "tool",
            "gen_ai.prompt.3.tool_call_id": "call_1",
            "gen_ai.prompt.3.content": RESULT,
            "gen_ai.completion.0.role": "assistant",
            "gen_ai.completion.0.content": ANSWER,
            "gen_ai.completion.0.finish_reason": "stop",
            "gen_ai.usage.prompt_tokens": TOKENS[0],
            "gen_ai.usage.completion_tokens": TOKENS[1],
        }
    ),
    "Traceloop, a workflow": Conversation(
        {
            "traceloop.span.kind": "workflow",
            "traceloop.entity.input": json.dumps({"messages": OPENAI}),
            "traceloop.entity.output": json.dumps({"role": "assistant", "content": ANSWER}),
            "llm.usage.total_tokens": sum(TOKENS),
            **GENAI_USAGE,
        }
    ),
    "AgentOps": Conversation(
        {
            "agentops.span.kind": "llm",
            "gen_ai.prompt.0.role": "system",
            "gen_ai.prompt.0.content": json.dumps([{"type": "text", "text": SYSTEM}]),
            "gen_ai.prompt.1.role": "user",
            "gen_ai.prompt.1.content": QUESTION,
            "gen_ai.prompt.2.role": "assistant",
            "gen_ai.prompt.2.tool_calls.0.name": "lookup_order",
            "gen_ai.prompt.2.tool_calls.0.arguments": ARGUMENTS,
            "gen_ai.prompt.3.role": "tool",
            "gen_ai.prompt.3.content": RESULT,
            "gen_ai.completion.0.role": "assistant",
            "gen_ai.completion.0.content": ANSWER,
            "gen_ai.usage.prompt_tokens": TOKENS[0],
            "gen_ai.usage.completion_tokens": TOKENS[1],
        }
    ),
    "OpenInference": Conversation(
        {
            "openinference.span.kind": "LLM",
            "llm.input_messages.0.message.role": "system",
            "llm.input_messages.0.message.content": SYSTEM,
            "llm.input_messages.1.message.role": "user",
            "llm.input_messages.1.message.contents.0.message_content.type": "text",
            "llm.input_messages.1.message.contents.0.message_content.text": QUESTION,
            "llm.input_messages.2.message.role": "assistant",
            "llm.input_messages.2.message.tool_calls.0.tool_call.id": "call_1",
            "llm.input_messages.2.message.tool_calls.0.tool_call.function.name": "lookup_order",
            "llm.input_messages.2.message.tool_calls.0.tool_call.function.arguments": ARGUMENTS,
            "llm.input_messages.3.message.role": "tool",
            "llm.input_messages.3.message.tool_call_id": "call_1",
            "llm.input_messages.3.message.content": RESULT,
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.content": ANSWER,
            "llm.token_count.prompt": TOKENS[0],
            "llm.token_count.completion": TOKENS[1],
            "input.value": json.dumps({"messages": OPENAI}),
            "input.mime_type": "application/json",
        }
    ),
    "Langfuse": Conversation(
        {
            "langfuse.observation.type": "generation",
            "langfuse.observation.input": json.dumps(OPENAI),
            "langfuse.observation.output": json.dumps({"role": "assistant", "content": ANSWER}),
            "langfuse.observation.model.name": "gpt-x",
            "langfuse.observation.usage_details": json.dumps(
                {"input": TOKENS[0], "output": TOKENS[1], "total": sum(TOKENS)}
            ),
        }
    ),
    "Langfuse of LangChain": Conversation(
        {
            "langfuse.observation.type": "generation",
            "langfuse.observation.input": json.dumps(LANGCHAIN),
            "langfuse.observation.output": json.dumps({"role": "assistant", "content": ANSWER}),
            "langfuse.observation.usage_details": json.dumps({"input": TOKENS[0], "output": TOKENS[1]}),
        }
    ),
    "Logfire, an agent": Conversation(
        {
            "agent_name": "support",
            "all_messages_events": json.dumps(
                [*LOGFIRE, {"event.name": "gen_ai.assistant.message", "role": "assistant", "content": ANSWER}]
            ),
            "final_result": ANSWER,
            **GENAI_USAGE,
        }
    ),
    "Logfire, a model": Conversation(
        {
            "events": json.dumps(
                [
                    *LOGFIRE,
                    {"event.name": "gen_ai.choice", "index": 0, "message": {"role": "assistant", "content": ANSWER}},
                ]
            ),
            **GENAI_USAGE,
        }
    ),
    "Logfire of OpenAI": Conversation(
        {
            "request_data": json.dumps({"messages": OPENAI, "model": "gpt-x"}),
            "response_data": json.dumps(
                {"message": {"role": "assistant", "content": ANSWER}, "usage": {"total_tokens": sum(TOKENS)}}
            ),
            **GENAI_USAGE,
        }
    ),
    "Anthropic in OpenInference": Conversation(
        {
            "openinference.span.kind": "LLM",
            "input.value": json.dumps(ANTHROPIC),
            "output.value": json.dumps(
                {"role": "assistant", "content": [{"type": "text", "text": ANSWER}], "stop_reason": "end_turn"}
            ),
            "llm.token_count.prompt": TOKENS[0],
            "llm.token_count.completion": TOKENS[1],
        }
    ),
}
