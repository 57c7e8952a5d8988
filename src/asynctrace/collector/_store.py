"""Where spans rest: the protocol that every store follows, and the values it answers with.

Promises of a store:

- `add()` returns after the commit; what it took over survives the death of the process.
- A span is known by (trace id, span id). One that arrives twice counts once, in whatever order its versions
  arrive: an ended version beats one that a later process closed as `lost`, that one beats an open one, and among
  equals the later end, then the later arrival, wins.
- A request is known by its key: `add()` keeps the keys with the spans, in one commit, for a week at least unless
  100,000 others came; `has()` is true for a request, or a part of one, whose records were all added under a key.
- Reading never waits for writing.
- Every failure of the storage itself is a `StoreError` whose message names the file and what to do.

`add()` takes and `trace()` gives the same thing, the groups of an OTLP request, so a trace that is read can
be added to another store as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from .._contracts import Ending, Span
from .._errors import AsynctraceError

if TYPE_CHECKING:
    from ..wire import ResourceSpans
    from ._keys import RequestKey

__all__ = ["LARGEST", "RunPage", "RunSummary", "Store", "StoreError", "StoreReader", "StoreStatistics", "weight_of"]

LARGEST = 2**63 - 1
"""The largest integer of the databases. OTLP times are unsigned 64 bit; a larger one is cut in the columns only."""


class StoreError(AsynctraceError):
    """The store cannot be opened, read or written. The message names it and shows a way out."""


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list of traces."""

    trace_id: str
    """32 lower-case hex digits."""
    short_id: str
    """The shortest beginning of `trace_id`, at least 8 digits, that no other trace of the store has."""
    name: str
    """Of the root span; of the earliest span while the root has not arrived."""
    service: str
    """`service.name` of the resource that sent the span which gave the name."""
    start_ns: int
    """Earliest start, nanoseconds since the Unix epoch."""
    end_ns: int
    """Latest end; 0 when no span has ended."""
    duration: float | None
    """Seconds between the two; `None` while a span is open."""
    spans: int
    errors: int
    """Spans with status ERROR."""
    open: int
    """Spans without an end."""
    ending: str
    """How the span that gave the name ended (`ok`, `error`, `timeout`, …); `open` while it has not."""


class RunPage(msgspec.Struct, frozen=True, kw_only=True):
    """Traces, newest start first."""

    traces: tuple[RunSummary, ...]
    cursor: str | None
    """Give it to `runs()` for the next page; `None`: this was the last one."""


class StoreStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a store holds at this moment."""

    traces: int
    spans: int
    open: int
    """Spans without an end."""


def weight_of(span: Span) -> tuple[int, int]:
    """Of two versions of one span the heavier stays: open, closed as lost by a later process, ended; then by the end.

    A process may die after a span ended and before that was written down where its successor looks: the time of its
    last heartbeat, at which the successor lets the span end, may be later than the end itself.
    """
    if not span.end_ns:
        return (0, 0)
    return (1 if span.ending == Ending.LOST.value else 2, min(span.end_ns, LARGEST))


class StoreReader(Protocol):
    """The reading half. Safe from any thread."""

    def runs(self, limit: int, cursor: str | None = None) -> RunPage:
        """At most `limit` traces that come after `cursor`. `ValueError` for a cursor that no store gave."""
        ...

    def trace(self, trace_id: str) -> list[ResourceSpans]:
        """All spans of a trace (32 hex digits), by resource and scope; empty when it is unknown."""
        ...

    def find(self, prefix: str, limit: int = 10) -> list[str]:
        """At most `limit` trace ids that begin with `prefix` (hex digits, else `ValueError`), in order."""
        ...

    def statistics(self) -> StoreStatistics:
        """Count what is there."""
        ...


class Store(StoreReader, Protocol):
    """Both halves. One process writes to a store at a time."""

    def add(self, groups: Sequence[ResourceSpans], keys: Sequence[RequestKey] = ()) -> None:
        """Take over the spans of `groups`, which came under `keys`; all of it is committed when it returns, nothing
        when it raises."""
        ...

    def has(self, key: RequestKey) -> bool:
        """Whether all records of `key` were added before, under it or under others of the same log."""
        ...

    def close(self) -> None:
        """Give the storage back. Idempotent."""
        ...
