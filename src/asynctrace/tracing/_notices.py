"""What is known so far of a component that is open: a record without an end, for who wants to watch it run.

Promises: looking changes nothing, in no component and in no book; the hot path does nothing for it. A notice has the
real span id, no end time, and the attributes `asynctrace.state` ("open") and `asynctrace.seen_ns` (wall clock).
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import TYPE_CHECKING, Final

from ..wire import decode_span, encode_attribute, encode_span, encode_status, frame

if TYPE_CHECKING:
    from ._component import ComponentTraceContext
    from ._recorder import Recorder

__all__ = ["Notice", "open_notices"]

_STATE: Final = encode_attribute(b"\x4a", "asynctrace.state", "open")
_pack_start = Struct("<Q").pack


class Notice:
    """One open component at one moment: `OpenSpan` of the contracts."""

    __slots__ = ("_component", "_now", "age", "span_id")

    def __init__(self, component: ComponentTraceContext, now: int) -> None:
        self._component = component
        self._now = now
        self.age = (now - component._start) / 1e9
        self.span_id = component._id

    def record(self) -> bytes:
        component = self._component
        extras, offset = component._extras, component._offset
        start = _pack_start(component._start + offset)
        parts = [component._head, component._id, component._shape.encoded, start]
        parts += [] if extras is None else [extras.encoded()]
        parts += component._attributes.values()
        parts += [_STATE, encode_attribute(b"\x4a", "asynctrace.seen_ns", self._now + offset)]
        if extras is not None and extras.status is not None:
            parts.append(encode_status(*extras.status))
        body = b"".join(parts)
        if extras is not None and extras.repeats_our_keys:  # as in `ComponentTraceContext._encode()`
            body = encode_span(decode_span(body))
        recorder = component._recorder
        return frame(body) if len(body) <= recorder._span_bytes else recorder._encoder.cut_record(body)


def open_notices(recorder: Recorder) -> Iterator[Notice]:
    """Every component of `recorder` that is open now."""
    for component in recorder._open:
        try:
            yield Notice(component, recorder._monotonic_ns())
        except AttributeError:  # another thread is entering it at this moment
            continue
