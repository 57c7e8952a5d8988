"""The journal of this process: its directory, the files in it, and the keeper that looks after them.

    attach ─▶ open: slab, lanes, the first segment ──▶ live ── finish(drained) ──▶ removed
                                                             └ finish(not drained) ──▶ left to the next process

Promises:

1. `take()` and `retire()` are called under the log's lock. `take()` makes system calls only in need: when no spare is
   ready; `retire()` never.
2. An error of the file system is told through `on_trouble(what, error)`, from the keeper's thread, never raised into an
   append.
3. A journal that is forgotten in a forked child is not touched there: no store, no unlink, no unlock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

from .._segment import whole_words
from ._directory import JournalDirectory
from ._format import id_bytes, lane_file, segment_file
from ._keeper import Keeper
from ._lane_file import LANE_FILE_BYTES, LaneFile
from ._mirror import Mirror, MirroredLane
from ._segment_file import FileSegment
from ._slab import OpenSlab

if TYPE_CHECKING:
    from ._log import JournalLog

__all__ = ["Journal"]

_ENOUGH_SPARES = 2
"""Files that are made ready before they are needed: with one more than the next roll takes, a log whose lanes keep up has its
own back before it would have to make another."""

_MOST_SPARES = 4
"""Files that are kept ready. One is used up in some ten milliseconds by a program that does nothing but trace."""


class Journal:
    """`time_ns` is the wall clock; `sync` is seconds between two syncs, or None; `is_mapped` False writes behind."""

    def __init__(
        self,
        directory: JournalDirectory,
        lanes: Sequence[str],
        *,
        segment_bytes: int,
        time_ns: Callable[[], int],
        sync: float | None,
        is_mapped: bool,
        on_trouble: Callable[[str, Exception], None],
    ) -> None:
        """Makes the files. Raises `OSError`, and leaves the directory, with what is in it, to the caller."""
        self.directory = directory
        self.troubles: Counter[str] = Counter()
        """Errors of the file system, by kind: `disk_full`, `deleted`, …"""
        self._id = id_bytes(directory.meta)
        self._mirror = None if is_mapped else Mirror(directory.open_file)
        self._open_file = directory.open_file if self._mirror is None else self._mirror.open_file
        self._segment_bytes = segment_bytes
        self._is_simple = is_mapped and sync is None
        """Nothing has to be on a disk, or in another file, before a segment is used anew."""
        self._names = count()
        self._numbers = count()
        self._ready: list[FileSegment] = []
        self._files: set[FileSegment] = set()
        self.lanes: dict[str, LaneFile] = {}
        self._open: FileSegment | None = None
        self.slab = OpenSlab.create(self._open_file, self._id)
        try:
            self.slab.beat(time_ns())
            self.lanes.update((name, self._new_lane(name)) for name in lanes)
            self._ready.append(self._new_spare(segment_bytes))
            if self._mirror is not None:
                self._mirror.copy()
        except BaseException:
            self._close()
            raise
        self._keeper = Keeper(self, self._mirror, time_ns=time_ns, sync=sync, on_trouble=on_trouble)
        self.slab.on_needs_room = self._keeper.ask_for_room

    def _new_lane(self, name: str) -> LaneFile:
        return LaneFile.create(self._open_file(lane_file(name), LANE_FILE_BYTES), self._id, name)

    def _new_spare(self, size: int) -> FileSegment:
        name = segment_file(next(self._names))
        segment = FileSegment.create_spare(self._open_file, name, self._id, size)
        self._files.add(segment)
        return segment

    def stores(self) -> dict[str, LaneFile | MirroredLane]:
        """Where each lane writes down what must outlive the process, by its name."""
        mirror = self._mirror
        if mirror is None:
            return {**self.lanes}
        return {name: MirroredLane(mirror, lane_file(name), lane) for name, lane in self.lanes.items()}

    def begin(self, log: JournalLog) -> None:
        """Start the keeper, now that `log` appends here."""
        self._keeper.begin(log)

    # Called under the log's lock ---------------------------------------------------------------------------------

    def take(self, size: int, base: int) -> FileSegment | None:
        """A file for records from number `base` on; None when there can be none now, and it will be told."""
        try:
            is_ready = size <= self._segment_bytes and self._ready
            segment = self._ready.pop() if is_ready else self._new_spare(size)
        except (OSError, ValueError) as error:
            self._keeper.tell(error)
            return None
        segment.assign(next(self._numbers), base)
        if self._mirror is not None:
            self._go_on_in(segment, self._mirror)
        if not self._ready:
            self._keeper.ask_for_spare()
        return segment

    def _go_on_in(self, segment: FileSegment, mirror: Mirror) -> None:
        """Only from here on: where there is no file, and no memory either, the open segment stays open."""
        before, self._open = self._open, segment
        mirror.watch(segment.name)
        if before is not None and before is not segment:
            mirror.settle(before.name)

    def retire(self, segment: FileSegment) -> None:
        """Its records are settled: it may be used anew, or go.

        Here and now if that needs nothing but memory: a thread that wants the GIL of a busy event loop is woken in vain
        each time the loop lets go of it for a moment, which cost a tenth of a span for each one.
        """
        if not (self._is_simple and self._is_wanted(segment) and segment.clear()):
            self._keeper.retire(segment)
            return
        self._ready.append(segment)

    # Called by the keeper ----------------------------------------------------------------------------------------

    def make_ready(self) -> None:
        """See that the next rolls find a file each. Raises `OSError`."""
        while len(self._ready) < _ENOUGH_SPARES:
            segment = self._new_spare(self._segment_bytes)
            segment.populate()
            self._ready.append(segment)

    def use_anew(self, segment: FileSegment) -> bool:
        """Keep a retired segment as a spare, or delete it; False while a request still holds a view of it."""
        if self._is_wanted(segment):
            if not segment.prepare():
                return False
            if self._mirror is not None:
                self._mirror.settle(segment.name)
            self._ready.append(segment)
        else:
            self.drop(segment)
        return True

    def _is_wanted(self, segment: FileSegment) -> bool:
        return len(self._ready) < _MOST_SPARES and segment.capacity == whole_words(self._segment_bytes)

    def drop(self, segment: FileSegment) -> None:
        """Delete its file."""
        self._files.discard(segment)
        if self._mirror is not None:
            self._mirror.forget(segment.name)
        with suppress(OSError):
            self.directory.unlink(segment.name)
        segment.close()

    # The end -----------------------------------------------------------------------------------------------------

    def finish(self, *, is_drained: bool) -> None:
        """Stop; remove the directory when every lane has settled everything, else leave it to the next process.

        Raises `OSError` when it cannot be removed; it is released then.
        """
        self._keeper.stop()
        self._close()
        if is_drained:
            self.directory.remove()
        else:
            self.directory.release()

    def forget_in_child(self) -> None:
        """After a fork, in the child: the journal is the parent's."""
        self.directory.forget_in_child()
        if self._mirror is not None:
            self._mirror.forget_in_child()
        self.slab.forget_in_child()
        self._close_the_rest()

    def _close(self) -> None:
        self.slab.close()
        self._close_the_rest()

    def _close_the_rest(self) -> None:
        for lane in self.lanes.values():
            lane.close()
        for segment in tuple(self._files):  # an append may be making one
            segment.close()
        if self._mirror is not None:
            self._mirror.close()
