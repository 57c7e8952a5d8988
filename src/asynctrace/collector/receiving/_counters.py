"""What came to the collector and what became of it, since it started.

Promises: each number only grows, but those that say how much there is *now*; the labels are of a fixed set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from .._rows import Received
from ._signals import Signal

__all__ = ["Counters", "CountersNow"]

PREFIX = "asynctrace_collector"
STATUSES = {
    200: "accepted",
    400: "malformed",
    413: "too_large",
    415: "unsupported",
    429: "throttled",
    500: "defect",
    503: "behind",
}
"""How an answer's status is called in the counters."""


class CountersNow(msgspec.Struct, frozen=True, kw_only=True):
    """The counters at one moment."""

    requests: dict[str, int]
    """Answered, as `traces_accepted`, `logs_malformed`, …"""
    bytes: int
    """Of bodies, as they were sent."""
    spans: int
    """Accepted, of those that came again too."""
    notices: int
    """Of open spans."""
    logs: int
    rejected: int
    """Spans and log records of good requests that could not be taken."""
    ignored: int
    """Log records without a trace, and requests with metrics."""
    commits: int
    waiting: int
    """Spans and log records that wait for a commit now."""


class Counters:
    """Counted by the event loop, but `commits` and `waiting`, which the writer counts."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str]] = Counter()
        self._bytes = self._spans = self._notices = self._logs = self._rejected = self._ignored = 0
        self.commits = 0
        self.waiting = 0

    def read(self, size: int) -> None:
        """A body was read."""
        self._bytes += size

    def took(self, received: Received, ignored: int) -> None:
        """A request was committed."""
        notices = sum(row.facts.is_open for row in received.rows) if received.key is None else 0
        self._spans += len(received.rows) - notices
        self._notices += notices
        self._logs += len(received.logs)
        self._rejected += received.rejected
        self._ignored += ignored

    def answered(self, signal: Signal, status: int) -> None:
        """A request was answered."""
        self._requests[signal.value, STATUSES[status]] += 1
        self._ignored += signal is Signal.METRICS

    def now(self) -> CountersNow:
        """All of them."""
        return CountersNow(
            requests={f"{signal}_{outcome}": count for (signal, outcome), count in sorted(self._requests.items())},
            bytes=self._bytes,
            spans=self._spans,
            notices=self._notices,
            logs=self._logs,
            rejected=self._rejected,
            ignored=self._ignored,
            commits=self.commits,
            waiting=self.waiting,
        )

    def text(self) -> str:
        """In the text format of Prometheus, version 0.0.4."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"# TYPE {PREFIX}_requests_total counter"
        for (signal, outcome), count in sorted(self._requests.items()):
            yield f'{PREFIX}_requests_total{{signal="{signal}",outcome="{outcome}"}} {count}'
        now = self.now()
        for name in ("bytes", "spans", "notices", "logs", "rejected", "ignored", "commits"):
            yield f"# TYPE {PREFIX}_{name}_total counter"
            yield f"{PREFIX}_{name}_total {getattr(now, name)}"
        yield f"# TYPE {PREFIX}_waiting gauge"
        yield f"{PREFIX}_waiting {now.waiting}"
