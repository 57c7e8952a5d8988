"""The span log: the bounded, append-only sequence of records between the code that is traced and the lanes.

Promises:

1. `append_nowait()` is safe from any thread, any loop, a signal handler and a finaliser, and makes no system call
   except when a segment rolls.
2. A record has a number, counted from 0 and never reused. `first <= every cursor's target <= appended`.
3. Every record that is not stored is counted, with a reason, before the call returns.
4. The memory held is at most `capacity_bytes`; the number of records held at most `capacity_spans`.
5. The log does not know who reads it. Readers cut runs with `read()` and say with `release()` what is settled.

    first            (segments)             appended
      │ ▓▓▓▓▓▓▓▓▓▓▓▓ │ ▓▓▓▓▓▓▓▓▓▓▓ │ ▓▓▓▓▓░░░░ │
      └ release(n) frees whole segments          └ append_nowait()

Re-entrance: the lock is re-entrant, so a signal handler or finaliser that interrupts an append of its own thread gets
in; it then finds `_writing` set and leaves its record in `_nested`, which the interrupted append stores on its way out.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from ._policy import DropNewest, DropOldest, WaitForRoom, WhenFull
from ._segment import SEGMENT_BYTES, Segment

__all__ = ["SpanLog"]

_NEVER = 1 << 62
"""A record number that is never reached."""

_SEGMENTS_IN_CAPACITY = 8
"""A small log is still made of several segments, so that room comes back in parts."""

_SMALLEST_SEGMENT = 4096


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
        self._on_ready = on_ready
        self._segment_bytes = min(SEGMENT_BYTES, max(_SMALLEST_SEGMENT, capacity_bytes // _SEGMENTS_IN_CAPACITY))
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        self._waiters: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        self._writing = False
        self._nested: deque[bytes] = deque()
        self._closed_for: str | None = None
        self._refused: dict[str, int] = {}
        self._segments: deque[Segment] = deque()
        self._held_bytes = 0
        self._settled = 0
        self.appended = 0
        """Records stored so far; the number of the next one."""
        self.first = 0
        """The oldest record that is still held."""
        self.peak_bytes = 0
        """The most memory ever held by segments."""
        self.wake_at = 1
        """`on_ready` is called once `appended` reaches this number; the reader sets it anew."""
        # The open segment, unpacked for the hot path.
        self._payload = self._words = memoryview(b"")
        self._base = self._end = self._capacity = self._stop_at = 0

    # Appending ---------------------------------------------------------------------------------------------------

    def append_nowait(self, record: bytes) -> bool:
        """Store `record`, or count it as dropped. False only under `WaitForRoom`: full, and nothing counted yet."""
        with self._lock:
            if self._writing:
                self._nested.append(record)
                return True
            self._writing = True
            try:
                number = self.appended
                start = self._end
                end = start + len(record)
                if end > self._capacity or number >= self._stop_at:
                    stored = self._append_slowly(record)
                else:
                    # No call stands between these stores, so no signal handler runs between them either.
                    self._payload[start:end] = record
                    self._words[number - self._base] = end
                    self._end = end
                    self.appended = number + 1
                    stored = True
            finally:
                self._writing = False
            if self._nested:
                self._store_nested()
        if self.appended >= self.wake_at:
            self._on_ready()
        return stored

    async def append(self, record: bytes) -> None:
        """Store `record` as soon as there is room; after the policy's timeout count it as `refused`.

        A cancellation ends the wait at once: the record is stored if there is room by now, else counted, and the
        cancellation goes on.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._patience()):
                while not self.append_nowait(record):
                    await self._wait_for_room(loop)
        except TimeoutError:
            self._append_or_refuse(record)
        except asyncio.CancelledError:
            self._append_or_refuse(record)
            raise

    def append_sync(self, record: bytes) -> None:
        """`append()` for a thread without a running event loop; inside one it does not wait."""
        if asyncio._get_running_loop() is None:
            with self._room:
                self._room.wait_for(self._has_room, self._patience())
        self._append_or_refuse(record)

    def refuse(self, reason: str) -> None:
        """Count one record that never reached the log."""
        with self._lock:
            self._count_refused(reason)

    def close(self, reason: str) -> None:
        """From now on every record is refused for `reason`."""
        with self._lock:
            self._closed_for = reason
            self._stop_at = 0
            self._wake_waiters()

    def refused(self) -> dict[str, int]:
        """Records that never reached the log, by reason."""
        with self._lock:
            return dict(self._refused)

    def totals(self) -> tuple[int, dict[str, int]]:
        """(`appended`, `refused()`) of one instant."""
        with self._lock:
            return self.appended, dict(self._refused)

    # Reading -----------------------------------------------------------------------------------------------------

    def read(self, number: int, max_records: int, max_bytes: int) -> tuple[list[memoryview], int]:
        """Cut the run of records from `number` on: (slices, number of records), at least one record if there is one.

        `number` must not be below `first`. The slices stay valid for as long as they are referenced.
        """
        slices: list[memoryview] = []
        count = size = 0
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

    def release(self, settled: int) -> None:
        """Every reader is past `settled`: free what lies wholly below it and let waiting appends go on."""
        with self._lock:
            self._settled = max(self._settled, settled)
            while len(self._segments) > 1 and self._segments[1].base <= settled:
                self._free_oldest()
            if self._segments and self.appended <= settled:
                self._free_all()
            self._reopen()
            self._wake_waiters()

    def last_number_of(self, trace_id: bytes, above: int) -> int | None:
        """The newest record not below `above` that belongs to `trace_id` (16 bytes), or None."""
        needle = b"\x0a\x10" + trace_id  # Span.trace_id is the first field that our encoder writes
        for segment, used in reversed(self._segments_from(above)):
            slot = segment.find_last(needle, used)
            if slot is not None:
                number = segment.base + slot
                return number if number >= above else None
        return None

    def bytes_above(self, number: int) -> int:
        """Bytes of the records from `number` on."""
        total = 0
        for segment, used in self._segments_from(number):
            start = segment.start_of(max(0, number - segment.base)) if number - segment.base < used else 0
            total += max(0, segment.start_of(used) - start)
        return total

    @property
    def held_bytes(self) -> int:
        """Memory held by segments."""
        return self._held_bytes

    # Below the lock ----------------------------------------------------------------------------------------------

    def _append_slowly(self, record: bytes) -> bool:
        if self._closed_for is not None:
            return self._count_refused(self._closed_for)
        if not self._make_room(len(record)):
            return False if isinstance(self._when_full, WaitForRoom) else self._count_refused("refused")
        end = self._end + len(record)
        self._payload[self._end : end] = record
        self._words[self.appended - self._base] = end
        self._end = end
        self.appended += 1
        return True

    def _make_room(self, size: int) -> bool:
        if self._spans_are_full():
            if not self._evict():
                return False
        if self._end + size <= self._capacity and self.appended < self._base + self._segments[-1].slots:
            self._reopen()
            return True
        return self._roll(size)

    def _spans_are_full(self) -> bool:
        held_from = max(self._settled, self.first)
        return self._capacity_spans is not None and self.appended - held_from >= self._capacity_spans

    def _roll(self, size: int) -> bool:
        wanted = max(self._segment_bytes, size)
        while self._segments and self._held_bytes + wanted > self._capacity_bytes:
            if not self._evict():
                return False
        try:
            segment = Segment(self.appended, wanted)
        except OSError:
            return False
        self._segments.append(segment)
        self._held_bytes += segment.capacity
        self.peak_bytes = max(self.peak_bytes, self._held_bytes)
        self._payload, self._words = segment.payload, segment.words
        self._base, self._end, self._capacity = segment.base, 0, segment.capacity
        self.wake_at = min(self.wake_at, self.appended)
        self._reopen()
        return True

    def _evict(self) -> bool:
        if not isinstance(self._when_full, DropOldest):
            return False
        if len(self._segments) > 1:
            self._free_oldest()
        else:
            self._free_all()
        return True

    def _free_oldest(self) -> None:
        self._held_bytes -= self._segments.popleft().capacity
        self.first = self._segments[0].base

    def _free_all(self) -> None:
        self._segments.clear()
        self._held_bytes = 0
        self.first = self._base = self.appended
        self._payload = self._words = memoryview(b"")
        self._end = self._capacity = self._stop_at = 0

    def _reopen(self) -> None:
        """Set the number at which the hot path must think again."""
        if self._closed_for is not None or not self._segments:
            self._stop_at = 0
            return
        stop_at = self._base + self._segments[-1].slots
        if self._capacity_spans is not None:
            stop_at = min(stop_at, max(self._settled, self.first) + self._capacity_spans)
        self._stop_at = stop_at

    def _count_refused(self, reason: str) -> bool:
        if reason not in self._refused:
            self.wake_at = 0  # the reader tells of the first loss
        self._refused[reason] = self._refused.get(reason, 0) + 1
        return True

    def _store_nested(self) -> None:
        while self._nested:
            if not self.append_nowait(record := self._nested.popleft()):
                self._append_or_refuse(record)

    def _append_or_refuse(self, record: bytes) -> None:
        if not self.append_nowait(record):
            self.refuse("refused")

    # Waiting for room --------------------------------------------------------------------------------------------

    def _patience(self) -> float:
        return self._when_full.timeout if isinstance(self._when_full, WaitForRoom) else 0.0

    def _has_room(self) -> bool:
        if self._closed_for is not None:
            return True
        if self._spans_are_full():
            return False
        return self._held_bytes + self._segment_bytes <= self._capacity_bytes or not self._segments

    async def _wait_for_room(self, loop: asyncio.AbstractEventLoop) -> None:
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if self._has_room():
                return
            self._waiters.append((loop, future))
        await future

    def _wake_waiters(self) -> None:
        self._room.notify_all()
        while self._waiters:
            loop, future = self._waiters.popleft()
            try:
                loop.call_soon_threadsafe(_settle, future)
            except RuntimeError:  # that loop is closed, and its waiter with it
                continue

    def _segments_from(self, number: int) -> list[tuple[Segment, int]]:
        """The segments that hold records from `number` on, each with the number of its records."""
        with self._lock:
            found = []
            following = self.appended
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
