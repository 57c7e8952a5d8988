"""How much CPU does a span cost from its start until the far side has acknowledged it?

Every contender makes the same runs of twenty spans with three attributes each, sends them over HTTP on
loopback and waits for the answers. Counted: `time.process_time()` of the tracing process, all threads and
native code included, from the first span to the last answer. Not counted: the sink (another process),
imports, and a warm-up that opens connections and fills caches. Queues are large enough that nothing is
dropped; the sink proves it.

Compared are the quickest rounds of each, as in `timeit`: a shared machine makes a round slower by half and more, never
quicker.
"""

from __future__ import annotations

import time
from typing import Any

from _common import Benchmark, Figure, Scale, Task, interleaved, main, open_sink, run_child
from _contenders import PEERS, SPANS_PER_RUN, make_contender

WARM_UP_RUNS = 100
MUST = {"opentelemetry-sdk": 1 / 10, "ddtrace": 1 / 3.5}
AIM = {"opentelemetry-sdk": 1 / 15, "ddtrace": 1 / 5}


async def child(task: Task) -> dict[str, Any]:
    contender = make_contender(task.contender)
    runs = task.options["runs"]
    await contender.start(task.origin, roomy=True)
    await contender.produce(WARM_UP_RUNS)
    await contender.settle()
    begin = time.process_time_ns()
    await contender.produce(runs)
    await contender.settle()
    seconds = (time.process_time_ns() - begin) / 1e9
    await contender.stop()
    return {"cpu_microseconds": seconds / (runs * SPANS_PER_RUN) * 1e6}


def one_round(contender: str, runs: int) -> float:
    """CPU microseconds for each span, once all of them are at the sink."""
    with open_sink() as sink:
        task = Task(contender=contender, origin=sink.origin, options={"runs": runs})
        measured: float = run_child(__file__, task)["cpu_microseconds"]
        sink.expect((runs + WARM_UP_RUNS) * SPANS_PER_RUN)
    return measured


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    runs, rounds = scale.pick((2000, 7), (1000, 5), (20, 1))
    pairs = interleaved(PEERS, rounds, lambda contender: one_round(contender, runs))
    quickest = min(ours for rounds_of_peer in pairs.values() for ours, _ in rounds_of_peer)
    figures = [
        Figure(
            name=f"CPU of asynctrace / CPU of {peer}, end to end",
            measured=quickest / min(theirs for _, theirs in measured),
            unit="ratio",
            must=MUST.get(peer),
            aim=AIM.get(peer),
            note=f"{peer}: {min(theirs for _, theirs in measured):.1f} µs a span",
        )
        for peer, measured in pairs.items()
    ]
    figures.append(Figure(name="CPU of asynctrace, end to end", measured=quickest, unit="µs a span"))
    return figures, {"spans": runs * SPANS_PER_RUN, "pairs_microseconds": pairs}


if __name__ == "__main__":
    main(
        Benchmark(
            question="How much CPU does a span cost from its start until it is acknowledged?",
            measure=measure,
            child=child,
        ),
        __file__,
    )
