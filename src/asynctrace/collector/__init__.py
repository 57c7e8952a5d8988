"""Another program with the same stages: spans enter by HTTP, wait for a commit, rest in a store.

    _app      the whole: one address, its routes, its life
    _guard    who may talk to it
    _receive  an export request and its answer        _body    bytes to spans, within bounds
    _writer   admission and group commit              _store   the protocol of every store
    _api      the store as JSON                       _sqlite  the embedded store
    _table    the store as a list of text             _keys, _seen   requests that come again

Reading a store does not load the web server: `Collector` is imported where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._keys import RequestKey
from ._sqlite import SQLiteReader, SQLiteStore
from ._store import RunPage, RunSummary, Store, StoreError, StoreReader, StoreStatistics
from ._table import render_runs

if TYPE_CHECKING:
    from ._app import Collector

__all__ = [
    # the program
    "Collector",
    # stores
    "Store",
    "StoreReader",
    "SQLiteStore",
    "SQLiteReader",
    "StoreError",
    "RequestKey",
    # what they answer
    "RunPage",
    "RunSummary",
    "StoreStatistics",
    "render_runs",
]


def __getattr__(name: str) -> Any:
    if name == "Collector":
        from ._app import Collector

        return Collector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
