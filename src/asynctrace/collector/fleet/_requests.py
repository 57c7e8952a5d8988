"""Between what receiving read and what the stream carries.

Promises:

- A request that is good as a whole travels as it came: its bytes are not written anew.
- One that came as JSON, or of which parts were refused, travels as protobuf with what was good in it.
- What is read from a message is judged as it was when it came in: `received_of(message_of(r, sent))` has the rows of `r`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ..._errors import WireError
from ...stream import Message
from ...wire import length_delimited
from .._keys import RequestKey, parse_key
from .._rows import LogRow, Received, SpanRow
from ..receiving import Refused, Sent
from ..receiving._body import expand
from ..receiving._intake import TooMany
from ..receiving._receive import MAX_EXPANDED
from ..receiving._scan import Scanner
from ..receiving._signals import PROTOBUF, READERS, Signal

__all__ = ["has_zstd", "message_of", "received_of"]

WORTH_PACKING: Final = 1024
"""Bytes of a body that is not compressed."""
LEVEL: Final = 1
"""Of zstd: 2 µs for a span of 850 bytes, which become a quarter; a stream's memory is the dearest in the chain."""
CODECS: Final = ("identity", "gzip", "zstd")


def message_of(received: Received, sent: Sent) -> Message | None:
    """The message for the stream. None: there is nothing in it that a store would keep."""
    records = _kept(received)
    if not records:
        return None
    if sent.content_type == PROTOBUF and sent.encoding in CODECS and not received.rejected:
        body, codec, records = sent.body, sent.encoding, len(received.rows) + len(received.logs)
    else:
        body, codec = b"".join(_encoded(received)), "identity"
    if codec == "identity" and len(body) >= WORTH_PACKING:
        body, codec = _packed(body)
    return Message(
        signal=sent.signal.value,
        key=_text(received.key) if received.key is not None else "",
        records=records,
        codec=codec,
        body=body,
    )


def received_of(scanner: Scanner, message: Message) -> Received:
    """What a message holds. `Refused`: nothing that a store can keep, and why."""
    body = expand(message.body, message.codec, MAX_EXPANDED)
    try:
        intake = READERS[Signal(message.signal), PROTOBUF](scanner, body)
    except WireError as error:
        raise Refused(400, f"the body is no OTLP {message.signal} request: {error}") from error
    except TooMany as error:
        raise Refused(413, str(error)) from error
    records = len(intake.rows) + len(intake.logs)
    if intake.rejected and not records:
        raise Refused(400, f"nothing in it can be kept: {intake.reason}")
    is_final = not intake.rejected and not intake.notices
    return Received(
        origins=intake.origins,
        rows=intake.rows,
        logs=intake.logs,
        rejected=intake.rejected,
        reason=intake.reason,
        key=parse_key([message.key], records) if is_final and message.key else None,
        size=len(body),
    )


def has_zstd() -> bool:
    """Whether this machine can read what others compress with zstd."""
    try:
        import zstandard  # noqa: F401
    except ImportError:
        return False
    return True


def _kept(received: Received) -> int:
    return sum(not row.facts.is_open for row in received.rows) + len(received.logs)


def _text(key: RequestKey) -> str:
    return f"{key.log_id}:{key.first}:{key.count}"


def _encoded(received: Received) -> Iterator[bytes]:
    """An export request with the rows: spans and logs are laid out alike, under the same field numbers."""
    ended = [row for row in received.rows if not row.facts.is_open]
    rows: Sequence[SpanRow] | Sequence[LogRow] = ended or received.logs
    by_origin: Callable[[SpanRow | LogRow], int] = lambda row: row.origin  # noqa: E731
    for number, group in itertools.groupby(rows, by_origin):
        origin = received.origins[number]
        records = [length_delimited(b"\x12", row.message) for row in group]
        scope = b"".join((length_delimited(b"\x0a", origin.scope), *records, _schema(origin.scope_schema)))
        resource = length_delimited(b"\x0a", origin.resource) + length_delimited(b"\x12", scope)
        yield length_delimited(b"\x0a", resource + _schema(origin.resource_schema))


def _schema(url: str) -> bytes:
    return length_delimited(b"\x1a", url.encode()) if url else b""


def _packed(body: bytes) -> tuple[bytes, str]:
    try:
        import zstandard
    except ImportError:
        return body, "identity"
    return zstandard.ZstdCompressor(level=LEVEL).compress(body), "zstd"
