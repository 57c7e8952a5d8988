"""A traced program in miniature whose files are written behind, what it leaves when it is killed at any write, and mirrors
with one fault each."""

from __future__ import annotations

import errno
import os
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asynctrace.spanlog.journal import FileSegment, _mirror, _mirror_files, _slab
from asynctrace.spanlog.journal._format import lane_file, segment_file, slab_file
from asynctrace.spanlog.journal._lane_file import LaneFile
from asynctrace.spanlog.journal._mirror import Mirror, MirroredLane
from asynctrace.spanlog.journal._slab import OpenSlab, inspect_slab

from .segments import JOURNAL_ID, make_record, numbers_in, opener, read_file, records_of

CAPACITY = 4096
"""Of a segment: a few dozen records."""
ENTRIES = 96
"""Of a half of the lane's file: full after a few dozen operations."""
SLOTS = 64
LANE = lane_file("otlp")

Kill = Callable[[], None]


def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slabs that are quick to read and grow soon."""
    monkeypatch.setattr(_slab, "_STEP", SLOTS)
    monkeypatch.setattr(_slab, "_RESERVE", 8)
    monkeypatch.setattr(_slab, "SLAB_FILE_BYTES", 4096 + SLOTS * 256)


def body_of(span: int) -> bytes:
    return struct.pack("<Q", span) + bytes([1 + span % 250]) * (span % 90)


def span_in(body: bytes) -> int:
    span: int = struct.unpack_from("<Q", body)[0]
    if body != body_of(span):
        raise ValueError(f"open span {span} is torn")
    return span


class Program:
    """Opens spans, ends them, sends what has ended, and uses segments anew, each at random; `copy()` when it is told to."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.mirror = _mirror.Mirror(opener(folder))
        self.slab = OpenSlab.create(self.mirror.open_file, JOURNAL_ID)
        self.slab.on_needs_room = self.slab.grow
        self.lane = LaneFile.create(
            self.mirror.open_file(LANE, 4096 + 64 * ENTRIES), JOURNAL_ID, "otlp", entries=ENTRIES
        )
        self._store = MirroredLane(self.mirror, LANE, self.lane)
        self._files = self._numbers = 0
        self._spares: list[FileSegment] = []
        self.held: list[FileSegment] = []
        self.spans = 0
        """How many have been opened."""
        self.open: dict[int, int] = {}
        self.record_of: dict[int, int] = {}
        """The record of each span that has ended."""
        self.log: list[int] = []
        """The span of each record."""
        self._end = 0
        self._windows = 0
        self._take()
        self.may_drop = True
        self._is_sending = False
        self.covered = (0, 0, 0)
        """(spans, records, cursor) at the last copy that completed."""
        self.copy()

    def copy(self) -> None:
        state = (self.spans, len(self.log), self.lane.cursor)
        self.mirror.copy()
        self.covered = state

    def step(self) -> None:
        chance = self.chance.random()
        if chance < 0.9:
            self.step_beside(self._store)
        elif chance < 0.95:
            self.held[-1].sync(len(self.log) - self.held[-1].base)
        else:
            self._use_anew()

    def step_beside(self, lane: LaneFile | MirroredLane | None = None) -> None:
        """What another thread may do while the keeper's is copying. Where that writes a lane, it would wait: left out."""
        chance = self.chance.random()
        if chance < 0.44:
            self._open()
        elif chance < 0.88:
            self._close()
        else:
            self._send(lane or self.lane)

    def _open(self) -> None:
        slot = self.slab.enter(body_of(self.spans))
        if slot > 0:
            self.open[self.spans] = slot
            self.spans += 1

    def _close(self) -> None:
        if self.open:
            span = self.chance.choice(list(self.open))
            self.record_of[span] = len(self.log)
            self.append(span)
            self.slab.leave(self.open.pop(span))

    def append(self, span: int) -> None:
        record = make_record(span, self.chance.choice([0, 60, 300]))
        segment = self.held[-1]
        slot = len(self.log) - segment.base
        if self._end + len(record) > segment.capacity or slot >= segment.slots:
            self.mirror.settle(segment.name)
            segment, slot = self._take(), 0
        self.log.append(span)
        end = self._end + len(record)
        segment.payload[self._end : end] = record
        segment.words[slot] = end
        self._end = end

    def _take(self) -> FileSegment:
        segment = self._spares.pop() if self._spares else self._new()
        segment.assign(self._numbers, len(self.log))
        self._numbers += 1
        self._end = 0
        self.held.append(segment)
        self.mirror.watch(segment.name)
        return segment

    def _new(self) -> FileSegment:
        self._files += 1
        return FileSegment.create_spare(
            self.mirror.open_file,
            segment_file(self._files - 1),
            JOURNAL_ID,
            self.chance.choice([CAPACITY, 2 * CAPACITY]),
        )

    def _send(self, lane: LaneFile | MirroredLane) -> None:
        cursor, known = self.lane.cursor, len(self.log)
        count = min(known - cursor, self.chance.choice([1, 5, 50]))
        if count > 0 and not self._is_sending:
            self._is_sending = True
            assert lane.open_window(cursor, count)
            if self.chance.random() < 0.3:
                lane.add_run(cursor, 1, "rejected", "because")
            lane.move_cursor(cursor + count)
            self._is_sending = False

    def _use_anew(self) -> None:
        while len(self.held) > 1 and self.held[1].base <= self.lane.cursor:
            segment = self.held.pop(0)
            if len(self._spares) < 2 or not self.may_drop:
                assert segment.prepare()
                self.mirror.settle(segment.name)
                self._spares.append(segment)
            else:
                self.mirror.forget(segment.name)
                os.unlink(self.folder / segment.name)
                segment.close()

    def close(self) -> None:
        self.mirror.close()
        self.slab.close()
        self.lane.close()
        for segment in [*self.held, *self._spares]:
            segment.close()

    # What it leaves --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """What a successor reads now is what was, and holds all that the last copy covered."""
        spans, records, cursor = self.covered
        lane = read_lane(self.folder)
        held = read_records(self.folder)
        noted = read_slab(self.folder)
        assert cursor <= lane <= self.lane.cursor
        assert all(self.log[number : number + 1] == [span] for number, span in held.items())
        assert all(number in held for number in range(lane, records)), "records are lost"
        assert noted <= set(range(self.spans))
        for span in range(spans):
            number = self.record_of.get(span, len(self.log))
            assert span in noted or number in held or number < lane, f"span {span} is lost"


