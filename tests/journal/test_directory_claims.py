"""A journal that nobody holds goes to exactly one claimer; a living one to nobody; looking takes nothing."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from asynctrace.spanlog.journal import _lock
from asynctrace.spanlog.journal._directory import (
    JournalDirectory,
    JournalState,
    claim,
    list_journals,
    quarantine,
    quarantine_damaged,
)
from asynctrace.spanlog.journal._format import FORMAT_VERSION
from asynctrace.spanlog.journal._lock import Lock

from . import directories
from .directories import (
    ClosesWithoutUnlocking,
    OnlyLooksAtTheName,
    UnlocksInTheChild,
    at_every_line,
    die,
    everything_below,
    in_child,
    leave_orphan,
    make_meta,
    needs_root,
    states,
)

Claim = Callable[[Path], "JournalDirectory | None"]


# ------------------------------------------------------------------------------------------------------- claims


def test_an_orphan_is_claimed_once(tmp_path: Path) -> None:
    path = leave_orphan(tmp_path, 4096)
    first = claim(path)
    assert first is not None
    assert first.names() == ["00000000.seg"]
    assert claim(path) is None
    assert states(tmp_path) == ["live"]
    first.release()
    assert states(tmp_path) == ["orphan"]


def test_two_holders_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    own = JournalDirectory.create(tmp_path, make_meta())
    claimed: list[object] = []
    thread = threading.Thread(target=lambda: claimed.append(claim(own.path)))
    thread.start()
    thread.join()
    assert claimed == [None]
    assert own.is_ours()
    own.remove()


def check_what_went_away_meanwhile_is_not_claimed(folder: Path, claim: Claim, rival: Callable[[Path], None]) -> None:
    """The rival claims between any two lines, takes the journal away, and lets go of it."""
    path = folder

    def scenario() -> Callable[[], object]:
        nonlocal path
        path = leave_orphan(folder, 4096)
        return lambda: claim(path)

    for where, outcome in at_every_line(scenario, lambda: rival(path)):
        if isinstance(outcome, JournalDirectory):
            assert outcome.is_ours(), f"{where}: claimed what is gone"
            outcome.remove()
        else:
            assert outcome is None, where


def deliver(path: Path) -> None:
    directory = directories.claim(path)
    if directory is not None:
        directory.remove()


def put_aside(path: Path) -> None:
    directory = directories.claim(path)
    if directory is not None:
        quarantine(directory, "a test")


def replace(path: Path) -> None:
    """Another journal lies at the same path, as after a backup was put back; its first owner has let go of the old."""
    directory = directories.claim(path)
    if directory is not None:
        shutil.copytree(path, path.with_suffix(".copy"))
        shutil.rmtree(path)
        path.with_suffix(".copy").rename(path)
        directory.release()


@pytest.mark.parametrize("rival", [deliver, put_aside, replace])
def test_what_went_away_between_the_open_and_the_lock_is_not_claimed(
    tmp_path: Path, rival: Callable[[Path], None]
) -> None:
    check_what_went_away_meanwhile_is_not_claimed(tmp_path, claim, rival)


@pytest.mark.parametrize("rival", [deliver, put_aside, replace])
def test_a_claim_without_the_question_is_noticed(tmp_path: Path, rival: Callable[[Path], None]) -> None:
    with pytest.raises(AssertionError, match="claimed what is gone"):
        check_what_went_away_meanwhile_is_not_claimed(tmp_path, directories.claim_without_looking_again, rival)


def test_a_claimer_killed_at_any_line_leaves_an_orphan(tmp_path: Path) -> None:
    path = leave_orphan(tmp_path)

    def die_at(line: int) -> None:
        lines = itertools.count(1)
        directories.before_each_line(lambda: claim(path), lambda _: die() if next(lines) == line else None)

    for line in itertools.count(1):
        if in_child(partial(die_at, line)) == 0:
            break
        assert states(tmp_path) == ["orphan"]
    assert line > 20


# ------------------------------------------------------------------------------------------------------- listing


def test_lookers_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = leave_orphan(tmp_path)
    looker = Lock(path / "lock", write=False)
    assert looker.look()
    assert states(tmp_path) == ["orphan"]
    assert claim(path) is None  # it comes again
    looker.release()
    claimed = claim(path)
    assert claimed is not None
    claimed.remove()


def test_looking_steals_nothing(tmp_path: Path) -> None:
    def scenario() -> Callable[[], object]:
        return lambda: list_journals(tmp_path)

    path = leave_orphan(tmp_path)
    failed = []

    def claim_and_release() -> None:
        directory = claim(path)
        if directory is None:
            failed.append(path)
        else:
            directory.release()

    for _, entries in at_every_line(scenario, claim_and_release):
        assert [entry.path for entry in entries] == [path]
        claimed = claim(path)
        assert claimed is not None, "the lock was not dropped"
        claimed.release()
    assert 0 < len(failed) < 20  # a try that meets the looker fails, and does no harm


def test_listing_tells_the_states_apart(tmp_path: Path) -> None:
    own = JournalDirectory.create(tmp_path, make_meta(created_ns=3))
    orphan = leave_orphan(tmp_path, 5000, created_ns=2)
    newer = leave_orphan(tmp_path, version=FORMAT_VERSION + 1)
    damaged = leave_orphan(tmp_path)
    (damaged / "meta").write_bytes(b"{}\n00000000\n")
    aside = leave_orphan(tmp_path, created_ns=1)
    held = claim(aside)
    assert held is not None
    quarantine(held, "it ends whoever reads it")
    (tmp_path / "a-file.j").touch()
    (tmp_path / "a-link.j").symlink_to(orphan)
    (tmp_path / "something else").mkdir()
    (tmp_path / ".hidden.new").mkdir()

    entries = {entry.path.name: entry for entry in list_journals(tmp_path)}
    assert {name: str(entry.state) for name, entry in entries.items()} == {
        own.path.name: "live",
        orphan.name: "orphan",
        newer.name: "newer",
        damaged.name: "damaged",
        aside.name: "quarantined",
        "a-file.j": "foreign",
        "a-link.j": "foreign",
    }
    assert entries[orphan.name].size > 5000
    assert (tmp_path / "quarantine" / aside.name / "reason").read_text() == "it ends whoever reads it"
    known = [entry.meta.created_ns for entry in list_journals(tmp_path) if entry.meta]
    assert known == [1, 2, 3]
    own.remove()


def test_an_unknown_folder_is_empty(tmp_path: Path) -> None:
    assert list_journals(tmp_path / "nothing") == []


# --------------------------------------------------------------------------------------------- what is left alone


def test_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = leave_orphan(tmp_path, 4096, version=FORMAT_VERSION + 1)
    before = everything_below(tmp_path)
    assert claim(path) is None
    assert quarantine_damaged(path, "a mistake") is None
    assert everything_below(tmp_path) == before
    assert states(tmp_path) == ["newer"]


@needs_root
@pytest.mark.parametrize("what", ["", "lock"])
def test_a_journal_of_another_user_is_left_alone(tmp_path: Path, what: str) -> None:
    path = leave_orphan(tmp_path)
    os.chown(path / what, 65534, 65534)
    assert claim(path) is None
    assert quarantine_damaged(path, "a mistake") is None
    assert states(tmp_path) == (["orphan"] if what else ["foreign"])
    (path / "lock").unlink()
    if not what:
        assert quarantine_damaged(path, "a mistake") is None
        assert not (path / "lock").exists()


@pytest.mark.parametrize("name", ["lock", "meta"])
def test_links_are_not_followed(tmp_path: Path, name: str) -> None:
    path = leave_orphan(tmp_path)
    (path / name).rename(tmp_path / name)
    (path / name).symlink_to(tmp_path / name)
    assert claim(path) is None
    assert states(tmp_path) == ["damaged"]


@pytest.mark.parametrize("content", [b"", b"x", b"\n\n", b"{}\n%08x\n" % zlib.crc32(b"{}"), os.urandom(5000)])
def test_a_damaged_meta_is_put_aside(tmp_path: Path, content: bytes) -> None:
    path = leave_orphan(tmp_path, 4096)
    (path / "meta").write_bytes(content)
    assert claim(path) is None
    assert states(tmp_path) == ["damaged"]
    assert quarantine_damaged(path, "its meta is broken") == tmp_path / "quarantine" / path.name
    assert states(tmp_path) == ["quarantined"]


@pytest.mark.parametrize("name", ["lock", "meta"])
def test_a_missing_file_is_put_aside(tmp_path: Path, name: str) -> None:
    path = leave_orphan(tmp_path, 4096)
    (path / name).unlink()
    assert claim(path) is None
    assert states(tmp_path) == ["damaged"]
    assert quarantine_damaged(path, "incomplete") is not None


def test_a_pipe_in_the_place_of_a_file_hangs_nobody(tmp_path: Path) -> None:
    path = leave_orphan(tmp_path)
    (path / "meta").unlink()
    os.mkfifo(path / "meta")
    assert claim(path) is None
    assert states(tmp_path) == ["damaged"]


def test_a_held_journal_is_not_put_aside(tmp_path: Path) -> None:
    own = JournalDirectory.create(tmp_path, make_meta())
    (own.path / "meta").unlink()
    assert quarantine_damaged(own.path, "a mistake") is None
    assert states(tmp_path) == ["live"]
    own.remove()


# ---------------------------------------------------------------------------------------------- gone while held


def check_a_journal_deleted_while_held_is_told(folder: Path, kind: type[JournalDirectory]) -> None:
    own = kind.create(folder, make_meta())
    shutil.rmtree(own.path)
    assert not own.is_ours()
    with pytest.raises(FileNotFoundError):
        own.open_file("00000000.seg", 4096)
    own.path.mkdir()  # somebody puts another one there
    (own.path / "lock").touch()
    (own.path / "precious").touch()
    assert not own.is_ours(), "took another's for its own"
    own.remove()
    assert (own.path / "precious").exists()


def test_a_journal_deleted_while_held_is_told(tmp_path: Path) -> None:
    check_a_journal_deleted_while_held_is_told(tmp_path, JournalDirectory)


def test_looking_at_the_name_alone_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="took another's"):
        check_a_journal_deleted_while_held_is_told(tmp_path, OnlyLooksAtTheName)


def test_removing_is_quiet_when_it_is_gone_at_any_line(tmp_path: Path) -> None:
    own = JournalDirectory.create(tmp_path, make_meta())

    def scenario() -> Callable[[], object]:
        nonlocal own
        own = JournalDirectory.create(tmp_path, make_meta())
        return own.remove

    own.remove()
    for where, outcome in at_every_line(scenario, lambda: shutil.rmtree(own.path, ignore_errors=True)):
        assert outcome is None, where
        assert everything_below(tmp_path) == [], where
        own.remove()


def test_nobody_lists_half_a_journal_while_it_is_removed(tmp_path: Path) -> None:
    seen: list[str] = []

    def scenario() -> Callable[[], object]:
        own = JournalDirectory.create(tmp_path, make_meta())
        os.close(own.open_file("00000000.seg", 4096))
        return own.remove

    for _ in at_every_line(scenario, lambda: seen.extend(states(tmp_path))):
        pass
    assert set(seen) == {"live"}


# ------------------------------------------------------------------------------------------------------- forks


def check_a_child_that_forgets_leaves_the_journal_to_its_parent(folder: Path, kind: type[JournalDirectory]) -> None:
    own = kind.create(folder, make_meta())
    try:
        assert in_child(own.forget_in_child) == 0
        assert own.is_ours()
        assert states(folder) == ["live"], "laid open by the child"
    finally:
        own.remove()


def test_a_child_that_forgets_leaves_the_journal_to_its_parent(tmp_path: Path) -> None:
    check_a_child_that_forgets_leaves_the_journal_to_its_parent(tmp_path, JournalDirectory)


def test_a_child_that_unlocks_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="laid open"):
        check_a_child_that_forgets_leaves_the_journal_to_its_parent(tmp_path, UnlocksInTheChild)


def test_in_the_child_the_journal_cannot_be_written(tmp_path: Path) -> None:
    own = JournalDirectory.create(tmp_path, make_meta())

    def write() -> None:
        own.forget_in_child()
        own.forget_in_child()
        assert not own.is_ours()
        for act in (
            lambda: own.open_file("x", 1),
            lambda: own.unlink("meta"),
            own.note_death_begins,
            own.note_survived,
        ):
            with pytest.raises(OSError, match="the journal was released"):
                act()
        with pytest.raises(OSError, match="the journal was released"):
            own.existing("meta", write=True)
        own.remove()

    assert in_child(write) == 0
    assert own.is_ours()
    assert (own.path / "meta").exists()
    own.remove()


def check_a_released_journal_is_free_although_a_child_lives(folder: Path, kind: type[JournalDirectory]) -> None:
    """The child has not come to close anything yet: its copy of the lock is one that no hook of a fork knows."""
    own = kind.create(folder, make_meta())
    copy = os.dup(own._lock._descriptor)
    wait, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(wait, 1)
        os._exit(0)
    os.close(copy)
    try:
        own.release()
        assert states(folder) == ["orphan"], "the child holds it"
    finally:
        os.close(go)
        os.close(wait)
        os.waitpid(child, 0)


def test_a_released_journal_is_free_although_a_child_lives(tmp_path: Path) -> None:
    check_a_released_journal_is_free_although_a_child_lives(tmp_path, JournalDirectory)


def test_closing_without_unlocking_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="the child holds it"):
        check_a_released_journal_is_free_although_a_child_lives(tmp_path, ClosesWithoutUnlocking)


def test_a_killed_owner_leaves_an_orphan_although_its_child_lives(tmp_path: Path) -> None:
    """The child closes its copies in the fork hook, also of locks that were just being looked at."""
    orphan = leave_orphan(tmp_path)
    ready, ready_in = os.pipe()
    wait, go = os.pipe()

    def own_and_fork() -> None:
        JournalDirectory.create(tmp_path, make_meta())
        looker = Lock(orphan / "lock", write=False)
        looker.look()
        _lock.before_fork()
        if os.fork() == 0:
            _lock.after_fork_in_child()
            os.close(go)
            os.write(ready_in, b"x")
            os.read(wait, 1)
            os._exit(0)
        _lock.after_fork_in_parent()
        os.read(ready, 1)
        die()

    assert in_child(own_and_fork) == -9
    try:
        assert states(tmp_path) == ["orphan", "orphan"]
        assert all(claim(entry.path) is not None for entry in list_journals(tmp_path))
    finally:
        for descriptor in (go, wait, ready, ready_in):
            os.close(descriptor)
        _lock.after_fork_in_child()  # forgets what this test claimed


# ------------------------------------------------------------------------------------------------------- deaths


def test_deaths_are_counted_until_somebody_survives(tmp_path: Path) -> None:
    path = leave_orphan(tmp_path)

    def recover_and_die() -> None:
        directory = claim(path)
        assert directory is not None
        directory.note_death_begins()
        die()

    for deaths in range(12):
        directory = claim(path)
        assert directory is not None
        assert directory.deaths == min(deaths, 9)
        directory.release()
        assert in_child(recover_and_die) == -9
    survivor = claim(path)
    assert survivor is not None
    survivor.note_death_begins()
    survivor.note_survived()
    assert survivor.deaths == 0
    survivor.release()
    again = claim(path)
    assert again is not None
    assert again.deaths == 0
    again.remove()


@pytest.mark.parametrize("content", [b"", b"?", b"\xff" * 100])
def test_a_damaged_count_of_deaths_is_none(tmp_path: Path, content: bytes) -> None:
    path = leave_orphan(tmp_path)
    (path / "deaths").write_bytes(content)
    directory = claim(path)
    assert directory is not None
    assert directory.deaths == 0
    directory.note_death_begins()
    directory.release()
    again = claim(path)
    assert again is not None
    assert again.deaths == 1
    again.remove()


# -------------------------------------------------------------------------------------------------------- files


def test_files_are_made_once_and_found_again(tmp_path: Path) -> None:
    own = JournalDirectory.create(tmp_path, make_meta())
    descriptor = own.open_file("00000000.seg", 8192)
    assert os.fstat(descriptor).st_blocks * 512 >= 8192
    os.close(descriptor)
    with pytest.raises(FileExistsError):
        own.open_file("00000000.seg", 1)
    assert own.names() == ["00000000.seg"]
    reader = own.existing("00000000.seg", write=False)
    assert os.get_inheritable(reader) is False
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(reader, b"x")
    os.close(reader)
    (own.path / "a.lane").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic"):
        own.existing("a.lane", write=True)
    own.unlink("00000000.seg")
    own.unlink("00000000.seg")
    for name in ("", ".", "..", "../meta", "/etc/passwd"):
        with pytest.raises(ValueError, match="no name of a file"):
            own.open_file(name, 1)
    own.remove()


def test_states_are_words() -> None:
    assert [str(state) for state in JournalState] == ["live", "orphan", "newer", "damaged", "quarantined", "foreign"]
