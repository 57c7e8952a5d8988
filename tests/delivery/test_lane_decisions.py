"""What a lane decides, moment by moment: no loop, no socket, and time is a number.

A promise is a function `check_…(make_lane)`; the test gives it `Lane`, the last test a small wrong lane that it must catch.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from asynctrace import DeliveryOptions, ExportResult
from asynctrace._contracts import LaneReceipt, Span
from asynctrace.delivery import LaneState, _lane
from asynctrace.delivery._lane import Lane
from asynctrace.delivery._window import Window
from asynctrace.wire import decode_records, encode_span, frame

from ..spanlog.records import make_log, make_record, number_of, split
from . import wrong_lanes

MakeLane = Callable[..., Lane]


class Scene:
    """A lane, its log, and a clock that moves when it is told to."""

    def __init__(self, make_lane: MakeLane, *, draw: Callable[[], float] = lambda: 1.0, **options: Any) -> None:
        self.now = self.began = 1_000.0
        self.log = make_log(64 << 20)
        self.options = DeliveryOptions(**options)
        self.lane = make_lane("lane", self.log, self.options, draw)
        self.number = 0

    def append(self, n: int = 1, size: int = 100) -> None:
        for _ in range(n):
            self.append_record(make_record(self.number, size))

    def append_record(self, record: bytes) -> None:
        assert self.log.append_nowait(record)
        self.number += 1

    def tick(self, seconds: float) -> None:
        self.now += seconds

    def take(self) -> Window:
        window = self.lane.take(self.now)
        assert window is not None, f"nothing to send at {self.now - self.began} s: {self.lane.statistics()}"
        return window

    def take_all(self) -> list[Window]:
        """As many requests as the lane wants under way."""
        return list(iter(lambda: self.lane.take(self.now), None))

    def assert_rests(self, seconds: float) -> None:
        """Nothing is sent for so long, and then something is; the lane says so itself."""
        assert self.lane.take(self.now) is None, "sent at once"
        wait = self.lane.wait_time(self.now)
        assert wait == pytest.approx(seconds, abs=1e-6), f"wakes up after {wait} s, not {seconds} s"
        self.now += seconds * 0.99 - 1e-6
        assert self.lane.take(self.now) is None, "sent too early"
        self.now += seconds * 0.01 + 2e-6

    def answer(self, window: Window, result: ExportResult) -> None:
        self.lane.answered(window, result, self.now, 0.01)

    def accept(self, *windows: Window) -> None:
        for window in windows:
            self.answer(window, ExportResult(accepted=window.count))

    def fail(self, window: Window, after: float | None = None) -> None:
        self.answer(window, ExportResult.try_again(after, "away"))

    def receipt(self) -> LaneReceipt:
        return self.lane.receipt(*self.log.totals())

    def run(self, far_side: Callable[[Window], ExportResult], most: int = 10_000) -> int:
        """Send until everything is settled; how many requests that took."""
        self.lane.flush_everything()
        for requests in range(most):
            if self.lane.is_settled:
                return requests
            window = self.take()
            self.answer(window, far_side(window))
        raise AssertionError(f"not settled after {most} requests")


def numbers(window: Window) -> list[int]:
    return [number_of(record) for record in split(list(window.payload))]  # type: ignore[arg-type]


# ── how large a batch is ────────────────────────────────────────────────────────────────────────────────────


def check_a_backlog_is_sent_in_growing_batches(make_lane: MakeLane) -> None:
    scene = Scene(make_lane, batch_spans=10, batch_spans_most=70, max_in_flight=100)
    scene.append(1_000)
    sizes = [window.count for window in scene.take_all()]
    assert sizes[0] <= 20, f"{sizes}: it grows step by step"
    assert all(b <= 2 * a for a, b in itertools.pairwise(sizes)), f"{sizes}: it grows step by step"
    assert max(sizes) == 70, f"{sizes}"
    assert scene.lane.statistics().batch_spans == 70


def check_full_batches_in_quick_succession_grow(make_lane: MakeLane) -> None:
    """Ten spans every 5 ms would be 200 requests a second."""
    scene = Scene(make_lane, batch_spans=10, batch_spans_most=10_000)
    sent_at: list[float] = []
    for _ in range(400):
        scene.append(10)
        for window in scene.take_all():
            sent_at.append(scene.now)
            scene.accept(window)
        scene.tick(0.005)
    late = [b - a for a, b in itertools.pairwise(sent_at) if b > scene.now - 1.0]
    assert min(late) >= 0.0199, f"a request every {min(late)} s"
    assert max(late) <= 0.1, f"a request every {max(late)} s: larger than it needs to be"


def check_full_batches_at_leisure_stay_as_they_are(make_lane: MakeLane) -> None:
    scene = Scene(make_lane, batch_spans=10, batch_spans_most=10_000)
    for _ in range(20):
        scene.append(10)
        window = scene.take()
        assert window.count == 10
        scene.accept(window)
        scene.tick(0.1)
    assert scene.lane.statistics().batch_spans == 10


def check_batches_shrink_when_the_backlog_is_gone(make_lane: MakeLane) -> None:
    scene = Scene(make_lane, batch_spans=10, batch_spans_most=80, max_in_flight=100, linger=1.0)
    scene.append(1_000)
    scene.accept(*scene.take_all())
    scene.tick(1.0)
    scene.accept(*scene.take_all())
    scene.append(5)
    assert scene.lane.take(scene.now) is None
    scene.tick(1.0)
    scene.accept(scene.take())
    scene.append(10)
    assert scene.take().count == 10, "ten spans are a full batch again"


def test_batches_never_shrink_below_what_was_asked_for() -> None:
    scene = Scene(Lane, batch_spans=100, batch_spans_most=10, max_in_flight=100)
    scene.append(1_000)
    assert {window.count for window in scene.take_all()} == {100}


# ── how old a record gets ───────────────────────────────────────────────────────────────────────────────────


def check_the_oldest_record_waits_for_linger_and_no_longer(make_lane: MakeLane) -> None:
    scene = Scene(make_lane, linger=2.0, batch_spans=10)
    scene.append()
    assert scene.lane.wake_at(scene.now) == 1, "a lane with nothing to do is told of the first record"
    assert scene.lane.take(scene.now) is None
    assert scene.lane.wait_time(scene.now) == 2.0
    assert scene.lane.wake_at(scene.now) == 10, "one that lingers, of a full batch"
    scene.tick(1.5)
    scene.append()
    scene.assert_rests(0.5)
    assert scene.take().count == 2


@pytest.mark.parametrize(("n", "size"), [(10, 100), (2, 600)])
def test_a_full_batch_does_not_linger(n: int, size: int) -> None:
    scene = Scene(Lane, linger=60.0, batch_spans=10, batch_bytes=1_100)
    scene.append(n - 1, size)
    assert scene.lane.take(scene.now) is None
    scene.append(1, size)
    assert scene.take().first == 0


def check_a_flush_ends_the_lingering(make_lane: MakeLane) -> None:
    scene = Scene(make_lane, linger=60.0, batch_spans=10)
    scene.append(3)
    assert scene.lane.take(scene.now) is None
    scene.lane.flush(3)
    window = scene.take()
    assert window.count == 3
    scene.append(2)
    assert scene.lane.take(scene.now) is None, "what comes after the watermark lingers"
    assert scene.lane.wait_time(scene.now) == 60.0


# ── back-off ────────────────────────────────────────────────────────────────────────────────────────────────


def check_backing_off_doubles_to_its_bound(make_lane: MakeLane) -> None:
    for luck in (1.0, 0.5, 0.001):
        scene = Scene(make_lane, draw=lambda luck=luck: luck, backoff_initial=1.0, backoff_max=30.0)
        scene.append()
        scene.lane.flush_everything()
        for bound in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0):
            scene.fail(scene.take())
            scene.assert_rests(luck * bound)
        scene.accept(scene.take())
        scene.append()
        scene.lane.flush_everything()
        scene.fail(scene.take())
        scene.assert_rests(luck * 1.0)  # a success starts anew


def check_jitter_is_full(make_lane: MakeLane) -> None:
    """Lanes of a thousand processes that failed together come back spread over the whole of the bound."""
    draw = random.Random(1)
    waits = []
    for _ in range(400):
        scene = Scene(make_lane, draw=draw.random, backoff_initial=8.0)
        scene.append()
        scene.lane.flush_everything()
        scene.fail(scene.take())
        waits.append(scene.lane.wait_time(scene.now) or 0.0)
    quarters = [sum(low <= wait < low + 2.0 for wait in waits) for low in (0.0, 2.0, 4.0, 6.0)]
    assert sum(quarters) == 400, f"{min(waits)} to {max(waits)}"
    assert min(quarters) >= 60, f"{quarters}"


def test_ten_thousand_failures_are_no_harder_than_ten() -> None:
    scene = Scene(Lane, backoff_max=30.0)
    scene.append()
    scene.lane.flush_everything()
    for _ in range(10_000):
        scene.fail(scene.take())
        scene.tick(scene.lane.wait_time(scene.now) or 0.0)
    assert scene.receipt().pending == 1
    assert scene.lane.statistics().retries == 9_999


def check_requests_that_fail_together_are_one_failure(make_lane: MakeLane) -> None:
    scene = Scene(make_lane, batch_spans=10, batch_spans_most=10, max_in_flight=4)
    scene.append(40)
    for window in scene.take_all():
        scene.fail(window)
    scene.assert_rests(1.0)


def check_one_request_probes_after_a_failure(make_lane: MakeLane) -> None:
    scene = Scene(make_lane, batch_spans=10, batch_spans_most=10, max_in_flight=4)
    scene.append(80)
    windows = scene.take_all()
    assert len(windows) == 4
    scene.fail(windows[1])
    scene.tick(60.0)
    assert scene.take_all() == [], "three are still under way"
    for window in (windows[0], windows[2], windows[3]):
        scene.fail(window)
    scene.tick(60.0)
    (probe,) = scene.take_all()
    assert probe is windows[0], "the oldest probes"
    assert scene.lane.wait_time(scene.now) is None, "nothing to do before the answer"
    scene.fail(probe)
    scene.tick(60.0)
    (probe,) = scene.take_all()
    scene.accept(probe)
    assert [window.first for window in scene.take_all()] == [10, 20, 30, 40], "then several again, in order"


# ── Retry-After ─────────────────────────────────────────────────────────────────────────────────────────────


def check_retry_after_is_kept(make_lane: MakeLane) -> None:
    for make in (ExportResult.try_again, ExportResult.blocked):
        for asked, wait in [(5.0, 5.0), (0.25, 0.25), (45.0, 45.0), (599.0, 599.0), (601.0, 600.0), (1e300, 600.0)]:
            scene = Scene(make_lane, longest_retry_after=600.0, blocked_interval=1.0)
            scene.append(3)
            scene.lane.flush_everything()
            scene.answer(scene.take(), make(reason="away", after=asked))
            scene.lane.flush_everything()
            scene.lane.hurry(scene.now + 0.1, scene.now)
            scene.assert_rests(wait)
            scene.accept(scene.take())


@pytest.mark.parametrize("asked", [0.0, -5.0, 0.01])
def test_a_retry_after_that_is_no_wait_is_no_leave_to_hammer(asked: float) -> None:
    scene = Scene(Lane)
    scene.append()
    scene.lane.flush_everything()
    scene.fail(scene.take(), asked)
    wait = scene.lane.wait_time(scene.now)
    assert wait is not None
    assert wait > 0.1


def test_a_retry_after_that_is_no_number_is_a_type_error() -> None:
    for after in (float("nan"), "soon"):
        with pytest.raises(TypeError, match="seconds"):
            ExportResult.try_again(after=after)  # type: ignore[arg-type]


def check_the_longest_retry_after_holds(make_lane: MakeLane) -> None:
    """Also when other requests, already under way, are answered after it: accepted, refused, blocked, away."""
    answers = [
        ExportResult(accepted=10),
        ExportResult.refused("400"),
        ExportResult.too_large("413"),
        ExportResult.blocked("401"),
        ExportResult.try_again(2.0),
        ExportResult.try_again(),
    ]
    for order in itertools.permutations(answers, 3):
        scene = Scene(make_lane, batch_spans=10, batch_spans_most=10, max_in_flight=4, blocked_interval=3.0)
        scene.append(40)
        first, *others = scene.take_all()
        scene.fail(first, 50.0)
        for window, result in zip(others, order, strict=True):
            scene.answer(window, result)
            scene.lane.flush_everything()
            scene.lane.hurry(scene.now + 1.0, scene.now)
        scene.assert_rests(50.0)
        scene.take()


# ── a deadline ──────────────────────────────────────────────────────────────────────────────────────────────


def check_a_deadline_shortens_the_back_off(make_lane: MakeLane) -> None:
    """A program that ends in four seconds gets several more attempts, more and more often."""
    scene = Scene(make_lane, backoff_initial=30.0)
    scene.append()
    scene.lane.flush_everything()
    scene.fail(scene.take())
    deadline = scene.now + 4.0
    scene.lane.hurry(deadline, scene.now)
    attempts: list[float] = []
    while (wait := scene.lane.wait_time(scene.now)) is not None and scene.now + wait < deadline:
        scene.tick(max(wait, 1e-9))
        window = scene.take()
        attempts.append(deadline - scene.now)
        scene.fail(window)
    assert 4 <= len(attempts) <= 80, f"{attempts}"
    assert attempts[0] >= 2.0 - 1e-6, f"{attempts}: the first comes in good time"
    assert attempts[-1] < 0.2, f"{attempts}: the last comes near the deadline"
    scene.now = deadline + 1.0
    scene.fail(scene.take())
    scene.assert_rests(30.0)  # the deadline is over


def check_a_deadline_set_while_a_request_is_under_way_holds(make_lane: MakeLane) -> None:
    scene = Scene(make_lane, backoff_initial=30.0)
    scene.append()
    scene.lane.flush_everything()
    window = scene.take()
    scene.lane.hurry(scene.now + 4.0, scene.now)
    scene.tick(1.0)
    scene.fail(window)
    scene.assert_rests(1.5)
    scene.take()


def test_a_deadline_shortens_a_back_off_also_when_another_request_succeeded_meanwhile() -> None:
    scene = Scene(Lane, batch_spans=10, batch_spans_most=10, backoff_initial=30.0)
    scene.append(20)
    first, second = scene.take_all()
    scene.fail(first)
    scene.accept(second)
    scene.lane.flush_everything()
    scene.lane.hurry(scene.now + 4.0, scene.now)
    wait = scene.lane.wait_time(scene.now)
    assert wait is not None
    assert wait <= 2.0, f"the next attempt comes {wait - 4.0} s after the deadline"


# ── blocked ─────────────────────────────────────────────────────────────────────────────────────────────────


def check_a_blocked_lane_asks_slowly_and_a_flush_at_once(make_lane: MakeLane) -> None:
    scene = Scene(make_lane, blocked_interval=30.0, batch_spans=10, batch_spans_most=10, max_in_flight=4)
    scene.append(40)
    scene.lane.flush_everything()
    window, *others = scene.take_all()
    for other in others:
        scene.lane.put_back(other)
    for _ in range(3):
        scene.answer(window, ExportResult.blocked("401"))
        assert scene.lane.state is LaneState.BLOCKED
        scene.assert_rests(30.0)
        window, *more = scene.take_all()
        assert window.first == 0, "nothing is given up"
        assert not more, "one request asks"
    for _ in range(3):
        scene.answer(window, ExportResult.blocked("401"))
        assert scene.lane.take(scene.now) is None
        scene.lane.flush_everything()
        window, *more = scene.take_all() or [None]
        assert window is not None, "a flush asks at once"
        assert not more, "with one request"
    receipt = scene.receipt()
    assert (receipt.pending, receipt.dropped, receipt.rejected) == (40, 0, 0), f"{receipt}"
    scene.accept(window)
    assert len(scene.take_all()) == 3, "the settings are right: several again"


def test_a_flush_ends_the_wait_of_a_blocked_lane_also_when_another_request_was_away() -> None:
    scene = Scene(Lane, batch_spans=10, batch_spans_most=10, blocked_interval=30.0)
    scene.append(20)
    first, second = scene.take_all()
    scene.answer(first, ExportResult.blocked("401"))
    scene.fail(second)
    scene.lane.flush_everything()
    wait = scene.lane.wait_time(scene.now)
    assert wait is None or wait <= scene.options.backoff_initial, f"waits {wait} s"


# ── several under way ───────────────────────────────────────────────────────────────────────────────────────


def check_answers_out_of_order_are_acknowledged_in_order(make_lane: MakeLane) -> None:
    for order in itertools.permutations(range(4)):
        scene = Scene(make_lane, batch_spans=10, batch_spans_most=10, max_in_flight=4)
        scene.append(40)
        windows = scene.take_all()
        assert [numbers(window) for window in windows] == [list(range(i, i + 10)) for i in (0, 10, 20, 30)]
        answered: set[int] = set()
        for which in order:
            scene.accept(windows[which])
            answered.add(which)
            prefix = next((i for i in range(4) if i not in answered), 4)
            assert scene.lane.cursor == prefix * 10, f"{order}, {answered}: {scene.lane.cursor}"
            receipt = scene.receipt()
            assert (receipt.accepted, receipt.pending) == (prefix * 10, 40 - prefix * 10)
        assert scene.lane.state is LaneState.IDLE


# ── too large ───────────────────────────────────────────────────────────────────────────────────────────────


def a_span(output: str, number: int) -> bytes:
    attributes = {"input.value": "question", "output.value": output, "output.mime_type": "text/plain"}
    span = Span(trace_id="01" * 16, span_id=f"{number:016x}", name="large", start_ns=1, end_ns=2, attributes=attributes)
    return frame(encode_span(span))


class TakesBytes:
    """A far side that takes requests up to `limit` bytes, and keeps them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.refused = 0
        self.spans: list[Span] = []

    def __call__(self, window: Window) -> ExportResult:
        if window.size > self.limit:
            self.refused += 1
            return ExportResult.too_large("413")
        self.spans += decode_records(list(window.payload))
        return ExportResult(accepted=window.count)


