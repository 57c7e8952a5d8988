"""Where streams and stores are, as their URLs say it, and those URLs as they may be shown.

    redis://host:6379         rediss:// with TLS; also a cluster, or what looks like one
    clickhouse://host:8123/db     clickhouses:// with TLS
    /var/lib/asynctrace       a directory: the embedded store

Where one has to be told: who writes to a directory is its only writer; ClickHouse takes any number.

Promises: a URL that cannot work is a `ConfigurationError` of one line, and no line that is made here shows a password.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..._errors import ConfigurationError
from .._rows import Received
from ..store import Bounds, SQLiteReader, SQLiteStore, Store, StoreError, StoreReader

if TYPE_CHECKING:
    from ..clickhouse._store import ClickHouseStore

__all__ = ["advice_of", "masked", "open_reader", "open_store"]

CLICKHOUSE: Final = ("clickhouse", "clickhouses", "http", "https")
PATIENCE: Final = 1.0
"""Seconds for repeating an insert: who waits longer here can neither be told to end nor say that it waits."""
_CREDENTIALS: Final = re.compile(r"(?<=://)(.*)@")
"""Up to the last @, as a password may hold what ought to be written as %2F."""
_SECRET: Final = re.compile(r"(?i)([?&](?:password|token|secret)=)[^&#]*")


def masked(url: str) -> str:
    """The URL without its password."""
    return _SECRET.sub(r"\1***", _CREDENTIALS.sub(lambda found: f"{found[1].partition(':')[0]}:***@", url))


class _EmbeddedStore(SQLiteStore):
    """For a worker: what came under a key that is known is passed over, as in the store that many write."""

    def add(self, received: Sequence[Received], *, token: str = "") -> None:
        unknown = [each for each in received if each.key is None or not self.has(each.key)]
        if unknown:
            super().add(unknown, token=token)


def open_store(place: str, *, bounds: Bounds | None = None, ca: Path | None = None) -> Store:
    """For a worker: to write to. `ConfigurationError`."""
    if "://" in place:
        return _clickhouse(place, bounds, ca)
    try:
        return _EmbeddedStore(place, bounds=bounds)
    except StoreError as error:
        raise ConfigurationError(str(error)) from error


def open_reader(place: str, *, ca: Path | None = None) -> tuple[StoreReader, Store | None]:
    """For a viewer: to read from, and to pin and delete in where another process does not forbid it. `ConfigurationError`."""
    if "://" in place:
        store = _clickhouse(place, None, ca)
        return store, store
    try:
        return SQLiteReader(place), None
    except StoreError as error:
        raise ConfigurationError(str(error)) from error


def advice_of(store: Store) -> list[str]:
    """What the administrator of a server should look at: one line each. Nothing where the server does not say."""
    if isinstance(store, SQLiteStore):
        return []
    from ..clickhouse._store import ClickHouseStore

    with contextlib.suppress(StoreError):
        return store.advice() if isinstance(store, ClickHouseStore) else []
    return []


def _clickhouse(url: str, bounds: Bounds | None, ca: Path | None) -> ClickHouseStore:
    if url.partition("://")[0] not in CLICKHOUSE:
        raise ConfigurationError(
            f"{masked(url)!r} is no store: write clickhouse://host:8123/database, clickhouses:// for TLS, or a directory"
        )
    from ..clickhouse._store import ClickHouseStore

    try:
        return ClickHouseStore(url, bounds=bounds, ca_file=str(ca) if ca else None, patience=PATIENCE)
    except StoreError as error:
        raise ConfigurationError(str(error)) from error
