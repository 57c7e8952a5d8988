"""Bodies that are cut, damaged, too large or of another kind: each has its status, and the next good one is stored."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import logging
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
import zstandard
from google.rpc.status_pb2 import Status
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrace import WireError
from asynctrace.collector import SQLiteStore, _site
from asynctrace.collector.receiving import _receive
from asynctrace.collector.receiving._admission import Admission
from asynctrace.collector.receiving._body import Refused, expand
from asynctrace.collector.receiving._counters import Counters
from asynctrace.collector.receiving._receive import MAX_BODY, MAX_EXPANDED, Receiver
from asynctrace.collector.receiving._scan import Scanner
from asynctrace.collector.receiving._signals import READERS, Signal
from asynctrace.collector.receiving._writer import Writer
from asynctrace.wire import decode_response, length_delimited

from .traffic import COMPRESSORS, JSON, PROTOBUF, START, checkout, collecting, group, json_body, protobuf, span

pytestmark = pytest.mark.anyio

BODY = protobuf([checkout()])


@pytest.mark.parametrize(
    ("body", "content_type", "encoding", "status"),
    [
        (BODY[:-5], PROTOBUF, "identity", 400),
        (b"\xff" * 40, PROTOBUF, "identity", 400),
        (b"<html>", JSON, "identity", 400),
        (json_body([checkout()])[:-5], JSON, "identity", 400),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[7]}]}]}', JSON, "identity", 400),
        *((compress(BODY)[:-5], PROTOBUF, name, 400) for name, compress in COMPRESSORS.items()),
        *((BODY, PROTOBUF, name, 400) for name in COMPRESSORS if name != "identity"),
        (zlib.compress(BODY) + b"more", PROTOBUF, "deflate", 400),
        (b"", PROTOBUF, "gzip", 400),
        (b"", PROTOBUF, "zstd", 400),
        (BODY, "text/plain", "identity", 415),
        (BODY, "application/octet-stream", "identity", 415),
        (BODY, PROTOBUF, "snappy", 415),
        (BODY, PROTOBUF, "gzip, gzip", 415),
    ],
)
async def test_what_is_no_otlp_is_refused_and_the_next_body_stored(
    tmp_path: Path, body: bytes, content_type: str, encoding: str, status: int
) -> None:
    async with collecting(tmp_path) as sender:
        got, answer, headers = await sender.post(body, content_type=content_type, encoding=encoding)
        assert got == status
        if content_type == JSON:
            assert set(msgspec.json.decode(answer)) == {"code", "message"}
        else:
            assert headers["Content-Type"] == PROTOBUF
            assert Status.FromString(answer).message
        assert await sender.traces() == []
        assert (await sender.post(BODY))[0] == 200
        assert (await sender.traces())[0]["spans"] == 3


async def test_an_empty_request_is_a_good_one(tmp_path: Path) -> None:
    async with collecting(tmp_path) as sender:
        assert (await sender.post(b""))[:2] == (200, b"")
        assert (await sender.post(b"{}", content_type=JSON))[:2] == (200, b"{}")


async def test_a_body_over_32_mb_is_refused_announced_or_not(tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY // (1 << 20) + 1):
            yield bytes(1 << 20)

    async with collecting(tmp_path) as sender:
        assert (await sender.post(io.BytesIO(bytes(MAX_BODY + 1))))[0] == 413
        assert (await sender.post(chunks()))[0] == 413
        assert (await sender.post(BODY))[0] == 200


class InSmallPieces:
    """A request whose sender lets its body trickle."""

    content_length = None

    def __init__(self, pieces: int) -> None:
        self.content = self
        self._left = pieces

    async def readany(self) -> bytes:
        self._left -= 1
        return self._left.to_bytes(4, "big") if self._left >= 0 else b""


async def check_a_body_that_trickles_takes_no_more_memory(directory: Path) -> None:
    pieces = 50_000
    wanted = b"".join(number.to_bytes(4, "big") for number in reversed(range(pieces)))
    with (
        contextlib.closing(SQLiteStore(directory)) as store,
        contextlib.closing(Writer(store)) as writer,
        contextlib.closing(Receiver(writer, Counters())) as receiver,
        Admission(MAX_BODY).ticket() as ticket,
    ):
        tracemalloc.start()
        body = await receiver._read(InSmallPieces(pieces), ticket)  # type: ignore[arg-type]
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert body == wanted
    assert most < 4 * len(wanted)


async def test_a_body_that_trickles_takes_no_more_memory(tmp_path: Path) -> None:
    await check_a_body_that_trickles_takes_no_more_memory(tmp_path)


async def test_a_receiver_that_keeps_all_pieces_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_receive, "MOST_PIECES", 10**9)
    with pytest.raises(AssertionError):
        await check_a_body_that_trickles_takes_no_more_memory(tmp_path)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
async def test_a_bomb_is_refused(tmp_path: Path, encoding: str) -> None:
    bomb = COMPRESSORS[encoding](bytes(MAX_EXPANDED + 1))
    assert len(bomb) < MAX_EXPANDED // 500
    async with collecting(tmp_path) as sender:
        assert (await sender.post(bomb, encoding=encoding))[0] == 413
        assert (await sender.post(BODY))[0] == 200


def memory_of_a_bomb(undo: Callable[[bytes, str, int], bytes], encoding: str) -> int:
    bomb = COMPRESSORS[encoding](bytes(100_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(Refused) as refusal:
            undo(bomb, encoding, 1_000_000)
        assert refusal.value.status == 413
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def expand_then_look(body: bytes, encoding: str, limit: int) -> bytes:
    """The faulty way: the size is judged when everything is there."""
    expanded = zstandard.decompress(body) if encoding == "zstd" else zlib.decompress(body, wbits=47)
    if len(expanded) > limit:
        raise Refused(413, "too large")
    return expanded


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_bomb_is_stopped_while_it_expands(encoding: str) -> None:
    assert memory_of_a_bomb(expand, encoding) < 20_000_000
    assert memory_of_a_bomb(expand_then_look, encoding) > 20_000_000


def test_zstd_cannot_ask_for_a_huge_window() -> None:
    window = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=False)
    writer = zstandard.ZstdCompressor(compression_params=window).compressobj()
    body = writer.compress(BODY) + writer.flush()
    with pytest.raises(Refused, match="damaged") as refusal:
        expand(body, "zstd", 1_000_000)
    assert refusal.value.status == 400


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, len(BODY)), st.sampled_from([PROTOBUF, JSON]))
def test_no_bytes_cause_anything_but_spans_or_a_refusal(noise: bytes, place: int, content_type: str) -> None:
    for body in (noise, BODY[:place] + noise + BODY[place + len(noise) :]):
        assert status_of(READERS[Signal.TRACES, content_type], Scanner(), body) in (200, 400)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["gzip", "deflate", "zstd"]), st.binary(min_size=1, max_size=4), st.integers(0, len(BODY) // 2))
def test_damaged_compression_causes_bytes_or_a_refusal(encoding: str, noise: bytes, place: int) -> None:
    body = COMPRESSORS[encoding](BODY)
    damaged = body[:place] + noise + body[place + len(noise) :]
    assert status_of(expand, damaged, encoding, 1_000_000) in (200, 400, 413)


def status_of(step: Callable[..., object], *arguments: object) -> int:
    try:
        step(*arguments)
    except Refused as refusal:
        return refusal.status
    except WireError:
        return 400
    return 200


def test_gzip_may_be_padded_with_zeros() -> None:
    assert expand(gzip.compress(BODY) + bytes(100), "gzip", 1_000_000) == BODY


# ── much of a little ────────────────────────────────────────────────────────────────────────────────────────


def nested(depth: int) -> bytes:
    """An attribute's value, arrays inside one another."""
    value = b""
    for _ in range(depth):
        value = length_delimited(b"\x2a", length_delimited(b"\x0a", value))
    return value


