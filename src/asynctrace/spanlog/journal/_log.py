"""The span log of a journal: its segments are files as soon as there is a journal, and memory before and in need.

What differs from `SpanLog`:

1. Nothing is staged: when an append returns, its record is in the mapped file. An append that comes in between another
   one of its own thread (a signal handler, a finaliser) is stored by the one it interrupted.
2. A segment that is used up goes to the keeper, which makes it ready to be used anew: an append waits for no file system.
3. A disk that is full costs the safety of new records, not the records: their segment is memory, and the next one is a
   file again if it can be.
"""

from __future__ import annotations

from typing import Any

from .._log import SpanLog
from .._segment import Segment
from ._journal import Journal
from ._segment_file import FileSegment

__all__ = ["JournalLog"]


class JournalLog(SpanLog):
    """`SpanLog` with `attach()`: from then on records are appended to files of a journal."""

    _journal: Journal | None = None
    _is_left = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if not self._waits:
            self.append_nowait = self._append_through  # type: ignore[method-assign]

    @property
    def segment_bytes(self) -> int:
        """Payload bytes of a segment; only a larger record has one of its own."""
        return self._segment_bytes

    def attach(self, journal: Journal) -> None:
        """Append to files of `journal` from the next record on."""
        with self._lock:
            self._store_locked()
            self._journal = journal
            self._capacity = self._end  # the open segment is memory: the next append rolls
            self._stop_at = min(self._stop_at, self._stored)
        journal.begin(self)

    def leave(self) -> None:
        """The journal is about to be closed: nothing is looked up in its files any more."""
        with self._lock:
            self._is_left = True

    def last_number_of(self, trace_id: bytes, above: int) -> int | None:
        return None if self._is_left else super().last_number_of(trace_id, above)

    def segments(self) -> list[tuple[Segment, int]]:
        """What is held, each segment with the number of its records."""
        with self._lock:
            return self._segments_from(0)

    # Appending ---------------------------------------------------------------------------------------------------

    def _append_through(self, record: bytes) -> bool:
        """`append_nowait()` without staging, and without the lock, which would cost a fifth more.

        Between here and `_storing` no call and no jump back stands: CPython changes threads and runs signal handlers only
        there. Whoever is about to change segments has set `_storing`; whoever finds it set takes the lock and waits.
        """
        size = len(record)
        start = self._end
        end = start + size
        number = self._stored
        if self._storing or end > self._capacity or number >= self._stop_at:
            self._staged.append(record)
            self._store_staged()
            return True
        self._storing = True
        try:  # making the slice can run a finaliser on 3.11; what that one appends, and others meanwhile, waits for us
            self._payload[start:end] = record
            self._words[number - self._base] = end
            self._end = end
            self._stored = number + 1
        finally:
            self._storing = False
        if self._staged:
            self._store_staged()
        elif number + 1 >= self._wake_at:
            self._tell_reader()
        return True

    # Segments ----------------------------------------------------------------------------------------------------

    def _new_segment(self, size: int) -> Segment | None:
        journal = self._journal
        segment = None if journal is None else journal.take(size, self._stored)
        return segment or super()._new_segment(size)

    def _retire(self, segment: Segment) -> None:
        if self._journal is not None and isinstance(segment, FileSegment):
            self._journal.retire(segment)
        else:
            super()._retire(segment)

    def _all_is_settled(self) -> None:
        """Keep the open segment: the next record finds its place, and the lanes' cursors say what is settled in it."""

    # Fork --------------------------------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        journal, self._journal = self._journal, None
        super().after_fork_in_child()
        if journal is not None:
            journal.forget_in_child()
