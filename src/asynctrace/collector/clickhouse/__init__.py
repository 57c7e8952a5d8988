"""The store beyond one machine: ClickHouse, over its HTTP interface.

_store     the whole: its life                        _url       where it is
_client    the HTTP interface, for many threads       _errors    what ClickHouse's errors mean
_schema    the tables and their views                 _migrate   how they came to be

_writing   an insert, and its repetition              _reading   lists, traces, counts
_settings  settings that matter                       _select    questions, and their answers as rows
_requests  requests that came before                  _search, _conditions   what a query finds
_blocks    rows as columns                            _lines     where traces lie, what they amount to
_native    columns as bytes                           _spans     spans, logs, origins
_compression                                          _sums, _roll           percentiles
_keeping   pins, deletions, bounds                    _sessions, _values
"""

from __future__ import annotations

from ._errors import ServerAway
from ._store import ClickHouseStore

__all__ = ["ClickHouseStore", "ServerAway"]
