"""Span logs with one fault each, named after it, so that the checks are known to notice."""

from __future__ import annotations

from asynctrace.spanlog import SpanLog


class CutsOneRecordTooFew(SpanLog):
    """Says one more record than the bytes hold."""

    def read(self, number: int, max_records: int, max_bytes: int) -> tuple[list[memoryview], int]:
        slices, count = super().read(number, max_records, max_bytes)
        if count > 1:
            slices, _ = super().read(number, count - 1, max_bytes)
        return slices, count


class IgnoresTheByteLimit(SpanLog):
    def read(self, number: int, max_records: int, max_bytes: int) -> tuple[list[memoryview], int]:
        return super().read(number, max_records, 1 << 40)


class StopsAtTheSegment(SpanLog):
    """A run never goes on in the next segment."""

    def read(self, number: int, max_records: int, max_bytes: int) -> tuple[list[memoryview], int]:
        following = [segment.base for segment in self._segments if segment.base > number]
        return super().read(number, min([max_records, *(base - number for base in following)]), max_bytes)


class ReadsNothingOversized(SpanLog):
    """A record above the byte limit is never handed out: its lane would wait for ever."""

    def read(self, number: int, max_records: int, max_bytes: int) -> tuple[list[memoryview], int]:
        slices, count = super().read(number, max_records, max_bytes)
        return (slices, count) if sum(map(len, slices)) <= max_bytes else ([], 0)


class NeverFrees(SpanLog):
    def release(self, settled: int, furthest: int = 0) -> None:
        self._settled = max(self._settled, settled)


class FreesTheSegmentOfTheCursor(SpanLog):
    """Frees a segment whose last records are not settled."""

    def release(self, settled: int, furthest: int = 0) -> None:
        super().release(settled, furthest)
        if len(self._segments) > 1:
            self._free_oldest()


class ForgetsItsBound(SpanLog):
    """Takes one segment more than it may."""

    def _roll(self, size: int) -> bool:
        self._capacity_bytes += self._segment_bytes
        return super()._roll(size)


class IgnoresTheBoundOfSpans(SpanLog):
    def _spans_are_full(self) -> bool:
        return False

    def _reopen(self) -> None:
        self._capacity_spans, spans = None, self._capacity_spans
        super()._reopen()
        self._capacity_spans = spans


class DropsWithoutCounting(SpanLog):
    def _count_refused(self, reason: str) -> None:
        return


class KeepsTheStageToItself(SpanLog):
    """A reader does not see what is staged."""

    @property
    def appended(self) -> int:
        return self._stored


class CloseForgetsTheStage(SpanLog):
    def close(self, reason: str) -> None:
        self._staged.clear()
        super().close(reason)


class WakesOnlyWhenTheStageIsFull(SpanLog):
    """The stage does not know at which record somebody wants to be told."""

    def _set_stage_limit(self) -> None:
        self._stage_limit = 64


class NobodyIsToldOfRoom(SpanLog):
    def _wake_waiters(self) -> None:
        return


class WaitsForEver(SpanLog):
    def _patience(self) -> float:
        return 1e6


class StagesWithoutReentry(SpanLog):
    """A finaliser or signal handler that comes in while records are stored stores what is half-way stored."""

    def _store_together(self, records: list[bytes]) -> bool:
        self._storing = False
        try:
            return super()._store_together(records)
        finally:
            self._storing = True


class DropsWhatComesInBetween(SpanLog):
    """Empties the whole stage after storing what it saw of it."""

    def _store_together(self, records: list[bytes]) -> bool:
        stored = super()._store_together(records)
        if stored:
            self._staged.clear()
        return stored


def _one_more_call() -> None:
    return None


class CountsOnceMoreWhenInterrupted(SpanLog):
    """Takes a record off the stage in a step of its own, after it was stored."""

    def _store_one(self, record: bytes) -> None:
        super()._store_one(record)
        self._staged.insert(0, record)
        _one_more_call()  # on entry to a function every CPython lets signal handlers run
        self._staged.pop(0)


class LosesARecordToARace(SpanLog):
    """Stores without the lock."""

    def _store_staged(self) -> None:
        while self._staged:
            records = self._staged[:]
            if not self._store_together(records):
                self._store_one(records[0])
        self._set_stage_limit()


class StoresWithoutWith(SpanLog):
    """An exception between the two keeps the lock for ever."""

    def _store_staged(self) -> None:
        self._lock.acquire()
        super()._store_staged()
        self._lock.release()
