"""Traces that somebody looks at, kept in memory without their messages, and brought up to date by what arrived.

    store ── what arrived since ──┐
    live ─── what is open now ────┴▶ Followed ──▶ skeletons, and for who listens: new spans, changed spans

Promises:

- Bringing a trace up to date takes time that grows with what arrived and what is open, not with the trace; so does telling
  it to somebody who knows an earlier version.
- What is told adds up to what reading everything gives. Where that is not sure, everything is read.
- A version is a number that is never given twice, by no collector either: who names one that is known here knows the trace as
  it was then.
- Traces that nobody listens to are remembered as long as they have `MOST_SPANS` together, and are no more than `MOST_TRACES`.
"""

from __future__ import annotations

import itertools
import threading
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from .._rows import LogRow, Origin, SpanRow
from ..live import OpenSpan, Order
from ..store import TraceSpans
from ..store._tally import weight
from ._skeleton import Numbering, mark, skeleton
from ._view import View, Whole

__all__ = ["Followed", "Following", "Told"]

MOST_SPANS: Final = 150_000
"""Some 60 MB."""
MOST_TRACES: Final = 1000
"""Those that are asked for and unknown among them: anybody can make ids up."""
LONGEST_JOURNAL: Final = 100_000
"""Changes that are remembered for those who know an earlier version."""
_versions: Final = itertools.count(time.time_ns() // 1000)
"""JavaScript's integers are exact to 2**53: until 2255."""


class Told:
    """What one listener knows of a trace: everything up to a version."""

    def __init__(self, version: int = -1) -> None:
        self.version = version


class Following:
    """The traces of one collector that are looked at. Everything here blocks; safe from any thread."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._traces: OrderedDict[str, Followed] = OrderedDict()
        self._lock = threading.Lock()

    def skeleton(self, trace_id: str, after: int, order: str | None) -> dict[str, Any] | None:
        """The columns from `after` on, from 0 if the trace has another order; `None` when it is unknown."""
        followed = self._of(trace_id)
        with followed.lock:
            whole = followed.refreshed(self._view)
            if whole is None:
                return None
            first = after if order is None or order == str(whole.order) else 0
            return skeleton(whole, first, followed.numbering)

    def news(self, trace_id: str, told: Told) -> dict[str, Any] | None:
        """The message that brings a listener up to date; None where it is."""
        followed = self._of(trace_id)
        with followed.lock:
            whole = followed.refreshed(self._view)
            if whole is None:
                told.version = -1
                return {"type": "trace", "trace_id": trace_id, "gone": True}
            if told.version == whole.version:
                return None
            first, changed = followed.since(told.version)
            told.version = whole.version
            return {
                "type": "trace",
                "trace_id": trace_id,
                "version": whole.version,
                "skeleton": skeleton(whole, first, followed.numbering, changed),
                "changed": [mark(whole, index, followed.numbering.parent[index]) for index in changed],
                "summary": whole.summary,
            }

    def _of(self, trace_id: str) -> Followed:
        with self._lock:
            followed = self._traces.setdefault(trace_id, Followed(trace_id))
            self._traces.move_to_end(trace_id)
            while len(self._traces) > 1 and self._are_too_many():
                self._traces.popitem(last=False)
            return followed

    def _are_too_many(self) -> bool:
        return len(self._traces) > MOST_TRACES or sum(each.size for each in self._traces.values()) > MOST_SPANS


class Followed:
    """One trace. Its methods want `lock`."""

    def __init__(self, trace_id: str) -> None:
        self.lock = threading.Lock()
        self.numbering = Numbering()
        self._trace_id = trace_id
        self._whole: Whole | None = None
        self._arrivals = -1
        """`Order.changes` as they were."""
        self._origins: dict[tuple[bytes, bytes, str, str], int] = {}
        self._logs: set[LogRow] = set()
        self._counts: list[tuple[int, int]] = []
        """Version, and how many spans there were then."""
        self._changes: list[tuple[int, int]] = []
        """Version, and a span that changed with it."""

    @property
    def size(self) -> int:
        """Spans."""
        return len(self.numbering.parent)

    def refreshed(self, view: View) -> Whole | None:
        """The trace as it is now; `None` when it is unknown. It is for who holds the lock: the lists in it grow."""
        key = bytes.fromhex(self._trace_id)
        notices = view.live.open.of(key)  # first: what ends in between is then in both, not in none
        order = view.live.open.order_of(key)
        before = self._whole
        is_as_before = before is not None and before.order == (order.number if order is not None else 0)
        since = before.stored_version if before is not None and is_as_before else 0
        arrived = view.store.spans_of(self._trace_id, messages=False, since=since)
        if arrived is None or not arrived.since:
            self._take(view.joined(notices, order, arrived), order)
        elif before is None or not self._add(view, before, arrived, notices, order):
            self._take(view.whole(self._trace_id, messages=False), view.live.open.order_of(key))
        return self._whole

    def since(self, version: int) -> tuple[int, list[int]]:
        """How many spans there were at a version, and which of them changed since; none where it is not remembered."""
        at = bisect_left(self._counts, (version,))
        if at == len(self._counts) or self._counts[at][0] != version:
            return 0, []
        count = self._counts[at][1]
        later = itertools.islice(self._changes, bisect_left(self._changes, (version + 1,)), None)
        return count, sorted({index for _, index in later if index < count})

    # ── what arrived ────────────────────────────────────────────────────────────────────────────────────────

    def _add(
        self, view: View, before: Whole, arrived: TraceSpans, notices: list[OpenSpan], order: Order | None
    ) -> bool:
        """Add what arrived and what is open now. False where that does not tell what there is: then nothing was added."""
        new, replaced = self._sorted(before, arrived)
        fresh = self._fresh(before, notices, new, replaced)
        ended = sum(index in before.heard for index in replaced)
        if fresh is None or before.stored_spans + len(new) + ended != arrived.summary.spans:
            return False
        told = {*replaced, *self._place_notices(before, fresh, new)}
        for index, row in replaced.items():
            before.rows[index] = row
            self.numbering.number(row)
        known = order.places if order is not None else {}
        before.rows.extend(sorted(new.values(), key=lambda row: known.get(row.span_id, len(known))))
        told.update(self._place_logs(before, arrived))
        told.update(self.numbering.extend(before))
        whole = self._as_it_is(view, before, arrived, fresh)
        told.update(whole.lost ^ before.lost, whole.interrupted ^ before.interrupted)
        changes = order.changes if order is not None else 0
        is_news = arrived.version != before.stored_version or changes != self._arrivals
        self._arrivals = changes
        self._keep(whole, before.version, told, is_news=is_news)
        return True

    def _as_it_is(self, view: View, before: Whole, arrived: TraceSpans, fresh: list[OpenSpan]) -> Whole:
        open_at = {self.numbering.places[notice.row.span_id]: notice for notice in fresh}
        return msgspec.structs.replace(
            before,
            summary=view.with_open(arrived.summary, fresh),
            stored_version=arrived.version,
            stored_spans=arrived.summary.spans,
            heard={index: notice.heard_ns for index, notice in open_at.items()},
            lost=frozenset(index for index, notice in open_at.items() if view.live.open.is_lost(notice)),
            interrupted=frozenset(index for index, notice in open_at.items() if view.is_interrupted(notice)),
        )

    def _sorted(self, before: Whole, arrived: TraceSpans) -> tuple[dict[bytes, SpanRow], dict[int, SpanRow]]:
        """The spans that are new, and the heavier versions of those that are known."""
        new: dict[bytes, SpanRow] = {}
        replaced: dict[int, SpanRow] = {}
        for row in arrived.rows:
            row = row._replace(origin=self._origin(before, arrived.origins[row.origin]))
            index = self.numbering.places.get(row.span_id)
            if index is None:
                new[row.span_id] = row
            elif index in before.heard or weight(row) >= weight(before.rows[index]):
                replaced[index] = row
        return new, replaced

    def _fresh(
        self, before: Whole, notices: list[OpenSpan], new: dict[bytes, SpanRow], replaced: dict[int, SpanRow]
    ) -> list[OpenSpan] | None:
        """The notices of spans that have not ended; None where something else happened than spans that begin and end."""
        fresh = []
        for notice in notices:
            span_id = notice.row.span_id
            index = self.numbering.places.get(span_id)
            stored = new.get(span_id) if index is None else replaced.get(index)
            if stored is not None and stored.end_ns:
                continue
            if stored is not None or (index is not None and index not in before.heard):
                return None  # the store has it without an end, or as ended
            if index is not None and notice.row.parent_id != before.rows[index].parent_id:
                return None
            fresh.append(notice)
        still_open = {notice.row.span_id for notice in fresh}
        is_gone = any(index not in replaced and before.rows[index].span_id not in still_open for index in before.heard)
        is_other = any(
            row.parent_id != before.rows[index].parent_id or (index in before.heard and not row.end_ns)
            for index, row in replaced.items()
        )
        return None if is_gone or is_other else fresh

    def _place_notices(self, before: Whole, fresh: list[OpenSpan], new: dict[bytes, SpanRow]) -> Iterator[int]:
        """Gives the known spans of which a notice says something else; those that are not known are put among the new."""
        for notice in fresh:
            row = notice.row._replace(origin=self._origin(before, notice.origin))
            index = self.numbering.places.get(row.span_id)
            if index is None:
                new[row.span_id] = row
                continue
            if (row.status, row.facts.ending) != (before.rows[index].status, before.rows[index].facts.ending):
                yield index
            before.rows[index] = row

    def _place_logs(self, before: Whole, arrived: TraceSpans) -> Iterator[int]:
        """Gives the spans that have log records now which they had not."""
        for log in arrived.logs:
            placed = log._replace(origin=self._origin(before, arrived.origins[log.origin]))
            if placed not in self._logs:
                self._logs.add(placed)
                before.logs.append(placed)
                index = self.numbering.places.get(placed.span_id)
                if index is not None and index < self.size:
                    yield index

    def _origin(self, whole: Whole, origin: Origin) -> int:
        number = self._origins.setdefault(origin.key, len(whole.origins))
        if number == len(whole.origins):
            whole.origins.append(origin)
        return number

    # ── everything ──────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, whole: Whole | None, order: Order | None) -> None:
        """All of it. What is told of it is what has changed, as long as its spans are in the same places."""
        before, numbering = self._whole, self.numbering
        self.numbering = Numbering()
        self._whole = None
        if whole is None:
            self._counts, self._changes = [], []
            return
        is_longer = before is not None and _begins_like(whole, before)
        if is_longer:
            self.numbering.keep_texts(numbering)
        self.numbering.extend(whole)
        self._arrivals = order.changes if order is not None else 0
        self._origins = {}
        for number, origin in enumerate(whole.origins):
            self._origins.setdefault(origin.key, number)
        self._logs = set(whole.logs)
        if before is None or not is_longer:
            self._counts, self._changes = [], []
            self._keep(whole, 0, set(), is_news=True)
            return
        old, new = numbering.parent, self.numbering.parent
        changed = {
            index
            for index, row in enumerate(before.rows)
            if numbering.logs[row.span_id] != self.numbering.logs[row.span_id]
        }
        changed |= {
            index for index in range(len(old)) if mark(before, index, old[index]) != mark(whole, index, new[index])
        }
        self._keep(whole, before.version, changed, is_news=len(old) != len(new) or whole.summary != before.summary)

    def _keep(self, whole: Whole, version: int, changed: set[int], *, is_news: bool) -> None:
        """As it is now, under a new version if there is anything new."""
        if is_news or changed:
            version = next(_versions)
            self._counts.append((version, len(whole.rows)))
            self._changes += [(version, index) for index in sorted(changed)]
            if len(self._changes) + len(self._counts) > LONGEST_JOURNAL:
                self._counts = self._counts[-1:]
                self._changes = []
        self._whole = msgspec.structs.replace(whole, version=version)


def _begins_like(whole: Whole, before: Whole) -> bool:
    """Whether each span of `before` is where it was."""
    if whole.order != before.order or len(whole.rows) < len(before.rows):
        return False
    return all(now.span_id == then.span_id for now, then in zip(whole.rows, before.rows, strict=False))
