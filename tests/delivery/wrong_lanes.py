"""Lanes that decide wrongly, each in one way. `test_lane_decisions.py` catches every one of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from asynctrace import DeliveryOptions, ExportResult
from asynctrace.delivery import LaneState
from asynctrace.delivery._lane import Lane
from asynctrace.delivery._pace import Pace
from asynctrace.delivery._window import Window, WindowState


class PacedBy(Lane):
    pace: type[Pace]

    def __init__(self, name: str, log: Any, options: DeliveryOptions, random: Callable[[], float]) -> None:
        super().__init__(name, log, options, random)
        self._pace = self.pace(options)


class NeverAdapts(PacedBy):
    class pace(Pace):
        def adapt(self, now: float, waiting: int) -> None:
            pass


class GrowsWithoutABound(PacedBy):
    class pace(Pace):
        def adapt(self, now: float, waiting: int) -> None:
            if waiting >= 2 * self.batch_spans:
                self.batch_spans *= 2


class GrowsAtOnce(PacedBy):
    class pace(Pace):
        def adapt(self, now: float, waiting: int) -> None:
            self.batch_spans = min(waiting, self._most_spans)


class GrowsWithEveryBatch(PacedBy):
    class pace(Pace):
        def adapt(self, now: float, waiting: int) -> None:
            self._cut_at = now
            super().adapt(now, waiting)


class NeverShrinks(PacedBy):
    class pace(Pace):
        def adapt(self, now: float, waiting: int) -> None:
            before = self.batch_spans
            super().adapt(now, waiting)
            self.batch_spans = max(before, self.batch_spans)


class NeverHeldBack(PacedBy):
    """The loop is as late as it likes."""

    class pace(Pace):
        def is_held_back(self, in_flight: int) -> bool:
            return False


class HeldBackForEver(PacedBy):
    """One request that hangs stops the rest."""

    class pace(Pace):
        def longest_linger(self, in_flight: int) -> float:
            return math.inf if self.is_held_back(in_flight) else self._options.linger


class HeldBackWithFullBatches(PacedBy):
    """The lag of the loop bounds what can leave."""

    class pace(Pace):
        def is_full(self, waiting: int, size: int, in_flight: int) -> bool:
            return not self.is_held_back(in_flight) and super().is_full(waiting, size, in_flight)


class HeldBackInAFlush(PacedBy):
    def take(self, now: float, lag: float = 0.0) -> Window | None:
        if self._in_flight and lag > 0.02:
            self.flush_to = 0
        return super().take(now, lag)

    pace = Pace


class KnowsNoLatency(PacedBy):
    class pace(Pace):
        def answered(self, latency: float, *, settled: bool) -> None:
            pass


class LearnsFromTimeouts(PacedBy):
    class pace(Pace):
        def answered(self, latency: float, *, settled: bool) -> None:
            super().answered(latency, settled=True)


class LooksAtTheNewest(Lane):
    """Each record starts the clock anew: under a trickle nothing is ever sent."""

    _seen = 0

    def _cut(self, now: float) -> Window | None:
        if self._log.appended > self._seen:
            self._seen, self._waiting_since = self._log.appended, now
        return super()._cut(now)


class NeverLingers(Lane):
    def _cut(self, now: float) -> Window | None:
        self._waiting_since = -math.inf
        return super()._cut(now)


class LingersInAFlush(Lane):
    def flush(self, target: int) -> None:
        pass


class FlushesForEver(Lane):
    def flush(self, target: int) -> None:
        super().flush(1 << 62)


class BacksOffEqually(Lane):
    """Half fixed, half drawn: everybody is away for at least half of the bound."""

    def __init__(self, name: str, log: Any, options: Any, draw: Callable[[], float]) -> None:
        super().__init__(name, log, options, lambda: 0.5 + draw() / 2)


class BacksOffWithoutJitter(Lane):
    def __init__(self, name: str, log: Any, options: Any, draw: Callable[[], float]) -> None:
        super().__init__(name, log, options, lambda: 0.999)


class BacksOffWithoutABound(Lane):
    def _try_again(self, window: Window, result: ExportResult, now: float) -> None:
        self._failures += 1
        self._wait(now, self._random() * 2.0 ** (self._failures - 1), result.after)
        self.state = LaneState.BACKOFF


class BacksOffLinearly(Lane):
    def _try_again(self, window: Window, result: ExportResult, now: float) -> None:
        self._failures += 1
        self._wait(now, self._random() * self._failures, result.after)
        self.state = LaneState.BACKOFF


class NeverForgetsAFailure(Lane):
    def _works_again(self, now: float) -> None:
        failures = self._failures
        super()._works_again(now)
        self._failures = failures


class CountsEachFailure(Lane):
    def _try_again(self, window: Window, result: ExportResult, now: float) -> None:
        self._not_before, not_before = 0.0, self._not_before
        super()._try_again(window, result, now)
        self._not_before = max(not_before, self._not_before)


class ProbesWithAll(Lane):
    def _is_busy(self) -> bool:
        return self._in_flight >= self._options.max_in_flight


class ProbesForEver(Lane):
    def _is_busy(self) -> bool:
        return self._in_flight >= (1 if self._answers else self._options.max_in_flight)


class IgnoresRetryAfter(Lane):
    def _wait(self, now: float, delay: float, asked: float | None) -> None:
        super()._wait(now, delay, None)


class WaitsAsLongAsItIsTold(Lane):
    def _wait(self, now: float, delay: float, asked: float | None) -> None:
        super()._wait(now, delay, asked)
        self._not_before = max(self._not_before, now + (asked or 0.0))


class AFlushOverridesRetryAfter(Lane):
    def flush(self, target: int) -> None:
        super().flush(target)
        self._not_before = 0.0


class ADeadlineOverridesRetryAfter(Lane):
    def hurry(self, deadline: float, now: float) -> None:
        self._asked_to_wait = False
        super().hurry(deadline, now)


class TheLastAnswerCounts(Lane):
    """A later answer, without a `Retry-After` or with a shorter one, replaces the wait."""

    def _wait(self, now: float, delay: float, asked: float | None) -> None:
        self._not_before = 0.0
        super()._wait(now, delay, asked)


class ASuccessEndsRetryAfter(Lane):
    def _works_again(self, now: float) -> None:
        super()._works_again(now)
        self._not_before = 0.0


class KnowsNoDeadline(Lane):
    def hurry(self, deadline: float, now: float) -> None:
        pass


class HurriesOnce(Lane):
    def hurry(self, deadline: float, now: float) -> None:
        super().hurry(deadline, now)
        self._deadline = 0.0


class HurriesForEver(Lane):
    def hurry(self, deadline: float, now: float) -> None:
        super().hurry(deadline, now)
        self._deadline = deadline + 3_600.0


class HurriesAtTheDeadline(Lane):
    """One attempt, at the last instant."""

    def hurry(self, deadline: float, now: float) -> None:
        super().hurry(deadline, now)
        self._not_before = deadline - 0.001


class BlockedLikeAway(Lane):
    def _blocked(self, window: Window, result: ExportResult, now: float) -> None:
        self._try_again(window, result, now)
        self.state = LaneState.BLOCKED


class BlockedForAFlushToo(Lane):
    def flush(self, target: int) -> None:
        self.flush_to = max(self.flush_to, target)


class BlockedDropsTheBatch(Lane):
    def _blocked(self, window: Window, result: ExportResult, now: float) -> None:
        super()._blocked(window, result, now)
        window.settle(dropped={"blocked": window.count})


class AcknowledgesAsAnswered(Lane):
    """The cursor follows the newest answer."""

    def _pass(self) -> None:
        for window in reversed(self._windows):
            if window.state is WindowState.SETTLED:
                self.cursor = max(self.cursor, window.end)
        super()._pass()


class AcknowledgesTheOldest(Lane):
    """An answer is taken for that of the oldest request."""

    def answered(self, window: Window, result: ExportResult, now: float, latency: float) -> None:
        oldest = next((other for other in self._windows if other.state is WindowState.FLYING), window)
        super().answered(oldest, result, now, latency)


class RejectsWhatIsTooLarge(Lane):
    def _too_large(self, window: Window, result: ExportResult, now: float) -> None:
        window.settle(rejected={"oversize": window.count})


class SplitsButNeverCuts(Lane):
    def _too_large(self, window: Window, result: ExportResult, now: float) -> None:
        if window.count > 1:
            super()._too_large(window, result, now)
        else:
            window.settle(rejected={"oversize": 1})


class ForgetsTheLimit(Lane):
    def _too_large(self, window: Window, result: ExportResult, now: float) -> None:
        super()._too_large(window, result, now)
        self._pace.batch_bytes = self._options.batch_bytes


class SplitsIntoSingles(Lane):
    def _replace(self, window: Window, *parts: Window) -> None:
        singles, rest = [], list(parts)
        while rest:
            part = rest.pop(0)
            if part.count == 1:
                singles.append(part)
            else:
                rest[:0] = part.halves()
        super()._replace(window, *singles)


class RejectsTheWholeBatch(Lane):
    def _refused(self, window: Window, result: ExportResult, now: float) -> None:
        window.settle(rejected={"backend_rejected": window.count})


class RejectsAHalf(Lane):
    def _refused(self, window: Window, result: ExportResult, now: float) -> None:
        if window.count == 2:
            window.settle(rejected={"backend_rejected": 2})
        else:
            super()._refused(window, result, now)


class SendsTheSecondHalfFirst(Lane):
    def _first_waiting(self) -> Window | None:
        waiting = [window for window in self._windows if window.state is WindowState.WAITING]
        return waiting[-1] if waiting else None
