"""Whole programs, killed at any instant: what had ended is delivered, what was open is delivered as `lost`, each once, by
whoever comes next. The programs that recover are killed too, and siblings recover one another."""

from __future__ import annotations

import itertools
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asynctrace.spanlog.journal import Mode, choose, list_journals, service_folder

from . import whole_programs
from .whole_programs import PAGE_BYTES, STARTED, Books, Starter, check_page, dead_journals, open_page, taken_over

KILLS = int(os.environ.get("ASYNCTRACE_TEST_KILLS", "240"))
LONGEST_LIFE = 0.06
"""Seconds after the first span."""
IN_A_ROW = 3
"""Programs of one service that are killed one after the other; each begins to recover those before it. Three deaths over one
journal put it aside, so no more."""
AT_ONCE = 5
SIBLING_RECOVERS_IN = 15.0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where files are mapped."""
    if choose(tmp_path).mode is Mode.MAP:
        yield tmp_path
        return
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no file system here on which journals are mapped")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


@pytest.fixture
def starter() -> Iterator[Starter]:
    made = Starter()
    try:
        yield made
    finally:
        made.close()


class Killing:
    """Programs that are killed in one folder, and the books of it."""

    def __init__(self, starter: Starter, folder: Path, seed: int, **faults: str) -> None:
        self.starter = starter
        self.folder = folder
        self.state = folder / "state"
        self.chance = random.Random(seed)
        self.pages: list[memoryview] = []
        self._faults = faults
        self._numbers = itertools.count()
        self.sinks = folder / "sinks"
        self.sinks.mkdir()
        self.kills = 0

    def start(self, service: str, mode: str = "", **options: Any) -> int:
        number = next(self._numbers)
        path = self.folder / f"page-{number}"
        with path.open("wb") as file:
            file.truncate(PAGE_BYTES)
        self.pages.append(open_page(path))
        chosen = {"threads": self.chance.choice([1, 1, 2, 4]), "tasks": self.chance.choice([0, 1, 2]), **options}
        return self.starter.start(
            "trace_for_ever",
            state=str(self.state),
            service=service,
            sink=str(self.sinks / f"{service}-{number}"),
            mode=mode or self.chance.choice(["fine", "slow", "away"]),
            page=str(path),
            seed=self.chance.randrange(1 << 30),
            fault=self._faults.get("traced", ""),
            **chosen,
        )

    def kill(self, *pids: int) -> None:
        for pid in pids:
            self.starter.kill(pid)
        self.kills += len(pids)

    def wait_until_started(self) -> None:
        deadline = time.monotonic() + 30
        while not self.pages[-1][STARTED]:
            assert time.monotonic() < deadline
            time.sleep(0.0005)

    def kill_in_a_row(self, services: list[str], programs: int = IN_A_ROW) -> None:
        """Of each service one program after the other, several services at once."""
        for _ in range(programs):
            pids = [self.start(service) for service in services]
            if self.chance.random() < 0.8:  # else perhaps before there is a journal
                self.wait_until_started()
            for pid in self.chance.sample(pids, len(pids)):
                time.sleep(self.chance.uniform(0, LONGEST_LIFE / len(pids)))
                self.kill(pid)

    def recover(self, services: list[str], *, kills: int = 0) -> None:
        """A program that only recovers; `kills` before it are killed while they do."""
        for _ in range(kills):
            pid = self._start_recovery(services)
            time.sleep(self.chance.uniform(0.0, 0.1))
            self.kill(pid)
        assert self.starter.wait(self._start_recovery(services)) == 0

    def _start_recovery(self, services: list[str]) -> int:
        return self.starter.start(
            "recover_all",
            state=str(self.state),
            services=services,
            sink=str(self.sinks / f"recovered-{next(self._numbers)}"),
            fault=self._faults.get("recovering", ""),
        )

    def check(self, services: list[str]) -> tuple[int, int, int]:
        """(spans whose end had returned, spans that were open, batches that came twice)."""
        books = Books()
        for path in sorted(self.sinks.iterdir()):
            for key, body in taken_over(path):
                books.add(key, body)
            path.unlink()
        assert books.lost.isdisjoint(books.ended), "a span has two ends"
        books.check_numbers()
        found = [check_page(page, books) for page in self.pages]
        self.pages.clear()
        for service in services:
            assert list_journals(service_folder(self.state, service)) == []
        return sum(ended for ended, _ in found), sum(opened for _, opened in found), books.repeated


def kill_often(starter: Starter, folder: Path, kills: int, seed: int = 0, **faults: str) -> tuple[int, int, int]:
    killing = Killing(starter, folder, seed, **faults)
    totals = (0, 0, 0)
    for group in itertools.count():
        if killing.kills >= kills:
            return totals
        services = [f"shop-{seed}-{group}-{number}" for number in range(AT_ONCE)]
        is_hard = group % 3 == 2
        killing.kill_in_a_row(services, 2 if is_hard else IN_A_ROW)
        killing.recover(services, kills=1 if is_hard else 0)
        ended, opened, repeated = killing.check(services)
        totals = (totals[0] + ended, totals[1] + opened, totals[2] + repeated)
    raise AssertionError


def test_nothing_that_ended_is_lost_and_nothing_stays_open(starter: Starter, folder: Path) -> None:
    ended, opened, repeated = kill_often(starter, folder, KILLS)
    assert ended > 20 * KILLS
    assert opened > KILLS
    assert repeated > 0, "no kill came while a request was under way"


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 51))
def test_nothing_is_lost_by_thousands_of_kills(starter: Starter, folder: Path, seed: int) -> None:
    kill_often(starter, folder, 100, seed)


def test_siblings_recover_a_dead_one_while_they_live(starter: Starter, folder: Path) -> None:
    killing = Killing(starter, folder, 7)
    for service in ("first", "second"):
        siblings = [killing.start(service, "fine", threads=1, tasks=0) for _ in range(2)]
        killing.wait_until_started()
        victim = killing.start(service, "away", threads=2, tasks=1)
        killing.wait_until_started()
        time.sleep(0.05)
        killing.kill(victim)
        deadline = time.monotonic() + SIBLING_RECOVERS_IN
        while dead_journals(killing.state, service) > 1:
            assert time.monotonic() < deadline, "nobody recovered it"
            time.sleep(0.05)
        killing.kill(*siblings)
    killing.recover(["first", "second"])
    killing.check(["first", "second"])


NOTICED = [
    ("traced", "word first", "records .* missing, or there twice|damaged|repeated"),
    ("traced", "stages", "ended spans are lost"),
    ("traced", "no slab", "open for ever"),
    ("traced", "no window", "in two batches|there twice"),
    ("traced", "cursor first", "missing, or there twice|ended spans are lost"),
    ("traced", "slab is not cleared", "in two batches"),
    ("recovering", "removes what is not drained", "missing, or there twice|ended spans are lost"),
    ("recovering", "numbers anew", "two ends|in two batches"),
]
"""Which process has the fault, the fault, and what is said of it."""


@pytest.mark.parametrize(("process", "fault", "said"), NOTICED)
def test_the_kill_loop_notices(starter: Starter, folder: Path, process: str, fault: str, said: str) -> None:
    with pytest.raises((AssertionError, ValueError), match=said):
        kill_often(starter, folder, 600, 3, **{process: fault})


def test_every_fault_is_tried() -> None:
    assert {fault for _, fault, _ in NOTICED} == whole_programs.FAULTS.keys()
