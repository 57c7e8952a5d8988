"""A fleet under load: senders, ingest processes, masters with replicas, workers, a ClickHouse server.

    arrive ─▶ ingest CPU ─▶ master ─▶ replica answers ─▶ 200        worker: claim ─▶ CPU ─▶ insert ─▶ acknowledge
       ▲          │ no room    │ no room   └ away: again, then spill               ▲ store away: again
       └──────────┴────────────┘ the sender waits and comes again

Each span is at exactly one of the places of `Books` at any moment; `check()` counts them.
"""

from __future__ import annotations

import math
import random
from binascii import crc_hqx

import msgspec
from _stations import Clock, Cores, Entry, Ingest, Master, Shard

__all__ = ["Books", "Costs", "Fleet", "NotConserved", "Plan", "merges_of"]

CLIENT_DEADLINE = 10.0
"""Seconds that an ingest process repeats an append before it spills."""
PAUSE = 2.0
"""Seconds before it asks again a stream that did not answer."""
SENDER_PAUSE = 2.0
"""Seconds a sender waits after a 429 or 503, on average: its Retry-After, and its own chance."""
ADMISSION = 64 * 1024 * 1024
"""Bytes of requests that one ingest process holds."""
BATCH_ENTRIES = 512
BATCH_BYTES = 8 * 1024 * 1024
LINGER = 1.0
"""A worker claims so much of a shard, or what is there when the oldest waits for so many seconds."""
LEASE = 30.0
HANDS = 2
"""Claims of one worker at once: while one is stored, the other is read."""
LOOK_EVERY = 0.1
"""Seconds between two looks of a hand that found nothing."""
STORE_PAUSE = 1.0
SPILL_SYNC = 0.005
NETWORK = 0.5
"""Milliseconds to the replica and back, in a data center: assumed; the measurement had none."""
MERGE_SLICE = 0.25
"""Seconds of a core. A server whose merges fall behind lets inserts wait: here each insert brings its share of them."""
LARGEST_PART = 150_000_000
"""Rows. Ten parts of a size are merged into one of ten times the size, until they are that large."""


class NotConserved(Exception):
    """Spans vanished, or came twice."""


class Costs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one operation costs. Microseconds of CPU, if nothing else is said."""

    ingest_request: float
    ingest_span: float
    master_message: float
    """A message: its append, its claim, its acknowledgement."""
    master_kilobyte: float
    """Of its body, in and out."""
    replica_milliseconds: float
    """Milliseconds until a replica has confirmed a write."""
    worker_message: float
    worker_span: float
    store_insert: float
    """An insert, whatever is in it."""
    store_span: float
    merge_span: float
    """Merging one row once."""
    list_read: float
    """One page of the list of traces."""
    message_bytes_of_span: float
    """In the stream, compressed."""
    stored_bytes_of_span: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How large a fleet is and what it is asked."""

    spans_per_second: float
    spans_per_request: int = 400
    ingests: int
    masters: int
    workers: int
    store_cores: int
    lists_per_second: float = 10.0
    shards: int = 64
    master_bytes: int = 12 * 1024**3
    link_bytes_per_second: float = 1.25e9
    """Of a master, for each direction: 10 Gbit/s."""
    has_spill: bool = True


class Books(msgspec.Struct, kw_only=True):
    """Where the spans are. All of `offered` are at one of the others."""

    offered: int = 0
    waiting: int = 0
    """At senders that were told to come again."""
    received: int = 0
    """At ingest processes, not answered."""
    spilled: int = 0
    streamed: int = 0
    """In the stream, claimed or not."""
    stored: int = 0

    refused: int = 0
    """Requests that were told to come again, as often as they were."""
    most_waiting: int = 0
    most_spilled: int = 0
    most_streamed_bytes: int = 0

    def check(self) -> None:
        """Raise `NotConserved` unless every span is at exactly one place."""
        places = (self.waiting, self.received, self.spilled, self.streamed, self.stored)
        if min(places) < 0 or sum(places) != self.offered:
            raise NotConserved(f"{self.offered} were offered, {sum(places)} are somewhere: {self}")


