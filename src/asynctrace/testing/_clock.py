"""A `Clock` whose hands a test moves.

The wall clock and the monotonic clock are two hands, as in a real machine: `advance()` moves both, `jump()`
moves the wall clock alone (a step by NTP, a daylight-saving mistake), `advance_monotonic()` the other one
alone. The monotonic hand never goes back. Safe from any thread.
"""

from __future__ import annotations

import threading

__all__ = ["ManualClock"]

_SECOND_NS = 1_000_000_000
# 2026-01-01T00:00:00Z: recent enough that no reader takes the times for a unit error.
_FIRST_WALL_NS = 1_767_225_600 * _SECOND_NS
# Not zero, so that code which takes "0" for "not started" shows.
_FIRST_MONOTONIC_NS = 1_000 * _SECOND_NS


class ManualClock:
    """Implements `asynctrace.Clock`; stands still until it is moved.

    Arguments are nanoseconds: `wall_ns` since the Unix epoch, `monotonic_ns` since an arbitrary point.
    """

    def __init__(self, wall_ns: int = _FIRST_WALL_NS, monotonic_ns: int = _FIRST_MONOTONIC_NS) -> None:
        self._lock = threading.Lock()
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns

    def time_ns(self) -> int:
        """The wall clock, nanoseconds since the Unix epoch."""
        return self._wall_ns

    def monotonic_ns(self) -> int:
        """The monotonic clock, nanoseconds."""
        return self._monotonic_ns

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass on both clocks. Raises `ValueError` when negative: time does not go back."""
        self._move(wall=seconds, monotonic=seconds)

    def advance_monotonic(self, seconds: float) -> None:
        """Let `seconds` pass on the monotonic clock alone. Raises `ValueError` when negative."""
        self._move(wall=0, monotonic=seconds)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward, or back when negative; the monotonic clock does not notice."""
        self._move(wall=seconds, monotonic=0)

    def _move(self, *, wall: float, monotonic: float) -> None:
        if monotonic < 0:
            raise ValueError(f"a monotonic clock cannot go back ({monotonic} s); jump() moves the wall clock")
        with self._lock:
            self._wall_ns += round(wall * _SECOND_NS)
            self._monotonic_ns += round(monotonic * _SECOND_NS)

    def __repr__(self) -> str:
        return f"ManualClock(wall_ns={self._wall_ns}, monotonic_ns={self._monotonic_ns})"
