"""Readers of dead journals with one fault each, named after it, so that the checks are known to notice."""

from __future__ import annotations

from collections.abc import Callable

from asynctrace._contracts import Ending, Span
from asynctrace.spanlog.journal._closing import clear_open_spans
from asynctrace.spanlog.journal._orphan import OrphanLog

__all__ = ["WRONG_AT_CLOSING", "CountsGapsAsHeld", "DeletesWhatItIsPast", "ReadsOverGaps"]


class ClosesWithoutLooking(OrphanLog):
    """Does not ask whether a span that was open has a record."""

    def _stored(self) -> dict[tuple[str, str], Span]:
        return {}


class NumbersAnew(OrphanLog):
    """What an earlier recoverer closed is closed again, under numbers of its own."""

    def _stored(self) -> dict[tuple[str, str], Span]:
        return {key: span for key, span in super()._stored().items() if span.ending != Ending.LOST}


class TakesLinksForSpans(OrphanLog):
    """A record that names a span is taken for the record of it."""

    def _stored(self) -> dict[tuple[str, str], Span]:
        payload = b"".join(bytes(part.segment.payload) for part in self._held)
        linked = {key for key in self._spans.bodies if bytes.fromhex(key[1]) in payload}
        return {key: Span(trace_id=key[0], span_id=key[1]) for key in linked}


class ForgetsFirst(OrphanLog):
    """Clears the slab before the records count."""

    def _store_lost(self, between: Callable[[], object]) -> None:
        clear_open_spans(self._directory)
        between()
        super()._store_lost(between)


WRONG_AT_CLOSING = {
    double.__name__: double for double in (ClosesWithoutLooking, NumbersAnew, TakesLinksForSpans, ForgetsFirst)
}


class ReadsOverGaps(OrphanLog):
    """A run goes on behind a gap as if there were none."""

    def read(self, number: int, max_records: int, max_bytes: int) -> tuple[list[memoryview], int]:
        slices, count = super().read(number, max_records, max_bytes)
        following = self.next_present(number + count)
        if count < max_records and following < self.appended:
            more, records = super().read(following, max_records - count, max_bytes)
            return slices + more, count + records
        return slices, count


class CountsGapsAsHeld(OrphanLog):
    """Numbers what is left one after the other."""

    def next_present(self, number: int) -> int:
        return number


class DeletesWhatItIsPast(OrphanLog):
    """Looks at nobody's cursor but that of its own reader."""

    def _may_go_below(self) -> int:
        return self.appended
