"""Whatever the bytes: an answer or a `WireError`, and soon."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asynctrace import wire
from asynctrace._contracts import Event, Resource, Scope, Span
from asynctrace._errors import WireError

from ..patience import patient

READERS: list[Callable[[bytes], Any]] = [
    wire.decode_span,
    wire.decode_request,
    wire.decode_response,
    lambda body: wire.decode_records([body]),
    lambda body: list(wire.scan_records(body)),
    wire.record_trace_id,
    wire.parse_json_request,
    lambda body: wire.shrink_record(body, len(body) - 1),
]
NAMES = ["span", "request", "response", "records", "scan", "trace id", "json", "shrink"]

SPAN = Span(
    trace_id="ab" * 16,
    span_id="cd" * 8,
    name="n",
    attributes={"a": [1, {"b": "c"}], "d": 1.5},
    events=(Event(time_ns=1, name="e", attributes={"f": "g"}),),
    status_message="h",
)
RECORD = wire.frame(wire.encode_span(SPAN))
GROUP = wire.ResourceSpans(resource=Resource(attributes={"r": 1}), scope=Scope(name="s"), spans=(SPAN,))
SEEDS = [
    RECORD,
    wire.encode_span(SPAN),
    b"".join(wire.encode_request(wire.encode_resource(GROUP.resource), wire.encode_scope(GROUP.scope), [RECORD])),
    wire.encode_response(3, "no"),
    wire.json_request([GROUP]),
]


def check(read: Callable[[bytes], Any], body: bytes) -> None:
    try:
        read(body)
    except WireError as error:
        assert str(error)  # noqa: PT017 - any other exception fails the test by itself


def a_reader_that_trusts_lengths(body: bytes) -> int:
    return body[2 + body[1]]


def a_reader_that_recurses(body: bytes) -> Any:
    return a_reader_that_recurses(body[1:]) if body else None


@pytest.mark.parametrize("broken", [a_reader_that_trusts_lengths, a_reader_that_recurses])
def test_the_check_notices(broken: Callable[[bytes], Any]) -> None:
    with pytest.raises((IndexError, RecursionError)):
        [check(broken, body) for body in (b"\x0a\x7f", b"\x0a\x7f" * 2000)]


@pytest.mark.parametrize("read", READERS, ids=NAMES)
@given(body=st.binary(max_size=300))
@example(body=b"")
@settings(deadline=None)
def test_any_bytes(read: Callable[[bytes], Any], body: bytes) -> None:
    check(read, body)


@pytest.mark.parametrize("read", READERS, ids=NAMES)
def test_good_bytes_with_some_changed_doubled_or_missing(read: Callable[[bytes], Any]) -> None:
    chance = random.Random(7)
    for _ in range(1500):
        body = bytearray(chance.choice(SEEDS))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(body))
            change = chance.randrange(4)
            if change == 0:
                body[at] = chance.randrange(256)
            elif change == 1:
                del body[at : at + chance.randint(1, 8)]
            elif change == 2:
                body[at:at] = body[at : at + chance.randint(1, 30)]
            else:
                body[at] ^= 1 << chance.randrange(8)
            body = body or bytearray(b"\x00")
        check(read, bytes(body))


@pytest.mark.parametrize("read", READERS[:4], ids=NAMES[:4])
@pytest.mark.parametrize("seed", SEEDS[:4], ids=["record", "span", "request", "response"])
def test_every_prefix(read: Callable[[bytes], Any], seed: bytes) -> None:
    for length in range(len(seed)):
        check(read, seed[:length])


@pytest.mark.parametrize("seed", SEEDS, ids=["record", "span", "request", "response", "json"])
def test_the_last_byte_is_missed(seed: bytes) -> None:
    readers = dict(zip(SEEDS, [READERS[3], READERS[0], READERS[1], READERS[2], READERS[6]], strict=True))
    readers[seed](seed)
    with pytest.raises(WireError):
        readers[seed](seed[:-1])


def nested_value(levels: int, tag: bytes, wrap: Callable[[bytes], bytes]) -> bytes:
    value = b""
    for _ in range(levels):
        value = wire.length_delimited(tag, wrap(value))
    return wire.length_delimited(b"\x4a", b"\x0a\x01k" + wire.length_delimited(b"\x12", value))


ARRAY = (b"\x2a", lambda value: wire.length_delimited(b"\x0a", value))
MAP = (b"\x32", lambda value: wire.length_delimited(b"\x0a", wire.length_delimited(b"\x12", value)))


@pytest.mark.parametrize(("tag", "wrap"), [ARRAY, MAP], ids=["arrays", "maps"])
def test_deep_nesting_is_refused_and_the_official_limit_is_not(tag: bytes, wrap: Callable[[bytes], bytes]) -> None:
    wire.decode_span(nested_value(48, tag, wrap))
    for levels in (65, 3000):
        with pytest.raises(WireError, match="inside one another"):
            wire.decode_span(nested_value(levels, tag, wrap))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"\x00\x01", "no field number"),
        (b"\x0f", "wire type 7"),
        (b"\x0e", "wire type 6"),
        (b"\x0c", "never opened"),
        (b"\x0b", "never closed"),
        (b"\x0b\x14", "not the one"),
        (b"\x0b" * 101 + b"\x0c" * 101, "groups inside"),
        (b"\x08" + b"\xff" * 11, "no end"),
        (b"\xff\xff\xff\xff\x7f\x00", "number .* too large"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "are left"),
        (b"\x39\x00", "are left"),
        (b"\x2a\x02\xc3\x28", "not UTF-8"),
        (b"\x2a\x03\xed\xa0\x80", "not UTF-8"),
    ],
)
def test_each_kind_of_damage_has_its_words(body: bytes, says: str) -> None:
    with pytest.raises(WireError, match=says):
        wire.decode_span(body)


BIG = 200_000
BOMBS = {
    "groups opened": b"\x0b" * BIG,
    "empty fields": b"\x0a\x00" * BIG,
    "empty records": b"\x12\x00" * (BIG // 10),
    "empty attributes": b"\x4a\x00" * BIG,
    "one attribute merged": wire.length_delimited(b"\x4a", b"\x12\x02\x2a\x00" * BIG),
    "an array that grows": wire.length_delimited(b"\x4a", b"\x12\x04\x2a\x02\x0a\x00" * BIG),
    "varints without end": b"\x80" * BIG,
    "json brackets": b"[" * BIG,
    "json in json": b'{"resourceSpans":[' * BIG,
    "json values": b'{"resourceSpans":[{"resource":{"attributes":[{"value":' + b'{"arrayValue":{"values":[' * BIG,
    "json digits": b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"flags":' + b"9" * BIG + b"}]}]}]}",
    "json text digits": b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"flags":"' + b"9" * BIG + b'"}]}]}]}',
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("read", READERS, ids=NAMES)
def test_large_bodies_made_to_be_slow_are_not(read: Callable[[bytes], Any], bomb: str) -> None:
    start = time.process_time()
    check(read, BOMBS[bomb])
    assert time.process_time() - start < patient(5.0)  # quadratic work on 200,000 fields takes minutes
