"""Attributes that are numbers or booleans, with all that depends on the key encoded beforehand.

A traced program sets the same few keys again and again: what is left to do for each value is one concatenation, a third
of what `encode_attribute()` needs. `tracing` reads the parts of `ScalarHeads` in place, because a call would cost as much.

Source: opentelemetry/proto/common/v1/common.proto of OTLP 1.x.
"""

from __future__ import annotations

from ._values import encode_attribute

__all__ = ["ScalarHeads"]


class ScalarHeads:
    """For one key: the whole field for True and False; the field up to the number for a double (8 bytes, little-endian)
    and for an int, by the length of its varint (`one_byte` and `two_bytes` are `integers[1]` and `integers[2]`)."""

    __slots__ = ("booleans", "double", "integers", "one_byte", "two_bytes")

    def __init__(self, tag: bytes, key: str) -> None:
        self.booleans = (encode_attribute(tag, key, False), encode_attribute(tag, key, True))
        self.double = encode_attribute(tag, key, 0.0)[:-8]
        self.integers = (b"", *(encode_attribute(tag, key, 1 << 7 * n)[: -n - 1] for n in range(9)))
        self.one_byte, self.two_bytes = self.integers[1:3]
