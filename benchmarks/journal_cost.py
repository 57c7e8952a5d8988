"""What does a journal cost, end to end?

CPU of a span from its start until the far side has acknowledged it, as in `cpu_end_to_end.py`, with a journal on the disk and
without one, in turns. It has to note that the span is open, store it in a mapped file, keep files ready and write down what
the lanes send. `TMPDIR` chooses the disk.

Compared are the quickest rounds of each way, as in `timeit`: a shared machine makes a round slower by half and more, never
quicker, and a microsecond is what is asked for.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

from _common import Benchmark, Figure, Scale, Task, main, open_sink, run_child
from _contenders import SPANS_PER_RUN, Asynctrace

WARM_UP_RUNS = 100
MUST_MORE, AIM_MORE = 1.0, 0.6
"""Microseconds for each span."""
MUST_RATIO = 1.25


async def child(task: Task) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        contender = Asynctrace(journal=folder if task.options["journal"] else False)
        runs = task.options["runs"]
        await contender.start(task.origin, roomy=True)
        way = contender.tracer.statistics().journal
        await contender.produce(WARM_UP_RUNS)
        await contender.settle()
        begin = time.process_time_ns()
        await contender.produce(runs)
        await contender.settle()
        seconds = (time.process_time_ns() - begin) / 1e9
        await contender.stop()
    return {"cpu_microseconds": seconds / (runs * SPANS_PER_RUN) * 1e6, "way": way}


def one_round(journal: bool, runs: int) -> tuple[float, str]:
    """CPU microseconds for each span, once all of them are at the sink, and where they waited."""
    with open_sink() as sink:
        task = Task(contender="asynctrace", origin=sink.origin, options={"runs": runs, "journal": journal})
        answer = run_child(__file__, task)
        sink.expect((runs + WARM_UP_RUNS) * SPANS_PER_RUN)
    return answer["cpu_microseconds"], answer["way"]


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    runs, rounds = scale.pick((2000, 9), (500, 5), (20, 1))
    pairs = [(one_round(True, runs), one_round(False, runs)) for _ in range(rounds)]
    with_journal, without = min(on[0] for on, _ in pairs), min(off[0] for _, off in pairs)
    figures = [
        Figure(
            name="CPU that a journal adds, end to end",
            measured=with_journal - without,
            unit="µs a span",
            must=MUST_MORE,
            aim=AIM_MORE,
            note=pairs[0][0][1],
        ),
        Figure(
            name="CPU with a journal / CPU without, end to end",
            measured=with_journal / without,
            unit="ratio",
            must=MUST_RATIO,
            note=f"without: {without:.1f} µs a span",
        ),
    ]
    return figures, {"spans": runs * SPANS_PER_RUN, "pairs_microseconds": [(on[0], off[0]) for on, off in pairs]}


if __name__ == "__main__":
    main(Benchmark(question="What does a journal cost, end to end?", measure=measure, child=child), __file__)
