"""A disk that is full, read-only or gone: an `OSError`, nothing left behind, and all is well when there is room again."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asynctrace._errors import JournalError
from asynctrace.spanlog.journal._directory import JournalDirectory, claim, list_journals, quarantine, service_folder
from asynctrace.spanlog.journal._format import JournalMeta
from asynctrace.spanlog.journal._retention import remove_expired
from asynctrace.spanlog.journal._state import Mode, check_state, choose

from . import directories
from .directories import (
    everything_below,
    fill_up,
    leave_orphan,
    make_meta,
    mounted,
    needs_root,
    open_locks,
    states,
    use_up_inodes,
)

pytestmark = needs_root

Create = Callable[[Path, JournalMeta], JournalDirectory]


@pytest.fixture(params=["tmpfs", "ext4"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def disk(kind: str, tmp_path: Path) -> Iterator[Path]:
    with mounted(kind, tmp_path / "disk") as point:
        yield point


def error_of(act: Callable[[], object]) -> int | None:
    try:
        act()
    except OSError as error:
        return error.errno
    return None


def check_creation_leaves_nothing_on_a_full_disk(disk: Path, use_up: Callable[..., None], create: Create) -> int:
    """With nothing left, then one unit more each time, until it succeeds. Returns how often it failed."""
    folder = disk / "journals"
    folder.mkdir()
    for left in range(20):
        use_up(disk, leave=left)
        before = everything_below(folder)
        number = error_of(lambda: create(folder, make_meta(resource=bytes(3000))).remove())
        if number is None:
            return left
        assert number == errno.ENOSPC
        assert everything_below(folder) == before == [], f"left behind with {left} left"
        assert open_locks(folder) == []
        directories.free_all(disk)
    raise AssertionError("it never succeeded")


@pytest.mark.parametrize("use_up", [fill_up, use_up_inodes])
def test_a_full_disk_at_each_step_of_a_creation(disk: Path, use_up: Callable[..., None]) -> None:
    assert check_creation_leaves_nothing_on_a_full_disk(disk, use_up, JournalDirectory.create) >= 2


def test_a_creation_that_does_not_clear_up_is_noticed(disk: Path) -> None:
    with pytest.raises(AssertionError, match="left behind"):
        check_creation_leaves_nothing_on_a_full_disk(disk, use_up_inodes, directories.create_without_clearing)


def test_a_file_that_cannot_be_allocated_is_not_there(disk: Path) -> None:
    own = JournalDirectory.create(disk, make_meta())
    free = os.statvfs(disk).f_bavail
    with pytest.raises(OSError, match="No space") as raised:
        own.open_file("00000000.seg", 8 << 20)
    assert raised.value.errno == errno.ENOSPC
    assert own.names() == []
    assert os.statvfs(disk).f_bavail == free
    os.close(own.open_file("00000000.seg", 64 << 10))
    own.remove()
    assert states(disk) == []


def test_what_is_allocated_can_be_written_on_a_full_disk(disk: Path) -> None:
    own = JournalDirectory.create(disk, make_meta())
    descriptor = own.open_file("00000000.seg", 64 << 10)
    fill_up(disk)
    assert os.pwrite(descriptor, bytes(64 << 10), 0) == 64 << 10
    os.close(descriptor)
    own.remove()


def test_a_full_disk_does_not_stop_recovery(disk: Path) -> None:
    path = leave_orphan(disk, 4096)
    fill_up(disk)
    for deaths in (0, 1):
        directory = claim(path)
        assert directory is not None
        assert directory.deaths == deaths
        directory.note_death_begins()
        directory.release()
    last = claim(path)
    assert last is not None
    last.note_survived()
    last.remove()
    assert states(disk) == []
    JournalDirectory.create(disk, make_meta()).remove()  # and there is room again


def test_what_cannot_be_put_aside_on_a_full_disk_is_released_where_it_is(disk: Path) -> None:
    path = leave_orphan(disk, 4096)
    use_up_inodes(disk)
    directory = claim(path)
    assert directory is not None
    with pytest.raises(OSError, match="No space"):
        quarantine(directory, "a test")
    assert states(disk) == ["orphan"]


def test_without_room_for_a_note_it_is_put_aside_all_the_same(disk: Path) -> None:
    (disk / "quarantine").mkdir()
    path = leave_orphan(disk, 4096)
    use_up_inodes(disk)
    directory = claim(path)
    assert directory is not None
    quarantine(directory, "a test")
    assert states(disk) == ["quarantined"]


def test_a_service_folder_on_a_full_disk_is_a_sentence(disk: Path) -> None:
    use_up_inodes(disk)
    with pytest.raises(JournalError, match="cannot be made: No space left"):
        service_folder(disk, "shop")


def test_a_disk_that_became_read_only(disk: Path) -> None:
    path = leave_orphan(disk, 4096, modified_ns=0)
    own = claim(leave_orphan(disk))
    assert own is not None
    own.release()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(JournalError, match="is on a read-only file system"):
        check_state(disk)
    with pytest.raises(OSError, match="Read-only"):
        JournalDirectory.create(disk, make_meta())
    assert states(disk) == ["orphan", "orphan"]  # people can list it
    assert claim(path) is None
    assert remove_expired(disk, 10**18, 1.0, 0) == []
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    again = claim(path)
    assert again is not None
    again.remove()


def test_a_journal_on_a_disk_that_failed_is_released(tmp_path: Path) -> None:
    """What ext4 does after an error of the disk: read-only at once, whoever has files open."""
    with mounted("ext4", tmp_path / "disk") as disk:
        own = JournalDirectory.create(disk, make_meta())
        directories.run_or_skip(["mount", "-o", "remount,abort", str(disk)])
        for act in (lambda: own.open_file("00000000.seg", 1), own.note_death_begins, own.remove):
            with pytest.raises(OSError, match=r"Read-only|Input/output"):
                act()
        assert open_locks(disk) == []
        assert states(disk) == ["orphan"]


def test_the_file_system_is_recognised(disk: Path, kind: str) -> None:
    choice = choose(disk / "not" / "there" / "yet")
    assert (choice.mode, choice.file_system) == (Mode.MAP, kind)


def test_a_mount_over_another_is_what_counts(tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    (outer / "inner").mkdir(parents=True)
    with mounted("tmpfs", outer / "inner"), mounted("ext4", outer):
        (outer / "inner").mkdir()
        assert choose(outer / "inner").file_system == "ext4"
        assert list_journals(outer) == []