class Fleet:
    """One run. The same seed gives the same run."""

    def __init__(self, plan: Plan, costs: Costs, seed: int) -> None:
        self.plan, self.costs = plan, costs
        self.clock = Clock()
        self.books = Books()
        self.acknowledged: list[tuple[float, float, int]] = []
        """(when, seconds since the sender first tried, spans) of each request."""
        self.seen: list[tuple[float, float, int]] = []
        """The same for when it could be seen."""
        self._random = random.Random(seed)
        self.ingests = [Ingest() for _ in range(plan.ingests)]
        self.masters = [Master(plan.master_bytes) for _ in range(plan.masters)]
        self.shards = [Shard(self.masters[_home(number, plan.masters)]) for number in range(plan.shards)]
        self.workers = [Cores(1) for _ in range(plan.workers)]
        self.dead: set[int] = set()
        self.store = Cores(plan.store_cores)
        self.is_store_away = False
        self._is_offering = True
        self._begin()

    def _begin(self) -> None:
        self.clock.at(0.0, self._offer)
        for number in range(self.plan.workers):
            for hand in range(HANDS):
                self.clock.at(self._random.random() * LOOK_EVERY, self._look, number, hand * 31 + number * 7)
        if self.plan.lists_per_second:
            self.clock.at(0.0, self._list)

    def run_until(self, end: float) -> None:
        """Go on to that second, the books checked in each."""
        while self.clock.now < end:
            self.clock.run_until(min(end, self.clock.now + 1.0))
            self.books.check()
            size = sum(each.size for each in self.masters)
            self.books.most_streamed_bytes = max(self.books.most_streamed_bytes, size)

    # senders and ingest

    def stop_offering(self) -> None:
        """What is under way goes on."""
        self._is_offering = False

    def _offer(self) -> None:
        if not self._is_offering:
            return
        plan = self.plan
        spans = 1 + int(self._random.expovariate(1 / plan.spans_per_request))
        entry = Entry(self.clock.now, spans, 300 + int(spans * self.costs.message_bytes_of_span))
        self.books.offered += spans
        self.books.waiting += spans
        self._arrive(entry)
        gap = plan.spans_per_request / plan.spans_per_second
        self.clock.at(self.clock.now + self._random.expovariate(1 / gap), self._offer)

    def _arrive(self, entry: Entry) -> None:
        ingest = self.ingests[self._random.randrange(len(self.ingests))]
        if ingest.used + entry.size > ADMISSION:
            self._come_again(entry)
            return
        self.books.waiting -= entry.spans
        self.books.received += entry.spans
        ingest.used += entry.size
        work = self.costs.ingest_request + self.costs.ingest_span * entry.spans
        shard = self.shards[self._random.randrange(len(self.shards))]
        self.clock.at(ingest.cpu.take(self.clock.now, work * 1e-6), self._append, ingest, entry, shard, None)

    def _come_again(self, entry: Entry) -> None:
        self.books.refused += 1
        self.books.most_waiting = max(self.books.most_waiting, self.books.waiting)
        entry.tries += 1
        pause = SENDER_PAUSE * 2 ** min(5, entry.tries - 1) * (0.5 + self._random.random())
        self.clock.at(self.clock.now + pause, self._arrive, entry)

    def _append(self, ingest: Ingest, entry: Entry, shard: Shard, deadline: float | None) -> None:
        now, master = self.clock.now, shard.master
        deadline = now + CLIENT_DEADLINE if deadline is None else deadline
        if now < ingest.try_again_at or (master.is_away and now >= deadline):
            self._spill(ingest, entry)
        elif master.is_away:
            self.clock.at(deadline, self._give_up, ingest, entry, shard)
            master.waiting.append((deadline, self._append, (ingest, entry, shard, deadline)))
        elif master.size + entry.size > master.capacity:
            self._refuse(ingest, entry)
        else:
            master.size += entry.size
            written = self._at_master(master, entry, share=0.5)
            confirmed = written + self._random.expovariate(1e3 / (NETWORK + self.costs.replica_milliseconds))
            self.clock.at(confirmed, self._confirm, ingest, entry, shard, deadline)

    def _at_master(self, master: Master, entry: Entry, share: float) -> float:
        """When the master is done with half of what an entry costs it."""
        work = self.costs.master_message + self.costs.master_kilobyte * entry.size / 1024
        sent = master.link.take(self.clock.now, entry.size / self.plan.link_bytes_per_second)
        return max(sent, master.cpu.take(self.clock.now, work * share * 1e-6))

    def _confirm(self, ingest: Ingest, entry: Entry, shard: Shard, deadline: float) -> None:
        if shard.master.is_away:  # it was not confirmed: the replica that follows does not have it
            shard.master.size -= entry.size
            self._append(ingest, entry, shard, deadline)
            return
        ingest.used -= entry.size
        self.books.received -= entry.spans
        self._into_stream(entry, shard)
        self._answer(entry)

    def _into_stream(self, entry: Entry, shard: Shard) -> None:
        entry.since = self.clock.now
        shard.entries.append(entry)
        shard.size += entry.size
        self.books.streamed += entry.spans

    def _answer(self, entry: Entry) -> None:
        self.acknowledged.append((self.clock.now, self.clock.now - entry.born, entry.spans))

    def _refuse(self, ingest: Ingest, entry: Entry) -> None:
        ingest.used -= entry.size
        self.books.received -= entry.spans
        self.books.waiting += entry.spans
        self._come_again(entry)

    # a master that is away

    def _give_up(self, ingest: Ingest, entry: Entry, shard: Shard) -> None:
        """The deadline of an append has come."""
        master = shard.master
        for index, (_, _, arguments) in enumerate(master.waiting):
            if arguments[1] is entry:
                del master.waiting[index]
                ingest.try_again_at = self.clock.now + PAUSE
                self._spill(ingest, entry)
                return

    def _spill(self, ingest: Ingest, entry: Entry) -> None:
        if not self.plan.has_spill:
            self._refuse(ingest, entry)
            return
        self.clock.at(self.clock.now + SPILL_SYNC, self._spilled, ingest, entry)

    def _spilled(self, ingest: Ingest, entry: Entry) -> None:
        ingest.used -= entry.size
        self.books.received -= entry.spans
        self.books.spilled += entry.spans
        self.books.most_spilled = max(self.books.most_spilled, self.books.spilled)
        if not ingest.spilled:
            self.clock.at(self.clock.now + PAUSE, self._drain, ingest)
        ingest.spilled.append(entry)
        self._answer(entry)

    def _drain(self, ingest: Ingest) -> None:
        """Eight at a time, each to a shard of its own."""
        if self.clock.now < ingest.try_again_at:
            self.clock.at(ingest.try_again_at, self._drain, ingest)
            return
        for _ in range(min(8, len(ingest.spilled))):
            shard = self.shards[self._random.randrange(len(self.shards))]
            entry = ingest.spilled[0]
            if shard.master.is_away or shard.master.size + entry.size > shard.master.capacity:
                self.clock.at(self.clock.now + PAUSE, self._drain, ingest)
                return
            ingest.spilled.popleft()
            shard.master.size += entry.size
            self._at_master(shard.master, entry, share=0.5)
            self.books.spilled -= entry.spans
            self._into_stream(entry, shard)
        if ingest.spilled:
            self.clock.at(self.clock.now + 1e-3 * (NETWORK + self.costs.replica_milliseconds), self._drain, ingest)

    def master_goes(self, number: int) -> None:
        self.masters[number].is_away = True

    def master_comes(self, number: int) -> None:
        """Its replica has taken its place."""
        for deadline, again, arguments in self.masters[number].back():
            if self.clock.now < deadline:
                self.clock.at(self.clock.now, again, *arguments)

    # workers

    def _look(self, worker: int, place: int) -> None:
        if worker in self.dead:
            return
        for step in range(len(self.shards)):
            shard = self.shards[(place + step) % len(self.shards)]
            if not shard.master.is_away and shard.leased_until <= self.clock.now and self._is_due(shard):
                self._work(worker, shard, place + step + 1)
                return
        self.clock.at(self.clock.now + LOOK_EVERY, self._look, worker, place)

    def _is_due(self, shard: Shard) -> bool:
        if shard.claimed is not None:
            return True
        if not shard.entries:
            return False
        is_whole = len(shard.entries) >= BATCH_ENTRIES or shard.size >= BATCH_BYTES
        return is_whole or self.clock.now - shard.entries[0].since >= LINGER

    def _work(self, worker: int, shard: Shard, place: int) -> None:
        """Claim, read, and go to the store."""
        shard.leased_until, shard.holder = float("inf"), worker
        if shard.claimed is None:
            shard.claimed = self._claim(shard)
        read = self.clock.now
        for entry in shard.claimed:
            read = max(read, self._at_master(shard.master, entry, share=0.4))
        rows = sum(entry.spans for entry in shard.claimed)
        work = self.costs.worker_message * len(shard.claimed) + self.costs.worker_span * rows
        self.clock.at(self.workers[worker].take(read, work * 1e-6), self._insert, worker, shard, place)

    def _claim(self, shard: Shard) -> list[Entry]:
        claimed: list[Entry] = []
        size = 0
        while shard.entries and len(claimed) < BATCH_ENTRIES and size < BATCH_BYTES:
            claimed.append(shard.entries.popleft())
            size += claimed[-1].size
        shard.size -= size
        return claimed

    def _insert(self, worker: int, shard: Shard, place: int) -> None:
        if worker in self.dead:
            return  # the lease ends by itself
        if self.is_store_away:
            self.clock.at(self.clock.now + STORE_PAUSE, self._insert, worker, shard, place)
            return
        rows = sum(entry.spans for entry in shard.claimed or ())
        work = self.costs.store_insert + self.costs.store_span * rows
        self.clock.at(self.store.take(self.clock.now, work * 1e-6), self._acknowledge, worker, shard, place)

    def _acknowledge(self, worker: int, shard: Shard, place: int) -> None:
        """The rows are stored. If the worker died before it could say so, the batch comes again, under its token."""
        claimed = shard.claimed or []
        if worker in self.dead:
            return
        if shard.master.is_away:
            self.clock.at(self.clock.now + STORE_PAUSE, self._acknowledge, worker, shard, place)
            return
        rows = sum(entry.spans for entry in claimed)
        self.store.burden(self.clock.now, self.costs.merge_span * rows * merges_of(rows) * 1e-6, MERGE_SLICE)
        for entry in claimed:
            self._at_master(shard.master, entry, share=0.1)
            shard.master.size -= entry.size
            self.books.streamed -= entry.spans
            self.books.stored += entry.spans
            self.seen.append((self.clock.now, self.clock.now - entry.born, entry.spans))
        shard.claimed, shard.leased_until = None, 0.0
        self.clock.at(self.clock.now, self._look, worker, place)

    def worker_dies(self, number: int) -> None:
        """What it leased is free when the leases end."""
        self.dead.add(number)
        for shard in self.shards:
            if shard.holder == number and shard.claimed is not None:
                self.clock.at(self.clock.now + LEASE, self._end_lease, shard, shard.claimed)

    def _end_lease(self, shard: Shard, claimed: list[Entry]) -> None:
        if shard.claimed is claimed:
            shard.leased_until = 0.0

    # the store

    def _list(self) -> None:
        self.store.take(self.clock.now, self.costs.list_read * 1e-6)
        gap = self._random.expovariate(self.plan.lists_per_second)
        self.clock.at(self.clock.now + gap, self._list)

    def store_goes(self) -> None:
        self.is_store_away = True

    def store_comes(self) -> None:
        self.is_store_away = False


def merges_of(rows: int) -> float:
    """How often each row of an insert is merged, all in all."""
    return max(0.0, math.log10(LARGEST_PART / max(1, rows)))


def _home(shard: int, masters: int) -> int:
    """Which master has the slot of the shard's tag, where each has as many slots (Redis cluster specification)."""
    return crc_hqx(b"%02d" % shard, 0) % 16384 * masters // 16384
