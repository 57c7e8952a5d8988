"""Write-behind on a disk that is full or hangs, without memory files, across a fork: the traced program notices nothing, and
what memory holds is written as soon as that can be."""

from __future__ import annotations

import errno
import faulthandler
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asynctrace.spanlog.journal import FileSegment, _mirror
from asynctrace.spanlog.journal._format import slab_file
from asynctrace.spanlog.journal._lane_file import LaneFile
from asynctrace.spanlog.journal._mirror import Mirror, MirroredLane
from asynctrace.spanlog.journal._slab import OpenSlab

from . import mirrors
from .directories import fill_up, mounted, needs_root
from .mirrors import LANE, Program, body_of, read_slab
from .segments import JOURNAL_ID, make_record, opener, store


@pytest.fixture
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    mirrors.small_slabs(monkeypatch)


@pytest.fixture
def program(small_slabs: None, tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path, seed=1)
    yield program
    program.close()


def go_on(program: Program, steps: int = 60) -> None:
    for _ in range(steps):
        program.step_beside()


class Full:
    """In the place of a descriptor: the kernel's device on which every write finds the disk full."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._kept = os.dup(fd)
        full = os.open("/dev/full", os.O_RDWR | os.O_CLOEXEC)
        os.dup2(full, fd, inheritable=False)
        os.close(full)

    def has_room_again(self) -> None:
        os.dup2(self._kept, self._fd, inheritable=False)
        os.close(self._kept)


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /dev/full")
@pytest.mark.parametrize("kind", ["_lanes", "_segments", "_slabs"])
def test_what_a_full_disk_refuses_is_written_when_there_is_room_again(program: Program, kind: str) -> None:
    files = list(getattr(program.mirror, kind).values())
    go_on(program)
    full = [Full(file._real) for file in files]
    try:
        refuse_three_times(program)
    finally:
        for disk in full:
            disk.has_room_again()
    program.copy()
    program.check()
    assert program.covered[1] == len(program.log) > 60


def refuse_three_times(program: Program) -> None:
    for _ in range(3):
        with pytest.raises(OSError, match="No space left") as refused:
            program.copy()
        assert refused.value.errno == errno.ENOSPC
        program.check()
        go_on(program)


def test_every_file_is_tried_although_one_of_them_is_refused(program: Program) -> None:
    go_on(program)
    full = Full(program.mirror._lanes[LANE]._real)
    try:
        with pytest.raises(OSError, match="No space left"):
            program.copy()
        assert set(range(len(program.log))) == set(mirrors.read_records(program.folder))
        assert read_slab(program.folder) == set(program.open)
    finally:
        full.has_room_again()


def test_a_window_is_sent_although_its_file_is_refused(program: Program) -> None:
    lane = MirroredLane(program.mirror, LANE, program.lane)
    program.append(0)
    full = Full(program.mirror._lanes[LANE]._real)
    try:
        assert lane.open_window(0, 1)
    finally:
        full.has_room_again()
    assert windows_in(program.folder) == []
    program.mirror.copy_one(LANE)
    assert windows_in(program.folder) == [(0, 1)]


def windows_in(folder: Path) -> list[tuple[int, int]]:
    lane = LaneFile.open(os.open(folder / LANE, os.O_RDWR | os.O_CLOEXEC))
    try:
        return lane.windows()
    finally:
        lane.close()


def sparse(folder: Path) -> Callable[[str, int], int]:
    """What `posix_fallocate()` comes to on a file system that copies on write: a store may need a block that nobody has."""

    def open_file(name: str, size: int) -> int:
        fd = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, size)
        return fd

    return open_file


def append_all(open_file: Callable[[str, int], int], records: list[bytes]) -> FileSegment:
    segment = FileSegment.create(open_file, "00000000.seg", JOURNAL_ID, 0, 0, 256 * 1024)
    end = 0
    for slot, record in enumerate(records):
        store(segment, slot, end, record)
        end += len(record)
    return segment


@needs_root
def test_a_store_that_would_end_the_process_ends_in_an_error_of_copy(tmp_path: Path) -> None:
    records = [make_record(number, 300) for number in range(700)]
    with mounted("tmpfs", tmp_path / "disk") as disk:
        fill_up(disk, leave=8)
        assert end_of(lambda: append_all(sparse(disk), records)) == -signal.SIGBUS
        os.unlink(disk / "00000000.seg")
        mirror = Mirror(sparse(disk))
        segment = append_all(mirror.open_file, records)
        mirror.watch(segment.name)
        with pytest.raises(OSError, match="No space left"):
            mirror.copy()
        assert mirrors.read_records(disk) == {}
        os.unlink(disk / "fillers" / "blocks")
        mirror.copy()
        assert mirrors.read_records(disk) == {number: number for number in range(700)}
        mirror.close()
        segment.close()


def end_of(act: Callable[[], object]) -> int:
    """How a process ends that does this."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        try:
            faulthandler.disable()
            act()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# A slab that grows -----------------------------------------------------------------------------------------------------


