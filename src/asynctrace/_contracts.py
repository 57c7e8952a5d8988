"""What the stages say to one another. Read this file first.

    tracing ── SpanSink.append_nowait(record) ─▶ span log ── Batch ─▶ Exporter.export() ── ExportResult ─▶ lane

- A *record* is one encoded field-2 entry of an OTLP `ScopeSpans`: `0x12`, a varint length, a `Span` message.
  Records laid end to end are therefore the body of an export request.
- A *batch* is consecutive records; an exporter answers it with an `ExportResult` and never retries by itself.
- A *receipt* is the balance `ended = accepted + rejected + dropped + spooled + pending`.

This module imports nothing of asynctrace but its errors.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, Union, runtime_checkable

import msgspec

from ._errors import SpansLost

__all__ = [
    # spans as values
    "AttributeValue",
    "Ending",
    "Event",
    "Link",
    "Scope",
    "Resource",
    "Span",
    "SpanKind",
    "StatusCode",
    # stages
    "Batch",
    "Clock",
    "Exporter",
    "ExportResult",
    "IdSource",
    "OpenSpan",
    "OpenSpanNotes",
    "Outcome",
    "SpanSink",
    "MOST_NOTED",
    # books
    "LaneReceipt",
    "Receipt",
]

AttributeValue: TypeAlias = Union[  # noqa: UP007  (it names itself, as a text, and `|` takes no texts)
    bool, int, float, str, bytes, Sequence["AttributeValue"], Mapping[str, "AttributeValue"], None
]
"""What OTLP's `AnyValue` can carry (opentelemetry/proto/common/v1/common.proto)."""


class SpanKind(enum.IntEnum):
    """`Span.SpanKind` of opentelemetry/proto/trace/v1/trace.proto."""

    UNSPECIFIED = 0
    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4
    CONSUMER = 5


class StatusCode(enum.IntEnum):
    """`Status.StatusCode` of opentelemetry/proto/trace/v1/trace.proto."""

    UNSET = 0
    OK = 1
    ERROR = 2


class Ending(enum.StrEnum):
    """How a component ended; on the wire the attribute `asynctrace.ending`."""

    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    ABANDONED = "abandoned"
    """Its handle was collected, or its generator dropped, before it ended."""
    INCOMPLETE = "incomplete"
    """Cut by `shutdown()` or `end_tracers()`."""
    LOST = "lost"
    """Its process died."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded span event. `time_ns` is nanoseconds since the Unix epoch."""

    time_ns: int
    name: str
    attributes: dict[str, AttributeValue] = {}
    dropped_attributes: int = 0


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded span link. Ids are lower-case hex (32 and 16 digits)."""

    trace_id: str
    span_id: str
    trace_state: str = ""
    attributes: dict[str, AttributeValue] = {}
    dropped_attributes: int = 0
    flags: int = 0


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """The instrumentation scope of spans. `schema_url` says by which semantic conventions they are written."""

    name: str = ""
    version: str = ""
    attributes: dict[str, AttributeValue] = {}
    schema_url: str = ""


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """What produced the spans: `service.name`, `service.instance.id`, `process.pid`, `host.name`, … `schema_url` is that of
    these attributes."""

    attributes: dict[str, AttributeValue] = {}
    schema_url: str = ""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded span, for consoles, files, tests and the collector; never used on the hot path.

    Ids are lower-case hex, `parent_id` is `""` for a root; times are nanoseconds since the Unix epoch
    (`end_ns` 0: still open).
    """

    trace_id: str
    span_id: str
    parent_id: str = ""
    name: str = ""
    kind: SpanKind = SpanKind.UNSPECIFIED
    start_ns: int = 0
    end_ns: int = 0
    attributes: dict[str, AttributeValue] = {}
    events: tuple[Event, ...] = ()
    links: tuple[Link, ...] = ()
    status: StatusCode = StatusCode.UNSET
    status_message: str = ""
    trace_state: str = ""
    flags: int = 0
    dropped_attributes: int = 0
    dropped_events: int = 0
    dropped_links: int = 0

    @property
    def duration_ns(self) -> int:
        """Nanoseconds from start to end; 0 while open."""
        return max(0, self.end_ns - self.start_ns) if self.end_ns else 0

    @property
    def ending(self) -> str:
        """`asynctrace.ending` where our SDK made the span, else derived from the status."""
        ending = self.attributes.get("asynctrace.ending")
        if isinstance(ending, str):
            return ending
        return "error" if self.status is StatusCode.ERROR else "ok"


