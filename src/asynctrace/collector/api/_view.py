"""What the store holds and what is open now, as one.

Promises:

- The place of a span in its trace (its *index*) never changes while `Whole.order` stays the same: new spans come behind.
- An ended span is shown as it ended, whatever notices say.
- Everything here blocks: it is called in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from .._rows import LogRow, Origin, SpanRow
from ..live import Live, OpenSpan, Order
from ..query import Query
from ..query._match import Candidate, matches_trace
from ..query._terms import Field, Pattern
from ..store import RunPage, RunSummary, SessionPage, SessionSummary, StoreReader, TraceSpans

__all__ = ["View", "Whole"]

MOST_LIVE: Final = 1000
"""Traces with open spans that a list looks at one by one."""
SHORTEST_ID: Final = 8
NEWEST: Final = 1 << 64
"""After the start of every span."""
MOST_ALIKE: Final = 100
"""Sessions whose names differ in their case only."""


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    """A trace: every span once, by index."""

    summary: RunSummary
    origins: list[Origin]
    rows: list[SpanRow]
    logs: list[LogRow]
    version: int
    """Another one when anything changed."""
    order: int
    """Another one when the indexes were dealt anew."""
    stored_version: int = 0
    stored_spans: int = 0
    """What of it the store has."""
    heard: dict[int, int] = {}
    """When the spans that are open or lost were last heard of, nanoseconds since the Unix epoch, by index."""
    lost: frozenset[int] = frozenset()
    interrupted: frozenset[int] = frozenset()
    """Those of the lost ones that nobody has been heard of since the collector began."""
    """Of those, the ones whose sender is silent."""

    def candidate(self, index: int) -> Candidate:
        """A span, to be asked by a query."""
        row = self.rows[index]
        return Candidate(row, self.origins[row.origin], is_lost=index in self.lost)


class View:
    """The readers' side of one collector."""

    def __init__(self, store: StoreReader, live: Live) -> None:
        self.store, self.live = store, live

    # One trace ---------------------------------------------------------------------------------------------------

    def whole(self, trace_id: str, *, messages: bool = True) -> Whole | None:
        """Everything of a trace; `None` when it is unknown. `ValueError` for what is no trace id."""
        key = _identity(trace_id)
        notices = self.live.open.of(key)  # first: what ends in between is then in both, not in none
        order = self.live.open.order_of(key)
        return self.joined(notices, order, self.store.spans_of(trace_id, messages=messages))

    def joined(self, notices: list[OpenSpan], order: Order | None, stored: TraceSpans | None) -> Whole | None:
        """What the store has of a trace and what is open of it, asked for in this order, as one."""
        if stored is None and not notices:
            return None
        rows, origins = (list(stored.rows), list(stored.origins)) if stored is not None else ([], [])
        fresh = _fresh(notices, rows)
        for notice in fresh:
            origins.append(notice.origin)
            rows.append(notice.row._replace(origin=len(origins) - 1))
        by_id = {notice.row.span_id: notice for notice in fresh}
        if order is not None:
            rows.sort(key=lambda row: order.places.get(row.span_id, len(order.places)))
        open_at = {index: by_id[row.span_id] for index, row in enumerate(rows) if row.span_id in by_id}
        return Whole(
            summary=self.with_open(stored.summary if stored is not None else None, fresh),
            origins=origins,
            rows=rows,
            logs=stored.logs if stored is not None else [],
            version=(stored.version if stored is not None else 0) + (order.changes if order is not None else 0),
            order=order.number if order is not None else 0,
            stored_version=stored.version if stored is not None else 0,
            stored_spans=stored.summary.spans if stored is not None else 0,
            heard={index: notice.heard_ns for index, notice in open_at.items()},
            lost=frozenset(index for index, notice in open_at.items() if self.live.open.is_lost(notice)),
            interrupted=frozenset(index for index, notice in open_at.items() if self.is_interrupted(notice)),
        )

    def summary(self, trace_id: str) -> RunSummary | None:
        """The line of one trace in a list; `None` when it is unknown."""
        notices = self.live.open.of(_identity(trace_id))
        summary = self.store.summary(trace_id)
        return self.with_open(summary, notices) if notices else summary

    def span(self, trace_id: str, span_id: str) -> Whole | None:
        """As `whole()`, with this span and its logs only; `None` when there is none."""
        key = _identity(trace_id)
        stored = self.store.span_of(trace_id, span_id)
        notice = next((each for each in self.live.open.of(key) if each.row.span_id.hex() == span_id), None)
        if notice is None or (stored is not None and stored.rows[0].end_ns):
            if stored is None:
                return None
            return Whole(
                summary=stored.summary,
                origins=stored.origins,
                rows=stored.rows,
                logs=stored.logs,
                version=stored.version,
                order=0,
            )
        return Whole(
            summary=self.with_open(None, [notice]),
            origins=[notice.origin],
            rows=[notice.row._replace(origin=0)],
            logs=stored.logs if stored is not None else [],
            version=0,
            order=0,
            heard={0: notice.heard_ns},
            lost=frozenset((0,) if self.live.open.is_lost(notice) else ()),
            interrupted=frozenset((0,) if self.is_interrupted(notice) else ()),
        )

    # Many traces -------------------------------------------------------------------------------------------------

    def page(self, query: Query, limit: int, cursor: str | None = None) -> RunPage:
        """At most `limit` traces for which `query` holds, newest start first, and the ones that are only open now."""
        newest, inner = _parse_cursor(cursor)
        page = self._stored_page(query, limit, inner)
        reached = (
            page.traces[-1].start_ns if page.traces else newest
        )  # after no traces, the next page has the open ones
        oldest = reached if page.cursor is not None else -1
        now_ns = self.live.now_ns()
        with_open = {trace_id: self.summary(trace_id) for trace_id in self._traces_with_open()}
        lines = [trace for trace in page.traces if trace.trace_id not in with_open]
        for summary in with_open.values():
            if summary is not None and oldest <= summary.start_ns < newest and self.holds(query, summary, now_ns):
                lines.append(summary)
        lines.sort(key=lambda line: (line.start_ns, line.trace_id), reverse=True)
        following = f"{oldest}~{page.cursor}" if page.cursor is not None else None
        return RunPage(traces=tuple(lines), cursor=following, scanned=page.scanned)

    def sessions(self, query: Query, limit: int, cursor: str | None = None) -> SessionPage:
        """At most `limit` sessions of the traces for which `query` holds, the one with the latest trace first; and the ones
        whose latest trace is open and belongs there."""
        newest, inner = _parse_cursor(cursor)
        page = self.store.sessions(limit, inner, query=query)
        oldest = page.sessions[-1].last_ns if page.cursor is not None and page.sessions else -1
        with_open = self._sessions_with_open(query)
        lines = [session for session in page.sessions if session.session not in with_open]
        lines += [session for session in with_open.values() if session.traces and oldest <= session.last_ns < newest]
        lines.sort(key=lambda line: (line.last_ns, line.session), reverse=True)
        following = f"{oldest}~{page.cursor}" if page.cursor is not None else None
        return SessionPage(sessions=tuple(lines), cursor=following, counted_since_ns=page.counted_since_ns)

    def _sessions_with_open(self, query: Query) -> dict[str, SessionSummary]:
        """Each as the store has it, with the traces that are open as they are now."""
        now_ns = self.live.now_ns()
        found: dict[str, SessionSummary] = {}
        for trace_id in self._traces_with_open():
            summary, stored = self.summary(trace_id), self.store.summary(trace_id)
            if summary is None or not summary.session:
                continue
            session = found.get(summary.session) or self._stored_session(summary.session, query)
            if (
                stored is not None
                and stored.session
                and matches_trace(query, stored, self._stored_spans(trace_id), now_ns)
            ):
                session = _with_trace(session, stored, -1)
            if self.holds(query, summary, now_ns):
                session = _with_trace(session, summary)
            found[summary.session] = session
        return found

    def _stored_session(self, name: str, query: Query) -> SessionSummary:
        wanted = Query((*query.terms, Field("session", Pattern(name))))
        page = self.store.sessions(MOST_ALIKE, query=wanted)
        found = next((each for each in page.sessions if each.session == name), None)
        return found or SessionSummary(
            session=name, user="", traces=0, spans=0, errors=0, first_ns=0, last_ns=0, input_tokens=0, output_tokens=0,
            cost=0.0, last_input="",
        )  # fmt: skip

    def _stored_spans(self, trace_id: str) -> Callable[[], Iterable[Candidate]]:
        def spans() -> Iterable[Candidate]:
            found = self.store.spans_of(trace_id)
            return () if found is None else (Candidate(row, found.origins[row.origin]) for row in found.rows)

        return spans

    def holds(self, query: Query, summary: RunSummary, now_ns: int) -> bool:
        """Whether a trace belongs on a list for `query`."""
        return matches_trace(query, summary, lambda: self._candidates(summary.trace_id), now_ns)

    def _candidates(self, trace_id: str) -> Iterator[Candidate]:
        whole = self.whole(trace_id)
        return map(whole.candidate, range(len(whole.rows))) if whole is not None else iter(())

    def _stored_page(self, query: Query, limit: int, cursor: str | None) -> RunPage:
        return self.store.search(query, limit, cursor) if query.terms else self.store.runs(limit, cursor)

    def _traces_with_open(self) -> list[str]:
        return [trace_id.hex() for trace_id in self.live.open.traces()[:MOST_LIVE]]

    def is_interrupted(self, notice: OpenSpan) -> bool:
        """Whether nobody was heard of it since this collector began."""
        return self.live.open.ending_of(notice) == "interrupted"

    # A summary and what is open ----------------------------------------------------------------------------------

    def with_open(self, summary: RunSummary | None, notices: Sequence[OpenSpan]) -> RunSummary:
        """The line of a trace that the store knows, with these of its spans open."""
        if not notices and summary is not None:
            return summary
        lost = sum(map(self.live.open.is_lost, notices))
        head = _head(notices)
        ending = self.live.open.ending_of(head)
        if summary is None:
            summary = _of_notices(notices, head, ending)
        elif not head.row.parent_id:
            facts = head.row.facts
            summary = msgspec.structs.replace(
                summary,
                name=head.row.name,
                service=head.origin.service,
                ending=ending,
                has_root=True,
                type=facts.type,
                session=facts.session or summary.session,
                user=facts.user or summary.user,
                input=facts.input or summary.input,
                output=facts.output,
                spans=summary.spans + len(notices),
            )
        else:
            summary = msgspec.structs.replace(summary, spans=summary.spans + len(notices))
        still_open = summary.open + len(notices) - lost
        start_ns = min(summary.start_ns, *(notice.row.start_ns for notice in notices))
        end_ns = max(summary.end_ns, *(notice.heard_ns for notice in notices)) if lost else summary.end_ns
        return msgspec.structs.replace(
            summary,
            open=still_open,
            lost=summary.lost + lost,
            start_ns=start_ns,
            end_ns=end_ns,
            duration=None if still_open else max(0, end_ns - start_ns) / 1e9,
        )


