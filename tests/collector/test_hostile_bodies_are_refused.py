"""Bodies that are cut, damaged, too large or of another kind: each has its status, and the next good one is stored."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import zstandard
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asynctrace.collector._body import PROTOBUF as PROTOBUF_TYPE
from asynctrace.collector._body import Refused, expand, parse
from asynctrace.collector._receive import MAX_BODY, MAX_EXPANDED

from .traffic import COMPRESSORS, JSON, PROTOBUF, checkout, collecting, json_body, protobuf

pytestmark = pytest.mark.anyio

BODY = protobuf([checkout()])


@pytest.mark.parametrize(
    ("body", "content_type", "encoding", "status"),
    [
        (BODY[:-5], PROTOBUF, "identity", 400),
        (b"\xff" * 40, PROTOBUF, "identity", 400),
        (b"<html>", JSON, "identity", 400),
        (json_body([checkout()])[:-5], JSON, "identity", 400),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz"}]}]}]}', JSON, "identity", 400),
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


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200), st.integers(0, len(BODY)), st.sampled_from([PROTOBUF_TYPE, JSON]))
def test_no_bytes_cause_anything_but_spans_or_a_refusal(noise: bytes, place: int, content_type: str) -> None:
    for body in (noise, BODY[:place] + noise + BODY[place + len(noise) :]):
        assert status_of(parse, body, content_type) in (200, 400)


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
    return 200


def test_gzip_may_be_padded_with_zeros() -> None:
    assert expand(gzip.compress(BODY) + bytes(100), "gzip", 1_000_000) == BODY
