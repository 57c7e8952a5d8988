"""A library that others have instrumented for OpenTelemetry, below components of your own.

    pip install 'asynctrace[opentelemetry]' opentelemetry-instrumentation-aiohttp-client
    asynctrace serve &                        # or any OTLP endpoint, in OTEL_EXPORTER_OTLP_ENDPOINT
    python examples/opentelemetry_instrumentation.py http://127.0.0.1:4318/

Code that only knows OpenTelemetry's API traces into the same run: `fetch()` does.
"""

import asyncio
import sys

import aiohttp
from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

import asynctrace
from asynctrace.opentelemetry import TracerProvider


@trace.get_tracer("example").start_as_current_span("fetch")
async def fetch(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as response:
        trace.get_current_span().set_attribute("bytes", len(await response.read()))
        return response.status


async def main(url: str) -> None:
    async with asynctrace.configure(service="fetcher") as tracer:
        provider = TracerProvider(tracer)
        trace.set_tracer_provider(provider)  # for those who ask for the global one, as the decorator above does
        AioHttpClientInstrumentor().instrument(tracer_provider=provider)
        async with tracer.trace("look", inputs=url) as run, aiohttp.ClientSession() as session:
            run.set_outputs(await fetch(session, url))
        print(await tracer.flush(timeout=10))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:4318/"))
