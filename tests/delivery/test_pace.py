"""The pace of a lane follows the far side's latency and the lag of the loop. Time is a number here, as is the lag."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from asynctrace import DeliveryOptions, ExportResult, Tracer
from asynctrace.delivery._lane import Lane
from asynctrace.delivery._pace import Lag
from asynctrace.delivery._window import Window

from ..spanlog.records import make_log, make_record
from . import wrong_lanes
from .harness import QUICK, end_spans

LATE = 0.05
"""Seconds of lag: a loop that has too much to do."""

MakeLane = Callable[..., Lane]


class Traffic:
    """Spans at a steady rate, a far side that takes `latency` seconds, a loop that is `lag` seconds late. A driver looks
    when an answer comes, when the log wakes it, and when the lane said that time will have come."""

    def __init__(self, make_lane: MakeLane, *, rate: int, latency: float, lag: float = 0.0, **options: Any) -> None:
        self.options = DeliveryOptions(**options)
        self.log = make_log(64 << 20)
        self.lane = make_lane("lane", self.log, self.options, lambda: 1.0)
        self.rate, self.latency, self.lag = rate, latency, lag
        self.now = 100.0
        self.sizes: list[int] = []
        self.oldest = 0.0
        self._flying: list[tuple[float, int, Window]] = []
        self._born: list[float] = []
        self._look_at = self.now

    def run(self, seconds: float, step: float = 0.01) -> None:
        due, until = 0.0, self.now + seconds
        while self.now < until:
            due += self.rate * step
            while due >= 1:
                due -= 1
                self.log.append_nowait(make_record(len(self._born), 200))
                self._born.append(self.now)
            self._answer()
            if self.log.appended >= self._wake_at or self.now >= self._look_at:
                self._look()
            self.now += step

    def _answer(self) -> None:
        while self._flying and self._flying[0][0] <= self.now:
            _, _, window = heapq.heappop(self._flying)
            self.lane.answered(window, ExportResult(accepted=window.count), self.now, self.latency)
            self.log.release(self.lane.cursor)
            self._look()

    _wake_at = 1

    def _look(self) -> None:
        while (window := self.lane.take(self.now, self.lag)) is not None:
            self.sizes.append(window.count)
            self.oldest = max(self.oldest, self.now - self._born[window.first])
            heapq.heappush(self._flying, (self.now + self.latency, len(self.sizes), window))
        wait = self.lane.wait_time(self.now)
        assert wait is None or wait > 0 or self.lane.take(self.now, self.lag) is not None, "the driver would spin"
        self._look_at = 1e9 if wait is None else self.now + wait
        self._wake_at = self.lane.wake_at(self.now)


# ── the far side ────────────────────────────────────────────────────────────────────────────────────────────


def check_a_slow_far_side_gets_larger_batches(make_lane: MakeLane) -> None:
    """4,000 spans a second, 2 s an answer: four requests of 512 would carry 1,024 a second."""
    traffic = Traffic(make_lane, rate=4000, latency=2.0)
    traffic.run(60)
    in_flight_by_law = 4000 * 2.0
    pending = traffic.log.appended - traffic.lane.cursor
    assert pending <= 3 * in_flight_by_law, f"{pending} spans wait"
    assert max(traffic.sizes) > 512
    assert len(traffic.sizes) <= 60 / 2.0 * 4 + 4


def check_a_quick_far_side_gets_what_there_is(make_lane: MakeLane) -> None:
    traffic = Traffic(make_lane, rate=2000, latency=0.01)
    traffic.run(20)
    assert max(traffic.sizes) <= 600, f"{traffic.sizes}"
    assert traffic.oldest <= 1.05


def check_a_back_off_is_not_shorter_than_an_answer_usually_takes(make_lane: MakeLane) -> None:
    traffic = Traffic(make_lane, rate=1000, latency=5.0, backoff_initial=1.0, backoff_max=30.0)
    traffic.run(60)
    lane, now = traffic.lane, traffic.now
    for _, _, window in traffic._flying:
        lane.answered(window, ExportResult.try_again(reason="http_503"), now, 0.01)
    wait = lane.wait_time(now)
    assert wait is not None
    assert 4.0 <= wait <= 5.5, f"{wait} s"


def check_what_hung_tells_nothing_about_answers(make_lane: MakeLane) -> None:
    traffic = Traffic(make_lane, rate=1000, latency=0.01)
    traffic.run(10)
    lane = traffic.lane
    lane.flush_everything()
    window = lane.take(traffic.now)
    assert window is not None
    lane.answered(window, ExportResult.try_again(reason="timeout"), traffic.now, 30.0)
    wait = lane.wait_time(traffic.now)
    assert wait is not None
    assert wait <= 1.0, f"{wait} s"


# ── the loop ────────────────────────────────────────────────────────────────────────────────────────────────


def check_a_late_loop_sends_fewer_requests(make_lane: MakeLane) -> None:
    """A second's spans are no full batch, and an answer takes two seconds: they wait for it."""
    in_time, late = (Traffic(make_lane, rate=700, latency=2.0, lag=lag) for lag in (0.0, LATE))
    in_time.run(30)
    late.run(30)
    assert len(late.sizes) <= 0.5 * len(in_time.sizes), f"{len(late.sizes)} instead of {len(in_time.sizes)} requests"
    assert late.lane.statistics().in_flight_peak <= 2


