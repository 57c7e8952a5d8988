"""Small acts on the files of a journal that more than one of its modules needs."""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from ._format import LOCK_FILE

__all__ = [
    "MAP_OPTIONS",
    "NO_DESCRIPTOR",
    "allocate",
    "bytes_on_disk",
    "dig_holes",
    "erase",
    "give_back",
    "names_lock_last",
    "sync_folder",
    "unlink",
    "write_new",
]

MAP_OPTIONS: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
"""From 3.13 on a mapping need not keep a copy of its descriptor: half as many are open."""

NO_DESCRIPTOR: Final = -1
"""A file that was closed."""

_ZEROS = memoryview(bytes(2 << 20))
"""More than a segment and its words, so that a file takes one call, for which a busy program is interrupted once. Nobody
stores into it, so it takes no memory."""

_SECTOR = 512
"""Bytes of a unit of `st_blocks`."""


def give_back(descriptor: int) -> None:
    """Close a descriptor that was kept for long, if it is one. Raises nothing: the file is what matters, and it has all.

    Other code of the process may have closed it. uvloop closes a server's socket, and then closes it again where it came
    wrapped (gunicorn's does): a file that another thread opened between the two is closed with it.
    """
    if descriptor != NO_DESCRIPTOR:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def write_new(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Raises `OSError`; the file may be there in part then."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _write_all(descriptor, content)
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def allocate(descriptor: int, size: int) -> None:
    """Give a file `size` bytes that no store can lack later; what it holds already stays. Raises `OSError`."""
    if size <= 0:
        return
    if hasattr(os, "posix_fallocate"):
        before = os.fstat(descriptor).st_size
        os.posix_fallocate(descriptor, 0, size)
        _fill(descriptor, before, size)
    else:  # macOS: files are not mapped there, a full disk is met by write()
        os.ftruncate(descriptor, size)


def _fill(descriptor: int, start: int, size: int) -> None:
    """Write what is there already, zeros: on ext4 the pages of a map are present then in a tenth of the time, because what
    is written lies in a few large folios and each page of what is only allocated asks the file system for itself."""
    for at in range(start, size, len(_ZEROS)):
        os.pwrite(descriptor, _ZEROS[: size - at], at)


def bytes_on_disk(status: os.stat_result) -> int:
    """What a file takes, at most its size: pages that were never written, and holes, take nothing."""
    return min(status.st_size, status.st_blocks * _SECTOR)


def dig_holes(descriptor: int) -> None:
    """Give back the room of those pages of a file that hold zeros alone. What is read from it stays the same.

    Only for files that nobody stores into through a map any more: on a full disk a store into a hole is a SIGBUS. Raises
    `OSError` where the file system cannot do it.
    """
    status = os.fstat(descriptor)
    whole = status.st_size // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    was_dug = bytes_on_disk(status) < status.st_size
    if was_dug or not whole or not hasattr(mmap, "MADV_REMOVE"):
        return
    with mmap.mmap(descriptor, whole) as memory:
        for start, stop in _runs_of_zeros(descriptor, whole):
            memory.madvise(mmap.MADV_REMOVE, start, stop - start)
    os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))  # its owner gave no sign of life


def _runs_of_zeros(descriptor: int, size: int) -> list[tuple[int, int]]:
    """(start, stop) of the parts of a file that are zero, in whole pages."""
    step = mmap.ALLOCATIONGRANULARITY
    zeros = _ZEROS[:step]
    pages = groupby(range(0, size, step), lambda at: os.pread(descriptor, step, at) == zeros)
    runs = ((places[0], places[-1] + step) for is_zero, group in pages if is_zero for places in [list(group)])
    return list(runs)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unlink(path: Path) -> None:
    """Delete a file; one that is gone is no error."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def erase(directory: Path) -> None:
    """Delete a directory as far as possible, its lock last; `sweep()` comes back for what is left of a hidden one."""
    for name in names_lock_last(directory):
        try:
            os.unlink(directory / name)
        except OSError:
            continue
    try:
        os.rmdir(directory)
    except OSError:
        return


def names_lock_last(directory: Path) -> list[str]:
    """The names in a journal's directory, in the order in which they may be deleted; none when it is gone."""
    try:
        return sorted(os.listdir(directory), key=lambda name: (name == LOCK_FILE, name))
    except OSError:
        return []