def check_what_is_too_large_is_split_and_then_cut(make_lane: MakeLane) -> None:
    scene, far_side = Scene(make_lane), TakesBytes(10_000)
    for number in range(100):
        scene.append_record(a_span("x" * (60_000 if number == 37 else 700), number))
    requests = scene.run(far_side, 200)
    receipt = scene.receipt()
    assert receipt.accepted == receipt.ended == 100, f"{receipt}"
    assert sorted(int(span.span_id, 16) for span in far_side.spans) == list(range(100)), "each once"
    assert requests <= 60, f"{requests} requests"
    for span in far_side.spans:
        is_whole = len(str(span.attributes["output.value"])) == 700
        assert is_whole == (int(span.span_id, 16) != 37), "only the one that is too large is cut"
        assert span.attributes["input.value"] == "question", "and of it, only the largest value"


def check_the_limit_of_the_far_side_is_remembered(make_lane: MakeLane) -> None:
    scene, far_side = Scene(make_lane, batch_spans=1_000), TakesBytes(10_000)
    for number in range(100):
        scene.append_record(a_span("x" * 700, number))
    scene.run(far_side)
    told = far_side.refused
    assert 1 <= told <= 20
    for number in range(100, 200):
        scene.append_record(a_span("x" * 700, number))
    scene.run(far_side)
    assert far_side.refused == told, "it was told before"
    assert scene.lane.statistics().batch_bytes <= 10_000


