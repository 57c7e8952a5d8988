"""How fast a lane goes: the size of its batches and how many are under way follow the far side's latency and the loop's lag.

    spans come faster than batches leave     batches double, up to `batch_spans_most`; with calm they fall back to what waits
    the far side takes long to answer        spans pile up meanwhile, so the same; and no back-off ends before it
    the loop is late                         batches double as well; while one is under way, only a full one follows

A request costs the loop the same 0.5 ms whether it carries ten spans or ten thousand. Nothing here reads a clock.
"""

from __future__ import annotations

from ._options import DeliveryOptions

__all__ = ["Lag", "Pace"]

_QUICK_SUCCESSION = 0.02
"""Seconds between two full batches below which they are too small: 50 requests a second cost little, 500 do."""

_LATE = 0.02
"""Seconds of lag from which on the loop has too much to do. Exporters hold it for 2 ms at most."""

_PATIENCE = 4
"""A late loop lets spans linger so many times longer while a request is under way, and no longer if that one hangs."""


class Lag:
    """How late things run on a loop: half of the last look, a quarter of the one before, and so on. `seconds` each."""

    _MOST = 1.0
    """A loop that stood still for an hour is no later than one that stood still for a second."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def note(self, late: float) -> None:
        """Something ran `late` seconds after it should have."""
        self.seconds = (self.seconds + min(max(late, 0.0), self._MOST)) / 2


class Pace:
    """The pace of one lane; `latency`, `usual_latency` and `lag` are seconds."""

    def __init__(self, options: DeliveryOptions) -> None:
        self._options = options
        self._most_spans = max(options.batch_spans, options.batch_spans_most)
        self.batch_spans = options.batch_spans
        self.batch_bytes = options.batch_bytes
        self.latency = 0.0
        self.usual_latency = 0.0
        self.lag = 0.0
        self._cut_at = 0.0

    def answered(self, latency: float, *, settled: bool) -> None:
        """A request was answered. Only where its spans were taken or refused for good that is how long answers take."""
        self.latency = latency
        if settled:
            self.usual_latency += (latency - self.usual_latency) / 4

    def adapt(self, now: float, waiting: int) -> None:
        """`waiting` spans are about to be cut: choose the size. Larger batches cost less a span."""
        is_quick = now - self._cut_at < _QUICK_SUCCESSION or self.lag > _LATE
        self._cut_at = now
        if waiting >= (self.batch_spans if is_quick else 2 * self.batch_spans):
            self.batch_spans = min(self._most_spans, self.batch_spans * 2)
        elif waiting < self.batch_spans:
            self.batch_spans = max(self._options.batch_spans, waiting)

    def fitted(self, count: int, waiting: int) -> None:
        """Of `waiting` spans `count` made a batch. Where the bytes were the limit, waiting for more spans is in vain."""
        if count < min(waiting, self.batch_spans):
            self.batch_spans = max(self._options.batch_spans, count)

    def longest_linger(self, in_flight: int) -> float:
        """Seconds that a span may wait for others."""
        return self._options.linger * (_PATIENCE if self.is_held_back(in_flight) else 1)

    def is_held_back(self, in_flight: int) -> bool:
        """The loop is late and busy with us already: only a full batch is worth a further request."""
        return in_flight > 0 and self.lag > _LATE

    def is_full(self, waiting: int, size: int, in_flight: int) -> bool:
        """So many spans of `size` bytes need not linger."""
        return size >= self.batch_bytes or waiting >= self.wanted(in_flight)

    def wanted(self, in_flight: int) -> int:
        """The number of spans that makes a batch."""
        return self._most_spans if self.is_held_back(in_flight) else self.batch_spans

    def backoff_bound(self, failures: int) -> float:
        """Seconds: the far side gets at least the time that it usually takes for an answer."""
        doubled = self._options.backoff_initial * 2.0 ** min(failures - 1, 30)
        return min(self._options.backoff_max, max(doubled, self.usual_latency))
