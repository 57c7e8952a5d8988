"""Sessions: traces of the list, summed up.

Every insert notes in `roots` the session of the spans it brought. So the latest rows there tell the latest sessions; what
such a session amounts to is summed up from the lines of its traces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ..store import RunSummary, SessionPage, SessionSummary
from ..store._ids import session_position
from ._client import Client
from ._lines import MOST_AT_ONCE, lines_of, places_of, portions
from ._search import Search
from ._select import Bound, Row, select

__all__ = ["found_sessions", "sessions"]

APART_NS: Final = 86_400 * 10**9
"""A span that names the session of its trace starts within a day after the trace, else the session may be missing on a later
page."""
FIRST: Final = 4
"""Times as many sessions are looked at as are asked for; then twice as many, and so on."""

LATEST: Final = """
SELECT session, sipHash64(session), start_ns FROM roots WHERE session != '' AND {where}
ORDER BY start_ns DESC LIMIT 1 BY session LIMIT {limit}
"""
TRACES: Final = (
    "SELECT DISTINCT lower(hex(trace_id)) FROM roots WHERE sipHash64(session) IN (SELECT arrayJoin({hashes}))"
)

Position = tuple[int, str]


def sessions(client: Client, limit: int, cursor: str | None) -> SessionPage:
    """At most `limit` sessions after `cursor`, the one with the latest trace first."""
    before = session_position(cursor) if cursor is not None else None
    known: dict[str, SessionSummary | None] = {}
    size = FIRST * (limit + 1)
    while True:
        latest = _latest(client, before, size)
        known.update(_summed_up(client, {name: number for name, number, _ in latest if name not in known}))
        is_all = len(latest) < size
        sure_ns = 0 if is_all else latest[-1][2]
        found = [
            each for each in known.values() if each is not None and sure_ns <= each.last_ns and _is_after(each, before)
        ]
        if is_all or len(found) > limit:
            return _page(found, limit)
        size *= 2


def found_sessions(search: Search, limit: int, cursor: str | None) -> SessionPage:
    """As `sessions`, of the traces that are searched for."""
    before = session_position(cursor) if cursor is not None else None
    runs: dict[str, list[RunSummary]] = {}
    for _, line in search.lines(None, MOST_AT_ONCE):
        if line.session:
            runs.setdefault(line.session, []).append(line)
    found = [_session(name, some) for name, some in runs.items()]
    return _page([each for each in found if _is_after(each, before)], limit, search.counted_since())


def _latest(client: Client, before: Position | None, size: int) -> list[Row]:
    """Sessions, each with a number, and a time that no trace of it starts after: the latest first."""
    bound = Bound()
    where = f"start_ns <= {bound(before[0] + APART_NS, 'UInt64')}" if before is not None else "1"
    return select(client, LATEST.format(where=where, limit=size), bound)


def _summed_up(client: Client, numbers: Mapping[str, int]) -> dict[str, SessionSummary | None]:
    """Of each; None where it is no trace's."""
    runs: dict[str, list[RunSummary]] = {name: [] for name in numbers}
    for some in portions(list(numbers.values()), MOST_AT_ONCE):
        bound = Bound()
        rows = select(client, TRACES.format(hashes=bound(list(some), "Array(UInt64)")), bound)
        places = places_of(client, [trace_id for (trace_id,) in rows])
        for line in lines_of(client, list(places.values())).values():
            if line.session in runs:
                runs[line.session].append(line)
    return {name: _session(name, some) if some else None for name, some in runs.items()}


def _session(name: str, runs: Sequence[RunSummary]) -> SessionSummary:
    latest = max(runs, key=lambda run: (run.start_ns, run.trace_id))
    return SessionSummary(
        session=name,
        user=latest.user,
        traces=len(runs),
        spans=sum(run.spans for run in runs),
        errors=sum(run.errors for run in runs),
        first_ns=min(run.start_ns for run in runs),
        last_ns=latest.start_ns,
        input_tokens=sum(run.input_tokens for run in runs),
        output_tokens=sum(run.output_tokens for run in runs),
        cost=sum(run.cost for run in runs),
        last_input=latest.input,
        open=sum(run.open for run in runs),
    )


def _page(found: Sequence[SessionSummary], limit: int, counted_since_ns: int = 0) -> SessionPage:
    ordered = sorted(found, key=_order, reverse=True)
    page = tuple(ordered[:limit])
    cursor = f"{page[-1].last_ns}-{page[-1].session}" if len(ordered) > limit else None
    return SessionPage(sessions=page, cursor=cursor, counted_since_ns=counted_since_ns)


def _is_after(summary: SessionSummary, position: Position | None) -> bool:
    return position is None or _order(summary) < position


def _order(summary: SessionSummary) -> Position:
    return summary.last_ns, summary.session
