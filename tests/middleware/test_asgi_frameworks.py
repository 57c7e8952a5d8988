"""Real frameworks in a real server, asked by real clients."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from asynctrace.middleware import ASGIMiddleware, _exchange
from asynctrace.testing import CapturedSpans, assert_no_span_left_open, assert_tree, capture_spans

from .applications import APPLICATIONS, WITH_BACKGROUND, WITH_WEBSOCKETS
from .asgi import PATIENCE, InThread

NEVER = 1e6
ROUTES = {
    "Starlette": "/items/{id}",
    "FastAPI": "/items/{id}",
    "Litestar": "/items/{id}",
    "Quart": "/items/<int:id>",
    "Django": "/items/<int:id>",
}
CHATS = dict.fromkeys(WITH_WEBSOCKETS, "/chat/{room}") | {"Quart": "/chat/<room>"}
pytestmark = pytest.mark.filterwarnings("ignore:.*declared using deprecated inferred style:DeprecationWarning")
"""Litestar's parameters as older and newer versions of it take them."""


@pytest.fixture
def spans() -> Iterator[CapturedSpans]:
    with capture_spans(default=True) as captured:
        yield captured
    assert captured.tracer.statistics().internal_errors == {}
    assert captured.tracer.statistics().late_calls == {}


def served(name: str, **options: Any) -> InThread:
    return InThread(ASGIMiddleware(APPLICATIONS[name](), background_after=NEVER, **options))


def wait_for(captured: CapturedSpans, name: str, count: int = 1) -> None:
    """A response is read before the server's task has gone on."""
    deadline = time.monotonic() + PATIENCE
    while len(captured.by_name.get(name, [])) < count:
        assert time.monotonic() < deadline, f"no span {name!r} among\n{captured.tree()}"
        time.sleep(0.01)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_a_request_is_named_by_its_route_and_what_it_did_is_below(name: str, spans: CapturedSpans) -> None:
    with served(name) as server:
        port = server.port
        assert httpx.get(f"{server.url}/items/7?page=1", timeout=PATIENCE).status_code == 200
        wait_for(spans, f"GET {ROUTES[name]}")
    assert_tree(spans.spans, f"GET {ROUTES[name]} ok\n  look up ok")
    attributes = spans.find(f"GET {ROUTES[name]}").attributes
    assert attributes["http.route"] == ROUTES[name]
    assert (attributes["url.path"], attributes["url.query"]) == ("/items/7", "page=1")
    assert (attributes["server.address"], attributes["server.port"]) == ("127.0.0.1", port)
    assert attributes["http.response.status_code"] == 200


@pytest.mark.parametrize("name", APPLICATIONS)
def test_a_path_without_a_route_is_named_by_its_method(name: str, spans: CapturedSpans) -> None:
    with served(name) as server:
        assert httpx.get(f"{server.url}/made/up", timeout=PATIENCE).status_code == 404
        wait_for(spans, "GET")
    span = spans.find("GET")
    assert (span.ending, span.attributes["http.response.status_code"]) == ("ok", 404)
    assert "http.route" not in span.attributes


@pytest.mark.parametrize("name", APPLICATIONS)
def test_a_failure_of_the_program_is_an_error_of_the_request(name: str, spans: CapturedSpans) -> None:
    with served(name) as server:
        assert httpx.get(f"{server.url}/boom", timeout=PATIENCE).status_code == 500
        wait_for(spans, "GET /boom")
    span = spans.find("GET /boom")
    assert (span.ending, span.attributes["http.response.status_code"]) == ("error", 500)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_a_stream_is_open_to_its_last_chunk(name: str, spans: CapturedSpans) -> None:
    with served(name) as server:
        assert httpx.get(f"{server.url}/stream", timeout=PATIENCE).text == "tea\n" * 3
        wait_for(spans, "GET /stream")
    assert_tree(spans.spans, "GET /stream ok\n  chunk 0 ok\n  chunk 1 ok\n  chunk 2 ok")


def check_a_client_that_leaves(name: str, captured: CapturedSpans) -> None:
    with served(name) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        connection.request("GET", "/stream?forever=1")
        response = connection.getresponse()
        assert response.read(4) == b"tea\n"
        response.close()
        connection.close()
        wait_for(captured, "GET /stream")
    assert captured.find("GET /stream").ending == "cancelled"
    assert_no_span_left_open(captured.tracer)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_a_client_that_leaves_a_stream_ends_it_cancelled(name: str, spans: CapturedSpans) -> None:
    check_a_client_that_leaves(name, spans)


