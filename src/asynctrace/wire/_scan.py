"""Where records begin and end, without decoding them.

Promise: one pass, no copy; damage is a `WireError` that names the offset, and nothing before it was wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

from .._errors import WireError
from ._fields import read_fields, read_varint

__all__ = ["record_trace_id", "scan_records"]

_RECORD_TAG = 0x12
_TRACE_ID_HEAD = b"\x0a\x10"
"""Field 1 of a `Span`, 16 bytes long: how every encoder known to us begins a span."""


def scan_records(payload: bytes | bytearray | memoryview) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each record of a contiguous buffer, tag and length included.

    Raises `WireError` where something else than a whole record stands.
    """
    position, end = 0, len(payload)
    while position < end:
        start = position
        if payload[position] != _RECORD_TAG:
            raise WireError(f"no record at offset {start}: 0x{payload[position]:02x} instead of 0x12")
        length, position = read_varint(payload, position + 1, end)
        position += length
        if position > end:
            raise WireError(f"the record at offset {start} ends {position - end} bytes after the buffer")
        yield start, position


def record_trace_id(record: bytes | memoryview) -> bytes:
    """The trace id of a record, empty when it has none. Raises `WireError` when it is no record."""
    if not len(record) or record[0] != _RECORD_TAG:
        raise WireError("no record: it does not begin with 0x12")
    length, start = read_varint(record, 1, len(record))
    if start + length != len(record):
        raise WireError(f"no record: {length} bytes announced, {len(record) - start} present")
    if record[start : start + 2] == _TRACE_ID_HEAD and length >= 18:
        return bytes(record[start + 2 : start + 18])
    trace_id = b""
    for tag, first, last in read_fields(bytes(record), start, len(record)):
        if tag == 0x0A:
            trace_id = bytes(record[first:last])
    return trace_id
