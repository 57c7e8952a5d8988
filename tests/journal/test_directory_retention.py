"""What may stay: not longer than agreed, not more than agreed, the oldest first, and never what somebody holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from asynctrace.spanlog.journal import _retention
from asynctrace.spanlog.journal._directory import JournalDirectory, claim, list_journals, quarantine
from asynctrace.spanlog.journal._format import FORMAT_VERSION
from asynctrace.spanlog.journal._retention import Removed, remove_expired, sweep

from . import directories
from .directories import MINUTE, at_every_line, everything_below, leave_orphan, make_meta, states

HOUR = 60 * MINUTE
NOW = 1_700_000_000 * 10**9
DAY = 86400.0
PLENTY = 1 << 40


def leave(folder: Path, hours: float, size: int = 0) -> Path:
    """An orphan whose owner gave its last sign of life that long ago."""
    return leave_orphan(folder, size, modified_ns=NOW - round(hours * HOUR))


def names(removed: list[Removed]) -> list[Path]:
    return [path for path, *_ in removed]


def test_what_is_too_old_goes_the_oldest_first(tmp_path: Path) -> None:
    young, old, older = leave(tmp_path, 23.9), leave(tmp_path, 24.1, 5000), leave(tmp_path, 30)
    removed = remove_expired(tmp_path, NOW, DAY, PLENTY, count=lambda directory: len(directory.names()))
    assert names(removed) == [older, old]
    assert [(each.records, each.expired) for each in removed] == [(0, True), (1, True)]
    assert removed[1].size > 5000
    assert [entry.path for entry in list_journals(tmp_path)] == [young]
    assert {path.parts[0] for path in map(Path, everything_below(tmp_path))} == {young.name}


def test_what_is_too_much_goes_the_oldest_first(tmp_path: Path) -> None:
    paths = [leave(tmp_path, hours, 10_000) for hours in (1, 5, 3, 2, 4)]
    removed = remove_expired(tmp_path, NOW, DAY, 35_000)
    assert names(removed) == [paths[1], paths[4]]
    assert not any(each.expired for each in removed)
    assert remove_expired(tmp_path, NOW, DAY, 35_000) == []


def test_living_journals_count_but_never_go(tmp_path: Path) -> None:
    own = JournalDirectory.create(tmp_path, make_meta())
    os.close(own.open_file("00000000.seg", 50_000))
    own.touch(NOW - 100 * HOUR)
    for name in os.listdir(own.path):
        os.utime(own.path / name, ns=(0, 0))
    orphan = leave(tmp_path, 1, 1000)
    assert names(remove_expired(tmp_path, NOW, DAY, 40_000)) == [orphan]
    assert own.is_ours()
    assert own.names() == ["00000000.seg"]
    own.remove()


def test_newer_versions_never_go(tmp_path: Path) -> None:
    leave_orphan(tmp_path, 5000, modified_ns=0, version=FORMAT_VERSION + 1)
    before = everything_below(tmp_path)
    assert remove_expired(tmp_path, NOW, 0.0, 0) == []
    assert everything_below(tmp_path) == before


def test_damaged_journals_and_those_put_aside_go_too(tmp_path: Path) -> None:
    aside = claim(leave(tmp_path, 40))
    assert aside is not None
    aside_path = quarantine(aside, "a test")
    for broken in ("meta", "lock"):
        (leave(tmp_path, 30) / broken).unlink()
    empty = leave(tmp_path, 30)
    for name in os.listdir(empty):
        (empty / name).unlink()
    removed = remove_expired(tmp_path, NOW, DAY, PLENTY)
    assert len(removed) == 4
    assert aside_path in names(removed)
    assert everything_below(tmp_path) == ["quarantine"]


def test_a_journal_that_somebody_takes_between_looking_and_removing_stays(tmp_path: Path) -> None:
    claimed: list[JournalDirectory] = []
    path = tmp_path

    def scenario() -> Callable[[], object]:
        nonlocal path
        while claimed:
            claimed.pop().remove()
        path = leave(tmp_path, 100, 4096)
        return partial(remove_expired, tmp_path, NOW, DAY, 0)

    def rival() -> None:
        directory = claim(path)
        if directory is not None:
            claimed.append(directory)

    outcomes = set()
    for where, removed in at_every_line(scenario, rival, directories.FILES | {remove_expired.__code__.co_filename}):
        outcomes.add((bool(removed), bool(claimed)))
        assert bool(removed) != bool(claimed), where
        assert all(directory.is_ours() for directory in claimed), where
    assert outcomes == {(True, False), (False, True)}


@pytest.mark.parametrize(("hours", "others_go"), [(1, False), (100, True)])
def test_the_next_does_not_go_in_the_place_of_one_that_somebody_took(
    tmp_path: Path, hours: float, others_go: bool
) -> None:
    """It would not be the oldest; but what is too old goes whatever becomes of the others."""
    oldest, second, third = (leave(tmp_path, hours + more, 10_000) for more in (3, 2, 1))
    taken: list[JournalDirectory] = []

    def take_the_second(_: JournalDirectory) -> int:
        directory = claim(second)
        if directory is not None:
            taken.append(directory)
        return 0

    removed = remove_expired(tmp_path, NOW, DAY, 0, count=take_the_second)
    assert names(removed) == ([oldest, third] if others_go else [oldest])
    assert taken[0].is_ours()
    taken[0].remove()


def test_two_removers_remove_no_more_than_one_would(tmp_path: Path) -> None:
    def scenario() -> Callable[[], object]:
        for path in tmp_path.glob("*.j"):
            leftover = claim(path)
            assert leftover is not None
            leftover.remove()
        for hours in (4, 3, 2, 1):
            leave(tmp_path, hours, 10_000)
        return partial(remove_expired, tmp_path, NOW, DAY, 25_000)

    files = {remove_expired.__code__.co_filename}
    for where, _ in at_every_line(scenario, scenario_rival(tmp_path), files):
        assert len(list_journals(tmp_path)) == 2, where


def scenario_rival(folder: Path) -> Callable[[], object]:
    return partial(remove_expired, folder, NOW, DAY, 25_000)


def test_recovering_makes_no_journal_younger(tmp_path: Path) -> None:
    path = leave(tmp_path, 23)
    directory = claim(path)
    assert directory is not None
    directory.note_death_begins()
    os.close(directory.open_file("otlp.lane", 4096))
    directory.release()
    assert list_journals(tmp_path)[0].modified_ns == NOW - 23 * HOUR
    again = claim(path)
    assert again is not None
    again.touch(NOW)
    again.release()
    assert list_journals(tmp_path)[0].modified_ns == NOW


def test_a_count_that_fails_leaves_the_journal(tmp_path: Path) -> None:
    leave(tmp_path, 100)

    def fail(_: JournalDirectory) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        remove_expired(tmp_path, NOW, DAY, PLENTY, count=fail)
    assert states(tmp_path) == ["orphan"]


def leftover(folder: Path, name: str, age_ns: int, *, files: tuple[str, ...] = ("lock", "meta")) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    for file in files:
        (path / file).touch()
    os.utime(path, ns=(NOW - age_ns, NOW - age_ns))
    return path


def test_leftovers_are_swept_after_a_minute_unless_they_are_held(tmp_path: Path) -> None:
    fresh = leftover(tmp_path, ".a.new", MINUTE - 1)
    held = leftover(tmp_path, ".b.new", 99 * MINUTE)
    lock = directories.Lock(held / "lock")
    assert lock.take()
    leftover(tmp_path, ".c.new", 2 * MINUTE)
    leftover(tmp_path, ".d.new", 2 * MINUTE, files=())
    leftover(tmp_path, ".e.gone", 2 * MINUTE, files=("lock",))
    leftover(tmp_path, "quarantine/.f.gone", 2 * MINUTE)
    other = leftover(tmp_path, ".ssh", 99 * MINUTE)
    (tmp_path / ".g.new").symlink_to(other)
    sweep(tmp_path, NOW)
    hidden = set(tmp_path.rglob(".*"))
    assert hidden == {fresh, held, other, tmp_path / ".g.new"}
    lock.release()
    os.utime(held, ns=(0, 0))
    remove_expired(tmp_path, NOW, DAY, PLENTY)
    assert not held.exists()


def test_a_creator_that_slept_while_its_leftover_was_swept_fails_and_leaves_nothing(tmp_path: Path) -> None:
    """Stopped for more than a minute between any two lines, then going on."""

    def sweep_later() -> None:
        sweep(tmp_path, 10**19 // 2)

    outcomes = set()
    for where, outcome in at_every_line(lambda: partial(JournalDirectory.create, tmp_path, make_meta()), sweep_later):
        outcomes.add(type(outcome).__name__)
        if isinstance(outcome, JournalDirectory):
            assert outcome.is_ours(), where
            outcome.remove()
        assert everything_below(tmp_path) == [], where
    assert outcomes == {"JournalDirectory", "FileNotFoundError"}


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert remove_expired(tmp_path / "nothing", NOW, DAY, 0) == []


# ------------------------------------------------------------------------------------------- what was never used

MIB = 1 << 20


def leave_mostly_unused(folder: Path, hours: float) -> tuple[Path, bytes]:
    """An orphan with a MiB of segment, of which the first bytes and the last are used."""
    content = bytearray(MIB)
    content[:5000], content[-8:] = os.urandom(5000), os.urandom(8)
    path = leave(folder, hours, MIB)
    segment = path / "00000000.seg"
    segment.write_bytes(content)
    os.utime(segment, ns=(NOW - round(hours * HOUR),) * 2)
    return path, bytes(content)


def check_what_was_never_used_is_given_back_first(folder: Path) -> None:
    left = [leave_mostly_unused(folder, hours) for hours in range(1, 11)]
    before = list_journals(folder)
    assert remove_expired(folder, NOW, DAY, MIB) == [], "ten times 5,000 bytes are less than one MiB"
    assert [path for path, _ in left if path.exists()] == [path for path, _ in left]
    assert all((path / "00000000.seg").read_bytes() == content for path, content in left)
    after = list_journals(folder)
    assert sum(entry.size for entry in after) < MIB
    assert [entry.modified_ns for entry in after] == [entry.modified_ns for entry in before]


def test_what_was_never_used_is_given_back_before_anything_is_removed(tmp_path: Path) -> None:
    check_what_was_never_used_is_given_back_first(tmp_path)


def test_removing_without_giving_back_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_retention, "dig_holes", lambda descriptor: None)
    with pytest.raises(AssertionError, match="less than one MiB"):
        check_what_was_never_used_is_given_back_first(tmp_path)


def test_digging_that_takes_what_is_used_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_retention, "dig_holes", lambda descriptor: os.truncate(descriptor, 4096))
    with pytest.raises(AssertionError):
        check_what_was_never_used_is_given_back_first(tmp_path)


def test_only_as_much_is_given_back_as_has_to_be(tmp_path: Path) -> None:
    left = [leave_mostly_unused(tmp_path, hours)[0] for hours in (1, 2, 3)]
    assert remove_expired(tmp_path, NOW, DAY, 2 * MIB + 100_000) == []
    sizes = {entry.path: entry.size for entry in list_journals(tmp_path)}
    assert sizes[left[2]] < MIB / 10, "the oldest"
    assert min(sizes[left[0]], sizes[left[1]]) >= MIB


def test_a_journal_that_somebody_holds_keeps_its_room(tmp_path: Path) -> None:
    """A store into a hole of its map would be a SIGBUS on a full disk."""
    own = JournalDirectory.create(tmp_path, make_meta())
    os.close(own.open_file("00000000.seg", MIB))
    assert remove_expired(tmp_path, NOW, DAY, 1000) == []
    (entry,) = list_journals(tmp_path)
    assert entry.size >= MIB
    own.remove()


def test_lane_files_keep_their_room(tmp_path: Path) -> None:
    """Whoever recovers the journal stores into them through a map."""
    path, _ = leave_mostly_unused(tmp_path, 1)
    lane = path / "otlp.lane"
    (path / "00000000.seg").rename(lane)
    remove_expired(tmp_path, NOW, DAY, MIB + 100_000)
    status = lane.stat()
    assert status.st_blocks * 512 >= status.st_size
