"""What is known of a stream: how many chunks came, when the first one did, and what they were, as far as there is room.

    asynctrace.stream.chunks                how many came
    asynctrace.stream.time_to_first_chunk   seconds from the component's start; also `gen_ai.response.time_to_first_chunk` of
                                            a component whose type is "llm"
    asynctrace.stream.kept                  how many of them are in the outputs, where not all are
    output.value                            texts joined, or a JSON array of the chunks

It is written when the component ends, however it ends: what came before an early close is kept.

Source: OpenTelemetry semantic conventions, generative AI, "gen_ai.response.time_to_first_chunk" (seconds).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ..wire import encode_attribute

if TYPE_CHECKING:
    from ._component import ComponentTraceContext
    from ._extras import Extras

__all__ = ["StreamNotes"]


class StreamNotes:
    """The chunks of one component. A chunk that is no text is captured when it comes; later changes do not show."""

    __slots__ = ("_count", "_first_ns", "_kept", "_kept_count", "_recorder", "_room", "_start", "_type")

    def __init__(self, component: ComponentTraceContext) -> None:
        # What it needs of the component, and not the component: a handle that is lost is to be collected at once.
        self._recorder = component._recorder
        self._start, self._type = component._start, component.type
        self._room = self._recorder._limits.value_bytes
        self._count = self._kept_count = 0
        self._first_ns = 0
        self._kept: list[str | bytes | msgspec.Raw] = []

    def took(self, chunk: object, text: Callable[[Any], str | None] | None) -> None:
        """Note one chunk. Never raises."""
        if not self._count:
            self._first_ns = self._recorder._monotonic_ns()
        self._count += 1
        if self._room <= 0:
            return
        try:
            said = chunk if text is None else text(chunk)
            if said is None and text is not None:
                self._kept_count += 1  # it says nothing
            else:
                self._keep(said)
        except Exception as error:  # noqa: BLE001  (a function of the program, or a value of it)
            self._recorder._failed(error)

    def _keep(self, said: object) -> None:
        kind = type(said)
        if kind is str or kind is bytes:
            kept: Any = said
            size = len(kept)
        else:
            captured = self._recorder._encoder.capture.snapshot(said, "output")[1]
            kept, size = msgspec.Raw(captured), len(captured)
        self._room -= size
        if self._room < 0 and self._kept:
            return  # it would be cut in the middle of its meaning; the first one is cut as any output is
        self._kept.append(kept)
        self._kept_count += 1

    def settle(self, extras: Extras) -> None:
        """Write it all down."""
        fields = encode_attribute(b"\x4a", "asynctrace.stream.chunks", self._count)
        seconds = (self._first_ns - self._start) / 1e9
        fields += encode_attribute(b"\x4a", "asynctrace.stream.time_to_first_chunk", seconds)
        if self._type == "llm":
            fields += encode_attribute(b"\x4a", "gen_ai.response.time_to_first_chunk", seconds)
        if self._kept_count < self._count:
            fields += encode_attribute(b"\x4a", "asynctrace.stream.kept", self._kept_count)
        extras.put("stream", fields)
        if self._kept and "output" not in extras.fields:
            extras.put("output", self._output())

    def _output(self) -> bytes:
        encoder, kinds = self._recorder._encoder, set(map(type, self._kept))
        if kinds == {str}:
            return encoder.captured("output", "".join(self._kept))  # type: ignore[arg-type]
        if kinds == {bytes}:
            return encoder.captured("output", b"".join(self._kept).decode("utf-8", "replace"))  # type: ignore[arg-type]
        return encoder.output_of_json([self._as_json(part) for part in self._kept])

    def _as_json(self, part: str | bytes | msgspec.Raw) -> bytes:
        if isinstance(part, msgspec.Raw):
            return bytes(part)
        text = part if isinstance(part, str) else part.decode("utf-8", "replace")
        return msgspec.json.encode(self._recorder._encoder.text(text))