def read_lane(folder: Path) -> int:
    lane = LaneFile.open(os.open(folder / LANE, os.O_RDWR | os.O_CLOEXEC))
    try:
        return lane.cursor
    finally:
        lane.close()


def read_records(folder: Path) -> dict[int, int]:
    """The span of each record, by its number."""
    held: dict[int, int] = {}
    for path in sorted(folder.glob("*.seg")):
        for trust in ("words", "marks"):
            segment = read_file(path, trust)
            if segment is None:
                continue
            assert not segment.damaged or trust == "marks"
            found = dict(enumerate(map(numbers_in, records_of(segment)), segment.base))
            assert trust == "words" or found.items() <= {n: (span, 0) for n, span in held.items()}.items()
            held.update((number, span) for number, (span, _) in found.items())
    return held


def read_slab(folder: Path) -> set[int]:
    fd = os.open(folder / slab_file(0), os.O_RDONLY | os.O_CLOEXEC)
    try:
        reading = inspect_slab(fd, JOURNAL_ID)
    finally:
        os.close(fd)
    assert not reading.damaged
    return {span_in(body) for body in reading.bodies}


@contextmanager
def writes(
    monkeypatch: pytest.MonkeyPatch, after: Kill, *, fails: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Call `after` behind each write. One for which `fails()` writes a half, and is told that the disk is full."""
    real = os.pwrite

    def pwrite(fd: int, content: bytes | memoryview, at: int) -> int:
        if not fails():
            written = real(fd, content, at)
            after()
            return written
        real(fd, content[: len(content) // 2 // 512 * 512], at)
        after()
        raise OSError(errno.ENOSPC, "there is no space left, says the test")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        yield


# Doubles ---------------------------------------------------------------------------------------------------------------


class StateFirst(_mirror.SegmentCopy):
    """The header vouches for what is not there yet."""

    def _free(self, header: bytes) -> None:
        super()._free(header)
        if int.from_bytes(header[16:24], "little") >> 32:
            self._store(header[16:24], 16)


class WordsFirst(_mirror.SegmentCopy):
    def _write_payload(self, end: int) -> None:
        at, _ = self._place_of_words()
        records = 0
        while self._words[at + records] and self._words[at + records] <= end:
            records += 1
        self._store(self._words[at + self._records : at + records].tobytes(), (at + self._records) * 8)
        self.wait()
        super()._write_payload(end)

    def wait(self) -> None:
        """Between the two."""


class KeepsTheOldState(_mirror.SegmentCopy):
    """The old header goes on vouching, for records of a new life."""

    def _free(self, header: bytes) -> None:
        self._life = b""
        self._records = self._end = 0

    def _write_header(self, header: bytes, life: bytes) -> None:
        self._store(header, 0)
        self._header, self._life = header, life


class LeavesTheWords(_mirror.SegmentCopy):
    """Words of the life before stay."""

    def _write_words(self, at: int, records: int, words: bytes) -> None:
        self._stale = 0
        super()._write_words(at, records, words)


class ReplacesRegardless(_mirror.SegmentCopy):
    """What the lanes' files say does not matter."""

    def copy(self, *, may_replace: bool) -> bool:
        return super().copy(may_replace=True)


class GenerationFirst(_mirror.LaneCopy):
    def _write_state(self, image: bytes) -> None:
        self._write_changes(image, 0, 4096)
        super()._write_state(image)


class NoSteppingStone(_mirror.LaneCopy):
    def _copy(self) -> bool:
        self._write_state(self._memory[:])
        return True


class FromTheEnd(_mirror.LaneCopy):
    """Later entries before earlier ones."""

    def _write_changes(self, image: bytes, start: int, stop: int) -> None:
        for at in range((stop - 1) // 4096 * 4096, start - 1, -4096):
            super()._write_changes(image, at, min(at + 4096, stop))


class TrustsFailedWrites(_mirror.LaneCopy):
    """What was to be written counts as written."""

    def _write_page(self, page: bytes, at: int) -> None:
        self._shadow[at : at + len(page)] = page
        self._store(page, at)


class ForgetsFailedPages(_mirror.SlabCopy):
    """The same of the slab."""

    def write(self) -> None:
        try:
            super().write()
        finally:
            for at, page in self._seen.items():
                self._shadow[at // _mirror_files._CHUNK][at % _mirror_files._CHUNK :][: len(page)] = page
            for number in range(len(self._shadow)):
                self._shadow[number][:] = self._memory[number * _mirror_files._CHUNK :][: len(self._shadow[number])]
            self._seen.clear()


class SegmentsFirst(Mirror):
    """A segment is used anew before the cursor is there that passed it."""

    def _copy_all(self) -> list[OSError]:
        return self._copy_segments(may_replace=True)[1] + super()._copy_all()


class SlabFirst(Mirror):
    """A span ceases to be open before its record is there."""

    def _copy_all(self) -> list[OSError]:
        failures = _mirror._try_each([slab.look for slab in self._slabs.values()])
        failures += _mirror._try_each([slab.write for slab in self._slabs.values()])
        return failures + super()._copy_all()


class SlabAfterwards(Mirror):
    """The slab is looked at after the segments: what ends in between is in neither."""

    def _copy_segments(self, *, may_replace: bool) -> tuple[bool, list[OSError]]:
        outcome = super()._copy_segments(may_replace=may_replace)
        _mirror._try_each([slab.look for slab in self._slabs.values()])
        return outcome


class SlabInAnyCase(Mirror):
    """A span ceases to be open although its record could not be written."""

    def _copy_segments(self, *, may_replace: bool) -> tuple[bool, list[OSError]]:
        return True, super()._copy_segments(may_replace=may_replace)[1]


FAULTS = {
    fault.__name__: (place, fault)
    for place, fault in (
        ("SegmentCopy", StateFirst),
        ("SegmentCopy", WordsFirst),
        ("SegmentCopy", KeepsTheOldState),
        ("SegmentCopy", LeavesTheWords),
        ("LaneCopy", GenerationFirst),
        ("Mirror", SegmentsFirst),
        ("Mirror", SlabFirst),
        ("Mirror", SlabAfterwards),
    )
}
"""Faults that a kill shows."""

FAULTS_IN_NEED = {
    fault.__name__: (place, fault)
    for place, fault in (
        ("SegmentCopy", ReplacesRegardless),
        ("LaneCopy", TrustsFailedWrites),
        ("SlabCopy", ForgetsFailedPages),
        ("Mirror", SlabInAnyCase),
    )
}
"""Faults that a full disk shows."""
