"""Streams as the tests use them, and what can be asked of any of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest

from asynctrace._errors import StreamError
from asynctrace.stream import Claim, Depth, Message, RedisStream, _redis
from asynctrace.stream._scripts import Script
from asynctrace.stream._slots import shard_keys

from ..patience import patient
from .places import Place
from .servers import Node, RedisRefused

__all__ = [
    "Opened",
    "a_message",
    "a_whole_life",
    "all_claims",
    "bodies",
    "break_script",
    "claims_of",
    "drained",
    "expire_lease",
    "opened",
    "options_of",
]

Opened = Callable[..., Any]


def options_of(place: Place) -> dict[str, Any]:
    """What has to be said to get to a place, beside its URL."""
    options: dict[str, Any] = {"ca_file": place.ca_file}
    if place.password:
        options["credentials"] = lambda: (place.username, place.password)
    return options


@asynccontextmanager
async def opened(place: Place, prefix: str, **options: Any) -> AsyncIterator[RedisStream]:
    """A stream at a place, which claims at once and does not wait long for nothing."""
    settings = {"shards": 4, "linger": 0.0, "block": 0.3, "timeout": 30.0, **options_of(place), **options}
    stream = RedisStream(place.url, prefix=prefix, **settings)
    try:
        yield stream
    finally:
        await stream.aclose()


def a_message(number: int, *, size: int = 10, key: str | None = None) -> Message:
    return Message(
        key=f"log:{number}:1" if key is None else key, records=1, body=b"%d" % number + b"." * (size - len(str(number)))
    )


def bodies(claims: Iterable[Claim]) -> list[bytes]:
    return [each.message.body for claim in claims for each in claim.deliveries if each.message is not None]


def break_script(monkeypatch: pytest.MonkeyPatch, name: str, before: str, after: str) -> Script:
    """Let streams run another text instead of the script of that name."""
    script: Script = getattr(_redis, name)
    assert before in script.text
    broken = msgspec.structs.replace(script, text=script.text.replace(before, after))
    monkeypatch.setattr(_redis, name, broken)
    return broken


async def all_claims(stream: RedisStream, worker: str = "w") -> list[Claim]:
    """Everything that can be claimed now; nothing of it is acknowledged."""
    return [claim async for claim in claims_of(stream, worker, ends=lambda depth: depth.entries == depth.pending)]


async def drained(stream: RedisStream, worker: str = "w") -> list[bytes]:
    """The bodies of everything that can be claimed now, acknowledged."""
    found = []
    async for claim in claims_of(stream, worker):
        found += bodies([claim])
        await stream.acknowledge(claim)
    return found


async def claims_of(
    stream: RedisStream, worker: str = "w", *, ends: Callable[[Depth], bool] = lambda depth: depth.entries == 0
) -> AsyncIterator[Claim]:
    """One after the other, until the stream `ends`, or gives nothing for long: where the machine is busy, a claim that came
    to nothing may just have been late."""
    nothing = 0
    while nothing < patient(1):
        claim = await stream.claim(worker)
        nothing += 1
        if claim is not None:
            nothing = 0
            yield claim
            continue
        with suppress(StreamError):  # a part of it cannot be looked at
            if ends(await stream.depth()):
                return


def expire_lease(nodes: Iterable[Node], prefix: str, claim: Claim) -> None:
    """What the passing of its time does to a lease."""
    lease = shard_keys(prefix, claim.shard).lease
    for node in nodes:
        with suppress(RedisRefused):  # another node of the cluster has it
            assert node.ask("DEL", lease) == 1
            return
    raise AssertionError(f"nobody has {lease}")


async def a_whole_life(stream: RedisStream, nodes: list[Node], prefix: str) -> None:
    """Whatever a stream does, each script of it, in one shard that keeps one dead letter."""
    await stream.check()
    for number in range(6):
        await stream.append(a_message(number))
    claim = await stream.claim("first")
    assert claim is not None
    expire_lease(nodes, prefix, claim)
    claim = await stream.claim("heir")
    assert claim is not None
    _forget_manifest(nodes, prefix, claim.shard)
    expire_lease(nodes, prefix, claim)
    claim = await stream.claim("heir of the heir")
    assert claim is not None
    assert await stream.extend(claim)
    for delivery in claim.deliveries[:2]:
        claim = await stream.dead_letter(claim, delivery, "it is tried")
    await stream.acknowledge(claim)
    await stream.append(a_message(7))
    await drained(stream)
    assert (await stream.depth()).entries == 0


def _forget_manifest(nodes: list[Node], prefix: str, shard: int) -> None:
    for node in nodes:
        try:
            node.ask("DEL", shard_keys(prefix, shard).manifest)
        except RedisRefused:
            continue
