"""For the tests of journals' directories: metas, small file systems, acting between two lines, doubles with one fault each.

Run as a program it is a racer: a process that claims, delivers and removes whatever it finds in a folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from asynctrace.spanlog.journal import _directory, _files, _lock
from asynctrace.spanlog.journal._directory import JournalDirectory, JournalState, claim, list_journals
from asynctrace.spanlog.journal._format import JournalMeta, decode_meta, encode_meta
from asynctrace.spanlog.journal._lock import Lock

MINUTE = 60 * 10**9
SPAWNED = 6
FORKED = 6


def make_meta(**changes: Any) -> JournalMeta:
    values: dict[str, Any] = {
        "journal_id": str(uuid.uuid4()),
        "boot_id": "a boot",
        "pid": os.getpid(),
        "created_ns": 1,
        "service": "shop",
        "resource": b"resource",
        "scope": b"scope",
    }
    return JournalMeta(**(values | changes))


def leave_orphan(folder: Path, size: int = 0, *, modified_ns: int | None = None, **meta: Any) -> Path:
    """A journal whose owner is gone, and that uses all of its `size` bytes."""
    directory = JournalDirectory.create(folder, make_meta(**meta))
    if size:
        descriptor = directory.open_file("00000000.seg", size)
        os.pwrite(descriptor, b"x" * size, 0)
        os.close(descriptor)
    directory.release()
    if modified_ns is not None:
        for name in os.listdir(directory.path):
            os.utime(directory.path / name, ns=(modified_ns, modified_ns))
    return directory.path


def states(folder: Path) -> list[str]:
    return sorted(entry.state for entry in list_journals(folder))


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def open_locks(folder: Path) -> list[str]:
    """The lock files below a folder that this process has open."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [path for path in found if path.startswith(f"{folder}/") and "/lock" in path]


# ---------------------------------------------------------------------------------------------- between two lines

FILES = {_directory.__file__, _files.__file__, _lock.__file__, __file__}


def at_every_line(
    scenario: Callable[[], Callable[[], Any]], act: Callable[[], object], files: set[str] = FILES
) -> Iterator[tuple[str, Any]]:
    """`scenario()` prepares and returns what is to run. In run k, `act` is called before the k-th line that it reaches
    in a journal's files. Yields where that was and what came back, or the exception that came out."""
    wanted = 1
    while True:
        run = scenario()
        seen, where = 0, ""

        def count(frame: FrameType, wanted: int = wanted) -> None:
            nonlocal seen, where
            seen += 1
            if seen == wanted:
                where = f"{frame.f_code.co_name}:{frame.f_lineno}"
                act()

        try:
            outcome = before_each_line(run, count, files)
        except BaseException as error:
            outcome = error
        if seen < wanted:
            release(outcome)
            return
        yield where, outcome
        wanted += 1


def before_each_line(run: Callable[[], Any], act: Callable[[FrameType], object], files: set[str] = FILES) -> Any:
    """`run()`, with `act` before each line of a journal's files; what `act` does itself is not stepped through."""

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            act(frame)  # CPython does not trace a trace function
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return run()
    finally:
        sys.settrace(before)


def release(outcome: object) -> None:
    if isinstance(outcome, JournalDirectory):
        outcome.release()


def in_child(act: Callable[[], object]) -> int:
    """The exit status of a forked child that does this; 0 when it returned, -9 when it was killed, 1 when it raised."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        except BaseException as error:
            print("in the child:", repr(error), file=sys.stderr)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# ------------------------------------------------------------------------------------------------- doubles


def claim_without_looking_again(path: Path) -> JournalDirectory | None:
    """Reads first, locks then, and does not ask whether the path still leads to what it locked."""
    try:
        lock = Lock(path / "lock")
    except OSError:
        return None
    try:
        meta = decode_meta((path / "meta").read_bytes())
    except OSError:
        lock.release()
        return None
    if not lock.take():
        lock.release()
        return None
    return JournalDirectory(path, meta, lock)


def claim_without_lock(path: Path) -> JournalDirectory | None:
    """Takes what it sees."""
    try:
        return JournalDirectory(path, decode_meta((path / "meta").read_bytes()), Lock(path / "lock"))
    except OSError:
        return None


def create_renamed_before_locked(folder: Path, meta: JournalMeta) -> JournalDirectory:
    """Has its name before it is locked."""
    hidden, path = folder / f".{meta.journal_id}.new", folder / f"{meta.journal_id}.j"
    os.mkdir(hidden, 0o700)
    lock = Lock(hidden / "lock", create=True)
    _files.write_new(hidden / "deaths", b"0")
    _files.write_new(hidden / "meta", encode_meta(meta))
    os.rename(hidden, path)
    if not lock.take():
        raise RuntimeError("robbed at birth")
    return JournalDirectory(path, meta, lock)


def create_without_clearing(folder: Path, meta: JournalMeta) -> JournalDirectory:
    """Leaves behind what it had made when it failed."""
    hidden, path = folder / f".{meta.journal_id}.new", folder / f"{meta.journal_id}.j"
    os.mkdir(hidden, 0o700)
    lock = Lock(hidden / "lock", create=True)
    try:
        _directory._fill(hidden, lock, meta, sync=False)
        os.rename(hidden, path)
    except BaseException:
        lock.release()
        raise
    return JournalDirectory(path, meta, lock)


class UnlocksInTheChild(JournalDirectory):
    """Takes the parent's lock with it when it closes its own copy. A copy that the hooks of a fork do not know of."""

    __slots__ = ("_copy",)

    @classmethod
    def create(cls, folder: Path, meta: JournalMeta, *, sync: bool = False) -> UnlocksInTheChild:
        made = super().create(folder, meta, sync=sync)
        made._copy = os.dup(made._lock._descriptor)
        return made

    def forget_in_child(self) -> None:
        fcntl.flock(self._copy, fcntl.LOCK_UN)

    def remove(self) -> None:
        os.close(self._copy)
        super().remove()


