"""Spans that were kept as a file: an export request as JSON or protobuf, gzipped or not; the file itself does not say."""

from __future__ import annotations

import contextlib
import re
import zlib
from typing import Final

from ..._errors import WireError
from .._rows import Received
from ._body import Refused, expand
from ._intake import TooMany
from ._scan import Scanner
from ._signals import JSON, PROTOBUF, READERS, Signal

__all__ = ["encoding_of", "kind_of", "read_kept"]

GZIP: Final = b"\x1f\x8b"
LOOKED_AT: Final = 256
"""Bytes: protobuf soon has one that no text has."""
_JSON_TEXT: Final = re.compile(rb"\s*\{[\t\n\r\x20-\xff]*")


def encoding_of(body: bytes, otherwise: str = "identity") -> str:
    """How it is compressed; `otherwise` is what its sender said."""
    return "gzip" if body.startswith(GZIP) else otherwise


def kind_of(body: bytes, encoding: str) -> str:
    """The content type."""
    beginning = body[:LOOKED_AT]
    if encoding == "gzip":
        with contextlib.suppress(zlib.error):
            beginning = zlib.decompressobj(wbits=31).decompress(body, LOOKED_AT)
    return JSON if _JSON_TEXT.fullmatch(beginning) else PROTOBUF


def read_kept(body: bytes, *, largest: int = 1 << 30) -> Received:
    """Its spans. Raises `Refused`; `largest` bounds the bytes after decompression."""
    encoding = encoding_of(body)
    expanded = expand(body, encoding, largest)
    try:
        intake = READERS[Signal.TRACES, kind_of(body, encoding)](Scanner(), expanded)
    except (WireError, TooMany) as error:
        raise Refused(400, f"this is no OTLP request: {error}") from error
    return Received(
        origins=intake.origins,
        rows=intake.rows,
        rejected=intake.rejected,
        reason=intake.reason,
        size=len(expanded),
    )
