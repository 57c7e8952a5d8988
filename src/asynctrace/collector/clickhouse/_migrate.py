"""A database brought to the version that this asynctrace writes, or refused.

    no tables of ours              are made, and the database with them
    an older version               what is missing is applied
    this version                   nothing is written: a user who may only read is enough
    a newer version                is refused
    tables of another program      are refused

Promises: a migration is applied once, however many processes start at once: who makes the table `migrating` applies it and
the others wait; where that process died, another takes over after `PATIENCE` seconds, which is harmless: every statement may
run twice.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Sequence
from typing import Final

from ..store import StoreError
from ._client import Client
from ._errors import ServerRefused
from ._schema import MIGRATIONS, Migration

__all__ = ["MINIMUM", "PATIENCE", "bring_up_to_date"]

MINIMUM: Final = (25, 3)
"""Of ClickHouse. Deduplication by token reaches what materialized views write, and rows can be deleted without a rewrite."""
PATIENCE: Final = 30.0
"""Seconds after which another's migration is taken for abandoned."""
POLL: Final = 0.05
MARK: Final = "a store of asynctrace"
"""The comment of the table `migrations`: so that tables of another program are not taken for ours."""
TABLE_EXISTS: Final = 57

MIGRATIONS_TABLE: Final = f"""
CREATE TABLE IF NOT EXISTS migrations (number UInt32, applied DateTime DEFAULT now(), by String)
ENGINE = MergeTree ORDER BY number COMMENT '{MARK}'
"""
LOCK: Final = "CREATE TABLE migrating (by String) ENGINE = Memory"
UNLOCK: Final = "DROP TABLE IF EXISTS migrating SYNC"
ABANDONED: Final = """
SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'migrating'
AND metadata_modification_time < now() - {seconds:UInt32}
"""
THERE: Final = """
SELECT countIf(name = 'migrations' AND comment = {mark:String}), countIf(name IN ('spans', 'spans_in', 'migrations'))
FROM system.tables WHERE database = currentDatabase()
"""


def bring_up_to_date(
    client: Client, migrations: Sequence[Migration] = MIGRATIONS, *, patience: float = PATIENCE
) -> None:
    """For a process that writes. Makes the database where there is none."""
    _check_server(client)
    if (
        client.ask(
            "SELECT count() FROM system.databases WHERE name = {n:String}", {"n": client.place.database}, database=""
        )
        == b"0\n"
    ):
        client.change(f"CREATE DATABASE IF NOT EXISTS {client.place.database}", database="")
    if _version(client, len(migrations)) == len(migrations):
        return
    client.change(MIGRATIONS_TABLE)
    deadline = time.monotonic() + patience
    while _version(client, len(migrations)) < len(migrations):
        if _lock(client):
            _apply(client, migrations)
        elif time.monotonic() >= deadline and int(client.ask(ABANDONED, {"seconds": int(patience)})):
            client.change(UNLOCK)
        else:
            time.sleep(POLL)


def _apply(client: Client, migrations: Sequence[Migration]) -> None:
    """Whoever held the lock before may have applied all or some."""
    try:
        for number in range(_version(client, len(migrations)) + 1, len(migrations) + 1):
            for statement in migrations[number - 1]:
                client.change(statement)
            by = f"{socket.gethostname()} {os.getpid()}"
            client.change(
                "INSERT INTO migrations (number, by) SELECT {number:UInt32}, {by:String}", {"number": number, "by": by}
            )
    finally:
        client.change(UNLOCK)


def _lock(client: Client) -> bool:
    try:
        client.change(LOCK)
    except ServerRefused as error:
        if error.code == TABLE_EXISTS:
            return False
        raise
    return True


def _version(client: Client, known: int) -> int:
    """0 where there are no tables. `StoreError` for a newer version, and for another program's tables."""
    ours, named = map(int, client.ask(THERE, {"mark": MARK}).split())
    if not ours:
        if named:
            raise StoreError(
                f"the database {client.place} holds tables of another program: give the store a database of its own"
            )
        return 0
    version = int(client.ask("SELECT max(number) FROM migrations"))
    if version > known:
        raise StoreError(
            f"the database {client.place} has version {version}, this asynctrace knows up to {known}: "
            "use the newer asynctrace, or another database"
        )
    return version


def _check_server(client: Client) -> None:
    text = client.ask("SELECT version()", database="").decode("utf-8", "replace").strip()
    found = re.match(r"(\d+)\.(\d+)", text)
    if found is None:
        raise StoreError(
            f"{client.place} answers, but not as ClickHouse does: its HTTP interface has port 8123, not 9000"
        )
    if (int(found[1]), int(found[2])) < MINIMUM:
        least = ".".join(map(str, MINIMUM))
        raise StoreError(f"ClickHouse at {client.place} is {text}: this store needs {least} or newer")