def check_spans_wait_for_a_late_loop_no_longer_than_four_lingers(make_lane: MakeLane) -> None:
    traffic = Traffic(make_lane, rate=100, latency=6.0, lag=LATE, linger=0.5)
    traffic.run(30)
    assert traffic.oldest <= 4 * 0.5 + 0.1, f"a span was {traffic.oldest} s old"


def check_a_late_loop_sends_full_batches_at_once(make_lane: MakeLane) -> None:
    """20,000 spans a second of 200 bytes, 512 KiB a request, 0.5 s an answer: one at a time would be too slow."""
    traffic = Traffic(make_lane, rate=20_000, latency=0.5, lag=LATE)
    traffic.run(10)
    pending = traffic.log.appended - traffic.lane.cursor
    assert traffic.log.refused() == {}
    assert pending <= 20_000 * 1.5, f"{pending} spans wait"


def check_a_flush_does_not_wait_for_a_late_loop(make_lane: MakeLane) -> None:
    traffic = Traffic(make_lane, rate=2000, latency=5.0, lag=LATE)
    traffic.run(0.9)
    traffic.lane.flush_everything()
    traffic._look()
    assert traffic.lane.cursor + sum(traffic.sizes) == traffic.log.appended, "something lingers"


CHECKS: dict[Callable[[MakeLane], None], list[type[Lane]]] = {
    check_a_slow_far_side_gets_larger_batches: [wrong_lanes.NeverAdapts],
    check_a_quick_far_side_gets_what_there_is: [wrong_lanes.GrowsWithEveryBatch],
    check_a_back_off_is_not_shorter_than_an_answer_usually_takes: [wrong_lanes.KnowsNoLatency],
    check_what_hung_tells_nothing_about_answers: [wrong_lanes.LearnsFromTimeouts],
    check_a_late_loop_sends_fewer_requests: [wrong_lanes.NeverHeldBack],
    check_spans_wait_for_a_late_loop_no_longer_than_four_lingers: [wrong_lanes.HeldBackForEver],
    check_a_late_loop_sends_full_batches_at_once: [wrong_lanes.HeldBackWithFullBatches],
    check_a_flush_does_not_wait_for_a_late_loop: [wrong_lanes.HeldBackInAFlush],
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_pace_follows(check: Callable[[MakeLane], None]) -> None:
    check(Lane)


@pytest.mark.parametrize(
    ("check", "double"),
    [(check, double) for check, doubles in CHECKS.items() for double in doubles],
    ids=lambda value: value.__name__.removeprefix("check_"),
)
def test_each_check_notices_a_lane_with_another_pace(check: Callable[[MakeLane], None], double: type[Lane]) -> None:
    with pytest.raises(AssertionError):
        check(double)


def test_the_lag_rises_at_once_and_is_soon_forgotten() -> None:
    lag = Lag()
    lag.note(3600.0)
    assert lag.seconds == 0.5
    for _ in range(5):
        lag.note(-0.001)
    assert lag.seconds < 0.02


@pytest.mark.anyio
async def test_the_driver_sees_the_lag_of_its_loop_by_the_looks_that_it_takes_anyway() -> None:
    class Taken:
        name = "taken"
        lags: ClassVar[list[float]] = []

        async def export(self, batch: Any) -> ExportResult:
            self.lags.append(tracer.statistics().lanes["taken"].lag)
            return ExportResult.all_accepted(batch)

        async def aclose(self) -> None:
            pass

    exporter = Taken()
    async with Tracer(service="shop", exporters=[exporter], delivery=QUICK) as tracer:
        for _ in range(50):  # the machine may be late by itself
            await end_spans(tracer, 1)
            await tracer.flush()
        assert min(exporter.lags) < 0.005
        exporter.lags.clear()
        for _ in range(10):
            await end_spans(tracer, 1)
            time.sleep(0.05)  # noqa: ASYNC251  (the application does this)
            await asyncio.sleep(0)
        await tracer.flush()
        assert max(exporter.lags) > 0.02, f"{exporter.lags}"
