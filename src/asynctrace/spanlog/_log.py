"""The span log: the bounded, append-only sequence of records between the code that is traced and the lanes.

Promises:

1. `append_nowait()` is safe from any thread, any loop, a signal handler and a finaliser, and makes no system call
   except when a segment rolls.
2. A record has a number, counted from 0 and never reused.
3. Every record that is not stored is counted, with a reason.
4. The memory held is at most `capacity_bytes`, and what is staged; the number of records at most `capacity_spans`.
5. The log does not know who reads it. Readers cut runs with `read()` and say with `release()` what is settled.

    first            (segments)             stored        staged
      │ ▓▓▓▓▓▓▓▓▓▓▓▓ │ ▓▓▓▓▓▓▓▓▓▓▓ │ ▓▓▓▓▓░░░░ │    ▪▪▪ ◀── append_nowait()
      └ release(n) frees whole segments         ◀─ stored together, under the lock

Why records are staged: taking a lock for each record costs as much as everything else that happens to it here. One
`list.append` is atomic, so it needs no lock, cannot be interrupted half-way by a signal handler or a finaliser, and
the next of up to 64 appends stores all of them. Readers store what is staged before they look, so nobody sees a
difference. A log that must write through (a journal) stages nothing.

Re-entrance: the lock is re-entrant, so a signal handler or finaliser that interrupts `_store_staged()` of its own thread
gets in; it then finds `_storing` set, and leaves its record to the call that it interrupted.
"""

from __future__ import annotations

import asyncio
import threading
from array import array
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate

from .._errors import WireError
from ..wire import record_trace_id
from ._policy import DropNewest, DropOldest, WaitForRoom, WhenFull
from ._segment import SEGMENT_BYTES, Segment, find_last

__all__ = ["SpanLog"]

_SEGMENTS_IN_CAPACITY = 8
"""A small log is still made of several segments, so that room comes back in parts."""

_SMALLEST_SEGMENT = 4096

_NO_MEMORY = memoryview(b"")

_MOST_STAGED = 64
"""More save no more time: the lock is a small part of storing this many."""

_LARGE_RECORD = 4096
"""A record of more bytes is stored at once, so that what is staged stays below 256 KiB."""


_MOST_REFUSED_TRACES = 1024
"""Beyond so many, spans are only counted."""