@pytest.mark.parametrize(
    "record", [make_record(0, 50_000), b"\x12\x82\x80\x02" + b"\xff" * 32_770], ids=["name", "damaged"]
)
def test_a_record_that_cannot_be_cut_is_rejected_alone(record: bytes) -> None:
    scene, far_side = Scene(Lane), TakesBytes(10_000)
    scene.append_record(a_span("x" * 700, 1))
    scene.append_record(record)
    scene.append_record(a_span("x" * 700, 2))
    assert scene.run(far_side, 50) <= 10
    receipt = scene.receipt()
    assert (receipt.accepted, receipt.rejected_by_reason) == (2, {"oversize": 1})
    assert [int(span.span_id, 16) for span in far_side.spans] == [1, 2]


# ── refused ─────────────────────────────────────────────────────────────────────────────────────────────────


def check_halving_finds_the_one_culprit(make_lane: MakeLane) -> None:
    """Within 2·log₂ n + 1 requests, the logarithm rounded up where `n` is no power of two."""
    for n in (1, 2, 3, 4, 7, 64, 100, 512):
        for culprit in sorted({0, 1 % n, n // 3, n // 2, n - 1}):
            scene = Scene(make_lane, batch_spans=1_000)
            scene.append(n, 60)
            taken: list[int] = []

            def far_side(window: Window, culprit: int = culprit, taken: list[int] = taken) -> ExportResult:
                found = numbers(window)
                if culprit in found:
                    return ExportResult.refused("400")
                taken += found
                return ExportResult(accepted=window.count)

            requests = scene.run(far_side)
            assert requests <= 2 * math.ceil(math.log2(n)) + 1, f"{n}, {culprit}: {requests} requests"
            assert taken == [number for number in range(n) if number != culprit], "the others arrive once, in order"
            receipt = scene.receipt()
            assert (receipt.accepted, receipt.rejected) == (n - 1, 1), f"{receipt}"
            assert receipt.rejected_by_reason == {"backend_rejected": 1}


def test_every_culprit_of_several_is_found_and_nobody_else() -> None:
    scene = Scene(Lane, batch_spans=1_000)
    scene.append(256, 60)
    culprits = {0, 1, 100, 254}
    requests = scene.run(
        lambda window: (
            ExportResult.refused("400") if culprits & set(numbers(window)) else ExportResult(accepted=window.count)
        )
    )
    assert scene.receipt().rejected == 4
    assert requests <= 4 * (2 * 8 + 1)


def test_a_refusal_does_not_hold_back_what_is_under_way_beside_it() -> None:
    scene = Scene(Lane, batch_spans=10, batch_spans_most=10, max_in_flight=4)
    scene.append(40)
    windows = scene.take_all()
    scene.answer(windows[1], ExportResult.refused("400"))
    scene.accept(windows[3])
    halves = scene.take_all()
    assert [(half.first, half.count) for half in halves] == [(10, 5), (15, 5)]
    scene.accept(halves[1], windows[2], halves[0])
    assert scene.lane.cursor == 0
    scene.accept(windows[0])
    assert (scene.lane.cursor, scene.receipt().accepted) == (40, 40)


# ── the checks notice ───────────────────────────────────────────────────────────────────────────────────────


CHECKS: dict[Callable[[MakeLane], None], list[type[Lane]]] = {
    check_a_backlog_is_sent_in_growing_batches: [
        wrong_lanes.NeverAdapts,
        wrong_lanes.GrowsWithoutABound,
        wrong_lanes.GrowsAtOnce,
    ],
    check_full_batches_in_quick_succession_grow: [wrong_lanes.NeverAdapts],
    check_full_batches_at_leisure_stay_as_they_are: [wrong_lanes.GrowsWithEveryBatch],
    check_batches_shrink_when_the_backlog_is_gone: [wrong_lanes.NeverShrinks],
    check_the_oldest_record_waits_for_linger_and_no_longer: [wrong_lanes.LooksAtTheNewest, wrong_lanes.NeverLingers],
    check_a_flush_ends_the_lingering: [wrong_lanes.LingersInAFlush, wrong_lanes.FlushesForEver],
    check_backing_off_doubles_to_its_bound: [
        wrong_lanes.BacksOffWithoutABound,
        wrong_lanes.BacksOffLinearly,
        wrong_lanes.NeverForgetsAFailure,
    ],
    check_jitter_is_full: [wrong_lanes.BacksOffEqually, wrong_lanes.BacksOffWithoutJitter],
    check_requests_that_fail_together_are_one_failure: [wrong_lanes.CountsEachFailure],
    check_one_request_probes_after_a_failure: [
        wrong_lanes.ProbesWithAll,
        wrong_lanes.ProbesForEver,
        wrong_lanes.SendsTheSecondHalfFirst,
    ],
    check_retry_after_is_kept: [
        wrong_lanes.IgnoresRetryAfter,
        wrong_lanes.WaitsAsLongAsItIsTold,
        wrong_lanes.AFlushOverridesRetryAfter,
        wrong_lanes.ADeadlineOverridesRetryAfter,
    ],
    check_the_longest_retry_after_holds: [wrong_lanes.TheLastAnswerCounts, wrong_lanes.ASuccessEndsRetryAfter],
    check_a_deadline_shortens_the_back_off: [
        wrong_lanes.KnowsNoDeadline,
        wrong_lanes.HurriesOnce,
        wrong_lanes.HurriesForEver,
        wrong_lanes.HurriesAtTheDeadline,
    ],
    check_a_deadline_set_while_a_request_is_under_way_holds: [wrong_lanes.KnowsNoDeadline, wrong_lanes.HurriesOnce],
    check_a_blocked_lane_asks_slowly_and_a_flush_at_once: [
        wrong_lanes.BlockedLikeAway,
        wrong_lanes.BlockedForAFlushToo,
        wrong_lanes.BlockedDropsTheBatch,
    ],
    check_answers_out_of_order_are_acknowledged_in_order: [
        wrong_lanes.AcknowledgesAsAnswered,
        wrong_lanes.AcknowledgesTheOldest,
    ],
    check_what_is_too_large_is_split_and_then_cut: [
        wrong_lanes.RejectsWhatIsTooLarge,
        wrong_lanes.SplitsButNeverCuts,
        wrong_lanes.SplitsIntoSingles,
    ],
    check_the_limit_of_the_far_side_is_remembered: [wrong_lanes.ForgetsTheLimit],
    check_halving_finds_the_one_culprit: [
        wrong_lanes.SplitsIntoSingles,
        wrong_lanes.RejectsTheWholeBatch,
        wrong_lanes.RejectsAHalf,
        wrong_lanes.SendsTheSecondHalfFirst,
    ],
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_lane_keeps_its_promises(check: Callable[[MakeLane], None]) -> None:
    check(Lane)


@pytest.mark.parametrize(
    ("check", "double"),
    [(check, double) for check, doubles in CHECKS.items() for double in doubles],
    ids=lambda value: value.__name__.removeprefix("check_"),
)
def test_each_check_notices_a_double_that_breaks_its_promise(
    check: Callable[[MakeLane], None], double: type[Lane], monkeypatch: pytest.MonkeyPatch
) -> None:
    for outcome, action in list(_lane._ACTIONS.items()):  # the table names the methods of `Lane`
        monkeypatch.setitem(_lane._ACTIONS, outcome, getattr(double, action.__name__))
    with pytest.raises(AssertionError):
        check(double)
