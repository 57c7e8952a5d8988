"""What the files of a journal hold. Reading them changes nothing, so it works on a living journal too.

    record numbers   first                                                           appended
                       │ ▓▓▓▓▓▓▓▓▓ held ▓▓▓▓▓▓▓▓▓ │░░ gap ░░│ ▓▓▓▓ held ▓▓▓▓ │░░ gap ░░│
    known from       lane cursors           next segment's base          words, lane cursors, windows

Promises:

1. A record has the number that it had in its process. What is damaged or missing is a gap in the numbers, never a shift.
2. Each undamaged segment is read, whatever lies beside it. Only `JournalError` and what is below it is raised.
3. A segment ends where the next one begins, whatever its own words say.
4. Nothing is copied: what is held is a map of its file.

What lies below the first segment that can be read may have been freed, or given up to stay within the bound, by the
process itself. It is a gap only if there is a segment file that nobody can read; else the log begins above it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from ..._errors import JournalDamaged, JournalError
from ._format import JournalMeta, id_bytes, lane_of, segment_index
from ._lane_file import LaneFile
from ._segment_reader import ReadSegment, Trust, read_segment

__all__ = [
    "HeldSegment",
    "JournalContents",
    "JournalFiles",
    "existing_file",
    "open_segment",
    "read_contents",
]


class JournalFiles(Protocol):
    """Where the files are: a `JournalDirectory`, or a look at one that somebody else holds."""

    @property
    def path(self) -> Path: ...

    @property
    def meta(self) -> JournalMeta: ...

    def names(self) -> list[str]: ...

    def existing(self, name: str, *, write: bool) -> int: ...


class HeldSegment:
    """The records `base` to `end - 1`, of one segment. Of those from there to `extent` nothing is left."""

    __slots__ = ("base", "end", "extent", "segment")

    def __init__(self, segment: ReadSegment, following: int | None) -> None:
        """`following` is where the next segment begins, None if this is the last."""
        self.segment = segment
        self.base = segment.base
        self.extent = segment.base + max(segment.used, segment.claimed) if following is None else following
        self.end = min(segment.base + segment.used, self.extent)

    @property
    def used(self) -> int:
        """How many records."""
        return self.end - self.base


class JournalContents:
    """The records of a journal, by number. `lanes` holds None for a lane whose file cannot be read; `unreadable` is how
    many segment files cannot be; `spares` are those that hold nothing."""

    def __init__(
        self,
        segments: Iterable[ReadSegment],
        lanes: dict[str, LaneFile | None],
        *,
        unreadable: int = 0,
        spares: Sequence[str] = (),
    ) -> None:
        self.lanes = lanes
        self.unreadable = unreadable
        self.spares = spares
        held = _in_order(segments)
        proved = held[-1].extent if held else 0
        self.appended = max([proved, *(lane.cut_to for lane in lanes.values() if lane is not None)])
        """The number after the last record that anything proves."""
        if held:
            held[-1].extent = self.appended
        self.held = tuple(held)
        self.first = self._first()
        """The oldest record that somebody may still want."""

    def _first(self) -> int:
        floor = self.floor
        begin = self.held[0].base if self.held else self.appended
        if floor is None:
            return begin
        return floor if self.unreadable or not self.held else max(floor, begin)

    @property
    def floor(self) -> int | None:
        """Every lane is past the records below; None where a lane's file cannot be read, or there is no lane."""
        cursors = [lane.cursor for lane in self.lanes.values() if lane is not None]
        return min(cursors) if cursors and len(cursors) == len(self.lanes) else None

    @property
    def missing(self) -> int:
        """Records from `first` on that are known to have been, and are not held."""
        held = sum(max(0, part.end - max(part.base, self.first)) for part in self.held)
        return self.appended - self.first - held

    def with_segment(self, segment: ReadSegment) -> JournalContents:
        """The same and one more segment."""
        segments = [*(part.segment for part in self.held), segment]
        return JournalContents(segments, self.lanes, unreadable=self.unreadable)

    def close(self) -> None:
        """Let go of the files. May be repeated."""
        for part in self.held:
            part.segment.close()
        for lane in self.lanes.values():
            if lane is not None:
                lane.close()


def _in_order(segments: Iterable[ReadSegment]) -> list[HeldSegment]:
    ordered = sorted(segments, key=lambda segment: (segment.base, segment.number))
    following: list[int | None] = [segment.base for segment in ordered]
    return [HeldSegment(*pair) for pair in zip(ordered, [*following[1:], None], strict=False)]


def read_contents(files: JournalFiles, trust: Trust) -> JournalContents:
    """Read the segments as far as `trust` goes, and the lanes.

    Raises `JournalFromNewerVersion` if one of the files is of a newer version, and `JournalError` if the directory
    cannot be read.
    """
    try:
        names = files.names()
    except OSError as error:
        raise JournalError(f"the journal {files.path} cannot be read: {error.strerror}") from error
    segments: list[ReadSegment] = []
    spares: list[str] = []
    unreadable = 0
    for name in names:
        if segment_index(name) is None:
            continue
        try:
            segment = open_segment(files, name, trust)
        except JournalDamaged:
            unreadable += 1
        else:
            spares += [name] if segment is None else []
            segments += [] if segment is None else [segment]
    lanes = dict(_read_lane(files, name) for name in names if lane_of(name))
    return JournalContents(segments, lanes, unreadable=unreadable, spares=spares)


def open_segment(files: JournalFiles, name: str, trust: Trust) -> ReadSegment | None:
    """`read_segment()` by name. Raises as that does."""
    fd = existing_file(files, name)
    try:
        return read_segment(fd, name, journal_id=id_bytes(files.meta), trust=trust)
    finally:
        os.close(fd)


def _read_lane(files: JournalFiles, name: str) -> tuple[str, LaneFile | None]:
    """The lane's name, from its file where that can be read, and the lane."""
    try:
        lane = LaneFile.open(existing_file(files, name, write=True))
    except (JournalDamaged, OSError):
        return lane_of(name) or name, None
    if lane.journal_id == id_bytes(files.meta):
        return lane.name, lane
    lane.close()
    return lane_of(name) or name, None


def existing_file(files: JournalFiles, name: str, *, write: bool = False) -> int:
    """A descriptor of a plain file of the journal. Raises `JournalDamaged` for whatever else has the name."""
    try:
        if stat.S_ISREG(os.lstat(files.path / name).st_mode):  # opening a pipe would wait for its other end
            return files.existing(name, write=write)
    except OSError as error:
        raise JournalDamaged(f"{name} cannot be opened: {error.strerror}") from error
    raise JournalDamaged(f"{name} is not a plain file")
