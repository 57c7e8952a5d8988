"""Undoing the compression of a body. Runs in a thread, without an event loop.

Promises:

- No more than `limit` bytes are ever decompressed, whatever the body claims; memory follows what is really
  there.
- A body that is cut, or whose compression is damaged, is refused as a whole (`Refused`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zlib import _Decompress

__all__ = ["ENCODINGS", "Refused", "expand"]

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
