"""Nothing is dropped to make room: a stream that is full says so, and when to come again; what it holds stays."""

from __future__ import annotations

import msgspec
import pytest

from asynctrace._errors import MessageTooLarge, StreamFull
from asynctrace.stream import RedisStream, _redis
from asynctrace.stream._scripts import ACKNOWLEDGE, APPEND, Script
from asynctrace.stream._slots import shard_keys

from .places import Place
from .servers import Servers, free_ports
from .streams import a_message, drained, opened

pytestmark = pytest.mark.anyio


async def appended_until_refused(stream: RedisStream, size: int, taken: list[bytes]) -> StreamFull:
    for number in range(1, 100):
        message = a_message(number, size=size)
        try:
            await stream.append(message)
        except StreamFull as error:
            return error
        taken.append(message.body)
    raise AssertionError("it takes everything")


async def what_is_full_keeps_everything(place: Place, prefix: str) -> None:
    async with opened(place, prefix, shards=2, max_bytes=20_000) as stream:
        taken: list[bytes] = []
        refused = await appended_until_refused(stream, 1_000, taken)
        assert 0 < refused.retry_after < 60
        depth = await stream.depth()
        assert 10 <= len(taken) == depth.entries <= 20
        assert depth.bytes <= 20_000
        assert (stream.statistics().refused_full, stream.statistics().appended) == (1, len(taken))
        assert sorted(await drained(stream)) == sorted(taken)
        assert (await stream.depth()).bytes == 0
        await stream.append(a_message(1, size=1_000))


async def memory_that_is_full_can_be_emptied(place: Place, prefix: str) -> None:
    (node,) = place.nodes
    async with opened(place, prefix, shards=2, max_bytes=1 << 40) as stream:
        await stream.append(a_message(0))
        node.ask("CONFIG", "SET", "maxmemory", int(node.section("memory")["used_memory"]) + 3_000_000)
        taken = [a_message(0).body]
        assert "out of memory" in str(await appended_until_refused(stream, 100_000, taken))
        assert sorted(await drained(stream)) == sorted(taken)
        await stream.append(a_message(1, size=100_000))
        assert len(await drained(stream)) == 1


def alone(servers: Servers) -> Place:
    node = servers.standalone()
    return Place(node.url, 1, False, "standalone", [node])


async def test_a_full_stream_keeps_everything(everywhere: Place, prefix: str) -> None:
    await what_is_full_keeps_everything(everywhere, prefix)


async def test_full_memory_can_be_emptied(servers: Servers, prefix: str) -> None:
    await memory_that_is_full_can_be_emptied(alone(servers), prefix)


async def what_somebody_emptied_has_room(place: Place, prefix: str) -> None:
    """Deleted, or evicted: there is no entry whose acknowledgement would count the bytes down."""
    (node,) = place.nodes
    async with opened(place, prefix, shards=1, max_bytes=5_000) as stream:
        await appended_until_refused(stream, 1_000, [])
        node.ask("DEL", shard_keys(prefix, 0).entries)
        await stream.append(a_message(1, size=1_000))
        assert (await stream.depth()).bytes < 2_000
        assert len(await drained(stream)) == 1


async def test_a_shard_that_somebody_else_emptied_has_room(standalone: Place, prefix: str) -> None:
    await what_somebody_emptied_has_room(standalone, prefix)


async def test_a_counter_that_is_believed_for_ever_is_noticed(
    standalone: Place, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = "if redis.call('XLEN', KEYS[1]) > 0 then"
    assert before in APPEND.text
    broken = APPEND.text.replace(before, "if true then")
    monkeypatch.setattr(_redis, "APPEND", msgspec.structs.replace(APPEND, text=broken))
    with pytest.raises(StreamFull):
        await what_somebody_emptied_has_room(standalone, prefix)


MUTANTS: dict[str, tuple[str, Script, str, str]] = {
    "the oldest dropped to make room": ("APPEND", APPEND, "KEYS[1], '*'", "KEYS[1], 'MAXLEN', '5', '*'"),
    "room that is not looked at": ("APPEND", APPEND, "if held > 0 and", "if false and"),
    "room that is never given back": ("ACKNOWLEDGE", ACKNOWLEDGE, "redis.call('SET', KEYS[2], 0)", "bytes = 0"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
async def test_a_broken_script_is_noticed(
    mutant: str, standalone: Place, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, script, before, after = MUTANTS[mutant]
    assert before in script.text
    monkeypatch.setattr(_redis, name, msgspec.structs.replace(script, text=script.text.replace(before, after)))
    with pytest.raises((AssertionError, StreamFull)):
        await what_is_full_keeps_everything(standalone, prefix)


async def test_an_acknowledgement_that_needs_memory_is_noticed(
    servers: Servers, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = ACKNOWLEDGE.text.replace("#!lua flags=allow-oom", "#!lua")
    monkeypatch.setattr(_redis, "ACKNOWLEDGE", msgspec.structs.replace(ACKNOWLEDGE, text=broken))
    with pytest.raises(StreamFull):
        await memory_that_is_full_can_be_emptied(alone(servers), prefix)


async def test_an_empty_shard_takes_any_message_that_may_be_sent(standalone: Place, prefix: str) -> None:
    async with opened(standalone, prefix, shards=4, max_bytes=100) as stream:
        await stream.append(a_message(1, size=10_000))
        assert len(await drained(stream)) == 1


async def test_a_message_that_is_too_large_is_refused_before_anything_is_sent() -> None:
    """Nobody listens there: whatever is sent fails in another way."""
    (port,) = free_ports(1)
    stream = RedisStream(f"redis://127.0.0.1:{port}", max_message=1_000)
    with pytest.raises(MessageTooLarge, match=r"1,001 bytes are more than max_message=1,000: split the request"):
        await stream.append(a_message(1, size=1_001))
    assert stream.statistics().refused_large == 1
    await stream.aclose()
