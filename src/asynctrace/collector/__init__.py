"""Another program with the same stages: spans enter by HTTP, wait for a commit, rest in a store.

    _app, _health   the whole: its parts, its addresses, its life     _site, _guard  where, and for whom
    receiving       from an export request to rows                    _keys    requests that come again
    store           where they rest                                   query    how one asks
    live            what is happening now                             api      all that as JSON
    page            the web page                                      _table, _diff_table, _top_table   as text

Reading a store does not load the web server: `Collector` is imported where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._diff_table import render_diff
from ._keys import RequestKey
from ._table import render_runs
from ._top_table import Top, render_top
from .store import (
    Bounds,
    RunPage,
    RunSummary,
    SQLiteReader,
    SQLiteStore,
    Store,
    StoreError,
    StoreReader,
    StoreStatistics,
)

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
    "Bounds",
    "RequestKey",
    # what they answer
    "RunPage",
    "RunSummary",
    "StoreStatistics",
    "render_runs",
    "render_diff",
    "Top",
    "render_top",
]


def __getattr__(name: str) -> Any:
    if name == "Collector":
        from ._app import Collector

        return Collector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
