"""What a query finds: traces in the order of the list, by an index where one can say something, else one stretch of the list
after the other.

    index    which traces have a span with this token, this session, …? few: their places, sorted
    walk     a stretch of `roots`, after the cursor ─▶ `trace_ts`: is it there that the trace begins?
    asked    which spans of the stretch may be wanted? ─▶ lines ─▶ those spans, decoded, and asked again

`roots` has a row for each insert that brought spans of a trace; the place of a trace in the list is the earliest of them.
A stretch grows while nothing is found, so that a rare thing takes few questions; a walk ends like that of the embedded
store, after about a second, with a cursor.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from ..query import Query
from ..query._match import Candidate, matches, trace_holds
from ..query._terms import Attribute, Contains, Identity, Not, State, Term, When
from ..store import RunSummary
from ..store import _search as bounds
from ..store._plan import conditions
from ..store._store import LARGEST
from ._client import Client
from ._conditions import indexed, may_hold, somewhere, tokens_of
from ._errors import ServerAway
from ._lines import IS_PINNED, MINUTE_NS, MOST_AT_ONCE, Place, among, between, lines_of, places_of, portions, within
from ._select import IDENTITY, Bound, Row, select
from ._spans import Found, Known, find_spans

__all__ = ["Position", "Search", "Wanted", "walk"]

FEW: Final = 4000
"""Traces that are fetched and sorted; of more, the list is walked."""
INDEX_SECONDS: Final = 2
"""For which an index may be asked. At 10^10 spans it is larger than memory."""
LEAST_AT_ONCE: Final = 100
"""Lines in the first stretch that is searched."""
SPARE: Final = 16
"""Lines in the first stretch of the whole list beyond those that are shown: not each is the place of a trace."""
MOST_PASSED: Final = 50
"""Traces whose later lines are passed over. A trace that lives for days has a line for each insert of these."""
SPANS_AT_ONCE: Final = 20_000
"""That are decoded to be asked."""

Position = tuple[int, str]
"""Start and trace id (hexadecimal) of a line."""
Wanted = tuple[Place, RunSummary]

ROOTS: Final = """
SELECT start_ns, lower(hex(trace_id)) FROM roots WHERE {where} ORDER BY start_ns DESC, trace_id DESC LIMIT {limit}
"""


def walk(
    client: Client, after: Position | None, size: int, *, since_ns: int = 0, until_ns: int = LARGEST
) -> Iterator[list[Place]]:
    """Stretches of the list after a position, the first about `size` long, each longer than the one before.

    A trace that is met before its place is asked for no more, and stands in the stretch that its place is in.
    """
    passed: dict[str, Place] = {}
    while True:
        bound = Bound()
        where = _after(after, since_ns, until_ns, bound)
        if passed:
            where += f" AND NOT ({among(passed, bound)})"
        rows = select(client, ROOTS.format(where=where, limit=size), bound)
        places = places_of(client, list(dict.fromkeys(trace_id for _, trace_id in rows)))
        last = _as_position(rows[-1]) if len(rows) == size else (since_ns, "")
        stretch = [place for place in (*passed.values(), *places.values()) if last <= place.position]
        if stretch:
            yield sorted(stretch, key=_position, reverse=True)
        if len(rows) < size:
            return
        later = {**passed, **places}.items()
        passed = dict(islice(((each, place) for each, place in later if place.position < last), MOST_PASSED))
        after, size = last, min(2 * size, MOST_AT_ONCE)


def _as_position(row: Row) -> Position:
    start_ns, trace_id = row
    return start_ns, trace_id


def _after(position: Position | None, since_ns: int, until_ns: int, bound: Bound) -> str:
    """The times of a part may be any: only the last line is compared whole."""
    where = [f"start_ns >= {bound(since_ns, 'UInt64')}"]
    if until_ns < LARGEST:
        where.append(f"start_ns <= {bound(until_ns, 'UInt64')}")
    if position is not None:
        start, trace = bound(position[0], "UInt64"), IDENTITY.format(bound(position[1], "String"))
        where.append(f"start_ns <= {start} AND (start_ns < {start} OR trace_id < {trace})")
    return " AND ".join(where)


TRACES: Final = "SELECT DISTINCT lower(hex(trace_id)) FROM {table} WHERE {where} LIMIT {limit}"
TOKENS: Final = (
    "SELECT DISTINCT arrayJoin(arrayIntersect(tokens, {tokens})) FROM origins WHERE hasAny(tokens, {tokens})"
)
NARROWED: Final = "SELECT lower(hex(trace_id)), count(){asked} FROM spans WHERE {where} GROUP BY trace_id"

OF_SPANS: Final = "{where} AND (trace_id, span_id) IN (SELECT trace_id, span_id FROM spans WHERE {where}{may})"
"""All versions of spans of which one version may be wanted."""


class Search:
    """One query. It ends after so many `seconds`; where none are given, after `SCAN_SECONDS` of what no index can answer."""

    def __init__(self, client: Client, known: Known, query: Query, now_ns: int, seconds: float | None = None) -> None:
        self._client = client
        self._known = known
        self._query = query
        self._now_ns = now_ns
        self._seconds = bounds.SCAN_SECONDS if seconds is None else seconds
        self._is_sum = seconds is not None
        plan = conditions(query, now_ns)
        self._since_ns, self._until_ns = plan.since_ns, plan.until_ns
        plain = [term.term if isinstance(term, Not) else term for term in query.of_span]
        self._needs_messages = any(isinstance(term, Attribute | Contains) for term in plain)
        self.scanned: int | None = None
        """Spans that were read because no index could answer."""
        self.stopped_at: Position | None = None
        """The last line that was looked at, where the time was up."""

    def lines(self, after: Position | None, size: int) -> Iterator[Wanted]:
        """The wanted lines after a position, in the order of the list; `size` are asked for."""
        until = time.monotonic() + self._seconds
        for stretch in self._stretches(after, size):
            for last, some in self._wanted(stretch, size):
                yield from some
                if (self.scanned is not None or self._is_sum) and time.monotonic() > until:
                    self.stopped_at = last.position
                    return

    def spans(self, since_ns: int, until_ns: int) -> Iterator[Candidate]:
        """The spans that satisfy the terms of a span, of the wanted traces that were there between two times."""
        until = time.monotonic() + self._seconds
        self._until_ns = min(self._until_ns, until_ns)
        for stretch in self._stretches(None, LEAST_AT_ONCE):
            there = [place for place in stretch if place.last_minute >= since_ns // MINUTE_NS]
            sizes = self._narrowed(there) if there else {}
            fitting = self._with_lines([place for place in there if place.trace_id in sizes])
            for part in _parts(fitting, sizes):
                yield from (span for _, span in self._fitting(part))
            if time.monotonic() > until:
                self.stopped_at = stretch[-1].position
                return

    def counted_since(self) -> int:
        """The start of the last trace that there was time for; 0 when there was time for all."""
        return 0 if self.stopped_at is None else max(1, self.stopped_at[0])

    # ── candidates ──────────────────────────────────────────────────────────────────────────────────────────

    def _stretches(self, after: Position | None, size: int) -> Iterator[list[Place]]:
        size = min(max(size, LEAST_AT_ONCE) if self._query.terms else size + SPARE, MOST_AT_ONCE)
        hits = self._hits()
        if hits is not None:
            return self._sorted(hits, after, size)
        if any(not _is_plain(term) for term in self._query.terms):
            self.scanned = 0
        return walk(self._client, after, size, since_ns=self._since_ns, until_ns=self._until_ns)

    def _sorted(self, hits: Iterable[str], after: Position | None, size: int) -> Iterator[list[Place]]:
        places = sorted(places_of(self._client, list(hits)).values(), key=_position, reverse=True)
        later = [place for place in places if self._is_in_time(place) and (after is None or place.position < after)]
        while later:
            yield later[:size]
            later, size = later[size:], min(2 * size, MOST_AT_ONCE)

    def _is_in_time(self, place: Place) -> bool:
        return self._since_ns <= place.start_ns and min(place.start_ns, LARGEST) <= self._until_ns

    def _hits(self) -> Iterable[str] | None:
        """The traces that may be wanted, where they are few and an index tells them in time."""
        for statement, bound in self._questions():
            try:
                rows = select(self._client, statement, bound, {"max_execution_time": INDEX_SECONDS})
            except ServerAway:  # it took too long, or walking will say the same
                continue
            if len(rows) <= FEW:
                return [trace_id for (trace_id,) in rows]
        return None

    def _questions(self) -> Iterator[tuple[str, Bound]]:
        bound = Bound()
        for term in self._query.of_trace:
            if isinstance(term, Identity):
                yield TRACES.format(table="trace_ts", where=between(term.prefix, bound), limit=FEW + 1), bound
            elif term == State("pinned"):
                yield TRACES.format(table="trace_ts", where=IS_PINNED, limit=FEW + 1), bound
        for condition in indexed(self._query, bound, self._tokens_of_resources()):
            where = f"{condition} AND minute >= {bound(self._since_ns // MINUTE_NS, 'UInt32')}"
            yield TRACES.format(table="spans", where=where, limit=FEW + 1), bound

    def _tokens_of_resources(self) -> set[int]:
        tokens = tokens_of(self._query)
        if not tokens:
            return set()
        bound = Bound()
        statement = TOKENS.format(tokens=bound(tokens, "Array(UInt64)"))
        return {token for (token,) in select(self._client, statement, bound)}

    # ── asked ───────────────────────────────────────────────────────────────────────────────────────────────

    def _wanted(self, stretch: Sequence[Place], size: int) -> Iterator[tuple[Place, list[Wanted]]]:
        """What is wanted of a stretch, a part at a time, each with the last place that it decides about."""
        last, sizes = stretch[-1], dict.fromkeys((place.trace_id for place in stretch), 1)
        if self._query.terms:
            sizes, size = self._narrowed(stretch), len(stretch)
            stretch = [place for place in stretch if place.trace_id in sizes]
        for places in portions(stretch, size):
            fitting = self._with_lines(places)
            if not self._query.of_span:
                yield places[-1], fitting
                continue
            for part in _parts(fitting, sizes):
                yield part[-1][0], self._with_span(part)
        yield last, []

    def _with_lines(self, places: Sequence[Place]) -> list[Wanted]:
        """Those for which the terms hold that are asked of a trace."""
        lines = lines_of(self._client, places)
        some = [(place, lines[place.trace_id]) for place in places if place.trace_id in lines]
        return [(place, line) for place, line in some if self._trace_holds(line)]

    def _narrowed(self, stretch: Sequence[Place]) -> dict[str, int]:
        """The traces that may be wanted, each with the number of its rows."""
        bound = Bound()
        where = within(stretch, bound)
        wanted = [*somewhere(self._query, bound), " AND ".join(may_hold(self._query, bound, self._now_ns, where))]
        asked = "".join(f", max({condition})" for condition in wanted if condition)
        rows = select(self._client, NARROWED.format(asked=asked, where=where), bound)
        if self.scanned is not None:
            self.scanned += sum(row[1] for row in rows)
        return {trace_id: size for trace_id, size, *answers in rows if all(answers)}

    def _trace_holds(self, line: RunSummary) -> bool:
        return all(trace_holds(term, line, self._now_ns) for term in self._query.of_trace)

    def _with_span(self, part: Sequence[Wanted]) -> list[Wanted]:
        """Those that have a span for which all terms hold."""
        holding = {trace_id for trace_id, _ in self._fitting(part)}
        return [(place, line) for place, line in part if place.trace_id in holding]

    def _fitting(self, part: Sequence[Wanted]) -> Iterator[tuple[str, Candidate]]:
        """The spans of some traces for which all terms hold, each with its trace."""
        bound = Bound()
        where = within([place for place, _ in part], bound)
        may = "".join(f" AND {each}" for each in may_hold(self._query, bound, self._now_ns, where))
        if may:
            where = OF_SPANS.format(where=where, may=may)
        rows = find_spans(self._client, where, bound, messages=self._needs_messages)
        found = Found(self._known)
        wanted, lines = Query(self._query.of_span), {place.trace_id: line for place, line in part}
        for row in found.spans(rows):
            span, trace_id = Candidate(row, found.origins[row.origin]), row.trace_id.hex()
            if matches(wanted, span, lines[trace_id], self._now_ns):
                yield trace_id, span


def _is_plain(term: Term) -> bool:
    """Whether a place alone says if it holds."""
    return isinstance(term, When)


def _position(place: Place) -> Position:
    return place.position


def _parts(wanted: Iterable[Wanted], sizes: Mapping[str, int]) -> Iterator[list[Wanted]]:
    """As many traces at a time as have about `SPANS_AT_ONCE` spans; one at least."""
    part: list[Wanted] = []
    spans = 0
    for each in wanted:
        part.append(each)
        spans += sizes[each[0].trace_id]
        if spans >= SPANS_AT_ONCE:
            yield part
            part, spans = [], 0
    if part:
        yield part
