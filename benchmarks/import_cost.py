"""What does `import asynctrace` load?

A fresh, isolated interpreter counts the modules that are there afterwards: all of them, the interpreter's
own included. The façade loads its parts on first use, so what a program with a `Tracer` has loaded (asyncio
included) is shown beside it. Libraries that belong to one exporter or one door must not be among them.
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
{statement}
seconds = time.perf_counter() - begin
print(json.dumps({{"before": sorted(before), "after": sorted(sys.modules), "milliseconds": seconds * 1000}}))
"""
BOUND = "import asynctrace"
"""The statement the budget speaks of."""

STATEMENTS = {
    BOUND: "import asynctrace",
    "a Tracer": "import asynctrace; asynctrace.Tracer(service='benchmark', exporters=[], journal=False)",
}


def probe(statement: str) -> dict[str, Any]:
    """The modules before and after, and how long it took, in a new interpreter."""
    finished = subprocess.run(
        [sys.executable, "-I", "-c", PROBE.format(statement=statement)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    for title, statement in STATEMENTS.items():
        probes = [probe(statement) for _ in range(scale.pick(15, 5, 1))]
        before, after = set(probes[0]["before"]), set(probes[0]["after"])
        took = statistics.median(one["milliseconds"] for one in probes)
        figures += _figures(title, before, after, took)
        details[f"added by {title}"] = sorted(after - before)
    return figures, details


def _figures(title: str, before: set[str], after: set[str], took: float) -> list[Figure]:
    lazy = sorted(name for name in after if name.partition(".")[0] in LAZY)
    return [
        Figure(
            name=f"modules loaded after {title}",
            measured=len(after),
            unit="modules",
            must=MUST if title == BOUND else None,
            aim=AIM if title == BOUND else None,
            note=f"{len(after - before)} more than a bare interpreter's {len(before)}; {took:.0f} ms",
        ),
        Figure(
            name=f"modules of lazily loaded libraries after {title}",
            measured=len(lazy),
            unit="modules",
            must=0,
            aim=0,
            note=", ".join(lazy) or f"none of {', '.join(LAZY)}",
        ),
    ]


if __name__ == "__main__":
    main(Benchmark(question="What does `import asynctrace` load?", measure=measure), __file__)
