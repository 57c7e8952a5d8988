"""A message that kills whoever works on it is put aside after five claims; its neighbors are stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import chain

import pytest

from asynctrace.stream import RedisStream
from asynctrace.stream._slots import shard_keys

from .places import Place
from .streams import a_message, all_claims, bodies, break_script, claims_of, drained, expire_lease, opened

pytestmark = pytest.mark.anyio

Check = Callable[[Place, str], Awaitable[None]]

POISON = a_message(2).body


async def deaths(stream: RedisStream, place: Place, prefix: str) -> tuple[list[bytes], int]:
    """What a fleet of workers stores that die at the poison, and how many of them died."""
    stored: list[bytes] = []
    dead = 0
    async for claim in claims_of(stream):
        if POISON in bodies([claim]):
            expire_lease(place.nodes, prefix, claim)
            dead += 1
            assert dead < 20
        else:
            stored += bodies([claim])
            await stream.acknowledge(claim)
    return stored, dead


async def the_neighbors_are_stored(place: Place, prefix: str) -> None:
    async with opened(place, prefix, shards=1) as stream:
        for number in range(5):
            await stream.append(a_message(number))
        stored, dead = await deaths(stream, place, prefix)
        assert sorted(stored) == [a_message(number).body for number in (0, 1, 3, 4)]
        assert dead == 5
        depth = await stream.depth()
        assert (depth.entries, depth.bytes, depth.pending, depth.dead, depth.lost) == (0, 0, 0, 1, 0)
        assert stream.statistics().dead_lettered == 1


async def one_goes_aside_and_the_rest_goes_on(place: Place, prefix: str) -> None:
    async with opened(place, prefix, shards=1) as stream:
        for number in range(3):
            await stream.append(a_message(number))
        claim = await stream.claim("w")
        assert claim is not None
        rest = await stream.dead_letter(claim, claim.deliveries[1], "no spans in it")
        assert bodies([rest]) == [a_message(number).body for number in (0, 2)]
        assert (rest.shard, rest.lease) == (claim.shard, claim.lease)
        assert rest.token != claim.token
        expire_lease(place.nodes, prefix, claim)
        (again,) = await all_claims(stream)
        assert again.token == rest.token
        await stream.acknowledge(again)
        depth = await stream.depth()
        assert (depth.entries, depth.bytes, depth.pending, depth.dead, depth.lost) == (0, 0, 0, 1, 0)


async def dead_letters_are_bounded_and_what_made_room_is_counted(place: Place, prefix: str) -> None:
    async with opened(place, prefix, shards=1, dead=3) as stream:
        for number in range(8):
            await stream.append(a_message(number))
        claim = await stream.claim("w")
        assert claim is not None
        for delivery in claim.deliveries:
            claim = await stream.dead_letter(claim, delivery, "for the test")
        assert claim.deliveries == ()
        depth = await stream.depth()
        assert (depth.entries, depth.pending, depth.dead, depth.lost) == (0, 0, 3, 5)
        assert stream.statistics().lost == 5
        await stream.append(a_message(9))
        assert await drained(stream) == [a_message(9).body]


CHECKS: list[Check] = [
    the_neighbors_are_stored,
    one_goes_aside_and_the_rest_goes_on,
    dead_letters_are_bounded_and_what_made_room_is_counted,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_holds(check: Check, standalone: Place, prefix: str) -> None:
    await check(standalone, prefix)


MUTANTS: dict[str, tuple[str, str, str, Check]] = {
    "a batch that dies with its culprit": (
        "CLAIM",
        ">= tonumber(ARGV[6]) and not again then",
        ">= 1000 and not again then",
        the_neighbors_are_stored,
    ),
    "a manifest with the message that went": (
        "DEAD_LETTER",
        "redis.call('SET', KEYS[4], ARGV[2])",
        "made_room = 0",
        one_goes_aside_and_the_rest_goes_on,
    ),
    "dead letters without end": (
        "DEAD_LETTER",
        "if over > 0",
        "if false",
        dead_letters_are_bounded_and_what_made_room_is_counted,
    ),
    "room made in silence": (
        "DEAD_LETTER",
        "redis.call('INCRBY', KEYS[5], made_room)",
        "made_room = 0",
        dead_letters_are_bounded_and_what_made_room_is_counted,
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


async def test_a_dead_letter_says_what_and_why(standalone: Place, prefix: str) -> None:
    async with opened(standalone, prefix, shards=1) as stream:
        await stream.append(a_message(1))
        claim = await stream.claim("w")
        assert claim is not None
        await stream.dead_letter(claim, claim.deliveries[0], "no spans in it")
        ((_, flat),) = standalone.nodes[0].ask("XRANGE", shard_keys(prefix, 0).dead, "-", "+")
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        assert a_message(1).to_fields().items() <= fields.items()
        assert fields[b"dead-reason"] == b"no spans in it"
        assert (fields[b"dead-id"].decode(), fields[b"dead-attempts"]) == (claim.deliveries[0].id, b"1")


@pytest.mark.parametrize(
    ("fields", "why"), [({"v": "9", "r": "9", "body": "?"}, "update the workers"), ({"what": "is this"}, "damaged")]
)
async def test_what_cannot_be_read_is_handed_over_as_it_is(
    fields: dict[str, str], why: str, standalone: Place, prefix: str
) -> None:
    """By a newer version, or by somebody who took the key for theirs: the worker puts it aside, the rest goes on."""
    async with opened(standalone, prefix, shards=1) as stream:
        await stream.append(a_message(1))
        standalone.nodes[0].ask("XADD", shard_keys(prefix, 0).entries, "*", *chain(*fields.items()))
        await stream.append(a_message(2))
        claim = await stream.claim("w")
        assert claim is not None
        first, strange, last = claim.deliveries
        assert strange.message is None
        assert strange.fields == {name.encode(): value.encode() for name, value in fields.items()}
        assert why in strange.error
        rest = await stream.dead_letter(claim, strange, strange.error)
        assert rest.deliveries == (first, last)
        await stream.acknowledge(rest)
        assert (await stream.depth()).dead == 1


async def test_what_somebody_deleted_is_counted_as_lost(
    standalone: Place, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(standalone, prefix, shards=1) as stream:
        for number in range(4):
            await stream.append(a_message(number))
        claim = await stream.claim("w")
        assert claim is not None
        keys = shard_keys(prefix, 0)
        standalone.nodes[0].ask("XDEL", keys.entries, claim.deliveries[0].id)
        expire_lease(standalone.nodes, prefix, claim)
        again = await stream.claim("w")
        assert again is not None
        assert again.deliveries[0].id == claim.deliveries[1].id
        standalone.nodes[0].ask("XDEL", keys.entries, again.deliveries[0].id)
        standalone.nodes[0].ask("DEL", keys.manifest, keys.lease)
        assert len(await drained(stream)) == 2
        depth = await stream.depth()
        assert (depth.lost, stream.statistics().lost, depth.bytes) == (2, 2, 0)
        assert "stream.lost" in capsys.readouterr().err
