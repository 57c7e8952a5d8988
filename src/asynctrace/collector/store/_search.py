"""What a query finds: traces in the order of the list, by the index where it can say something, else one after the other.

index    the chunks that have all search tokens ─▶ their traces ─▶ decoded and asked again
scan     traces from the newest on ─▶ decoded and asked, for `SCAN_SECONDS` at most; then the page ends early, with a
         cursor and the number of spans that were read, and the caller goes on from there
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

import msgspec

from ..query import Query
from ..query._match import Candidate, matches, matches_trace, trace_holds
from ._chunk import SPANS, decode_skeleton
from ._plan import Conditions, conditions, needles, needs_messages, token_groups
from ._schema import CHUNK_BITS
from ._segments import (
    CONTINUES,
    LINE,
    PINNED,
    Gathered,
    Line,
    Reading,
    Segment,
    Segments,
    gather_places,
    places_of,
)
from ._store import LARGEST, RunSummary
from ._tally import COLUMNS

__all__ = ["NEWEST", "START", "Found", "Search"]

SCAN_SECONDS: Final = 1.0
"""After which a page ends: someone waits for it."""
FEW: Final = 4000
"""Chunks whose traces are fetched and sorted; with more hits the list is walked, and each stretch of it asked for."""
STRETCH: Final = 256
"""Lines."""
AT_ONCE: Final = 500

TRACE_ID: Final = 1 + COLUMNS.index("trace_id")
START: Final = 1 + COLUMNS.index("start_ns")
SPAN_COUNT: Final = 1 + COLUMNS.index("spans")
NEWEST: Final = (LARGEST, b"\xff" * 17)
"""Before the first line."""
STORED: Final = 1 + COLUMNS.index("stored")

CONTINUED: Final = "SELECT no FROM trace WHERE continues"
CODECS: Final = "SELECT id, codec FROM chunk WHERE id BETWEEN ? AND ? AND kind = ? ORDER BY id"
ORDER: Final = "ORDER BY start_ns DESC, trace_id DESC"
AFTER: Final = "(start_ns, trace_id) < (?, ?) AND start_ns BETWEEN ? AND ? AND spans > 0"

Place: TypeAlias = tuple[Segment, Reading]
Position: TypeAlias = tuple[int, bytes]


class Found(NamedTuple):
    """A line that may be wanted."""

    segment: Segment
    reading: Reading
    line: Line
    chunks: Sequence[int] | None
    """Those that hold what is wanted; None: all may."""


class Search:
    """One query over one set of snapshots. `summary` makes the light form of a line. It ends after so many `seconds`; where
    none are given, after `SCAN_SECONDS` of what no index can answer."""

    def __init__(
        self,
        segments: Segments,
        readings: list[Place],
        query: Query,
        summary: Callable[[Line], RunSummary],
        now_ns: int,
        seconds: float | None = None,
    ) -> None:
        self._seconds = SCAN_SECONDS if seconds is None else seconds
        self._is_sum = seconds is not None
        self._segments = segments
        self._readings = readings
        self._query = query
        self._summary = summary
        self._now_ns = now_ns
        self._needs_messages = needs_messages(query)
        self._needles = needles(query)
        self.scanned: int | None = None
        """Spans that were read because no index could answer."""
        self.stopped_at: Line | None = None
        """The last line that was looked at, where the time was up."""

    def lines(self, position: Position, where: str = "") -> Iterator[Line]:
        """The wanted lines after `position`, in the order of the list; `where`, a condition of SQL, narrows them down."""
        until = time.monotonic() + self._seconds
        wanted = conditions(self._query, self._now_ns)
        for found in self._candidates(position, msgspec.structs.replace(wanted, where=wanted.where + where)):
            is_wanted = False
            with self._segments.passing_over(found.segment):
                is_wanted = self._is_wanted(found)
            if is_wanted:
                yield found.line
            if (self.scanned is not None or self._is_sum) and time.monotonic() > until:
                self.stopped_at = found.line
                return

    def spans(self, position: Position, since_ns: int, until_ns: int) -> Iterator[Candidate]:
        """The spans that satisfy the terms of a span, of the wanted traces that were there between two times."""
        until = time.monotonic() + self._seconds
        wanted = conditions(self._query, self._now_ns)
        between = msgspec.structs.replace(
            wanted,
            until_ns=min(wanted.until_ns, until_ns),
            where=f"{wanted.where} AND (open > 0 OR end_ns >= ?)",
            values=(*wanted.values, since_ns),
        )
        for found in self._candidates(position, between):
            with self._segments.passing_over(found.segment):
                yield from self._wanted_spans(found)
            if time.monotonic() > until:
                self.stopped_at = found.line
                return

    # ── candidates ──────────────────────────────────────────────────────────────────────────────────────────

    def _candidates(self, position: Position, wanted: Conditions) -> Iterator[Found]:
        """What may be wanted, each trace once, by its newest line."""
        later: set[bytes] = set()
        sources = []
        for segment, reading in self._readings:
            source = self._segments.tolerant(segment, self._in_segment(segment, reading, position, wanted))
            sources.append(_unless(source, frozenset(later)))
            later.update(self._segments.tolerant(segment, reading.continued()))
        last = b""
        for found in heapq.merge(*sources, key=_list_order, reverse=True):
            if found.line[TRACE_ID] != last:  # one that is being copied to the pinned ones is in two places
                last = found.line[TRACE_ID]
                yield found

    def _in_segment(
        self, segment: Segment, reading: Reading, position: Position, wanted: Conditions
    ) -> Iterator[Found]:
        groups = token_groups(self._query, reading.connection) if segment.number != PINNED else []
        if not groups:
            if self._query.of_span:
                self.scanned = self.scanned or 0
            for line in _walk(reading, position, wanted):
                yield Found(segment, reading, line, None)
            return
        hits = list(islice(reading.chunks_with(groups), FEW + 1))
        if len(hits) > FEW:
            yield from self._by_stretches(segment, reading, groups, _walk(reading, position, wanted))
        else:
            yield from self._by_hits(segment, reading, hits, position, wanted)

    def _by_hits(
        self, segment: Segment, reading: Reading, hits: Sequence[int], position: Position, wanted: Conditions
    ) -> Iterator[Found]:
        """Fetch the lines of the hits, and those of traces whose hits may lie in an earlier segment."""
        chunks = _by_trace(hits)
        continued = {number for (number,) in reading.rows(CONTINUED)}
        lines: list[Line] = []
        for some in _portions(sorted(chunks.keys() | continued)):
            lines += _walk(reading, position, wanted, f"AND no IN ({', '.join(map(str, some))})")
        for line in sorted(lines, key=lambda line: (line[START], line[TRACE_ID]), reverse=True):
            yield Found(segment, reading, line, None if line[CONTINUES] else chunks[line[0]])

    def _by_stretches(
        self, segment: Segment, reading: Reading, groups: list[list[bytes]], lines: Iterator[Line]
    ) -> Iterator[Found]:
        while stretch := list(islice(lines, STRETCH)):
            numbers = [line[0] for line in stretch]
            between = (min(numbers) << CHUNK_BITS, ((max(numbers) + 1) << CHUNK_BITS) - 1)
            chunks = _by_trace(reading.chunks_with(groups, between))
            for line in stretch:
                if line[CONTINUES] or line[0] in chunks:
                    yield Found(segment, reading, line, None if line[CONTINUES] else chunks[line[0]])

    # ── asked again ─────────────────────────────────────────────────────────────────────────────────────────

    def _is_wanted(self, found: Found) -> bool:
        if self._needles and found.chunks is None and _is_plain(found.line):
            found = found._replace(chunks=self._with_needles(found))
            if not found.chunks:
                return False
        return matches_trace(self._query, self._summary(found.line), lambda: self._spans(found), self._now_ns)

    def _wanted_spans(self, found: Found) -> Iterator[Candidate]:
        trace, now_ns = self._summary(found.line), self._now_ns
        if all(trace_holds(term, trace, now_ns) for term in self._query.of_trace):
            of_span = Query(self._query.of_span)
            spans = self._spans(found)
            yield from (span for span in spans if matches(of_span, span, trace, now_ns)) if of_span.terms else spans

    def _with_needles(self, found: Found) -> list[int]:
        """The chunks whose bytes contain what is looked for: most traces are passed over without decoding a span."""
        self._count(found)
        reading, chunks = found.reading, []
        for chunk, codec in reading.connection.execute(CODECS, (*_chunks_of(found.line), SPANS)).fetchall():
            body = reading.body(chunk, codec).lower()
            if all(needle in body for needle in self._needles):
                chunks.append(chunk)
        return chunks

    def _count(self, found: Found) -> None:
        if self.scanned is not None:
            self.scanned += found.line[SPAN_COUNT]

    def _spans(self, found: Found) -> Iterator[Candidate]:
        if found.chunks is None:
            self._count(found)
        return self._in_chunks(found) if _is_plain(found.line) else self._whole(found.line[TRACE_ID])

    def _whole(self, trace_id: bytes) -> Iterator[Candidate]:
        """All spans of a trace: a part would not tell which versions hold."""
        gathered = Gathered(trace_id)
        gather_places(
            self._segments, places_of(self._segments, self._readings, trace_id), gathered, messages=self._needs_messages
        )
        return (Candidate(row, gathered.origins[row.origin]) for row in gathered.rows)

    def _in_chunks(self, found: Found) -> Iterator[Candidate]:
        where, values = "id BETWEEN ? AND ?", _chunks_of(found.line)
        if found.chunks is not None:
            where, values = f"id IN ({', '.join(map(str, found.chunks))})", ()
        query = f"SELECT id, codec, skeleton FROM chunk WHERE {where} AND kind = ? ORDER BY id"  # noqa: S608
        reading = found.reading
        for chunk, codec, skeleton in reading.connection.execute(query, (*values, SPANS)).fetchall():
            body = reading.body(chunk, codec) if self._needs_messages else b""
            gathered = Gathered(found.line[TRACE_ID])
            reading.gather_spans(decode_skeleton(reading.codec(codec).expand(skeleton)), body, gathered)
            yield from (Candidate(row, gathered.origins[row.origin]) for row in gathered.rows)


def _is_plain(line: Line) -> bool:
    """Whether all of a trace lies in this segment, each span in one version: then each chunk speaks for itself."""
    return not line[CONTINUES] and line[STORED] == line[SPAN_COUNT]


def _chunks_of(line: Line) -> tuple[int, ...]:
    return line[0] << CHUNK_BITS, ((line[0] + 1) << CHUNK_BITS) - 1


def _walk(reading: Reading, position: Position, wanted: Conditions, more: str = "") -> Iterator[Line]:
    """Lines after `position`, in the order of the list."""
    query = f"{LINE} WHERE {AFTER}{wanted.where} {more} {ORDER}"
    yield from reading.connection.execute(query, (*position, wanted.since_ns, wanted.until_ns, *wanted.values))


def _unless(source: Iterable[Found], later: frozenset[bytes]) -> Iterator[Found]:
    return (found for found in source if found.line[TRACE_ID] not in later)


def _list_order(found: Found) -> Position:
    return found.line[START], found.line[TRACE_ID]


def _by_trace(chunks: Iterable[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for chunk in chunks:
        found.setdefault(chunk >> CHUNK_BITS, []).append(chunk)
    return found


def _portions(numbers: list[int]) -> Iterator[list[int]]:
    return (numbers[first : first + AT_ONCE] for first in range(0, len(numbers), AT_ONCE))
