"""How much memory does a span take while it waits?

The far side accepts connections and never answers. Memory of the process after the spans ended, minus
before, for each span, over the bytes of that same span on the wire (which a second process sends to a sink
that reads). Once as resident memory, which is what the machine gives, once as `tracemalloc` sees it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import tracemalloc
from typing import Any

from _common import Benchmark, Figure, RunningSink, Scale, Task, main, open_sink, resident_bytes, run_child
from _contenders import SPANS_PER_RUN, make_contender

MUST, AIM = 1.3, 1.1
CONTENDERS = ("asynctrace", "opentelemetry-sdk")
FRAME_BYTES = 3
"""Tag and length in front of a span of 128 to 16,383 bytes, in a request as in the span log."""


async def child(task: Task) -> dict[str, Any]:
    contender = make_contender(task.contender)
    await contender.start(task.origin, roomy=task.contender != "asynctrace")
    runs = task.options["runs"]
    if task.options["keep"]:
        await contender.produce(runs)
        await contender.settle()
        await contender.stop()
        return {}
    await contender.produce(task.options["warm_up_runs"])
    await _until_requests_hang(task.origin)
    measured = await _grown(contender, runs, traced=task.options["traced"])
    _leave(measured / (runs * SPANS_PER_RUN))
    return {}


async def _until_requests_hang(origin: str) -> None:
    """Connections are open and every library that a first request loads is there."""
    sink = RunningSink(origin)
    while not (await asyncio.to_thread(sink.stats))["requests"]:  # noqa: ASYNC110  (another process)
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)


async def _grown(contender: Any, runs: int, *, traced: bool) -> int:
    if not traced:
        before = resident_bytes()
        await contender.produce(runs)
        return resident_bytes() - before
    tracemalloc.start()
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    await contender.produce(runs)
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - before


def _leave(bytes_per_span: float) -> None:
    """Print and end at once: the far side would keep every orderly shutdown waiting."""
    print(json.dumps({"bytes_per_span": bytes_per_span}), flush=True)
    os._exit(0)


def wire_bytes(contender: str, runs: int) -> float:
    """Bytes of an encoded span with its frame."""
    with open_sink() as sink:
        task = Task(contender=contender, origin=sink.origin, options={"runs": runs, "keep": True})
        run_child(__file__, task)
        return sink.expect(runs * SPANS_PER_RUN)["span_bytes"] / (runs * SPANS_PER_RUN) + FRAME_BYTES


def waiting_bytes(contender: str, options: dict[str, Any]) -> float:
    """Memory of a waiting span."""
    with open_sink("--hang") as sink:
        task = Task(contender=contender, origin=sink.origin, options=options | {"keep": False})
        measured: float = run_child(__file__, task)["bytes_per_span"]
    return measured


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    runs, rounds = scale.pick((6000, 3), (3000, 1), (200, 1))
    details: dict[str, Any] = {"spans": runs * SPANS_PER_RUN}
    figures = []
    for contender in CONTENDERS:
        wire = wire_bytes(contender, 200)
        for traced, title in ((False, "resident"), (True, "traced by tracemalloc")):
            options = {"runs": runs, "traced": traced, "warm_up_runs": scale.pick(500, 500, 100)}
            measured = [waiting_bytes(contender, options) for _ in range(rounds)]
            details[f"{contender}, {title}"] = {"wire": wire, "waiting": measured}
            bound = contender == "asynctrace" and not traced  # tracemalloc does not see mapped memory
            figures.append(_figure(contender, title, wire, statistics.median(measured), bound=bound))
    return figures, details


def _figure(contender: str, title: str, wire: float, waiting: float, *, bound: bool) -> Figure:
    return Figure(
        name=f"memory of a waiting span / its encoded size, {contender}, {title}",
        measured=waiting / wire,
        unit="times",
        must=MUST if bound else None,
        aim=AIM if bound else None,
        note=f"{waiting:.0f} bytes against {wire:.0f}",
    )


if __name__ == "__main__":
    main(
        Benchmark(
            question="How much memory does a span take while it waits?",
            measure=measure,
            child=child,
        ),
        __file__,
    )
