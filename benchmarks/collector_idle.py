"""What does a collector cost that nobody sends to?

`asynctrace serve` with an empty directory: the time from the start of its process to the first 200 of `/readyz`, and its
resident memory then and a second later. Phoenix is measured in the same way where it is installed.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import _collectors
from _common import Benchmark, Figure, Scale, main

START_MUST = 1.0
MEMORY_MUST = 80.0


def idle(serve: Callable[[], contextlib.AbstractContextManager[_collectors.Collecting]]) -> tuple[float, float]:
    """Seconds until it is ready, and megabytes."""
    with serve() as collecting:
        time.sleep(1)
        return collecting.started_after, collecting.resident_megabytes()


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    rounds = [idle(_collectors.asynctrace_serve) for _ in range(scale.pick(7, 3, 1))]
    command = _collectors.phoenix_command() if scale is not Scale.TINY else None
    phoenix = idle(lambda: _collectors.phoenix_serve(command)) if command is not None else None
    figures = [
        Figure(
            name="`asynctrace serve`, start to ready",
            measured=statistics.median(seconds for seconds, _ in rounds),
            unit="s",
            must=START_MUST,
            note=f"Phoenix {phoenix[0]:.1f} s" if phoenix else "",
        ),
        Figure(
            name="its memory while nobody sends",
            measured=max(megabytes for _, megabytes in rounds),
            unit="MB",
            must=MEMORY_MUST,
            note=f"Phoenix {phoenix[1]:.0f} MB" if phoenix else "",
        ),
    ]
    return figures, {"asynctrace": rounds, "phoenix": phoenix or "not installed"}


if __name__ == "__main__":
    main(Benchmark(question="What does a collector cost that nobody sends to?", measure=measure), __file__)
