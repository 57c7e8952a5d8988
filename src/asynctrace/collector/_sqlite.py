"""The embedded store: one SQLite file in a directory of its own.

Promises:

- The file is readable by its owner only (0600); a directory that is made for it is 0700.
- The format has a version (`PRAGMA user_version`). A file of a newer version, of another program, or a
  damaged one is refused with a `StoreError`, and left as it is.
- A commit survives the death of the process (`synchronous=NORMAL` with a write-ahead log). A loss of *power*
  can undo the last commits, never tear one.
- One process writes: a second one is refused by a lock on `collector.lock`. Any number of processes read
  meanwhile, each call over a read-only connection of its own.

Format 1

    origin   one row for each (resource, scope): both as encoded OTLP messages, found by the hash of the two
    span     one row for each (trace id, span id): the encoded OTLP Span, and what lists and counts need
    trace    one row for each trace: the sums over its spans, kept in the same transaction as the spans

    request  which records were added under keys, see `_seen`

The row of a trace carries the name of its *head*: the earliest root span, or the earliest span when no root
is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from .._contracts import Resource, Scope, Span, StatusCode
from ..wire import (
    ResourceSpans,
    decode_request,
    decode_span,
    encode_request,
    encode_resource,
    encode_scope,
    encode_span,
    frame,
)
from ._seen import REQUEST_TABLE, SeenRequests
from ._store import LARGEST, RunPage, RunSummary, StoreError, StoreStatistics, weight_of

if TYPE_CHECKING:
    from ._keys import RequestKey

__all__ = ["FORMAT_VERSION", "STORE_FILE", "SQLiteReader", "SQLiteStore"]

FORMAT_VERSION = 1
STORE_FILE = "traces.db"
LOCK_FILE = "collector.lock"
APPLICATION_ID = 0x61745452
"""`PRAGMA application_id`: tells our files from those of other programs ("atTR")."""

SHORTEST_PREFIX = 8
"""Hex digits of a short trace id: two of 10,000 random ids share them once in a hundred stores."""

SCHEMA = """
CREATE TABLE origin (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE,
    resource BLOB NOT NULL, scope BLOB NOT NULL);
CREATE TABLE span (
    trace_id BLOB NOT NULL, span_id BLOB NOT NULL, origin INTEGER NOT NULL REFERENCES origin (id),
    start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, status INTEGER NOT NULL, message BLOB NOT NULL,
    UNIQUE (trace_id, span_id));
