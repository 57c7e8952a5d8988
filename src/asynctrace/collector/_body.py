"""From the bytes of a request to the spans that may enter the store. Runs in a thread, without an event loop.

Promises:

- No more than `limit` bytes are ever decompressed, whatever the body claims; memory follows what is really
  there.
- A body that is cut, or whose compression is damaged, is refused as a whole (`Refused`).
- Spans that OTLP calls invalid (ids of a wrong length, or all zero) are set apart, counted and named; the
  others go on.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import msgspec

from .._contracts import Event, Link, Span
from .._errors import WireError
from ..wire import (
    ResourceSpans,
    decode_request,
    encode_resource,
    encode_scope,
    encode_span,
    parse_json_request,
)

if TYPE_CHECKING:
    from zlib import _Decompress

__all__ = ["ENCODINGS", "JSON", "PROTOBUF", "Received", "Refused", "expand", "parse"]

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

PIECE = 256 * 1024
"""Bytes that are decompressed at a time."""
ZSTD_INPUT = 128
"""Bytes given to zstd at a time: its interface cannot bound the output, and four bytes may become 128 KiB
(RFC 8878, 3.1.1.2), so a bomb oversteps the limit by 4 MiB at most. Its `stream_reader`, which can, takes a
cut frame for a whole one."""


class Refused(Exception):
    """The request cannot be taken over, now or later. `status` is the HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What a body holds."""

    groups: list[ResourceSpans]
    accepted: int
    rejected: int
    reason: str
    """Why the first of the rejected spans was rejected; empty when none was."""
    size: int
    """Bytes after decompression."""


def expand(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo the Content-Encoding (`identity`, `gzip`, `deflate`, `zstd` where it is installed).

    `Refused`: 400 for damaged or cut bytes, 413 over `limit` bytes, 415 for another encoding (RFC 9110,
    8.4).
    """
    if encoding == "identity":
        return body
    pieces = ENCODINGS.get(encoding)
    if pieces is None:
        raise Refused(415, f"Content-Encoding {encoding!r} is not supported: send {', '.join(ENCODINGS)} or identity")
    expanded = bytearray()
    for piece in pieces(body):
        expanded += piece
        if len(expanded) > limit:
            raise Refused(413, f"the body is larger than {limit} bytes after decompression")
    return bytes(expanded)


def parse(body: bytes, content_type: str) -> Received:
    """Decode an OTLP `ExportTraceServiceRequest`. `Refused` (400) for bytes that are none."""
    try:
        groups = parse_json_request(body) if content_type == JSON else decode_request(body)
    except WireError as error:
        raise Refused(400, f"the body is no OTLP trace request: {error}") from error
    good: list[ResourceSpans] = []
    reasons: list[str] = []
    for group in groups:
        whole = _group_flaw(group)
        flaws = [(whole or _flaw(span), span) for span in group.spans]
        reasons += (flaw for flaw, _ in flaws if flaw)
        spans = tuple(span for flaw, span in flaws if not flaw)
        if spans:
            good.append(msgspec.structs.replace(group, spans=spans))
    return Received(
        groups=good,
        accepted=sum(len(group.spans) for group in good),
        rejected=len(reasons),
        reason=reasons[0] if reasons else "",
        size=len(body),
    )


def _flaw(span: Span) -> str:
    """Why OTLP calls the span invalid (opentelemetry/proto/trace/v1/trace.proto), else the empty string."""
    for field, identity, digits in (("trace_id", span.trace_id, 32), ("span_id", span.span_id, 16)):
        if not _is_identity(identity, digits):
            return f"{field} must be {digits // 2} bytes and not all zero"
    if span.parent_id and not _is_hexadecimal(span.parent_id, 16):
        return "parent_span_id must be 8 bytes or empty"
    values = itertools.chain(span.attributes.values(), *(part.attributes.values() for part in _parts(span)))
    if any(isinstance(value, (list, dict)) for value in values):
        return _unencodable(encode_span, span)
    return ""


def _parts(span: Span) -> Iterable[Event | Link]:
    return itertools.chain(span.events, span.links)


def _group_flaw(group: ResourceSpans) -> str:
    return _unencodable(encode_resource, group.resource) or _unencodable(encode_scope, group.scope)


Encoded = TypeVar("Encoded")


def _unencodable(encode: Callable[[Encoded], bytes], value: Encoded) -> str:
    """Why the value cannot be stored: deeper nesting can be read than written."""
    try:
        encode(value)
    except ValueError as error:
        return str(error)
    return ""


def _is_identity(text: str, digits: int) -> bool:
    return _is_hexadecimal(text, digits) and text.strip("0") != ""


def _is_hexadecimal(text: str, digits: int) -> bool:
    return len(text) == digits and not text.strip("0123456789abcdefABCDEF")


def _gzip(body: bytes) -> Iterator[bytes]:
    """RFC 1952: one or more members."""
    while True:
        inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        yield from _inflate(inflater, body)
        body = inflater.unused_data.lstrip(b"\0")  # some writers pad
        if not body:
            return


def _deflate(body: bytes) -> Iterator[bytes]:
    """RFC 9110, 8.4.1.2: the zlib format; some senders omit its header."""
    has_header = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
    yield from _inflate(inflater, body)
    if inflater.unused_data:
        raise Refused(400, "bytes follow the end of the compressed body")


def _inflate(inflater: _Decompress, body: bytes) -> Iterator[bytes]:
    rest = body
    while not inflater.eof:
        try:
            piece = inflater.decompress(rest, PIECE)
        except zlib.error as error:
            raise Refused(400, f"the compressed body is damaged: {error}") from error
        rest = inflater.unconsumed_tail
        if not piece and not rest and not inflater.eof:
            raise Refused(400, "the compressed body is cut short")
        yield piece


def _zstd(body: bytes) -> Iterator[bytes]:
    """RFC 8878, with the extra `asynctrace[zstd]`."""
    try:
        import zstandard
    except ImportError:
        raise Refused(415, "zstd is not installed here: pip install 'asynctrace[zstd]', or send gzip") from None
    # a window as large as RFC 8878 asks every decoder to support; more would be memory on the sender's word
    decompressor = zstandard.ZstdDecompressor(max_window_size=8 * 1024 * 1024)
    frame = decompressor.decompressobj()
    for start in range(0, len(body), ZSTD_INPUT):
        rest = body[start : start + ZSTD_INPUT]
        while rest:
            if frame.eof:
                frame = decompressor.decompressobj()
            try:
                yield frame.decompress(rest)
            except zstandard.ZstdError as error:
                raise Refused(400, f"the compressed body is damaged: {error}") from error
            rest = frame.unused_data if frame.eof else b""
    if not frame.eof:
        raise Refused(400, "the compressed body is cut short")


ENCODINGS = {"gzip": _gzip, "deflate": _deflate, "zstd": _zstd}
