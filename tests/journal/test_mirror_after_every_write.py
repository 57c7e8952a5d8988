"""A process whose journal is written behind is killed between any two writes: each file reads back as a state that it had,
what the last completed copy covered is there, and no file claims what another one lacks. Also where writes fail."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from asynctrace._errors import JournalError
from asynctrace.spanlog.journal import _mirror
from asynctrace.spanlog.journal._lane_file import LaneFile

from . import mirrors
from .lane_models import JOURNAL, History, Model, Watched, apply, view_of
from .mirrors import FAULTS, FAULTS_IN_NEED, LANE, Program, writes
from .segments import opener

STEPS = 1500

WRONG = (AssertionError, ValueError, JournalError)


@pytest.fixture(autouse=True)
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    mirrors.small_slabs(monkeypatch)


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, seed: int, *, is_full_at_times: bool = False) -> Program:
    """Let a program go on, also in the middle of a copy, and look at its files after each write."""
    folder.mkdir()
    program = Program(folder, seed)
    program.may_drop = not is_full_at_times
    chance = program.chance

    def after() -> None:
        program.check()
        if chance.random() < 0.3:
            program.step_beside()

    try:
        with writes(monkeypatch, after, fails=lambda: is_full_at_times and chance.random() < 0.2):
            go_on(program)
        program.copy()
        program.check()
    finally:
        program.close()
    return program


def go_on(program: Program) -> None:
    for _ in range(STEPS):
        program.step()
        if program.chance.random() < 0.05:
            copy(program)


def copy(program: Program) -> None:
    try:
        program.copy()
    except OSError:
        return
    program.check()


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_between_two_writes_leaves_what_was_copied_and_nothing_torn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int
) -> None:
    program = run(monkeypatch, tmp_path / "journal", seed)
    assert len(program.log) > 300
    assert program.lane.cursor > 100
    assert program.held[-1].number > 2 * len(list((tmp_path / "journal").glob("*.seg"))), "files were used anew"


@pytest.mark.parametrize("seed", range(4))
def test_writes_that_fail_change_nothing_of_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int) -> None:
    assert len(run(monkeypatch, tmp_path / "journal", seed, is_full_at_times=True).log) > 300


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 200))
def test_a_kill_between_two_writes_in_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int) -> None:
    run(monkeypatch, tmp_path / "journal", seed, is_full_at_times=bool(seed % 2))


def seeds_until_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_full_at_times: bool) -> None:
    for seed in range(20):
        run(monkeypatch, tmp_path / str(seed), seed, is_full_at_times=is_full_at_times)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_notices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str) -> None:
    monkeypatch.setattr(_mirror, *FAULTS[fault])
    with pytest.raises(WRONG):
        seeds_until_noticed(monkeypatch, tmp_path, is_full_at_times=False)


@pytest.mark.parametrize("fault", FAULTS_IN_NEED)
def test_the_check_notices_where_writes_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str) -> None:
    monkeypatch.setattr(_mirror, *FAULTS_IN_NEED[fault])
    with pytest.raises(WRONG):
        seeds_until_noticed(monkeypatch, tmp_path, is_full_at_times=True)


# A lane alone, in all that it says -------------------------------------------------------------------------------------


class Copied(Watched):
    """Is copied now and then in the middle of an operation, as it is by another thread."""

    between = staticmethod(lambda: None)

    def _store(self, index: int, word: int) -> None:
        super()._store(index, word)
        self.between()


class Story:
    """A lane's history, with the file behind it looked at after each write: it may only go forward."""

    def __init__(self, folder: Path, seed: int, entries: int) -> None:
        folder.mkdir()
        self._path = folder / LANE
        self._chance = random.Random(seed)
        self._model = Model()
        self._operations = History(seed).operations(self._model)
        self._mirror = _mirror.Mirror(opener(folder))
        self.lane = Copied.create(self._mirror.open_file(LANE, 4096 + 64 * entries), JOURNAL, "otlp", entries=entries)
        self.lane.stores = []
        self._views = [view_of(self.lane)]
        self._reached = 0
        self._mirror.copy()
        self.lane.between = self._perhaps_copy

    def look(self) -> None:
        found = LaneFile.open(os.open(self._path, os.O_RDWR | os.O_CLOEXEC))
        try:
            view = view_of(found)
        finally:
            found.close()
        ahead = [place for place in range(self._reached, len(self._views)) if self._views[place] == view]
        assert ahead, "a state that the lane did not have, or not since the last copy"
        self._reached = ahead[0]

    def go_on(self, every: int) -> None:
        for _ in range(600):
            operation = next(self._operations)
            apply(self._model, operation)
            self._views.append(self._model.view())
            apply(self.lane, operation)
            if self._chance.random() < 1 / every:
                self._mirror.copy()
                self._reached = len(self._views) - 1
                self.look()

    def _perhaps_copy(self) -> None:
        if self._chance.random() < 0.002:
            self._mirror.copy_one(LANE)

    def close(self) -> None:
        self._mirror.close()
        self.lane.close()


def tell(monkeypatch: pytest.MonkeyPatch, folder: Path, seed: int, entries: int, every: int) -> int:
    """Of a story with a copy about each so many operations: how many generations the lane has seen."""
    story = Story(folder, seed, entries)
    try:
        with writes(monkeypatch, story.look):
            story.go_on(every)
        return story.lane._generation
    finally:
        story.close()


@pytest.mark.parametrize("every", [1, 5, 30, 100])
@pytest.mark.parametrize("entries", [96, 512])
def test_a_lane_reads_back_as_it_was_at_some_time_since_the_last_copy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entries: int, every: int
) -> None:
    assert tell(monkeypatch, tmp_path / "lane", every, entries, every) > 600 // entries


@pytest.mark.parametrize("fault", ["GenerationFirst", "NoSteppingStone", "FromTheEnd"])
def test_the_look_at_a_lane_notices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str) -> None:
    monkeypatch.setattr(_mirror, "LaneCopy", getattr(mirrors, fault))
    with pytest.raises(WRONG):
        tell_some(monkeypatch, tmp_path, 512 if fault == "FromTheEnd" else 96)


def tell_some(monkeypatch: pytest.MonkeyPatch, folder: Path, entries: int) -> None:
    for every in (30, 60, 100):
        tell(monkeypatch, folder / f"{every}", every, entries, every)
