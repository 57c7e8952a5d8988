"""What a lane is doing, as others see it."""

from __future__ import annotations

import enum

import msgspec

__all__ = ["LaneState", "LaneStatistics"]


class LaneState(enum.Enum):
    """What a lane is doing."""

    IDLE = "idle"
    SENDING = "sending"
    BACKOFF = "backoff"
    BLOCKED = "blocked"
    STOPPED = "stopped"


class LaneStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A lane at one moment."""

    state: str = "idle"
    requests: int = 0
    """Batches handed to the exporter, repetitions included."""
    retries: int = 0
    """Of those, repetitions after an answer that asked for one."""
    in_flight: int = 0
    in_flight_peak: int = 0
    batch_spans: int = 0
    """The size that batches have now; it follows the far side's latency."""
    batch_bytes: int = 0
    """The byte limit of batches now; a 413 lowers it."""
    latency: float = 0.0
    """Seconds the last answered request took."""
    lag: float = 0.0
    """Seconds by which things ran late on the lane's event loop when it last looked, smoothed."""
    interruptions: int = 0
    """How often the lane's task was cancelled or died; it drains, or goes on, and loses nothing."""
    answers: dict[str, int] = {}
    """Answers other than accepted, by reason."""
