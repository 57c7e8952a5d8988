"""A worker, its stream and a store with a fault: what is stored, what is acknowledged, what is a dead letter."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from asynctrace.collector import SQLiteStore
from asynctrace.collector._rows import Received
from asynctrace.collector.fleet import Worker, _settling
from asynctrace.collector.fleet._settling import Settling
from asynctrace.stream import Claim, Message, RedisStream
from asynctrace.stream._slots import shard_keys

from ...stream.servers import Node
from ..doubles import StoreOnAFullDisk, StoreThatChokes, StoreThatHolds
from ..traffic import group, protobuf, span

pytestmark = pytest.mark.anyio

DEADLINE = 60.0


@pytest.fixture
async def stream(redis: Node, prefix: str) -> AsyncIterator[RedisStream]:
    """One shard, so that what is appended together is claimed together; a lease that nobody else waits for."""
    stream = RedisStream(redis.url, prefix=prefix, shards=1, linger=0.2, block=0.2)
    yield stream
    await stream.aclose()


def message(trace: int, *names: str) -> Message:
    spans = [span(trace, number, name=name) for number, name in enumerate(names, start=1)]
    return Message(records=len(spans), key=f"log-{trace}:0:{len(spans)}", body=protobuf([group(*spans)]))


@contextlib.asynccontextmanager
async def working(stream: RedisStream, store: SQLiteStore, **options: float) -> AsyncIterator[Worker]:
    async with Worker(stream, store, at_once=1, **options) as worker:  # type: ignore[arg-type]
        yield worker


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            assert what
            await asyncio.sleep(0.02)


async def emptied(stream: RedisStream) -> None:
    async with asyncio.timeout(DEADLINE):
        while (await stream.depth()).entries:
            assert stream
            await asyncio.sleep(0.05)


def spans_in(store: SQLiteStore) -> dict[int, int]:
    return {int(line.trace_id, 16): line.spans for line in store.runs(100).traces}


async def test_what_a_store_cannot_take_is_a_dead_letter_and_its_neighbors_are_stored(
    tmp_path: Path, redis: Node, prefix: str, stream: RedisStream
) -> None:
    with contextlib.closing(StoreThatChokes(tmp_path)) as store:
        for each in (message(1, "work"), message(2, "work", "choke"), message(3, "work", "work")):
            await stream.append(each)
        async with working(stream, store) as worker:
            await emptied(stream)
            assert worker._tally.total("dead_lettered") == 1
        assert spans_in(store) == {1: 1, 3: 2}
    (letter,) = redis.ask("XRANGE", shard_keys(prefix, 0).dead, "-", "+")
    fields = dict(zip(letter[1][::2], letter[1][1::2], strict=True))
    assert b"unforeseen" in fields[b"dead-reason"]
    assert fields[b"key"] == b"log-2:0:2"


class _RemembersTokens(StoreThatChokes):
    tokens: list[str]

    def add(self, received: Sequence[Received], *, token: str = "") -> None:
        super().add(received, token=token)
        self.tokens.append(token)


async def tokens_of_two_streams(tmp_path: Path, redis: Node, prefix: str) -> list[str]:
    """Their messages have the same shard and id, and one neither store can take follows."""
    found: list[str] = []
    for trace in (1, 2):
        name = f"{prefix}-{trace}"
        for number, each in enumerate((message(trace, "work"), message(9, "choke")), start=1):
            fields = [word for field in each.to_fields().items() for word in field]
            redis.ask("XADD", shard_keys(name, 0).entries, f"5-{number}", *fields)
        stream = RedisStream(redis.url, prefix=name, shards=1, linger=0.0, block=0.2)
        with contextlib.closing(_RemembersTokens(tmp_path / name)) as store:
            store.tokens = found
            async with working(stream, store):
                await emptied(stream)
        await stream.aclose()
    return found


async def test_messages_of_two_streams_never_share_a_token(tmp_path: Path, redis: Node, prefix: str) -> None:
    first, second = await tokens_of_two_streams(tmp_path, redis, prefix)
    assert first != second


async def test_tokens_made_of_the_place_alone_are_noticed(
    tmp_path: Path, redis: Node, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_settling, "_token_of", lambda shard, delivery: f"{shard}-{delivery.id}")
    first, second = await tokens_of_two_streams(tmp_path, redis, prefix)
    assert first == second


async def test_a_full_disk_makes_no_dead_letter(tmp_path: Path, stream: RedisStream) -> None:
    with contextlib.closing(StoreOnAFullDisk(tmp_path)) as store:
        await stream.append(message(1, "work"))
        async with working(stream, store) as worker:
            await until(lambda: worker._tally.total("retries") > 1, "it tries again")
            assert "free some space" in worker._trouble()
            store.full = False
            await emptied(stream)
            assert worker._trouble() == ""
        assert spans_in(store) == {1: 1}
        assert (await stream.depth()).dead == 0


async def check_a_lost_lease(tmp_path: Path, redis: Node, prefix: str, stream: RedisStream) -> None:
    """While the store works, the shard becomes somebody else's."""
    with contextlib.closing(StoreThatHolds(tmp_path)) as store:
        await stream.append(message(1, "work"))
        async with working(stream, store, lease=0.3) as worker:
            await asyncio.to_thread(store.entered.wait, DEADLINE)
            redis.ask("SET", shard_keys(prefix, 0).lease, "somebody else", "PX", 600_000)
            try:
                async with asyncio.timeout(5):
                    while not worker._tally.total("leases_lost"):
                        assert worker
                        await asyncio.sleep(0.02)
            finally:
                store.release.set()
            assert worker._tally.total("acknowledged") == 0
            assert (await stream.depth()).entries == 1


