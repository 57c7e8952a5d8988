"""What components of one name, type and kind have in common, encoded once and remembered."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Final

from .._contracts import MOST_NOTED, Ending, SpanKind
from ..wire import encode_attribute, length_delimited
from ..wire._values import encode_text
from ._endings import TAILS, ending_attribute

if TYPE_CHECKING:
    from ._unrecorded import Nothing

__all__ = ["Shape", "parse_kind"]

Note = tuple[Callable[..., None], int]

_NOTES: Final[dict[int, dict[int, Note]]] = {}
"""Shared by shapes of one length. A slot of the slab bounds it: some 30,000 pairs of lengths fit into one."""

_KINDS: Final = {kind.name.lower(): kind for kind in SpanKind}


class Shape:
    """`encoded` holds the fields name and kind of a `Span`, the attribute `openinference.span.kind`, and the tag of the
    start time that follows it; `ended_ok` also the status and attribute of a span that ended `ok`, which most do."""

    __slots__ = ("encoded", "ended_ok", "kind", "name", "notes", "nothing", "scope", "type")

    def __init__(
        self, name: str, component_type: str | None, kind: SpanKind, wire_name: str, scope: bytes = b""
    ) -> None:
        self.name = name
        self.type = component_type
        self.kind = kind
        self.scope = scope
        """The fields of `wire.scope_fields()`, for spans that somebody else's instrumentation makes."""
        self.nothing: Nothing | None = None
        self.encoded = length_delimited(b"\x2a", encode_text(wire_name)) + bytes((0x30, kind))
        if component_type is not None:
            self.encoded += encode_attribute(b"\x4a", "openinference.span.kind", component_type.upper())
        self.encoded += scope + b"\x39"
        # Somebody else's instrumentation says itself that all went well, or leaves the status unset.
        self.ended_ok = (ending_attribute(Ending.OK) if scope else TAILS[Ending.OK]) + self.encoded
        self.notes = _NOTES.setdefault(len(self.encoded), {})
        """How an open span is noted: what writes head, id, `encoded`, start and state into the slab, and that state, by the
        length of the head."""

    def learn_to_note(self, head_bytes: int, state: int) -> None:
        """Remember it for spans with a head of that length."""
        size = head_bytes + 8 + len(self.encoded) + 8
        note = Struct(
            f"<{head_bytes}s8s{len(self.encoded)}sQ{MOST_NOTED - size}xQ"
        )  # stores in this order, the state last
        self.notes[head_bytes] = note.pack_into, state


def parse_kind(kind: object) -> SpanKind:
    """A `SpanKind` from itself, its name in any case, or None (internal)."""
    if kind is None:
        return SpanKind.INTERNAL
    if isinstance(kind, SpanKind):
        return kind
    parsed = _KINDS.get(kind.lower()) if isinstance(kind, str) else None
    if parsed is None:
        raise TypeError(f"kind is one of {sorted(_KINDS)} or a SpanKind, not {kind!r:.50}")
    return parsed
