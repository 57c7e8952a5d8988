"""A look at a journal that somebody else may hold: nothing is locked, claimed or changed, not even the time of a file.

Its owner may go on meanwhile. So lanes are read from copies of their files, and the records of a segment are handed out
only if the file holds the same segment after they were copied as before.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..._errors import JournalDamaged
from ._closing import read_open_spans, stored_among
from ._contents import HeldSegment, JournalContents, open_segment, read_contents
from ._format import LOCK_FILE, META_FILE, JournalMeta
from ._segment_reader import Trust

__all__ = ["JournalLook"]


class JournalLook:
    """The journal in the directory `path`, which `meta` describes. `close()` must be called.

    Raises `JournalFromNewerVersion`, and `JournalError` if the directory cannot be read.
    """

    def __init__(self, path: Path, meta: JournalMeta, *, boot_id: str) -> None:
        self.path = path
        self.meta = meta
        self._trust: Trust = "words" if boot_id and meta.boot_id == boot_id else "marks"
        self._contents: JournalContents = read_contents(self, self._trust)
        self.damaged = self._contents.missing
        """Records that are known to have been, and cannot be read."""

    def names(self) -> list[str]:
        """As `JournalDirectory.names()`."""
        return sorted(name for name in os.listdir(self.path) if name not in (LOCK_FILE, META_FILE))

    def existing(self, name: str, *, write: bool) -> int:
        """A descriptor of a file; of a copy of it, where the caller would write."""
        fd = os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        return _copy(fd) if write else fd

    @property
    def appended(self) -> int:
        """The number after the last record."""
        return self._contents.appended

    @property
    def settled(self) -> int:
        """Every lane is past the records below; 0 where that cannot be read."""
        return (self._contents.floor or 0) if self._contents.lanes else self._contents.appended

    def waiting(self) -> dict[str, int | None]:
        """For each lane, how many records are not settled; None where its file cannot be read."""
        lanes = self._contents.lanes
        return {
            name: None if lane is None else max(0, self._contents.appended - lane.cursor)
            for name, lane in sorted(lanes.items())
        }

    def open_spans(self) -> list[bytes]:
        """Partial `Span` messages of the spans that are open."""
        spans = read_open_spans(self)
        stored = stored_among(spans.bodies, self._contents)
        return [body for key, body in spans.bodies.items() if key not in stored]

    def pieces(self, most: int = 512, most_bytes: int = 512 * 1024) -> Iterator[bytes]:
        """The records that some lane still wants, in order: each time some of them, laid end to end."""
        for part in self._contents.held:
            copied = list(self._copied(part, most, most_bytes))
            if self._is_still_there(part):
                yield from copied

    def _copied(self, part: HeldSegment, most: int, most_bytes: int) -> Iterator[bytes]:
        slot = max(0, self._contents.first - part.base)
        while slot < part.used:
            piece, records = part.segment.cut(slot, part.used, most, most_bytes)
            yield bytes(piece)
            slot += records

    def _is_still_there(self, part: HeldSegment) -> bool:
        """Its owner may have used the file anew while we copied."""
        try:
            again = open_segment(self, part.segment.name, self._trust)
        except JournalDamaged:
            return not part.used
        if again is None:
            return not part.used
        is_same = (again.base, again.number) == (part.base, part.segment.number)
        again.close()
        return is_same

    def close(self) -> None:
        """Let go of all files. May be repeated."""
        self._contents.close()


def _copy(fd: int) -> int:
    try:
        with tempfile.TemporaryFile() as file:
            _pour(fd, file)
            return os.dup(file.fileno())
    finally:
        os.close(fd)


def _pour(fd: int, file: IO[bytes]) -> None:
    while piece := os.read(fd, 1 << 20):
        file.write(piece)
    file.flush()
