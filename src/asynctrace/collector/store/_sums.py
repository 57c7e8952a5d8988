"""Sums over many traces: percentiles by name and time, sessions, values that are there.

From rolled-up tables and the lines of traces; spans are read for the statistics of what a query finds, for `SUM_SECONDS` at
most, the newest traces first, and for the values of attributes, a sample of the latest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, islice
from operator import itemgetter
from typing import Any, Final, TypeAlias

from ..._contracts import AttributeValue
from ...wire import decode_span
from .._rows import EMPTY, SpanRow
from ..query._match import Candidate
from ..query._terms import ENDINGS, KEYS, KINDS, STATES, STATUSES
from ._chunk import SPANS, decode_skeleton
from ._ids import session_position
from ._roll import ERROR, MINUTE_NS, OPEN, bucket_of, decode_buckets, percentiles
from ._search import NEWEST, START, Search
from ._segments import Reading, Segment, Segments
from ._store import LARGEST, Group, SessionPage, SessionSummary, SpanStatistics, TimePoint, ValueCount
from ._tally import COLUMNS
from ._writing import FIELDS

__all__ = [
    "CLOSED",
    "LONGEST_VALUE",
    "SAMPLE_SPANS",
    "SAMPLE_TRACES",
    "SUM_SECONDS",
    "check_asked",
    "found_between",
    "found_parts",
    "sessions",
    "span_statistics",
    "summed_up",
    "texts_of",
    "values",
]

SAMPLE_SPANS: Final = 2000
SAMPLE_TRACES: Final = 5000
"""The latest, of which values are looked up: a tenth of a second."""
LONGEST_VALUE: Final = 128
"""Characters of a value that is offered."""
CLOSED: Final = {"status": STATUSES, "kind": KINDS, "ending": ENDINGS, "is": STATES}

SUM_SECONDS: Final = 5.0
"""After which a sum says how far it came: someone waits for it."""

Places = list[tuple[Segment, Reading]]
Part: TypeAlias = tuple[Any, ...]
"""Minute, key, buckets, count, errors, input and output tokens, cost."""

_session_columns = itemgetter(
    *(
        1 + COLUMNS.index(column)
        for column in (
            *(
                "session",
                "user",
                "input",
                "start_ns",
                "spans",
                "errors",
                "open",
                "input_tokens",
                "output_tokens",
                "cost",
            ),
        )
    )
)

ROLL: Final = """
SELECT minute, name.{field}, count, errors, input_tokens, output_tokens, cost, buckets
FROM roll JOIN name ON name.id = roll.name WHERE minute BETWEEN ? AND ?
"""


# ── percentiles ─────────────────────────────────────────────────────────────────────────────────────────────


class _Sum:
    """Of one group of spans."""

    __slots__ = ("buckets", "cost", "count", "errors", "input_tokens", "output_tokens")

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.count = self.errors = self.input_tokens = self.output_tokens = 0
        self.cost = 0.0

    def add_span(self, row: SpanRow) -> None:
        bucket = bucket_of(row.end_ns - row.start_ns) if row.end_ns else OPEN
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.count += 1
        self.errors += row.status == ERROR
        facts = row.facts
        if facts is not EMPTY:
            self.input_tokens += facts.input_tokens
            self.output_tokens += facts.output_tokens
            self.cost += facts.cost

    def add(self, buckets: dict[int, int], count: int, errors: int, inputs: int, outputs: int, cost: float) -> None:
        self.count += count
        self.errors += errors
        self.input_tokens += inputs
        self.output_tokens += outputs
        self.cost += cost
        known = self.buckets
        for bucket, number in buckets.items():
            known[bucket] = known.get(bucket, 0) + number


def span_statistics(
    segments: Segments,
    readings: Places,
    by: str,
    step: int,
    since_ns: int,
    until_ns: int,
    limit: int,
    search: Search | None,
) -> SpanStatistics:
    """Counts, percentiles and sums by `by`, and over time; with a `search`, of the spans that it finds."""
    check_asked(by, step)
    between = (since_ns // MINUTE_NS, until_ns // MINUTE_NS)
    if search is None:
        return summed_up(_rolled(segments, readings, by, between), step, limit)
    spans = search.spans(NEWEST, *found_between(between))
    return summed_up(found_parts(spans, by, between), step, limit, lambda: _counted_since(search))


def check_asked(by: str, step: int) -> None:
    """`ValueError` for statistics that no store has."""
    if by not in FIELDS:
        raise ValueError(f"statistics are by {', '.join(FIELDS)}, not by {by!r}")
    if step < 60 or step % 60:
        raise ValueError(f"a step is a multiple of 60 seconds, not {step}")


def summed_up(
    parts: Iterable[Part], step: int, limit: int, counted_since: Callable[[], int] = lambda: 0
) -> SpanStatistics:
    """By key and over time. `counted_since` is asked when all parts are read."""
    groups: dict[str, _Sum] = {}
    times: dict[int, _Sum] = {}
    for minute, key, buckets, *sums in parts:
        groups.setdefault(key, _Sum()).add(buckets, *sums)
        times.setdefault(minute * 60 // step, _Sum()).add(buckets, *sums)
    rows_ = [_group(key, each) for key, each in groups.items() if each.count > 0]
    rows_.sort(key=lambda group: (-group.count, group.key))
    series = [_point(number * step, each) for number, each in sorted(times.items()) if each.count > 0]
    return SpanStatistics(rows=tuple(rows_[:limit]), series=tuple(series), counted_since_ns=counted_since())


def _rolled(segments: Segments, readings: Places, by: str, between: tuple[int, int]) -> Iterator[Part]:
    for segment, reading in readings:
        for minute, key, *sums, encoded in segments.tolerant(segment, reading.rows(ROLL.format(field=by), between)):
            yield minute, key, decode_buckets(encoded), *sums


def found_between(minutes: tuple[int, int]) -> tuple[int, int]:
    """The first and the last nanosecond of some minutes."""
    first, last = minutes
    return first * MINUTE_NS, min(LARGEST, (last + 1) * MINUTE_NS - 1)


def found_parts(spans: Iterable[Candidate], by: str, minutes: tuple[int, int]) -> Iterator[Part]:
    """Of the spans that started between two minutes."""
    first, last = minutes
    key_of = _KEYS[by]
    parts: dict[tuple[int, str], _Sum] = {}
    for span in spans:
        row = span.row
        minute = row.start_ns // MINUTE_NS
        if first <= minute <= last:
            key = (minute, key_of(span))
            part = parts.get(key)
            if part is None:
                part = parts[key] = _Sum()
            part.add_span(row)
    for (minute, key_), part in parts.items():
        yield (minute, key_, part.buckets, part.count, part.errors, part.input_tokens, part.output_tokens, part.cost)


_KEYS: Final[dict[str, Callable[[Candidate], str]]] = {
    "name": lambda span: span.row.name,
    "service": lambda span: span.origin.service,
    "type": lambda span: span.row.facts.type,
    "model": lambda span: span.row.facts.model,
}


def _group(key: str, each: _Sum) -> Group:
    p50, p95, p99 = percentiles(each.buckets.items())
    return Group(
        key=key,
        count=each.count,
        errors=max(0, each.errors),
        p50=p50,
        p95=p95,
        p99=p99,
        input_tokens=max(0, each.input_tokens),
        output_tokens=max(0, each.output_tokens),
        cost=max(0.0, each.cost),
    )


def _point(t: int, each: _Sum) -> TimePoint:
    p50, p95, p99 = percentiles(each.buckets.items())
    return TimePoint(t=t, count=each.count, errors=max(0, each.errors), p50=p50, p95=p95, p99=p99)


# ── sessions ────────────────────────────────────────────────────────────────────────────────────────────────

SESSION_SUMS: Final = """
SELECT session, count(*), sum(spans), sum(errors), sum(open), min(start_ns), max(start_ns), sum(input_tokens),
    sum(output_tokens), sum(cost)
