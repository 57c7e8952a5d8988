"""What outlives the segments: which requests came, which traces are pinned, which segments were copied from.

One small SQLite file, `books.db`, of the directory. Keys are written after the spans they came with: a process that dies in
between forgets a key, which costs time, never truth.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from ._schema import APPLICATION_ID, check_format, pragma, transaction
from ._schema import FORMAT_VERSION as VERSION
from ._seen import REQUEST_TABLE
from ._store import StoreError

__all__ = ["BOOKS", "open_books"]

BOOKS: Final = "books.db"
TABLES: Final = (
    REQUEST_TABLE,
    "CREATE TABLE IF NOT EXISTS pin (trace_id BLOB PRIMARY KEY) WITHOUT ROWID",
)


def open_books(path: Path, busy_timeout: float, *, write: bool = True) -> sqlite3.Connection:
    """The file; made when it is not there and may be written."""
    if write:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            path.chmod(0o600)
        except OSError as error:
            raise StoreError(f"the store {path} cannot be written: {error.strerror}") from error
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'rw' if write else 'ro'}",
        uri=True,
        timeout=busy_timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        if write:
            _prepare(connection)
        check_format(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    if not pragma(connection, "schema_version"):
        connection.execute("PRAGMA journal_mode = WAL")
        with transaction(connection):
            for table in TABLES:
                connection.execute(table)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("PRAGMA synchronous = NORMAL")
