"""The embedded store: segment files of SQLite in a directory of its own.

    seg-000007.db   the newest: all spans go here, until it has 256 MB or is six hours old
    seg-000006.db   sealed: read, and one day unlinked; nothing is added any more
    seg-000000.db   pinned traces whose segment was unlinked
    books.db        which requests came, what is pinned
    collector.lock  held by the one process that writes

Promises, beside those of every store

- The files are readable by their owner only (0600); a directory that is made for them is 0700.
- A commit survives the death of the process (`synchronous=NORMAL` with a write-ahead log). A loss of *power* can undo the
  last commits, never tear one.
- One process writes: a second one is refused by a lock on `collector.lock`. Any number of processes read meanwhile.
- A segment that is damaged is left where it is and passed over; new spans go to a new one.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time as _time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from .._rows import Received
from ._books import BOOKS, open_books
from ._chunk import best_codec
from ._earlier import Earlier, is_sealed, seal
from ._ids import identity
from ._reading import SQLiteReader
from ._retention import Retention, together
from ._schema import clear_errors, is_damage, open_writing, transaction
from ._seen import SeenRequests
from ._segments import PINNED, Segments, segment_path
from ._store import Bounds, StoreError, Swept
from ._writing import SegmentWriter

if TYPE_CHECKING:
    from .._keys import RequestKey

__all__ = ["SEGMENT_AGE", "SEGMENT_SIZE", "SQLiteStore"]

LOCK_FILE: Final = "collector.lock"
SEGMENT_SIZE: Final = 256 * 1024 * 1024
"""Bytes. Small enough that the bounds take away a small part at once, large enough that a list asks few files."""
SEGMENT_AGE: Final = 6 * 3600.0
"""Seconds."""
PARTS: Final = 8
"""Into how many segments narrow bounds are divided."""
SMALLEST_SEGMENT: Final = 1024 * 1024


class SQLiteStore(SQLiteReader):
    """The store in `directory`, made when it is not there, and held by this process until `close()`.

    `bounds` say what it keeps. A segment ends at `segment_size` bytes or after `segment_age` seconds; narrow bounds make both
    smaller. `time` gives seconds since the Unix epoch. `full_text=False` does without SQLite's FTS5.
    `StoreError` when another collector holds the directory, or when a file there is newer, or another program's.
    """

    _most_idle = 4

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        bounds: Bounds | None = None,
        segment_size: int = SEGMENT_SIZE,
        segment_age: float = SEGMENT_AGE,
        busy_timeout: float = 5.0,
        time: Callable[[], float] = _time.time,
        full_text: bool = True,
    ) -> None:
        self.bounds = bounds or Bounds()
        self._segment_size = _part(segment_size, self.bounds.size, SMALLEST_SEGMENT)
        self._segment_age = _part(segment_age, self.bounds.age, 0.0)
        self._time = time
        self._full_text = full_text
        self._writing = threading.RLock()
        self._seen = SeenRequests(time)
        self._swept = Swept()
        self._current: _Current | None = None
        self._books: sqlite3.Connection | None = None
        path = Path(directory)
        self._lock_file = _claim(path)
        try:
            with clear_errors(path / BOOKS):
                self._books = open_books(path / BOOKS, busy_timeout)
            self._open_newest(path, Segments(path, busy_timeout), busy_timeout)
            super().__init__(directory, busy_timeout=busy_timeout)
        except BaseException:
            self.close()
            raise

    def add(self, received: Sequence[Received], *, token: str = "") -> None:
        """Take over rows and logs in one transaction, then note the keys they came under; `token` adds nothing to these."""
        with self._writing:
            if self._is_full(self._held()):
                self._begin_next(self._held())
                self._sweep()
            current = self._held()
            try:
                current.add(received, self._now_ns())
            except StoreError as error:
                if not is_damage(error.__cause__):
                    raise
                self._begin_next(current).add(received, self._now_ns())
            keys = [each.key for each in received if each.key is not None]
            if keys:
                self._note(keys)

    def has(self, key: RequestKey) -> bool:
        """Whether all records of `key` were added before, under it or under others of the same log."""
        with self._writing, clear_errors(self.directory / BOOKS):
            return self._seen.has(self._held_books(), key)

    def pin(self, trace_id: str) -> bool:
        """Keep a trace beyond the bounds."""
        wanted = identity(trace_id)
        with self._writing, clear_errors(self.directory / BOOKS):
            books = self._held_books()
            if self.summary(trace_id) is None:
                return False
            books.execute("INSERT OR IGNORE INTO pin VALUES (?)", (wanted,))
            return True

    def unpin(self, trace_id: str) -> bool:
        """Let the bounds hold for it again."""
        wanted = identity(trace_id)
        with self._writing, clear_errors(self.directory / BOOKS):
            return self._held_books().execute("DELETE FROM pin WHERE trace_id = ?", (wanted,)).rowcount > 0

    def delete(self, trace_id: str) -> bool:
        """Take a trace away, from all segments and the pins. Its spans are overwritten with zeros."""
        wanted = identity(trace_id)
        with self._writing:
            current = self._held()
            is_known = self._retention(current).delete(wanted)
            current.forget()
            self.unpin(trace_id)
            return is_known

    def sweep(self) -> Swept:
        """Unlink the segments that are beyond the bounds; what is pinned there is copied out before. Tells what went
        since the last time: `add()` makes room for itself."""
        with self._writing:
            if self._is_full(self._held()):
                self._begin_next(self._held())
            self._sweep()
            swept, self._swept = self._swept, Swept()
            return swept

    def close(self) -> None:
        """Close the files and let another collector have the directory. Idempotent."""
        with self._writing:
            current, self._current = self._current, None
            books, self._books = self._books, None
            if current is not None:
                current.close()
            if books is not None:
                books.close()
            if hasattr(self, "_segments"):
                self._segments.close()
            self._lock_file.close()

    def _open_newest(self, directory: Path, segments: Segments, busy_timeout: float) -> None:
        """Go on with the newest segment, or begin one where that is sealed, damaged, or not there."""
        numbers = [segment.number for segment in segments.newest_first()]
        newest = max(numbers, default=PINNED)
        self._check(segments)
        if newest != PINNED:
            try:
                current = _Current(directory, newest, segments, busy_timeout, self._now_ns(), self._full_text)
            except StoreError as error:
                if not is_damage(error.__cause__):
                    raise
            else:
                if not current.is_sealed:
                    self._current = current
                    return
                current.close()
        self._current = _Current(directory, newest + 1, segments, busy_timeout, self._now_ns(), self._full_text)

    @staticmethod
    def _check(segments: Segments) -> None:
        """A file of a newer version, or of another program, is for the user to decide about."""
        with segments.readings():
            pass

    def _begin_next(self, current: _Current) -> _Current:
        following = _Current(
            self.directory, current.number + 1, self._segments, self._busy_timeout, self._now_ns(), self._full_text
        )
        self._current = following
        current.end()
        following.earlier = Earlier(self._segments, following.number)
        return following

    def _is_full(self, current: _Current) -> bool:
        age = self._now_ns() - current.begun_ns
        return (current.size >= self._segment_size or age >= self._segment_age * 1e9) and not current.is_empty

    def _sweep(self) -> None:
        current = self._held()
        swept = self._retention(current).sweep(self._pinned(), self.bounds, self._now_ns(), self._segment_size)
        self._swept = together(self._swept, swept)
        if swept.traces:
            current.forget()
            current.earlier = Earlier(self._segments, current.number)

    def _note(self, keys: Sequence[RequestKey]) -> None:
        books = self._held_books()
        with clear_errors(self.directory / BOOKS), transaction(books):
            self._seen.add(books, keys)

    def _retention(self, current: _Current) -> Retention:
        return Retention(self.directory, self._segments, current.number, current.connection, self._busy_timeout)

    def _held(self) -> _Current:
        if self._current is None:
            raise StoreError(f"the store {self.directory} is closed")
        return self._current

    def _held_books(self) -> sqlite3.Connection:
        if self._books is None:
            raise StoreError(f"the store {self.directory} is closed")
        return self._books

    def _now_ns(self) -> int:
        return int(self._time() * 1e9)


class _Current:
    """The segment that is written."""

    def __init__(
        self, directory: Path, number: int, segments: Segments, busy_timeout: float, now_ns: int, full_text: bool
    ) -> None:
        self.number = number
        self.path = segment_path(directory, number)
        with clear_errors(self.path):
            self.connection = open_writing(self.path, busy_timeout, full_text=full_text)
            try:
                self.begun_ns = self._begin(now_ns)
                self.is_sealed = is_sealed(self.connection)
                self.earlier = Earlier(segments, number)
                self._writer = SegmentWriter(self.connection, best_codec(), lambda *wanted: self.earlier(*wanted))
            except BaseException:
                self.connection.close()
                raise

    def add(self, received: Sequence[Received], now_ns: int) -> None:
        with clear_errors(self.path):
            self._writer.add(received, now_ns)

    def forget(self) -> None:
        """Others are about to change what was remembered."""
        self._writer.forget()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        try:
            return self.path.stat().st_size + Path(f"{self.path}-wal").stat().st_size
        except OSError:
            return 0

    @property
    def is_empty(self) -> bool:
        with clear_errors(self.path):
            return self.connection.execute("SELECT 1 FROM trace LIMIT 1").fetchone() is None

    def end(self) -> None:
        """Seal it. Where that fails it is read without a filter."""
        try:
            with clear_errors(self.path):
                seal(self.connection)
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except StoreError:
            """A full disk, or damage: what is there can still be read, or not, as before."""
        self.close()

    def close(self) -> None:
        self.connection.close()

    def _begin(self, now_ns: int) -> int:
        self.connection.execute("INSERT OR IGNORE INTO note VALUES ('begun', ?)", (now_ns,))
        begun: int = self.connection.execute("SELECT value FROM note WHERE key = 'begun'").fetchone()[0]
        return begun


def _part(whole: float, bound: float | None, least: float) -> float:
    return whole if bound is None else max(least, min(whole, bound / PARTS))


def _claim(directory: Path) -> IO[str]:
    """Make the directory, and hold it: the lock ends with the process, however it ends."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = open(os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600), "r+")  # noqa: SIM115
    except OSError as error:
        raise StoreError(f"the directory {directory} cannot be used: {error.strerror}") from error
    try:
        _lock(lock)
    except OSError as error:
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise StoreError(
            f"another collector (process {owner}) uses {directory}: stop it, or give this one another --data"
        ) from error
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _lock(file: IO[str]) -> None:
    try:
        import fcntl
    except ImportError:  # not POSIX: SQLite's own locks still keep the transactions apart
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
