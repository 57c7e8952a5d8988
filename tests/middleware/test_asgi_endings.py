"""When a request is over: streams, clients that go away, servers that stop, work behind the response, websockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from asynctrace import Span, Tracer
from asynctrace.exporters import MemoryExporter
from asynctrace.middleware import ASGIMiddleware, _exchange
from asynctrace.testing import CapturedSpans, assert_tree

from .asgi import PATIENCE, Server, http_scope, text_app, until, watched, websocket_scope

pytestmark = pytest.mark.anyio

START = {"type": "http.response.start", "status": 200, "headers": []}
NEVER = 1e6
"""Seconds after which work behind a response gets a span only because of its length."""

Door = Callable[..., Any]


def chunk(body: bytes = b"tea", *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def stream_of(tracer: Tracer, chunks: int = 3) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["path_template"] = "/stream"
        await send(START)
        for number in range(chunks):
            async with tracer.trace_component(f"chunk {number}"):
                await asyncio.sleep(0)
            await send(chunk())
        await send(chunk(b"", more=False))

    return app


# Streams -------------------------------------------------------------------------------------------------------------


async def check_a_stream_is_one_span(door: Door = ASGIMiddleware) -> None:
    async with watched() as captured:
        await Server(door(stream_of(captured.tracer), captured.tracer, background_after=NEVER), http_scope()).run()
        await captured.flush()
        assert_tree(captured.spans, "GET /stream ok\n  chunk 0 ok\n  chunk 1 ok\n  chunk 2 ok")
        root = captured.find("GET /stream")
        assert all(root.start_ns <= span.start_ns <= span.end_ns <= root.end_ns for span in captured.spans)


async def test_a_stream_is_open_until_its_last_chunk_and_its_chunks_are_below_it() -> None:
    await check_a_stream_is_one_span()


async def test_a_door_that_ends_with_the_first_chunk_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def first(self: Any, message: Any) -> bool:
        return message["type"] == "http.response.body"

    monkeypatch.setattr(_exchange.HTTPExchange, "_is_last_message", first)
    with pytest.raises(AssertionError):
        await check_a_stream_is_one_span()


@pytest.mark.parametrize(
    "messages",
    [
        [START | {"trailers": True}, chunk(more=False), {"type": "http.response.trailers", "headers": []}],
        [START, {"type": "http.response.pathsend", "path": "/tea"}],
        [START, {"type": "http.response.zerocopysend", "file": 1, "more_body": True}, chunk(more=False)],
        [{"type": "http.response.debug", "info": {}}, START, chunk(more=False)],
    ],
    ids=["trailers", "a path", "a file", "debug"],
)
async def test_extensions_of_the_protocol_end_where_they_end(messages: list[dict[str, Any]]) -> None:
    async with watched() as captured:
        states = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            for message in messages:
                await send(message)
                await captured.flush()
                states.append(len(captured.spans))

        await Server(ASGIMiddleware(app, captured.tracer, background_after=NEVER), http_scope()).run()
    assert states == [0] * (len(messages) - 1) + [1]


# Clients that go away, servers that stop -------------------------------------------------------------------------------


async def check_a_disconnect(door: Door = ASGIMiddleware) -> None:
    async with watched() as captured:
        asked = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope["path_template"] = "/stream"
            await send(START)
            await send(chunk())
            await receive()
            asked.set()
            await receive()  # the disconnect

        server = Server(door(app, captured.tracer, background_after=NEVER), http_scope())
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            group.create_task(server.run())
            await asked.wait()
            server.leave()
        await captured.flush()
        assert_tree(captured.spans, "GET /stream cancelled")


async def test_a_client_that_goes_away_ends_it_cancelled() -> None:
    await check_a_disconnect()


async def test_a_door_that_does_not_see_clients_go_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(self: Any) -> Any:
        return await self._receive()

    monkeypatch.setattr(_exchange.HTTPExchange, "receive", deaf)
    with pytest.raises(AssertionError, match="the trace differs"):
        await check_a_disconnect()


class ClientDisconnect(Exception):
    """As Starlette has it."""


@pytest.mark.parametrize("raised", [ClientDisconnect, OSError, asyncio.CancelledError, None])
async def test_what_frameworks_raise_into_code_without_a_client_adds_nothing(raised: Any) -> None:
    async with watched() as captured:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await receive()
            if raised is not None:
                raise raised("the client went away")

        server = Server(ASGIMiddleware(app, captured.tracer, background_after=NEVER), http_scope(), stays=False)
        with pytest.raises(raised) if raised is not None else nullcontext():
            await server.run()
        await captured.flush()
        assert_tree(captured.spans, "GET cancelled")


async def test_an_error_of_the_programs_own_after_a_disconnect_is_not_hidden() -> None:
    async with watched() as captured:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await receive()
            raise LookupError("no tea")

        with pytest.raises(LookupError):
            await Server(ASGIMiddleware(app, captured.tracer), http_scope(), stays=False).run()
        await captured.flush()
        assert_tree(captured.spans, "GET cancelled\n  background error")


async def test_a_server_that_refuses_to_send_has_lost_its_client() -> None:
    async with watched() as captured:
        server = Server(ASGIMiddleware(stream_of(captured.tracer, 0), captured.tracer), http_scope())
        server.refuses = True
        server.leave()
        with pytest.raises(OSError, match="went away"):
            await server.run()
        await captured.flush()
        assert_tree(captured.spans, "GET /stream cancelled")


async def test_a_server_that_says_that_it_is_over_while_it_sends_the_last_chunk_has_not_lost_its_client() -> None:
    """As Hypercorn does to whoever listens for a disconnect."""
    async with watched() as captured:

        class Hasty(Server):
            async def send(self, message: dict[str, Any]) -> None:
                await super().send(message)
                if not message.get("more_body", True):
                    self.leave()
                    for _ in range(5):
                        await asyncio.sleep(0)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            listener = asyncio.create_task(receive())
            await send(START)
            await send(chunk(more=False))
            await listener

        await Hasty(ASGIMiddleware(app, captured.tracer, background_after=NEVER), http_scope()).run()
        await captured.flush()
        assert_tree(captured.spans, "GET ok")


async def test_a_request_that_the_server_cuts_off_is_cancelled() -> None:
    async with watched() as captured:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            async with captured.tracer.trace_component("wait"):
                await asyncio.sleep(60)

        task = asyncio.create_task(Server(ASGIMiddleware(app, captured.tracer), http_scope()).run())
        await until(lambda: captured.tracer.statistics().open == 2, "an open request")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await captured.flush()
        assert_tree(captured.spans, "GET cancelled\n  wait cancelled")


async def test_a_request_that_the_server_drops_leaves_nothing_open() -> None:
    async with watched() as captured:

        class Waits:
            def __await__(self) -> Any:
                yield

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await Waits()

        server = Server(ASGIMiddleware(app, captured.tracer), http_scope())
        dropped = server.run()
        dropped.send(None)
        dropped.close()
        await captured.flush()
        assert_tree(captured.spans, "GET abandoned")


# Behind the response ---------------------------------------------------------------------------------------------------


def with_work_behind(tracer: Tracer, work: Callable[[], Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await text_app()(scope, receive, send)
        await work()

    return app


async def behind(work: Callable[[CapturedSpans], Any], *, background_after: float = NEVER) -> CapturedSpans:
    async with watched() as captured:
        app = with_work_behind(captured.tracer, lambda: work(captured))
        await Server(ASGIMiddleware(app, captured.tracer, background_after=background_after), http_scope()).run()
        await captured.flush()
    assert captured.tracer.statistics().late_calls == {}
    return captured


async def check_work_behind_the_response() -> None:
    ended_at_the_response = []

    async def work(captured: CapturedSpans) -> None:
        await captured.flush()
        ended_at_the_response.extend(span.name for span in captured.spans)
        async with captured.tracer.trace_component("send mail"):
            await asyncio.sleep(0)

    captured = await behind(work)
    assert ended_at_the_response == ["GET /items/{id}"]
    assert_tree(captured.spans, "GET /items/{id} ok\n  background ok\n    send mail ok")
    request, background = captured.find("GET /items/{id}"), captured.find("background")
    assert request.end_ns <= background.start_ns
    assert captured.find("send mail").end_ns <= background.end_ns


async def test_the_span_ends_with_the_response_and_work_behind_it_has_its_own() -> None:
    await check_work_behind_the_response()


async def test_a_door_that_ends_when_the_application_returns_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def patient(self: Any, message: Any) -> None:
        await self._send(message)

    monkeypatch.setattr(_exchange.HTTPExchange, "send", patient)
    with pytest.raises(AssertionError):
        await check_work_behind_the_response()


async def nothing(captured: CapturedSpans) -> None:
    await asyncio.sleep(0)


async def test_nothing_behind_the_response_is_no_span() -> None:
    assert_tree((await behind(nothing)).spans, "GET /items/{id} ok")


async def test_work_without_spans_has_one_from_a_certain_length() -> None:
    captured = await behind(nothing, background_after=0)
    assert_tree(captured.spans, "GET /items/{id} ok\n  background ok")


async def test_logs_and_attributes_behind_the_response_are_those_of_the_background() -> None:
    async def logs(captured: CapturedSpans) -> None:
        captured.tracer.add_log("mail sent", to=3)

    async def sets(captured: CapturedSpans) -> None:
        run = captured.tracer.current_trace()
        assert run is not None
        run.set_attribute("mails", 3)

    captured = await behind(logs)
    assert [event.name for event in captured.find("background").events] == ["mail sent"]
    assert (await behind(sets)).find("background").attributes["mails"] == 3


async def test_a_failure_behind_the_response_is_not_the_requests() -> None:
    async def fails(captured: CapturedSpans) -> None:
        raise LookupError("no mail")

    with pytest.raises(LookupError):
        await behind(fails)
    async with watched() as captured:
        app = with_work_behind(captured.tracer, lambda: fails(captured))
        with pytest.raises(LookupError):
            await Server(ASGIMiddleware(app, captured.tracer), http_scope()).run()
        await captured.flush()
        assert_tree(captured.spans, "GET /items/{id} ok\n  background error")


async def test_work_behind_the_response_that_is_cut_off_is_cancelled() -> None:
    async with watched() as captured:
        started = asyncio.Event()

        async def work() -> None:
            started.set()
            await asyncio.sleep(60)

        app = with_work_behind(captured.tracer, work)
        task = asyncio.create_task(Server(ASGIMiddleware(app, captured.tracer), http_scope()).run())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await captured.flush()
        assert_tree(captured.spans, "GET /items/{id} ok\n  background cancelled")


async def test_a_run_behind_the_response_is_below_the_background_in_the_same_trace() -> None:
    async def runs(captured: CapturedSpans) -> None:
        async with captured.tracer.trace("clean up", session_id="s-1"):
            pass

    captured = await behind(runs)
    assert_tree(captured.spans, "GET /items/{id} ok\n  background ok\n    clean up ok")


async def test_calls_that_leave_behind_the_response_name_a_span_that_is_recorded() -> None:
    carriers: list[dict[str, str]] = []

    async def calls(captured: CapturedSpans) -> None:
        for component in (None, captured.tracer.trace_component("step")):
            carriers.append({})
            captured.tracer.inject(carriers[-1])
            if component is not None:
                async with component:
                    pass
        carriers.append({})
        captured.tracer.inject(carriers[-1])

    captured = await behind(calls)
    named = [carrier["traceparent"].split("-")[2] for carrier in carriers]
    assert named == [captured.find(name).span_id for name in ("GET /items/{id}", "GET /items/{id}", "background")]


async def check_detached_tasks() -> None:
    """Two tasks that the request starts: one works inside a component of the request, one does not; both after its end."""
    async with watched() as captured:
        tracer, over, tasks = captured.tracer, asyncio.Event(), []

        async def later(name: str) -> None:
            await over.wait()
            async with tracer.trace_component(name):
                await asyncio.sleep(0)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            tasks.append(asyncio.create_task(later("from the request")))
            async with tracer.trace_component("step"):
                tasks.append(asyncio.create_task(later("from the step")))
            await text_app()(scope, receive, send)

        await Server(ASGIMiddleware(app, tracer, background_after=NEVER), http_scope()).run()
        over.set()
        await asyncio.gather(*tasks)
        await captured.flush()
        assert_tree(captured.spans, "GET /items/{id} ok\n  step ok\n    from the step ok\n  from the request ok")
        assert captured.find("GET /items/{id}").end_ns <= captured.find("from the request").start_ns


async def test_tasks_that_outlive_the_request_keep_their_parents() -> None:
    await check_detached_tasks()


async def test_a_run_that_keeps_nothing_for_tasks_that_outlive_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    close = _exchange.Exchange.close

    async def forgets(self: Any, error: Any) -> None:
        await close(self, error)
        self.run._root = None

    monkeypatch.setattr(_exchange.Exchange, "close", forgets)
    with pytest.raises(AssertionError, match="the trace differs"):
        await check_detached_tasks()


# Websockets --------------------------------------------------------------------------------------------------------------

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}


def text(number: int) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": f"message {number}"}


async def chat(scope: Any, receive: Any, send: Any) -> None:
    """Answers until the client goes away."""
    scope["path_template"] = "/chat/{room}"
    await receive()
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def connection(app: Any, *incoming: dict[str, Any], version: str = "2.4", **options: Any) -> tuple[Span, ...]:
    async with watched() as captured:
        door = ASGIMiddleware(app, captured.tracer, background_after=NEVER, **options)
        scope = websocket_scope(asgi={"version": "3.0", "spec_version": version})
        await Server(door, scope, [CONNECT, *incoming], stays=False).run()
        await captured.flush()
    return captured.spans


def closed_with(code: int) -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, "reason": ""}


async def test_a_websocket_is_one_span_in_which_messages_are_counted() -> None:
    (span,) = await connection(chat, text(1), text(2), closed_with(1000))
    assert (span.name, span.ending, span.attributes["url.scheme"]) == ("GET /chat/{room}", "ok", "ws")
    assert span.attributes["http.response.status_code"] == 101
    assert span.attributes["asynctrace.websocket.received"] == 2
    assert span.attributes["asynctrace.websocket.sent"] == 2
    assert span.attributes["asynctrace.websocket.close_code"] == 1000


@pytest.mark.parametrize(
    ("code", "ending"), [(1000, "ok"), (1001, "ok"), (1005, "ok"), (1006, "cancelled"), (1012, "cancelled")]
)
async def test_a_websocket_that_the_client_closes_is_ok_and_one_that_breaks_is_cancelled(
    code: int, ending: str
) -> None:
    (span,) = await connection(chat, closed_with(code))
    assert span.ending == ending


@pytest.mark.parametrize(
    ("disconnect", "version", "ending"),
    [
        ({"code": 1005}, "2.4", "cancelled"),  # uvicorn, of a connection that was lost
        ({"code": 1005}, "2.1", "ok"),
        ({}, "2.4", "ok"),
    ],
)
async def test_a_close_without_a_code_is_one_only_where_the_server_would_have_given_a_reason(
    disconnect: dict[str, Any], version: str, ending: str
) -> None:
    (span,) = await connection(chat, {"type": "websocket.disconnect"} | disconnect, version=version)
    assert span.ending == ending
    assert span.attributes["asynctrace.websocket.close_code"] == (1005 if ending == "ok" else 1006)


@pytest.mark.parametrize(
    ("messages", "ending", "status"),
    [
        ([ACCEPT, {"type": "websocket.close", "code": 1000}], "ok", 101),
        ([ACCEPT, {"type": "websocket.close", "code": 1011}], "error", 101),
        ([ACCEPT], "ok", 101),
        ([{"type": "websocket.close"}], "ok", 403),
        (
            [
                {"type": "websocket.http.response.start", "status": 401, "headers": []},
                {"type": "websocket.http.response.body", "body": b""},
            ],
            "ok",
            401,
        ),
        ([], "error", None),
    ],
    ids=["closes", "fails", "just returns", "refuses", "refuses with an answer", "does nothing"],
)
async def test_a_websocket_that_the_application_ends(messages: Any, ending: str, status: int | None) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    (span,) = await connection(app)
    assert (span.ending, span.attributes.get("http.response.status_code")) == (ending, status)


class WebSocketDisconnect(Exception):
    """As Starlette has it, and raises it into handlers that do not catch it."""


async def test_a_handler_that_ends_by_the_disconnect_has_not_failed() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await chat(scope, receive, send)
        raise WebSocketDisconnect

    async with watched() as captured:
        server = Server(ASGIMiddleware(app, captured.tracer), websocket_scope(), [CONNECT, closed_with(1001)])
        with pytest.raises(WebSocketDisconnect):
            await server.run()
        await captured.flush()
        assert_tree(captured.spans, "GET /chat/{room} ok")


async def test_a_websocket_whose_handler_fails_is_an_error() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        raise LookupError("no tea")

    async with watched() as captured:
        with pytest.raises(LookupError):
            await Server(ASGIMiddleware(app, captured.tracer), websocket_scope()).run()
        await captured.flush()
        assert_tree(captured.spans, "GET error")


async def test_messages_have_spans_where_they_are_asked_for() -> None:
    async with watched() as captured:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(ACCEPT)
            while (await receive())["type"] == "websocket.receive":
                async with captured.tracer.trace_component("answer"):
                    await send({"type": "websocket.send", "text": "tea"})

        door = ASGIMiddleware(app, captured.tracer, message_spans=True, background_after=NEVER)
        await Server(door, websocket_scope(), [CONNECT, text(1), text(2), closed_with(1000)]).run()
        await captured.flush()
        message = "  websocket message ok\n    answer ok\n"
        assert_tree(captured.spans, f"GET ok\n{message}{message}")


# Delivery ----------------------------------------------------------------------------------------------------------------


async def check_nobody_waits(door: Door = ASGIMiddleware) -> None:
    async with Tracer(service="shop", exporters=[MemoryExporter()], journal=False) as tracer:
        await Server(door(text_app(), tracer), http_scope()).run()
        assert tracer.receipt().pending == 1


async def test_nobody_waits_for_an_exporter() -> None:
    await check_nobody_waits()


async def test_a_door_that_flushes_each_request_is_noticed() -> None:
    with pytest.raises(AssertionError):
        await check_nobody_waits(lambda app, tracer: ASGIMiddleware(app, tracer, flush=PATIENCE))


async def test_who_asks_for_it_waits_until_the_spans_of_the_request_are_delivered() -> None:
    async with Tracer(service="shop", exporters=[MemoryExporter()], journal=False) as tracer:
        await Server(ASGIMiddleware(text_app(), tracer, flush=PATIENCE), http_scope()).run()
        assert tracer.receipt().pending == 0


async def test_an_application_that_raises_is_waited_for_as_long() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("mine")

    async with Tracer(service="shop", exporters=[MemoryExporter()], journal=False) as tracer:
        with pytest.raises(LookupError, match="mine"):
            await Server(ASGIMiddleware(app, tracer, flush=PATIENCE), http_scope()).run()
        assert (tracer.receipt().accepted, tracer.receipt().pending) == (1, 0)


async def test_waiting_for_a_far_side_ends_after_the_seconds_it_was_given() -> None:
    class Hangs(MemoryExporter):
        async def export(self, batch: Any) -> Any:
            await asyncio.sleep(60)

    async with Tracer(service="shop", exporters=[Hangs()], journal=False, shutdown_timeout=0) as tracer:
        async with asyncio.timeout(PATIENCE):
            server = await Server(ASGIMiddleware(text_app(), tracer, flush=0.01), http_scope()).run()
        assert server.status == 200
