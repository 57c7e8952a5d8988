"""What receiving hands to the store: the rows of a request. The only thing that both know.

    receiving ── Received(origins, rows, logs, key) ─▶ Store.add() ─▶ … ─▶ Store.spans_of() ── TraceSpans(origins, rows, logs)

Promises:

- A row carries the OTLP message as it came (or as it was encoded, once, from JSON); everything beside the message is a
  copy of what lists, filters and sums need, so that nobody else has to decode it.
- Rows are tuples, made once and never changed.
- `token()` is stable: it is part of the format of stores.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from ._keys import RequestKey

__all__ = [
    "EMPTY",
    "LONGEST_TOKEN",
    "PREVIEW",
    "SLOT",
    "Facts",
    "LogRow",
    "Origin",
    "Received",
    "SpanRow",
    "hashed",
    "token",
]

LONGEST_TOKEN: Final = 128
"""Characters of a value that has a token: what people filter by is short, what is longer is found by a scan."""
PREVIEW: Final = 200
"""Characters of an input or output that lists show."""


class Origin(msgspec.Struct, frozen=True, gc=False):
    """One (resource, scope) of a request."""

    resource: bytes
    """An encoded OTLP `Resource` message: no tag, no length."""
    scope: bytes
    """An encoded OTLP `InstrumentationScope` message."""
    service: str = ""
    """`service.name`; empty where there is none."""
    tokens: tuple[bytes, ...] = ()
    """Search tokens of the resource's attributes: they hold for each span, and are not repeated there."""
    resource_schema: str = ""
    scope_schema: str = ""
    """`schema_url` of the `ResourceSpans` and of the `ScopeSpans`: which semantic conventions they follow."""

    @property
    def key(self) -> tuple[bytes, bytes, str, str]:
        """What tells two origins apart."""
        return self.resource, self.scope, self.resource_schema, self.scope_schema


class Facts(NamedTuple):
    """What a span says about itself in one of the dialects of attributes. Most spans share `EMPTY`."""

    tokens: tuple[bytes, ...] = ()
    """`token()` of each attribute whose value is a text of at most `LONGEST_TOKEN` characters, a boolean or a number; of
    an array, of each such element."""
    ending: str = ""
    """`asynctrace.ending`; empty where the span has none: then the status says it."""
    type: str = ""
    """Lower case: llm, tool, retriever, chain, agent, embedding, …"""
    input: str = ""
    output: str = ""
    """Previews, at most `PREVIEW` characters."""
    session: str = ""
    user: str = ""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    """Dollars."""
    is_open: bool = False
    """A notice of a span that is still open (`asynctrace.state=open`, `logfire.span_type=pending_span`): never stored."""
    events: int = 0
    links: int = 0
    dropped: int = 0
    """Spans of this trace that the sender says it dropped."""


EMPTY: Final = Facts()
SLOT: Final = {name: slot for slot, name in enumerate(Facts._fields)}
"""Where a fact stands, for who gathers facts in a list."""


class SpanRow(NamedTuple):
    """One version of a span."""

    trace_id: bytes
    """16 bytes."""
    span_id: bytes
    """8 bytes."""
    parent_id: bytes
    """8 bytes, or none for a root."""
    name: str
    kind: int
    start_ns: int
    end_ns: int
    """0: open."""
    status: int
    """OTLP `StatusCode`."""
    origin: int
    """Index into `origins`."""
    message: bytes
    """The OTLP `Span` message: no tag, no length."""
    facts: Facts = EMPTY


class LogRow(NamedTuple):
    """A log record that belongs to a span, or to a trace only (`span_id` empty)."""

    trace_id: bytes
    span_id: bytes
    time_ns: int
    severity: int
    """OTLP `SeverityNumber`."""
    origin: int
    message: bytes
    """The OTLP `LogRecord` message: no tag, no length."""


class Received(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request that may enter the store."""

    origins: list[Origin]
    rows: list[SpanRow]
    logs: list[LogRow] = []
    rejected: int = 0
    reason: str = ""
    """Why the first of the rejected spans was rejected; empty when none was."""
    key: RequestKey | None = None
    """Under which the sender repeats it; of a sender that gives none, made from a hash of the body."""
    size: int = 0
    """Bytes after decompression."""


def token(key: str, value: str) -> bytes:
    """Eight bytes for `key=value`; the value's case does not count.

    A boolean is written `true` or `false`, an integer in decimal, a float as `repr()` writes it.
    """
    return hashed(f"{key}={value.lower()}".encode("utf-8", "surrogatepass"))


def hashed(text: bytes) -> bytes:
    """The token of `key=value`, encoded and in lower case."""
    return blake2b(text, digest_size=8).digest()
