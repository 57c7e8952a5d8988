"""The power fails at any instant, and each block of 512 bytes is on the disk or not: what a completed sync proved can be
read, and nothing is ever read that was not proved."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from asynctrace._errors import JournalDamaged
from asynctrace.spanlog.journal import FileSegment, _segment_file, _segment_reader

from . import segments
from .segments import JOURNAL_ID, History, after_power_cut, make_record, opener, read_file, records_of, store

CAPACITY = 8192
STORIES = 45
CUTS = 50
"""Of each story: 2,250 simulated cuts in all."""


class Life:
    """What a file is told to hold between two times that it is made anew."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.base = 1000 * number
        self.records: list[bytes] = []
        self.proofs: list[tuple[int, int]] = [(0, 0)]
        """(state at which its mark was begun, records)."""
        self.begun_at = 0
        self.ended_at = 1 << 62
        """The state at which the file began to be made anew."""


class Story:
    """A file through some lives: fresh, then used anew, with syncs here and there. Each store of it is recorded."""

    def __init__(self, folder: Path, chance: random.Random, kind: type[FileSegment]) -> None:
        path = folder / "00000000.seg"
        os.close(opener(folder)(path.name, _segment_file.segment_file_bytes(CAPACITY)))
        self.history = History(path)
        self.lives: list[Life] = []
        self.synced: list[tuple[Life, int] | None] = [None]
        """What each of `history.durable` must prove."""
        self._segment: FileSegment | None = None
        self._kind = kind
        self._live(path, chance)
        self.history.close()

    def _live(self, path: Path, chance: random.Random) -> None:
        for number in range(1, chance.randint(2, 4)):
            self._begin(path, number)
            for _ in range(chance.randint(1, 4)):
                self._append(chance, chance.randint(0, 8))
                if chance.random() < 0.8:
                    self._sync()
            self._append(chance, chance.randint(0, 8))
        assert self._segment
        self._segment.close()

    def _begin(self, path: Path, number: int) -> None:
        life = Life(number)
        life.begun_at = len(self.history.states)
        if self.lives:
            self.lives[-1].ended_at = life.begun_at
        self.lives.append(life)
        self._slot = self._end = 0
        self.history.record(lambda: self._take(path, life))

    def _take(self, path: Path, life: Life) -> None:
        if self._segment is None:
            self._segment = self._kind.create(
                lambda name, size: os.open(path, os.O_RDWR), path.name, JOURNAL_ID, life.number, life.base, CAPACITY
            )
        else:
            assert self._segment.recycle(life.number, life.base)

    def _append(self, chance: random.Random, count: int) -> None:
        for _ in range(count):
            record = make_record(len(self.lives[-1].records), chance.choice([20, 60, 400]), self.lives[-1].number)
            if self._end + len(record) > CAPACITY:
                return
            self.lives[-1].records.append(record)
            self.history.record(lambda record=record: self._store(record))  # type: ignore[misc]

    def _store(self, record: bytes) -> None:
        assert self._segment
        store(self._segment, self._slot, self._end, record)
        self._slot += 1
        self._end += len(record)

    def _sync(self) -> None:
        life, segment = self.lives[-1], self._segment
        assert segment
        life.proofs.append((len(self.history.states), self._slot))
        self.history.record(lambda: segment.sync(self._slot))
        self.synced += [(life, self._slot)] * (len(self.history.durable) - len(self.synced))

    def cut(self, chance: random.Random, path: Path) -> None:
        """One power cut, at any state; checks what is read afterwards."""
        instant = chance.randrange(1, len(self.history.states))
        last = max(i for i, state in enumerate(self.history.durable) if state <= instant)
        since = self.history.durable[last]
        path.write_bytes(after_power_cut(chance, self.history.states[since : instant + 1]))
        try:
            found = read_file(path, "marks")
        except JournalDamaged:
            assert self.synced[last] is None
            return
        self._check_required(found, instant, self.synced[last])
        self._check_true(found, instant)

    def _check_required(
        self, found: segments.ReadSegment | None, instant: int, synced: tuple[Life, int] | None
    ) -> None:
        if synced and instant < synced[0].ended_at:
            assert found
            assert found.number == synced[0].number
            assert found.used >= synced[1]

    def _check_true(self, found: segments.ReadSegment | None, instant: int) -> None:
        if found is None:
            return
        (life,) = (life for life in self.lives if life.number == found.number)
        assert found.base == life.base
        assert life.begun_at <= instant
        assert records_of(found) == life.records[: found.used]
        assert found.used in [records for begun, records in life.proofs if begun <= instant]


def cut_power(folder: Path, kind: type[FileSegment] = FileSegment, seed: int = 0, stories: int = STORIES) -> None:
    chance = random.Random(seed)
    for number in range(stories):
        told = folder / str(number)
        told.mkdir()
        story = Story(told, chance, kind)
        for _ in range(CUTS):
            story.cut(chance, told / "cut")


def test_what_was_synced_is_read_and_nothing_else(tmp_path: Path) -> None:
    cut_power(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 21))
def test_what_was_synced_is_read_and_nothing_else_in_many_stories(tmp_path: Path, seed: int) -> None:
    cut_power(tmp_path, seed=seed, stories=10 * STORIES)


def marks_without_checksum(patch: pytest.MonkeyPatch) -> type[FileSegment]:
    patch.setattr(_segment_reader, "_proved_by_marks", segments.proves_without_checksum)
    return FileSegment


def marks_of_any_life(patch: pytest.MonkeyPatch) -> type[FileSegment]:
    patch.setattr(_segment_file, "mark_seed", segments.no_seed)
    patch.setattr(_segment_reader, "mark_seed", segments.no_seed)
    return FileSegment


def marks_in_one_place(patch: pytest.MonkeyPatch) -> type[FileSegment]:
    return segments.MarksInOnePlace


def marks_after_the_sync(patch: pytest.MonkeyPatch) -> type[FileSegment]:
    return segments.MarksAfterTheSync


def words_trusted_after_a_cut(patch: pytest.MonkeyPatch) -> type[FileSegment]:
    patch.setattr(_segment_reader, "_proved_by_marks", lambda header, payload, words, ends: len(ends))
    return FileSegment


@pytest.mark.parametrize(
    "fault",
    [
        marks_without_checksum,
        marks_of_any_life,
        marks_in_one_place,
        marks_after_the_sync,
        words_trusted_after_a_cut,
    ],
)
def test_the_model_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], type[FileSegment]]
) -> None:
    with pytest.raises((AssertionError, ValueError)):
        cut_power(tmp_path, fault(monkeypatch))
