"""Small wrong variants of lanes, windows and the span log. Each is caught by a promise of the model, named beside it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from asynctrace import ExportResult
from asynctrace._contracts import Outcome
from asynctrace.delivery._lane import Lane
from asynctrace.delivery._window import Window, WindowState
from asynctrace.spanlog import SpanLog

LANES: list[tuple[type[Lane], set[str]]] = []
LOGS: list[tuple[type[SpanLog], set[str]]] = []


def lane(*promises: str) -> Callable[[type[Lane]], type[Lane]]:
    def register(mutant: type[Lane]) -> type[Lane]:
        LANES.append((mutant, set(promises)))
        return mutant

    return register


def log(*promises: str) -> Callable[[type[SpanLog]], type[SpanLog]]:
    def register(mutant: type[SpanLog]) -> type[SpanLog]:
        LOGS.append((mutant, set(promises)))
        return mutant

    return register


@lane("the cursor passes only what is settled")
class TheCursorPassesAnUnsettledWindow(Lane):
    def _pass(self) -> None:
        if len(self._windows) > 1 and self._windows[1].state is WindowState.SETTLED:
            self._windows[0].settle()
        super()._pass()


@lane("windows are contiguous and in order")
class HalvesLoseARecord(Lane):
    def _replace(self, window: Window, *parts: Window) -> None:
        parts[-1].first += 1
        parts[-1].count -= 1
        super()._replace(window, *parts)


@lane("requests under way are counted")
class PutBackForgets(Lane):
    def put_back(self, window: Window) -> None:
        pass


@lane("windows are contiguous and in order", "drops have their reasons", "the books balance")
class EvictionIsNotCounted(Lane):
    def _notice_eviction(self) -> None:
        self._next = max(self._next, self._log.first)


@lane("nothing is sent before Retry-After")
class RetryAfterIsIgnored(Lane):
    def _wait(self, now: float, delay: float, asked: float | None) -> None:
        super()._wait(now, delay, None)


@lane("nothing is sent before Retry-After")
class FlushOverridesRetryAfter(Lane):
    def flush(self, target: int) -> None:
        super().flush(target)
        self._not_before = 0.0


@lane("a wait has a bound")
class BackoffWithoutACap(Lane):
    def _wait(self, now: float, delay: float, asked: float | None) -> None:
        super()._wait(now, delay * 1_000, asked)


@lane("a wait has a bound")
class RetryAfterWithoutACap(Lane):
    def _wait(self, now: float, delay: float, asked: float | None) -> None:
        super()._wait(now, delay, asked)
        self._not_before = max(self._not_before, now + (asked or 0.0))


@lane("accepted is what was accepted", "rejections have their reasons")
class RejectedCountsAsAccepted(Lane):
    def answered(self, window: Window, result: ExportResult, now: float, latency: float) -> None:
        if result.outcome is Outcome.SETTLED:
            result = msgspec.structs.replace(result, accepted=window.count, rejected=0)
        super().answered(window, result, now, latency)


@lane("accepted is what was accepted", "the cursor passes only what is settled")
class TryAgainCountsAsAccepted(Lane):
    def answered(self, window: Window, result: ExportResult, now: float, latency: float) -> None:
        if result.outcome is Outcome.TRY_AGAIN:
            result = ExportResult(accepted=window.count)
        super().answered(window, result, now, latency)


@lane("the cursor passes what is settled", "no settled record is handed out again")
class SettledIsSentAgain(Lane):
    def answered(self, window: Window, result: ExportResult, now: float, latency: float) -> None:
        payload = window.payload
        super().answered(window, result, now, latency)
        if window.state is WindowState.SETTLED and self._windows and window.first > self.cursor:
            window.state, window.payload = WindowState.WAITING, payload


@lane("a window is repeated unchanged")
class AnAmbiguousFailureSplitsTheWindow(Lane):
    def put_back(self, window: Window) -> None:
        super().put_back(window)
        if window.state is WindowState.WAITING and window.count > 1:
            self._replace(window, *window.halves())


@lane("one request probes after a failure")
class EveryoneProbesAfterAFailure(Lane):
    def answered(self, window: Window, result: ExportResult, now: float, latency: float) -> None:
        super().answered(window, result, now, latency)
        self._failures = 0


@lane("requests under way are bounded")
class NoBoundOnRequests(Lane):
    def _is_busy(self) -> bool:
        return False


@lane("a lane with records never sleeps for ever")
class LingersForEver(Lane):
    def wait_time(self, now: float) -> float | None:
        return self._not_before - now if now < self._not_before else None


@lane("a lane is not woken for nothing")
class IsWokenAllTheTime(Lane):
    def wake_at(self, now: float) -> int:
        return self._next + 1


@lane("requests under way are counted")
class AdoptForgetsWhatIsUnderWay(Lane):
    def adopt(self, owner: object) -> None:
        self.owner = owner


@lane("the cursor passes what is settled")
class StopForgetsTheRest(Lane):
    def _lose_rest(self, reason: str) -> None:
        return


@lane("a batch has at most batch_bytes bytes")
class BatchesGrowWithoutTheByteLimit(Lane):
    def take(self, now: float, lag: float = 0.0) -> Window | None:
        self._pace.batch_bytes += 100
        return super().take(now, lag)


@log("nothing above a cursor is released", "take() never fails", "bytes come out as they went in")
class ReleasesTooEarly(SpanLog):
    def release(self, settled: int, furthest: int = 0) -> None:
        super().release(settled, furthest)
        if len(self._segments) > 1:
            self._free_oldest()


@log("what is settled is given back")
class NeverReleases(SpanLog):
    def release(self, settled: int, furthest: int = 0) -> None:
        self._settled = max(self._settled, settled)


@log("no wake is lost")
class AWakeIsLost(SpanLog):
    def _set_stage_limit(self) -> None:
        self._stage_limit = 64


@log("every record is counted")
class TheStageIsLostOnClose(SpanLog):
    def close(self, reason: str) -> None:
        self._staged.clear()
        super().close(reason)


@log("every record is counted")
class LossesAreNotCounted(SpanLog):
    def _count_refused(self, reason: str) -> None:
        return


@log("a window has the bytes of its records")
class ARunIsOneRecordShort(SpanLog):
    def read(self, number: int, max_records: int, max_bytes: int) -> tuple[list[memoryview], int]:
        slices, count = super().read(number, max_records, max_bytes)
        return (super().read(number, count - 1, max_bytes)[0], count) if count > 1 else (slices, count)


@log("a number names one record", "records are numbered in order")
class RunsBeginOneTooLate(SpanLog):
    def read(self, number: int, max_records: int, max_bytes: int) -> tuple[list[memoryview], int]:
        if number + max_records < self._stored:
            number += 1
        return super().read(number, max_records, max_bytes)
