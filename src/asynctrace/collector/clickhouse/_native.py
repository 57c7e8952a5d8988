"""Columns in ClickHouse's format Native, made from columns of Python values.

    varint columns, varint rows, then for each column: name, type (both: varint length, bytes), values

Texts and bytes are a varint length and the bytes, numbers little-endian, arrays the offsets of their ends, then all values.
https://clickhouse.com/docs/interfaces/formats/Native

Promises: the work for each value is a few C calls; a number that does not fit is cut to the nearest one that does; a lone
surrogate becomes `?`.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, Final

__all__ = ["block", "few_messages", "few_texts", "fixed", "floats", "integers", "messages", "texts", "token_lists"]

LARGEST_TABLED: Final = 1 << 14
WIDTHS: Final = {
    "Q": (0, 2**64 - 1),
    "q": (-(2**63), 2**63 - 1),
    "I": (0, 2**32 - 1),
    "i": (-(2**31), 2**31 - 1),
    "B": (0, 255),
}


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


_VARINTS: Final = tuple(map(_varint, range(LARGEST_TABLED)))


def _length(content: bytes) -> bytes:
    size = len(content)
    return _VARINTS[size] if size < LARGEST_TABLED else _varint(size)


def block(rows: int, columns: Iterable[tuple[str, str, bytes]]) -> bytes:
    """One block of (name, type, values)."""
    parts: list[bytes] = []
    for name, kind, values in columns:
        parts += (_text(name), _text(kind), values)
    return b"".join([_varint(len(parts) // 3), _varint(rows), *parts])


def fixed(values: Iterable[bytes]) -> bytes:
    """FixedString: values of one length."""
    return b"".join(values)


def messages(values: Iterable[bytes]) -> bytes:
    """String, of bytes."""
    return b"".join([part for each in values for part in (_length(each), each)])


def few_messages(values: Mapping[int, bytes], rows: int) -> bytes:
    """String, of bytes: those at some indices, in ascending order; all others are empty."""
    parts: list[bytes] = []
    done = 0
    for index, each in values.items():
        parts += (bytes(index - done), _length(each), each)
        done = index + 1
    return b"".join([*parts, bytes(rows - done)])


def few_texts(values: Mapping[int, str], rows: int) -> bytes:
    """As `few_messages()`, of texts."""
    return few_messages({index: each.encode("utf-8", "replace") for index, each in values.items()}, rows)


def texts(values: Sequence[str]) -> bytes:
    """String, of texts: most come often."""
    known = {each: _text(each) for each in set(values)}
    return b"".join(map(known.__getitem__, values))


def integers(kind: str, values: Iterable[int]) -> bytes:
    """Numbers of the width that `array` calls `kind`."""
    some = tuple(values)
    try:
        made = array(kind, some)
    except OverflowError:
        least, most = WIDTHS[kind]
        made = array(kind, [max(least, min(each, most)) for each in some])
    return _little(made)


def floats(values: Iterable[float]) -> bytes:
    return _little(array("d", values))


def token_lists(values: Sequence[Sequence[bytes]]) -> bytes:
    """Array(UInt64): the eight bytes of each token, as they are."""
    return integers("Q", accumulate(map(len, values))) + b"".join(chain.from_iterable(values))


def _text(text: str) -> bytes:
    content = text.encode("utf-8", "replace")
    return _length(content) + content


def _little(numbers: array[Any]) -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
