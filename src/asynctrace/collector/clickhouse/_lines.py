"""Lines of the list: where traces lie, and what they amount to.

A *place* is what `trace_ts` knows of a trace: its start, and the minutes in which spans of it start; so the rows of a trace
are found in `spans` and `span_io`, which are sorted by the minute. Sums are made when they are asked for, from the versions
that hold, so they are right whatever came twice, and whatever is merged. They read the small columns of the traces asked for,
and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from ..store import RunSummary
from ..store._ids import SHORTEST_PREFIX
from ..store._store import LARGEST
from ..store._tally import ERROR, LATE_NS, LOST
from ._client import Client
from ._select import IDENTITY, Bound, Row, select

__all__ = [
    "IS_PINNED",
    "MINUTE_NS",
    "MOST_AT_ONCE",
    "Place",
    "among",
    "between",
    "held",
    "lines_of",
    "neighbors_of",
    "places_of",
    "portions",
    "within",
]

MINUTE_NS: Final = 60 * 10**9
MOST_AT_ONCE: Final = 500
"""Trace ids in one statement. They travel in its address, and 20 KB pass through proxies."""
NEIGHBORS_AT_ONCE: Final = 200

IS_PINNED: Final = "trace_id IN (SELECT trace_id FROM pins GROUP BY trace_id HAVING argMax(is_pinned, changed))"
LINES: Final = """
SELECT lower(hex(trace_id)), {is_pinned}, count(), countIf(status = {error}), countIf(end_ns = 0), countIf(ending = {lost}),
    least(min(start_ns), {largest}), least(max(end_ns), {largest}),
    argMin((name, service, end_ns = 0, status, ending, type, input, output, is_child),
           (is_child, start_ns, -toInt128(first))),
    argMinIf(model, first, model != ''), argMinIf(session, first, session != ''), argMinIf(user, first, user != ''),
    argMinIf(input, first, input != ''), argMinIf(output, first, output != ''),
    toString(sum(toInt128(input_tokens))), toString(sum(toInt128(output_tokens))), sum(cost),
    toString(sum(toInt128(dropped))), minIf(first, NOT is_child) AS root_came,
    arrayCount(came -> root_came > 0 AND came > root_came + {late}, groupArray(first))
