"""An agent: it plans, asks two tools at once, gives the slow one a deadline, answers, and accounts for every span.

asynctrace serve &                        # or any OTLP endpoint, in OTEL_EXPORTER_OTLP_ENDPOINT
python examples/agent.py "What goes with Sencha?"
"""

import asyncio
import sys

import asynctrace


@asynctrace.trace_component("plan", type="llm")
async def plan(question: str) -> list[str]:
    await asyncio.sleep(0.01)  # a model would be asked here
    steps = ["search", "weather"]
    asynctrace.set_outputs(steps, metadata={"model": "toy-1", "tokens": 12})
    return steps


@asynctrace.trace_component("search", type="tool")
async def search(question: str) -> str:
    async with asynctrace.trace_component("index lookup", type="retriever", inputs=question) as lookup:
        await asyncio.sleep(0.01)
        lookup.add_log("hit", shard=3)
    return "rice crackers"


@asynctrace.trace_component("weather", type="tool")
async def weather(question: str) -> str:
    async with asyncio.timeout(0.05):
        await asyncio.sleep(3600)  # it never answers
    return "rain"


TOOLS = {"search": search, "weather": weather}


async def answer(question: str) -> str:
    async with asynctrace.trace("agent", session_id="s-1", tags=["example"], inputs=question) as run:
        steps = await plan(question)
        results = await asyncio.gather(*(TOOLS[step](question) for step in steps), return_exceptions=True)
        found = [result for result in results if isinstance(result, str)]
        async with asynctrace.trace_component("write", type="llm", inputs=found) as write:
            text = f"Try {' and '.join(found)}."
            write.set_outputs(text)
        run.set_outputs(text)
        return text


async def main() -> None:
    question = sys.argv[1] if len(sys.argv) > 1 else "What goes with Sencha?"
    async with asynctrace.configure(service="agent") as tracer:
        print(await answer(question))
    print(tracer.receipt())  # leaving the block delivered, or gave up after `shutdown_timeout`


if __name__ == "__main__":
    asyncio.run(main())
