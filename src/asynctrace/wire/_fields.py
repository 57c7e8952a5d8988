"""The fields of any protobuf message, known or not.

Promises, for every sequence of bytes

1. Reading ends, in time proportional to the bytes: nothing is copied, no group is entered by recursion.
2. What is no protobuf is a `WireError`: a length beyond the end, a varint of more than ten bytes, field
   number 0, wire types 6 and 7, a group that is never closed or closed by another number.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

from .._errors import WireError
from ._varint import MASK_64

__all__ = ["read_fields", "read_varint"]

_VARINT, _FIXED64, _LENGTH_DELIMITED, _START_GROUP, _END_GROUP, _FIXED32 = range(6)
_MAX_TAG = 2**32 - 1
_MAX_GROUPS = 100
"""Groups inside one another; the limit of the official parsers."""


def read_varint(buffer: bytes | bytearray | memoryview, position: int, end: int) -> tuple[int, int]:
    """The varint at `position` and the position after it. Bits above the 64th are cut, as protobuf does."""
    if position < end and buffer[position] < 0x80:
        return buffer[position], position + 1
    number = shift = 0
    for index in range(position, min(end, position + 10)):
        byte = buffer[index]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & MASK_64, index + 1
        shift += 7
    raise WireError(f"the varint at offset {position} has no end")


def read_fields(buffer: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield `(tag, first, last)` for each field of the message in `buffer[position:end]`.

    A tag is the field number times 8 plus the wire type, as on the wire, so a known field of an unexpected
    wire type looks like an unknown field, as protobuf wants it. For a varint `first` is the number; for
    the other types the content is `buffer[first:last]`. Groups are skipped.
    """
    while position < end:
        tag, position = _read_tag(buffer, position, end)
        wire_type = tag & 7
        if tag < 8:
            raise WireError(f"no field number before offset {position}")
        if wire_type == _START_GROUP:
            position = _skip_group(buffer, position, end, tag)
            continue
        if wire_type == _END_GROUP:
            raise WireError(f"a group is closed before offset {position} that was never opened")
        first, last = _content(buffer, position, end, wire_type)
        yield tag, first, last
        position = last


def _read_tag(buffer: bytes, position: int, end: int) -> tuple[int, int]:
    tag = buffer[position]
    if tag < 0x80:
        position += 1
    else:
        tag, position = read_varint(buffer, position, end)
    if tag > _MAX_TAG:
        raise WireError(f"the field number before offset {position} is too large")
    return tag, position


def _content(buffer: bytes, position: int, end: int, wire_type: int) -> tuple[int, int]:
    """The number and the end of a varint, or the start and the end of anything else."""
    if wire_type == _VARINT:
        return read_varint(buffer, position, end)
    if wire_type == _LENGTH_DELIMITED:
        length, position = read_varint(buffer, position, end)
    elif wire_type == _FIXED64:
        length = 8
    elif wire_type == _FIXED32:
        length = 4
    else:
        raise WireError(f"wire type {wire_type} before offset {position}")
    if length > end - position:
        raise WireError(f"a field at offset {position} is {length} bytes long, {end - position} are left")
    return position, position + length


def _skip_group(buffer: bytes, position: int, end: int, tag: int) -> int:
    """The position after the group opened by `tag`."""
    open_groups = [tag]
    while open_groups:
        if position >= end:
            raise WireError(f"the group with tag {tag} is never closed")
        tag, position = _read_tag(buffer, position, end)
        if tag & 7 == _START_GROUP:
            open_groups.append(tag)
            if len(open_groups) > _MAX_GROUPS:
                raise WireError(f"more than {_MAX_GROUPS} groups inside one another")
        elif tag & 7 == _END_GROUP:
            if open_groups.pop() != tag - 1:
                raise WireError(f"the group closed before offset {position} is not the one that was opened")
        else:
            position = _content(buffer, position, end, tag & 7)[1]
    return position