class Outcome(enum.Enum):
    """The kinds of answer a lane acts on."""

    SETTLED = "settled"
    """Accepted and rejected add up to the batch: never send it again."""
    TRY_AGAIN = "try again"
    """Nothing is known to have arrived: send the same batch again, later."""
    REFUSED = "refused"
    """The batch as a whole was refused (HTTP 400, 422): halve it until the culprit is found."""
    TOO_LARGE = "too large"
    """The batch is over the far side's limit (HTTP 413): split it."""
    BLOCKED = "blocked"
    """Configuration (HTTP 401, 403, 404, TLS): keep everything, retry slowly."""


class ExportResult(msgspec.Struct, frozen=True, kw_only=True):
    """An exporter's answer for one batch."""

    accepted: int = 0
    rejected: int = 0
    reason: str = ""
    outcome: Outcome = Outcome.SETTLED
    after: float | None = None
    """Seconds before which nothing may be sent again (`Retry-After`)."""
    detail: str = ""
    """What the far side said about a refusal, for people: kept with dead letters, so without credentials."""

    def __post_init__(self) -> None:
        if self.accepted < 0 or self.rejected < 0:
            raise ValueError(f"ExportResult counts cannot be negative: {self.accepted=}, {self.rejected=}")
        if not isinstance(self.reason, str):
            raise TypeError(f"ExportResult(reason=…) is a text, not {type(self.reason).__name__}")
        if not isinstance(self.detail, str):
            raise TypeError(f"ExportResult(detail=…) is a text, not {type(self.detail).__name__}")
        if self.after is not None and not (isinstance(self.after, int | float) and self.after == self.after):
            raise TypeError(f"ExportResult(after=…) is a number of seconds, not {self.after!r}")

    @classmethod
    def all_accepted(cls, batch: Batch) -> ExportResult:
        """Every record of `batch` was taken over by the far side."""
        return cls(accepted=batch.count)

    @classmethod
    def try_again(cls, after: float | None = None, reason: str = "") -> ExportResult:
        """Send the same batch again, not before `after` seconds (`None`: the lane's own back-off)."""
        return cls(outcome=Outcome.TRY_AGAIN, after=after, reason=reason)

    @classmethod
    def refused(cls, reason: str, detail: str = "") -> ExportResult:
        """The batch was refused for its content; the lane searches the culprit by halving."""
        return cls(outcome=Outcome.REFUSED, reason=reason, detail=detail)

    @classmethod
    def too_large(cls, reason: str, detail: str = "") -> ExportResult:
        """The batch was too large for the far side; the lane splits it."""
        return cls(outcome=Outcome.TOO_LARGE, reason=reason, detail=detail)

    @classmethod
    def blocked(cls, reason: str, after: float | None = None, detail: str = "") -> ExportResult:
        """Settings must change before anything can be accepted; the lane keeps everything, and tells `detail` once."""
        return cls(outcome=Outcome.BLOCKED, reason=reason, after=after, detail=detail)


class Batch(Protocol):
    """Consecutive records handed to an exporter at once. Valid until `export()` returns."""

    @property
    def payload(self) -> Sequence[bytes | memoryview]:
        """Slices which, laid end to end, are `count` records (field-2 entries of an OTLP `ScopeSpans`)."""
        ...

    @property
    def count(self) -> int:
        """How many records."""
        ...

    @property
    def size(self) -> int:
        """Bytes of all slices together."""
        ...

    @property
    def resource(self) -> Resource: ...

    @property
    def resource_bytes(self) -> bytes:
        """The resource as an encoded OTLP `Resource` message (no tag, no length)."""
        ...

    @property
    def scope_bytes(self) -> bytes:
        """The scope as an encoded OTLP `InstrumentationScope` message (no tag, no length)."""
        ...

    @property
    def is_scoped(self) -> bool:
        """Whether a record may name a scope of its own, by `otel.scope.name` (see `wire.take_scope()`)."""
        ...

    @property
    def key(self) -> str:
        """Names these records for ever: a batch repeated after an ambiguous failure has the same key."""
        ...

    def spans(self) -> tuple[Span, ...]:
        """The records decoded, on first use."""
        ...


@runtime_checkable
class Exporter(Protocol):
    """Where spans leave. Driven by one lane; spans made inside are suppressed.

    Three methods are optional. `async start()` is called on each event loop before its first batch; an error there
    means "try again". `async release()` is called when the lane leaves an event loop but may go on in another one:
    free what is bound to the loop, keep what is not. `async export_open(batch)` is called with notices of spans that are
    still open while the attribute `takes_open_spans` is true; its answer is not looked at, and it may be cancelled.
    """

    @property
    def name(self) -> str:
        """The lane's name in the receipt."""
        ...

    async def export(self, batch: Batch) -> ExportResult:
        """Hand the batch over. An exception means: try again."""
        ...

    async def aclose(self) -> None:
        """Called once, after the last batch."""
        ...


