"""The state directory: may journals be kept in it, and in which way?

    ext2, ext3, ext4, xfs, tmpfs    map            allocated blocks stay allocated: no store into a map fails
    btrfs, overlay, zfs, others     write_behind   copy on write: a store dies of SIGBUS when the disk is full
    nfs, cifs, fuse, 9p, ceph, …    memory         a lock or a write may hang, or be local to this machine

The file system is read from /proc/self/mountinfo. Where that cannot be read, nothing is mapped.
"""

from __future__ import annotations

import enum
import os
import stat
import sys
from pathlib import Path

import msgspec

from ..._errors import JournalError

__all__ = ["Choice", "Mode", "check_state", "choose"]


class Mode(enum.StrEnum):
    """How records get to the disk."""

    MAP = "map"
    """Records are written in mapped files: what was ended survives SIGKILL."""
    WRITE_BEHIND = "write_behind"
    """Records are written from memory a few milliseconds later: SIGKILL loses that."""
    MEMORY = "memory"
    """No files."""


class Choice(msgspec.Struct, frozen=True):
    """What was chosen for a directory, for one line of the log."""

    mode: Mode
    file_system: str
    """As the kernel calls it; empty when it is not known."""
    why: str


def check_state(path: Path) -> None:
    """Make the directory if it is missing (0700, parents too), and refuse one that others could tamper with.

    Raises `JournalError`: owned by another user, writable by group or others, a symbolic link, no directory,
    read-only, not writable by us, or it cannot be made.
    """
    _make(path)
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError as error:
        raise JournalError(f"the state directory {path} cannot be examined: {error.strerror}") from error
    _check_kind(path, status)
    _check_owner(path, status)
    _check_writable(path)


def _make(path: Path) -> None:
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    for folder in reversed(missing):
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            continue  # made by a sibling meanwhile
        except OSError as error:
            raise JournalError(f"the state directory {path} cannot be made: {error.strerror}") from error


def _check_kind(path: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise JournalError(
            f"the state directory {path} is a symbolic link; give the directory it leads to: {os.path.realpath(path)}"
        )
    if not stat.S_ISDIR(status.st_mode):
        raise JournalError(f"the state directory {path} is not a directory")


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise JournalError(
            f"the state directory {path} belongs to user {status.st_uid}, and this process runs as user {os.geteuid()}; "
            "give each user a directory of their own"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise JournalError(
            f"the state directory {path} is writable by others (mode {stat.S_IMODE(status.st_mode):04o}); "
            f"run: chmod go-w {path}"
        )


def _check_writable(path: Path) -> None:
    try:
        read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError as error:
        raise JournalError(f"the state directory {path} cannot be examined: {error.strerror}") from error
    if read_only:
        raise JournalError(f"the state directory {path} is on a read-only file system")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise JournalError(
            f"the state directory {path} cannot be read and written by its owner; run: chmod u+rwx {path}"
        )


# --------------------------------------------------------------------------------------------------- file systems

_MAPPED = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs"})

_DISTANT = frozenset(
    [
        "nfs",
        "nfs3",
        "nfs4",
        "cifs",
        "smb2",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "kafs",
        "coda",
        "9p",
        "ceph",
        "lustre",
        "gpfs",
        "beegfs",
        "orangefs",
        "pvfs2",
        "ocfs2",
        "gfs2",
        "virtiofs",
        "vboxsf",
        "prl_fs",
        "davfs",
        "sshfs",
        "glusterfs",
    ]
)

_MOUNTINFO = "/proc/self/mountinfo"


class _Mount(msgspec.Struct, frozen=True):
    device: tuple[int, int]
    point: str
    file_system: str


def choose(path: Path, mountinfo: str | None = None) -> Choice:
    """The mode for a directory, which need not exist. `mountinfo` is the text of /proc/self/mountinfo; None: read it."""
    if mountinfo is None and not sys.platform.startswith("linux"):
        return Choice(Mode.WRITE_BEHIND, "", f"files are not mapped on {sys.platform}")
    mount = _mount_of(os.path.realpath(path)) if mountinfo is None else _longest(_parse(mountinfo), str(path))
    if mount is None:
        return Choice(Mode.WRITE_BEHIND, "", f"the file system of {path} is not known")
    return _choice(mount.file_system)


def _choice(file_system: str) -> Choice:
    if file_system in _MAPPED:
        return Choice(Mode.MAP, file_system, f"files on {file_system} can be mapped")
    if file_system in _DISTANT or file_system.partition(".")[0] in {"fuse", "fuseblk"}:
        return Choice(Mode.MEMORY, file_system, f"{file_system} may hang, and its locks are not those of this machine")
    return Choice(
        Mode.WRITE_BEHIND, file_system, f"files on {file_system} are not mapped: a full disk would end the process"
    )


def _mount_of(path: str) -> _Mount | None:
    """By device, because one mount may lie over another; by mount point where a file system has many devices."""
    try:
        with open(_MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
            mounts = _parse(file.read())
        device = os.stat(_nearest(path)).st_dev
    except OSError:
        return None
    here = [mount for mount in mounts if mount.device == (os.major(device), os.minor(device))]
    if here:
        return _longest(here, path) or here[-1]
    mount = _longest(mounts, path)  # btrfs: each subvolume has a device number that is in no table
    return None if mount is None or mount.file_system in _MAPPED else mount


def _nearest(path: str) -> str:
    """The path itself, or the nearest folder above it that exists."""
    while not os.path.exists(path) and path != "/":
        path = os.path.dirname(path)
    return path


def _parse(mountinfo: str) -> list[_Mount]:
    """One mount a line: id, parent, major:minor, root, mount point, options, optional fields, "-", type, source, …

    See proc_pid_mountinfo(5). Lines of another form are passed over.
    """
    mounts = (_parse_line(line) for line in mountinfo.splitlines())
    return [mount for mount in mounts if mount is not None]


def _parse_line(line: str) -> _Mount | None:
    left, dash, right = line.partition(" - ")
    fields = left.split(" ")
    major, colon, minor = fields[2].partition(":") if len(fields) > 5 else ("", "", "")
    file_system = right.split(" ")[0]
    if not (dash and colon and major.isdigit() and minor.isdigit() and file_system):
        return None
    return _Mount((int(major), int(minor)), _unescaped(fields[4]), file_system)


def _unescaped(field: str) -> str:
    r"""Space, tab, line feed and backslash are written as `\` and three octal digits."""
    first, *rest = field.split("\\")
    return first + "".join(_unescaped_part(part) for part in rest)


def _unescaped_part(part: str) -> str:
    digits = part[:3]
    if len(digits) == 3 and all(digit in "01234567" for digit in digits):
        return chr(int(digits, 8)) + part[3:]
    return "\\" + part


def _longest(mounts: list[_Mount], path: str) -> _Mount | None:
    """The mount that a path is on: the deepest mount point above it, the last one mounted there."""
    found: _Mount | None = None
    for mount in mounts:
        inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if inside and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found