CREATE TABLE trace (
    trace_id BLOB PRIMARY KEY, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL,
    spans INTEGER NOT NULL, errors INTEGER NOT NULL, open INTEGER NOT NULL,
    head_depth INTEGER NOT NULL, head_start INTEGER NOT NULL,
    name TEXT NOT NULL, service TEXT NOT NULL, ending TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX trace_by_start ON trace (start_ns, trace_id);
"""

UPSERT_SPAN = """
INSERT INTO span (trace_id, span_id, origin, start_ns, end_ns, status, message) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (trace_id, span_id) DO UPDATE SET origin = excluded.origin, start_ns = excluded.start_ns,
    end_ns = excluded.end_ns, status = excluded.status, message = excluded.message
"""

UPSERT_TRACE = """
INSERT INTO trace VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (trace_id) DO UPDATE SET
    start_ns = min(start_ns, excluded.start_ns), end_ns = max(end_ns, excluded.end_ns),
    spans = spans + excluded.spans, errors = errors + excluded.errors, open = open + excluded.open
"""

UPDATE_HEAD = """
UPDATE trace SET head_depth = ?, head_start = ?, name = ?, service = ?, ending = ?
WHERE trace_id = ? AND (?, ?) <= (head_depth, head_start)
"""

SHORTEN_TRACE = """
UPDATE trace SET end_ns = (SELECT max(end_ns) FROM span WHERE trace_id = :trace_id) WHERE trace_id = :trace_id
"""

LIST_RUNS = """
SELECT trace_id, start_ns, end_ns, spans, errors, open, name, service, ending,
    (SELECT max(before.trace_id) FROM trace AS before WHERE before.trace_id < trace.trace_id),
    (SELECT min(after.trace_id) FROM trace AS after WHERE after.trace_id > trace.trace_id)
FROM trace WHERE (start_ns, trace_id) < (?, ?) ORDER BY start_ns DESC, trace_id DESC LIMIT ?
"""

READ_TRACE = """
SELECT origin.resource, origin.scope, span.message FROM span JOIN origin ON origin.id = span.origin
WHERE span.trace_id = ? ORDER BY span.origin, span.start_ns, span.span_id
"""

COUNT = "SELECT count(*), coalesce(sum(spans), 0), coalesce(sum(open), 0) FROM trace"


class SQLiteReader:
    """Reads the store in `directory`, also while a collector writes to it.

    `busy_timeout` is how many seconds a call may wait for a lock of another process.
    """

    def __init__(self, directory: str | os.PathLike[str], *, busy_timeout: float = 5.0) -> None:
        self.directory = Path(directory)
        self.path = self.directory / STORE_FILE
        self._busy_timeout = busy_timeout
        if not self.path.is_file():
            raise StoreError(f"there is no store in {self.directory}: `asynctrace serve` makes one")
        with self._reading() as connection:
            _check_format(connection, self.path)

    def runs(self, limit: int, cursor: str | None = None) -> RunPage:
        """At most `limit` traces that come after `cursor`, newest start first."""
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        position = _parse_cursor(cursor) if cursor is not None else (LARGEST, b"\xff" * 17)
        with self._reading() as connection:
            rows = connection.execute(LIST_RUNS, (*position, limit + 1)).fetchall()
        page = tuple(_summary(row) for row in rows[:limit])
        more = len(rows) > limit
        return RunPage(traces=page, cursor=f"{page[-1].start_ns}-{page[-1].trace_id}" if more else None)

    def trace(self, trace_id: str) -> list[ResourceSpans]:
        """All spans of a trace, by resource and scope; empty when the trace is unknown."""
        with self._reading() as connection:
            rows = connection.execute(READ_TRACE, (_identity(trace_id),)).fetchall()
        messages: dict[tuple[bytes, bytes], list[bytes]] = {}
        for resource, scope, message in rows:
            messages.setdefault((resource, scope), []).append(frame(message))
        groups: list[ResourceSpans] = []
        for (resource, scope), records in messages.items():
            groups += decode_request(b"".join(encode_request(resource, scope, records)))
        return groups

    def find(self, prefix: str, limit: int = 10) -> list[str]:
        """At most `limit` trace ids that begin with `prefix`."""
        between = (_identity(prefix.ljust(32, "0")), _identity(prefix.ljust(32, "f")))
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT trace_id FROM trace WHERE trace_id BETWEEN ? AND ? ORDER BY trace_id LIMIT ?",
                (*between, limit),
            ).fetchall()
        return [row[0].hex() for row in rows]

    def statistics(self) -> StoreStatistics:
        """Count what is there."""
        with self._reading() as connection:
            traces, spans, still_open = connection.execute(COUNT).fetchone()
        return StoreStatistics(traces=traces, spans=spans, open=still_open)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection for one call: opening one costs less than sharing one between threads."""
        with _clear_errors(self.path):
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=self._busy_timeout
            )
            with contextlib.closing(connection):
                yield connection


