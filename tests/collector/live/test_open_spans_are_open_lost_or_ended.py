"""What is open is what was told of in the last 15 seconds and has not ended; the clock is moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from asynctrace._contracts import StatusCode
from asynctrace.collector._rows import Origin, Received, SpanRow
from asynctrace.collector.live import LOST_AFTER, Live, OpenSpan, OpenSpans
from asynctrace.collector.live import _open_spans as limits
from asynctrace.collector.live._snapshot import read_snapshot, write_snapshot
from asynctrace.collector.store import StoreError

from ..traffic import group, received, span

TRACE = 7
KEY = TRACE.to_bytes(16, "big")
SECOND = 10**9


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return int(self.now * SECOND)


def notice(number: int, *, parent: int = 0, trace: int = TRACE, name: str = "work") -> tuple[SpanRow, Origin]:
    attributes = {"asynctrace.state": "open"}
    made = span(trace, number, parent=parent, name=name, duration=0, status=StatusCode.UNSET, attributes=attributes)
    told = received(group(made))
    return told.rows[0], told.origins[0]


def ended(number: int, *, trace: int = TRACE, duration: int = SECOND) -> SpanRow:
    return received(group(span(trace, number, duration=duration))).rows[0]


def open_spans(clock: Clock, known: Callable[[bytes], list[bytes]] = lambda trace_id: []) -> OpenSpans:
    return OpenSpans(known, monotonic=clock.monotonic, time_ns=clock.time_ns)


def numbers(spans: OpenSpans, trace: bytes = KEY) -> list[int]:
    return [int.from_bytes(each.row.span_id, "big") for each in spans.of(trace)]


# ── open, lost, ended ───────────────────────────────────────────────────────────────────────────────────────


def check_an_ended_span_stays_ended(make: Callable[[Clock], OpenSpans]) -> None:
    spans = make(Clock())
    spans.heard(*notice(1))
    assert numbers(spans) == [1]
    spans.ended([ended(1)])
    assert numbers(spans) == []
    spans.heard(*notice(1))  # it was under way when the span ended
    assert numbers(spans) == []


def test_an_ended_span_is_not_opened_again_by_a_late_notice() -> None:
    check_an_ended_span_stays_ended(open_spans)


class ForgetsWhatEnded(OpenSpans):
    def ended(self, rows: Iterable[SpanRow]) -> None:
        super().ended(rows)
        self._ended.clear()


def test_open_spans_that_forget_what_ended_are_caught() -> None:
    with pytest.raises(AssertionError):
        check_an_ended_span_stays_ended(lambda clock: ForgetsWhatEnded(lambda trace_id: []))


def check_the_end_may_come_first(make: Callable[[Clock], OpenSpans]) -> None:
    spans = make(Clock())
    spans.ended([ended(1)])
    spans.heard(*notice(1))
    assert numbers(spans) == []


def test_a_notice_that_comes_after_the_end_opens_nothing() -> None:
    check_the_end_may_come_first(open_spans)


class LooksAtEndsOnlyWhereNoticesCame(OpenSpans):
    def ended(self, rows: Iterable[SpanRow]) -> None:
        super().ended(rows if self._spans or self._orders else ())


def test_open_spans_that_look_at_ends_only_where_notices_came_are_caught() -> None:
    with pytest.raises(AssertionError):
        check_the_end_may_come_first(lambda clock: LooksAtEndsOnlyWhereNoticesCame(lambda trace_id: []))


SHORT = limits.SHORTEST - 1
"""Nanoseconds."""


def check_notice_and_end_in_one_body(live: Live, numbers_sent: tuple[int, ...]) -> None:
    open_one = span(TRACE, 1, duration=0, attributes={"asynctrace.state": "open"})
    sent = [span(TRACE, 1, duration=SHORT), open_one, span(TRACE, 2, duration=SHORT)]
    live.committed([received(group(*(sent[number] for number in numbers_sent)))])
    assert numbers(live.open) == []


@pytest.mark.parametrize("numbers_sent", [(0, 1, 2), (1, 2, 0)], ids=["end first", "notice first"])
def test_a_span_whose_notice_and_end_came_in_one_body_has_ended(numbers_sent: tuple[int, ...]) -> None:
    check_notice_and_end_in_one_body(Live(), numbers_sent)


class ReadsInTheOrderOfTheBody(Live):
    def committed(self, received: Sequence[Received]) -> None:
        for each in received:
            for row in each.rows:
                if row.facts.is_open:
                    self.open.heard(row, each.origins[row.origin])
                else:
                    self.open.ended([row])


def test_a_span_that_a_notice_opens_after_its_end_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_notice_and_end_in_one_body(ReadsInTheOrderOfTheBody(), (0, 1, 2))


def check_a_silent_span_is_lost(make: Callable[[Clock], OpenSpans]) -> None:
    clock = Clock()
    spans = make(clock)
    spans.heard(*notice(1))
    spans.heard(*notice(2))
    clock.now += LOST_AFTER
    (first, second) = spans.of(KEY)
    assert not spans.is_lost(first)
    assert spans.newly_lost() == set()
    spans.heard(*notice(2))
    clock.now += 1
    assert spans.newly_lost() == {KEY}
    assert spans.newly_lost() == set()
    (first, second) = spans.of(KEY)
    assert (spans.is_lost(first), spans.is_lost(second)) == (True, False)
    spans.heard(*notice(1))
    assert not any(map(spans.is_lost, spans.of(KEY)))


def test_a_span_is_lost_after_15_seconds_of_silence_and_found_by_its_next_notice() -> None:
    check_a_silent_span_is_lost(open_spans)


class NeverLosesAnything(OpenSpans):
    def is_lost(self, span: OpenSpan) -> bool:
        return False


def test_open_spans_that_are_never_lost_are_caught() -> None:
    with pytest.raises(AssertionError):
        check_a_silent_span_is_lost(lambda clock: NeverLosesAnything(lambda trace_id: [], monotonic=clock.monotonic))


def test_a_span_that_was_lost_can_still_end() -> None:
    clock = Clock()
    spans = open_spans(clock)
    spans.heard(*notice(1))
    clock.now += 100
    spans.ended([ended(1)])
    assert numbers(spans) == []


# ── the order ───────────────────────────────────────────────────────────────────────────────────────────────


def places(spans: OpenSpans) -> dict[int, int]:
    order = spans.order_of(KEY)
    assert order is not None
    return {int.from_bytes(span_id, "big"): place for span_id, place in order.places.items()}


def check_every_span_keeps_its_place(make: Callable[..., OpenSpans]) -> None:
    stored = [(3).to_bytes(8, "big"), (4).to_bytes(8, "big")]
    spans = make(Clock(), lambda trace_id: stored)
    assert spans.order_of(KEY) is None
    spans.heard(*notice(1))
    spans.ended([ended(5)])
    spans.heard(*notice(6))
    assert places(spans) == {3: 0, 4: 1, 1: 2, 5: 3, 6: 4}
    spans.ended([ended(1)])
    spans.ended([ended(3)])
    assert places(spans) == {3: 0, 4: 1, 1: 2, 5: 3, 6: 4}
    spans.ended([ended(6)])
    assert numbers(spans) == []
    spans.ended([ended(7, duration=SHORT), ended(8)])  # nothing is open, and the order grows on
    assert places(spans) == {3: 0, 4: 1, 1: 2, 5: 3, 6: 4, 7: 5, 8: 6}


def test_every_span_keeps_its_place_while_spans_open_and_end() -> None:
    check_every_span_keeps_its_place(open_spans)


class PassesShortOnesOverWhereNothingIsOpen(OpenSpans):
    def ended(self, rows: Iterable[SpanRow]) -> None:
        super().ended(rows if self._spans else [row for row in rows if row.end_ns - row.start_ns > SHORT])


def test_an_order_without_the_short_ones_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_every_span_keeps_its_place(lambda clock, known: PassesShortOnesOverWhereNothingIsOpen(known))


def test_a_store_that_cannot_be_read_keeps_no_notice_out() -> None:
    def unreadable(trace_id: bytes) -> list[bytes]:
        raise StoreError("the disk is gone")

    spans = open_spans(Clock(), unreadable)
    spans.heard(*notice(1))
    assert (numbers(spans), places(spans)) == ([1], {1: 0})


def test_a_trace_that_was_deleted_begins_anew() -> None:
    spans = open_spans(Clock())
    spans.heard(*notice(1))
    before = spans.order_of(KEY)
    spans.forget_trace(KEY)
    assert (numbers(spans), spans.order_of(KEY)) == ([], None)
    spans.heard(*notice(2))
    after = spans.order_of(KEY)
    assert before is not None
    assert after is not None
    assert before.number != after.number


# ── bounds ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_SPANS", 10)
    monkeypatch.setattr(limits, "MOST_TRACES", 3)
    monkeypatch.setattr(limits, "MOST_ENDED", 5)
    spans = open_spans(Clock())
    for trace in range(1, 20):
        for number in range(1, 4):
            spans.heard(*notice(number, trace=trace))
            spans.ended([ended(number + 10, trace=trace)])
    assert len(spans) == 10
    assert [trace[-1] for trace in spans.traces()] == [19, 18, 17, 16]
    assert len(spans._orders) <= 3
    assert spans._ordered == sum(len(order.places) for order in spans._orders.values())
    assert len(spans._ended) <= 5


def test_large_notices_push_old_ones_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_BYTES", 5000)
    spans = open_spans(Clock())
    for number in range(1, 10):
        spans.heard(*notice(number, name="n" * 2000))
    assert numbers(spans) == [8, 9]
    assert spans._bytes == sum(len(each.row.message) for each in spans.everything())


# ── after a restart ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_collector_that_comes_next_knows_them_as_lost_until_it_hears_of_them(tmp_path: Path) -> None:
    clock = Clock()
    spans = open_spans(clock)
    spans.heard(*notice(1, name="agent"))
    spans.heard(*notice(2, parent=1))
    write_snapshot(tmp_path / "open", spans.everything())
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o600
    following = open_spans(clock)
    following.restore(read_snapshot(tmp_path / "open"))
    assert [(each.row.name, following.is_lost(each)) for each in following.of(KEY)] == [("agent", True), ("work", True)]
    assert following.of(KEY)[0].row == spans.of(KEY)[0].row._replace(facts=following.of(KEY)[0].row.facts)
    following.heard(*notice(1, name="agent"))
    assert [following.is_lost(each) for each in following.of(KEY)] == [False, True]
    beside = open_spans(clock)
    beside.restore(read_snapshot(tmp_path / "open"), is_running=True)
    assert not any(map(beside.is_lost, beside.of(KEY)))


@pytest.mark.parametrize(
    "content", [b"", b"\xc1", b"\x82\xa6format\x02\xa5spans\x90", b"\x93\x01\x02\x03", b"x" * 1000]
)
def test_a_snapshot_that_cannot_be_read_is_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "open"
    assert read_snapshot(path) == []
    path.write_bytes(content)
    assert read_snapshot(path) == []


@pytest.mark.anyio
async def test_a_snapshot_is_made_when_the_collector_ends_and_read_when_one_begins(tmp_path: Path) -> None:
    path = tmp_path / "open"
    told = received(group(span(TRACE, 1, duration=0, attributes={"asynctrace.state": "open"})))
    async with Live(snapshot=path) as live:
        live.committed([told])
        assert numbers(live.open) == [1]
    async with Live(snapshot=path) as live:
        assert live.open.is_lost(live.open.of(KEY)[0])
        live.removed(KEY.hex())
    assert read_snapshot(path) == []
