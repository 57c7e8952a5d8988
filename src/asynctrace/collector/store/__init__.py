"""Where spans rest.

_store     the protocol of every store, and the values it answers with

_sqlite    the embedded one: its files, its life     _reading   lists, traces, counts
_schema    one file: tables, version, errors         _plan      what an index can say about a query
_segments  the files, and reading from one           _search    what a query finds
_chunk     spans as blobs                            _sums      sessions, percentiles, values
_large     large values: what they have in common, once
_writing   a commit                                  _roll      percentiles, as they are kept
_tally     the line of a trace                       _retention what goes, and what stays
_earlier   traces that began in an earlier file      _books, _seen   pins, requests that came
_ids       ids and cursors as text                   _old       the store of format 1
"""

from __future__ import annotations

from ._old import has_old, old_bodies, retire_old
from ._reading import SQLiteReader
from ._sqlite import SQLiteStore
from ._store import (
    Bounds,
    Group,
    RunPage,
    RunSummary,
    SessionPage,
    SessionSummary,
    SpanStatistics,
    Store,
    StoreError,
    StoreReader,
    StoreStatistics,
    Swept,
    TimePoint,
    TraceSpans,
    ValueCount,
)

__all__ = [
    # the protocol
    "Store",
    "StoreReader",
    "StoreError",
    "Bounds",
    # the embedded one
    "SQLiteStore",
    "SQLiteReader",
    # what they answer
    "Group",
    "RunPage",
    "RunSummary",
    "SessionPage",
    "SessionSummary",
    "SpanStatistics",
    "StoreStatistics",
    "Swept",
    "TimePoint",
    "TraceSpans",
    "ValueCount",
    # the first format
    "has_old",
    "old_bodies",
    "retire_old",
]
