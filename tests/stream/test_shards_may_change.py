"""The number of shards may change while messages wait, and workers come and go: nothing is lost. No giant trace makes a hot
shard: what is counted is requests."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from asynctrace.stream import RedisStream, _redis
from asynctrace.stream._scripts import COUNT

from .places import Place
from .streams import a_message, drained, opened

pytestmark = pytest.mark.anyio


async def all_are_found(place: Place, prefix: str, before: int, after: int) -> None:
    messages = [a_message(number) for number in range(60)]
    async with opened(place, prefix, shards=before) as old:
        await asyncio.gather(*map(old.append, messages[:30]))
        async with opened(place, prefix, shards=after) as new:
            await asyncio.gather(*map(new.append, messages[30:]))
        async with opened(place, prefix, shards=after) as worker:
            assert (await worker.depth()).entries == 60
            assert Counter(await drained(worker)) == Counter(message.body for message in messages)


@pytest.mark.parametrize(("before", "after"), [(16, 3), (3, 16)])
async def test_messages_of_another_number_of_shards_are_found(
    before: int, after: int, cluster_of_3: Place, prefix: str
) -> None:
    await all_are_found(cluster_of_3, prefix, before, after)


async def test_workers_who_know_only_their_own_number_are_noticed(
    standalone: Place, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_redis, "COUNT", COUNT.replace("return known", "return mine"))
    with pytest.raises(AssertionError):
        await all_are_found(standalone, prefix, 16, 3)


async def test_workers_may_be_replaced_while_messages_flow(cluster_of_3: Place, prefix: str) -> None:
    messages = [a_message(number) for number in range(300)]
    stored: list[bytes] = []
    enough = asyncio.Event()

    async def work(lives: int) -> None:
        for _ in range(lives):
            async with opened(cluster_of_3, prefix, shards=8, batch_entries=4, block=1.0) as worker:
                for _ in range(5):
                    claim = await worker.claim("w")
                    if claim is not None:
                        stored.extend(each.message.body for each in claim.deliveries if each.message is not None)
                        await worker.acknowledge(claim)
        enough.set()

    async def write(stream: RedisStream) -> None:
        for message in messages:
            await stream.append(message)

    async with opened(cluster_of_3, prefix, shards=8) as stream:
        await asyncio.gather(write(stream), work(3), work(3))
        stored += await drained(stream)
    assert Counter(stored) == Counter(message.body for message in messages)


async def one_trace_spreads(place: Place, prefix: str) -> None:
    """A trace of 1,500 requests, each with its own key."""
    async with opened(place, prefix, shards=8, max_bytes=1 << 30) as stream:
        for start in range(0, 1_500, 500):
            await asyncio.gather(*(stream.append(a_message(number)) for number in range(start, start + 500)))
        counts = [shard.entries for shard in (await stream.depth()).shards]
        assert max(counts) < 2 * min(counts), counts


async def test_one_trace_spreads_over_all_shards(standalone: Place, prefix: str) -> None:
    await one_trace_spreads(standalone, prefix)


async def test_a_shard_by_log_is_noticed(standalone: Place, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_redis, "crc32", lambda key: hash(key.partition(b":")[0]))
    with pytest.raises(AssertionError):
        await one_trace_spreads(standalone, prefix)


async def test_a_request_that_is_repeated_goes_to_the_same_shard(standalone: Place, prefix: str) -> None:
    """So that one worker meets both copies, one after the other."""
    async with opened(standalone, prefix, shards=16) as one, opened(standalone, prefix, shards=16) as other:
        for number in range(20):
            await one.append(a_message(number))
            await other.append(a_message(number))
        assert all(shard.entries % 2 == 0 for shard in (await one.depth()).shards)
