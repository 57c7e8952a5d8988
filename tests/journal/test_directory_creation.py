"""A journal's directory comes into being at once, locked, or not at all."""

from __future__ import annotations

import itertools
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from asynctrace.spanlog.journal._directory import JournalDirectory, claim, list_journals
from asynctrace.spanlog.journal._format import JournalMeta
from asynctrace.spanlog.journal._retention import sweep

from ..spanlog.instants import every_instant
from . import directories
from .directories import (
    MINUTE,
    at_every_line,
    before_each_line,
    die,
    everything_below,
    in_child,
    make_meta,
    open_locks,
    states,
)

Create = Callable[[Path, JournalMeta], JournalDirectory]


def test_what_is_created_is_locked_and_owner_only(tmp_path: Path) -> None:
    meta = make_meta()
    own = JournalDirectory.create(tmp_path, meta, sync=True)
    os.close(own.open_file("00000000.seg", 4096))
    try:
        assert own.path == tmp_path / f"{meta.journal_id}.j"
        assert own.journal_id == meta.journal_id
        assert own.is_ours()
        assert own.names() == ["00000000.seg"]
        assert states(tmp_path) == ["live"]
        assert list_journals(tmp_path)[0].meta == meta
        assert stat.S_IMODE(own.path.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in own.path.iterdir()} == {0o600}
    finally:
        own.remove()
    assert everything_below(tmp_path) == []


def check_it_cannot_be_robbed_at_birth(folder: Path, create: Create) -> None:
    def rob() -> None:
        assert [path for path in folder.glob("*.j") if claim(path)] == [], "robbed"

    for where, outcome in at_every_line(lambda: lambda: create(folder, make_meta()), rob):
        assert isinstance(outcome, JournalDirectory), where
        outcome.remove()


def test_a_journal_cannot_be_robbed_while_it_is_created(tmp_path: Path) -> None:
    check_it_cannot_be_robbed_at_birth(tmp_path, JournalDirectory.create)


def test_a_name_before_the_lock_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_it_cannot_be_robbed_at_birth(tmp_path, directories.create_renamed_before_locked)


def check_an_interrupt_leaves_nothing(folder: Path, create: Create) -> None:
    """A signal handler raises, at each instant at which CPython lets one run."""
    made: list[JournalDirectory] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    def scenario() -> Callable[[], object]:
        return lambda: made.append(create(folder, make_meta()))

    for where, raised in every_instant(scenario, interrupt, "signal", directories.FILES):
        assert isinstance(raised, KeyboardInterrupt), where
        assert everything_below(folder) == [], where
        assert open_locks(folder) == [], where
    made.pop().remove()
    assert made == []


def test_an_interrupted_creation_leaves_nothing_behind(tmp_path: Path) -> None:
    check_an_interrupt_leaves_nothing(tmp_path, JournalDirectory.create)


def test_a_creation_that_does_not_clear_up_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_an_interrupt_leaves_nothing(tmp_path, directories.create_without_clearing)


def test_a_creator_killed_at_any_line_leaves_an_orphan_or_something_to_sweep(tmp_path: Path) -> None:
    seen = set()
    for line in range(1, 200):
        folder = tmp_path / str(line)
        folder.mkdir()

        def create_up_to(line: int = line, folder: Path = folder) -> None:
            lines = itertools.count(1)
            before_each_line(
                lambda: JournalDirectory.create(folder, make_meta()), lambda _: die() if next(lines) == line else None
            )

        if in_child(create_up_to) == 0:
            break
        assert states(folder) in ([], ["orphan"])
        seen.update(states(folder) or ["nothing"])
        sweep(folder, time.time_ns() + MINUTE // 2)
        hidden = list(folder.glob(".*"))
        seen.update("hidden" for _ in hidden)
        sweep(folder, time.time_ns() + 2 * MINUTE)
        assert list(folder.glob(".*")) == []
    assert seen == {"nothing", "hidden", "orphan"}
