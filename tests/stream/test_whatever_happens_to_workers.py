"""Hundreds of things that happen to a stream and its workers, by chance: each message is stored or put aside, none is lost,
none comes back; while a worker has a claim nobody else has any of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import msgspec
import pytest

from asynctrace.stream import Claim, RedisStream, _redis
from asynctrace.stream._scripts import ACKNOWLEDGE, CLAIM, Script

from .places import Place
from .streams import a_message, bodies, drained, expire_lease, opened

pytestmark = pytest.mark.anyio


@dataclass
class World:
    """The real stream, and what must be true of it."""

    stream: RedisStream
    place: Place
    prefix: str
    chance: random.Random
    appended: set[bytes] = field(default_factory=set)
    settled: set[bytes] = field(default_factory=set)
    live: list[Claim] = field(default_factory=list)
    expired: list[Claim] = field(default_factory=list)
    put_aside_by_us: int = 0
    tokens: dict[tuple[int, tuple[str, ...]], str] = field(default_factory=dict)

    async def step(self) -> None:
        acts = [self.append] * 4 + [self.claim] * 3
        acts += ([self.acknowledge, self.die, self.extend, self.put_aside] if self.live else []) + (
            [self.acknowledge_late] if self.expired else []
        )
        await self.chance.choice(acts)()

    async def append(self) -> None:
        message = a_message(len(self.appended), size=self.chance.randint(5, 300))
        await self.stream.append(message)
        self.appended.add(message.body)

    async def claim(self) -> None:
        claim = await self.stream.claim("w")
        if claim is None:
            return
        assert claim.shard not in [each.shard for each in self.live], "two workers have one shard"
        found = bodies([claim])
        assert len(set(found)) == len(found)
        assert not self.settled & set(found), "what was settled came back"
        ids = (claim.shard, tuple(each.id for each in claim.deliveries))
        assert self.tokens.setdefault(ids, claim.token) == claim.token
        self.live.append(claim)

    def a_claim(self) -> Claim:
        return self.live.pop(self.chance.randrange(len(self.live)))

    async def acknowledge(self) -> None:
        claim = self.a_claim()
        await self.stream.acknowledge(claim)
        self.settled |= set(bodies([claim]))

    async def acknowledge_late(self) -> None:
        """By a worker that lost its lease and stored all the same, before anybody else took the batch."""
        claim = self.expired.pop()
        if claim.shard not in [each.shard for each in self.live] and not self.settled & set(bodies([claim])):
            await self.stream.acknowledge(claim)
            self.settled |= set(bodies([claim]))

    async def die(self) -> None:
        claim = self.a_claim()
        expire_lease(self.place.nodes, self.prefix, claim)
        assert not await self.stream.extend(claim)
        self.expired.append(claim)

    async def extend(self) -> None:
        assert await self.stream.extend(self.chance.choice(self.live))

    async def put_aside(self) -> None:
        claim = self.a_claim()
        delivery = self.chance.choice(claim.deliveries)
        rest = await self.stream.dead_letter(claim, delivery, "by chance")
        assert len(rest.deliveries) == len(claim.deliveries) - 1
        self.put_aside_by_us += 1
        if delivery.message is not None:
            self.settled.add(delivery.message.body)
        if rest.deliveries:
            assert rest.token != claim.token
            self.live.append(rest)


async def live(place: Place, prefix: str, seed: int, steps: int = 150) -> None:
    async with opened(place, prefix, shards=3, block=0.01, batch_entries=4, dead=1_000, attempts=4) as stream:
        world = World(stream, place, prefix, random.Random(seed))
        for _ in range(steps):
            await world.step()
        for claim in world.live:
            await stream.acknowledge(claim)
            world.settled |= set(bodies([claim]))
        while rest := await drained(stream):
            assert not world.settled & set(rest), "what was settled came back"
            world.settled |= set(rest)
        depth = await stream.depth()
        poison = depth.dead - world.put_aside_by_us
        assert world.settled <= world.appended
        assert len(world.settled) + poison == len(world.appended)
        assert (depth.entries, depth.bytes, depth.pending, depth.lost) == (0, 0, 0, 0)


async def several(place: Place, prefix: str) -> None:
    for seed in range(6):
        await live(place, f"{prefix}{seed}", seed)


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_is_lost_and_nothing_comes_back(seed: int, standalone: Place, prefix: str) -> None:
    await live(standalone, prefix, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 200))
async def test_nothing_is_lost_in_a_long_life(seed: int, standalone: Place, prefix: str) -> None:
    await live(standalone, prefix, seed, steps=1_000)


MUTANTS: dict[str, tuple[str, Script, str, str]] = {
    "what is in nobody's manifest is forgotten": ("CLAIM", CLAIM, "elseif claimed[1] > 0", "elseif false"),
    "a manifest that outlives its messages": (
        "ACKNOWLEDGE",
        ACKNOWLEDGE,
        "if redis.call('GET', KEYS[4]) == table.concat(ids, ' ')",
        "if false",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
async def test_a_broken_script_is_noticed(
    mutant: str, standalone: Place, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, script, before, after = MUTANTS[mutant]
    assert before in script.text
    monkeypatch.setattr(_redis, name, msgspec.structs.replace(script, text=script.text.replace(before, after)))
    with pytest.raises(AssertionError):
        await several(standalone, prefix)
