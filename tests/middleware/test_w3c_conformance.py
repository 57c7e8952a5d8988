"""A service behind our doors does what W3C Trace Context asks, at level 2: aiohttp's server and client, uvicorn and httpx.

The facts are in tests/propagation/conformance.py, and shown to notice there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest
from aiohttp import ClientSession, web
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asynctrace import Tracer
from asynctrace.exporters import MemoryExporter
from asynctrace.middleware import ASGIMiddleware, AsyncHTTPXTransport, aiohttp_middleware, trace_config

from ..propagation.conformance import ask_over, facts_that_fail, neighbor, served
from .asgi import InThread

pytestmark = pytest.mark.anyio

Service = Callable[[Tracer], AbstractAsyncContextManager[int]]


@asynccontextmanager
async def on_aiohttp(tracer: Tracer) -> AsyncIterator[int]:
    async with ClientSession(trace_configs=[trace_config(tracer)]) as session:

        async def handle(request: web.Request) -> web.Response:
            for action in await request.json():
                async with session.post(action["url"], json=action["arguments"]) as response:
                    await response.read()
            return web.json_response(None)

        app = web.Application(middlewares=[aiohttp_middleware(tracer)])
        app.router.add_post("/test", handle)
        async with served(app) as port:
            yield port


@asynccontextmanager
async def on_uvicorn(tracer: Tracer) -> AsyncIterator[int]:
    async def handle(request: Request) -> JSONResponse:
        transport = AsyncHTTPXTransport(httpx.AsyncHTTPTransport(), tracer)
        async with httpx.AsyncClient(transport=transport) as client:
            for action in await request.json():
                await client.post(action["url"], json=action["arguments"])
        return JSONResponse(None)

    app = Starlette(routes=[Route("/test", handle, methods=["POST"])])
    with InThread(ASGIMiddleware(app, tracer)) as server:
        yield server.port


@pytest.mark.parametrize("service", [on_aiohttp, on_uvicorn])
async def test_a_service_behind_our_doors_conforms(service: Service) -> None:
    tracer = Tracer(service="shop", exporters=[MemoryExporter()], journal=False)
    async with tracer, neighbor() as called, service(tracer) as port:
        assert await facts_that_fail(ask_over(port, called)) == {}
