"""The reading half of the embedded store: lists, traces, counts, over all segments at once.

A trace whose spans lie in several segments has its line in the newest of them; the lines that it had before are passed over.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Final

from ...wire import ResourceSpans
from ..query import Query
from . import _sums
from ._books import BOOKS, open_books
from ._ids import cursor_at, groups_of, identity, position_of, shortened, span_identity
from ._old import OLD_FILE
from ._schema import NotBegun, clear_errors
from ._search import NEWEST, Search
from ._segments import PINNED, Gathered, Line, Reading, Segment, Segments, gather_places, places_of
from ._store import (
    LARGEST,
    RunPage,
    RunSummary,
    SessionPage,
    SpanStatistics,
    StoreError,
    StoreStatistics,
    TraceSpans,
    ValueCount,
)
from ._sums import sessions, span_statistics, values
from ._tally import COLUMNS

__all__ = ["SQLiteReader"]

EVERYTHING: Final = Query()

_AT: Final = {column: position for position, column in enumerate(("no", *COLUMNS))}
TRACE_ID, VERSION, START, SPAN_COUNT = (_AT[key] for key in ("trace_id", "version", "start_ns", "spans"))
_SHOWN: Final = tuple(
    column
    for column in COLUMNS
    if column in RunSummary.__struct_fields__ and column not in ("trace_id", "short_id", "duration", "pinned")
)
_shown: Final = itemgetter(*(_AT[column] for column in _SHOWN))

NEIGHBORS: Final = """
SELECT (SELECT max(trace_id) FROM trace WHERE trace_id < :id), (SELECT min(trace_id) FROM trace WHERE trace_id > :id)
"""
TOTALS: Final = "SELECT traces, spans, open, (SELECT min(start_ns) FROM trace WHERE spans > 0) FROM total"


class SQLiteReader:
    """Reads the store in `directory`, also while a collector writes to it.

    `busy_timeout` is how many seconds a call may wait for a lock of another process.
    """

    _most_idle = 0
    """Connections kept open between calls: who keeps some must close them."""

    def __init__(self, directory: str | os.PathLike[str], *, busy_timeout: float = 5.0) -> None:
        self.directory = Path(directory)
        self._busy_timeout = busy_timeout
        self._segments = Segments(self.directory, busy_timeout, most_idle=self._most_idle)
        if not self.directory.is_dir() or not self._segments.newest_first():
            raise StoreError(self._nothing_here())
        with self._segments.readings():
            """The formats of all files are looked at."""

    def runs(self, limit: int, cursor: str | None = None) -> RunPage:
        """At most `limit` traces that come after `cursor`, newest start first."""
        return self.search(EVERYTHING, limit, cursor)

    def search(self, query: Query, limit: int, cursor: str | None = None, *, now_ns: int | None = None) -> RunPage:
        """At most `limit` traces that `query` wants, after `cursor`, newest start first."""
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        position = position_of(cursor) if cursor is not None else NEWEST
        pinned = self._pinned()
        with self._segments.readings() as readings:
            search = self._search(readings, query, now_ns, pinned)
            lines = list(islice(search.lines(position), limit + 1))
            page = self._shown(readings, lines[:limit], pinned)
        last = lines[limit - 1] if len(lines) > limit else search.stopped_at
        return RunPage(
            traces=page,
            cursor=cursor_at(last[START], last[TRACE_ID]) if last is not None else None,
            scanned=search.scanned,
        )

    def summary(self, trace_id: str) -> RunSummary | None:
        """The line of one trace."""
        wanted = identity(trace_id)
        with self._segments.readings() as readings:
            places = places_of(self._segments, readings, wanted)
            if not places or not places[0][2][SPAN_COUNT]:
                return None
            return self._shown(readings, [places[0][2]], self._pinned())[0]

    def spans_of(self, trace_id: str, *, messages: bool = True, since: int = 0) -> TraceSpans | None:
        """Everything of a trace, or what arrived after the version `since`."""
        return self._gathered(trace_id, messages=messages, since=since)

    def span_of(self, trace_id: str, span_id: str) -> TraceSpans | None:
        """One span of a trace, and its logs."""
        found = self._gathered(trace_id, only=span_identity(span_id))
        return found if found is not None and found.rows else None

    def trace(self, trace_id: str) -> list[ResourceSpans]:
        """All spans of a trace, by resource and scope; empty when the trace is unknown."""
        found = self.spans_of(trace_id)
        return groups_of(found) if found is not None else []

    def find(self, prefix: str, limit: int = 10) -> list[str]:
        """At most `limit` trace ids that begin with `prefix`."""
        between = (identity(prefix.ljust(32, "0")), identity(prefix.ljust(32, "f")))
        query = "SELECT trace_id FROM trace WHERE trace_id BETWEEN ? AND ? AND spans > 0 ORDER BY trace_id LIMIT ?"
        found: set[bytes] = set()
        with self._segments.readings() as readings:
            for segment, reading in readings:
                rows = reading.rows(query, (*between, limit))
                found.update(trace_id for (trace_id,) in self._segments.tolerant(segment, rows))
        return [trace_id.hex() for trace_id in sorted(found)[:limit]]

    def values(self, key: str, prefix: str = "", limit: int = 20) -> list[ValueCount]:
        """Values of `key` that begin with `prefix`, the most frequent first."""
        with self._segments.readings() as readings:
            return values(self._segments, readings, key, prefix, limit)

    def stats(
        self,
        by: str = "name",
        *,
        step: int = 60,
        since_ns: int = 0,
        until_ns: int = LARGEST,
        limit: int = 1000,
        query: Query | None = None,
        now_ns: int | None = None,
    ) -> SpanStatistics:
        """Counts, percentiles and sums by `by`, and over time; with a query, of the spans that it finds."""
        with self._summing(query, now_ns) as (readings, search):
            return span_statistics(self._segments, readings, by, step, since_ns, until_ns, limit, search)

    def sessions(
        self, limit: int, cursor: str | None = None, *, query: Query | None = None, now_ns: int | None = None
    ) -> SessionPage:
        """At most `limit` sessions after `cursor`, the one with the latest trace first."""
        with self._summing(query, now_ns) as (readings, search):
            return sessions(self._segments, readings, limit, cursor, search)

    def statistics(self) -> StoreStatistics:
        """Count what is there."""
        totals: list[tuple[int, int, int, int | None]] = []
        with self._segments.readings() as readings:
            for segment, reading in readings:
                totals += self._segments.tolerant(segment, reading.rows(TOTALS))
        segments = self._segments.newest_first()
        return StoreStatistics(
            traces=sum(each[0] for each in totals),
            spans=sum(each[1] for each in totals),
            open=sum(each[2] for each in totals),
            size=sum(segment.size for segment in segments),
            segments=sum(segment.number != PINNED for segment in segments),
            pinned=len(self._pinned()),
            oldest_ns=min((each[3] for each in totals if each[3] is not None), default=0),
            unreadable=tuple(segment.problem for segment in segments if segment.problem),
        )

    @contextlib.contextmanager
    def _summing(
        self, query: Query | None, now_ns: int | None
    ) -> Iterator[tuple[list[tuple[Segment, Reading]], Search | None]]:
        """A snapshot, and how the traces to sum up are found; None: all."""
        pinned = self._pinned()
        with self._segments.readings() as readings:
            if query is None or not query.terms:
                yield readings, None
            else:
                yield readings, self._search(readings, query, now_ns, pinned, _sums.SUM_SECONDS)

    def _search(
        self,
        readings: list[tuple[Segment, Reading]],
        query: Query,
        now_ns: int | None,
        pinned: set[bytes],
        seconds: float | None = None,
    ) -> Search:
        now = time.time_ns() if now_ns is None else now_ns
        return Search(self._segments, readings, query, lambda line: _summary(line, pinned), now, seconds)

    def _gathered(
        self, trace_id: str, *, messages: bool = True, only: bytes | None = None, since: int = 0
    ) -> TraceSpans | None:
        gathered = Gathered(identity(trace_id))
        with self._segments.readings() as readings:
            found = places_of(self._segments, readings, gathered.trace_id)
            since = since if found and 0 < since <= found[0][2][VERSION] else 0
            gather_places(self._segments, found, gathered, messages=messages, only=only, since=since)
            if not gathered.rows and not gathered.logs and not since:
                self._complain()
                return None
            newest = found[0][2]
            (summary,) = self._shown(readings, [newest], self._pinned())
        logs = sorted(gathered.logs, key=lambda log: log.time_ns)
        return TraceSpans(
            summary=summary,
            origins=gathered.origins,
            rows=gathered.rows,
            logs=logs,
            version=newest[VERSION],
            since=since,
        )

    def _complain(self) -> None:
        """A trace that is not found may lie in what cannot be read."""
        problems = [segment.problem for segment in self._segments.newest_first() if segment.problem]
        if problems:
            raise StoreError(problems[0])

    def _shown(
        self, readings: list[tuple[Segment, Reading]], lines: Iterable[Line], pinned: set[bytes]
    ) -> tuple[RunSummary, ...]:
        return tuple(_summary(line, pinned, self._neighbors(line[TRACE_ID], readings)) for line in lines)

    def _neighbors(self, trace_id: bytes, readings: list[tuple[Segment, Reading]]) -> Iterator[str]:
        for segment, reading in readings:
            rows = reading.rows(NEIGHBORS, {"id": trace_id})
            for row in self._segments.tolerant(segment, rows):
                yield from (each.hex() for each in row if each is not None)

    def _pinned(self) -> set[bytes]:
        path = self.directory / BOOKS
        if not path.exists():
            return set()
        try:
            with clear_errors(path), contextlib.closing(open_books(path, self._busy_timeout, write=False)) as books:
                return {trace_id for (trace_id,) in books.execute("SELECT trace_id FROM pin")}
        except NotBegun:
            return set()

    def _nothing_here(self) -> str:
        if (self.directory / OLD_FILE).is_file():
            return f"the store in {self.directory} has format 1: start `asynctrace serve` once, it takes over what is there"
        return f"there is no store in {self.directory}: `asynctrace serve` makes one"


def _summary(line: Line, pinned: set[bytes], neighbors: Iterable[str] = ()) -> RunSummary:
    trace_id = line[TRACE_ID]
    shown = dict(zip(_SHOWN, _shown(line), strict=True))
    return RunSummary(
        trace_id=trace_id.hex(),
        short_id=shortened(trace_id.hex(), neighbors),
        duration=None if shown["open"] else max(0, shown["end_ns"] - shown["start_ns"]) / 1e9,
        has_root=line[_AT["depth"]] == 0,
        pinned=trace_id in pinned,
        **shown,
    )
