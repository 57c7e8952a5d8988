"""An ASGI application: all it knows of tracing is `configure()`, the lifespan line, and its spans."""

from __future__ import annotations

import asyncio
import os

import configured  # noqa: F401
from notes import noted
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from uvicorn_worker import UvicornWorker

import asynctrace
from endings import leave


class Patient(UvicornWorker):
    """gunicorn's worker with the option that `uvicorn` takes on its command line."""

    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "timeout_graceful_shutdown": 1}  # noqa: RUF012


async def work(request: Request) -> PlainTextResponse:
    with noted(asynctrace.trace("work")):
        for name in ("look_up", "answer"):
            with noted(asynctrace.trace_component(name)):
                await asyncio.sleep(0.005)
    return PlainTextResponse(str(os.getpid()))


async def hold(request: Request) -> PlainTextResponse:
    with noted(asynctrace.trace("hold")):
        await asyncio.sleep(60)
    return PlainTextResponse("late")


async def end(request: Request) -> PlainTextResponse:
    with noted(asynctrace.trace("end")):
        leave(request.query_params["how"], request.query_params.get("group", ""))
    return PlainTextResponse("late")


app = Starlette(
    routes=[Route("/work", work), Route("/hold", hold), Route("/end", end)], lifespan=asynctrace.middleware.lifespan()
)
