"""How much of a burst arrives, when nothing was tuned and the far side is slow or away?

100,000 spans are made as fast as one asyncio program can, with every contender's default settings; then the
library is shut down as its manual says, with its own deadline, and the process ends. Counted: distinct span
ids at the sink. Once with a sink that takes 200 ms for each answer, once with one that answers 503 for its
first 5 seconds.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from _common import Benchmark, Figure, Scale, Task, main, open_sink, run_child
from _contenders import SPANS_PER_RUN, make_contender

CONTENDERS = ("asynctrace", "opentelemetry-sdk", "ddtrace")
FAULTS = {
    "each answer takes 200 ms": ("--latency", "0.2"),
    "503 for 5 s": ("--unavailable", "5"),
}


async def child(task: Task) -> dict[str, Any]:
    contender = make_contender(task.contender)
    await contender.start(task.origin, roomy=False)
    begin = time.perf_counter()
    await contender.produce(task.options["runs"])
    made = time.perf_counter()
    await contender.stop()
    return {"burst_seconds": made - begin, "shutdown_seconds": time.perf_counter() - made}


def one_round(contender: str, runs: int, fault: tuple[str, ...]) -> dict[str, Any]:
    """Times of the process, and the percentage that was delivered once it was gone."""
    with open_sink(*fault) as sink:
        times = run_child(__file__, Task(contender=contender, origin=sink.origin, options={"runs": runs}))
        stats = sink.stats()
    spans = runs * SPANS_PER_RUN
    return times | stats | {"delivered_percent": 100 * stats["distinct"] / spans}


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    runs, rounds = scale.pick((5000, 3), (5000, 1), (100, 1))
    details: dict[str, Any] = {"spans": runs * SPANS_PER_RUN}
    figures = []
    for title, fault in FAULTS.items():
        if scale is Scale.TINY:
            fault = (fault[0], "0.05")
        for contender in CONTENDERS:
            measured = [one_round(contender, runs, fault) for _ in range(rounds)]
            details[f"{contender}, {title}"] = measured
            figures.append(_figure(contender, title, measured))
    return figures, details


def _figure(contender: str, title: str, measured: list[dict[str, Any]]) -> Figure:
    held = contender == "asynctrace"
    bound = held and "--latency" in FAULTS[title]
    took = statistics.median(one["burst_seconds"] + one["shutdown_seconds"] for one in measured)
    return Figure(
        name=f"burst delivered by {contender}, {title}",
        measured=min(one["delivered_percent"] for one in measured),
        unit="%",
        better="higher",
        must=100.0 if bound else None,
        aim=100.0 if held else None,
        note=f"worst of {len(measured)}; {took:.1f} s from the first span to the end of shutdown",
    )


if __name__ == "__main__":
    main(
        Benchmark(
            question="How much of a burst of 100,000 spans arrives with default settings?",
            measure=measure,
            child=child,
        ),
        __file__,
    )
