"""The first bytes of a span: what it shares with its siblings, so that they are encoded once for each parent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._run import TraceContext

__all__ = ["ROOT_TAIL", "TRACE_ID_TAG", "head"]

_FLAGS = b"\x85\x01\x01\x01\x00\x00"
"""Span.flags: sampled, and known not to have a remote parent (bits 0 and 8)."""
_FLAGS_REMOTE = b"\x85\x01\x01\x03\x00\x00"
"""Span.flags: sampled, with a remote parent (bits 0, 8 and 9)."""

TRACE_ID_TAG = b"\x0a\x10"
_SPAN_ID_TAG = b"\x12\x08"
ROOT_TAIL = _FLAGS + _SPAN_ID_TAG
"""What follows the trace id where there is neither a parent nor a run."""


def head(trace_id: bytes, parent_id: bytes, run: TraceContext | None, *, remote: bool = False) -> bytes:
    """Trace id, parent id, flags and the run's attributes, then the tag and length of the span id that follows.

    The trace id comes first: the span log finds the records of a trace by it.
    """
    return b"".join(
        (
            TRACE_ID_TAG,
            trace_id,
            b"\x22\x08" + parent_id if parent_id else b"",
            _FLAGS_REMOTE if remote else _FLAGS,
            run._common if run is not None else b"",
            _SPAN_ID_TAG,
        )
    )
