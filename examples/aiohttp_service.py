"""An aiohttp service that keeps one trace for each request, also while many run at the same time.

    asynctrace serve &                        # or any OTLP endpoint, in OTEL_EXPORTER_OTLP_ENDPOINT
    python examples/aiohttp_service.py
    curl '127.0.0.1:8080/quote?symbols=TEA,CUP,POT'

The middleware makes a server span of each request; the run inside names whose it is. The clean-up context awaits `shutdown()`
when the service is told to stop (SIGINT, SIGTERM).
"""

import asyncio
import os

from aiohttp import web

import asynctrace
from asynctrace.middleware import aiohttp_lifespan, aiohttp_middleware

tracer = asynctrace.configure(service="quotes")


@asynctrace.trace_component("price", type="tool")
async def price(symbol: str) -> int:
    asynctrace.add_log("asking the exchange", symbol=symbol)
    await asyncio.sleep(0.01)
    if symbol == "CRASH":
        raise LookupError(f"nobody trades {symbol}")
    return len(symbol) * 100


async def quote(request: web.Request) -> web.Response:
    symbols = request.query["symbols"].split(",")
    async with asynctrace.trace("quote", user_id=request.headers.get("x-user"), inputs=symbols) as run:
        prices = await asyncio.gather(*map(price, symbols))
        run.set_outputs(dict(zip(symbols, prices, strict=True)))
    return web.json_response(dict(zip(symbols, prices, strict=True)))


def make_app() -> web.Application:
    app = web.Application(middlewares=[aiohttp_middleware()])
    app.cleanup_ctx.append(aiohttp_lifespan())
    app.router.add_get("/quote", quote)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")), print=None)
    print(tracer.receipt())
