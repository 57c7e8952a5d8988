"""The directory of one journal: created, locked, listed, claimed, released, removed.

    <state directory>/v1/<service>/              0700, `service_folder()`
      <journal id>.j/                            one process's journal
        lock                                     flock only: held = its owner lives
        meta                                     who wrote it
        deaths                                   one digit: recoverers that died over it; a `c` behind it: claimed once
        *.seg *.slab *.lane                      see the files beside this one
      .<journal id>.new/   .<journal id>.gone/   being created, being removed: nobody lists these
      quarantine/<journal id>.j/                 put aside, with a file `reason`

States: `new` (hidden) → `live` → gone (drained) | `orphan` → claimed → gone | `quarantined`.

- Created in the order hidden directory → flock → files → rename: what has its name is locked. (In the other order a
  journal could be claimed between its rename and its flock.)
- Claimed in the order open → flock → is the path still this file? (Without the question a journal that was removed
  between the open and the flock is delivered again.)
- Only who holds the flock writes in a journal, renames it or removes it. Removing begins with a rename to a hidden
  name, so nobody lists half a journal.
- Whoever finds that it cannot have a journal leaves it as it is and may come again.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import stat
from pathlib import Path

import msgspec

from ..._errors import JournalDamaged, JournalFromNewerVersion
from ._files import allocate, bytes_on_disk, erase, give_back, names_lock_last, sync_folder, unlink, write_new
from ._format import LOCK_FILE, META_FILE, JournalMeta, decode_meta, encode_meta
from ._lock import Lock
from ._state import check_state

__all__ = [
    "JournalDirectory",
    "JournalEntry",
    "JournalState",
    "claim",
    "list_journals",
    "quarantine",
    "quarantine_damaged",
    "service_folder",
    "service_path",
    "QUARANTINE",
    "is_own_directory",
    "make_away_with",
    "measure",
    "take",
    "was_claimed",
    "read_meta",
    "is_held",
    "journal_paths",
]

_DEATHS, _REASON = "deaths", "reason"
_CLAIMED = b"c"
QUARANTINE = "quarantine"
_SUFFIX = ".j"

_MAX_META_BYTES = 4 << 20
"""Far above any resource; a file that was damaged into gigabytes is not read into memory."""

_MAX_SERVICE_NAME = 100
"""File names end at 255 bytes; a service folder's name stays readable in a listing."""

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def service_folder(state: Path, service: str) -> Path:
    """The folder of a service's journals, made if it is missing. Raises `JournalError`: see `check_state()`."""
    folder = service_path(state, service)
    for path in (folder.parent.parent, folder.parent, folder):
        check_state(path)
    return folder


def service_path(state: Path, service: str) -> Path:
    """Where that folder is, or would be. Looks at no file."""
    return state / "v1" / _quoted(service)


def _quoted(service: str) -> str:
    """A file name for any text: different texts have different names, none is hidden."""
    text = service.encode("utf-8", "surrogatepass")
    name = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text)
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > _MAX_SERVICE_NAME:
        import hashlib  # only for names that nobody types

        name = f"{name[:_MAX_SERVICE_NAME]}%{hashlib.sha256(text).hexdigest()[:32]}"
    return name or "%"