FROM trace WHERE session <> '' AND spans > 0 AND no NOT IN ({superseded}) GROUP BY session
"""
LATEST: Final = """
SELECT start_ns, trace_id, user, input FROM trace
WHERE session = :session COLLATE NOCASE AND session <> '' AND session = :session AND spans > 0 ORDER BY start_ns DESC
"""


class _Session:
    """Sums over traces."""

    __slots__ = ("cost", "errors", "first_ns", "input_tokens", "last_ns", "latest", "name", "open", "output_tokens",
                 "spans", "traces")  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.traces = self.spans = self.errors = self.open = self.input_tokens = self.output_tokens = 0
        self.cost = 0.0
        self.first_ns, self.last_ns = LARGEST, 0
        self.latest: tuple[str, str] | None = None
        """User and input of the latest trace, where they are known already."""

    @property
    def order(self) -> tuple[int, str]:
        return self.last_ns, self.name

    def add(self, *sums: Any) -> None:
        """As the columns of `SESSION_SUMS` behind the name."""
        traces, spans, errors, still_open, first_ns, last_ns, input_tokens, output_tokens, cost = sums
        self.traces += traces
        self.spans += spans
        self.errors += errors
        self.open += still_open
        self.first_ns, self.last_ns = min(self.first_ns, first_ns), max(self.last_ns, last_ns)
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        self.cost += cost


def sessions(
    segments: Segments, readings: Places, limit: int, cursor: str | None, search: Search | None
) -> SessionPage:
    """At most `limit` sessions after `cursor`, the one with the latest trace first; with a `search`, of what it finds."""
    position = session_position(cursor) if cursor is not None else None
    found = _all_sessions(segments, readings) if search is None else _found_sessions(search)
    ordered = sorted(found, key=lambda each: each.order, reverse=True)
    page = [each for each in ordered if position is None or each.order < position][: limit + 1]
    shown = tuple(_summed(each, each.latest or _latest(segments, readings, each.name)) for each in page[:limit])
    more = len(page) > limit
    return SessionPage(
        sessions=shown,
        cursor=f"{shown[-1].last_ns}-{shown[-1].session}" if more else None,
        counted_since_ns=_counted_since(search),
    )


def _all_sessions(segments: Segments, readings: Places) -> Iterable[_Session]:
    found: dict[str, _Session] = {}
    later: set[bytes] = set()
    for segment, reading in readings:
        for name, *sums in segments.tolerant(segment, _sessions_of(reading, later)):
            found.setdefault(name, _Session(name)).add(*sums)
        later.update(segments.tolerant(segment, reading.continued()))
    return found.values()


def _found_sessions(search: Search) -> Iterable[_Session]:
    found: dict[str, _Session] = {}
    for line in search.lines(NEWEST, " AND session <> ''"):  # the latest of each session first
        name, user, said, start_ns, *sums = _session_columns(line)
        each = found.setdefault(name, _Session(name))
        each.latest = each.latest or (user, said)
        each.add(1, *sums[:3], start_ns, start_ns, *sums[3:])
    return found.values()


def _sessions_of(reading: Reading, later: set[bytes]) -> Iterator[tuple[Any, ...]]:
    """The sums of one segment, without the lines whose place others take."""
    lines = filter(None, map(reading.line, later))
    yield from reading.rows(SESSION_SUMS.format(superseded=", ".join(str(line[0]) for line in lines)))


def _latest(segments: Segments, readings: Places, session: str) -> tuple[str, str]:
    """User and input of the latest trace."""
    found: list[tuple[int, bytes, str, str]] = []
    later: set[bytes] = set()
    for segment, reading in readings:
        rows = segments.tolerant(segment, reading.rows(LATEST, {"session": session}))
        found += islice((row for row in rows if row[1] not in later), 1)
        later.update(segments.tolerant(segment, reading.continued()))
    *_, user, said = max(found, default=(0, b"", "", ""))
    return user, said


def _summed(each: _Session, latest: tuple[str, str]) -> SessionSummary:
    user, said = latest
    return SessionSummary(
        session=each.name,
        user=user,
        traces=each.traces,
        spans=each.spans,
        errors=each.errors,
        first_ns=each.first_ns,
        last_ns=each.last_ns,
        input_tokens=each.input_tokens,
        output_tokens=each.output_tokens,
        cost=each.cost,
        last_input=said,
        open=each.open,
    )


def _counted_since(search: Search | None) -> int:
    """The start of the last trace that there was time for; 0 when there was time for all."""
    return 0 if search is None or search.stopped_at is None else max(1, search.stopped_at[START])


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────

NAMES: Final = """
SELECT name.{field}, sum(count) FROM roll JOIN name ON name.id = roll.name WHERE name.{field} <> '' GROUP BY 1
"""
OF_TRACES: Final = """
SELECT {field}, count(*) FROM (SELECT {field} FROM trace ORDER BY start_ns DESC LIMIT ?) WHERE {field} <> '' GROUP BY 1
"""
LATEST_CHUNKS: Final = "SELECT id, codec FROM chunk WHERE kind = ? ORDER BY id DESC LIMIT ?"


def values(segments: Segments, readings: Places, key: str, prefix: str, limit: int) -> list[ValueCount]:
    """The most frequent values of `key` that begin with `prefix`."""
    found: Counter[str] = Counter()
    for value, count in _counted(segments, readings, key):
        if value.lower().startswith(prefix.lower()) and len(value) <= LONGEST_VALUE:
            found[value] += count
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [ValueCount(value, max(0, count)) for value, count in ordered[:limit]]


def _counted(segments: Segments, readings: Places, key: str) -> Iterator[tuple[str, int]]:
    if not key:
        yield from ((each, 0) for each in KEYS)
        yield from ((f"attr.{name}", 1) for name, _ in _attributes(segments, readings))
    elif key in CLOSED:
        yield from ((each, 0) for each in CLOSED[key])
    elif key in FIELDS:
        for segment, reading in readings:
            yield from segments.tolerant(segment, reading.rows(NAMES.format(field=key)))
    elif key in ("session", "user"):
        for segment, reading in readings:
            rows = reading.rows(OF_TRACES.format(field=key), (SAMPLE_TRACES,))
            yield from segments.tolerant(segment, rows)
    else:
        wanted = key.removeprefix("attr.")
        for name, value in _attributes(segments, readings):
            if name == wanted:
                yield from ((text, 1) for text in texts_of(value))


def _attributes(segments: Segments, readings: Places) -> Iterator[tuple[str, AttributeValue]]:
    """Of a sample of spans, from the latest chunks."""
    left = SAMPLE_SPANS
    for segment, reading in readings:
        for messages in segments.tolerant(segment, _latest_messages(reading, left)):
            for message in messages[:left]:
                yield from decode_span(message).attributes.items()
            left -= len(messages)
            if left <= 0:
                return


def _latest_messages(reading: Reading, spans: int) -> Iterator[list[bytes]]:
    for chunk, codec in reading.rows(LATEST_CHUNKS, (SPANS, spans)):
        body = reading.body(chunk, codec)
        lasts = list(accumulate(decode_skeleton(reading.skeleton(chunk, codec)).sizes))
        yield [body[first:last] for first, last in zip([0, *lasts], lasts, strict=False)]


def texts_of(value: AttributeValue) -> Iterator[str]:
    """As the query language compares them."""
    if isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float):
        yield repr(value)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from texts_of(each)
