"""The reading half of the ClickHouse store.

Promises, beside those of every store

- A list reads the newest part of `roots`, and of the other tables what belongs to the traces it shows: how much more is
  stored makes no difference.
- What is looked for is bound to a statement as parameters, and never part of its text.
- Nothing is read with FINAL, no page with OFFSET. What is not merged yet is merged in the answer.
- A trace stands in the list where its earliest version of a span puts it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from typing import Final

import msgspec

from ...wire import ResourceSpans
from ..query import Query
from ..store import RunPage, RunSummary, SessionPage, SpanStatistics, StoreStatistics, TraceSpans, ValueCount, _sums
from ..store._ids import cursor_at, groups_of, identity, position_of, shortened, span_identity
from ..store._store import LARGEST
from ._client import Client
from ._lines import Place, between, lines_of, neighbors_of, places_of
from ._search import Position, Search
from ._select import IDENTITY, Bound, select
from ._sessions import found_sessions, sessions
from ._spans import Found, Known, find_logs, find_trace
from ._sums import found_statistics, span_statistics, statistics
from ._values import values

__all__ = ["ClickHouseReader"]

LAST_NS: Final = 2**64 - 1
"""The columns of the tables hold every time that OTLP can tell."""
EVERYTHING: Final = Query()
VERSION: Final = """
SELECT greatest((SELECT max(arrived) FROM trace_ts WHERE {trace}), (SELECT max(arrived) FROM logs WHERE {trace}))
"""
FOUND: Final = """
SELECT lower(hex(trace_id)) FROM trace_ts WHERE {where} ORDER BY trace_id LIMIT 1 BY trace_id LIMIT {limit}
"""


class ClickHouseReader:
    """Reads the store at `client`, also while others write to it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known = Known(client)

    def runs(self, limit: int, cursor: str | None = None) -> RunPage:
        """At most `limit` traces that come after `cursor`, newest start first."""
        return self.search(EVERYTHING, limit, cursor)

    def search(self, query: Query, limit: int, cursor: str | None = None, *, now_ns: int | None = None) -> RunPage:
        """At most `limit` traces that `query` wants, after `cursor`, newest start first."""
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        after = _position(cursor) if cursor is not None else None
        search = Search(self._client, self._known, query, time.time_ns() if now_ns is None else now_ns)
        found = list(islice(search.lines(after, limit + 1), limit + 1))
        last = found[limit - 1][0].position if len(found) > limit else search.stopped_at
        return RunPage(
            traces=self._shown([line for _, line in found[:limit]]),
            cursor=cursor_at(last[0], bytes.fromhex(last[1])) if last is not None else None,
            scanned=search.scanned,
        )

    def summary(self, trace_id: str) -> RunSummary | None:
        """The line of one trace."""
        place = self._place(trace_id)
        line = lines_of(self._client, [place]).get(place.trace_id) if place is not None else None
        return self._shown([line])[0] if line is not None else None

    def spans_of(self, trace_id: str, *, messages: bool = True, since: int = 0) -> TraceSpans | None:
        """Everything of a trace, whatever `since` is: what several processes add has no order that a version could tell."""
        return self._gathered(trace_id, messages=messages)

    def span_of(self, trace_id: str, span_id: str) -> TraceSpans | None:
        """One span of a trace, and its logs."""
        found = self._gathered(trace_id, only=span_identity(span_id).hex())
        return found if found is not None and found.rows else None

    def trace(self, trace_id: str) -> list[ResourceSpans]:
        """All spans of a trace, by resource and scope; empty when the trace is unknown."""
        found = self.spans_of(trace_id)
        return groups_of(found) if found is not None else []

    def find(self, prefix: str, limit: int = 10) -> list[str]:
        """At most `limit` trace ids that begin with `prefix`."""
        identity(prefix.ljust(32, "0"))
        bound = Bound()
        where = between(prefix.lower(), bound)
        return [trace_id for (trace_id,) in select(self._client, FOUND.format(where=where, limit=limit), bound)]

    def values(self, key: str, prefix: str = "", limit: int = 20) -> list[ValueCount]:
        """Values of `key` that begin with `prefix`, the most frequent first."""
        return values(self._client, key, prefix, limit)

    def stats(
        self,
        by: str = "name",
        *,
        step: int = 60,
        since_ns: int = 0,
        until_ns: int = LARGEST,
        limit: int = 1000,
        query: Query | None = None,
    ) -> SpanStatistics:
        """Counts, percentiles and sums by `by`, and over time; with a query, of the spans that it finds."""
        if query is None or not query.terms:
            return span_statistics(self._client, by, step, since_ns, until_ns, limit)
        return found_statistics(self._summing(query), by, step, since_ns, until_ns, limit)

    def sessions(self, limit: int, cursor: str | None = None, *, query: Query | None = None) -> SessionPage:
        """At most `limit` sessions after `cursor`, the one with the latest trace first."""
        if query is None or not query.terms:
            return sessions(self._client, limit, cursor)
        return found_sessions(self._summing(query), limit, cursor)

    def statistics(self) -> StoreStatistics:
        """Count what is there."""
        return statistics(self._client)

    def close(self) -> None:
        """End the connections. Idempotent."""
        self._client.close()

    def _summing(self, query: Query) -> Search:
        return Search(self._client, self._known, query, time.time_ns(), _sums.SUM_SECONDS)

    def _gathered(self, trace_id: str, *, messages: bool = True, only: str = "") -> TraceSpans | None:
        place, found, rows, line = self._place(trace_id), Found(self._known), [], None
        logs = find_logs(self._client, identity(trace_id).hex(), only)
        if place is not None:
            line = lines_of(self._client, [place]).get(place.trace_id)
            rows = find_trace(self._client, place, messages=messages, only=only)
        if not rows and not logs:
            return None
        return TraceSpans(
            summary=self._shown([line])[0] if line is not None else _without_spans(trace_id),
            rows=found.spans(rows),
            logs=found.logs(trace_id, logs),
            origins=found.origins,
            version=self._version(trace_id),
        )

    def _place(self, trace_id: str) -> Place | None:
        wanted = identity(trace_id).hex()
        return places_of(self._client, [wanted]).get(wanted)

    def _shown(self, lines: Sequence[RunSummary]) -> tuple[RunSummary, ...]:
        """With ids that tell them from all others."""
        neighbors = neighbors_of(self._client, [line.trace_id for line in lines])
        return tuple(
            msgspec.structs.replace(line, short_id=shortened(line.trace_id, neighbors[line.trace_id])) for line in lines
        )

    def _version(self, trace_id: str) -> int:
        bound = Bound()
        trace = f"trace_id = {IDENTITY.format(bound(trace_id, 'String'))}"
        ((version,),) = select(self._client, VERSION.format(trace=trace), bound)
        return int(version)


def _without_spans(trace_id: str) -> RunSummary:
    """Of a trace of which logs came, and no span so far."""
    return RunSummary(
        trace_id=trace_id,
        short_id=trace_id,
        name="",
        service="",
        start_ns=LARGEST,
        end_ns=0,
        duration=0.0,
        spans=0,
        errors=0,
        open=0,
        ending="",
        has_root=False,
    )


def _position(cursor: str) -> Position:
    start_ns, trace_id = position_of(cursor, LAST_NS)
    return start_ns, trace_id.hex()