class JournalDirectory:
    """A journal that this process holds: its own, or one that it claimed."""

    __slots__ = ("_lock", "_sync", "deaths", "meta", "path")

    deaths: int
    """Recoverers that died while they held this journal, without one that survived since."""

    def __init__(self, path: Path, meta: JournalMeta, lock: Lock, *, deaths: int = 0, sync: bool = False) -> None:
        self.path = path
        self.meta = meta
        self.deaths = deaths
        self._lock = lock
        self._sync = sync

    @classmethod
    def create(cls, folder: Path, meta: JournalMeta, *, sync: bool = False) -> JournalDirectory:
        """A new journal in `folder`, held by the caller. With `sync` its names survive a power cut.

        Raises `OSError` (full, read-only, gone, …) and leaves nothing behind then.
        """
        hidden = folder / f".{meta.journal_id}.new"
        path = folder / f"{meta.journal_id}{_SUFFIX}"
        lock = None
        try:
            os.mkdir(hidden, 0o700)
            lock = Lock(hidden / LOCK_FILE, create=True)
            _fill(hidden, lock, meta, sync=sync)
            os.rename(hidden, path)
            if sync:
                sync_folder(folder)
            return cls(path, meta, lock, sync=sync)
        except FileExistsError:
            raise  # an id that is in use: what lies there is not ours
        except BaseException:
            _clear_up(hidden, path, lock)
            raise

    @property
    def journal_id(self) -> str:
        return self.meta.journal_id

    def is_ours(self) -> bool:
        """Whether the path still leads to what this process locked: False once somebody deleted or replaced it."""
        return self._lock.leads_here(self.path / LOCK_FILE)

    def touch(self, now_ns: int) -> None:
        """A sign of life for `modified_ns`: stores through a map leave no time in a file, on tmpfs not ever."""
        self._lock.touch(now_ns)

    def open_file(self, name: str, size: int) -> int:
        """A new file whose `size` bytes are allocated, for reading and writing. Raises `OSError`; no file is left then."""
        path = self._inside(name)
        self._check_held()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            allocate(descriptor, size)
            if self._sync:
                sync_folder(self.path)
        except BaseException:
            give_back(descriptor)
            unlink(path)
            raise
        return descriptor

    def existing(self, name: str, *, write: bool) -> int:
        """A descriptor of a file of this journal. Raises `OSError`, also for a symbolic link."""
        if write:
            self._check_held()
        flags = os.O_RDWR if write else os.O_RDONLY
        return os.open(self._inside(name), flags | os.O_CLOEXEC | os.O_NOFOLLOW)

    def names(self) -> list[str]:
        """The files of this journal by name, but not `lock`, `meta` and the like. Raises `OSError`."""
        own = {LOCK_FILE, META_FILE, _DEATHS, _REASON}
        return sorted(name for name in os.listdir(self.path) if name not in own)

    def unlink(self, name: str) -> None:
        """Delete a file; one that is gone is no error."""
        self._check_held()
        unlink(self._inside(name))

    def _inside(self, name: str) -> Path:
        if not name or "/" in name or name in {".", ".."}:
            raise ValueError(f"{name!r} is no name of a file in a journal")
        return self.path / name

    def _check_held(self) -> None:
        if not self._lock.is_open:
            raise OSError(
                errno.EBADF, "the journal was released, or is that of the process that forked", str(self.path)
            )

    def note_death_begins(self) -> None:
        """From now until `note_survived()` the end of this process counts as a death over this journal.

        Raises `OSError`.
        """
        self._check_held()
        _write_deaths(self.path, self.deaths + 1)

    def note_survived(self) -> None:
        """The work is behind us: this journal does not kill who reads it. Its deaths are forgotten. Raises `OSError`."""
        self._check_held()
        _write_deaths(self.path, 0)
        self.deaths = 0

    def note_nobody_died(self) -> None:
        """The work came to no end, and this process lives: the deaths are those before. Raises `OSError`."""
        self._check_held()
        _write_deaths(self.path, self.deaths)

    def release(self) -> None:
        """Leave it to whoever claims it next."""
        self._lock.release()

    def remove(self) -> None:
        """Delete the directory and let go of it; quiet when it is gone already or is not ours.

        Raises `OSError` when it cannot be deleted (read-only by now); it is released then.
        """
        try:
            if self.is_ours():
                make_away_with(self.path)
        finally:
            self._lock.release()

    def forget_in_child(self) -> None:
        """After a fork, in the child: close its copy of the lock, touch nothing. The parent keeps the journal."""
        self._lock.forget()


def _clear_up(hidden: Path, path: Path, lock: Lock | None) -> None:
    """Nothing of what `create()` made stays, however far it came."""
    erase(hidden)
    if lock is not None:
        if lock.leads_here(path / LOCK_FILE):
            erase(path)
        lock.release()


def _fill(hidden: Path, lock: Lock, meta: JournalMeta, *, sync: bool) -> None:
    if not lock.take():
        raise OSError(errno.EBUSY, "taken for a leftover while it was being created", str(hidden))
    write_new(hidden / _DEATHS, b"0", sync=sync)
    write_new(hidden / META_FILE, encode_meta(meta), sync=sync)
    if sync:
        sync_folder(hidden)


