"""Tracers that keep their promise only as long as nobody kills them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asynctrace import Tracer

__all__ = ["KILL_DOUBLES"]


def in_memory(**options: Any) -> Tracer:
    """No journal: what waits dies with the process."""
    return Tracer(**{**options, "journal": False})


def forgets_windows(**options: Any) -> Tracer:
    """What a dead process was sending is cut anew, under new keys."""
    from asynctrace.spanlog.journal import _lane_file

    _lane_file.LaneFile.windows = lambda self: []  # type: ignore[method-assign]
    return Tracer(**options)


KILL_DOUBLES: dict[str, Callable[..., Tracer]] = {
    "sound": Tracer,
    "in memory": in_memory,
    "forgets windows": forgets_windows,
}
