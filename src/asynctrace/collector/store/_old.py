"""The store of format 1: one file, `traces.db`, one row for each span. It is read, never written.

`Collector` takes it over when it starts: `bodies()` gives what is there as OTLP requests, in order, they go the way of all
requests, and then `retire()` moves the file to `traces.db.taken-over`. When the process dies in between, the next one begins
again: spans that are there already count once.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ...wire import encode_request, frame
from ._schema import APPLICATION_ID, clear_errors, pragma
from ._store import StoreError

__all__ = ["OLD_FILE", "has_old", "old_bodies", "retire_old"]

OLD_FILE: Final = "traces.db"
RETIRED: Final = "traces.db.taken-over"
OLD_VERSION: Final = 1
SPANS_AT_ONCE: Final = 1000

READ: Final = """
SELECT origin.id, origin.resource, origin.scope, span.message
FROM span JOIN origin ON origin.id = span.origin ORDER BY span.rowid
"""


def has_old(directory: Path) -> bool:
    """Whether there is a store of format 1 that was not taken over yet."""
    return (directory / OLD_FILE).is_file()


def old_bodies(directory: Path) -> Iterator[bytes]:
    """Encoded `ExportTraceServiceRequest`s with all spans, in order of arrival."""
    path = directory / OLD_FILE
    with clear_errors(path), contextlib.closing(sqlite3.connect(path)) as connection:
        if pragma(connection, "application_id") != APPLICATION_ID or pragma(connection, "user_version") != OLD_VERSION:
            raise StoreError(f"{path} is no store of asynctrace of format 1: move it away")
        group: tuple[int, bytes, bytes] | None = None
        records: list[bytes] = []
        for number, resource, scope, message in connection.execute(READ):
            if group is not None and (group[0] != number or len(records) >= SPANS_AT_ONCE):
                yield b"".join(encode_request(group[1], group[2], records))
                records = []
            group = (number, resource, scope)
            records.append(frame(message))
        if group is not None:
            yield b"".join(encode_request(group[1], group[2], records))


def retire_old(directory: Path) -> None:
    """All of it was taken over: move the file out of the way, with what SQLite left beside it."""
    try:
        (directory / OLD_FILE).replace(directory / RETIRED)
        for suffix in ("-wal", "-shm"):
            (directory / f"{OLD_FILE}{suffix}").unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{directory / OLD_FILE} cannot be moved: {error.strerror}") from error
