"""Spans that have begun and not ended, as far as their senders told: in memory only.

    notice ──▶ open ── no notice for 15 s ──▶ lost ── notice ──▶ open
    heard by an earlier collector, and not since ──▶ interrupted ── notice ──▶ open
                 └──────── ended, deleted, one too many ─────────┴──▶ forgotten

Promises:

- A span that ended is never open again, whatever notice comes late.
- A trace of which a notice came has an order of its spans that only grows, until it is forgotten: see `Order`.
- What is kept is bounded: by the number of spans and their bytes, the oldest go first.
- Safe from any thread.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from .._rows import Origin, SpanRow
from ..store import StoreError

__all__ = ["LOST_AFTER", "OpenSpan", "OpenSpans", "Order"]

LOST_AFTER: Final = 15.0
"""Seconds: three times the interval at which senders repeat themselves."""
MOST_SPANS: Final = 20_000
MOST_BYTES: Final = 32 * 1024 * 1024
"""Of the messages of open spans."""
MOST_TRACES: Final = 1000
"""Traces whose order is kept."""
MOST_ORDERED: Final = 500_000
"""Spans in all these orders."""
SHORTEST: Final = 150_000_000
"""Nanoseconds: senders tell of spans that are older than 200 ms, so no notice can follow the end of a shorter one."""
MOST_ENDED: Final = 20_000

SpanKey = tuple[bytes, bytes]


class OpenSpan(NamedTuple):
    """The last notice of a span."""

    row: SpanRow
    origin: Origin
    heard: float
    """Monotonic seconds; minus infinity: by an earlier collector."""
    heard_ns: int
    """Nanoseconds since the Unix epoch."""


class Order:
    """The spans of one trace in the order in which this collector first heard of them."""

    __slots__ = ("changes", "number", "places")
    _numbers = itertools.count(1)

    def __init__(self, known: Iterable[bytes]) -> None:
        self.places: dict[bytes, int] = {}
        self.number = next(self._numbers)
        """Never given twice by one collector; 0 means the order of the store."""
        self.changes = 0
        for span_id in known:
            self.add(span_id)

    def add(self, span_id: bytes) -> None:
        """Give it a place, if it has none."""
        self.places.setdefault(span_id, len(self.places))


class OpenSpans:
    """`known_spans` is asked once for each trace: the ids of its spans that are stored, in their order."""

    def __init__(
        self,
        known_spans: Callable[[bytes], Iterable[bytes]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        time_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._known_spans = known_spans
        self._monotonic, self._time_ns = monotonic, time_ns
        self._lock = threading.RLock()
        self._spans: OrderedDict[SpanKey, OpenSpan] = OrderedDict()
        self._of_trace: dict[bytes, dict[bytes, None]] = {}
        self._orders: OrderedDict[bytes, Order] = OrderedDict()
        self._ordered = self._bytes = 0
        self._ended: OrderedDict[SpanKey, None] = OrderedDict()
        self._told_lost: set[SpanKey] = set()
        self.changes = 0
        """Grows when a span comes or goes; a repeated notice is no change."""

    # What comes --------------------------------------------------------------------------------------------------

    def heard(self, row: SpanRow, origin: Origin) -> None:
        """A notice."""
        with self._lock:
            if (row.trace_id, row.span_id) not in self._ended:
                self._keep(OpenSpan(row, origin, self._monotonic(), self._time_ns()))

    def ended(self, rows: Iterable[SpanRow]) -> None:
        """Ended spans were stored. Where no notice is known, nothing is to be done for the short ones."""
        with self._lock:
            if not self._spans and not self._orders:
                rows = [row for row in rows if _may_have_been_told_of(row)]
            for row in rows:
                key = (row.trace_id, row.span_id)
                self._forget(key)
                order = self._orders.get(row.trace_id)
                if order is not None:
                    self._place(order, row.span_id)
                if _may_have_been_told_of(row):
                    self._ended[key] = None
                    if len(self._ended) > MOST_ENDED:
                        self._ended.popitem(last=False)

    def forget_trace(self, trace_id: bytes) -> None:
        """It was deleted."""
        with self._lock:
            for span_id in list(self._of_trace.get(trace_id, ())):
                self._forget((trace_id, span_id))
            self._drop_order(trace_id)

    def restore(self, spans: Iterable[OpenSpan], *, is_running: bool = False) -> None:
        """What another collector heard: lost, until it is heard again; or, of one that is running, as old as it is."""
        with self._lock:
            for span in spans:
                ago = (self._time_ns() - span.heard_ns) / 1e9 if is_running else float("inf")
                self._keep(span._replace(heard=self._monotonic() - ago))

    # What can be asked -------------------------------------------------------------------------------------------

    def of(self, trace_id: bytes) -> list[OpenSpan]:
        """The open and lost spans of a trace."""
        with self._lock:
            return [self._spans[trace_id, span_id] for span_id in self._of_trace.get(trace_id, ())]

    def order_of(self, trace_id: bytes) -> Order | None:
        """Its order, if a notice of the trace came."""
        with self._lock:
            return self._orders.get(trace_id)

    def traces(self) -> list[bytes]:
        """The traces that have open or lost spans, the latest first."""
        with self._lock:
            return list(reversed(self._of_trace))

    def __len__(self) -> int:
        return len(self._spans)

    def everything(self) -> list[OpenSpan]:
        """For a snapshot."""
        with self._lock:
            return list(self._spans.values())

    def is_lost(self, span: OpenSpan) -> bool:
        """Whether its sender has been silent for too long."""
        return self._monotonic() - span.heard > LOST_AFTER

    def ending_of(self, span: OpenSpan) -> str:
        """`open`; `lost`; or `interrupted`: nobody has been heard of it since this collector began."""
        if not self.is_lost(span):
            return "open"
        return "interrupted" if span.heard == float("-inf") else "lost"

    def newly_lost(self) -> set[bytes]:
        """Traces with a span that became lost since the last call."""
        with self._lock:
            lost = {key for key, span in self._spans.items() if self.is_lost(span)}
            news = {trace_id for trace_id, _ in lost - self._told_lost}
            self._told_lost = lost
            for trace_id in news:
                self._changed(trace_id)
            return news

    # Below the lock ----------------------------------------------------------------------------------------------

    def _keep(self, span: OpenSpan) -> None:
        row = span.row
        key = (row.trace_id, row.span_id)
        before = self._spans.get(key)
        self._spans[key] = span
        self._spans.move_to_end(key)
        self._bytes += len(row.message) - (len(before.row.message) if before is not None else 0)
        if before is None:
            self._of_trace.setdefault(row.trace_id, {})[row.span_id] = None
            self.changes += 1
        self._place(self._order(row.trace_id), row.span_id)
        self._changed(row.trace_id)
        while len(self._spans) > MOST_SPANS or (self._bytes > MOST_BYTES and len(self._spans) > 1):
            self._forget(next(iter(self._spans)))

    def _forget(self, key: SpanKey) -> None:
        span = self._spans.pop(key, None)
        if span is None:
            return
        self._bytes -= len(span.row.message)
        self._told_lost.discard(key)
        trace_id, span_id = key
        del self._of_trace[trace_id][span_id]
        if not self._of_trace[trace_id]:
            del self._of_trace[trace_id]
        self.changes += 1
        self._changed(trace_id)

    def _changed(self, trace_id: bytes) -> None:
        order = self._orders.get(trace_id)
        if order is not None:
            order.changes += 1

    def _order(self, trace_id: bytes) -> Order:
        order = self._orders.get(trace_id)
        if order is None:
            order = self._orders[trace_id] = Order(self._stored(trace_id))
            self._ordered += len(order.places)
        self._orders.move_to_end(trace_id)
        while len(self._orders) > MOST_TRACES or (self._ordered > MOST_ORDERED and len(self._orders) > 1):
            self._drop_order(next(iter(self._orders)))
        return order

    def _stored(self, trace_id: bytes) -> Iterable[bytes]:
        try:
            return self._known_spans(trace_id)
        except StoreError:  # what was committed is committed: the order then begins with this notice
            return ()

    def _place(self, order: Order, span_id: bytes) -> None:
        before = len(order.places)
        order.add(span_id)
        self._ordered += len(order.places) - before

    def _drop_order(self, trace_id: bytes) -> None:
        order = self._orders.pop(trace_id, None)
        self._ordered -= 0 if order is None else len(order.places)


def _may_have_been_told_of(row: SpanRow) -> bool:
    return not row.end_ns or row.end_ns - row.start_ns >= SHORTEST
