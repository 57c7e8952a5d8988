"""Many processes claim at once, forked and spawned, and some die of it: each orphan is delivered once, no living one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from asynctrace.spanlog.journal._directory import JournalDirectory, list_journals

from . import directories
from .directories import SPAWNED, leave_orphan, make_meta

ORPHANS = 20
LIVING = 5


def start(kind: str, folder: Path, report: Path, claim_as: str, deaths: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, directories.__file__, kind, str(folder), str(report), claim_as, str(deaths)]
    return subprocess.Popen(command)


def check_each_is_delivered_once(tmp_path: Path, claim_as: str, orphans: int = ORPHANS) -> None:
    folder, report = tmp_path / "journals", tmp_path / "report"
    folder.mkdir()
    report.touch()
    dead = {leave_orphan(folder).stem for _ in range(orphans)}
    living = [JournalDirectory.create(folder, make_meta()) for _ in range(LIVING)]
    doomed = start("doomed", folder, report, claim_as, 1.0)
    racers = [start("spawned", folder, report, claim_as, 0.3 if turn else 0.0) for turn in range(SPAWNED)]
    racers.append(start("forking", folder, report, claim_as, 0.3))
    creators = [start("creator", folder, report, claim_as, 0.0) for _ in range(2)]
    creators += [start("owner", folder, report, claim_as, 0.0) for _ in range(2)]
    try:
        assert doomed.wait(60) == -signal.SIGKILL
        (folder / "go").touch()
        robbed = [creator.wait(60) for creator in creators]
        (folder / "over").touch()
        ends = [racer.wait(60) for racer in racers]
        assert {*ends} <= {0, -signal.SIGKILL}
        dead |= {*(tmp_path / "report.born").read_text().split()}
        assert robbed == [0, 0, 0, 0], "a living journal was robbed"
        assert all(own.is_ours() for own in living), "a living journal was robbed"
        assert len(dead) == orphans + 10
        assert Counter(report.read_text().split()) == Counter(dead), "not each once"
        assert {entry.path for entry in list_journals(folder)} == {own.path for own in living}
    finally:
        for process in (doomed, *creators, *racers):
            process.kill()
            process.wait()
        for own in living:
            own.release()


def test_each_orphan_is_delivered_once_and_no_living_journal_is_robbed(tmp_path: Path) -> None:
    check_each_is_delivered_once(tmp_path, "real")


def test_claims_without_a_lock_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"robbed|not each once"):
        check_each_is_delivered_once(tmp_path, "without_lock")


@pytest.mark.long
def test_each_of_many_orphans_is_delivered_once(tmp_path: Path) -> None:
    for turn in range(20):
        (tmp_path / str(turn)).mkdir()
        check_each_is_delivered_once(tmp_path / str(turn), "real", orphans=200)