def _with_trace(session: SessionSummary, trace: RunSummary, sign: int = 1) -> SessionSummary:
    """With the sums of one trace more; with `sign` -1, of one less."""
    is_latest = sign > 0 and trace.start_ns >= session.last_ns
    return msgspec.structs.replace(
        session,
        traces=session.traces + sign,
        spans=session.spans + sign * trace.spans,
        errors=session.errors + sign * trace.errors,
        open=session.open + sign * trace.open,
        input_tokens=session.input_tokens + sign * trace.input_tokens,
        output_tokens=session.output_tokens + sign * trace.output_tokens,
        cost=max(0.0, session.cost + sign * trace.cost),
        first_ns=min(filter(None, (session.first_ns, trace.start_ns)), default=0),
        last_ns=max(session.last_ns, trace.start_ns),
        user=trace.user or session.user if is_latest else session.user,
        last_input=trace.input or session.last_input if is_latest else session.last_input,
    )


def _fresh(notices: list[OpenSpan], rows: list[SpanRow]) -> list[OpenSpan]:
    """Notices of spans that did not end; a version without an end among `rows` gives way."""
    if not notices:
        return []
    wanted = {notice.row.span_id for notice in notices}
    ended = {row.span_id for row in rows if row.span_id in wanted and row.end_ns}
    if wanted - ended:
        rows[:] = [row for row in rows if row.end_ns or row.span_id not in wanted]
    return [notice for notice in notices if notice.row.span_id not in ended]