async def test_who_lost_the_lease_stops_and_acknowledges_nothing(
    tmp_path: Path, redis: Node, prefix: str, stream: RedisStream
) -> None:
    await check_a_lost_lease(tmp_path, redis, prefix, stream)


async def test_a_worker_that_never_asks_for_its_lease_is_caught(
    tmp_path: Path, redis: Node, prefix: str, stream: RedisStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_extended(self: Settling) -> bool:
        return True

    monkeypatch.setattr(Settling, "_is_extended", is_extended)
    with pytest.raises(TimeoutError):
        await check_a_lost_lease(tmp_path, redis, prefix, stream)


async def test_the_lease_is_kept_while_the_store_takes_its_time(tmp_path: Path, redis: Node, prefix: str) -> None:
    stream = RedisStream(redis.url, prefix=prefix, shards=1, linger=0.0, block=0.2, lease=1.0)
    with contextlib.closing(StoreThatHolds(tmp_path)) as store:
        await stream.append(message(1, "work"))
        async with working(stream, store, lease=1.0) as worker:
            await asyncio.to_thread(store.entered.wait, DEADLINE)
            extended = 0
            extend = stream.extend

            async def counted(claim: Claim) -> bool:
                nonlocal extended
                extended += 1
                return await extend(claim)

            stream.extend = counted  # type: ignore[method-assign]
            await until(lambda: extended >= 8, "longer than the lease lasts")
            assert await stream.claim("another") is None
            store.release.set()
            await emptied(stream)
            assert worker._tally.total("leases_lost") == 0
        assert spans_in(store) == {1: 1}
    await stream.aclose()


async def test_told_to_end_a_worker_does_not_wait_for_a_store_that_is_away(tmp_path: Path, stream: RedisStream) -> None:
    with contextlib.closing(StoreOnAFullDisk(tmp_path)) as store:
        await stream.append(message(1, "work"))
        async with working(stream, store) as worker:
            await until(lambda: worker._tally.total("retries") > 0, "it tries again")
            async with asyncio.timeout(15):  # its patience would be 20
                await worker.aclose()
            assert worker._tally.total("given_back") == 1
        assert (await stream.depth()).entries == 1
