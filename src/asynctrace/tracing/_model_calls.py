"""What a component says about a call of a model or a tool, in the words that the field's pages read.

    set_model()      gen_ai.request.model, gen_ai.provider.name, …    llm.model_name, llm.provider, llm.invocation_parameters
    set_usage()      gen_ai.usage.input_tokens, …, gen_ai.usage.cost  llm.token_count.prompt, …, llm.cost.total
    set_messages()   gen_ai.input.messages, gen_ai.output.messages    llm.input_messages.N.message.role, …
    set_tool()       gen_ai.tool.name, gen_ai.tool.call.id, …         tool.name, tool.parameters

On the left what OpenTelemetry's semantic conventions for generative AI say (read by Langfuse, Logfire and asynctrace's own
page), on the right OpenInference (read by Phoenix). Texts are captured and masked as everywhere.

Sources: OpenTelemetry semantic conventions, "Generative AI"; OpenInference semantic conventions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from ._messages import fields_in, flattened, listed, normalized

if TYPE_CHECKING:
    from ._extras import Extras
    from ._recorder import Recorder

__all__ = ["ModelCalls"]

_OPERATIONS = {
    "llm": "chat",
    "embedding": "embeddings",
    "tool": "execute_tool",
    "agent": "invoke_agent",
    "retriever": "retrieval",
}
"""`gen_ai.operation.name` by a component's type."""

_PARAMETERS = frozenset(
    (
        "choice.count",
        "encoding_formats",
        "frequency_penalty",
        "max_tokens",
        "presence_penalty",
        "seed",
        "stop_sequences",
        "stream",
        "temperature",
        "top_k",
        "top_p",
    )
)
"""Parameters that `gen_ai.request.` has a name for; others stand in `llm.invocation_parameters` only."""

_USAGE = {
    "input_tokens": ("gen_ai.usage.input_tokens", "llm.token_count.prompt"),
    "output_tokens": ("gen_ai.usage.output_tokens", "llm.token_count.completion"),
    "cached_tokens": ("gen_ai.usage.cache_read.input_tokens", "llm.token_count.prompt_details.cache_read"),
    "reasoning_tokens": ("gen_ai.usage.reasoning.output_tokens", "llm.token_count.completion_details.reasoning"),
}
_COST = ("gen_ai.usage.cost", "llm.cost.total", "operation.cost")
"""Langfuse, Phoenix, Logfire: there is no convention they share."""