def test_a_slab_that_grows_is_followed_as_soon_as_the_disk_has_room(tmp_path: Path) -> None:
    mirror = Mirror(opener(tmp_path))
    slab = OpenSlab.create(mirror.open_file, JOURNAL_ID)
    slab.on_needs_room = slab.grow
    mirror.copy()
    (copied,) = mirror._slabs.values()
    for span in range(3000):
        assert slab.enter(body_of(span)) > 0
    full = Full(copied._real)
    for span in range(3000, 9000):
        assert slab.enter(body_of(span)) > 0
    with pytest.raises(OSError):  # noqa: PT011  (which error it is depends on what is full)
        mirror.copy()
    full.has_room_again()
    mirror.copy()
    assert read_slab(tmp_path) == set(range(9000))
    assert (tmp_path / slab_file(0)).stat().st_size == len(slab.memory)
    mirror.close()
    slab.close()


def test_a_slot_is_found_wherever_it_is(tmp_path: Path) -> None:
    mirror = Mirror(opener(tmp_path))
    slab = OpenSlab.create(mirror.open_file, JOURNAL_ID)
    mirror.copy()
    slab.free.reverse()  # the highest first, which no slab does
    slab.enter(body_of(7))
    for _ in range(17):
        mirror.copy()
    assert read_slab(tmp_path) == {7}
    mirror.close()
    slab.close()


# Cost, waiting, other machines -----------------------------------------------------------------------------------------


def test_a_quiet_journal_is_not_written(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on(program)
    program.copy()
    written: list[None] = []
    with mirrors.writes(monkeypatch, lambda: written.append(None)):
        for _ in range(5):
            program.copy()
        assert not written
        program.append(0)
        program.copy()
        assert len(written) == 2, "the payload and its word"


def test_a_window_does_not_wait_for_the_segments(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on(program)
    program.mirror.copy_one(LANE)
    held = {file._real for file in program.mirror._segments.values()}
    is_writing, may_go_on = threading.Event(), threading.Event()
    real = os.pwrite

    def pwrite(fd: int, content: bytes, at: int) -> int:
        if fd in held:
            is_writing.set()
            may_go_on.wait(30)
        return real(fd, content, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    keeper = threading.Thread(target=program.mirror.copy)
    keeper.start()
    try:
        assert is_writing.wait(30)
        lane = MirroredLane(program.mirror, LANE, program.lane)
        first = program.lane.cursor
        assert lane.open_window(first, 1)
        assert (first, 1) in windows_in(program.folder)
        assert keeper.is_alive()
    finally:
        may_go_on.set()
        keeper.join(30)


def test_the_end_does_not_wait_for_a_disk_that_hangs(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mirror, "_PATIENCE", 0.01)
    with program.mirror._lock, pytest.raises(TimeoutError):
        program.mirror.copy()
    program.copy()


def test_a_sync_waits_for_each_file_that_was_written(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    program.mirror.sync()
    monkeypatch.setattr(os, "fdatasync", synced.append)
    program.mirror.sync()
    assert synced == []
    program.append(0)
    program.mirror.sync()
    assert synced == [program.mirror._segments[program.held[-1].name]._real]


def test_it_needs_no_memory_files(monkeypatch: pytest.MonkeyPatch, small_slabs: None, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    program = Program(tmp_path, seed=2)
    go_on(program, 300)
    program.copy()
    program.check()
    program.close()
    assert program.log


def test_a_file_that_cannot_be_made_costs_no_descriptor(tmp_path: Path) -> None:
    mirror = Mirror(opener(tmp_path))
    open_before = os.listdir("/proc/self/fd")
    for name in ("00000000.seg", LANE, slab_file(0)):
        (tmp_path / name).touch()
        with pytest.raises(FileExistsError):
            mirror.open_file(name, 65536)
    assert os.listdir("/proc/self/fd") == open_before
    mirror.close()


def test_a_forked_child_lets_go_whatever_the_parent_was_doing(program: Program) -> None:
    def forget() -> None:
        program.mirror.forget_in_child()
        program.close()
        if {str(fd) for fd in held} & set(os.listdir("/proc/self/fd")):
            os._exit(7)

    mirror = program.mirror
    held = [file._real for kind in (mirror._lanes, mirror._segments, mirror._slabs) for file in kind.values()]
    with program.mirror._lanes[LANE]._lock, program.mirror._lock:
        assert end_of(forget) == 0
    go_on(program)
    program.copy()
    program.check()
