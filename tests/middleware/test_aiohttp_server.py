"""`asynctrace.middleware.aiohttp_middleware()`: a run for each request, from the handler to the last chunk.

Real applications on real sockets; where a client goes away, its socket is closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

import asynctrace
from asynctrace import Ending, SpanKind, StatusCode
from asynctrace._diagnostics import Diagnostics
from asynctrace.middleware import _aiohttp_server, _failures, aiohttp_lifespan, aiohttp_middleware
from asynctrace.runtime import set_default
from asynctrace.testing import CapturedSpans, Delay, FaultServer, assert_tree, capture_spans
from asynctrace.tracing._scope import trace_var

from .served import ended, served

pytestmark = pytest.mark.anyio

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def application(captured: CapturedSpans, *handlers: Any, outer: Any = (), **options: Any) -> web.Application:
    """`handlers` are served at `/` and their name; `items` also has a parameter."""
    app = web.Application(middlewares=[*outer, aiohttp_middleware(captured.tracer, **options)])
    for handler in handlers:
        app.router.add_route("*", f"/{handler.__name__}", handler)
        app.router.add_get(f"/{handler.__name__}/{{id}}", handler)
    return app


async def answer(request: web.Request) -> web.Response:
    return web.Response(text="Sencha")


async def fetch(url: str, **options: Any) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.get(url, **options) as response:
        return response.status, await response.read()


async def send(url: str, text: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Write `text` to the server of `url`, line ends as HTTP has them."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(text.replace("\n", "\r\n").encode("latin-1"))
    await writer.drain()
    return reader, writer


async def go_away(writer: asyncio.StreamWriter) -> None:
    """As a client that crashes: what is on its way is thrown away."""
    writer.transport.abort()


# What a span says ------------------------------------------------------------------------------------------------


async def check_a_request_is_described() -> None:
    async with capture_spans(mask=False) as captured:
        async with served(application(captured, answer)) as url:
            await fetch(f"{url}/answer/7?page=2&token=abc", headers={"User-Agent": "tea/1"})
        await captured.flush()
        (span,) = captured.spans
    assert span.name == "GET /answer/{id}"
    assert (span.kind, span.status, span.ending) == (SpanKind.SERVER, StatusCode.OK, "ok")
    port = int(url.rpartition(":")[2])
    expected = {
        "http.request.method": "GET",
        "http.route": "/answer/{id}",
        "http.response.status_code": 200,
        "url.path": "/answer/7",
        "url.query": "page=2&token=REDACTED",
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "server.port": port,
        "client.address": "127.0.0.1",
        "network.protocol.version": "1.1",
        "user_agent.original": "tea/1",
    }
    assert {key: span.attributes.get(key) for key in expected} == expected
    assert span.attributes["client.port"]


async def test_a_request_is_described_in_the_words_of_the_conventions() -> None:
    await check_a_request_is_described()


async def test_what_no_route_matches_is_named_by_its_method_alone() -> None:
    async with capture_spans() as captured:
        app = application(captured, answer)
        app.router.add_post("/only-post", answer)
        async with served(app) as url:
            for path in ("/a", "/b/c", "/only-post"):
                await fetch(url + path)
            async with aiohttp.ClientSession() as session, session.request("PURGE", url + "/answer"):
                pass
        spans = await ended(captured, "GET", 3)
        (other,) = await ended(captured, "HTTP /answer")
    assert [span.attributes["http.response.status_code"] for span in spans] == [404, 404, 405]
    assert all("http.route" not in span.attributes for span in spans)
    assert other.attributes["http.request.method"] == "_OTHER"
    assert other.attributes["http.request.method_original"] == "PURGE"


async def test_the_route_of_an_application_inside_has_its_prefix() -> None:
    async with capture_spans() as captured:
        inner = web.Application()
        inner.router.add_get("/cups/{id}", answer)
        app = application(captured)
        app.add_subapp("/shop", inner)
        async with served(app) as url:
            await fetch(f"{url}/shop/cups/3")
        await ended(captured, "GET /shop/cups/{id}")


async def test_headers_that_are_named_become_attributes() -> None:
    async def tagged(request: web.Request) -> web.Response:
        return web.Response(headers={"X-Shard": "3"})

    async with capture_spans() as captured:
        app = application(captured, tagged, capture_headers=["X-Request-Id"], capture_response_headers=["x-shard"])
        async with served(app) as url:
            await fetch(f"{url}/tagged", headers={"x-request-id": "r-1", "x-other": "no"})
        (span,) = await ended(captured, "GET /tagged")
    assert span.attributes["http.request.header.x-request-id"] == ["r-1"]
    assert span.attributes["http.response.header.x-shard"] == ["3"]
    assert "http.request.header.x-other" not in span.attributes


async def test_paths_that_are_left_out_make_no_span() -> None:
    async def healthz(request: web.Request) -> web.Response:
        assert asynctrace.current_trace() is None
        return web.Response()

    async with capture_spans() as captured:
        async with served(application(captured, healthz, answer, excluded=["/healthz*"])) as url:
            assert await fetch(f"{url}/healthz/3") == (200, b"")
            await fetch(f"{url}/answer")
        await ended(captured, "GET /answer")
        assert len(captured.spans) == 1


# Answers, errors, exceptions ---------------------------------------------------------------------------------------


class Broken(Exception):
    pass


async def fails(request: web.Request) -> web.Response:
    raise Broken("no tea")


async def not_here(request: web.Request) -> web.Response:
    raise web.HTTPNotFound(text="no tea")


async def gateway(request: web.Request) -> web.Response:
    raise web.HTTPBadGateway


async def returned(request: web.Request) -> web.Response:
    return web.Response(status=503)


async def no_time(request: web.Request) -> web.Response:
    raise TimeoutError


async def nothing(request: web.Request) -> Any:
    return None


EndingsTable = [
    (fails, 500, "error", "Broken"),
    (not_here, 404, "ok", None),
    (gateway, 502, "error", "502"),
    (returned, 503, "error", "503"),
    (no_time, 504, "timeout", "TimeoutError"),
    (nothing, 500, "error", "500"),
]


async def check_endings() -> None:
    async with capture_spans() as captured:
        async with served(application(captured, *(row[0] for row in EndingsTable))) as url:
            for handler, *_ in EndingsTable:
                await fetch(f"{url}/{handler.__name__}")
        for handler, status, ending, error in EndingsTable:
            (span,) = await ended(captured, f"GET /{handler.__name__}")
            assert span.attributes["http.response.status_code"] == status
            assert span.ending == ending
            type_ = span.attributes.get("error.type")
            assert type_ == error or str(type_).endswith(f".{error}")
            code = {"ok": StatusCode.UNSET}.get(ending, StatusCode.ERROR)
            assert span.status is code
            has_event = any(event.name == "exception" for event in span.events)
            assert has_event == (handler in (fails, no_time))


async def test_a_status_from_500_on_and_an_exception_are_errors_and_an_answer_that_is_raised_is_an_answer() -> None:
    await check_endings()


async def check_the_exception_is_unchanged() -> None:
    seen: list[BaseException] = []
    raised = Broken("no tea")

    async def breaks(request: web.Request) -> web.Response:
        raise raised

    @web.middleware
    async def outer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except BaseException as error:
            seen.append(error)
            raise

    async with capture_spans() as captured, served(application(captured, breaks, outer=[outer])) as url:
        assert (await fetch(f"{url}/breaks"))[0] == 500
    assert seen == [raised]
    assert raised.__cause__ is None
    assert raised.__context__ is None


async def test_exceptions_pass_unchanged() -> None:
    await check_the_exception_is_unchanged()


async def check_the_status_is_the_one_that_was_sent() -> None:
    @web.middleware
    async def pages(request: web.Request, handler: Handler) -> web.StreamResponse:
        await handler(request)
        return web.Response(status=418)

    async with capture_spans() as captured:
        async with served(application(captured, answer, outer=[pages])) as url:
            assert (await fetch(f"{url}/answer"))[0] == 418
        (span,) = await ended(captured, "GET /answer")
    assert span.attributes["http.response.status_code"] == 418


async def test_the_status_is_the_one_that_was_sent_also_when_an_outer_middleware_changed_it() -> None:
    await check_the_status_is_the_one_that_was_sent()


# To the last chunk -------------------------------------------------------------------------------------------------


async def check_a_body_is_written_inside_the_run() -> None:
    async with capture_spans() as captured:

        async def body() -> AsyncIterator[bytes]:
            for piece in (b"a", b"b"):
                async with captured.tracer.trace_component("piece"):
                    await asyncio.sleep(0)
                yield piece

        async def generated(request: web.Request) -> web.Response:
            return web.Response(body=body())

        async with served(application(captured, generated)) as url:
            assert await fetch(f"{url}/generated") == (200, b"ab")
        (span,) = await ended(captured, "GET /generated")
        assert_tree(captured.spans, "GET /generated ok\n  piece ok\n  piece ok")
        assert all(piece.end_ns <= span.end_ns for piece in captured.by_name["piece"])


async def test_a_body_that_aiohttp_writes_after_the_handler_is_written_inside_the_run() -> None:
    await check_a_body_is_written_inside_the_run()


async def test_a_body_that_fails_while_it_is_written_is_an_error() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        raise Broken("half way")

    async def half(request: web.Request) -> web.Response:
        return web.Response(body=body())

    async with capture_spans() as captured:
        async with served(application(captured, half)) as url:
            with pytest.raises(aiohttp.ClientPayloadError):
                await fetch(f"{url}/half")
        (span,) = await ended(captured, "GET /half")
    assert span.ending == "error"
    assert str(span.attributes["error.type"]).endswith("Broken")


async def test_server_sent_events_are_traced_to_the_last_one() -> None:
    async with capture_spans() as captured:

        async def events(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for number in range(3):
                async with captured.tracer.trace_component("event"):
                    await response.write(f"data: {number}\n\n".encode())
            await response.write_eof()
            return response

        async with served(application(captured, events)) as url:
            status, body = await fetch(f"{url}/events")
        assert (status, body.count(b"data:")) == (200, 3)
        await ended(captured, "GET /events")
        assert_tree(captured.spans, "GET /events ok\n  event ok\n  event ok\n  event ok")


async def test_a_websocket_is_one_run_from_its_opening_to_its_end() -> None:
    async with capture_spans() as captured:

        async def talk(request: web.Request) -> web.WebSocketResponse:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                async with captured.tracer.trace_component("message"):
                    await socket.send_str(message.data.upper())
            return socket

        async with served(application(captured, talk)) as url, aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{url}/talk") as socket:
                for word in ("tea", "cup"):
                    await socket.send_str(word)
                    assert (await socket.receive()).data == word.upper()
            (span,) = await ended(captured, "GET /talk")
            assert_tree(captured.spans, "GET /talk ok\n  message ok\n  message ok")
            assert span.attributes["http.response.status_code"] == 101


# Clients that go away ------------------------------------------------------------------------------------------------


async def check_a_websocket_that_breaks_is_cancelled() -> None:
    async def talk(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _ in socket:
            pass
        return socket

    async with capture_spans() as captured, served(application(captured, talk)) as url:
        reader, writer = await send(
            url,
            "GET /talk HTTP/1.1\nHost: tea\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n",
        )
        await reader.readuntil(b"\r\n\r\n")
        await go_away(writer)
        (span,) = await ended(captured, "GET /talk")
    assert span.ending == "cancelled"


async def test_a_websocket_whose_client_is_gone_is_cancelled() -> None:
    await check_a_websocket_that_breaks_is_cancelled()


async def check_a_stream_is_cancelled() -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 4096)
            await asyncio.sleep(0.001)

    async with capture_spans() as captured, served(application(captured, drip)) as url:
        reader, writer = await send(url, "GET /drip HTTP/1.1\nHost: tea\n\n")
        await reader.read(1)
        await go_away(writer)
        (span,) = await ended(captured, "GET /drip")
    assert (span.ending, span.status, span.events) == ("cancelled", StatusCode.UNSET, ())


async def test_a_stream_whose_client_is_gone_is_cancelled() -> None:
    await check_a_stream_is_cancelled()


async def check_an_answer_nobody_reads_is_cancelled() -> None:
    async with capture_spans() as captured:
        has_begun, is_gone = asyncio.Event(), asyncio.Event()

        async def late(request: web.Request) -> web.Response:
            has_begun.set()
            await is_gone.wait()
            while request.transport is not None:  # noqa: ASYNC110  (nothing tells)
                await asyncio.sleep(0.001)
            return web.Response(text="late")

        async with served(application(captured, late)) as url:
            _, writer = await send(url, "GET /late HTTP/1.1\nHost: tea\n\n")
            await has_begun.wait()
            await go_away(writer)
            is_gone.set()
            (span,) = await ended(captured, "GET /late")
    assert span.ending == "cancelled"


async def test_an_answer_that_nobody_reads_any_more_is_cancelled() -> None:
    await check_an_answer_nobody_reads_is_cancelled()


async def test_a_handler_that_is_cancelled_for_a_client_that_is_gone_is_cancelled() -> None:
    async with capture_spans() as captured:
        has_begun = asyncio.Event()

        async def wait(request: web.Request) -> web.Response:
            has_begun.set()
            async with captured.tracer.trace_component("waiting"):
                await asyncio.sleep(60)
            return web.Response()

        async with served(application(captured, wait), handler_cancellation=True) as url:
            _, writer = await send(url, "GET /wait HTTP/1.1\nHost: tea\n\n")
            await has_begun.wait()
            await go_away(writer)
            await ended(captured, "GET /wait")
        assert_tree(captured.spans, "GET /wait cancelled\n  waiting cancelled")


async def test_a_handler_that_fails_by_itself_is_an_error_also_when_its_client_is_gone() -> None:
    async with capture_spans() as captured:
        has_begun = asyncio.Event()

        async def slip(request: web.Request) -> web.Response:
            has_begun.set()
            while request.transport is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            raise Broken

        async def reset(request: web.Request) -> web.Response:
            raise ConnectionResetError("the database")

        async with served(application(captured, slip, reset)) as url:
            _, writer = await send(url, "GET /slip HTTP/1.1\nHost: tea\n\n")
            await has_begun.wait()
            await go_away(writer)
            (slipped,) = await ended(captured, "GET /slip")
            await fetch(f"{url}/reset")
            (was_reset,) = await ended(captured, "GET /reset")
    assert (slipped.ending, was_reset.ending) == ("error", "error")


async def test_a_request_that_the_end_of_the_server_cuts_is_cancelled_and_arrives() -> None:
    with FaultServer.in_thread() as far_side:
        tracer = asynctrace.Tracer(
            service="shop", exporters=[asynctrace.exporters.OTLPExporter(far_side.url)], journal=False
        )
        has_begun = asyncio.Event()

        async def wait(request: web.Request) -> web.Response:
            has_begun.set()
            await asyncio.sleep(60)
            return web.Response()

        app = web.Application(middlewares=[aiohttp_middleware(tracer)])
        app.cleanup_ctx.append(aiohttp_lifespan(tracer))
        app.router.add_get("/wait", wait)
        async with served(app, shutdown_timeout=0.05) as url:
            _, writer = await send(url, "GET /wait HTTP/1.1\nHost: tea\n\n")
            await has_begun.wait()
        writer.close()
        assert [(span.name, span.ending) for span in far_side.spans] == [("GET /wait", "cancelled")]
    assert tracer.receipt().complete


# Where it belongs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trust", ["continue", "link", "ignore"])
async def test_the_trace_of_a_caller_is_continued_or_linked_or_ignored(trust: str) -> None:
    async with capture_spans() as captured:
        async with served(application(captured, answer, trust=trust)) as url:
            await fetch(f"{url}/answer", headers={"TraceParent": CALLER})
        (span,) = await ended(captured, "GET /answer")
    trace_id, span_id = CALLER.split("-")[1:3]
    assert (span.trace_id == trace_id, span.parent_id == span_id) == ((trust == "continue"),) * 2
    assert [link.span_id for link in span.links] == ([span_id] if trust == "link" else [])


async def check_many_at_once(requests: int = 200) -> None:
    async with capture_spans() as captured:
        everyone_is_here, waiting = asyncio.Event(), 0

        async def mix(request: web.Request) -> web.Response:
            nonlocal waiting
            waiting += 1
            if waiting == requests:
                everyone_is_here.set()
            await everyone_is_here.wait()
            async with captured.tracer.trace_component("work", attributes={"id": request.match_info["id"]}):
                await asyncio.sleep(0)
            return web.Response()

        async with served(application(captured, mix)) as url:
            connector = aiohttp.TCPConnector(limit=requests)
            async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:
                await asyncio.gather(*(ask(session, f"{url}/mix/{number}") for number in range(requests)))
        runs = {span.span_id: span for span in await ended(captured, "GET /mix/{id}", requests)}
        for work in captured.by_name["work"]:
            run = runs.pop(work.parent_id)
            assert run.attributes["url.path"] == f"/mix/{work.attributes['id']}"
            assert run.trace_id == work.trace_id
            assert not run.parent_id
        assert not runs


async def ask(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(url) as response:
        assert response.status == 200


async def test_two_hundred_requests_at_once_each_have_their_own_run() -> None:
    await check_many_at_once()


async def test_requests_on_one_connection_follow_one_another() -> None:
    async with capture_spans() as captured:
        async with served(application(captured, answer)) as url, aiohttp.ClientSession() as session:
            for _ in range(3):
                await ask(session, f"{url}/answer")
        spans = await ended(captured, "GET /answer", 3)
    assert len({span.trace_id for span in spans}) == 3
    assert len({span.attributes["client.port"] for span in spans}) == 1


async def test_two_tracers_each_make_their_own_run() -> None:
    async with capture_spans() as one, capture_spans() as other:

        async def both(request: web.Request) -> web.Response:
            async with one.tracer.trace_component("of one"), other.tracer.trace_component("of the other"):
                return web.Response()

        async with served(application(one, both, outer=[aiohttp_middleware(other.tracer)])) as url:
            await fetch(f"{url}/both")
        await ended(one, "GET /both")
        await ended(other, "GET /both")
        assert_tree(one.spans, "GET /both ok\n  of one ok")
        assert_tree(other.spans, "GET /both ok\n  of the other ok")


async def check_the_middleware_twice() -> None:
    async with capture_spans() as captured:
        inner = application(captured, answer)
        app = application(captured)
        app.add_subapp("/shop", inner)
        async with served(app) as url:
            assert await fetch(f"{url}/shop/answer") == (200, b"Sencha")
        await captured.flush()
        assert_tree(captured.spans, "GET /shop/answer ok")


async def test_an_application_inside_that_has_it_too_makes_no_second_span() -> None:
    await check_the_middleware_twice()


async def test_none_is_the_default_tracer_at_the_time_of_the_request() -> None:
    app = web.Application(middlewares=[aiohttp_middleware()])
    app.router.add_get("/answer", answer)
    async with served(app) as url:
        for _ in range(2):
            async with capture_spans(default=True) as captured:
                await fetch(f"{url}/answer")
                await ended(captured, "GET /answer")


async def test_where_the_handler_is_called_in_another_task_the_run_ends_with_it() -> None:
    @web.middleware
    async def in_a_task(request: web.Request, handler: Handler) -> web.StreamResponse:
        async def call() -> web.StreamResponse:
            return await handler(request)

        return await asyncio.create_task(call())

    async with capture_spans() as captured:
        async with served(application(captured, answer, fails, not_here, outer=[in_a_task])) as url:
            for handler in (answer, fails, not_here):
                await fetch(f"{url}/{handler.__name__}")
        await ended(captured, "GET /not_here")
        assert_tree(captured.spans, "GET /answer ok\nGET /fails error\nGET /not_here ok")
        statuses = [span.attributes.get("http.response.status_code") for span in captured.spans]
    assert statuses == [200, None, 404]


# It breaks nothing -------------------------------------------------------------------------------------------------

ODD_REQUESTS = [
    "GET /answer HTTP/1.0\n\n",
    "GET /answer?%zz=%ff&&==&token HTTP/1.1\nHost: tea\n\n",
    "GET /answer HTTP/1.1\nHost: [::1]:99999999\n\n",
    "GET /answer HTTP/1.1\nHost: \xe9\xff:x\nUser-Agent: \xff\xfe\n\n",
    "GET /answer HTTP/1.1\nHost: tea\ntraceparent: 00-zz-zz-zz\ntracestate: =,=,\xff\nbaggage: %%%\n\n",
    f"GET /answer HTTP/1.1\nHost: tea\ntraceparent: {CALLER}\ntraceparent: {CALLER[::-1]}\n\n",
    "GET http://other.example/answer HTTP/1.1\nHost: tea\n\n",
]


async def test_odd_requests_are_answered_as_without_it_and_traced() -> None:
    async with capture_spans() as captured:
        async with served(application(captured, answer)) as url:
            for request in ODD_REQUESTS:
                reader, writer = await send(url, request)
                assert (await reader.readline()).split()[1] == b"200", request
                writer.close()
        await ended(captured, "GET /answer", len(ODD_REQUESTS))
        assert not captured.tracer.statistics().internal_errors


async def check_an_error_of_ours_breaks_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*arguments: Any, **options: Any) -> Any:
        raise Broken("tracing")

    parts = (_aiohttp_server, "_target_of"), (_aiohttp_server, "set_status_code"), (asynctrace.TraceContext, "_exit_as")
    for owner, name in parts:
        async with capture_spans() as captured:
            with monkeypatch.context() as patched:
                patched.setattr(owner, name, explode)
                async with served(application(captured, answer)) as url:
                    assert await fetch(f"{url}/answer") == (200, b"Sencha")
            assert captured.tracer.statistics().internal_errors == {"Broken": 1}


async def test_an_error_of_ours_is_counted_and_breaks_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    await check_an_error_of_ours_breaks_no_request(monkeypatch)


async def test_without_a_default_tracer_requests_are_answered_and_it_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "no url")
    monkeypatch.setattr(_failures, "_without_tracer", Diagnostics(time.monotonic_ns))  # it tells once a minute
    before = set_default(None)
    try:
        app = web.Application(middlewares=[aiohttp_middleware()])
        app.router.add_get("/answer", answer)
        async with served(app) as url:
            assert await fetch(f"{url}/answer") == (200, b"Sencha")
    finally:
        set_default(before)
    assert "middleware.no_tracer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: aiohttp_middleware("shop"), r"middlewares=\[aiohttp_middleware\(\)\]"),  # type: ignore[arg-type]
        (lambda: aiohttp_lifespan(web.Application()), r"cleanup_ctx\.append\(aiohttp_lifespan\(\)\)"),  # type: ignore[arg-type]
    ],
    ids=["middleware", "lifespan"],
)
async def test_what_is_no_tracer_is_refused_with_the_right_call(make: Callable[[], object], match: str) -> None:
    with pytest.raises(asynctrace.MisuseError, match=match):
        make()


async def test_wrong_options_are_refused_at_once() -> None:
    for options in ({"trust": "maybe"}, {"excluded": [3]}, {"capture_headers": [b"x"]}):
        with pytest.raises(asynctrace.ConfigurationError):
            aiohttp_middleware(**options)  # type: ignore[arg-type]


# The tracer's life ---------------------------------------------------------------------------------------------------


async def check_all_have_arrived_when_the_application_is_cleaned_up() -> None:
    with FaultServer.in_thread(default=Delay(0.2)) as far_side:
        tracer = asynctrace.Tracer(
            service="shop", exporters=[asynctrace.exporters.OTLPExporter(far_side.url)], journal=False
        )

        async def database(app: web.Application) -> AsyncIterator[None]:
            yield
            async with tracer.trace("closed"):
                pass

        app = web.Application(middlewares=[aiohttp_middleware(tracer)])
        app.cleanup_ctx.append(_aiohttp_server.aiohttp_lifespan(tracer))
        app.cleanup_ctx.append(database)
        app.router.add_get("/answer", answer)
        async with served(app) as url:
            await asyncio.gather(*(fetch(f"{url}/answer") for _ in range(5)))
        assert sum(far_side.accepted_ids.values()) == 6
        assert {span.name for span in far_side.spans} == {"GET /answer", "closed"}


async def test_all_have_arrived_when_the_application_is_cleaned_up() -> None:
    await check_all_have_arrived_when_the_application_is_cleaned_up()


# The checks notice -------------------------------------------------------------------------------------------------


class _EndsWithTheHandler(_aiohttp_server._Served):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        task = asyncio.current_task()
        if task is not None:
            task.remove_done_callback(self._task_done)
        self._ends_with_task = False


class _BelievesTheHandler(_aiohttp_server._Served):
    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._end()


class _NeverLooksAtTheClient(_aiohttp_server._Served):
    def _end(self) -> None:
        self._is_gone = False
        super()._end()


class _TakesAnswersForErrors(_aiohttp_server._Served):
    def handler_raised(self, error: BaseException) -> None:
        super().handler_raised(error)
        self._error = error


class _Wraps(_aiohttp_server._Served):
    def handler_raised(self, error: BaseException) -> None:
        super().handler_raised(error)
        raise Broken from error


class _TakesEveryCloseForGood(_aiohttp_server._Served):
    def _end(self) -> None:
        if isinstance(self._response, web.WebSocketResponse):
            self._run._exit_as(Ending.OK)
        super()._end()


class _HasOneRun(_aiohttp_server._Served):
    def __init__(self, door: Any, tracer: Any, request: web.Request, run: Any) -> None:
        door.run = getattr(door, "run", run)
        trace_var.set(door.run)
        super().__init__(door, tracer, request, run)


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        (check_a_body_is_written_inside_the_run, _EndsWithTheHandler),
        (check_an_answer_nobody_reads_is_cancelled, _EndsWithTheHandler),
        (check_the_status_is_the_one_that_was_sent, _BelievesTheHandler),
        (check_endings, _BelievesTheHandler),
        (check_a_stream_is_cancelled, _NeverLooksAtTheClient),
        (check_an_answer_nobody_reads_is_cancelled, _NeverLooksAtTheClient),
        (check_endings, _TakesAnswersForErrors),
        (check_the_exception_is_unchanged, _Wraps),
        (check_a_websocket_that_breaks_is_cancelled, _TakesEveryCloseForGood),
        (check_many_at_once, _HasOneRun),
    ],
    ids=lambda part: part.__name__.strip("_"),
)
async def test_a_wrong_middleware_is_noticed(
    check: Callable[[], Awaitable[None]], wrong: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_aiohttp_server, "_Served", wrong)
    with pytest.raises((AssertionError, KeyError)):
        await check()


async def test_a_name_with_the_path_in_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_aiohttp_server, "_route_of", lambda request: request.path)
    with pytest.raises(AssertionError):
        await check_a_request_is_described()


async def test_a_second_span_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_aiohttp_server._Door, "open", _opens_always)
    with pytest.raises(AssertionError):
        await check_the_middleware_twice()


def _opens_always(door: Any, request: web.Request) -> Any:
    return _aiohttp_server._Served(door, door._tracer, request, door._run_of(door._tracer, request)._enter())


async def test_without_a_boundary_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_aiohttp_server._Door, "open", _opens_always)
    with pytest.raises(AssertionError):
        await check_an_error_of_ours_breaks_no_request(monkeypatch)


async def test_a_lifespan_that_does_not_wait_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class DoesNotWait(_aiohttp_server.Life):
        async def __aexit__(self, *exc: Any) -> None:
            assert self._tracer is not None
            await self._tracer.shutdown(0.0)

    monkeypatch.setattr(_aiohttp_server, "Life", DoesNotWait)
    with pytest.raises(AssertionError):
        await check_all_have_arrived_when_the_application_is_cleaned_up()
