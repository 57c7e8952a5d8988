"""What does a component cost the coroutine that opens it?

Enter, three attributes, exit, inside a run, as a multiple of an empty `async with` on a slotted class: both
measured in one process, in short alternating blocks, by the CPU clock of the thread, with the garbage
collector on. A block never gives way to the event loop, so what the lanes do is not in it; between blocks
everything is flushed, so the span log never fills. The three attributes are given in the three ways the API
has; the bound holds for the dearest one.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from _common import Benchmark, Figure, Scale, Task, main, open_sink, run_child
from _contenders import Asynctrace
from _empty import Block, compare_with_empty

if TYPE_CHECKING:
    from asynctrace import Tracer

BLOCK = 2000
"""Components between two flushes: long enough for the clock, far below the span log's capacity."""

MUST, AIM = 12.0, 8.0
UNBOUND = "no attributes"
"""Not what the budget speaks of; shown to tell the component's cost from that of its attributes."""


def blocks_of(tracer: Tracer) -> dict[str, Block]:
    """A component with the three attributes given in each of the API's ways."""

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
            async with tracer.trace_component(
                "step", attributes={"http.request.method": "GET", "http.route": "/cart/{id}", "cart.items": step}
            ):
                pass

    async def no_attributes(count: int) -> None:
        for _ in range(count):
            async with tracer.trace_component("step"):
                pass

    return {
        "three set_attribute calls": three_calls,
        "one set_attributes call": one_call,
        "attributes at entry": at_entry,
        UNBOUND: no_attributes,
    }


async def child(task: Task) -> dict[str, Any]:
    contender = Asynctrace()
    await contender.start(task.origin, roomy=False)
    blocks = blocks_of(contender.tracer)
    async with contender.tracer.trace("application"):
        rounds = task.options["rounds"]
        compared = await compare_with_empty(blocks, count=BLOCK, rounds=rounds, settle=contender.settle)
    await contender.stop()
    return compared


def one_process(rounds: int) -> dict[str, dict[str, float]]:
    """What one process measured, once all of its spans are at the sink."""
    with open_sink() as sink:
        task = Task(contender="asynctrace", origin=sink.origin, options={"rounds": rounds})
        compared = run_child(__file__, task)
        sink.expect((rounds + 1) * BLOCK * len(compared) + 1)
    return compared


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    processes, rounds = scale.pick((5, 60), (1, 30), (1, 2))
    results = [one_process(rounds) for _ in range(processes)]
    return [_figure(name, [result[name] for result in results]) for name in results[0]], {"processes": results}


def _figure(name: str, results: list[dict[str, float]]) -> Figure:
    cost = statistics.median(result["microseconds"] for result in results)
    base = statistics.median(result["empty_microseconds"] for result in results)
    return Figure(
        name=f"component / empty async with, {name}",
        measured=statistics.median(result["ratio"] for result in results),
        unit="times",
        must=None if name == UNBOUND else MUST,
        aim=None if name == UNBOUND else AIM,
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
