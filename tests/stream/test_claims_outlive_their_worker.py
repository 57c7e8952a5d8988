"""A batch whose worker dies comes again, exactly as it was and under the same token; nobody else touches it before."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

import anyio
import msgspec
import pytest

from asynctrace.stream import Claim, RedisStream, _redis
from asynctrace.stream._slots import shard_keys

from .places import Place
from .streams import a_message, all_claims, bodies, break_script, drained, expire_lease, opened

pytestmark = pytest.mark.anyio

Check = Callable[[Place, str], Awaitable[None]]


async def claimed(stream: RedisStream, worker: str = "w") -> Claim:
    claim = await stream.claim(worker)
    assert claim is not None
    return claim


async def the_same_batch_comes_again(place: Place, prefix: str) -> None:
    async with opened(place, prefix, shards=1) as dead, opened(place, prefix, shards=1, batch_entries=3) as heir:
        for number in range(5):
            await dead.append(a_message(number))
        first = await claimed(dead, "first")
        for number in range(5, 9):
            await dead.append(a_message(number))
        expire_lease(place.nodes, prefix, first)
        again = await claimed(heir, "second")
        assert (again.token, [each.id for each in again.deliveries]) == (first.token, [e.id for e in first.deliveries])
        assert [each.fields for each in again.deliveries] == [each.fields for each in first.deliveries]
        assert [each.attempts for each in again.deliveries] == [2] * 5
        await heir.acknowledge(again)
        assert await drained(heir) == [a_message(number).body for number in range(5, 9)]


async def a_lease_keeps_others_away(place: Place, prefix: str) -> None:
    async with opened(place, prefix, shards=1) as holder, opened(place, prefix, shards=1) as other:
        await holder.append(a_message(1))
        claim = await claimed(holder)
        await holder.append(a_message(2))
        assert await other.claim("other") is None
        assert await holder.claim("w") is None
        assert await holder.extend(claim)
        await holder.acknowledge(claim)
        assert bodies(await all_claims(other)) == [a_message(2).body]


async def who_lost_a_lease_is_told(place: Place, prefix: str) -> None:
    async with opened(place, prefix, shards=1) as slow, opened(place, prefix, shards=1) as heir:
        await slow.append(a_message(1))
        await slow.append(a_message(2))
        first = await claimed(slow)
        expire_lease(place.nodes, prefix, first)
        assert not await slow.extend(first)
        second = await claimed(heir)
        assert not await slow.extend(first)
        assert (await slow.dead_letter(first, first.deliveries[0], "late")).deliveries == ()
        assert await heir.extend(second)
        assert (await heir.depth()).dead == 0
        await heir.acknowledge(second)


async def what_was_stored_late_is_not_claimed_again(place: Place, prefix: str) -> None:
    async with opened(place, prefix, shards=1) as slow, opened(place, prefix, shards=1) as heir:
        for number in range(3):
            await slow.append(a_message(number))
        first = await claimed(slow)
        expire_lease(place.nodes, prefix, first)
        await slow.acknowledge(first)
        assert await heir.claim("heir") is None
        await slow.append(a_message(3))
        second = await claimed(heir)
        expire_lease(place.nodes, prefix, second)
        third = await claimed(slow)
        await heir.acknowledge(second)
        await slow.acknowledge(third)
        await slow.acknowledge(third)
        depth = await slow.depth()
        assert (depth.entries, depth.bytes, depth.pending, depth.lost) == (0, 0, 0, 0)


async def a_claim_whose_answer_was_lost_is_given_again(place: Place, prefix: str) -> None:
    async with opened(place, prefix, shards=1) as stream:
        for number in range(3):
            await stream.append(a_message(number))
        keys = shard_keys(prefix, 0)
        words = (10, 10_000, 0, "the same holder", 60_000, 3)
        first = await stream._call(_redis.CLAIM, keys, *words)
        for _ in range(6):  # while a replica is away, say: it is no attempt, and no reason for a dead letter
            assert await stream._call(_redis.CLAIM, keys, *words) == first
        assert await stream._call(_redis.CLAIM, keys, 10, 10_000, 0, "another", 60_000, 3) == []


async def room_is_counted(place: Place, prefix: str) -> None:
    async with opened(place, prefix, shards=1) as stream:
        for number in range(3):
            await stream.append(a_message(number))
        full = await stream.depth()
        assert full.bytes > 0
        claim = await claimed(stream)
        await stream.append(a_message(9))
        await stream.acknowledge(claim)
        assert (await stream.depth()).bytes == full.bytes // 3


CHECKS: list[Check] = [
    the_same_batch_comes_again,
    a_lease_keeps_others_away,
    who_lost_a_lease_is_told,
    what_was_stored_late_is_not_claimed_again,
    a_claim_whose_answer_was_lost_is_given_again,
    room_is_counted,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_holds(check: Check, standalone: Place, prefix: str) -> None:
    await check(standalone, prefix)


@pytest.mark.parametrize("check", CHECKS[:4], ids=lambda check: check.__name__)
async def test_it_holds_in_a_cluster(check: Check, cluster_of_3: Place, prefix: str) -> None:
    await check(cluster_of_3, prefix)


MUTANTS: dict[str, tuple[str, str, str, Check]] = {
    "a heir who reads on instead": (
        "CLAIM",
        "local manifest = redis.call('GET', KEYS[4])",
        "local manifest, claimed = false, {0}",
        the_same_batch_comes_again,
    ),
    "a manifest that is not written": (
        "CLAIM",
        "redis.call('SET', KEYS[4], table.concat(ids, ' '))",
        "",
        the_same_batch_comes_again,
    ),
    "a lease that nobody minds": (
        "CLAIM",
        "if owner then return owner == holder end",
        "",
        a_claim_whose_answer_was_lost_is_given_again,
    ),
    "an extension for anybody": ("EXTEND", "~= ARGV[1]", "== 'x'", who_lost_a_lease_is_told),
    "only the holder may have stored": (
        "ACKNOWLEDGE",
        "local ids, freed = {}, 0",
        "if redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end local ids, freed = {}, 0",
        what_was_stored_late_is_not_claimed_again,
    ),
    "a holder that is not known again": (
        "CLAIM",
        "if owner then return owner == holder end",
        "if owner then return false end",
        a_claim_whose_answer_was_lost_is_given_again,
    ),
    "an attempt for each answer that was lost": (
        "CLAIM",
        "local again = redis.call('GET', KEYS[3]) == ARGV[4]",
        "local again = false",
        a_claim_whose_answer_was_lost_is_given_again,
    ),
    "acknowledged and still there": (
        "ACKNOWLEDGE",
        "redis.call('XDEL', KEYS[1], id) == 1",
        "redis.call('XLEN', KEYS[1]) > 0",
        what_was_stored_late_is_not_claimed_again,
    ),
    "room that is not counted": ("APPEND", "'INCRBY', KEYS[2], size", "'INCRBY', KEYS[2], 0", room_is_counted),
    "room that is not given back": (
        "ACKNOWLEDGE",
        "redis.call('DECRBY', KEYS[2], bytes)",
        "redis.call('DECRBY', KEYS[2], 0)",
        room_is_counted,
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
async def test_a_broken_script_is_noticed(
    mutant: str, standalone: Place, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, before, after, check = MUTANTS[mutant]
    break_script(monkeypatch, name, before, after)
    with pytest.raises(AssertionError):
        await check(standalone, prefix)


async def test_a_token_by_chance_is_noticed(standalone: Place, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_redis, "token_of", lambda *_: str(object()))
    with pytest.raises(AssertionError):
        await the_same_batch_comes_again(standalone, prefix)


async def test_tokens_of_different_batches_differ(standalone: Place, prefix: str) -> None:
    """Two shards, two prefixes and two Redis can give entries the same id."""
    async with opened(standalone, prefix, shards=1) as stream:
        await stream.append(a_message(1))
        claim = await claimed(stream)
        (delivery,) = claim.deliveries
        other = msgspec.structs.replace(delivery, fields={**delivery.fields, b"body": b"2"})
        tokens = {
            _redis.token_of(*each)
            for each in [("a", 0, (delivery,)), ("b", 0, (delivery,)), ("a", 1, (delivery,)), ("a", 0, (other,))]
        }
        assert len(tokens) == 4


async def test_who_leaves_gives_the_lease_back_at_once(standalone: Place, prefix: str) -> None:
    async with opened(standalone, prefix, shards=1) as leaving:
        await leaving.append(a_message(1))
        first = await claimed(leaving)
    async with opened(standalone, prefix, shards=1) as heir:
        assert (await claimed(heir)).token == first.token


KILLED = """
import asyncio, os, signal, sys
from asynctrace.stream import RedisStream

async def main():
    stream = RedisStream(sys.argv[1], prefix=sys.argv[2], shards=2, linger=0.0, lease=1.0, block=20.0)
    claim = await stream.claim("killed")
    print(claim.token, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_the_batch_of_a_killed_process_is_claimed_when_its_lease_has_run_out(
    standalone: Place, prefix: str
) -> None:
    async with opened(standalone, prefix, shards=2, block=30.0) as stream:
        await stream.append(a_message(1))
        killed = await anyio.run_process([sys.executable, "-c", KILLED, standalone.url, prefix], check=False)
        assert killed.returncode == -9, killed.stderr
        again = await claimed(stream)
        assert (again.token, again.deliveries[0].attempts) == (killed.stdout.decode().strip(), 2)
        await stream.acknowledge(again)
