"""How many spans a second can one process make and have acknowledged, for as long as it likes?

Spans are made in slices and each slice is settled before the next, so that nothing grows and nothing is
dropped: `spans / (time from the first span to the last answer)`, on loopback, against a sink that answers
at once.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from _common import Benchmark, Figure, Scale, Task, interleaved, main, open_sink, run_child
from _contenders import PEERS, SPANS_PER_RUN, make_contender

SLICE_RUNS = 500
"""10,000 spans between two flushes."""

PEER = "opentelemetry-sdk"
MUST, AIM = 8.0, 12.0


async def child(task: Task) -> dict[str, Any]:
    contender = make_contender(task.contender)
    await contender.start(task.origin, roomy=True)
    slices, runs = task.options["slices"], task.options["slice_runs"]
    await contender.produce(runs)
    await contender.settle()
    begin = time.perf_counter()
    for _ in range(slices):
        await contender.produce(runs)
        await contender.settle()
    seconds = time.perf_counter() - begin
    await contender.stop()
    return {"spans_per_second": slices * runs * SPANS_PER_RUN / seconds}


def one_round(contender: str, slices: int, slice_runs: int) -> float:
    """Acknowledged spans a second, once all of them are at the sink."""
    with open_sink() as sink:
        options = {"slices": slices, "slice_runs": slice_runs}
        task = Task(contender=contender, origin=sink.origin, options=options)
        measured: float = run_child(__file__, task)["spans_per_second"]
        sink.expect((slices + 1) * slice_runs * SPANS_PER_RUN)
    return measured


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    rounds, seconds_worth, slice_runs = scale.pick((5, 10, SLICE_RUNS), (3, 3, SLICE_RUNS), (1, 1, 20))
    peers = scale.pick(PEERS, (PEER,), (PEER,))
    faster = scale.pick(5, 5, 1)

    def measure_one(contender: str) -> float:
        slices = seconds_worth * faster if contender == "asynctrace" else seconds_worth
        return one_round(contender, slices, slice_runs)

    pairs = interleaved(peers, rounds, measure_one)
    figures = [_figure(peer, measured) for peer, measured in pairs.items()]
    return figures, {"pairs_spans_per_second": pairs}


def _figure(peer: str, measured: list[tuple[float, float]]) -> Figure:
    ours = statistics.median(pair[0] for pair in measured)
    theirs = statistics.median(pair[1] for pair in measured)
    return Figure(
        name=f"sustained spans/s of asynctrace / of {peer}",
        measured=statistics.median(ours / theirs for ours, theirs in measured),
        unit="times",
        better="higher",
        must=MUST if peer == PEER else None,
        aim=AIM if peer == PEER else None,
        note=f"{ours:,.0f} against {theirs:,.0f} spans/s",
    )


if __name__ == "__main__":
    main(
        Benchmark(
            question="How many spans a second can one process have acknowledged?",
            measure=measure,
            child=child,
        ),
        __file__,
    )
