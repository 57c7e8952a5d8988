"""What becomes of one claim: its messages are read, stored as one batch under the claim's token, and acknowledged.

    claim ─▶ read each ─▶ store.add(…, token) ─▶ acknowledge
                │ unreadable        │ the store is away: again, until it is there or the lease is not
                ▼                   │ it cannot take some rows: each message alone
            dead letter ◀───────────┘

Promises:

- A message leaves the stream only after the store took it, or to the dead letters, with the reason. Nothing else removes it.
- Whoever gets the claim after this process stores the same batch under the same token: a store that knows tokens keeps it
  once, and any store keeps each span once.
- The lease is kept while the work lasts. Who has lost it stops, and acknowledges nothing.
- A store that is away costs no message. Only what cannot be read, and what the store refuses for what it says, is a dead
  letter here; what kills workers the stream finds out.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from typing import Final, TypeVar

from ..._diagnostics import Diagnostics
from ..._errors import StreamError
from ...stream import Claim, Delivery, Stream
from .._rows import Received
from ..receiving import Refused
from ..receiving._scan import Scanner
from ..store import Store, StoreError
from ._metrics import Tally
from ._requests import received_of

__all__ = ["LONGEST_PAUSE", "SHORTEST_PAUSE", "GivenBack", "Settling"]

WRONG_ROWS: Final = frozenset((6, 26, 27, 33, 53, 69, 70, 72, 117, 128, 131, 321))
"""Errors of ClickHouse that are about what was inserted, not about the server (src/Common/ErrorCodes.cpp)."""
SHORTEST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 10.0
"""Seconds between two attempts at a store or a stream that is away."""

Result = TypeVar("Result")


class GivenBack(Exception):
    """The claim is left for somebody else: its lease is lost, or the worker ends while the store is away."""


class Settling:
    """One claim at a time. `ending`: nothing is to be waited for any more. `extend_every`: seconds."""

    def __init__(
        self,
        stream: Stream,
        store: Store,
        tally: Tally,
        *,
        scanner: Scanner,
        threads: ThreadPoolExecutor,
        ending: asyncio.Event,
        extend_every: float,
    ) -> None:
        self._stream, self._store, self._tally = stream, store, tally
        self._scanner, self._threads = scanner, threads
        self._ending = ending
        self._extend_every = extend_every
        self._diagnostics = Diagnostics(time.monotonic_ns)
        self.store_trouble = ""
        """Why the store cannot be written, while it cannot."""
        self._claim: Claim | None = None

    async def settle(self, claim: Claim) -> None:
        """Store it and acknowledge it, whatever that takes. `GivenBack`."""
        self._claim = claim
        work = asyncio.create_task(self._settle(claim), name="asynctrace worker claim")
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=self._extend_every)
                if not work.done() and not await self._is_extended():
                    self._tally.add("leases_lost")
                    raise GivenBack
            work.result()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _is_extended(self) -> bool:
        if self._claim is None:
            return True
        try:
            return await self._stream.extend(self._claim)
        except StreamError as error:  # nobody else can have it either, or the token makes it no harm
            self._told("collector.stream_away", error)
            return True

    async def _settle(self, claim: Claim) -> None:
        claim, batch = await self._read(claim)
        if not claim.deliveries:
            return
        try:
            await self._add(batch, claim.token)
        except _NotTaken:
            claim = await self._each_alone(claim, batch)
        if claim.deliveries:
            await self._patiently(partial(self._stream.acknowledge, claim))
            self._tally.add("acknowledged", len(claim.deliveries))

    # Reading -----------------------------------------------------------------------------------------------------

    async def _read(self, claim: Claim) -> tuple[Claim, list[Received]]:
        """What the messages hold, in their order; without those that nobody can read."""
        found = await self._aside(self._read_all, claim.deliveries)
        batch = []
        for delivery, read in zip(claim.deliveries, found, strict=True):
            if isinstance(read, str):
                claim = await self._dead_letter(claim, delivery, read, "unreadable")
            else:
                batch.append(read)
                self._told_of_rejected(read)
        return claim, batch

    def _read_all(self, deliveries: Sequence[Delivery]) -> list[Received | str]:
        return [self._read_one(delivery) for delivery in deliveries]

    def _read_one(self, delivery: Delivery) -> Received | str:
        if delivery.message is None:
            return delivery.error
        try:
            return received_of(self._scanner, delivery.message)
        except Refused as refused:
            return refused.reason
        except Exception as error:  # noqa: BLE001  (whatever it is, it must not hold up the shard for ever)
            return f"it cannot be read: {error!r}"

    def _told_of_rejected(self, received: Received) -> None:
        """Spans that make no sense among others that do: ingest lets none through, but not everybody sends through ingest."""
        if received.rejected:
            self._tally.add("rejected", received.rejected)
            self._diagnostics.warning("collector.rejected", spans=received.rejected, reason=received.reason)

    # Storing -----------------------------------------------------------------------------------------------------

    async def _add(self, batch: Sequence[Received], token: str) -> None:
        """Until the store has it. `_NotTaken` when it is there and does not want it."""
        pause = SHORTEST_PAUSE
        while True:
            try:
                spans, logs = await self._aside(self._add_each_once, batch, token)
            except StoreError as error:
                if getattr(error, "code", 0) in WRONG_ROWS:
                    raise _NotTaken(str(error)) from error
                self.store_trouble = str(error)
                self._tally.add("retries", of="store")
                self._told("collector.store_failed", error)
                pause = await self._rested(pause)
            except Exception as error:
                self._told("collector.rows_refused", error)
                raise _NotTaken(repr(error)) from error
            else:
                self.store_trouble = ""
                self._tally.add("inserted", spans, of="spans")
                self._tally.add("inserted", logs, of="logs")
                return

    def _add_each_once(self, batch: Sequence[Received], token: str) -> tuple[int, int]:
        """A request that is in the batch twice counts once. How many spans and log records that were."""
        keyed = {received.key: received for received in batch if received.key is not None}
        wanted = [*keyed.values(), *(received for received in batch if received.key is None)]
        wanted = [received for received in wanted if received.rows or received.logs]
        if wanted:
            self._store.add(wanted, token=token)
        return sum(len(each.rows) for each in wanted), sum(len(each.logs) for each in wanted)

    async def _each_alone(self, claim: Claim, batch: Sequence[Received]) -> Claim:
        """One message after the other, each under a token of its own. The claim without those the store does not want."""
        for delivery, received in zip(claim.deliveries, batch, strict=True):
            try:
                await self._add([received], _token_of(claim.shard, delivery))
            except _NotTaken as refused:
                claim = await self._dead_letter(claim, delivery, f"the store cannot take it: {refused}", "refused")
        return claim

    # The stream --------------------------------------------------------------------------------------------------

    async def _dead_letter(self, claim: Claim, delivery: Delivery, reason: str, kind: str) -> Claim:
        self._diagnostics.error("collector.dead_lettered", shard=claim.shard, entry=delivery.id, reason=reason)
        rest = await self._patiently(partial(self._stream.dead_letter, claim, delivery, reason))
        self._claim = rest if rest.deliveries else None
        self._tally.add("dead_lettered", reason=kind)
        return rest

    async def _patiently(self, call: Callable[[], Awaitable[Result]]) -> Result:
        pause = SHORTEST_PAUSE
        while True:
            try:
                return await call()
            except StreamError as error:
                self._tally.add("retries", of="stream")
                self._told("collector.stream_away", error)
                pause = await self._rested(pause)

    async def _rested(self, pause: float) -> float:
        """Wait, and say how long to wait the next time. `GivenBack` when the worker ends."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), pause)
            raise GivenBack
        return min(LONGEST_PAUSE, 2 * pause)

    def _told(self, event: str, error: Exception) -> None:
        self._diagnostics.error(event, reason=str(error) or repr(error))

    async def _aside(self, function: Callable[..., Result], *arguments: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _token_of(shard: int, delivery: Delivery) -> str:
    """Of one message alone: the same whoever stores it, and unlike those of other streams, where the id may be the same."""
    digest = blake2b(f"{shard} {delivery.id}".encode(), digest_size=16)
    for name, value in sorted(delivery.fields.items()):
        digest.update(b" %d %b %d %b" % (len(name), name, len(value), value))
    return digest.hexdigest()


class _NotTaken(Exception):
    """The store is there, and cannot take these rows."""
