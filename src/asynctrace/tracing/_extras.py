"""What most spans do not have: inputs, outputs, metadata, logs, links, a status of their own. Kept encoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .._contracts import Ending, StatusCode
from ..wire import encode_status, encode_varint, length_delimited
from ._endings import TAILS, ending_attribute

if TYPE_CHECKING:
    from ._stream_notes import StreamNotes

__all__ = ["OURS", "Extras", "check_metadata", "parse_status", "text_attribute"]

OURS = frozenset(
    (
        "asynctrace.ending",
        "input.mime_type",
        "input.value",
        "metadata",
        "openinference.span.kind",
        "otel.scope.name",
        "otel.scope.version",
        "output.mime_type",
        "output.value",
        "session.id",
        "user.id",
    )
)
"""Keys that asynctrace writes too. A span where the user sets one is put in order at its end: OTLP keys are unique."""

_STATUS_BY_NAME = {"unset": StatusCode.UNSET, "ok": StatusCode.OK, "error": StatusCode.ERROR}


class Extras:
    """Made by a component on first use. Appending to its lists is atomic, so two tasks or threads may add at once."""

    __slots__ = (
        "dropped_attributes",
        "dropped_events",
        "dropped_links",
        "events",
        "fields",
        "links",
        "repeats_our_keys",
        "status",
        "stream",
    )

    def __init__(self) -> None:
        self.fields: dict[str, bytes] = {}
        """Encoded attributes for input, output, metadata and the like; a later one replaces an earlier one."""
        self.events: list[bytes] = []
        self.links: list[bytes] = []
        self.status: tuple[StatusCode, str] | None = None
        """What the user set, or what an exception said."""
        self.dropped_attributes = self.dropped_events = self.dropped_links = 0
        self.repeats_our_keys = False
        self.stream: StreamNotes | None = None

    def put(self, name: str, encoded: bytes) -> None:
        """Keep the encoded attributes for `name`, in place of earlier ones."""
        self.fields[name] = encoded

    def copy(self) -> Extras:
        """For a decorated function: each call starts with what the decorator was given."""
        made = Extras()
        made.fields, made.links = dict(self.fields), list(self.links)
        made.repeats_our_keys = self.repeats_our_keys
        made.dropped_attributes, made.dropped_links = self.dropped_attributes, self.dropped_links
        return made

    def encoded(self) -> bytes:
        """Everything here but the status as fields of a `Span`."""
        return b"".join((*self.fields.values(), *self.events, *self.links, self._dropped()))

    def tail(self, ending: Ending) -> bytes:
        """The attribute and the status for `ending`."""
        return TAILS[ending] if self.status is None else ending_attribute(ending) + encode_status(*self.status)

    def _dropped(self) -> bytes:
        counts = ((b"\x50", self.dropped_attributes), (b"\x60", self.dropped_events), (b"\x70", self.dropped_links))
        return b"".join(tag + encode_varint(count) for tag, count in counts if count)


def check_metadata(metadata: object) -> None:
    """Raise `TypeError` unless `metadata` is a mapping or None."""
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"metadata is a mapping, metadata={{'model': 'm-1'}}, not {type(metadata).__name__}")


def parse_status(status: object) -> StatusCode:
    """A `StatusCode` from itself or its name."""
    if isinstance(status, StatusCode):
        return status
    code = _STATUS_BY_NAME.get(status.lower()) if isinstance(status, str) else None
    if code is None:
        raise TypeError(f'set_status() takes "ok", "error", "unset" or a StatusCode, not {status!r:.60}')
    return code


def text_attribute(key: str, text: bytes) -> bytes:
    """A text that is UTF-8 already, as an attribute of a span."""
    value = length_delimited(b"\x12", length_delimited(b"\x0a", text))
    return length_delimited(b"\x4a", length_delimited(b"\x0a", key.encode()) + value)
