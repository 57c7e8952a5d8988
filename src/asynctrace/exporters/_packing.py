"""The protobuf body of an export request, and compressing it.

Promises: nothing is encoded again but where records name scopes of their own; the loop is not held by compressing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from .._contracts import Batch
from ..wire import encode_request
from ._aside import loading, run_aside
from ._slices import Slices

__all__ = ["compressed", "protobuf_request"]

COMPRESS_ASIDE_FROM: Final = 32 * 1024
"""Bytes. Compressing less (under 0.5 ms) costs the loop no more than starting a thread."""

LEVEL: Final = 1
"""Of zlib and zstd. zlib's level 6 takes twice the time for the same ratio on spans."""


async def protobuf_request(batch: Batch, slices: Slices) -> Sequence[bytes | memoryview]:
    """The parts of an `ExportTraceServiceRequest`; they are valid as long as the batch is."""
    if batch.is_scoped:
        return [await slices.scoped_request(batch)]
    return encode_request(batch.resource_bytes, batch.scope_bytes, batch.payload)


async def compressed(parts: Sequence[bytes | memoryview], compression: str) -> bytes:
    """The parts end to end, as "gzip" or "zstd"; "none": as they are."""
    whole = b"".join(parts)  # a copy: a thread may outlive the batch
    if compression == "none":
        return whole
    compress = functools.partial(_COMPRESS[compression], whole)
    return compress() if len(whole) < COMPRESS_ASIDE_FROM else await run_aside(compress)


def _gzip(body: bytes) -> bytes:
    with loading:
        import zlib

    deflater = zlib.compressobj(LEVEL, wbits=31)
    return deflater.compress(body) + deflater.flush()


def _zstd(body: bytes) -> bytes:
    with loading:
        import zstandard

    return zstandard.ZstdCompressor(level=LEVEL).compress(body)


_COMPRESS: Final[Mapping[str, Callable[[bytes], bytes]]] = {"gzip": _gzip, "zstd": _zstd}