def test_a_door_that_calls_every_end_ok_is_noticed(monkeypatch: pytest.MonkeyPatch, spans: CapturedSpans) -> None:
    end = _exchange.Exchange._end

    async def well(self: Any, ending: Any, *, is_held: bool = False) -> None:
        await end(self, _exchange.Ending.OK, is_held=is_held)

    monkeypatch.setattr(_exchange.Exchange, "_end", well)
    with pytest.raises(AssertionError):
        check_a_client_that_leaves("Starlette", spans)


@pytest.mark.parametrize("name", WITH_BACKGROUND)
def test_background_tasks_have_a_span_below_a_request_that_has_ended(name: str, spans: CapturedSpans) -> None:
    with served(name) as server:
        assert "soon" in httpx.get(f"{server.url}/later", timeout=PATIENCE).text
        wait_for(spans, "background")
    assert_tree(spans.spans, "GET /later ok\n  background ok\n    send mail ok")
    assert spans.find("GET /later").end_ns <= spans.find("send mail").start_ns


@pytest.mark.parametrize("name", WITH_WEBSOCKETS)
@pytest.mark.parametrize("protocol", ["wsproto", "websockets-sansio"])
def test_a_websocket_is_one_span(name: str, protocol: str, spans: CapturedSpans) -> None:
    with InThread(ASGIMiddleware(APPLICATIONS[name](), background_after=NEVER), ws=protocol) as server:
        with connect(
            f"ws://127.0.0.1:{server.port}/chat/green", open_timeout=PATIENCE, close_timeout=PATIENCE
        ) as client:
            for text in ("Sencha", "Assam"):
                client.send(text)
                assert client.recv(timeout=PATIENCE) == text
        wait_for(spans, f"GET {CHATS[name]}")
    span = spans.find(f"GET {CHATS[name]}")
    assert (span.ending, span.attributes["http.response.status_code"]) == ("ok", 101)
    assert (span.attributes["asynctrace.websocket.received"], span.attributes["asynctrace.websocket.sent"]) == (2, 2)
    assert_tree(spans.spans, f"GET {CHATS[name]} ok")


def check_a_connection_that_is_lost(protocol: str, spans: CapturedSpans) -> None:
    app = ASGIMiddleware(APPLICATIONS["Starlette"](), background_after=NEVER)
    with InThread(app, ws=protocol) as server:
        with connect(
            f"ws://127.0.0.1:{server.port}/chat/green", open_timeout=PATIENCE, close_timeout=PATIENCE
        ) as client:
            client.send("Sencha")
            assert client.recv(timeout=PATIENCE) == "Sencha"
            client.socket.shutdown(socket.SHUT_RDWR)
        wait_for(spans, "GET /chat/{room}")
    span = spans.find("GET /chat/{room}")
    assert (span.ending, span.attributes["asynctrace.websocket.close_code"]) == ("cancelled", 1006)


@pytest.mark.parametrize("protocol", ["wsproto", "websockets-sansio"])
def test_a_websocket_whose_connection_is_lost_is_cancelled(protocol: str, spans: CapturedSpans) -> None:
    check_a_connection_that_is_lost(protocol, spans)


def test_a_door_that_believes_every_close_without_a_code_is_noticed(
    spans: CapturedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_exchange, "_close_code_in", lambda message, scope: int(message.get("code") or 1005))
    with pytest.raises(AssertionError):
        check_a_connection_that_is_lost("websockets-sansio", spans)


def added_inside(kind: Callable[[], Any]) -> Any:
    app = kind()
    app.add_middleware(ASGIMiddleware, background_after=NEVER)
    return app


@pytest.mark.parametrize("name", ["Starlette", "FastAPI"])
def test_it_can_be_added_to_the_application(name: str, spans: CapturedSpans) -> None:
    with InThread(added_inside(APPLICATIONS[name])) as server:
        assert httpx.get(f"{server.url}/items/7", timeout=PATIENCE).status_code == 200
        assert httpx.get(f"{server.url}/boom", timeout=PATIENCE).status_code == 500
        wait_for(spans, "GET /boom")
    assert_tree(
        spans.spans,
        "GET /items/{id} ok http.route='/items/{id}'\n  look up ok\nGET /boom error http.route='/boom'",
        attributes=["http.route"],
    )
    assert spans.find("GET /boom").events[0].attributes["exception.type"] == "LookupError"


