"""Lanes as they should be: what the model found is put right here, until it is put right where it belongs.

Each repair has a test in `test_model.py` that is expected to fail without it; when one passes, its repair goes.
"""

from __future__ import annotations

from asynctrace._contracts import ExportResult, Outcome
from asynctrace.delivery._lane import Lane
from asynctrace.delivery._window import Window

from .model import OPTIONS

NEVER = 1 << 62


class LooksForEvictionsAfterStoring(Lane):
    """`appended` stores what is staged, which may evict: so it is asked before `first`, not after."""

    def _notice_eviction(self) -> None:
        self._log.appended  # noqa: B018
        super()._notice_eviction()


class WakesForSomethingNew(LooksForEvictionsAfterStoring):
    """Records that a lane may not send yet are no reason to wake it."""

    def wake_at(self) -> int:
        number = super().wake_at()
        return number if number > self._log.appended else NEVER


class NeverRaisesItsLimit(WakesForSomethingNew):
    """A 413 lowers the limit of bytes, also where it was below 4096."""

    def answered(self, window: Window, result: ExportResult, now: float, latency: float) -> None:
        before = self._batch_bytes
        super().answered(window, result, now, latency)
        self._batch_bytes = min(before, self._batch_bytes)


class RemembersRetryAfter(NeverRaisesItsLimit):
    """A flush ends the wait of a blocked lane, but not one that the far side asked for, whatever came in between."""

    _asked_until = 0.0

    def _wait(self, now: float, delay: float, asked: float | None) -> None:
        super()._wait(now, delay, asked)
        if asked is not None:
            self._asked_until = max(self._asked_until, now + min(max(0.0, asked), OPTIONS.longest_retry_after))

    def flush(self, target: int) -> None:
        super().flush(target)
        self._not_before = max(self._not_before, self._asked_until)


class RepairedLane(RemembersRetryAfter):
    """A failure during the wait after another one counts too when a success stood in between."""

    def answered(self, window: Window, result: ExportResult, now: float, latency: float) -> None:
        super().answered(window, result, now, latency)
        if result.outcome is Outcome.TRY_AGAIN:
            self._failures = max(1, self._failures)
