"""The same small service in five frameworks, as their manuals write it; all they know of tracing is `trace_component()`.

GET /items/{id}   one component            GET /boom    an exception of the program
GET /stream       three chunks, each with a component, then rest for the client that asked for `?forever=1`
GET /later        work behind the response: a component           WS /chat/{room}   echo
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import asynctrace

__all__ = ["APPLICATIONS", "WITH_BACKGROUND", "WITH_WEBSOCKETS"]


async def look_up(item: Any) -> str:
    async with asynctrace.trace_component("look up"):
        await asyncio.sleep(0)
    return f"item {item}"


async def mail() -> None:
    async with asynctrace.trace_component("send mail"):
        await asyncio.sleep(0)


async def chunks(forever: bool) -> AsyncIterator[bytes]:
    for number in range(3):
        async with asynctrace.trace_component(f"chunk {number}"):
            await asyncio.sleep(0)
        yield b"tea\n"
    if forever:
        await asyncio.sleep(600)


def starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.responses import PlainTextResponse, StreamingResponse
    from starlette.routing import Route, WebSocketRoute

    async def item(request: Any) -> PlainTextResponse:
        return PlainTextResponse(await look_up(request.path_params["id"]))

    async def stream(request: Any) -> StreamingResponse:
        return StreamingResponse(chunks("forever" in request.query_params))

    async def boom(request: Any) -> None:
        raise LookupError("no tea")

    async def later(request: Any) -> PlainTextResponse:
        return PlainTextResponse("soon", background=BackgroundTask(mail))

    async def chat(websocket: Any) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    return Starlette(
        routes=[
            Route("/items/{id:int}", item),
            Route("/stream", stream),
            Route("/boom", boom),
            Route("/later", later),
            WebSocketRoute("/chat/{room}", chat),
        ]
    )


def fastapi() -> Any:
    from fastapi import BackgroundTasks, FastAPI, WebSocket
    from fastapi.responses import StreamingResponse

    app = FastAPI()

    async def item(id: int) -> str:
        return await look_up(id)

    async def stream(forever: int = 0) -> StreamingResponse:
        return StreamingResponse(chunks(bool(forever)))

    async def boom() -> None:
        raise LookupError("no tea")

    async def later(tasks: Any) -> str:
        tasks.add_task(mail)
        return "soon"

    async def chat(websocket: Any, room: str) -> None:
        await websocket.accept()
        while True:  # ends by the exception WebSocketDisconnect, as in the manual
            await websocket.send_text(await websocket.receive_text())

    later.__annotations__["tasks"] = (
        BackgroundTasks  # FastAPI reads what `from __future__ import annotations` made texts
    )
    chat.__annotations__["websocket"] = WebSocket
    stream.__annotations__["return"] = None
    for path, handler in (("/items/{id}", item), ("/stream", stream), ("/boom", boom), ("/later", later)):
        app.get(path, response_model=None)(handler)
    app.websocket("/chat/{room}")(chat)
    return app


def litestar() -> Any:
    from litestar import Litestar, Response, get, websocket
    from litestar.background_tasks import BackgroundTask
    from litestar.response import Stream

    async def item(id: int) -> str:
        return await look_up(id)

    async def stream(forever: int = 0) -> Stream:
        return Stream(chunks(bool(forever)))

    async def boom() -> str:
        raise LookupError("no tea")

    async def later() -> Response:
        return Response("soon", background=BackgroundTask(mail))

    async def chat(socket: Any, room: str) -> None:
        await socket.accept()
        async for text in socket.iter_data():
            await socket.send_text(text)

    from litestar import WebSocket

    item.__annotations__ = {"id": int, "return": str}
    stream.__annotations__ = {"forever": int, "return": Stream}
    boom.__annotations__ = {"return": str}
    later.__annotations__ = {"return": Response[str]}
    chat.__annotations__ = {"socket": WebSocket, "room": str, "return": None}
    handlers = [get(path)(handler) for path, handler in (("/stream", stream), ("/boom", boom), ("/later", later))]
    return Litestar([get("/items/{id:int}")(item), *handlers, websocket("/chat/{room:str}")(chat)], openapi_config=None)


def quart() -> Any:
    from quart import Quart, websocket
    from quart import request as here

    app = Quart("service")

    @app.get("/items/<int:id>")
    async def item(id: int) -> str:
        return await look_up(id)

    @app.get("/stream")
    async def stream() -> Any:
        response = await app.make_response(chunks("forever" in here.args))
        response.timeout = None  # type: ignore[union-attr]
        return response

    @app.get("/boom")
    async def boom() -> str:
        raise LookupError("no tea")

    @app.websocket("/chat/<room>")
    async def chat(room: str) -> None:
        while True:
            await websocket.send(await websocket.receive())

    return app


def django() -> Any:
    from django.conf import settings
    from django.core.handlers.asgi import ASGIHandler
    from django.http import HttpResponse, StreamingHttpResponse
    from django.urls import path

    async def item(request: Any, id: int) -> HttpResponse:
        return HttpResponse(await look_up(id))

    async def stream(request: Any) -> StreamingHttpResponse:
        return StreamingHttpResponse(chunks("forever" in request.GET))

    async def boom(request: Any) -> HttpResponse:
        raise LookupError("no tea")

    patterns = [path("items/<int:id>", item), path("stream", stream), path("boom", boom)]
    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=tuple(patterns), ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None, SECRET_KEY="of a test"
        )
        import django as framework

        framework.setup()
    return ASGIHandler()


APPLICATIONS: dict[str, Callable[[], Any]] = {
    "Starlette": starlette,
    "FastAPI": fastapi,
    "Litestar": litestar,
    "Quart": quart,
    "Django": django,
}
WITH_BACKGROUND = ("Starlette", "FastAPI", "Litestar")
WITH_WEBSOCKETS = ("Starlette", "FastAPI", "Litestar", "Quart")