def one_span(*fields: bytes) -> bytes:
    message = b"\x0a\x10" + bytes(range(16)) + b"\x12\x08" + bytes(range(8)) + b"".join(fields)
    return in_a_request(length_delimited(b"\x12", message))


def in_a_request(records: bytes) -> bytes:
    return length_delimited(b"\x0a", length_delimited(b"\x12", records))


MANY = 20_001
"""One more than these tests allow; else it is a million."""
EMPTY_ATTRIBUTE = b"\x4a\x00"
MUCH: dict[str, tuple[bytes, str]] = {
    "too many attributes of one span": (one_span(EMPTY_ATTRIBUTE * MANY), PROTOBUF),
    "too many empty spans": (in_a_request(b"\x12\x00" * MANY), PROTOBUF),
    "too many empty resources": (b"\x0a\x00" * MANY, PROTOBUF),
    "too many empty scopes": (length_delimited(b"\x0a", b"\x12\x00" * MANY), PROTOBUF),
    "too many events": (one_span(b"\x5a\x00" * MANY), PROTOBUF),
    "too many links": (one_span(b"\x6a\x00" * MANY), PROTOBUF),
    "too many unknown fields": (b"\x78\x00" * MANY, PROTOBUF),
    "too many objects": (b'{"resourceSpans":[' + b"{}," * MANY + b"{}]}", JSON),
}


