"""How much CPU does a span cost that an OpenTelemetry instrumentation makes, on asynctrace instead of opentelemetry-sdk?

The program is the same to the letter: `start_as_current_span()` and three attributes, twenty spans a run. Only the
provider differs. Counted as in `cpu_end_to_end.py`: from the first span until the far side has acknowledged all of them,
which here includes that records are put below their instrumentation scope.
"""

from __future__ import annotations

from typing import Any

from _common import Benchmark, Figure, Scale, main
from cpu_end_to_end import child, one_round

OURS, PEER = "asynctrace.opentelemetry", "opentelemetry-sdk"


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    runs, rounds = scale.pick((2000, 7), (1000, 5), (20, 1))
    taken = {name: [one_round(name, runs) for _ in range(rounds)] for name in (OURS, PEER)}
    quickest = {name: min(measured) for name, measured in taken.items()}
    ratio = Figure(
        name="CPU of asynctrace.opentelemetry / CPU of opentelemetry-sdk, end to end",
        measured=quickest[OURS] / quickest[PEER],
        unit="ratio",
        must=1.0,
        aim=1 / 4,
        note=f"{quickest[OURS]:.1f} and {quickest[PEER]:.1f} µs a span",
    )
    return [ratio], {"rounds_microseconds": taken}


if __name__ == "__main__":
    main(
        Benchmark(
            question="How much CPU does a span cost that an OpenTelemetry instrumentation makes?",
            measure=measure,
            child=child,
        ),
        __file__,
    )