def _head(notices: Iterable[OpenSpan]) -> OpenSpan:
    """The earliest root, else the earliest span."""
    return min(notices, key=lambda notice: (bool(notice.row.parent_id), notice.row.start_ns))


def _of_notices(notices: Sequence[OpenSpan], head: OpenSpan, ending: str) -> RunSummary:
    """Nothing of the trace has ended."""
    row, facts = head.row, head.row.facts
    trace_id = row.trace_id.hex()
    return RunSummary(
        trace_id=trace_id,
        short_id=trace_id[:SHORTEST_ID],
        name=row.name,
        service=head.origin.service,
        start_ns=row.start_ns,
        end_ns=0,
        duration=None,
        spans=len(notices),
        errors=sum(notice.row.status == 2 for notice in notices),
        open=0,
        ending=ending,
        has_root=not row.parent_id,
        type=facts.type,
        model=_first(notice.row.facts.model for notice in notices),
        session=_first(notice.row.facts.session for notice in notices),
        user=_first(notice.row.facts.user for notice in notices),
        input=facts.input,
        output=facts.output,
        input_tokens=sum(notice.row.facts.input_tokens for notice in notices),
        output_tokens=sum(notice.row.facts.output_tokens for notice in notices),
        cost=sum(notice.row.facts.cost for notice in notices),
    )


def _first(texts: Iterable[str]) -> str:
    return next(filter(None, texts), "")


def _parse_cursor(cursor: str | None) -> tuple[int, str | None]:
    """Before which start the page begins, and the store's own cursor."""
    if cursor is None:
        return NEWEST, None
    start, mark, inner = cursor.partition("~")
    if not mark or not start.isascii() or not start.isdigit() or len(start) > 20:
        raise ValueError("this cursor is none that a list gave")
    return int(start), inner


def _identity(trace_id: str) -> bytes:
    try:
        key = bytes.fromhex(trace_id)
    except ValueError:
        key = b""
    if len(key) != 16 or len(trace_id) != 32:
        raise ValueError(f"a trace id has 32 hex digits, not {trace_id[:40]!r}")
    return key