class ClosesWithoutUnlocking(JournalDirectory):
    """Leaves the lock to a child that still has a copy of the descriptor."""

    __slots__ = ()

    def release(self) -> None:
        self._lock.forget()


class OnlyLooksAtTheName(JournalDirectory):
    """Takes whatever is at its path for its own."""

    __slots__ = ()

    def is_ours(self) -> bool:
        return self.path.exists()


# ------------------------------------------------------------------------------------------- small file systems

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount, and give files to others")


@contextlib.contextmanager
def mounted(kind: str, point: Path, *, kib: int = 1024, inodes: int = 64) -> Iterator[Path]:
    """A file system of that size; skips where this machine cannot mount it."""
    point.mkdir(exist_ok=True)
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k,nr_inodes={inodes},mode=0700", "tmpfs", str(point)]
    else:
        image = point.with_suffix(".image")
        with image.open("wb") as file:
            file.truncate(kib * 1024)
        run_or_skip(["mkfs.ext4", "-q", "-m", "0", "-b", "1024", "-N", str(inodes), "-O", "^has_journal", str(image)])
        command = ["mount", "-o", "loop", str(image), str(point)]
    run_or_skip(command)
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)


def run_or_skip(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"there is no {command[0]} here")
    if done.returncode:
        pytest.skip(f"{' '.join(command[:3])} is not possible here: {done.stderr.strip()}")


def fill_up(folder: Path, *, leave: int = 0) -> None:
    """Take all blocks of a file system but `leave`."""
    (folder / "fillers").mkdir()
    block = os.statvfs(folder).f_frsize
    descriptor = os.open(folder / "fillers" / "blocks", os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(descriptor, bytes(block))
    os.fsync(descriptor)
    os.ftruncate(descriptor, os.fstat(descriptor).st_size - leave * block)
    os.fsync(descriptor)
    os.close(descriptor)


def use_up_inodes(folder: Path, *, leave: int = 0) -> None:
    """Take all inodes of a file system but `leave`."""
    place = folder / "inodes"
    place.mkdir()
    fillers = []
    with contextlib.suppress(OSError):
        while True:
            filler = place / str(len(fillers))
            filler.touch()
            fillers.append(filler)
    for filler in fillers[:leave]:
        filler.unlink()


def free_all(folder: Path) -> None:
    """Give back what `fill_up` and `use_up_inodes` took."""
    for name in ("fillers", "inodes"):
        shutil.rmtree(folder / name, ignore_errors=True)


# ------------------------------------------------------------------------------------------------------ a racer

CLAIMS = {"real": claim, "without_looking_again": claim_without_looking_again, "without_lock": claim_without_lock}


def race(folder: Path, report: Path, claim_as: str, deaths: float) -> None:
    """Until the file `over` is there and no orphan is left: claim, perhaps die, write down what was claimed, remove."""
    wait_for(folder / "go")
    chance = random.Random(os.getpid())
    out = os.open(report, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    while not ((folder / "over").exists() and JournalState.ORPHAN not in states(folder)):
        entries = list_journals(folder)
        chance.shuffle(entries)
        for entry in entries:
            _claim_one(entry.path, out, claim_as, chance.random() < deaths)
        time.sleep(0.002)


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.001)


def _claim_one(path: Path, out: int, claim_as: str, is_mortal: bool) -> None:
    directory = CLAIMS[claim_as](path)
    if directory is None:
        return
    if is_mortal:
        die()
    os.write(out, f"{directory.journal_id}\n".encode())
    directory.remove()


def create_and_remove(folder: Path, seconds: float) -> None:
    """Live many short lives. What is robbed is reported by the robbers, and by an exit status."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        own = JournalDirectory.create(folder, make_meta())
        time.sleep(0.001)
        if not own.is_ours():
            sys.exit(3)
        own.remove()


def own_and_die(folder: Path, born: Path) -> None:
    """Children that make a journal each, live a moment and are killed; none may be robbed before."""
    for _ in range(5):
        child = os.fork()
        if child == 0:
            own = JournalDirectory.create(folder, make_meta())
            with born.open("a") as file:
                file.write(f"{own.journal_id}\n")
            time.sleep(random.Random(os.getpid()).random() / 20)
            if not own.is_ours():
                os._exit(3)
            die()
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
            sys.exit(3)


def main(kind: str, folder: str, report: str, claim_as: str, deaths: str) -> None:
    if kind == "doomed":
        for entry in list_journals(Path(folder)):
            _claim_one(entry.path, -1, claim_as, True)
        return
    if kind == "creator":
        wait_for(Path(folder) / "go")
        create_and_remove(Path(folder), 1.0)
        return
    if kind == "owner":
        wait_for(Path(folder) / "go")
        own_and_die(Path(folder), Path(f"{report}.born"))
        return
    children = []
    for _ in range(FORKED if kind == "forking" else 0):
        child = os.fork()
        if child == 0:
            race(Path(folder), Path(report), claim_as, float(deaths))
            os._exit(0)
        children.append(child)
    race(Path(folder), Path(report), claim_as, 0.0 if kind == "forking" else float(deaths))
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
