"""The journal of a dead process, read like a span log.

    claim ─▶ open() ─▶ lanes read, and release() what they are past ─▶ close(), and the directory is removed
               └ spans that were open get their records first (`_closing.py`)

Promises:

1. A record has the number that it had in its process; the key of a batch cut at the same place is the same key. Spans that
   were open are numbered after all others, and have the same numbers for whoever opens the journal again.
2. What is damaged or missing is a gap in the numbers: `read()` ends before it, `next_present()` tells where it ends.
   `corrupt` counts the records in gaps.
3. Damage is counted and never raised: each undamaged segment is delivered.
4. A segment is deleted once every lane that has a file here is past it and past the gap behind it, and nobody holds a view
   of it any more; and not while spans that were open wait for a record. So whoever comes next finds the same gaps.
5. Records are maps of their files; nothing is copied.

What is not said here is said where it is: `_contents.py` (numbers and gaps), `_closing.py` (spans that were open).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ..._contracts import Ending, Span
from ..._errors import JournalDamaged
from .._segment import find_last
from ._closing import (
    OpenSpans,
    clear_open_spans,
    lost_record,
    read_open_spans,
    remove_leftovers,
    store_lost,
    stored_among,
)
from ._contents import HeldSegment, JournalContents, existing_file, read_contents
from ._format import id_bytes, lane_file
from ._lane_file import LANE_FILE_BYTES, LaneFile

if TYPE_CHECKING:
    from ._directory import JournalDirectory

__all__ = ["OrphanLog"]


def _nothing() -> None:
    return None


class OrphanLog:
    """A journal that was claimed. From one thread, but for `totals()`, `first` and `appended`; made by `open()`.

    `close()` must be called. It does not let go of the directory: that is the caller's.
    """

    is_scoped = True
    """Nobody wrote down whether it is."""

    gap_reason = "corrupt"
    """Why records in a gap are not delivered."""

    def __init__(self, directory: JournalDirectory, contents: JournalContents, spans: OpenSpans) -> None:
        """For `open()`."""
        self.wake_at = 0
        """Nobody appends, so nobody is woken."""
        self.lost = 0
        """Spans that were open, and have a record that says so."""
        self.unreadable = contents.unreadable
        """Segment files of which nothing could be read, not even how many records they hold."""
        self.damaged_slots = spans.damaged
        """Places of open spans that could not be read."""
        self._directory = directory
        self._spans = spans
        self._gone: list[tuple[str, Callable[[], object]]] = []
        self._use(contents)

    @classmethod
    def open(cls, directory: JournalDirectory, *, boot_id: str, between: Callable[[], object] = _nothing) -> OrphanLog:
        """Read a journal that the caller has claimed, and close the spans that were open.

        `boot_id` is that of the kernel that runs now: what was written under another one counts only as far as
        marks prove it. `between` is called between the steps that write. Raises `JournalFromNewerVersion`, and
        `JournalError` if the directory cannot be read.
        """
        is_same_boot = bool(boot_id) and directory.meta.boot_id == boot_id
        contents = read_contents(directory, "words" if is_same_boot else "marks")
        try:
            log = cls(directory, contents, read_open_spans(directory))
            log.close_open_spans(between)
        except BaseException:
            contents.close()
            raise
        return log

    def close_open_spans(self, between: Callable[[], object] = _nothing) -> int:
        """Give each span that was open a record. `open()` does it; again only while `unclosed` says that it could not.

        Returns how many there are still without one.
        """
        with suppress(OSError):
            remove_leftovers(self._directory, self._contents.spares)
        between()
        if self._spans.bodies:
            with suppress(OSError, JournalDamaged):
                self._store_lost(between)
                between()
                clear_open_spans(self._directory)
                self._spans = OpenSpans()
                between()
        return self.unclosed

    def _store_lost(self, between: Callable[[], object]) -> None:
        spans = self._spans
        stored = self._stored()
        self.lost = sum(span.ending == Ending.LOST for span in stored.values())
        records = [lost_record(body, spans.heartbeat_ns) for key, body in spans.bodies.items() if key not in stored]
        if records:
            segment = store_lost(self._directory, self._contents, records, between)
            self._use(self._contents.with_segment(segment))
            self.lost += len(records)

    def _stored(self) -> dict[tuple[str, str], Span]:
        """The open spans that have a record, by (trace id, span id)."""
        return stored_among(self._spans.bodies, self._contents)

    @property
    def unclosed(self) -> int:
        """Spans that were open and still are: the disk is full or read-only. See `close_open_spans()`."""
        return len(self._spans.bodies)

    def _use(self, contents: JournalContents) -> None:
        self._contents = contents
        self._held = contents.held
        self.first = contents.first
        self.appended = contents.appended
        self.corrupt = contents.missing

    # What the journal says of itself -----------------------------------------------------------------------------

    @property
    def journal_id(self) -> str:
        """The first part of the keys of its batches."""
        return self._directory.journal_id

    @property
    def resource_bytes(self) -> bytes:
        """The process that made the spans, as an encoded `Resource` message."""
        return self._directory.meta.resource

    @property
    def scope_bytes(self) -> bytes:
        """An encoded `InstrumentationScope` message."""
        return self._directory.meta.scope

    def lane_names(self) -> list[str]:
        """The lanes that have a file here, readable or not."""
        return sorted(self._contents.lanes)

    def lane_file(self, name: str) -> LaneFile:
        """The lane's file; a new one, which begins at `first`, where there is none or it cannot be read.

        It is closed with this log. Raises `OSError`, and `JournalDamaged` where something else than a file has its name.
        """
        lane = self._contents.lanes.get(name)
        if lane is None:
            lane = self._contents.lanes[name] = self._new_lane(name)
        return lane

    def _new_lane(self, name: str) -> LaneFile:
        file = lane_file(name)
        if file in self._directory.names():
            fd = existing_file(self._directory, file, write=True)
        else:
            fd = self._directory.open_file(file, LANE_FILE_BYTES)
        return LaneFile.create(fd, id_bytes(self._directory.meta), name, start=self.first)

    def totals(self) -> tuple[int, dict[str, int]]:
        """(`appended`, nothing refused)."""
        return self.appended, {}

    @property
    def held_bytes(self) -> int:
        """Bytes of segments that are mapped."""
        return sum(len(part.segment.payload) for part in self._held)

    # Reading -----------------------------------------------------------------------------------------------------

    def read(self, number: int, max_records: int, max_bytes: int) -> tuple[list[memoryview], int]:
        """Cut the run of records from `number` on: (slices, number of records), at least one record if it is held, none where
        it is not. A run ends at a gap. The slices stay valid for as long as they are referenced."""
        slices: list[memoryview] = []
        count = size = 0
        for part in self._held if number >= self.first else ():
            if not part.base <= number + count < part.end:
                continue
            slot = number + count - part.base
            piece, records = part.segment.cut(slot, part.used, max_records - count, max_bytes - size)
            if slices and size + len(piece) > max_bytes:
                break
            slices.append(piece)
            count += records
            size += len(piece)
            if count >= max_records or size >= max_bytes or slot + records < part.used:
                break
        return slices, count

    def next_present(self, number: int) -> int:
        """The first record that is held, from `number` on; `appended` where none is."""
        for part in self._held:
            if part.base < part.end and number < part.end:
                return max(number, part.base)
        return self.appended

    def bytes_above(self, number: int) -> int:
        """Bytes of the records from `number` on."""
        return sum(_bytes_from(part, number) for part in self._held)

    def last_number_of(self, trace_id: bytes, above: int) -> int | None:
        """The newest record not below `above` that belongs to `trace_id` (16 bytes), or None."""
        needle = b"\x0a\x10" + trace_id
        for part in reversed(self._held):
            slot = find_last(needle, *part.segment.view(part.used)) if part.end > above else None
            if slot is not None:
                return part.base + slot if part.base + slot >= above else None
        return None

    # Letting go --------------------------------------------------------------------------------------------------

    def release(self, settled: int, furthest: int | None = None) -> None:
        """Every reader is past `settled`: delete the segments that no lane with a file here needs any more."""
        limit = min(settled, self._may_go_below())
        for part in self._held:
            if part.extent <= limit:
                self.first = max(self.first, part.extent)
                self._gone.append((part.segment.name, _let_go(part)))
        self._held = tuple(part for part in self._held if part.extent > limit)
        self._gone = [gone for gone in self._gone if not self._delete(*gone)]

    def _may_go_below(self) -> int:
        if self.unclosed:
            return 0  # a segment may be what tells that one of the open spans has a record
        cursors = [lane.cursor if lane is not None else 0 for lane in self._contents.lanes.values()]
        return min(cursors, default=self.appended)

    def _delete(self, name: str, viewed: Callable[[], object]) -> bool:
        """False while somebody holds a view of it. What cannot be deleted goes with the directory."""
        if viewed() is not None:
            return False
        with suppress(OSError):
            self._directory.unlink(name)
        return True

    def close(self) -> None:
        """Let go of all files but the directory's lock. May be repeated."""
        self._contents.close()
        self._held = ()

    def __repr__(self) -> str:
        return f"<OrphanLog {self.journal_id} {self.first}…{self.appended}, {self.corrupt} corrupt, {self.lost} lost>"


def _bytes_from(part: HeldSegment, number: int) -> int:
    slot = min(part.used, max(0, number - part.base))
    return part.segment.start_of(part.used) - part.segment.start_of(slot)


def _let_go(part: HeldSegment) -> Callable[[], object]:
    """Something to ask whether anybody still holds a view of its bytes: None if nobody does."""
    held = weakref.ref(part.segment.payload.obj) if part.used else _nothing
    part.segment.close()
    return held
