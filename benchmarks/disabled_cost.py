"""What does tracing cost where it is switched off?

A component of a tracer that is disabled (`OTEL_SDK_DISABLED=true`), that samples nothing
(`OTEL_TRACES_SAMPLER=always_off`), and one inside a run that the sampler left out, each as a multiple of an
empty `async with` on a slotted class. Measured as in `application_cost.py`; the bound holds for entering
and leaving, the figures with three attributes are for orientation.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from _common import Benchmark, Figure, Scale, Task, main, open_sink, run_child
from _contenders import Asynctrace
from _empty import Block, compare_with_empty

if TYPE_CHECKING:
    from asynctrace import Tracer

BLOCK = 4000
MUST, AIM = 3.0, 2.0
BOUND = "component"
"""Entering and leaving is what the budget speaks of."""

WAYS: dict[str, dict[str, str]] = {
    "disabled": {"OTEL_SDK_DISABLED": "true"},
    "sampler that takes nothing": {"OTEL_TRACES_SAMPLER": "always_off"},
    "run that was not sampled": {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
}
"""What makes a component record nothing, as the variables every OpenTelemetry user knows."""


def blocks_of(tracer: Tracer) -> dict[str, Block]:
    """A component, without attributes and with three."""

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

    return {BOUND: component, "component with three attributes": with_attributes}


async def child(task: Task) -> dict[str, Any]:
    contender = Asynctrace()
    await contender.start(task.origin, roomy=False)
    blocks = blocks_of(contender.tracer)
    async with contender.tracer.trace("application"):
        rounds = task.options["rounds"]
        compared = await compare_with_empty(blocks, count=BLOCK, rounds=rounds, settle=contender.settle)
    await contender.stop()
    return compared


def one_process(rounds: int, variables: dict[str, str]) -> dict[str, dict[str, float]]:
    """What one process measured, once it is known that nothing at all was sent."""
    with open_sink() as sink:
        task = Task(contender="asynctrace", origin=sink.origin, options={"rounds": rounds})
        compared = run_child(__file__, task, **variables)
        sink.expect(0)
    return compared


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    processes, rounds = scale.pick((3, 60), (1, 30), (1, 2))
    results = {way: [one_process(rounds, given) for _ in range(processes)] for way, given in WAYS.items()}
    figures = [
        _figure(way, name, [one[name] for one in measured]) for way, measured in results.items() for name in measured[0]
    ]
    return figures, {"processes": results}


def _figure(way: str, name: str, results: list[dict[str, float]]) -> Figure:
    cost = statistics.median(result["microseconds"] for result in results)
    base = statistics.median(result["empty_microseconds"] for result in results)
    return Figure(
        name=f"{name} / empty async with, {way}",
        measured=statistics.median(result["ratio"] for result in results),
        unit="times",
        must=MUST if name == BOUND else None,
        aim=AIM if name == BOUND else None,
        note=f"{cost:.2f} µs against {base:.2f} µs",
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