class SpanLog:
    """The memory-mode span log. `on_ready` is called outside the lock, from the appending thread, when
    `wake_at` records have been appended, a segment is full, or a record was refused for a new reason."""

    def __init__(
        self,
        *,
        capacity_bytes: int,
        capacity_spans: int | None = None,
        when_full: WhenFull | None = None,
        on_ready: Callable[[], None],
    ) -> None:
        self._capacity_bytes = capacity_bytes
        self._capacity_spans = capacity_spans
        self._when_full = when_full or DropNewest()
        self._waits = isinstance(when_full, WaitForRoom)
        if self._waits:  # here, because asking each time is paid by each span
            self.append_nowait = self._append_if_room  # type: ignore[method-assign]
        self._on_ready = on_ready
        self._segment_bytes = min(SEGMENT_BYTES, max(_SMALLEST_SEGMENT, capacity_bytes // _SEGMENTS_IN_CAPACITY))
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        self._waiters: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        self._storing = False
        self._was_storing = self._is_forking = False
        self._staged: list[bytes] = []
        self._closed_for: str | None = None
        self._refused: dict[str, int] = {}
        self.refused_traces: dict[bytes, int] = {}
        self._segments: deque[Segment] = deque()
        self._spare: Segment | None = None
        self._floor = 0
        self._settled = 0
        self._furthest = 0
        self._stored = 0
        self.peak_bytes = 0
        """The most memory ever held by segments."""
        self._wake_at = 1
        self._stage_limit = 1
        # The open segment, unpacked for the hot path.
        self._payload = self._words = _NO_MEMORY
        self._base = self._end = self._capacity = self._stop_at = 0

    # Appending ---------------------------------------------------------------------------------------------------

    def append_nowait(self, record: bytes) -> bool:
        """Store `record`, or count it as dropped. False only under `WaitForRoom`: full, and nothing counted yet."""
        staged = self._staged
        staged.append(record)
        if len(staged) >= self._stage_limit or len(record) > _LARGE_RECORD:
            self._store_staged()
        return True

    async def append(self, record: bytes) -> None:
        """Store `record` as soon as there is room; after the policy's timeout count it as `refused`.

        A cancellation ends the wait at once: the record is stored if there is room by now, else counted, and the
        cancellation goes on.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._patience()):
                while not self.append_nowait(record):
                    await self._wait_for_room(loop, record)
        except TimeoutError:
            self.append_or_refuse(record)
        except asyncio.CancelledError:
            self.append_or_refuse(record)
            raise

    def append_sync(self, record: bytes) -> None:
        """`append()` for a thread without a running event loop; inside one it does not wait."""
        patience = 0.0 if self._is_forking or asyncio._get_running_loop() is not None else self._patience()
        with self._room:  # held from the look to the store, so that nobody takes the room in between
            if self._room.wait_for(lambda: self._has_room_for(record), patience):
                self._staged.append(record)
                self._store_locked()
            else:
                self._count_refused("refused")
                self._note_trace_of(record)
        self._tell_reader()

    def _append_if_room(self, record: bytes) -> bool:
        with self._lock:
            if not self._has_room_for(record):
                return False
            self._staged.append(record)
            self._store_locked()
        self._tell_reader()
        return True

    def append_or_refuse(self, record: bytes) -> None:
        """Store `record` if there is room now, else count it as `refused`."""
        if not self.append_nowait(record):
            self.refuse("refused")
            self._note_trace_of(record)

    def refuse(self, reason: str) -> None:
        """Count one record that never reached the log."""
        with self._lock:
            self._count_refused(reason)

    def close(self, reason: str) -> None:
        """From now on every record is refused for `reason`."""
        with self._lock:
            self._store_locked()
            self._closed_for = reason
            self._stop_at = 0
            self._set_stage_limit()
            self._wake_waiters()

    @property
    def appended(self) -> int:
        """Records stored so far; the number of the next one."""
        self._store_staged()
        return self._stored

    @property
    def wake_at(self) -> int:
        """`on_ready` is called once `appended` reaches this number; the reader sets it anew."""
        return self._wake_at

    @wake_at.setter
    def wake_at(self, number: int) -> None:
        with self._lock:
            self._wake_at = number
            self._set_stage_limit()

    def refused(self) -> dict[str, int]:
        """Records that never reached the log, by reason."""
        return self.totals()[1]

    def totals(self) -> tuple[int, dict[str, int]]:
        """(`appended`, `refused()`) of one instant."""
        self._store_staged()
        with self._lock:
            return self._stored, dict(self._refused)

    # Reading -----------------------------------------------------------------------------------------------------

    def read(self, number: int, max_records: int, max_bytes: int) -> tuple[list[memoryview], int]:
        """Cut the run of records from `number` on: (slices, number of records), at least one record if there is one, and
        none where `number` is below `first`. The slices stay valid for as long as they are referenced."""
        slices: list[memoryview] = []
        count = size = 0
        self._store_staged()
        with self._lock:  # a segment that is freed may be used anew; a slice of it that is held forbids that
            if number < self.first:
                return slices, count
            for segment, used in self._segments_from(number):
                slot = number + count - segment.base
                if slot >= used:
                    continue
                piece, records = segment.cut(slot, used, max_records - count, max_bytes - size)
                if slices and (size + len(piece) > max_bytes):
                    break
                slices.append(piece)
                count += records
                size += len(piece)
                if count >= max_records or size >= max_bytes or slot + records < used:
                    break
        return slices, count

    def release(self, settled: int, furthest: int | None = None) -> None:
        """Every reader is past `settled`, and one of them past `furthest`: free what lies wholly below `settled`, and let
        waiting appends go on. Below `furthest` only readers that lag behind have something to lose (see `_evict()`)."""
        with self._lock:
            self._furthest = max(self._furthest, settled, furthest or 0)
            self._settled = max(self._settled, settled)
            self._free_below(settled)
            if self._segments and self._stored <= settled and not self._staged:
                self._all_is_settled()
            self._reopen()
            self._wake_waiters()
        self._tell_reader()

    def last_number_of(self, trace_id: bytes, above: int) -> int | None:
        """The newest record not below `above` that belongs to `trace_id` (16 bytes), or None."""
        needle = b"\x0a\x10" + trace_id  # Span.trace_id is the first field that our encoder writes
        self._store_staged()
        with self._lock:  # views first: they keep the memory from being used anew while we search without the lock
            views = [(segment.base, *segment.view(used)) for segment, used in self._segments_from(above)]
        for base, payload, words in reversed(views):
            slot = find_last(needle, payload, words)
            if slot is not None:
                number = base + slot
                return number if number >= above else None
        return None

    def bytes_above(self, number: int) -> int:
        """Bytes of the records from `number` on."""
        self._store_staged()
        with self._lock:
            return sum(
                segment.start_of(used) - segment.start_of(min(used, max(0, number - segment.base)))
                for segment, used in self._segments_from(number)
            )

    @property
    def held_bytes(self) -> int:
        """Memory held by segments, in bytes."""
        with self._lock:
            return sum(segment.capacity for segment in self._segments)

    is_scoped: bool = False
    """Whether a record may name a scope of its own: set by whoever makes the first one, and read for each batch."""

    gap_reason: str = "evicted"
    """Why records are missing that a reader had not settled."""

    def next_present(self, number: int) -> int:
        """The next record that is held, from `number` on; or the number that the next one to be appended will have."""
        return max(number, self.first)

    @property
    def first(self) -> int:
        """The oldest record that is still held."""
        try:
            return max(self._floor, self._segments[0].base)
        except IndexError:
            return self._stored

    # Below the lock ----------------------------------------------------------------------------------------------

    def _store_staged(self) -> None:
        if not self._staged:
            return
        with self._lock:
            if self._storing:
                return  # interrupted by us: it stores this record too, and tells the reader
            self._store_locked()
        self._tell_reader()

    def _store_locked(self) -> None:
        if self._storing:
            return
        self._storing = True
        try:
            self._store_all()
        finally:
            self._storing = False
            self._set_stage_limit()

    def _store_all(self) -> None:
        # Not a loop inside the `try`: in CPython 3.13 the jump back of a loop is where a signal handler runs, and yet
        # outside the `try` that the loop ends. An exception from there would leave `_storing` set for ever.
        while self._staged:
            if not self._store_together(self._staged[:]):
                self._store_one(self._staged[0])

    def _tell_reader(self) -> None:
        """Not inside the lock: there we have interrupted a call of our own thread, which tells on its way out."""
        if self._stored >= self._wake_at and not self._lock._is_owned():  # type: ignore[attr-defined]
            self._on_ready()

    def _store_together(self, records: list[bytes]) -> bool:
        """Store all of them in the open segment; False when there is no room for all."""
        number, start, count = self._stored, self._end, len(records)
        ends = memoryview(array("Q", accumulate(map(len, records), initial=start)))
        end = ends[count]
        if end > self._capacity or number + count > self._stop_at:
            return False
        bodies = b"".join(records)
        slot = number - self._base
        # No call stands between here and the end, so no signal handler runs in between: an exception that one raises
        # finds each record either staged or stored.
        self._payload[start:end] = bodies
        self._words[slot : slot + count] = ends[1:]
        self._end = end
        self._stored = number + count
        del self._staged[:count]
        return True

    def _store_one(self, record: bytes) -> None:
        """Store the first of the staged records, in a new segment if need be, or count it as refused."""
        size = len(record)
        if not self._prepare(size):
            del self._staged[0]  # first: between this and the count nothing may interrupt
            self._note_trace_of(record)
            return
        number, start = self._stored, self._end
        end = start + size
        self._payload[start:end] = record  # and no call from here on, as above
        self._words[number - self._base] = end
        self._end = end
        self._stored = number + 1
        del self._staged[0]

    def _prepare(self, size: int) -> bool:
        """Make room for a record of `size` bytes; False when it was refused, and counted."""
        if self._closed_for is not None:
            self._count_refused(self._closed_for)
        elif size > self._capacity_bytes:
            self._count_refused("oversize")
        elif (self._end + size > self._capacity or self._stored >= self._stop_at) and not self._make_room(size):
            self._count_refused("refused")
        else:
            return True
        return False

    def _note_trace_of(self, record: bytes) -> None:
        """Whose record was refused, so that the root of its trace can say so; for so many traces at once."""
        if len(self.refused_traces) >= _MOST_REFUSED_TRACES:
            return
        with suppress(WireError):  # what is no span has no trace
            trace_id = record_trace_id(record)
            self.refused_traces[trace_id] = self.refused_traces.get(trace_id, 0) + 1

    def _set_stage_limit(self) -> None:
        until_wake = self._wake_at - self._stored
        self._stage_limit = 1 if self._waits or until_wake < 1 else min(until_wake, _MOST_STAGED)

    def _make_room(self, size: int) -> bool:
        if self._spans_are_full() and not self._step_first():
            return False
        if not self._segments:
            return self._roll(size)
        if self._end + size <= self._capacity and self._stored < self._base + self._segments[-1].slots:
            self._reopen()
            return True
        return self._roll(size)

    def _spans_are_full(self) -> bool:
        held_from = max(self._settled, self.first)
        return self._capacity_spans is not None and self._stored - held_from >= self._capacity_spans

    def _roll(self, size: int) -> bool:
        wanted = max(self._segment_bytes, size)
        while self._segments and self.held_bytes + wanted > self._capacity_bytes:
            if not self._evict():
                return False
        segment = self._new_segment(wanted)
        if segment is None:
            return False
        # No call stands between these lines and the end of append(): an exception that a signal handler raises finds
        # the fields and the segments of one mind. The rest may be missed; it is made up for by the next append.
        self._payload, self._words = segment.payload, segment.words
        self._base, self._end, self._capacity, self._stop_at = segment.base, 0, segment.capacity, 0
        self._segments.append(segment)
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        self._wake_at = min(self._wake_at, self._stored)  # a segment is full
        self._reopen()
        return True

    def _new_segment(self, size: int) -> Segment | None:
        spare, self._spare = self._spare, None
        if spare is not None and spare.capacity >= size and spare.reuse(self._stored):
            return spare
        try:
            return Segment(self._stored, size)
        except OSError:
            return None

    def _step_first(self) -> bool:
        """Give up the oldest record for a new one, if the policy says so; False when it does not."""
        first = self._stored + 1 - (self._capacity_spans or 0)
        if not self._may_evict(first):
            return False
        self._floor = first
        self._free_below(first)
        return True

    def _evict(self) -> bool:
        """Give up the oldest segment, if the policy says so; False when it does not."""
        following = self._segments[1].base if len(self._segments) > 1 else self._stored
        if not self._may_evict(following):
            return False
        if len(self._segments) > 1:
            self._free_oldest()
        else:
            self._free_all()
        return True

    def _may_evict(self, first: int) -> bool:
        """A reader that hangs must not cost the others the newest records: what one reader is past may go."""
        if isinstance(self._when_full, DropOldest):
            return True
        return isinstance(self._when_full, DropNewest) and first <= self._furthest

    def _free_below(self, number: int) -> None:
        """Free the segments that lie wholly below `number`, but for the open one."""
        while len(self._segments) > 1 and self._segments[1].base <= number:
            self._free_oldest()

    def _free_oldest(self) -> None:
        self._retire(self._segments.popleft())

    def _all_is_settled(self) -> None:
        self._free_all()

    def _free_all(self) -> None:
        freed = list(self._segments)
        self._payload = self._words = _NO_MEMORY  # and no call until the segments go, as above
        self._base = self._stored
        self._end = self._capacity = self._stop_at = 0
        self._segments.clear()
        self._retire_all(freed)

    def _retire_all(self, segments: list[Segment]) -> None:
        for segment in segments:
            self._retire(segment)

    def _retire(self, segment: Segment) -> None:
        """Nothing in it is needed any more: keep its memory for the next roll, if there is room for it."""
        self._spare = segment if self.held_bytes + segment.capacity <= self._capacity_bytes else None

    def _reopen(self) -> None:
        """Set the number at which the hot path must think again."""
        if self._closed_for is not None or not self._segments:
            self._stop_at = 0
            return
        stop_at = self._base + self._segments[-1].slots
        if self._capacity_spans is not None:
            stop_at = min(stop_at, max(self._settled, self.first) + self._capacity_spans)
        self._stop_at = stop_at

    def _count_refused(self, reason: str) -> None:
        if reason not in self._refused:
            self._wake_at = 0  # the reader tells of the first loss
        self._refused[reason] = self._refused.get(reason, 0) + 1

    @property
    def is_held_here(self) -> bool:
        """Whether the calling thread has the lock: it has been interrupted inside one of these methods."""
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]

    @property
    def is_storing(self) -> bool:
        """Whether somebody is storing what is staged, and will tell the reader after that."""
        return self._storing

    # Fork --------------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Hold the log still until one of the next two: no other thread is in the middle of anything, and what a finaliser
        of this thread ends meanwhile is only staged."""
        self._lock.acquire()
        self._store_locked()
        self._was_storing = self._storing
        self._storing = self._is_forking = True

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._storing, self._is_forking = self._was_storing, False
        self._store_locked()
        self._lock.release()
        self._tell_reader()

    def after_fork_in_child(self) -> None:
        """The records are the parent's: keep none of them, and nothing of its memory. Whatever still comes is staged, and
        goes with this log."""
        self._payload = self._words = _NO_MEMORY
        self._segments.clear()
        self._spare = None
        self._lock.release()

    # Waiting for room --------------------------------------------------------------------------------------------

    def _patience(self) -> float:
        return self._when_full.timeout if isinstance(self._when_full, WaitForRoom) else 0.0

    def _has_room_for(self, record: bytes) -> bool:
        with self._lock:
            self._store_locked()
            number, size = self._stored, len(record)
            if self._closed_for is not None or size > self._capacity_bytes:
                return True  # it will be refused for a reason that no waiting changes
            if self._segments and self._end + size <= self._capacity and number < self._stop_at:
                return True
            return not self._spans_are_full() and (
                not self._segments or self.held_bytes + max(self._segment_bytes, size) <= self._capacity_bytes
            )

    async def _wait_for_room(self, loop: asyncio.AbstractEventLoop, record: bytes) -> None:
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if self._has_room_for(record):
                return
            self._waiters.append((loop, future))
        try:
            await future
        finally:
            with self._lock, suppress(ValueError):
                self._waiters.remove((loop, future))

    def _wake_waiters(self) -> None:
        self._room.notify_all()
        while self._waiters:
            loop, future = self._waiters.popleft()
            try:
                loop.call_soon_threadsafe(_settle, future)
            except RuntimeError:  # that loop is closed, and its waiter with it
                continue

    def _segments_from(self, number: int) -> list[tuple[Segment, int]]:
        """The segments that hold records from `number` on, each with the number of its records. Under the lock."""
        found = []
        following = self._stored
        for segment in reversed(self._segments):
            found.append((segment, following - segment.base))
            following = segment.base
            if segment.base <= number:
                break
        found.reverse()
        return found


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
