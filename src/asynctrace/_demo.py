"""The workload of `asynctrace demo`: agents that plan, retrieve, call tools, stream, fail and time out.

Four runs go on at once in one event loop and send what they did over real HTTP to a collector in the same
process. The language model is a script, so the trees are the same each time; only the durations differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from ._contracts import Receipt
from .collector import Collector, SQLiteStore
from .exporters import OTLPExporter
from .runtime import Tracer
from .wire import ResourceSpans

__all__ = ["DemoResult", "run_demo"]

FLUSH_SECONDS: Final = 10.0

PASSAGES: Final = {
    "tea": ["White tea has 15 to 30 mg of caffeine a cup.", "Black tea has 40 to 70 mg a cup."],
    "rivers": ["The Nile is 6,650 km long.", "The Amazon is 6,400 km long."],
}
Message = dict[str, str]


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent, and what is in the store."""

    receipt: Receipt
    stored: int
    """Spans in the collector's store."""
    traces: list[list[ResourceSpans]]
    """The traces of the store, oldest first."""

    @property
    def is_whole(self) -> bool:
        """Whether every span was accepted, and the store holds exactly as many."""
        return self.receipt.complete and self.stored == self.receipt.accepted > 0


async def run_demo(directory: Path) -> DemoResult:
    """Trace the workload into a collector that keeps its store in `directory`, and read it back."""
    store = SQLiteStore(directory)
    try:
        async with Collector(store, port=0) as collector:
            exporter = OTLPExporter(collector.url)
            async with Tracer(service="demo", exporters=[exporter], journal=False) as tracer:
                await _workload(tracer)
                receipt = await tracer.flush(FLUSH_SECONDS)
        return _read_back(store, receipt)
    finally:
        store.close()


def _read_back(store: SQLiteStore, receipt: Receipt) -> DemoResult:
    runs = store.runs(100).traces
    traces = [store.trace(run.trace_id) for run in reversed(runs)]
    return DemoResult(receipt=receipt, stored=store.statistics().spans, traces=traces)


async def _workload(tracer: Tracer) -> None:
    async with asyncio.TaskGroup() as runs:
        runs.create_task(_research(tracer, "tea", "Which tea has the least caffeine?"))
        runs.create_task(_research(tracer, "rivers", "Which river is the longest?"))
        runs.create_task(_support(tracer, order=4711))
        runs.create_task(_impatient(tracer))


async def _research(tracer: Tracer, topic: str, question: str) -> None:
    """Plan, retrieve from two sources at once, and stream the answer."""
    async with tracer.trace(
        f"research {topic}", session_id="demo", user_id="u-1", tags=["research"], inputs={"question": question}
    ) as run:
        plan = await _plan(tracer, question)
        found = await asyncio.gather(*(_retrieve(tracer, topic, source, plan) for source in ("notes", "web")))
        passages = [passage for part in found for passage in part]
        words = [word async for word in _stream(tracer, _messages(question, passages), passages[0])]
        run.set_outputs({"answer": "".join(words).strip()})


async def _support(tracer: Tracer, order: int) -> None:
    """A tool that fails once and is tried again."""
    async with tracer.trace("support", session_id="demo", user_id="u-2", tags=["support"]) as run:
        status = await _order_status_at_last(tracer, order)
        answer = await _complete(tracer, _messages(f"Where is order {order}?", [status]), "It arrives tomorrow.")
        run.set_outputs({"answer": answer})


async def _order_status_at_last(tracer: Tracer, order: int, attempts: int = 3) -> str:
    for attempt in range(1, attempts):
        try:
            return await _order_status(tracer, order, attempt)
        except ConnectionError as error:
            tracer.add_log("trying again", attempt=attempt, reason=str(error))
    return await _order_status(tracer, order, attempts)


async def _impatient(tracer: Tracer) -> None:
    """A tool that takes too long; the run goes on without it."""
    async with tracer.trace("weather", session_id="demo", user_id="u-3") as run:
        try:
            await _forecast(tracer, "Lisbon", timeout=0.15)
        except TimeoutError:
            run.add_log("no forecast in time", city="Lisbon")
            run.set_outputs({"answer": "I could not reach the weather service."})


async def _plan(tracer: Tracer, question: str) -> list[str]:
    async with tracer.trace_component("planner", type="agent", inputs={"question": question}) as planner:
        await _complete(tracer, _messages(question), "1. search 2. compare 3. answer")
        steps = ["search", "compare", "answer"]
        planner.set_outputs({"steps": steps})
        return steps


async def _retrieve(tracer: Tracer, topic: str, source: str, plan: list[str]) -> list[str]:
    inputs = {"query": topic, "step": plan[0]}
    async with tracer.trace_component(f"search {source}", type="retriever", inputs=inputs) as component:
        await asyncio.sleep(0.03)
        component.add_log("cache miss", source=source)
        await asyncio.sleep(0.02)
        passages = PASSAGES[topic]
        component.set_outputs({"documents": passages})
        return passages


async def _order_status(tracer: Tracer, order: int, attempt: int) -> str:
    inputs = {"order": order, "attempt": attempt}
    async with tracer.trace_component("order status", type="tool", inputs=inputs) as tool:
        await asyncio.sleep(0.02)
        if attempt == 1:
            raise ConnectionError("the order service closed the connection")
        tool.set_outputs({"status": "shipped"})
        return "shipped"


async def _forecast(tracer: Tracer, city: str, timeout: float) -> None:
    async with tracer.trace_component("forecast", type="tool", inputs={"city": city}):
        async with asyncio.timeout(timeout):
            async with tracer.trace_component("GET /forecast", kind="client"):
                await asyncio.sleep(60)


async def _complete(tracer: Tracer, messages: list[Message], answer: str) -> str:
    """One call of the scripted model."""
    async with tracer.trace_component("chat", type="llm", inputs={"messages": messages}) as call:
        call.set_attributes(_usage(messages, answer))
        await asyncio.sleep(0.04)
        call.set_outputs({"messages": [{"role": "assistant", "content": answer}]})
        return answer


def _stream(tracer: Tracer, messages: list[Message], answer: str) -> AsyncIterator[str]:
    """The scripted model word by word: the component of a generator ends with its last item."""

    @tracer.trace_component("chat stream", type="llm", inputs={"messages": messages})
    async def words() -> AsyncIterator[str]:
        for number, word in enumerate(answer.split()):
            await asyncio.sleep(0.005)
            if not number:
                tracer.add_log("first word")
            yield f"{word} "
        tracer.set_outputs({"messages": [{"role": "assistant", "content": answer}]})

    return words()


def _messages(question: str, passages: list[str] | None = None) -> list[Message]:
    system = " ".join(["Answer briefly.", *(passages or [])])
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def _usage(messages: list[Message], answer: str) -> dict[str, str | int]:
    words = sum(len(message["content"].split()) for message in messages)
    return {
        "llm.model_name": "scripted-1",
        "llm.token_count.prompt": words,
        "llm.token_count.completion": len(answer.split()),
    }
