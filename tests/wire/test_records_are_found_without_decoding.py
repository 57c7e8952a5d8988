from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrace import wire
from asynctrace._contracts import Span
from asynctrace._errors import WireError

Scan = Callable[[bytes], Iterator[tuple[int, int]]]


def check_scan(scan: Scan, bodies: list[bytes]) -> None:
    records = [wire.frame(body) for body in bodies]
    payload = b"".join(records)
    assert [payload[start:end] for start, end in scan(payload)] == records


@given(st.lists(st.binary(max_size=200) | st.sampled_from([b"x" * 127, b"x" * 128, b"x" * 20_000]), max_size=8))
def test_records_end_to_end_are_told_apart(bodies: list[bytes]) -> None:
    check_scan(wire.scan_records, bodies)
    check_scan(lambda payload: wire.scan_records(memoryview(payload)), bodies)
    check_scan(lambda payload: wire.scan_records(bytearray(payload)), bodies)


def a_scan_with_lengths_of_one_byte(payload: bytes) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(payload):
        yield start, start + 2 + payload[start + 1]
        start += 2 + payload[start + 1]


def a_scan_that_leaves_the_tag_out(payload: bytes) -> Iterator[tuple[int, int]]:
    return ((start + 1, end) for start, end in wire.scan_records(payload))


@pytest.mark.parametrize("broken", [a_scan_with_lengths_of_one_byte, a_scan_that_leaves_the_tag_out])
def test_the_check_notices(broken: Scan) -> None:
    with pytest.raises((AssertionError, IndexError)):
        check_scan(broken, [b"a", b"b" * 300])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (b"\x0a\x00", "offset 5"),
        (b"\x00", "offset 5"),
        (b"\x12", "no end"),
        (b"\x12\x05abcd", "1 bytes after"),
    ],
)
def test_damage_is_named_and_what_stands_before_it_is_found(damage: bytes, says: str) -> None:
    places = wire.scan_records(wire.frame(b"abc") + damage)
    assert next(places) == (0, 5)
    with pytest.raises(WireError, match=says):
        next(places)


TRACE_ID = bytes(range(16))


@pytest.mark.parametrize(
    ("message", "trace_id"),
    [
        (wire.encode_span(Span(trace_id=TRACE_ID.hex(), span_id="00" * 8)), TRACE_ID),
        (b"\x2a\x01n\x0a\x10" + TRACE_ID, TRACE_ID),
        (b"\x0a\x10" + TRACE_ID + b"\x2a\x01n" * 100, TRACE_ID),
        (b"\x0a\x04abcd", b"abcd"),
        (b"\x2a\x01n", b""),
        (b"", b""),
    ],
)
def test_a_record_tells_its_trace_id(message: bytes, trace_id: bytes) -> None:
    record = wire.frame(message)
    assert wire.record_trace_id(record) == trace_id
    assert wire.record_trace_id(memoryview(record)) == trace_id


@pytest.mark.parametrize("record", [b"", b"\x0a\x00", b"\x12\x02a", b"\x12\x00a", b"\x12\x02\x0a\x05"])
def test_no_record_no_trace_id(record: bytes) -> None:
    with pytest.raises(WireError):
        wire.record_trace_id(record)