def test_it_can_be_added_to_litestar(spans: CapturedSpans) -> None:
    from litestar import Litestar, get

    @get("/items/{id:int}")
    async def item(id: int) -> str:
        return str(id)

    item.fn.__annotations__.update(id=int, **{"return": str})
    app = Litestar([item], middleware=[ASGIMiddleware], openapi_config=None)
    with InThread(app) as server:
        assert httpx.get(f"{server.url}/items/7", timeout=PATIENCE).status_code == 200
        wait_for(spans, "GET /items/{id}")


def test_applications_that_are_mounted_have_their_paths_in_the_name(spans: CapturedSpans) -> None:
    from fastapi import APIRouter, FastAPI
    from starlette.applications import Starlette
    from starlette.routing import Mount

    router = APIRouter(prefix="/v1")
    router.get("/tea/{name}")(lambda name: name)
    inner = FastAPI()
    inner.include_router(router)
    app = FastAPI()
    app.mount("/shop", inner)
    app.mount("/of/{tenant}", Starlette(routes=[Mount("/deep", inner)]))
    with InThread(ASGIMiddleware(app, background_after=NEVER)) as server:
        for path in ("/shop/v1/tea/Sencha", "/of/acme/deep/v1/tea/Assam"):
            assert httpx.get(f"{server.url}{path}", params={"name": "x"}, timeout=PATIENCE).status_code == 200
        wait_for(spans, "GET /of/{tenant}/deep/v1/tea/{name}")
    assert {span.name for span in spans.spans} == {
        "GET /shop/v1/tea/{name}",
        "GET /of/{tenant}/deep/v1/tea/{name}",
    }


def test_quart_is_wrapped_as_its_manual_says(spans: CapturedSpans) -> None:
    app = APPLICATIONS["Quart"]()
    app.asgi_app = ASGIMiddleware(app.asgi_app, background_after=NEVER)
    with InThread(app) as server:
        assert httpx.get(f"{server.url}/items/7", timeout=PATIENCE).status_code == 200
        wait_for(spans, "GET /items/<int:id>")


def test_what_goes_on_in_another_service_is_in_the_same_trace(spans: CapturedSpans) -> None:
    with served("Starlette") as server, spans.tracer.trace("caller") as run:
        headers: dict[str, str] = {}
        spans.tracer.inject(headers)
        httpx.get(f"{server.url}/items/7", headers=headers, timeout=PATIENCE)
        trace_id = run.trace_id
        wait_for(spans, "GET /items/{id}")
    assert {span.trace_id for span in spans.spans} == {trace_id}
    assert_tree(spans.spans, "caller ok\n  GET /items/{id} ok\n    look up ok")


def test_server_sent_events_are_one_span_until_the_client_has_had_enough(spans: CapturedSpans) -> None:
    import asyncio

    from starlette.applications import Starlette
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    async def events(request: Any) -> StreamingResponse:
        async def each() -> Any:
            for number in range(10_000):
                async with spans.tracer.trace_component("event"):
                    await asyncio.sleep(0.001)
                yield f"id: {number}\ndata: tea\n\n"

        return StreamingResponse(each(), media_type="text/event-stream")

    with InThread(ASGIMiddleware(Starlette(routes=[Route("/events", events)]), background_after=NEVER)) as server:
        with httpx.stream("GET", f"{server.url}/events", timeout=PATIENCE) as response:
            lines = response.iter_lines()
            while next(lines) != "id: 2":
                assert spans.by_name.get("GET /events") is None
        wait_for(spans, "GET /events")
    request, events = spans.find("GET /events"), spans.by_name["event"]
    assert request.ending == "cancelled"
    behind = {span.span_id for span in spans.spans if span.name == "background"}
    below = [span for span in events if span.parent_id not in behind]  # one may begin before Starlette is cancelled
    assert len(below) >= 3
    assert {(span.trace_id, span.parent_id) for span in below} == {(request.trace_id, request.span_id)}
    assert all(span.start_ns >= request.end_ns for span in events if span not in below)
