"""A program that asks a model, under one of `INSTRUMENTATIONS`, and sends what that records to a collector.

    python with_a_model.py NAME URL

It asks, gets the call of a tool, tells the tool's result, and gets an answer: two model calls below the span `support`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import model

OPENAI_TOOL = {
    "type": "function",
    "function": {
        "name": model.TOOL,
        "description": "Where an order is",
        "parameters": {"type": "object", "properties": {"order": {"type": "string"}}},
    },
}
ANTHROPIC_TOOL = {"name": model.TOOL, "description": "Where an order is", "input_schema": {"type": "object"}}


# ── programs ────────────────────────────────────────────────────────────────────────────────────────────────


def ask_openai(client: Any) -> None:
    messages: list[Any] = [
        {"role": "system", "content": model.SYSTEM},
        {"role": "user", "content": model.QUESTION},
    ]
    call = client.chat.completions.create(model="gpt-x", messages=messages, tools=[OPENAI_TOOL])
    asked = call.choices[0].message
    messages.append({"role": "assistant", "tool_calls": [each.to_dict() for each in asked.tool_calls]})
    messages.append({"role": "tool", "tool_call_id": asked.tool_calls[0].id, "content": model.RESULT})
    answer = client.chat.completions.create(model="gpt-x", messages=messages, tools=[OPENAI_TOOL])
    check(answer.choices[0].message.content)


def ask_anthropic(client: Any) -> None:
    def create(*messages: Any) -> Any:
        return client.messages.create(
            model="claude-y", max_tokens=100, system=model.SYSTEM, tools=[ANTHROPIC_TOOL], messages=list(messages)
        )

    question = {"role": "user", "content": model.QUESTION}
    (asked,) = create(question).content
    result = {"type": "tool_result", "tool_use_id": asked.id, "content": model.RESULT}
    answer = create(
        question,
        {"role": "assistant", "content": [asked.to_dict()]},
        {"role": "user", "content": [result]},
    )
    check(answer.content[0].text)


def ask_langchain(url: str) -> None:
    from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    @tool(model.TOOL)
    def lookup_order(order: str) -> str:
        """Where an order is."""
        return model.RESULT

    chat = ChatOpenAI(model="gpt-x", base_url=f"{url}/v1", api_key="none").bind_tools([lookup_order])  # type: ignore[arg-type]
    messages: list[Any] = [SystemMessage(model.SYSTEM), HumanMessage(model.QUESTION)]
    asked: Any = chat.invoke(messages)
    result = lookup_order.invoke(asked.tool_calls[0]["args"])
    answer = chat.invoke([*messages, asked, ToolMessage(result, tool_call_id=asked.tool_calls[0]["id"])])
    check(answer.content)


def openai(url: str) -> Any:
    from openai import OpenAI

    return OpenAI(base_url=f"{url}/v1", api_key="none")


def anthropic(url: str) -> Any:
    from anthropic import Anthropic

    return Anthropic(base_url=url, api_key="none")


def check(answer: object) -> None:
    if answer != model.ANSWER:
        raise SystemExit(f"the model said {answer!r}")


# ── instrumentations ────────────────────────────────────────────────────────────────────────────────────────


def openinference_openai(url: str) -> None:
    from openinference.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()
    ask_openai(openai(url))


def openinference_anthropic(url: str) -> None:
    from openinference.instrumentation.anthropic import AnthropicInstrumentor

    AnthropicInstrumentor().instrument()
    ask_anthropic(anthropic(url))


def openinference_langchain(url: str) -> None:
    from openinference.instrumentation.langchain import LangChainInstrumentor

    LangChainInstrumentor().instrument()
    ask_langchain(url)


def genai_attributes(url: str) -> None:
    """Messages in attributes of the span."""
    genai(url, "SPAN_ONLY")


def genai_logs(url: str) -> None:
    """Messages in a log record of the span."""
    genai(url, "EVENT_ONLY")


def genai(url: str, messages: str) -> None:
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = messages
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()
    ask_openai(openai(url))


def openllmetry_openai(url: str) -> None:
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()
    ask_openai(openai(url))


def openllmetry_anthropic(url: str) -> None:
    from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor

    AnthropicInstrumentor().instrument()
    ask_anthropic(anthropic(url))


def logfire_openai(url: str) -> None:
    import logfire

    client = openai(url)
    logfire.instrument_openai(client)
    ask_openai(client)


def logfire_anthropic(url: str) -> None:
    import logfire

    client = anthropic(url)
    logfire.instrument_anthropic(client)
    ask_anthropic(client)


INSTRUMENTATIONS: dict[str, Callable[[str], None]] = {
    "openinference-openai": openinference_openai,
    "openinference-anthropic": openinference_anthropic,
    "openinference-langchain": openinference_langchain,
    "genai-attributes": genai_attributes,
    "genai-logs": genai_logs,
    "openllmetry-openai": openllmetry_openai,
    "openllmetry-anthropic": openllmetry_anthropic,
    "logfire-openai": logfire_openai,
    "logfire-anthropic": logfire_anthropic,
}


def main(name: str, collector: str) -> None:
    resource = Resource.create({"service.name": "support"})
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{collector}/v1/traces")))
    logs = LoggerProvider(resource=resource)
    logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(f"{collector}/v1/logs")))
    if name.startswith("logfire"):
        import logfire

        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector
        logfire.configure(send_to_logfire=False, service_name="support", console=False, inspect_arguments=False)
    else:
        from opentelemetry._logs import set_logger_provider

        trace.set_tracer_provider(traces)
        set_logger_provider(logs)
    with trace.get_tracer("support").start_as_current_span("support"):
        INSTRUMENTATIONS[name](model.serve())
    if name.startswith("logfire"):
        logfire.shutdown()
    traces.shutdown()
    logs.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
