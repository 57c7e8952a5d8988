"""The first bytes of a span: what it shares with its siblings, so that they are encoded once for each parent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..wire._varint import length_delimited

if TYPE_CHECKING:
    from ._run import TraceContext

__all__ = ["ROOT_TAILS", "TRACE_ID_TAG", "head", "head_below", "trace_state_field"]

_FLAGS = (b"\x85\x01\x01\x01\x00\x00", b"\x85\x01\x03\x01\x00\x00")
"""Span.flags: sampled, and known not to have a remote parent (bits 0 and 8); the second with a random trace id (bit 1)."""
_FLAGS_REMOTE = (b"\x85\x01\x01\x03\x00\x00", b"\x85\x01\x03\x03\x00\x00")
"""Span.flags: the same with a remote parent (bit 9)."""

TRACE_ID_TAG = b"\x0a\x10"
_PARENT_ID_TAG = b"\x22\x08"
_SPAN_ID_TAG = b"\x12\x08"
_TRACE_STATE_TAG = b"\x1a"
_PARENT_AT = 18
_FLAGS_AT = 28
_BORDER_AT = 31
"""Where they begin in the head of a span that has a parent, and where in the flags its bits 8 and 9 are."""
_LOCAL = 1

ROOT_TAILS = tuple(flags + _SPAN_ID_TAG for flags in _FLAGS)
"""What follows the trace id where there is neither a parent nor a run; the second for a random trace id."""


def head(
    trace_id: bytes, parent_id: bytes, run: TraceContext | None, *, remote: bool = False, random: bool = False
) -> bytes:
    """Trace id, parent id, flags and what the run's spans share, then the tag and length of the span id that follows.

    The trace id comes first: the span log finds the records of a trace by it. `random` says whether it is, where there is
    no run to ask.
    """
    flags = _FLAGS_REMOTE if remote else _FLAGS
    return b"".join(
        (
            TRACE_ID_TAG,
            trace_id,
            _PARENT_ID_TAG + parent_id if parent_id else b"",
            flags[run.is_random if run is not None else random],
            run._common if run is not None else b"",
            _SPAN_ID_TAG,
        )
    )


def head_below(front: bytes, parent_id: bytes) -> bytes:
    """The head of the children of a span that has a parent itself, and the head `front`: all but one id is the same, and
    that they are no children of a remote span."""
    if front[_BORDER_AT] != _LOCAL:
        front = b"".join((front[:_BORDER_AT], bytes((_LOCAL,)), front[_BORDER_AT + 1 :]))
    return b"".join((front[:_PARENT_AT], _PARENT_ID_TAG, parent_id, front[_FLAGS_AT:]))


def trace_state_field(tracestate: str) -> bytes:
    """Field 3 of a `Span`; nothing where there is none. A context that was made by hand may have any text there."""
    return length_delimited(_TRACE_STATE_TAG, tracestate.encode("utf-8", "replace")) if tracestate else b""