FROM (
    SELECT *, parent_id != toFixedString('', 8) AS is_child, if(came = 0, arrived, came) AS first
    FROM ({held}) AS h LEFT JOIN ({arrivals}) AS a USING (trace_id, span_id)
) GROUP BY trace_id
"""
ARRIVALS: Final = (
    "SELECT trace_id, span_id, min(arrived) AS came FROM arrivals WHERE {among} GROUP BY trace_id, span_id"
)
VERSION: Final = "version"
"""Of two versions of a span the one where this is larger holds."""
HELD: Final = """
SELECT trace_id, span_id, {columns} FROM {table} WHERE {where}
ORDER BY trace_id, span_id, {version} DESC LIMIT 1 BY trace_id, span_id
"""
"""Sorting takes a fifth of the time that `argMax` takes, of as many columns."""
COUNTED: Final = (
    *(
        "parent_id",
        "arrived",
        "start_ns",
        "end_ns",
        "status",
        "ending",
        "name",
        "service",
        "type",
        "model",
        "session",
        "user",
    ),
    *("input", "output", "input_tokens", "output_tokens", "cost", "dropped"),
)
ALIKE: Final = "SELECT DISTINCT lower(hex(trace_id)) FROM trace_ts WHERE {where}"
PLACES: Final = """
SELECT lower(hex(trace_id)), min(start_ns), max(last_start_ns) FROM trace_ts WHERE {among} GROUP BY trace_id
"""


Item = TypeVar("Item")


class Place(NamedTuple):
    """Of one trace."""

    trace_id: str
    start_ns: int
    first_minute: int
    last_minute: int

    @property
    def position(self) -> tuple[int, str]:
        """In the list, which is in descending order."""
        return self.start_ns, self.trace_id


def among(trace_ids: Iterable[str], bound: Bound) -> str:
    """Rows of some traces, as a condition that an index answers."""
    some = f"arrayJoin({bound(list(trace_ids), 'Array(String)')})"
    return f"trace_id IN (SELECT {IDENTITY.format(some)})"


def within(places: Sequence[Place], bound: Bound) -> str:
    """Rows of some traces in the tables that are sorted by the minute."""
    first = min(place.first_minute for place in places)
    last = max(place.last_minute for place in places)
    minutes = f"minute BETWEEN {bound(first, 'UInt32')} AND {bound(last, 'UInt32')}"
    return f"{minutes} AND {among((place.trace_id for place in places), bound)}"


def held(columns: Sequence[str], where: str, *, table: str = "spans") -> str:
    """The version of each span that holds."""
    return HELD.format(columns=", ".join(columns), table=table, where=where, version=VERSION)


def places_of(client: Client, trace_ids: Sequence[str]) -> dict[str, Place]:
    """Of those that are there, by trace id."""
    found: dict[str, Place] = {}
    for some in portions(trace_ids, MOST_AT_ONCE):
        bound = Bound()
        for trace_id, start_ns, last_ns in select(client, PLACES.format(among=among(some, bound)), bound):
            found[trace_id] = Place(trace_id, start_ns, start_ns // MINUTE_NS, last_ns // MINUTE_NS)
    return found


def neighbors_of(client: Client, trace_ids: Sequence[str]) -> dict[str, list[str]]:
    """For each, the other traces whose ids begin with the same digits."""
    found: dict[str, list[str]] = {}
    for some in portions(sorted({trace_id[:SHORTEST_PREFIX] for trace_id in trace_ids}), NEIGHBORS_AT_ONCE):
        bound = Bound()
        for (trace_id,) in select(
            client, ALIKE.format(where=" OR ".join(between(prefix, bound) for prefix in some)), bound
        ):
            found.setdefault(trace_id[:SHORTEST_PREFIX], []).append(trace_id)
    return {each: [other for other in found.get(each[:SHORTEST_PREFIX], ()) if other != each] for each in trace_ids}


def between(prefix: str, bound: Bound) -> str:
    """Rows of the traces whose ids begin so."""
    first, last = (IDENTITY.format(bound(prefix.ljust(32, digit), "String")) for digit in "0f")
    return f"trace_id BETWEEN {first} AND {last}"


def lines_of(client: Client, places: Sequence[Place]) -> dict[str, RunSummary]:
    """The lines of some traces, by trace id; their short ids are whole."""
    found: dict[str, RunSummary] = {}
    for some in portions(places, MOST_AT_ONCE):
        bound = Bound()
        for row in select(client, _lines(some, bound), bound):
            found[row[0]] = _summary(row)
    return found


def _lines(places: Sequence[Place], bound: Bound) -> str:
    return LINES.format(
        held=held(COUNTED, within(places, bound)),
        arrivals=ARRIVALS.format(among=among((place.trace_id for place in places), bound)),
        is_pinned=IS_PINNED,
        error=ERROR,
        lost=bound(LOST, "String"),
        largest=LARGEST,
        late=LATE_NS,
    )


def _summary(row: Row) -> RunSummary:
    """A row of `LINES`."""
    (
        trace_id,
        is_pinned,
        spans,
        errors,
        still_open,
        lost,
        start_ns,
        end_ns,
        head,
        model,
        session,
        user,
        said,
        answered,
        *sums,
    ) = row
    name, service, is_open, status, ending, kind, head_input, head_output, is_child = head
    input_tokens, output_tokens, cost, dropped, _, late = sums
    return RunSummary(
        trace_id=trace_id,
        short_id=trace_id,
        name=name,
        service=service,
        start_ns=start_ns,
        end_ns=end_ns,
        duration=None if still_open else max(0, end_ns - start_ns) / 1e9,
        spans=spans,
        errors=errors,
        open=still_open,
        ending="open" if is_open else ending or ("error" if status == ERROR else "ok"),
        lost=lost,
        late=late,
        dropped=_whole(dropped),
        has_root=not is_child,
        type=kind,
        model=model,
        session=session,
        user=user,
        input=head_input or said,
        output=head_output or answered,
        input_tokens=_whole(input_tokens),
        output_tokens=_whole(output_tokens),
        cost=cost or 0.0,
        pinned=bool(is_pinned),
    )


def _whole(number: Any) -> int:
    return max(-LARGEST, min(int(number), LARGEST))


def portions(some: Sequence[Item], most: int) -> Iterator[Sequence[Item]]:
    """So many at a time."""
    return (some[first : first + most] for first in range(0, len(some), most))