@pytest.mark.parametrize(("body", "content_type"), MUCH.values(), ids=MUCH)
async def test_more_parts_than_a_request_may_have_are_refused(
    tmp_path: Path, body: bytes, content_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asynctrace.collector.receiving._intake.MOST_PARTS", MANY - 1)
    monkeypatch.setattr("asynctrace.collector.receiving._json.MOST_BRACES", MANY - 1)
    async with collecting(tmp_path) as sender:
        status, answer, _ = await sender.post(gzip.compress(body, 1), content_type=content_type, encoding="gzip")
        assert status == 413, answer
        assert b"send fewer" in answer
        assert (await sender.post(BODY))[0] == 200


STRANGE: dict[str, bytes] = {
    "values 20 deep": one_span(length_delimited(b"\x4a", b"\x0a\x01k" + length_delimited(b"\x12", nested(20)))),
    "100,000 attributes": one_span(length_delimited(b"\x4a", b"\x0a\x01k") * 100_000),
    "a name of a megabyte": one_span(length_delimited(b"\x2a", b"n" * 1_000_000)),
    "a value of a megabyte": protobuf([group(span(attributes={"k": "v" * 1_000_000}))]),
    "no times at all": one_span(),
    "the last nanosecond of 64 bits": protobuf([group(span(start=2**64 - 1 - START, duration=0))]),
    "an end before its start": protobuf([group(msgspec.structs.replace(span(), end_ns=1))]),
    "a span that is its own parent": protobuf([group(span(1, 1, parent=1))]),
    "a circle of parents": protobuf([group(span(1, 1, parent=2), span(1, 2, parent=1))]),
    "an id that came twice": protobuf([group(span(1, 1), span(1, 1, name="other"))]),
}


@pytest.mark.parametrize("body", STRANGE.values(), ids=STRANGE)
async def test_what_is_strange_and_valid_is_kept_and_can_be_read(tmp_path: Path, body: bytes) -> None:
    async with collecting(tmp_path) as sender:
        assert (await sender.post(body))[:2] == (200, b"")
        (trace,) = await sender.traces()
        assert (await sender.get(f"/api/v1/traces/{trace['trace_id']}.otlp.json"))[0] == 200


@pytest.mark.parametrize("depth", [40, 60, 70, 200])
@pytest.mark.parametrize("where", [b"\x4a", b"\x5a", b"\x6a"], ids=["span", "event", "link"])
async def test_values_too_deep_to_give_back_reject_one_span_only(tmp_path: Path, where: bytes, depth: int) -> None:
    attribute = b"\x0a\x01k" + length_delimited(b"\x12", nested(depth))
    inside = {
        b"\x4a": attribute,
        b"\x5a": length_delimited(b"\x1a", attribute),
        b"\x6a": length_delimited(b"\x22", attribute),
    }
    deep = one_span(length_delimited(where, inside[where]))
    async with collecting(tmp_path) as sender:
        status, answer, _ = await sender.post(deep + BODY)
        assert (status, decode_response(answer)[0]) == (200, 1)
        assert (await sender.traces())[0]["spans"] == 3


async def test_text_that_is_not_utf_8_rejects_one_span_only(tmp_path: Path) -> None:
    async with collecting(tmp_path) as sender:
        status, answer, _ = await sender.post(BODY.replace(b"cache miss", b"cache\xff\xfe..."))
        assert (status, decode_response(answer)[0]) == (200, 1)
        assert (await sender.traces())[0]["spans"] == 2


def test_a_resource_in_many_pieces_costs_no_more_than_one() -> None:
    pieces = length_delimited(b"\x0a", b"\x0a\x06\x0a\x01k\x12\x01") * 3
    many = length_delimited(b"\x0a", length_delimited(b"\x0a", b"\x12" + b"\x00") * 200_000)
    with pytest.raises(WireError):
        Scanner().request(length_delimited(b"\x0a", pieces + b"\x12\x00"))
    assert Scanner().request(many).rows == []


# ── what is no HTTP ─────────────────────────────────────────────────────────────────────────────────────────


async def check_nothing_is_printed(directory: Path, request: bytes, logs: pytest.LogCaptureFixture) -> None:
    async with collecting(directory) as sender:
        where = urlsplit(sender.url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(request)
        async with asyncio.timeout(30):
            answer = await reader.read()
        writer.close()
        assert answer.split()[1] == b"400"
        assert not logs.records
        assert (await sender.post(BODY))[0] == 200


TOO_LONG = b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"a" * 70_000)


@pytest.mark.parametrize("request_", [TOO_LONG, b"GET / HTTP/1.1\r\nHost: localhost\r\nno name\x00: x\r\n\r\n"])
async def test_what_is_no_http_is_told_its_sender_and_nobody_else(
    tmp_path: Path, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await check_nothing_is_printed(tmp_path, request_, caplog)


async def test_a_collector_that_prints_what_others_get_wrong_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_site, "LOGGER", logging.getLogger("asynctrace.collector.talkative"))
    monkeypatch.setattr(_site, "_is_ours", lambda record: True)
    with pytest.raises(AssertionError):
        await check_nothing_is_printed(tmp_path, TOO_LONG, caplog)
