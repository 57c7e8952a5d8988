"""The stream in Redis: streams, counters and leases, a set of keys for each shard, each set in one slot.

    append       ── APPEND ──▶ {NN}:in, {NN}:bytes         + WAIT     the shard is chosen by the request's key
    claim        ── LOOK ────▶ all shards, in pipelines               which of them have a batch?
                 ── CLAIM ───▶ {NN}:lease, {NN}:infl       + WAIT     the batch of one of them
    acknowledge  ── ACKNOWLEDGE ─▶ all of it away

One server, Sentinels, a cluster and the one address of a managed service are used alike: see `_router`. What the scripts do
is in `_scripts`.

Promises: those of `_stream`. A claimed batch whose worker dies is claimed again when its lease has run out, the same entries
under the same token. An entry that was claimed `attempts` times, the last times alone, goes to the dead letters: a batch that
kills workers costs its culprit, not its neighbors. What vanished is counted and told.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import msgspec

from .._diagnostics import Diagnostics
from .._errors import ConfigurationError, MessageError, MessageTooLarge, StreamAway, StreamError, StreamFull
from ._address import parse_address
from ._connections import Connections, Credentials
from ._message import Message
from ._router import Router
from ._scripts import (
    ACKNOWLEDGE,
    APPEND,
    CLAIM,
    COUNT,
    DEAD_LETTER,
    DEPTH,
    EXTEND,
    RELEASE,
    Script,
    size_of,
)
from ._search import Search
from ._slots import MOST_SHARDS, ShardKeys, count_key, escape_prefix, shard_keys, slot_of
from ._stream import Claim, Delivery, Depth, StreamStatistics
from ._topology import Topology

__all__ = ["RedisStream", "token_of"]

_MINUTE: Final = 60.0
_SOON: Final = 5.0
"""Seconds until the second look. A cluster names a replica once something was sent to it: on a new one after ten."""
_FULL_FOR: Final = 2.0
"""Seconds after which a sender may come again: workers take a batch about as often."""
_TRIED_ALONE: Final = 2
"""The last attempts of an entry are its own."""


class RedisStream:
    """A `Stream` in Redis 7 or later, or Valkey.

    - `url`: see `_address`. `ca_file`: the authority of a `rediss://` server's certificate. `credentials`: asked, in a
      thread, for user name and password whenever a connection is opened, instead of those in the URL.
    - `prefix`, `shards`: of the keys. Shards that others used before, and more than these, are served too.
    - `wait`: how many replicas have to confirm an append; None: one where there are any.
    - `max_bytes`: of all messages together, an equal part for each shard; `max_message`: of one message's body.
    - `timeout`: seconds for one call, whatever has to be tried again within.
    - `batch_entries`, `batch_bytes`, `linger`: a batch is claimed when it has so much, or its oldest entry so many seconds.
    - `lease`: seconds that a claim is its worker's without `extend()`; `block`: seconds that `claim()` looks for one.
    - `attempts`: claims of one entry before it is a dead letter; `dead`: dead letters that each shard keeps.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "at",
        shards: int = 64,
        wait: int | None = None,
        max_bytes: int = 1024 * 1024 * 1024,
        max_message: int = 8 * 1024 * 1024,
        timeout: float = 10.0,
        ca_file: str | Path | None = None,
        credentials: Credentials | None = None,
        batch_entries: int = 512,
        batch_bytes: int = 8 * 1024 * 1024,
        linger: float = 1.0,
        lease: float = 30.0,
        block: float = 2.0,
        attempts: int = 5,
        dead: int = 64,
    ) -> None:
        if not 0 < shards <= MOST_SHARDS:
            raise ConfigurationError(f"shards={shards}: 1 to {MOST_SHARDS}, as in shards=64")
        if min(max_bytes, max_message, batch_entries, batch_bytes, attempts, dead) < 1 or min(timeout, lease) <= 0:
            raise ConfigurationError("a limit of the stream is not positive; leave it out for its default")
        self._prefix = escape_prefix(prefix)
        self._shards = [shard_keys(prefix, number) for number in range(shards)]
        self._all = list(self._shards)
        self._count_key = count_key(prefix)
        self._names = prefix
        self._room = max(1, max_bytes // shards)
        self._max_message = max_message
        self._lease_ms = max(1, int(lease * 1000))
        self._batch = (batch_entries, batch_bytes, int(linger * 1000))
        self._block = block
        self._wait = wait
        self._attempts = attempts
        self._dead = dead
        self._diagnostics = Diagnostics(time.monotonic_ns)
        connections = Connections(parse_address(url), timeout / 3, ca_file, credentials)
        self._router = Router(connections, replicas=wait, timeout=timeout, diagnostics=self._diagnostics)
        self._search = Search(self._router, self._batch, self._diagnostics)
        self._counts = _Counts()
        self._held: dict[str, ShardKeys] = {}
        self._announcing = asyncio.Lock()
        self._announced = False
        self._upkeep: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()
        self._warning = ""

    # --- the way in

    async def append(self, message: Message) -> None:
        if len(message.body) > self._max_message:
            self._counts.refused_large += 1
            raise MessageTooLarge(
                f"{len(message.body):,} bytes are more than max_message={self._max_message:,}: split the request"
            )
        fields = message.to_fields()
        size = size_of(fields)
        words = [word for field in fields.items() for word in field]
        try:
            await self._announce_once()
            await self._append(message.key, size, words)
        except StreamFull:
            self._counts.refused_full += 1
            raise
        except StreamAway:
            self._counts.refused_away += 1
            raise
        self._counts.appended += 1
        self._counts.appended_records += message.records

    async def _append(self, key: str, size: int, words: list[bytes]) -> None:
        """By its key, so that what is repeated mostly meets its first copy; where that shard is full, another one."""
        first = crc32(key.encode()) % len(self._shards) if key else random.randrange(len(self._shards))
        held = 0
        for number in (first, random.randrange(len(self._shards))):
            taken, held = await self._call(
                APPEND, self._shards[number], self._room, size, *words, size=size, confirmed=True
            )
            if taken:
                return
        raise StreamFull(
            f"the stream is full: a shard holds {held:,} of {self._room:,} bytes; workers are too slow, or none runs",
            _FULL_FOR,
        )

    # --- the way out

    async def claim(self, worker: str) -> Claim | None:
        await self._announce_once()
        loop = asyncio.get_running_loop()
        end = loop.time() + self._block
        wrong: StreamError | None = None
        while (keys := await self._search.next_ready(self._all, end)) is not None:
            try:
                if (claim := await self._take(keys, f"{worker} {uuid.uuid4().hex}")) is not None:
                    self._search.came_to_something()
                    return claim
            except StreamError as error:
                self._diagnostics.warning("stream.claim_failed", shard=keys.shard, reason=str(error))
                wrong = error
            if loop.time() >= end:
                break
        if wrong is not None:
            raise wrong
        return None

    async def _take(self, keys: ShardKeys, lease: str) -> Claim | None:
        alone = max(1, self._attempts - _TRIED_ALONE)
        answer = await self._call(CLAIM, keys, *self._batch, lease, self._lease_ms, alone, confirmed=True)
        if not answer:
            return None
        entries, attempts, vanished = answer
        self._tell_lost(keys, vanished, "deleted by somebody else")
        if not entries:
            return None
        deliveries = tuple(_delivery(*each) for each in zip(entries, attempts, strict=True))
        self._held[lease] = keys
        claim = Claim(keys.shard, token_of(self._prefix, keys.shard, deliveries), deliveries, lease)
        self._counts.claimed += len(deliveries)
        if len(deliveries) == 1 and deliveries[0].attempts > self._attempts:
            await self.dead_letter(claim, deliveries[0], f"claimed {self._attempts} times and never stored")
            return None
        return claim

    async def extend(self, claim: Claim) -> bool:
        if await self._call(EXTEND, self._keys(claim), claim.lease, self._lease_ms):
            return True
        self._held.pop(claim.lease, None)
        return False

    async def acknowledge(self, claim: Claim) -> None:
        if claim.deliveries:
            sizes = (word for each in claim.deliveries for word in (each.id, size_of(each.fields)))
            await self._call(ACKNOWLEDGE, self._keys(claim), claim.lease, *sizes)
            self._counts.acknowledged += len(claim.deliveries)
        self._held.pop(claim.lease, None)

    async def dead_letter(self, claim: Claim, delivery: Delivery, reason: str) -> Claim:
        keys = self._keys(claim)
        rest = tuple(each for each in claim.deliveries if each.id != delivery.id)
        note = {b"dead-reason": reason.encode()[:1000], b"dead-id": delivery.id, b"dead-attempts": delivery.attempts}
        words = [word for field in {**delivery.fields, **note}.items() for word in field]
        held, made_room = await self._call(
            DEAD_LETTER,
            keys,
            claim.lease,
            " ".join(each.id for each in rest),
            self._dead,
            delivery.id,
            size_of(delivery.fields),
            *words,
        )
        self._tell_lost(keys, made_room, "the oldest dead letters made room")
        if not held:
            self._diagnostics.warning("stream.lease_lost", shard=claim.shard)
            return msgspec.structs.replace(claim, deliveries=())
        self._counts.dead_lettered += 1
        self._diagnostics.warning("stream.dead_letter", shard=claim.shard, id=delivery.id, reason=reason)
        if not rest:
            self._held.pop(claim.lease, None)
        return Claim(claim.shard, token_of(self._prefix, claim.shard, rest), rest, claim.lease)

    # --- looking at it

    async def check(self) -> Topology:
        """What the stream lies in, asked once. `StreamAway` or `StreamError` of one line where it cannot be used."""
        topology = await self._router.look()
        if self._wait and topology.replicas is not None and topology.replicas < self._wait:
            raise StreamError(f"wait={self._wait}, but there is a master with fewer replicas: {topology}")
        await self._announce()
        await self._call(DEPTH, self._shards[0])
        await self._look_at_memory()
        return topology

    @property
    def warning(self) -> str:
        """One line while the servers may lose what they hold; empty when nothing is known to be wrong."""
        return self._warning

    async def depth(self) -> Depth:
        await self._announce_once()
        shards = tuple(await asyncio.gather(*(self._depth(keys) for keys in self._all)))
        return Depth(
            entries=sum(each.entries for each in shards),
            bytes=sum(each.bytes for each in shards),
            pending=sum(each.pending for each in shards),
            dead=sum(each.dead for each in shards),
            lost=sum(each.lost for each in shards),
            oldest_seconds=max(each.oldest_seconds for each in shards),
            shards=shards,
        )

    async def _depth(self, keys: ShardKeys) -> Depth:
        entries, held, pending, dead, lost, oldest = await self._call(DEPTH, keys)
        return Depth(entries=entries, bytes=held, pending=pending, dead=dead, lost=lost, oldest_seconds=oldest / 1000)

    def statistics(self) -> StreamStatistics:
        counts = self._router.counts
        return StreamStatistics(
            **msgspec.structs.asdict(self._counts),
            repeated=counts.repeated,
            redirected=counts.redirected,
            troubled=counts.troubled,
        )

    async def aclose(self) -> None:
        self._closed.set()  # a cancellation alone may be swallowed on its way, see `_router`
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.wait([self._upkeep])
        await self._search.aclose()
        releases = (self._call(RELEASE, keys, lease) for lease, keys in self._held.items())
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.gather(*releases, return_exceptions=True)
        self._held.clear()
        await self._router.aclose()

    def taken_apart(self) -> list[asyncio.StreamWriter]:
        """For a forked child, and where the event loop was closed: the writers of all connections, which forget them. A
        writer that is collected says good-bye; whoever asks has to prevent that."""
        return self._router.taken_apart()

    # --- upkeep

    async def _announce_once(self) -> None:
        if not self._announced:
            async with self._announcing:
                if not self._announced:
                    await self._announce()
        if self._upkeep is None:
            self._upkeep = asyncio.get_running_loop().create_task(self._look_now_and_then())

    async def _announce(self) -> None:
        """Let everybody know how many shards there are, and learn how many others use, or used once."""
        words = ("EVAL", COUNT, 1, self._count_key, len(self._shards))
        known = min(await self._router.call(slot_of(self._count_key), words, confirmed=True), MOST_SHARDS)
        self._all += [shard_keys(self._names, number) for number in range(len(self._all), known)]
        self._announced = True

    async def _look_now_and_then(self) -> None:
        pause = _SOON
        while not self._closed.is_set():
            with suppress(StreamError):  # told by whatever else is called meanwhile
                await self._look_at_memory()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(pause, _MINUTE)):
                    await self._closed.wait()
                    return
            pause *= 2
            with suppress(StreamError):
                await self._router.look()
                await self._announce()

    async def _look_at_memory(self) -> None:
        lines = [memory.warning(address) for address, memory in (await self._router.memories()).items()]
        self._warning = next(filter(None, lines), "")
        if self._warning:
            self._diagnostics.warning("stream.may_evict", reason=self._warning)

    def _tell_lost(self, keys: ShardKeys, count: int, why: str) -> None:
        if count:
            self._counts.lost += count
            self._diagnostics.error("stream.lost", shard=keys.shard, messages=count, reason=why)

    # --- calls

    def _keys(self, claim: Claim) -> ShardKeys:
        return self._all[claim.shard] if claim.shard < len(self._all) else shard_keys(self._names, claim.shard)

    async def _call(self, script: Script, keys: ShardKeys, *words: Any, size: int = 0, confirmed: bool = False) -> Any:
        command = script.command(keys, *words)
        return await self._router.call(keys.slot, command, size, confirmed=confirmed)


class _Counts(msgspec.Struct):
    appended: int = 0
    appended_records: int = 0
    refused_large: int = 0
    refused_full: int = 0
    refused_away: int = 0
    claimed: int = 0
    acknowledged: int = 0
    dead_lettered: int = 0
    lost: int = 0


def token_of(prefix: str, shard: int, deliveries: tuple[Delivery, ...]) -> str:
    """32 hex digits that the batch alone determines: where it lies, and what its entries are and hold."""
    digest = blake2b(f"{prefix} {shard}".encode(), digest_size=16)
    for each in deliveries:
        digest.update(f" {each.id}".encode())
        for name, value in sorted(each.fields.items()):
            digest.update(b"%d %b %d %b" % (len(name), name, len(value), value))
    return digest.hexdigest()


def _delivery(entry: list[Any], attempts: int) -> Delivery:
    name, flat = entry
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    try:
        return Delivery(Message.from_fields(fields), name.decode(), attempts, fields)
    except MessageError as error:
        return Delivery(None, name.decode(), attempts, fields, str(error))
