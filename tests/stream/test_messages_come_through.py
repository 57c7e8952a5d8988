"""What is appended is claimed, in order within its shard, until it is acknowledged: on every kind of Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import chain

import pytest

from asynctrace.stream import Message, Stream

from .places import Place
from .streams import a_message, all_claims, bodies, drained, opened

pytestmark = pytest.mark.anyio


async def test_every_message_comes_through_once(everywhere: Place, prefix: str) -> None:
    messages = [a_message(number) for number in range(100)]
    async with opened(everywhere, prefix, shards=16) as stream:
        assert isinstance(stream, Stream)
        await asyncio.gather(*map(stream.append, messages))
        depth = await stream.depth()
        assert (depth.entries, depth.pending, len(depth.shards)) == (100, 0, 16)
        assert depth.bytes == sum(shard.bytes for shard in depth.shards) > 100 * 10
        assert Counter(await drained(stream)) == Counter(message.body for message in messages)
        after = await stream.depth()
        assert (after.entries, after.bytes, after.pending, after.oldest_seconds) == (0, 0, 0, 0)
        assert await stream.claim("w") is None
        told = stream.statistics()
        assert (told.appended, told.appended_records, told.claimed, told.acknowledged) == (100, 100, 100, 100)


async def test_a_message_arrives_as_it_was_sent(everywhere: Place, prefix: str) -> None:
    sent = Message(
        signal="logs", key="log:7:3", records=3, codec="gzip", body=bytes(range(256)), extra={b"region": b"\xff"}
    )
    async with opened(everywhere, prefix) as stream:
        await stream.append(sent)
        claim = await stream.claim("w")
        assert claim is not None
        (delivery,) = claim.deliveries
        assert (delivery.message, delivery.attempts, delivery.error) == (sent, 1, "")
        assert claim.records == 3
        await stream.acknowledge(claim)


async def test_messages_of_a_shard_come_in_the_order_they_were_appended(standalone: Place, prefix: str) -> None:
    messages = [a_message(number) for number in range(50)]
    async with opened(standalone, prefix, shards=1, batch_entries=20) as stream:
        for message in messages:
            await stream.append(message)
        assert await drained(stream) == [message.body for message in messages]


async def test_a_batch_is_bounded_in_entries_and_in_bytes(standalone: Place, prefix: str) -> None:
    async with opened(standalone, prefix, shards=1, batch_entries=10, batch_bytes=5_000) as stream:
        for number in range(25):
            await stream.append(a_message(number))
        first = await stream.claim("w")
        assert first is not None
        assert len(first.deliveries) == 10
        await stream.acknowledge(first)
        await drained(stream)
        for number in range(10):
            await stream.append(a_message(number, size=2_000))
        second = await stream.claim("w")
        assert second is not None
        assert len(second.deliveries) == 2
        await stream.acknowledge(second)


async def test_a_batch_waits_until_it_is_worth_it_or_old_enough(standalone: Place, prefix: str) -> None:
    async with opened(standalone, prefix, shards=1, linger=3600.0, batch_entries=5) as patient:
        for number in range(4):
            await patient.append(a_message(number))
        assert await patient.claim("w") is None
        async with opened(standalone, prefix, shards=1, linger=0.001, block=30.0) as eager:
            claim = await eager.claim("w")
            assert claim is not None
        await patient.append(a_message(4))
        await patient.acknowledge(claim)
        for number in range(5, 9):
            await patient.append(a_message(number))
        assert len(bodies(await all_claims(patient))) == 5


async def test_many_workers_get_each_message_once(cluster_of_3: Place, prefix: str) -> None:
    messages = [a_message(number) for number in range(200)]
    async with (
        opened(cluster_of_3, prefix, shards=16, batch_entries=5) as writer,
        opened(cluster_of_3, prefix, shards=16, batch_entries=5, block=1.0) as one,
        opened(cluster_of_3, prefix, shards=16, batch_entries=5, block=1.0) as other,
    ):
        await asyncio.gather(*map(writer.append, messages))
        found = await asyncio.gather(drained(one), drained(one), drained(other), drained(other))
        assert Counter(chain(*found)) == Counter(message.body for message in messages)
        assert (await writer.depth()).entries == 0