class ModelCalls:
    """These calls of a component. Like all others they are counted, and do nothing, once it has ended."""

    __slots__ = ()

    if TYPE_CHECKING:
        _recorder: Recorder

        @property
        def type(self) -> str | None: ...
        def set_attribute(self, key: str, value: Any) -> None: ...
        def _extend(self) -> Extras: ...
        def _is_late(self, call: str) -> bool: ...

    def set_model(
        self,
        model: str,
        *,
        provider: str | None = None,
        operation: str | None = None,
        parameters: Mapping[str, object] | None = None,
        response_model: str | None = None,
        response_id: str | None = None,
        finish_reasons: Sequence[str] | None = None,
    ) -> None:
        """Which model was asked, of whom ("openai", "anthropic", …), and how (`temperature`, `max_tokens`, …).

        `operation` is `gen_ai.operation.name`; by default it follows from the component's type, "chat" for "llm". Raises
        `TypeError`.
        """
        _check_texts(model=model)
        _check_optional_texts(
            provider=provider, operation=operation, response_model=response_model, response_id=response_id
        )
        if parameters is not None and not isinstance(parameters, Mapping):
            raise TypeError(
                f"parameters is a mapping, parameters={{'temperature': 0.2}}, not {type(parameters).__name__}"
            )
        if finish_reasons is not None and (isinstance(finish_reasons, str) or not isinstance(finish_reasons, Sequence)):
            raise TypeError(
                f"finish_reasons is a list, finish_reasons=['stop'], not {type(finish_reasons).__name__}: one for each answer"
            )
        operation = operation or _OPERATIONS.get(self.type or "")
        pairs = {
            "gen_ai.request.model": model,
            "llm.model_name": response_model or model,
            "gen_ai.provider.name": provider,
            "gen_ai.system": provider,  # its name until 1.37 of the conventions
            "llm.provider": provider,
            "gen_ai.operation.name": operation,
            "gen_ai.response.model": response_model,
            "gen_ai.response.id": response_id,
            "gen_ai.response.finish_reasons": None if finish_reasons is None else listed(finish_reasons),
        }
        self._set_all(pairs)
        if parameters is not None:
            self._set_parameters(parameters)

    def _set_parameters(self, parameters: Mapping[str, object]) -> None:
        given = fields_in(parameters)
        if given is None:  # its own code raises: the capture says so in its place
            self._put_json("llm.invocation_parameters", parameters)
        elif given:
            self._set_all({f"gen_ai.request.{key}": value for key, value in given.items() if key in _PARAMETERS})
            self._put_json("llm.invocation_parameters", given)

    def set_usage(
        self,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
        reasoning_tokens: int | None = None,
        cost: float | None = None,
    ) -> None:
        """Tokens of the prompt and of the answer; those of them that came from a cache, or were spent on reasoning; and the
        cost, in US dollars as the pages show it. Raises `TypeError` and `ValueError` (below zero, not finite)."""
        given = {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "cached_tokens": cached_tokens,
            "reasoning_tokens": reasoning_tokens,
        }
        for name, tokens in given.items():
            if tokens is not None:
                _check_count(name, tokens)
                self._set_all(dict.fromkeys(_USAGE[name], tokens))
        if input_tokens is not None and output_tokens is not None:
            self.set_attribute("llm.token_count.total", input_tokens + output_tokens)
        if cost is not None:
            _check_cost(cost)
            self._set_all(dict.fromkeys(_COST, float(cost)))

    def set_messages(self, input: object = None, output: object = None, *, system: str | None = None) -> None:
        """The messages that went to the model, and those that came back.

            component.set_messages([{"role": "user", "content": "Which tea?"}], "Sencha.")

        Each is a text, or a list of messages as chat APIs have them: `role`, `content` (a text, or parts), `tool_calls`,
        `tool_call_id`; or `role` and `parts` as the conventions say; or the same as objects of a client's library. A
        snapshot; later calls replace earlier ones.
        """
        if system is not None:
            _check_texts(system=system)
        if self._is_late("set_messages"):
            return
        if system is not None:
            self._put_json("gen_ai.system_instructions", [{"type": "text", "content": system}])
        for name, messages, role in (("input", input, "user"), ("output", output, "assistant")):
            if messages is not None:
                self._put_messages(name, normalized(messages, role))

    def set_tool(
        self, name: str, *, call_id: str | None = None, arguments: object = None, result: object = None
    ) -> None:
        """Which tool was called, for which of the model's calls, with what and what came out. Raises `TypeError`."""
        _check_texts(name=name)
        _check_optional_texts(call_id=call_id)
        if self._is_late("set_tool"):
            return
        self._set_all({"gen_ai.tool.name": name, "tool.name": name, "gen_ai.tool.call.id": call_id})
        self.set_attribute("gen_ai.operation.name", "execute_tool")
        if arguments is not None:
            self._put_json("gen_ai.tool.call.arguments", arguments)
            self._put_json("tool.parameters", arguments)
        if result is not None:
            self._put_json("gen_ai.tool.call.result", result)

    def _set_all(self, pairs: Mapping[str, object]) -> None:
        for key, value in pairs.items():
            if value is not None:
                self.set_attribute(key, value)

    def _put_json(self, key: str, value: object) -> None:
        if not self._is_late("set_attribute"):
            self._extend().put(key, self._recorder._encoder.json_attribute(key, value))

    def _put_messages(self, name: str, messages: list[Any]) -> None:
        encoder = self._recorder._encoder
        self._put_json(f"gen_ai.{name}.messages", messages)
        fields = (encoder.plain_attribute(key, text) for key, text in flattened(f"llm.{name}_messages", messages))
        self._extend().put(f"llm.{name}_messages", b"".join(fields))


def _check_texts(**texts: object) -> None:
    for name, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f'{name} is a text, {name}="…", not {type(text).__name__}')


def _check_optional_texts(**texts: object) -> None:
    _check_texts(**{name: text for name, text in texts.items() if text is not None})


def _check_count(name: str, tokens: object) -> None:
    if isinstance(tokens, bool) or not isinstance(tokens, int):
        raise TypeError(f"{name} is a whole number, {name}=120, not {type(tokens).__name__}")
    if tokens < 0:
        raise ValueError(f"{name} is a number of tokens, not {tokens}")


def _check_cost(cost: object) -> None:
    if isinstance(cost, bool) or not isinstance(cost, int | float):
        raise TypeError(f"cost is a number, cost=0.0021, not {type(cost).__name__}")
    if not isfinite(cost) or cost < 0:
        raise ValueError(f"cost is zero or more, not {cost}")
