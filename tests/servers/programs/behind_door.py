"""An ASGI application that makes no span itself: the middleware does, and the lifespan delivers."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import configured  # noqa: F401
from notes import note
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from uvicorn_worker import UvicornWorker

import asynctrace
from asynctrace.middleware import ASGIMiddleware


class Patient(UvicornWorker):
    """gunicorn's worker with the option that `uvicorn` takes on its command line."""

    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "timeout_graceful_shutdown": 1}  # noqa: RUF012


class Noted:
    """The span of the request around, noted as one that was opened by the handler."""

    def __init__(self, name: str) -> None:
        run = asynctrace.current_trace()
        self.span_id, self.name = "" if run is None else run.span_id, name


async def work(request: Request) -> PlainTextResponse:
    note("open", Noted("work"))
    await asyncio.sleep(0.005)
    return PlainTextResponse(str(os.getpid()))


async def hold(request: Request) -> PlainTextResponse:
    note("open", Noted("hold"))
    await asyncio.sleep(60)
    return PlainTextResponse("late")


served: Any = Starlette(routes=[Route("/work", work), Route("/hold", hold)], lifespan=asynctrace.lifespan())
app = ASGIMiddleware(served, background_after=60)
