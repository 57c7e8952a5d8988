"""One file of the embedded store: its tables, its version, how it is opened, what its errors mean.

Format 3, in each segment file `seg-N.db`

    res      one row for each (resource, scope, their schema_urls): the first two as encoded OTLP messages
    name     one row for each (name, service, type, model) that spans have
    trace    one row for each trace, the line of the list. Its number, given in order of arrival, is part of the ids of its
             chunks
    chunk    spans, or logs, of one trace that came in one commit: codec, skeleton, messages (see `_chunk`).
             id = number of the trace * 2**20 + number of the chunk within it
    large    blocks of values of more than 64 KB, each once, by its hash; `apart` says where in which chunk they belong
             (see `_large`)
    kv       search tokens to chunk ids: FTS5, contentless, `detail=none`, the tokens as 16 hex digits; a plain table
             where SQLite has no FTS5. A hit says "may": a chunk that was deleted leaves its tokens behind
    roll     minute, name: counts and sums of the spans, and how many durations fell into which bucket
    total    one row: how many traces begin here, spans and open spans were added here
    note     what is known of the file as a whole: which form `kv` has, when it was begun, and of a sealed one the filter
             of its trace ids

Format 2 had no schema_urls and no large values apart. A file of it is read as it is, and gets what it lacks when it is opened
to be written.

A trace that goes on in a later segment has a row there as well, with the sums over all segments; that row is marked
(`continues`), and takes the place of the earlier ones.

Promises

- The file is readable by its owner only (0600).
- `PRAGMA application_id` and `user_version` say whose it is and of which format. A newer one, and one of another program, is
  refused with a `StoreError`; it is left as it is.
- Nothing here needs an SQLite newer than 3.40.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ._store import StoreError

__all__ = [
    "APPLICATION_ID",
    "NotBegun",
    "CHUNK_BITS",
    "FORMAT_VERSION",
    "check_format",
    "clear_errors",
    "is_damage",
    "open_reading",
    "open_writing",
    "pragma",
    "transaction",
]

FORMAT_VERSION: Final = 3
APPLICATION_ID: Final = 0x61745452
"""Tells our files from those of other programs ("atTR")."""
CHUNK_BITS: Final = 20
"""A million commits for one trace in one segment: more than come in the hours until a segment ends."""
PAGE_SIZE: Final = 16384
"""Bytes. Smaller pages leave a third of their room empty, as a few chunks fit; larger ones make small commits write more."""
WRITER_CACHE: Final = 16 * 1024
"""KiB."""

SCHEMA: Final = """
CREATE TABLE res (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE,
    resource BLOB NOT NULL, scope BLOB NOT NULL, service TEXT NOT NULL);
CREATE TABLE name (id INTEGER PRIMARY KEY,
    name TEXT NOT NULL, service TEXT NOT NULL, type TEXT NOT NULL, model TEXT NOT NULL,
    UNIQUE (name, service, type, model));
CREATE TABLE trace (
    no INTEGER PRIMARY KEY, trace_id BLOB NOT NULL UNIQUE, continues INTEGER NOT NULL, chunks INTEGER NOT NULL,
    version INTEGER NOT NULL, stored INTEGER NOT NULL, root_received_ns INTEGER NOT NULL, received_ns INTEGER NOT NULL,
    start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL,
    spans INTEGER NOT NULL, errors INTEGER NOT NULL, open INTEGER NOT NULL, lost INTEGER NOT NULL,
    late INTEGER NOT NULL, dropped INTEGER NOT NULL,
    depth INTEGER NOT NULL, head_start INTEGER NOT NULL,
    name TEXT NOT NULL, service TEXT NOT NULL, ending TEXT NOT NULL, type TEXT NOT NULL, model TEXT NOT NULL,
    session TEXT NOT NULL, user TEXT NOT NULL, input TEXT NOT NULL, output TEXT NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, cost REAL NOT NULL);
