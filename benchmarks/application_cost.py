"""What does a component cost the coroutine that opens it?

Enter, three attributes, exit, inside a run, as a multiple of an empty `async with` on a slotted class: both
measured in one process, in short alternating blocks, by the CPU clock of the thread, with the garbage
collector on. A block never gives way to the event loop, so what the lanes do is not in it; between blocks
everything is flushed, so the span log never fills. The three attributes are given in the three ways the API
has; the bound holds for the dearest one.
"""

from __future__ import annotations

import statistics
from typing import Any

from _common import Benchmark, Figure, Scale, Task, main, open_sink, run_child, timed_blocks
from _contenders import Asynctrace
from _empty import enter_empty

BLOCK = 2000
"""Components between two flushes: long enough for the clock, far below the span log's capacity."""

MUST, AIM = 12.0, 8.0


async def child(task: Task) -> dict[str, Any]:
    contender = Asynctrace()
    await contender.start(task.origin, roomy=False)
    tracer = contender.tracer

    async def three_calls(count: int) -> None:
        for step in range(count):
            async with tracer.trace_component("step") as component:
                component.set_attribute("http.request.method", "GET")
                component.set_attribute("http.route", "/cart/{id}")
                component.set_attribute("cart.items", step)

    async def one_call(count: int) -> None:
        for step in range(count):
            async with tracer.trace_component("step") as component:
                component.set_attributes({"http.request.method": "GET", "http.route": "/cart/{id}", "cart.items": step})

    async def at_entry(count: int) -> None:
        for step in range(count):
            attributes = {"http.request.method": "GET", "http.route": "/cart/{id}", "cart.items": step}
            async with tracer.trace_component("step", attributes=attributes):
                pass

    async def no_attributes(count: int) -> None:
        for _ in range(count):
            async with tracer.trace_component("step"):
                pass

    blocks = {
        "three set_attribute calls": three_calls,
        "one set_attributes call": one_call,
        "attributes at entry": at_entry,
        "no attributes": no_attributes,
    }
    measures = {name: timed_blocks(BLOCK, block) for name, block in blocks.items()}
    empty = timed_blocks(BLOCK, enter_empty)
    ratios: dict[str, list[float]] = {name: [] for name in blocks}
    seconds: dict[str, list[float]] = {name: [] for name in ("empty", *blocks)}
    async with tracer.trace("application"):
        for number in range(task.options["rounds"] + 1):
            for name, measure_block in measures.items():
                base, cost = await empty(), await measure_block()
                await tracer.flush()
                if number:  # the first round warms up
                    ratios[name].append(cost / base)
                    seconds["empty"].append(base)
                    seconds[name].append(cost)
    await contender.stop()
    return {
        "ratios": {name: statistics.median(values) for name, values in ratios.items()},
        "microseconds": {name: statistics.median(values) * 1e6 for name, values in seconds.items()},
    }


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    processes, rounds = scale.pick((5, 60), (1, 30), (1, 2))
    results = []
    for _ in range(processes):
        with open_sink() as sink:
            task = Task(contender="asynctrace", origin=sink.origin, options={"rounds": rounds})
            results.append(run_child(__file__, task))
            sink.expect((rounds + 1) * BLOCK * len(results[0]["ratios"]) + 1)
    return [_figure(name, results) for name in results[0]["ratios"]], {"processes": results}


def _figure(name: str, results: list[dict[str, Any]]) -> Figure:
    cost = statistics.median(result["microseconds"][name] for result in results)
    base = statistics.median(result["microseconds"]["empty"] for result in results)
    return Figure(
        name=f"component / empty async with, {name}",
        measured=statistics.median(result["ratios"][name] for result in results),
        unit="times",
        must=None if name == "no attributes" else MUST,
        aim=None if name == "no attributes" else AIM,
        note=f"{cost:.2f} µs against {base:.2f} µs",
    )


if __name__ == "__main__":
    main(
        Benchmark(
            question="What does a component cost the coroutine that opens it?",
            measure=measure,
            child=child,
        ),
        __file__,
    )