def make_away_with(path: Path) -> None:
    """Delete a directory whose lock the caller holds. Raises `OSError` when it cannot even be renamed."""
    gone = path.parent / f".{path.name.removeprefix('.').rpartition('.')[0]}.gone"
    with contextlib.suppress(FileNotFoundError):  # somebody deleted it
        os.rename(path, gone)
        erase(gone)


def _read_deaths(path: Path) -> int:
    try:
        digit = (path / _DEATHS).read_bytes()[:1]
    except OSError:
        return 0
    return int(digit) if digit.isdigit() else 0


def _write_deaths(path: Path, deaths: int) -> None:
    """In place, in the block taken at creation: a full disk does not make recovery forget who died."""
    _write_in_place(path, b"%d" % min(deaths, 9), 0)


def _write_in_place(path: Path, content: bytes, at: int) -> None:
    descriptor = os.open(path / _DEATHS, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.pwrite(descriptor, content, at)
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------------------------------------ others' journals


class JournalState(enum.StrEnum):
    """What a journal is to somebody who looks at it."""

    LIVE = "live"
    """Held by a process: its owner, or one that recovers it."""
    ORPHAN = "orphan"
    """Held by nobody: to be claimed."""
    NEWER = "newer"
    """Written by a newer version of asynctrace: left alone."""
    DAMAGED = "damaged"
    """Held by nobody, and its `meta` or its `lock` is missing or broken."""
    QUARANTINED = "quarantined"
    """Put aside: see its file `reason`."""
    FOREIGN = "foreign"
    """Of another user, or no directory: left alone."""


class JournalEntry(msgspec.Struct, frozen=True):
    """One journal of a folder, at the moment of looking."""

    path: Path
    state: JournalState
    meta: JournalMeta | None
    size: int
    """Bytes that its files take on the disk."""
    modified_ns: int
    """The last sign of life of its owner: recovering it does not make it younger. 0 when there is none."""


def list_journals(folder: Path) -> list[JournalEntry]:
    """All journals of a folder, oldest first, those in quarantine included; empty when there is no such folder.

    Steals nothing: while it looks, a claim may fail, and succeeds when it comes again.
    """
    entries = [_look_at(path) for path in journal_paths(folder)]
    entries += [_look_at(path, aside=True) for path in journal_paths(folder / QUARANTINE)]
    found = [entry for entry in entries if entry is not None]
    return sorted(found, key=lambda entry: entry.meta.created_ns if entry.meta else entry.modified_ns)


def journal_paths(folder: Path) -> list[Path]:
    """Everything in a folder that has the name of a journal; empty when there is no such folder."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [folder / name for name in names if name.endswith(_SUFFIX) and not name.startswith(".")]


def _look_at(path: Path, *, aside: bool = False) -> JournalEntry | None:
    """None when it went away meanwhile."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    if not is_own_directory(status):
        return JournalEntry(path, JournalState.FOREIGN, None, 0, status.st_mtime_ns)
    size, modified_ns = measure(path)
    state, meta = _state_of(path)
    if state is None:
        return None
    if aside and state in {JournalState.ORPHAN, JournalState.DAMAGED}:
        state = JournalState.QUARANTINED
    return JournalEntry(path, state, meta, size, modified_ns)


def is_own_directory(status: os.stat_result) -> bool:
    """Whether this is a directory, not a link to one, of the user of this process."""
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def measure(path: Path) -> tuple[int, int]:
    """(bytes, newest time) of the files. What recovering writes, deaths and lanes, makes no journal younger."""
    size = modified_ns = 0
    for name in names_lock_last(path):
        try:
            status = os.stat(path / name, follow_symlinks=False)
        except OSError:
            continue
        size += bytes_on_disk(status)
        if name not in {_DEATHS, _REASON} and not name.endswith(".lane"):
            modified_ns = max(modified_ns, status.st_mtime_ns)
    return size, modified_ns


def _state_of(path: Path) -> tuple[JournalState | None, JournalMeta | None]:
    live = is_held(path)
    try:
        meta = read_meta(path)
    except JournalFromNewerVersion:
        return JournalState.NEWER, None
    except JournalDamaged:
        meta = None
    if live:
        return JournalState.LIVE, meta
    if meta is not None and live is not None:
        return JournalState.ORPHAN, meta
    return (JournalState.DAMAGED if path.is_dir() else None), meta


def is_held(path: Path) -> bool | None:
    """Whether somebody holds the lock; None when there is no lock that could be looked at."""
    try:
        lock = Lock(path / LOCK_FILE, write=False)
    except OSError:
        return None
    try:
        return not lock.look()
    finally:
        lock.release()  # at once: who wants to claim it must not meet us


def read_meta(path: Path) -> JournalMeta:
    """What its owner says of a journal. Raises `JournalDamaged`, also where it is gone, and `JournalFromNewerVersion`."""
    try:
        descriptor = os.open(path / META_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise JournalDamaged(f"{path / META_FILE} cannot be read: {error.strerror}") from error
    with open(descriptor, "rb") as file:
        return decode_meta(file.read(_MAX_META_BYTES))


def claim(path: Path) -> JournalDirectory | None:
    """Take a journal that nobody holds, of a version that we know and of our own user; else None, and all is as it was."""
    lock = take(path)
    if lock is None:
        return None
    try:
        meta = read_meta(path)
        _write_claimed(path)
    except (JournalDamaged, JournalFromNewerVersion):
        lock.release()
        return None
    except BaseException:
        lock.release()
        raise
    return JournalDirectory(path, meta, lock, deaths=_read_deaths(path))


def was_claimed(path: Path) -> bool:
    """Whether somebody recovers this journal, or has tried to: its owner is dead, although its lock may be held."""
    try:
        return (path / _DEATHS).read_bytes()[1:2] == _CLAIMED
    except OSError:
        return False


def _write_claimed(path: Path) -> None:
    with contextlib.suppress(OSError):  # then others take its owner for alive while we hold it
        _write_in_place(path, _CLAIMED, 1)


def take(path: Path, *, anew: bool = False) -> Lock | None:
    """The lock of a journal or leftover that nobody holds; with `anew` a lock file that is missing is made."""
    try:
        if not is_own_directory(os.stat(path, follow_symlinks=False)):
            return None
        lock = Lock(path / LOCK_FILE, create=anew and not os.path.lexists(path / LOCK_FILE))
    except OSError:
        return None
    try:
        if lock.take() and _is_still_own(path, lock):
            return lock
    except BaseException:
        lock.release()
        raise
    lock.release()
    return None


def _is_still_own(path: Path, lock: Lock) -> bool:
    try:
        own = is_own_directory(os.stat(path, follow_symlinks=False))
    except OSError:
        return False
    # Asked after the lock was taken: between the open and the lock the journal may have been removed or put aside.
    return own and lock.status().st_uid == os.geteuid() and lock.leads_here(path / LOCK_FILE)


def quarantine(directory: JournalDirectory, reason: str) -> Path:
    """Put a journal aside that should not be read again, and release it. Returns where it is now. Raises `OSError`."""
    try:
        directory.path = _put_aside(directory.path, reason)
    finally:
        directory.release()
    return directory.path


def quarantine_damaged(path: Path, reason: str) -> Path | None:
    """The same for a journal that cannot be claimed because its `meta` or `lock` is broken.

    None, and all is as it was, while somebody holds it and when a newer version wrote it.
    """
    lock = take(path, anew=True)
    if lock is None:
        return None
    try:
        return None if _is_newer(path) else _put_aside(path, reason)
    finally:
        lock.release()


def _is_newer(path: Path) -> bool:
    try:
        read_meta(path)
    except JournalFromNewerVersion:
        return True
    except JournalDamaged:
        return False
    return False


def _put_aside(path: Path, reason: str) -> Path:
    folder = path.parent / QUARANTINE
    folder.mkdir(mode=0o700, exist_ok=True)
    with contextlib.suppress(OSError):  # a full disk: better put aside without a note than read again
        write_new(path / _REASON, reason.encode("utf-8", "replace"))
    aside = folder / path.name
    os.rename(path, aside)
    return aside