CREATE INDEX trace_by_start ON trace (start_ns, trace_id);
CREATE INDEX trace_by_session ON trace (session COLLATE NOCASE) WHERE session <> '';
CREATE INDEX trace_continued ON trace (trace_id) WHERE continues;
CREATE TABLE chunk (id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, codec INTEGER NOT NULL,
    received_ns INTEGER NOT NULL, skeleton BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE roll (minute INTEGER NOT NULL, name INTEGER NOT NULL, count INTEGER NOT NULL, errors INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, cost REAL NOT NULL, buckets BLOB NOT NULL,
    PRIMARY KEY (minute, name)) WITHOUT ROWID;
CREATE TABLE total (traces INTEGER NOT NULL, spans INTEGER NOT NULL, open INTEGER NOT NULL);
INSERT INTO total VALUES (0, 0, 0);
CREATE TABLE note (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""
ADDED: Final = {
    3: (
        "ALTER TABLE res ADD COLUMN resource_schema TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE res ADD COLUMN scope_schema TEXT NOT NULL DEFAULT ''",
        "CREATE TABLE large (digest BLOB PRIMARY KEY, codec INTEGER NOT NULL, value BLOB NOT NULL)",
        "CREATE TABLE apart (chunk INTEGER NOT NULL, first INTEGER NOT NULL, digest BLOB NOT NULL, "
        "PRIMARY KEY (chunk, first)) WITHOUT ROWID",
        "CREATE INDEX apart_by_digest ON apart (digest)",
    )
}
"""What a format has that the one before had not: `SCHEMA` is format 2."""
FULL_TEXT: Final = "CREATE VIRTUAL TABLE kv USING fts5(tokens, content='', columnsize=0, detail=none, tokenize='ascii')"
PLAIN: Final = "CREATE TABLE kv (token BLOB NOT NULL, chunk INTEGER NOT NULL, PRIMARY KEY (token, chunk)) WITHOUT ROWID"


def open_writing(path: Path, busy_timeout: float, *, full_text: bool = True) -> sqlite3.Connection:
    """The file for the one process that writes; made when it is not there."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)  # SQLite gives its -wal and -shm files the same mode
    except OSError as error:
        raise StoreError(f"the store {path} cannot be written: {error.strerror}") from error
    connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, path, full_text=full_text)
    except BaseException:
        connection.close()
        raise
    return connection


class NotBegun(StoreError):
    """The file has no tables: the process that made it died, or has not got so far."""


def open_reading(path: Path, busy_timeout: float) -> sqlite3.Connection:
    """The file read-only, for one call at a time from any thread."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        timeout=busy_timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        check_format(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, *, full_text: bool) -> None:
    if not pragma(connection, "schema_version"):
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        with transaction(connection):
            for statement in SCHEMA.strip().rstrip(";").split(";"):
                connection.execute(statement)
            _make_index(connection, full_text=full_text)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("PRAGMA user_version = 2")
            _upgrade(connection)
    check_format(connection, path)
    if pragma(connection, "user_version") < FORMAT_VERSION:
        with transaction(connection):
            _upgrade(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA cache_size = -{WRITER_CACHE}")


def _upgrade(connection: sqlite3.Connection) -> None:
    for version in range(pragma(connection, "user_version") + 1, FORMAT_VERSION + 1):
        for statement in ADDED[version]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")


def _make_index(connection: sqlite3.Connection, *, full_text: bool) -> None:
    has_fts5 = full_text and connection.execute(
        "SELECT count(*) FROM pragma_module_list WHERE name = 'fts5'"
    ).fetchone() == (1,)
    connection.execute(FULL_TEXT if has_fts5 else PLAIN)
    connection.execute("INSERT INTO note VALUES ('index', ?)", ("fts5" if has_fts5 else "plain",))


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """`StoreError` for a file of another program, and one of a newer format."""
    if not pragma(connection, "schema_version"):
        raise NotBegun(f"{path} is empty")
    if pragma(connection, "application_id") != APPLICATION_ID:
        raise StoreError(f"{path} is no store of asynctrace: give another --data directory")
    version = pragma(connection, "user_version")
    if version > FORMAT_VERSION:
        raise StoreError(
            f"{path} has format {version}, this asynctrace reads up to {FORMAT_VERSION}: "
            "use the newer asynctrace that wrote it, or another --data directory"
        )


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """The value of a pragma that is a number."""
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Committed at the end of the block, undone when that raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


WAYS_OUT: Final = {
    sqlite3.SQLITE_BUSY: "is locked by another process: stop it, or give another --data directory",
    sqlite3.SQLITE_LOCKED: "is locked by another process: stop it, or give another --data directory",
    sqlite3.SQLITE_CORRUPT: "is damaged: move it away (`sqlite3 FILE .recover` saves rows)",
    sqlite3.SQLITE_NOTADB: "is damaged or no SQLite file: move it away",
    sqlite3.SQLITE_FULL: "cannot grow, the disk is full: free some space, or give a smaller --max-size",
    sqlite3.SQLITE_READONLY: "cannot be written: it, or its directory, is read-only",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: look at the permissions of it and its directory",
    sqlite3.SQLITE_IOERR: "cannot be read or written: look at the disk",
}
"""What to do about SQLite's primary result codes (https://www.sqlite.org/rescode.html)."""


@contextlib.contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Errors of SQLite as a `StoreError` that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        way_out = WAYS_OUT.get(_code(error), "cannot be used")
        raise StoreError(f"the store {path} {way_out} (SQLite: {error})") from error


def is_damage(error: BaseException | None) -> bool:
    """Whether the content of a file is what is wrong."""
    return isinstance(error, sqlite3.Error) and _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
