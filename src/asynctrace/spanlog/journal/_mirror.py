"""Files of a journal written behind: for file systems on which a store into a mapped file may end the process.

    segments, slab, lanes ── stores ──▶ memory files ── copy(), every 20 ms ──▶ files, in the same format

Promises:

1. What was stored when a `copy()` began is in the files when it returns, and survives the process. Whatever came later may
   be lost with it: what 20 milliseconds bring.
2. A process that is killed between any two writes of a copy leaves files each of which reads back as a state that it had.
   None claims what another one lacks, because they are written in this order:

       lanes ──▶ segments, the older first ──▶ slab (as it was before the segments were looked at)

   A cursor is in its file before a segment that it passed is overwritten, and a record before its span ceases to be open.
3. A disk that is full costs nothing that the memory holds: `copy()` raises, and what was not written is tried again by the
   next. While a lane cannot be written, no segment is overwritten with newer records; while a segment cannot, what ends does
   not cease to be open.
4. `watch()` and `settle()` take no lock and make no system call.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from ._lane_file import LaneFile
from ._mirror_files import LaneCopy, SegmentCopy, SlabCopy, memory_file

__all__ = ["Mirror", "MirroredLane"]

_PATIENCE: Final = 5.0
"""Seconds to wait for another `copy()`, which may be waiting for a disk."""
_Outcome = tuple[bool, list[OSError]]
"""(whether the files have all that was to be copied, what went wrong)"""


class Mirror:
    """Memory files in the place of those that `open_file(name, size)` makes. `close()` must be called."""

    def __init__(self, open_file: Callable[[str, int], int]) -> None:
        self._open_file = open_file
        self._lanes: dict[str, LaneCopy] = {}
        self._slabs: dict[str, SlabCopy] = {}
        self._segments: dict[str, SegmentCopy] = {}
        self._watched: set[str] = set()
        self._settling: list[str] = []
        self._due: set[str] = set()
        self._lock = threading.Lock()
        """Held by a copy of everything. Each file has a lock of its own as well: a lane does not wait for the segments."""

    # Files -------------------------------------------------------------------------------------------------------

    def open_file(self, name: str, size: int) -> int:
        """A memory file of `size` zeros, whose descriptor is the caller's, and behind it a real one. Raises `OSError`."""
        memory = memory_file(name, size)
        try:
            self._add(name, memory, size)
        except BaseException:
            os.close(memory)
            raise
        return memory

    def _add(self, name: str, memory: int, size: int) -> None:
        kind = os.path.splitext(name)[1]
        if kind == ".lane":
            self._lanes[name] = LaneCopy(self._open_file, name, memory, size)
        elif kind == ".slab":
            self._slabs[name] = SlabCopy(self._open_file, name, memory, size)
        else:
            self._segments[name] = SegmentCopy(self._open_file, name, memory, size)

    def watch(self, name: str) -> None:
        """Records are appended to this segment from now on: look at it in each copy. Slabs and lanes always are looked at."""
        self._watched.add(name)

    def settle(self, name: str) -> None:
        """Nothing is appended to this segment any more: look at it once more, in the next copy that begins."""
        self._settling.append(name)
        self._watched.discard(name)

    def forget(self, name: str) -> None:
        """Its file is going to be deleted. Writes the lanes first, if that can be: their cursors have passed it."""
        self._copy_lanes()
        self._watched.discard(name)
        self._due.discard(name)
        if (segment := self._segments.pop(name, None)) is not None:
            segment.close()

    # Copying -----------------------------------------------------------------------------------------------------

    def copy(self) -> None:
        """Write what has changed. Raises the first `OSError`, after having tried every file whose turn came."""
        if not self._lock.acquire(timeout=_PATIENCE):
            raise TimeoutError(errno.ETIMEDOUT, "the files of the journal are being written for too long")
        try:
            failures = self._copy_all()
        finally:
            self._lock.release()
        if failures:
            raise failures[0]

    def copy_one(self, name: str) -> None:
        """Write what has changed in a lane's file. Waits for no other file. Raises `OSError`."""
        if (lane := self._lanes.get(name)) is not None:  # else it was closed
            lane.copy()

    def sync(self) -> None:
        """`copy()`, and wait until the disk has it. Raises `OSError`."""
        self.copy()
        files = [*self._lanes.values(), *self._segments.values(), *self._slabs.values()]
        failures = _try_each([file.sync for file in files])
        if failures:
            raise failures[0]

    def _copy_all(self) -> list[OSError]:
        slabs = list(self._slabs.values())
        failures = _try_each([slab.look for slab in slabs])
        lanes_are_there, of_lanes = self._copy_lanes()
        records_are_there, of_segments = self._copy_segments(may_replace=lanes_are_there)
        failures += of_lanes + of_segments
        if records_are_there:
            failures += _try_each([slab.write for slab in slabs])
        return failures

    def _copy_lanes(self) -> _Outcome:
        return _outcome_of([lane.copy for lane in list(self._lanes.values())])

    def _copy_segments(self, *, may_replace: bool) -> _Outcome:
        while self._settling:
            self._due.add(self._settling.pop())
        self._due.intersection_update(self._segments)
        named = [(name, self._segments.get(name)) for name in self._due.union(list(self._watched))]
        found = [(name, segment) for name, segment in named if segment is not None]
        found.sort(key=lambda pair: pair[1].number)  # what is lost with the process is the newest
        return _outcome_of([partial(self._copy_segment, name, segment, may_replace) for name, segment in found])

    def _copy_segment(self, name: str, segment: SegmentCopy, may_replace: bool) -> bool:
        is_there = segment.copy(may_replace=may_replace)
        if is_there:
            self._due.discard(name)
        return is_there

    # Its end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back descriptors and memory; a file that another thread is writing at this moment keeps its own."""
        for files in (self._lanes, self._slabs, self._segments):
            _close_all(files, forcibly=False)

    def forget_in_child(self) -> None:
        """After a fork, in the child: the same, whatever other threads of the parent were doing."""
        for files in (self._lanes, self._slabs, self._segments):
            _close_all(files, forcibly=True)
        self._watched.clear()
        self._due.clear()


def _try_each(jobs: Iterable[Callable[[], object]]) -> list[OSError]:
    return [failure for job in jobs if (failure := _try(job)) is not None]


def _try(job: Callable[[], object]) -> OSError | None:
    try:
        job()
    except OSError as error:
        return error
    return None


def _outcome_of(copies: Sequence[Callable[[], bool]]) -> _Outcome:
    there: list[bool] = []
    failures = _try_each([partial(_note, copy, there) for copy in copies])
    return sum(there) == len(copies), failures


def _note(copy: Callable[[], bool], there: list[bool]) -> None:
    there.append(copy())


def _close_all(files: dict[str, Any], *, forcibly: bool) -> None:
    for file in list(files.values()):
        file.close(forcibly=forcibly)
    files.clear()


class MirroredLane:
    """Where a lane writes down what must outlive the process: a window is in the lane's real file before its bytes leave."""

    def __init__(self, mirror: Mirror, file_name: str, lane: LaneFile) -> None:
        self._mirror = mirror
        self._file_name = file_name
        self._lane = lane
        self.add_run = lane.add_run
        self.move_cursor = lane.move_cursor

    @property
    def cursor(self) -> int:
        return self._lane.cursor

    def open_window(self, first: int, count: int) -> bool:
        """See `LaneFile.open_window()`. A file that cannot be written stops nobody from sending: a copy tells of it."""
        opened = self._lane.open_window(first, count)
        if opened:
            with suppress(OSError):
                self._mirror.copy_one(self._file_name)
        return opened