class SpanSink(Protocol):
    """Where `tracing` puts encoded spans. Safe from any thread, any loop, a signal handler, a finaliser."""

    is_scoped: bool
    """Whether any record names a scope of its own: set, once and for all, by whoever makes the first one."""

    refused_traces: dict[bytes, int]
    """How many records of a trace (16 bytes) were refused for want of room. Bounded; whoever tells of them takes them out."""

    def append_nowait(self, record: bytes) -> bool:
        """Store the record, or count it as dropped. False only when the policy is to wait for room:
        nothing was counted yet, and the caller goes on with `append()` or `append_sync()`."""
        ...

    async def append(self, record: bytes) -> None:
        """Wait for room within the policy's timeout, then store the record or count it as dropped."""
        ...

    def append_sync(self, record: bytes) -> None:
        """`append()` for threads without a running event loop."""
        ...

    def append_or_refuse(self, record: bytes) -> None:
        """Store the record if there is room now, else count it as dropped."""
        ...

    def refuse(self, reason: str) -> None:
        """Count a span that ends without a record, as dropped for `reason`."""
        ...


MOST_NOTED = 248
"""Bytes that a note of an open span may have."""


class OpenSpanNotes(Protocol):
    """Where `tracing` notes which spans are open, so that a later process can close those of a dead one. Safe from any
    thread, a signal handler, a finaliser.

    The attributes are for the hot path, which does itself what `enter()` and `leave()` do: place n has its state in
    `words[n]` and its body at byte `(n << 3) - MOST_NOTED` of `memory`; `states` says the state by the size of the body.
    """

    free: list[int]
    memory: memoryview
    words: memoryview
    states: tuple[int, ...]

    def enter(self, body: bytes) -> int:
        """Note a span by its first fields, a partial OTLP `Span` message of at most `MOST_NOTED` bytes. Returns its
        place, or -1 where it could not be noted, which is counted."""
        ...

    def leave(self, place: int) -> None:
        """The span's record is stored: forget the note. A place below 0 is none."""
        ...


class OpenSpan(Protocol):
    """A span that has not ended, at one moment."""

    @property
    def span_id(self) -> bytes: ...

    @property
    def age(self) -> float:
        """Seconds since it began."""
        ...

    def record(self) -> bytes:
        """What is known of it so far: a record without an end time. Made anew by each call."""
        ...


class Clock(Protocol):
    """Both clocks in integer nanoseconds."""

    def time_ns(self) -> int:
        """Wall clock since the Unix epoch; may jump."""
        ...

    def monotonic_ns(self) -> int:
        """Never goes back."""
        ...


class IdSource(Protocol):
    """Where ids come from; never all zero (W3C Trace Context, sections 3.2.2.3 and 3.2.2.4).

    One whose trace ids have at least their last 7 bytes from chance may say so by an attribute `is_random = True`; others
    are told then (level 2, "Random Trace ID Flag").
    """

    def trace_id(self) -> bytes:
        """16 bytes."""
        ...

    def span_id(self) -> bytes:
        """8 bytes."""
        ...


class LaneReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """The balance of one lane: `ended = accepted + rejected + dropped + spooled + pending`."""

    ended: int = 0
    accepted: int = 0
    rejected: int = 0
    dropped: int = 0
    spooled: int = 0
    pending: int = 0
    rejected_by_reason: dict[str, int] = {}
    dropped_by_reason: dict[str, int] = {}

    @property
    def complete(self) -> bool:
        """Every span that ended was accepted."""
        return not (self.rejected or self.dropped or self.spooled or self.pending)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(ended={self.ended}, accepted={self.accepted}, rejected={self.rejected}, "
            f"dropped={self.dropped}, spooled={self.spooled}, pending={self.pending})"
        )


class Receipt(LaneReceipt, frozen=True, kw_only=True):
    """What became of every span since the tracer started.

    The numbers are those of the least complete lane, so they never look better than the truth. `recovered` counts
    spans of dead processes that were delivered by this one; `children` counts journals of child processes, and of theirs,
    that hold something which is not delivered yet, whether they live or are dead. Neither is part of the balance, and
    `complete` speaks of this process's own spans only: `collect_children()` waits for those of the children.
    """

    lanes: dict[str, LaneReceipt] = {}
    recovered: int = 0
    children: int = 0

    def raise_for_loss(self) -> None:
        """Raise `SpansLost` unless the receipt is complete."""
        if not self.complete:
            raise SpansLost(f"not every span arrived: {self!r}", self)

    def __repr__(self) -> str:
        text = super().__repr__()
        return f"{text[:-1]}, children={self.children})" if self.children else text
