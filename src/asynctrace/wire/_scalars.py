"""Attributes that are numbers or booleans, with all that depends on the key encoded beforehand.

A traced program sets the same few keys again and again: what is left to do for each value is one concatenation, a third
of what `encode_attribute()` needs. `tracing` reads the parts of `ScalarHeads` in place, because a call would cost as much.

Source: opentelemetry/proto/common/v1/common.proto of OTLP 1.x.
"""

from __future__ import annotations

from ._values import encode_attribute

__all__ = ["ScalarHeads"]


class ScalarHeads:
    """For one key: the whole field for True and False; the field up to the number for an int that takes one or two bytes
    as a varint (below 128, below 16,384), and for a double (8 bytes, little-endian)."""

    __slots__ = ("booleans", "double", "one_byte", "two_bytes")

    def __init__(self, tag: bytes, key: str) -> None:
        self.booleans = (encode_attribute(tag, key, False), encode_attribute(tag, key, True))
        self.one_byte = encode_attribute(tag, key, 0)[:-1]
        self.two_bytes = encode_attribute(tag, key, 128)[:-2]
        self.double = encode_attribute(tag, key, 0.0)[:-8]