class SQLiteStore(SQLiteReader):
    """The store in `directory`, made when it is not there, and held by this process until `close()`.

    `time` is asked for the age of keys, in seconds.
    `StoreError` when another collector holds it, or when the file there is none of ours, newer or damaged.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        busy_timeout: float = 5.0,
        time: Callable[[], float] = time.time,
    ) -> None:
        self._writing = threading.Lock()
        self._seen = SeenRequests(time)
        self._origins: dict[bytes, int] = {}
        self._connection: sqlite3.Connection | None = None
        path = Path(directory) / STORE_FILE
        self._lock_file = _claim(Path(directory))
        try:
            with _clear_errors(path):
                self._connection = _open_writer(path, busy_timeout)
            super().__init__(directory, busy_timeout=busy_timeout)
        except BaseException:
            self.close()
            raise

    def add(self, groups: Sequence[ResourceSpans], keys: Sequence[RequestKey] = ()) -> None:
        """Take over the spans of `groups`, which came under `keys`, in one transaction."""
        with self._writing, _clear_errors(self.path):
            if self._connection is None:
                raise StoreError(f"the store {self.path} is closed")
            try:
                with _transaction(self._connection):
                    self._add(self._connection, groups)
                    self._seen.add(self._connection, keys)
            except BaseException:
                self._origins.clear()  # the ids may have been rolled back
                raise

    def has(self, key: RequestKey) -> bool:
        """Whether all records of `key` were added before, under it or under others of the same log."""
        with self._writing, _clear_errors(self.path):
            if self._connection is None:
                raise StoreError(f"the store {self.path} is closed")
            return self._seen.has(self._connection, key)

    def close(self) -> None:
        """Close the file and let another collector have it. Idempotent."""
        with self._writing:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
            self._lock_file.close()

    def _add(self, connection: sqlite3.Connection, groups: Iterable[ResourceSpans]) -> None:
        tallies: dict[bytes, _Tally] = {}
        for group in groups:
            service = _service(group.resource)
            origin = self._origin(connection, group.resource, group.scope)
            for span in group.spans:
                trace_id = bytes.fromhex(span.trace_id)
                before = _before(connection, trace_id, span)
                if before is None or weight_of(span) >= before.weight:
                    connection.execute(UPSERT_SPAN, _span_row(trace_id, origin, span))
                    tallies.setdefault(trace_id, _Tally()).count(span, before, service)
        for trace_id, tally in tallies.items():
            tally.write(connection, trace_id)

    def _origin(self, connection: sqlite3.Connection, resource: Resource, scope: Scope) -> int:
        encoded = (encode_resource(resource), encode_scope(scope))
        digest = hashlib.sha256(len(encoded[0]).to_bytes(8, "big") + b"".join(encoded)).digest()
        if digest not in self._origins:
            if len(self._origins) >= 1024:  # resources are few; a sender that varies them must not grow us
                self._origins.clear()
            connection.execute(
                "INSERT OR IGNORE INTO origin (digest, resource, scope) VALUES (?, ?, ?)", (digest, *encoded)
            )
            found = connection.execute("SELECT id FROM origin WHERE digest = ?", (digest,)).fetchone()
            self._origins[digest] = found[0]
        return self._origins[digest]


class _Tally:
    """What a transaction changes in the row of one trace."""

    __slots__ = ("end_ns", "errors", "head", "is_shorter", "open", "spans", "start_ns")

    def __init__(self) -> None:
        self.start_ns, self.end_ns = LARGEST, 0
        self.spans = self.errors = self.open = 0
        self.head: tuple[int, int, str, str, str] = (2, LARGEST, "", "", "")
        self.is_shorter = False

    def count(self, span: Span, before: _Before | None, service: str) -> None:
        """Add the span, less the version of it that it replaces."""
        self.start_ns = min(self.start_ns, _clamp(span.start_ns))
        self.end_ns = max(self.end_ns, _clamp(span.end_ns))
        self.spans += before is None
        self.errors += span.status is StatusCode.ERROR
        self.open += not span.end_ns
        if before is not None:
            self.errors -= before.status == StatusCode.ERROR
            self.open -= not before.end_ns
            self.is_shorter = self.is_shorter or _clamp(span.end_ns) < before.end_ns
        ending = span.ending if span.end_ns else "open"
        head = (
            int(bool(span.parent_id)),
            _clamp(span.start_ns),
            _text(span.name),
            _text(service),
            _text(ending),
        )
        if head[:2] <= self.head[:2]:
            self.head = head

    def write(self, connection: sqlite3.Connection, trace_id: bytes) -> None:
        sums = (self.start_ns, self.end_ns, self.spans, self.errors, self.open)
        connection.execute(UPSERT_TRACE, (trace_id, *sums, *self.head))
        connection.execute(UPDATE_HEAD, (*self.head, trace_id, *self.head[:2]))
        if self.is_shorter:  # the time until which a lost span was thought to run no longer counts
            connection.execute(SHORTEN_TRACE, {"trace_id": trace_id})


class _Before(NamedTuple):
    """The version of a span that is there."""

    end_ns: int
    status: int
    weight: tuple[int, int]


def _before(connection: sqlite3.Connection, trace_id: bytes, span: Span) -> _Before | None:
    key = (trace_id, bytes.fromhex(span.span_id))
    row = connection.execute(
        "SELECT end_ns, status, message FROM span WHERE trace_id = ? AND span_id = ?", key
    ).fetchone()
    if row is None:
        return None
    end_ns, status, message = row
    is_suspect = end_ns and status == StatusCode.ERROR  # else it is not lost, and need not be decoded
    return _Before(end_ns, status, weight_of(decode_span(message)) if is_suspect else (2 if end_ns else 0, end_ns))


def _span_row(trace_id: bytes, origin: int, span: Span) -> tuple[Any, ...]:
    times = (_clamp(span.start_ns), _clamp(span.end_ns))
    return (trace_id, bytes.fromhex(span.span_id), origin, *times, int(span.status), encode_span(span))


def _summary(row: tuple[Any, ...]) -> RunSummary:
    trace_id, start_ns, end_ns, spans, errors, still_open, name, service, ending, before, after = row
    return RunSummary(
        trace_id=trace_id.hex(),
        short_id=_short(trace_id.hex(), (other.hex() for other in (before, after) if other is not None)),
        name=name,
        service=service,
        start_ns=start_ns,
        end_ns=end_ns,
        duration=None if still_open else max(0, end_ns - start_ns) / 1e9,
        spans=spans,
        errors=errors,
        open=still_open,
        ending=ending,
    )


def _short(trace_id: str, neighbors: Iterable[str]) -> str:
    shared = max((_shared(trace_id, other) for other in neighbors), default=0)
    return trace_id[: max(SHORTEST_PREFIX, shared + 1)]


def _shared(one: str, other: str) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))


def _service(resource: Resource) -> str:
    name = resource.attributes.get("service.name", "")
    return name if isinstance(name, str) else str(name)


def _clamp(time_ns: int) -> int:
    return min(max(time_ns, 0), LARGEST)


def _text(text: str) -> str:
    """SQLite stores UTF-8 only: a lone surrogate becomes `?`."""
    return text.encode("utf-8", "replace").decode()


def _identity(hexadecimal: str) -> bytes:
    """A trace id as bytes; `ValueError` when it is none."""
    if len(hexadecimal) != 32 or not hexadecimal.isalnum():  # fromhex() would skip spaces
        raise ValueError(f"a trace id is 32 hexadecimal digits, or the beginning of them, not {hexadecimal!r}")
    try:
        return bytes.fromhex(hexadecimal)
    except ValueError:
        raise ValueError(f"a trace id has hexadecimal digits only, not {hexadecimal!r}") from None


def _parse_cursor(cursor: str) -> tuple[int, bytes]:
    start, _, trace_id = cursor.partition("-")
    try:
        return _clamp(int(start)), _identity(trace_id)
    except ValueError:
        raise ValueError(f"no cursor of this store: {cursor!r}") from None


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


def _open_writer(path: Path, busy_timeout: float) -> sqlite3.Connection:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)  # SQLite gives its -wal and -shm files the same mode
    except OSError as error:
        raise StoreError(f"the store {path} cannot be written: {error.strerror}") from error
    connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if not _pragma(connection, "schema_version"):
        connection.execute("PRAGMA journal_mode = WAL")
        with _transaction(connection):
            for statement in SCHEMA.strip().rstrip(";").split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
    _check_format(connection, path)
    connection.execute(REQUEST_TABLE)
    connection.execute("PRAGMA synchronous = NORMAL")


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise StoreError(f"{path} is no store of asynctrace: give another --data directory")
    version = _pragma(connection, "user_version")
    if version > FORMAT_VERSION:
        raise StoreError(
            f"{path} has format {version}, this asynctrace reads up to {FORMAT_VERSION}: "
            "use the newer asynctrace that wrote it, or another --data directory"
        )


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


WAYS_OUT = {
    sqlite3.SQLITE_BUSY: "is locked by another process: stop it, or give another --data directory",
    sqlite3.SQLITE_LOCKED: "is locked by another process: stop it, or give another --data directory",
    sqlite3.SQLITE_CORRUPT: "is damaged: move it away and start again (`sqlite3 FILE .recover` saves rows)",
    sqlite3.SQLITE_NOTADB: "is damaged or no SQLite file: move it away and start again",
    sqlite3.SQLITE_FULL: "cannot grow, the disk is full: free some space",
}
"""What to do about SQLite's primary result codes (https://www.sqlite.org/rescode.html)."""


@contextlib.contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        way_out = WAYS_OUT.get(code, "cannot be used")
        raise StoreError(f"the store {path} {way_out} (SQLite: {error})") from error
