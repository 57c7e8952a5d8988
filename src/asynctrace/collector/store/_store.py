"""Where spans rest: the protocol that every store follows, and the values it answers with.

Promises of a store:

- `add()` returns after the commit; what it took over survives the death of the process.
- A span is known by (trace id, span id). One that arrives twice counts once, in whatever order its versions
  arrive: an ended version beats one that a later process closed as `lost`, that one beats an open one, and among
  equals the later end, then the later arrival, wins. A span keeps its place in the order of first arrival.
- A request is known by its key: `add()` keeps the keys, never before the spans, for a week at least unless
  100,000 others came; `has()` is true for a request, or a part of one, whose records were all added under a key.
- Notices of open spans (`Facts.is_open`) are passed over: they are kept elsewhere, in memory.
- Reading never waits for writing, and never sees half a group of one `add()`.
- A page follows the one before without gap or overlap, whatever is added meanwhile.
- What lies within the bounds stays; a pinned trace stays until it is unpinned or deleted.
- Every failure of the storage itself is a `StoreError` whose message names the file and what to do. What the failure
  does not touch can still be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from ..._errors import AsynctraceError

if TYPE_CHECKING:
    from ...wire import ResourceSpans
    from .._keys import RequestKey
    from .._rows import LogRow, Origin, Received, SpanRow
    from ..query import Query

__all__ = [
    "LARGEST",
    "Bounds",
    "Group",
    "RunPage",
    "RunSummary",
    "SessionPage",
    "SessionSummary",
    "SpanStatistics",
    "Store",
    "StoreError",
    "StoreReader",
    "StoreStatistics",
    "Swept",
    "TimePoint",
    "TraceSpans",
    "ValueCount",
]

LARGEST = 2**63 - 1
"""The largest integer of the databases. OTLP times are unsigned 64 bit; a larger one is cut in the columns only."""


class StoreError(AsynctraceError):
    """The store cannot be opened, read or written. The message names it and shows a way out."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much a store keeps. What is pinned counts, and stays."""

    size: int | None = None
    """Bytes on disk; the oldest goes first."""
    age: float | None = None
    """Seconds since a trace arrived."""


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
    lost: int = 0
    """Spans that ended as `lost`."""
    late: int = 0
    """Spans that arrived more than ten seconds after the root had."""
    dropped: int = 0
    """Spans that senders say they dropped."""
    has_root: bool = True
    type: str = ""
    model: str = ""
    """Of the first span that names one, as `session` and `user`."""
    session: str = ""
    user: str = ""
    input: str = ""
    output: str = ""
    """Previews, of the span that gave the name; of the first span that has one where that has none."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    """Plain sums over the spans."""
    pinned: bool = False


class RunPage(msgspec.Struct, frozen=True, kw_only=True):
    """Traces, newest start first."""

    traces: tuple[RunSummary, ...]
    cursor: str | None
    """Give it to the same call for the next page; `None`: this was the last one."""
    scanned: int | None = None
    """Spans that were read one by one for this page; `None` where an index answered."""


class TraceSpans(msgspec.Struct, frozen=True, kw_only=True):
    """The latest version of every span of a trace, in order of first arrival, and its logs, by time."""

    summary: RunSummary
    origins: list[Origin]
    rows: list[SpanRow]
    """`Facts` without search tokens and previews; without messages where they were not asked for."""
    logs: list[LogRow]
    version: int
    """Grows with everything that arrives for the trace."""
    since: int = 0
    """0: this is all of it. Else `rows` and `logs` are what arrived after that version, and `origins` what they need."""


class ValueCount(msgspec.Struct, frozen=True):
    """A value and how many spans (traces, for what a trace has) have it, at least."""

    value: str
    count: int


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Spans with the same name, service, model or type. Durations are seconds, right to one part in sixteen."""

    key: str
    count: int
    errors: int
    p50: float
    p95: float
    p99: float
    input_tokens: int
    output_tokens: int
    cost: float


class TimePoint(msgspec.Struct, frozen=True, kw_only=True):
    """All spans that started within `step` seconds from `t` (seconds since the Unix epoch)."""

    t: int
    count: int
    errors: int
    p50: float
    p95: float
    p99: float


class SpanStatistics(msgspec.Struct, frozen=True, kw_only=True):
    rows: tuple[Group, ...]
    """The most frequent first."""
    series: tuple[TimePoint, ...]
    counted_since_ns: int = 0
    """0: everything is counted. Else the time was up: traces that started before were not read."""


class SessionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The traces of one session, as far as a query wants them."""

    session: str
    user: str
    traces: int
    spans: int
    errors: int
    first_ns: int
    last_ns: int
    """Start of the latest trace."""
    input_tokens: int
    output_tokens: int
    cost: float
    last_input: str
    open: int = 0
    """Spans without an end."""


class SessionPage(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions, the one with the latest trace first."""

    sessions: tuple[SessionSummary, ...]
    cursor: str | None
    counted_since_ns: int = 0
    """As that of `SpanStatistics`."""


class StoreStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a store holds at this moment."""

    traces: int
    spans: int
    open: int
    """Spans without an end."""
    size: int = 0
    """Bytes on disk."""
    segments: int = 0
    pinned: int = 0
    """Traces."""
    oldest_ns: int = 0
    """Earliest start; 0 for an empty store."""
    unreadable: tuple[str, ...] = ()
    """What cannot be read, each with the reason and a way out; the rest of the store goes on."""


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """What a sweep took away."""

    segments: int = 0
    traces: int = 0
    spans: int = 0
    size: int = 0


class StoreReader(Protocol):
    """The reading half. Safe from any thread."""

    def runs(self, limit: int, cursor: str | None = None) -> RunPage:
        """At most `limit` traces that come after `cursor`. `ValueError` for a cursor that no store gave."""
        ...

    def search(self, query: Query, limit: int, cursor: str | None = None) -> RunPage:
        """As `runs`, of the traces that `query` wants. A page that an index cannot answer ends after about a second: it may
        have fewer traces, even none, and a cursor to go on from."""
        ...

    def summary(self, trace_id: str) -> RunSummary | None:
        """The line of one trace; `None` when it is unknown."""
        ...

    def spans_of(self, trace_id: str, *, messages: bool = True, since: int = 0) -> TraceSpans | None:
        """Everything of a trace; `None` when it is unknown. Without `messages` it costs a tenth.

        With `since`, a version that an answer had before: only what arrived after it, where the store can tell (then
        `TraceSpans.since` says so), a span perhaps in a lighter version than was there; else everything.
        """
        ...

    def span_of(self, trace_id: str, span_id: str) -> TraceSpans | None:
        """As `spans_of`, with one span and its logs only; `None` when there is no such span."""
        ...

    def trace(self, trace_id: str) -> list[ResourceSpans]:
        """All spans of a trace (32 hex digits), decoded, by resource and scope; empty when it is unknown."""
        ...

    def find(self, prefix: str, limit: int = 10) -> list[str]:
        """At most `limit` trace ids that begin with `prefix` (hex digits, else `ValueError`), in order."""
        ...

    def values(self, key: str, prefix: str = "", limit: int = 20) -> list[ValueCount]:
        """Values of `key` that begin with `prefix`, the most frequent first; an empty `key` asks for the known keys.

        `name`, `service`, `type`, `model`, `status`, `session` and `user` are what a span or trace has; any other key is an
        attribute's, of which a sample of the latest spans is read.
        """
        ...

    def stats(
        self,
        by: str = "name",
        *,
        step: int = 60,
        since_ns: int = 0,
        until_ns: int = LARGEST,
        limit: int = 1000,
        query: Query | None = None,
    ) -> SpanStatistics:
        """Counts, percentiles and sums by `name`, `service`, `model` or `type` (`ValueError` for another), and all spans by
        time; `step` seconds, a multiple of 60. Spans count that started between the two minutes.

        With a `query`: of the traces that satisfy its terms of a trace, the spans that satisfy its terms of a span.
        """
        ...

    def sessions(self, limit: int, cursor: str | None = None, *, query: Query | None = None) -> SessionPage:
        """At most `limit` sessions after `cursor`; with a `query`, those of the traces that `search()` finds, and these
        traces only are summed up."""
        ...

    def statistics(self) -> StoreStatistics:
        """Count what is there."""
        ...


class Store(StoreReader, Protocol):
    """Both halves. One process writes to a store at a time."""

    def add(self, received: Sequence[Received], *, token: str = "") -> None:
        """Take over the rows and logs of `received` under their keys; all of it is committed when it returns, nothing
        of it when it raises. `token` names exactly this batch: a batch that comes again has the same."""
        ...

    def has(self, key: RequestKey) -> bool:
        """Whether all records of `key` were added before, under it or under others of the same log."""
        ...

    def pin(self, trace_id: str) -> bool:
        """Keep a trace beyond the bounds. False when it is unknown."""
        ...

    def unpin(self, trace_id: str) -> bool:
        """Let the bounds hold for it again. False when it was not pinned."""
        ...

    def delete(self, trace_id: str) -> bool:
        """Take a trace away. False when it is unknown. Spans of it that come later begin it anew."""
        ...

    def sweep(self) -> Swept:
        """Take away what is beyond the bounds, and tell what went since the last time."""
        ...

    def close(self) -> None:
        """Give the storage back. Idempotent."""
        ...
