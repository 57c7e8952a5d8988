"""The public API as mypy and pyright see it: read by them, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import asynctrace
from asynctrace.exporters import ConsoleExporter, FileExporter, MemoryExporter, OTLPExporter


async def the_life_of_a_tracer() -> None:
    async with asynctrace.Tracer(
        service="shop",
        exporters=[OTLPExporter("http://127.0.0.1:4318"), ConsoleExporter(), FileExporter("spans"), MemoryExporter()],
        when_full="wait",
        journal=False,
    ) as tracer:
        assert_type(tracer, asynctrace.Tracer)
        async with tracer.trace("checkout", session_id="s-1", tags=["nightly"], metadata={"a": 1}) as run:
            assert_type(run, asynctrace.TraceContext)
            run.set_baggage("tenant", "t-1")
            assert_type(run.baggage, asynctrace.Baggage)
            assert_type(run.baggage["tenant"], str)
            async with tracer.trace_component("pay", type="tool", kind="client", links=[run]) as component:
                assert_type(component, asynctrace.ComponentTraceContext)
                component.add_log("paid", euro=12)
                component.set_outputs({"ok": True}, metadata={"model": "m"})
                component.set_status(asynctrace.StatusCode.OK)
        receipt = await tracer.flush(timeout=1.5, trace_id=run.trace_id)
        assert_type(receipt, asynctrace.Receipt)
        assert_type(receipt.lanes, dict[str, asynctrace.LaneReceipt])
        assert_type(receipt.complete, bool)
        assert_type(tracer.statistics().lanes, dict[str, asynctrace.LaneStatistics])


def without_a_loop(tracer: asynctrace.Tracer) -> None:
    with tracer:
        with tracer.trace("checkout") as run, tracer.trace_component("pay"):
            assert_type(run, asynctrace.TraceContext)
        assert_type(tracer.flush_sync(), asynctrace.Receipt)
    assert_type(asynctrace.current_component(), asynctrace.ComponentTraceContext | None)


# A decorator keeps the type of what it decorates.


@asynctrace.trace_component("price", type="tool")
def price(tea: str) -> int:
    return len(tea)


@asynctrace.trace_component("ask")
async def ask(tea: str) -> str:
    return tea


@asynctrace.trace_component("stream")
async def stream(words: list[str]) -> AsyncIterator[str]:
    for word in words:
        yield word


@asynctrace.trace_component("count")
def count(limit: int) -> Iterator[int]:
    yield from range(limit)


async def what_decorated_functions_are() -> None:
    assert_type(price("Sencha"), int)
    assert_type(await ask("Sencha"), str)
    assert_type(stream(["a"]), AsyncIterator[str])
    assert_type(count(3), Iterator[int])
    assert_type(asynctrace.bind(price)("Sencha"), int)


class AnExporter:
    """Everything that an exporter must have."""

    name = "mine"

    async def export(self, batch: asynctrace.Batch) -> asynctrace.ExportResult:
        assert_type(batch.spans(), tuple[asynctrace.Span, ...])
        return asynctrace.ExportResult.all_accepted(batch)

    async def aclose(self) -> None: ...


def what_cannot_work(tracer: asynctrace.Tracer) -> None:
    asynctrace.Tracer(exporters=[AnExporter()])
    asynctrace.Tracer(exporters=["otlp"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    tracer.trace(42)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tracer.trace_component("pay", tags=["a"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
