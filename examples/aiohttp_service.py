"""An aiohttp service that keeps one trace for each request, also while many run at the same time.

    asynctrace serve &                        # or any OTLP endpoint, in OTEL_EXPORTER_OTLP_ENDPOINT
    python examples/aiohttp_service.py
    curl '127.0.0.1:8080/quote?symbols=TEA,CUP,POT'

The clean-up context awaits `shutdown()` when the service is told to stop (SIGINT, SIGTERM).
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

import asynctrace

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

tracer = asynctrace.configure(service="quotes")


async def tracing(app: web.Application) -> AsyncIterator[None]:
    async with tracer:
        yield
    print(tracer.receipt(), flush=True)


@web.middleware
async def traced_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    user = request.headers.get("x-user")
    async with asynctrace.trace(f"{request.method} {request.path}", user_id=user, inputs=dict(request.query)) as run:
        response = await handler(request)
        run.set_attribute("http.response.status_code", response.status)
        return response


@asynctrace.trace_component("price", type="tool")
async def price(symbol: str) -> int:
    asynctrace.add_log("asking the exchange", symbol=symbol)
    await asyncio.sleep(0.01)
    if symbol == "CRASH":
        raise LookupError(f"nobody trades {symbol}")
    return len(symbol) * 100


async def quote(request: web.Request) -> web.Response:
    symbols = request.query["symbols"].split(",")
    async with asynctrace.trace_component("ask all", inputs=symbols) as component:
        prices = await asyncio.gather(*map(price, symbols))
        component.set_outputs(dict(zip(symbols, prices, strict=True)))
    return web.json_response(dict(zip(symbols, prices, strict=True)))


def make_app() -> web.Application:
    app = web.Application(middlewares=[traced_request])
    app.cleanup_ctx.append(tracing)
    app.router.add_get("/quote", quote)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")), print=None)
