"""How a body is compressed on its way to ClickHouse: zstd where `zstandard` is installed, else not at all.

zlib at its lowest level takes more time for a span than everything else that is done with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["Compress", "best_compression"]

LEVEL: Final = 1


class Compress:
    """A function, and the name that HTTP has for it; none where it changes nothing. Safe from any thread."""

    def __init__(self, encoding: str, compress: Callable[[bytes], bytes]) -> None:
        self.encoding = encoding
        self._compress = compress

    def __call__(self, body: bytes) -> bytes:
        return self._compress(body)


def best_compression() -> Compress:
    """What can be had here."""
    try:
        import zstandard
    except ImportError:
        return Compress("", bytes)
    return Compress("zstd", lambda body: zstandard.ZstdCompressor(level=LEVEL).compress(body))
