"""What does `import asynctrace` load?

A fresh, isolated interpreter counts the modules that are there afterwards: all of them, the interpreter's
own included. Libraries that belong to one exporter or one door must not be among them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

from _common import Benchmark, Figure, Scale, main

MUST, AIM = 150, 130
LAZY = ("aiohttp", "structlog", "redis", "zstandard", "opentelemetry", "uvloop")
"""Loaded where they are used, never with the package."""

PROBE = """
import json, sys, time
before = set(sys.modules)
begin = time.perf_counter()
import asynctrace
seconds = time.perf_counter() - begin
print(json.dumps({"before": sorted(before), "after": sorted(sys.modules), "milliseconds": seconds * 1000}))
"""


def probe() -> dict[str, Any]:
    """The modules before and after, and how long the import took, in a new interpreter."""
    finished = subprocess.run(
        [sys.executable, "-I", "-c", PROBE], capture_output=True, text=True, timeout=60, check=True
    )
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    probes = [probe() for _ in range(scale.pick(15, 5, 1))]
    before, after = set(probes[0]["before"]), set(probes[0]["after"])
    lazy = sorted(name for name in after if name.partition(".")[0] in LAZY)
    took = statistics.median(one["milliseconds"] for one in probes)
    figures = [
        Figure(
            name="modules loaded after import asynctrace",
            measured=len(after),
            unit="modules",
            must=MUST,
            aim=AIM,
            note=f"{len(after - before)} more than a bare interpreter's {len(before)}",
        ),
        Figure(
            name="modules of lazily loaded libraries among them",
            measured=len(lazy),
            unit="modules",
            must=0,
            aim=0,
            note=", ".join(lazy) or f"none of {', '.join(LAZY)}",
        ),
        Figure(name="time of import asynctrace", measured=took, unit="ms"),
    ]
    return figures, {"added": sorted(after - before)}


if __name__ == "__main__":
    main(Benchmark(question="What does `import asynctrace` load?", measure=measure), __file__)
