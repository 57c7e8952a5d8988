"""What does tracing cost where it is switched off?

A component of a tracer that is disabled (`OTEL_SDK_DISABLED=true`), that samples nothing
(`OTEL_TRACES_SAMPLER=always_off`), and one inside a run that the sampler left out, each as a multiple of an
empty `async with` on a slotted class. Measured as in `application_cost.py`; the bound holds for entering
and leaving, the figures with three attributes are for orientation.
"""

from __future__ import annotations

import statistics
from typing import Any

from _common import Benchmark, Figure, Scale, Task, main, open_sink, run_child, timed_blocks
from _contenders import Asynctrace
from _empty import enter_empty

BLOCK = 4000
MUST, AIM = 3.0, 2.0
WAYS: dict[str, dict[str, str]] = {
    "disabled": {"OTEL_SDK_DISABLED": "true"},
    "sampler that takes nothing": {"OTEL_TRACES_SAMPLER": "always_off"},
    "run that was not sampled": {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
}
"""What makes a component record nothing, as the variables every OpenTelemetry user knows."""


async def child(task: Task) -> dict[str, Any]:
    contender = Asynctrace()
    await contender.start(task.origin, roomy=False)
    tracer = contender.tracer

    async def component(count: int) -> None:
        for _ in range(count):
            async with tracer.trace_component("step"):
                pass

    async def with_attributes(count: int) -> None:
        for step in range(count):
            async with tracer.trace_component("step") as opened:
                opened.set_attribute("http.request.method", "GET")
                opened.set_attribute("http.route", "/cart/{id}")
                opened.set_attribute("cart.items", step)

    empty = timed_blocks(BLOCK, enter_empty)
    measures = {
        "component": timed_blocks(BLOCK, component),
        "component with three attributes": timed_blocks(BLOCK, with_attributes),
    }
    ratios: dict[str, list[float]] = {name: [] for name in measures}
    async with tracer.trace("application"):
        for number in range(task.options["rounds"] + 1):
            for name, measure_block in measures.items():
                base, cost = await empty(), await measure_block()
                if number:  # the first round warms up
                    ratios[name].append(cost / base)
    await contender.stop()
    return {name: statistics.median(values) for name, values in ratios.items()}


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    processes, rounds = scale.pick((3, 60), (1, 30), (1, 2))
    results: dict[str, list[dict[str, float]]] = {}
    for way, variables in WAYS.items():
        results[way] = [_one_process(rounds, variables) for _ in range(processes)]
    figures = [_figure(way, name, results[way]) for way in WAYS for name in results[way][0]]
    return figures, {"processes": results}


def _one_process(rounds: int, variables: dict[str, str]) -> dict[str, float]:
    with open_sink() as sink:
        task = Task(contender="asynctrace", origin=sink.origin, options={"rounds": rounds})
        result = run_child(__file__, task, **variables)
        sink.expect(0)
    return result


def _figure(way: str, name: str, results: list[dict[str, float]]) -> Figure:
    bound = name == "component"
    return Figure(
        name=f"{name} / empty async with, {way}",
        measured=statistics.median(result[name] for result in results),
        unit="times",
        must=MUST if bound else None,
        aim=AIM if bound else None,
    )


if __name__ == "__main__":
    main(
        Benchmark(
            question="What does a component cost where tracing is switched off?",
            measure=measure,
            child=child,
        ),
        __file__,
    )
