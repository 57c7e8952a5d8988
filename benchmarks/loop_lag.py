"""How much later does everything else on the loop run while 5,000 spans a second are made and sent?

A ticker sleeps 1 ms at a time and notes how late it wakes. Beside it, every 4 ms, a run of twenty spans is
made. The p99 of the lateness, minus the p99 of a process in which the same sleeps make no spans; processes
take turns, so that both see the same machine.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from _common import Benchmark, Figure, Scale, Task, main, open_sink, percentile, run_child
from _contenders import SPANS_PER_RUN, Contender, make_contender

TICK = 0.001
SPANS_PER_SECOND = 5000
PAUSE = SPANS_PER_RUN / SPANS_PER_SECOND
MUST, AIM = 1.0, 0.3
EMPTY = "no spans"


async def child(task: Task) -> dict[str, Any]:
    contender = make_contender(task.contender)
    runs = round(task.options["seconds"] / PAUSE)
    await contender.start(task.origin, roomy=True)
    await contender.produce(10)
    lateness: list[float] = []
    ticker = asyncio.create_task(_tick(lateness))
    made = await _produce(None if task.options["empty"] else contender, runs)
    ticker.cancel()
    await contender.settle()
    await contender.stop()
    return {"p99_ms": percentile(lateness, 0.99) * 1e3, "spans": (made + 10) * SPANS_PER_RUN}


async def _tick(lateness: list[float]) -> None:
    while True:
        due = time.perf_counter() + TICK
        await asyncio.sleep(TICK)
        lateness.append(time.perf_counter() - due)


async def _produce(contender: Contender | None, runs: int) -> int:
    """One run every `PAUSE` seconds by the clock; how many were made."""
    begin = time.perf_counter()
    for number in range(runs):
        await asyncio.sleep(max(0.0, begin + number * PAUSE - time.perf_counter()))
        if contender is not None:
            await contender.produce(1)
    return 0 if contender is None else runs


def one_round(contender: str, seconds: float) -> float:
    """p99 lateness of the ticker in milliseconds, once all spans are at the sink."""
    empty = contender == EMPTY
    with open_sink() as sink:
        task = Task(
            contender="asynctrace" if empty else contender,
            origin=sink.origin,
            options={"seconds": seconds, "empty": empty},
        )
        result = run_child(__file__, task)
        sink.expect(result["spans"])
    measured: float = result["p99_ms"]
    return measured


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    seconds, rounds = scale.pick((10.0, 5), (3.0, 3), (0.3, 1))
    peers: tuple[str, ...] = scale.pick(("opentelemetry-sdk", "ddtrace"), ("opentelemetry-sdk",), ())
    measured: dict[str, list[float]] = {name: [] for name in (EMPTY, "asynctrace", *peers)}
    for _ in range(rounds):
        for name, values in measured.items():
            values.append(one_round(name, seconds))
    figures = [_figure(name, values, measured[EMPTY]) for name, values in measured.items() if name != EMPTY]
    return figures, {"seconds": seconds, "p99_milliseconds": measured}


def _figure(contender: str, values: list[float], empty: list[float]) -> Figure:
    held = contender == "asynctrace"
    return Figure(
        name=f"p99 lag added to a 1 ms ticker by {contender}",
        measured=statistics.median(lag - base for lag, base in zip(values, empty, strict=True)),
        unit="ms",
        must=MUST if held else None,
        aim=AIM if held else None,
        note=f"p99 {statistics.median(values):.2f} ms, without spans {statistics.median(empty):.2f} ms",
    )


if __name__ == "__main__":
    main(
        Benchmark(
            question="How much later does the event loop run at 5,000 spans a second?",
            measure=measure,
            child=child,
        ),
        __file__,
    )
