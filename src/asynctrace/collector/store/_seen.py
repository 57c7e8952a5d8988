"""Which requests the SQLite store has: the table `request` of its books.

One row for each run of records of a log that were added under keys: requests that touch or overlap are one run, so a log
that arrives whole is one row, and a part of a request that was stored is found like the whole.

Promises: a key is written after its spans. Rows are kept for `KEYS_KEPT` seconds, and at most
`MOST_KEYS` of them; then the oldest go. Forgetting one costs time, never truth: spans are known by their ids too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from .._keys import RequestKey

__all__ = ["KEYS_KEPT", "MOST_KEYS", "REQUEST_TABLE", "SeenRequests"]

REQUEST_TABLE = """
CREATE TABLE IF NOT EXISTS request (
    log_id TEXT NOT NULL, first INTEGER NOT NULL, end INTEGER NOT NULL, seen INTEGER NOT NULL,
    PRIMARY KEY (log_id, first)) WITHOUT ROWID
"""
"""`seen`: seconds since the Unix epoch."""

KEYS_KEPT = 7 * 24 * 3600
"""Seconds. A journal waits a day for its process to come back; a week covers a long weekend."""
MOST_KEYS = 100_000
BETWEEN_PRUNINGS = 1000
"""Keys."""

RUN_BEFORE = "SELECT first, end FROM request WHERE log_id = ? AND first <= ? ORDER BY first DESC LIMIT 1"
END_WITHIN = "SELECT max(end) FROM request WHERE log_id = ? AND first BETWEEN ? AND ?"
REMOVE_WITHIN = "DELETE FROM request WHERE log_id = ? AND first BETWEEN ? AND ?"
REMOVE_OLDEST = """
DELETE FROM request WHERE (log_id, first) IN (SELECT log_id, first FROM request ORDER BY seen LIMIT ?)
"""


class SeenRequests:
    """Used by the one connection that writes. `time` gives seconds since the Unix epoch."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._until_pruning = 1

    def has(self, connection: sqlite3.Connection, key: RequestKey) -> bool:
        """Whether all records of `key` were added before."""
        run = connection.execute(RUN_BEFORE, (key.log_id, key.first)).fetchone()
        return run is not None and key.end <= int(run[1])

    def add(self, connection: sqlite3.Connection, keys: Sequence[RequestKey]) -> None:
        """Note the records of `keys`, within a transaction of the caller's."""
        now = int(self._time())
        for key in keys:
            _add_run(connection, key, now)
        self._until_pruning -= len(keys)
        if keys and self._until_pruning <= 0:
            self._until_pruning = BETWEEN_PRUNINGS
            _prune(connection, now)


def _add_run(connection: sqlite3.Connection, key: RequestKey, now: int) -> None:
    """Runs never touch one another, so only the one before can reach into this, and those that begin in it."""
    first, end = key.first, key.end
    before = connection.execute(RUN_BEFORE, (key.log_id, first)).fetchone()
    if before is not None and before[1] >= first:
        first, end = before[0], max(end, before[1])
    (last,) = connection.execute(END_WITHIN, (key.log_id, first, end)).fetchone()
    end = max(end, last or 0)
    connection.execute(REMOVE_WITHIN, (key.log_id, first, end))
    connection.execute("INSERT INTO request VALUES (?, ?, ?, ?)", (key.log_id, first, end, now))


def _prune(connection: sqlite3.Connection, now: int) -> None:
    connection.execute("DELETE FROM request WHERE seen < ?", (now - KEYS_KEPT,))
    (rows,) = connection.execute("SELECT count(*) FROM request").fetchone()
    if rows > MOST_KEYS:
        connection.execute(REMOVE_OLDEST, (rows - MOST_KEYS,))
