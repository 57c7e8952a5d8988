"""What lies between those who receive spans and those who store them, as a protocol and its values.

    ingest, RedisExporter ── append(message) ─▶ stream ── claim() ─▶ worker ── rows ─▶ store
                                                       ◀── acknowledge(claim) ──┘

- A *message* is one OTLP request; it waits in one of the *shards*.
- A *claim* is a batch of messages of one shard that one worker works on, for as long as it keeps the *lease* of the shard.
  Its *token* names the batch for ever: whoever claims it again after a worker's death gets the same messages under the same
  token, and a store that remembers tokens stores them once.
- A message that cannot be stored goes to the *dead letters* of its shard; the rest of the claim goes on.

Promises of every implementation: a message whose `append()` returned is claimed until it is acknowledged or dead-lettered;
a message that is acknowledged is not claimed again; one worker at a time holds a claim of a shard, as far as clocks allow;
nothing is ever dropped to make room: a stream that is full refuses.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import msgspec

from ._message import Message

__all__ = ["Claim", "Delivery", "Depth", "Stream", "StreamStatistics"]


class Delivery(msgspec.Struct, frozen=True):
    """One entry of the stream, as a worker gets it."""

    message: Message | None
    """None: it cannot be read, and `error` says why."""
    id: str
    """The entry's id in its shard."""
    attempts: int
    """How often it has been claimed, this time included."""
    fields: dict[bytes, bytes]
    """The entry as it is."""
    error: str = ""


class Claim(msgspec.Struct, frozen=True):
    """A batch of one shard: never empty."""

    shard: int
    token: str
    """Made from the batch alone: the same for whoever claims it. A store's deduplication token."""
    deliveries: tuple[Delivery, ...]
    """In the order they were appended."""
    lease: str = ""
    """Names this holder among all that ever hold the batch."""

    @property
    def records(self) -> int:
        """Spans and log records of the readable messages."""
        return sum(delivery.message.records for delivery in self.deliveries if delivery.message is not None)


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the stream at one moment: sums over all shards."""

    entries: int = 0
    """Messages that wait or are claimed."""
    bytes: int = 0
    """Of these messages."""
    pending: int = 0
    """Messages that are claimed."""
    dead: int = 0
    """Messages among the dead letters."""
    lost: int = 0
    """Messages that vanished unacknowledged: claimed and deleted by somebody else, or the oldest of too many dead letters."""
    oldest_seconds: float = 0.0
    """Age of the oldest message that waits or is claimed."""
    shards: tuple[Depth, ...] = ()
    """The same for each shard, in order."""


class StreamStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What one side of the stream has seen since it was made. Numbers only grow."""

    appended: int = 0
    """Messages whose `append()` returned."""
    appended_records: int = 0
    refused_large: int = 0
    """Messages refused for their size, before anything was sent."""
    refused_full: int = 0
    refused_away: int = 0
    repeated: int = 0
    """Calls that were sent again though they may have been done: no answer came, or no replica confirmed it."""
    claimed: int = 0
    """Messages, as often as they were claimed."""
    acknowledged: int = 0
    dead_lettered: int = 0
    lost: int = 0
    """Messages found to have vanished."""
    redirected: int = 0
    """Answers that said that a shard lives elsewhere now."""
    troubled: int = 0
    """Tries that came to nothing: no connection, no answer in time, a server that could not serve just then."""


@runtime_checkable
class Stream(Protocol):
    """Where messages wait. Safe for any number of tasks of one event loop."""

    async def append(self, message: Message) -> None:
        """Return when the message is safe: written, and confirmed by a replica where there are replicas.

        Raises `MessageTooLarge` (before anything is sent), `StreamFull` (come again after `retry_after` seconds),
        `StreamAway` (not reachable within the deadline; the message may have been written all the same) and `StreamError`.
        """
        ...

    async def claim(self, worker: str) -> Claim | None:
        """The next batch of a shard that nobody works on, for the worker of this name; None where nothing came within a
        moment. A dead worker's batch comes again exactly as it was. Raises `StreamAway`, `StreamError`."""
        ...

    async def extend(self, claim: Claim) -> bool:
        """Keep the lease of the claim for another period. False: it is somebody else's now; drop the work."""
        ...

    async def acknowledge(self, claim: Claim) -> None:
        """The messages are stored: they leave the stream, and the shard is free. May be repeated."""
        ...

    async def dead_letter(self, claim: Claim, delivery: Delivery, reason: str) -> Claim:
        """Put one message of the claim aside for good. The rest is the claim that is returned, under a token of its own; it
        is empty where the message was the only one, and needs no acknowledgement then."""
        ...

    async def depth(self) -> Depth:
        """What is in the stream now."""
        ...

    def statistics(self) -> StreamStatistics:
        """What this side has seen."""
        ...

    async def aclose(self) -> None:
        """Let go of connections. Claims that are not acknowledged are somebody else's after their lease."""
        ...
