"""A Redis that others use too, and one that is set up badly: one line says so, and everything else goes on."""

from __future__ import annotations

import asyncio

import pytest

from asynctrace._errors import StreamAway, StreamError
from asynctrace.stream import _redis
from asynctrace.stream._slots import shard_keys

from .load import at, within
from .places import Place
from .servers import Servers
from .streams import a_message, drained, opened

pytestmark = pytest.mark.anyio


async def test_keys_of_others_are_left_alone(standalone: Place, prefix: str) -> None:
    node = standalone.nodes[0]
    others = {f"{prefix}:{{00}}": "tag", f"{prefix}:settings": "mine", f"{prefix}:{{00}}:inbox": "near", prefix: "bare"}
    for key, value in others.items():
        node.ask("SET", key, value)
    async with opened(standalone, prefix) as stream:
        for number in range(20):
            await stream.append(a_message(number))
        assert len(await drained(stream)) == 20
    assert {key: node.ask("GET", key).decode() for key in others} == others


@pytest.mark.parametrize("name", ["entries", "bytes", "lease", "dead"])
async def test_a_key_of_somebody_else_in_the_way_costs_its_shard_only(
    standalone: Place, prefix: str, name: str
) -> None:
    standalone.nodes[0].ask("HSET", getattr(shard_keys(prefix, 0), name), "of", "somebody")
    async with opened(standalone, prefix, shards=8, dead=1) as stream:
        answers = [await _sent(stream, number) for number in range(64)]
        errors = {str(each) for each in answers if each is not None}
        assert all("a key of somebody else under this prefix: choose another prefix" in each for each in errors)
        assert all("\n" not in each for each in errors)
        assert answers.count(None) >= 32
        stored = await drained(stream)
        assert len(stored) >= 32
        assert set(stored) <= {a_message(number).body for number, each in enumerate(answers) if each is None}
    assert standalone.nodes[0].ask("HGET", getattr(shard_keys(prefix, 0), name), "of") == b"somebody"


async def _sent(stream: _redis.RedisStream, number: int) -> StreamError | None:
    try:
        await stream.append(a_message(number))
    except StreamAway:
        raise
    except StreamError as error:
        return error
    return None


async def test_a_dead_letter_that_cannot_be_put_aside_stays(standalone: Place, prefix: str) -> None:
    standalone.nodes[0].ask("SET", shard_keys(prefix, 0).dead, "of somebody")
    async with opened(standalone, prefix, shards=1) as stream:
        await stream.append(a_message(1))
        claim = await stream.claim("worker")
        assert claim is not None
        with pytest.raises(StreamError, match="a key of somebody else"):
            await stream.dead_letter(claim, claim.deliveries[0], "it is tried")
        assert standalone.nodes[0].ask("XLEN", shard_keys(prefix, 0).entries) == 1


async def test_entries_of_others_in_our_stream_are_poison(standalone: Place, prefix: str) -> None:
    keys = shard_keys(prefix, 0)
    async with opened(standalone, prefix, shards=1) as stream:
        await stream.append(a_message(1))
        standalone.nodes[0].ask("XADD", keys.entries, "*", "hello", "world")
        await stream.append(a_message(2))
        claim = await stream.claim("worker")
        assert claim is not None
        (strange,) = [each for each in claim.deliveries if each.message is None]
        assert strange.fields == {b"hello": b"world"}
        assert strange.error
        rest = await stream.dead_letter(claim, strange, strange.error)
        await stream.acknowledge(rest)
        depth = await stream.depth()
        assert (depth.entries, depth.dead) == (0, 1)


async def test_a_policy_that_may_throw_entries_away_is_told_and_looked_at_again(
    servers: Servers, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_redis, "_MINUTE", 0.05)
    cluster = servers.cluster(1)
    node = cluster.nodes[0]
    async with opened(at(cluster.url), prefix) as stream:
        await stream.check()
        await stream.append(a_message(1))
        assert stream.warning == ""
        node.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        await within(20, lambda: stream.warning, "it is told")
        assert f"127.0.0.1:{node.port} may throw spans away: maxmemory-policy is allkeys-lru" in stream.warning
        assert "\n" not in stream.warning
        await asyncio.sleep(0.3)  # a few more looks
        node.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await within(20, lambda: not stream.warning, "it is well again")
    assert capsys.readouterr().err.count("may throw spans away") == 1


async def test_a_policy_that_nobody_reads_again_is_noticed(
    servers: Servers, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant: it is read at the start only."""
    monkeypatch.setattr(_redis, "_MINUTE", 3600.0)
    node = servers.standalone()
    async with opened(at(node.url), prefix) as stream:
        await stream.append(a_message(1))
        await within(20, lambda: stream._upkeep is not None and not stream._router._doubt, "the first look is over")
        await asyncio.sleep(0.2)
        node.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        with pytest.raises(AssertionError):
            await within(1, lambda: stream.warning, "it is told")
