"""From what the user gives to bytes: captured and masked within the limits, then encoded as fields of a `Span`.

What comes again and again is remembered, encoded: pairs of key and short text, and for numbers the part that depends on
the key. Nothing that was masked is ever remembered, and what is remembered is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .._contracts import Link
from ..propagation import Baggage
from ..wire import ScalarHeads, encode_attribute, encode_event, encode_link, frame, shrink_record
from ._capture import Capture
from ._component import ComponentTraceContext
from ._extras import OURS, text_attribute
from ._limits import Limits
from ._masking import Masker
from ._run import TraceContext

__all__ = ["LONGEST_REMEMBERED", "Encoder"]

LONGEST_REMEMBERED = 64

_MOST_KEYS = 256
_MOST_VALUES = 64
"""Keys and texts beyond these bounds are encoded each time."""


class Encoder:
    """`pairs` and `heads` are read by the hot path of `ComponentTraceContext.set_attribute()`."""

    __slots__ = ("_limits", "_masker", "capture", "heads", "pairs", "remembers")

    def __init__(self, limits: Limits, masker: Masker, monotonic_ns: Callable[[], int]) -> None:
        self._limits = limits
        self._masker = masker
        self.remembers = not masker.calls_user_code
        self.capture = Capture(limits, masker, monotonic_ns)
        self.pairs: dict[str, dict[object, bytes]] = {}
        self.heads: dict[str, ScalarHeads] = {}

    def attribute(self, key: str, value: object) -> bytes:
        """An attribute of a span. Raises `TypeError` for a key that is no text."""
        if not isinstance(key, str):
            raise TypeError(f"an attribute key is a text, set_attribute('shard', 3), not {type(key).__name__}")
        captured = self.capture.attribute(value, key)
        field = encode_attribute(b"\x4a", self._key(key), captured)
        if captured is value and len(key) <= LONGEST_REMEMBERED and key not in OURS:
            if isinstance(value, str):
                self._remember(key, value, field)
            elif key not in self.heads and len(self.heads) < _MOST_KEYS and not self._masker.is_secret_key(key):
                self.heads[key] = ScalarHeads(b"\x4a", key)
        return field

    def captured(self, name: str, value: object) -> bytes:
        """`input.value` or `output.value` with its MIME type (OpenInference semantic conventions)."""
        mime, text = self.capture.snapshot(value, name)
        return text_attribute(f"{name}.value", text) + text_attribute(f"{name}.mime_type", mime.encode())

    def output_of_json(self, parts: Sequence[bytes]) -> bytes:
        """`output.value` of several values that are JSON already: their array."""
        return text_attribute("output.value", b"[" + b",".join(parts) + b"]") + text_attribute(
            "output.mime_type", b"application/json"
        )

    def metadata(self, metadata: Mapping[str, object]) -> bytes:
        """`metadata`, as JSON text (OpenInference semantic conventions)."""
        return self.json_attribute("metadata", dict(metadata))

    def json_attribute(self, key: str, value: object) -> bytes:
        """An attribute whose value is a snapshot as JSON text; a text stays as it is."""
        return text_attribute(key, self.capture.snapshot(value, key)[1])

    def plain_attribute(self, key: str, value: object) -> bytes:
        """An attribute that is not remembered; nothing for None."""
        return b"" if value is None else encode_attribute(b"\x4a", key, self.capture.attribute(value, key))

    def event(self, time_ns: int, name: str, fields: Mapping[str, object]) -> bytes:
        """A span event with at most `Limits.attributes` fields; the rest is counted in it."""
        kept = list(fields.items())[: self._limits.attributes]
        attributes = {self._key(key): self.capture.attribute(value, key) for key, value in kept}
        return encode_event(time_ns, self.text(name), attributes, len(fields) - len(kept))

    def link(self, link: object) -> bytes:
        """A span link. Raises `TypeError` for what names no span."""
        if isinstance(link, Link):
            attributes = {self._key(key): self.capture.attribute(value, key) for key, value in link.attributes.items()}
            trace_id, span_id = bytes.fromhex(link.trace_id), bytes.fromhex(link.span_id)
            return encode_link(trace_id, span_id, link.trace_state, attributes, link.flags)
        if isinstance(link, TraceContext | ComponentTraceContext) and link.trace_id:
            return encode_link(bytes.fromhex(link.trace_id), bytes.fromhex(link.span_id), "", {}, 0)
        raise TypeError(f"a link is a Link, or a trace or component that was entered, not {type(link).__name__}")

    def masked_baggage(self, baggage: Baggage) -> Baggage:
        """Without its secrets; an entry whose key is one is left out."""
        for key in baggage:
            if self._masker.mask_text(key) != key:
                baggage = baggage.without(key)
        return baggage.masked(self._masker.mask_value)

    def text(self, text: str) -> str:
        """A message, masked and cut."""
        return self.capture.text(text, self._limits.attribute_bytes)

    def cut_record(self, body: bytes) -> bytes:
        """The record of a span that is over `Limits.span_bytes`: its largest texts give way to markers."""
        record = frame(body)
        return shrink_record(record, self._limits.span_bytes) or record

    def _remember(self, key: str, value: str, field: bytes) -> None:
        if len(value) > LONGEST_REMEMBERED or not self.remembers:
            return
        known = self.pairs.get(key)
        if known is None:
            if len(self.pairs) >= _MOST_KEYS:
                return
            known = self.pairs[key] = {}
        if len(known) < _MOST_VALUES:
            known[value] = field

    def _key(self, key: str) -> str:
        return key if len(key) <= LONGEST_REMEMBERED else self.capture.text(key, self._limits.name_bytes)
