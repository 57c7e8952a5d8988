"""Base-128 numbers and length-delimited fields, the two building stones of the protobuf encoding.

Promises: every number in 0 … 2⁶⁴-1 is written in its shortest form; a number outside is a `ValueError`.
Numbers below `TABLE_SIZE` are looked up, never computed: lengths on the hot path are nearly always among
them.

Source: https://protobuf.dev/programming-guides/encoding/ ("Base 128 Varints", "Message Structure").
"""

from __future__ import annotations

__all__ = ["MASK_64", "TABLE_SIZE", "VARINTS", "encode_varint", "length_delimited"]

MASK_64 = 0xFFFF_FFFF_FFFF_FFFF
"""Turns a negative 64-bit number into its two's complement, as protobuf writes int64."""

TABLE_SIZE = 2048
"""Attributes and most spans are shorter; the tables take 0.5 ms to make, which a larger one would double."""


def _computed(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


VARINTS: tuple[bytes, ...] = tuple(map(_computed, range(TABLE_SIZE)))
"""`VARINTS[n]` is the varint of `n`."""


def encode_varint(n: int) -> bytes:
    """Encode `n` as a varint. Raises `ValueError` unless 0 ≤ n < 2⁶⁴."""
    if 0 <= n < TABLE_SIZE:
        return VARINTS[n]
    if 0 < n < 0x4000:  # 128 bytes … 16 kB is where the lengths of requests and long texts lie
        return (n & 0x7F | 0x80 | n >> 7 << 8).to_bytes(2, "little")
    if not 0 <= n <= MASK_64:
        raise ValueError(f"a varint holds 0 to 2**64 - 1, not a number of {n.bit_length()} bits (sign {n < 0})")
    return _computed(n)


def length_delimited(tag: bytes, body: bytes) -> bytes:
    """A field of wire type 2: `tag`, the length of `body`, `body`."""
    length = len(body)
    return b"".join((tag, VARINTS[length] if length < TABLE_SIZE else encode_varint(length), body))
