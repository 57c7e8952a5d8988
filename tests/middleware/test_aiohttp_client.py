"""`asynctrace.middleware.trace_config()`: a client span for each request of an aiohttp session, until the body is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

import asynctrace
from asynctrace import SpanKind, StatusCode
from asynctrace.middleware import _aiohttp_client, _client, aiohttp_middleware, trace_config
from asynctrace.testing import CapturedSpans, assert_tree, capture_spans

from .served import ended, served

pytestmark = pytest.mark.anyio


def session(captured: CapturedSpans, **options: Any) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        trace_configs=[trace_config(captured.tracer, **options)], timeout=aiohttp.ClientTimeout(30)
    )


class FarSide:
    """An application that remembers the headers it was asked with, and can be told to go on."""

    def __init__(self, *middlewares: Any) -> None:
        self.headers: list[Any] = []
        self.may_go_on = asyncio.Event()
        self.app = web.Application(middlewares=middlewares)
        for name in ("tea", "status", "redirect", "slow", "broken", "talk"):
            self.app.router.add_route("*", f"/{name}", getattr(self, f"_{name}"))

    async def _tea(self, request: web.Request) -> web.Response:
        self.headers.append(request.headers)
        return web.Response(text="Sencha")

    async def _status(self, request: web.Request) -> web.Response:
        return web.Response(status=int(request.query["code"]), text="x" * 100_000)

    async def _redirect(self, request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.query["to"]})

    async def _slow(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begin")
        await self.may_go_on.wait()
        await response.write(b"end")
        return response

    async def _broken(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"begin")
        assert request.transport is not None
        request.transport.close()
        return response

    async def _talk(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data.upper())
        return socket


# What a span says ------------------------------------------------------------------------------------------------


async def check_a_request_is_described() -> None:
    far_side = FarSide()
    async with (
        capture_spans(mask=False) as captured,
        served(far_side.app, handler_cancellation=True) as url,
        session(captured) as client,
    ):
        host, _, port = url.removeprefix("http://").partition(":")
        async with client.get(
            f"http://me:s3cret@{host}:{port}/tea", params={"page": "2", "api_key": "s3cret"}
        ) as answer:
            assert await answer.text() == "Sencha"
        (span,) = await ended(captured, "GET")
    assert (span.kind, span.status, span.ending, span.parent_id) == (SpanKind.CLIENT, StatusCode.OK, "ok", "")
    expected = {
        "http.request.method": "GET",
        "url.full": f"http://REDACTED:REDACTED@{host}:{port}/tea?page=2&api_key=REDACTED",
        "server.address": host,
        "server.port": int(port),
        "http.response.status_code": 200,
        "network.protocol.version": "1.1",
    }
    assert {key: span.attributes.get(key) for key in expected} == expected
    assert "error.type" not in span.attributes


async def test_a_request_is_described_in_the_words_of_the_conventions_and_without_secrets() -> None:
    await check_a_request_is_described()


@pytest.mark.parametrize(
    ("url", "address", "port", "full"),
    [
        ("http://tea.invalid/", "tea.invalid", 80, "http://tea.invalid/"),
        ("https://[::1]:1/a%20b?q=%C3%A9#x", "::1", 1, "https://[::1]:1/a%20b?q=%C3%A9"),
        ("https://tea.invalid/a?X-Amz-Signature=12&sig=3&n=1", "tea.invalid", 443, None),
        ("http://:1/", None, None, None),
        ("http://xn--tee-tna.invalid:8080", "xn--tee-tna.invalid", 8080, None),
    ],
)
async def test_odd_urls_are_described_and_fail_as_without_it(
    url: str, address: str | None, port: int | None, full: str | None
) -> None:
    async with capture_spans(mask=False) as captured, session(captured) as client:
        with pytest.raises((aiohttp.ClientError, ValueError, OSError)):
            await client.get(url)
        await captured.flush()
        spans = captured.spans
        assert not captured.tracer.statistics().internal_errors
    for span in spans:  # a URL without a host is refused before there is a request
        assert (span.attributes.get("server.address"), span.attributes.get("server.port")) == (address, port)
        assert full is None or span.attributes["url.full"] == full
        assert "=12" not in str(span.attributes["url.full"])
        assert span.ending == "error"
    assert bool(spans) or address is None


# Where it belongs ------------------------------------------------------------------------------------------------


async def check_the_trace_goes_on() -> None:
    async with capture_spans() as here, capture_spans() as there:
        far_side = FarSide(aiohttp_middleware(there.tracer))
        async with (
            served(far_side.app) as url,
            session(here) as client,
            here.tracer.trace("run"),
            here.tracer.trace_component("ask") as ask,
            client.get(f"{url}/tea") as answer,
        ):
            await answer.read()
            assert here.tracer.current_component() is ask
        await ended(here, "run")
        (server,) = await ended(there, "GET /tea")
        assert_tree(here.spans, "run ok\n  ask ok\n    GET ok")
        client_span = here.find("GET")
    assert (server.trace_id, server.parent_id) == (client_span.trace_id, client_span.span_id)


async def test_the_far_side_goes_on_below_the_clients_span() -> None:
    await check_the_trace_goes_on()


async def test_headers_that_the_program_has_set_are_kept_and_a_parent_of_its_own_is_replaced() -> None:
    far_side = FarSide()
    async with (
        capture_spans() as captured,
        served(far_side.app, handler_cancellation=True) as url,
        session(captured) as client,
    ):
        headers = {"X-Tea": "yes", "Traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-00"}
        async with client.get(f"{url}/tea", headers=headers):
            pass
        (span,) = await ended(captured, "GET")
    (seen,) = far_side.headers
    assert seen["X-Tea"] == "yes"
    assert seen.getall("traceparent") == [f"00-{span.trace_id}-{span.span_id}-{span.flags & 0xFF:02x}"]
    assert headers["Traceparent"].endswith("-00"), "what the program gave is the program's"


async def test_far_sides_that_should_not_know_of_the_trace_are_not_told() -> None:
    far_side = FarSide()
    async with capture_spans() as captured, served(far_side.app, handler_cancellation=True) as url:
        async with session(captured, propagate=False) as client, captured.tracer.trace("run"):
            await (await client.get(f"{url}/tea")).read()
        await ended(captured, "run")
        assert_tree(captured.spans, "run ok\n  GET ok")
    assert "traceparent" not in far_side.headers[0]


async def check_outside_any_trace() -> None:
    far_side = FarSide()
    async with capture_spans() as captured, served(far_side.app, handler_cancellation=True) as url:
        async with session(captured, start_traces=False) as client:
            await (await client.get(f"{url}/tea")).read()
            async with captured.tracer.trace("run"):
                await (await client.get(f"{url}/tea")).read()
        await ended(captured, "run")
        assert_tree(captured.spans, "run ok\n  GET ok")
    assert ["traceparent" in headers for headers in far_side.headers] == [False, True]


async def test_requests_outside_any_trace_are_left_alone_where_that_is_asked_for() -> None:
    await check_outside_any_trace()


async def check_suppressed() -> None:
    far_side = FarSide()
    async with (
        capture_spans() as captured,
        served(far_side.app, handler_cancellation=True) as url,
        session(captured) as client,
    ):
        with captured.tracer.suppress():
            await (await client.get(f"{url}/tea")).read()
        await captured.flush()
        assert captured.spans == ()
    assert "traceparent" not in far_side.headers[0]


async def test_inside_suppress_there_is_no_span_and_no_header() -> None:
    await check_suppressed()


async def test_in_a_trace_that_is_not_recorded_there_is_no_span_and_the_far_side_is_told_so() -> None:
    far_side = FarSide()
    async with (
        capture_spans(sampler=asynctrace.ALWAYS_OFF) as captured,
        served(far_side.app, handler_cancellation=True) as url,
    ):
        async with session(captured) as client, captured.tracer.trace("run"):
            await (await client.get(f"{url}/tea")).read()
        await captured.flush()
        assert captured.spans == ()
    flags = far_side.headers[0]["traceparent"].rpartition("-")[2]
    assert not int(flags, 16) & 1


async def check_many_at_once(requests: int = 200) -> None:
    async with capture_spans() as captured:
        app = web.Application(middlewares=[aiohttp_middleware(captured.tracer)])

        async def echo(request: web.Request) -> web.Response:
            return web.Response(text=request.match_info["id"])

        app.router.add_get("/{id}", echo)
        connector = aiohttp.TCPConnector(limit=50)
        async with (
            served(app) as url,
            aiohttp.ClientSession(
                connector=connector,
                trace_configs=[trace_config(captured.tracer)],
                timeout=aiohttp.ClientTimeout(60),
            ) as client,
        ):

            async def ask(number: int) -> None:
                async with captured.tracer.trace("ask", run_id=str(number)), client.get(f"{url}/{number}") as answer:
                    assert await answer.text() == str(number)

            await asyncio.gather(*map(ask, range(requests)))
        runs = {span.span_id: span for span in await ended(captured, "ask", requests)}
        servers = {span.parent_id: span for span in await ended(captured, "GET /{id}", requests)}
        for client_span in captured.by_name["GET"]:
            run, server = runs.pop(client_span.parent_id), servers.pop(client_span.span_id)
            assert server.attributes["url.path"] == f"/{run.attributes['asynctrace.run.id']}"
            assert run.trace_id == client_span.trace_id == server.trace_id
            assert client_span.ending == "ok"
        assert not runs
        assert not servers


async def test_two_hundred_requests_at_once_each_belong_to_who_made_them() -> None:
    await check_many_at_once()


async def test_two_tracers_each_make_their_own_span_and_the_last_one_names_the_parent() -> None:
    far_side = FarSide()
    async with capture_spans() as one, capture_spans() as other, served(far_side.app, handler_cancellation=True) as url:
        configs = [trace_config(one.tracer), trace_config(other.tracer)]
        async with aiohttp.ClientSession(trace_configs=configs) as client, one.tracer.trace("of one"):
            await (await client.get(f"{url}/tea")).read()
        await ended(one, "of one")
        (span,) = await ended(other, "GET")
        assert_tree(one.spans, "of one ok\n  GET ok")
    assert far_side.headers[0].getall("traceparent") == [f"00-{span.trace_id}-{span.span_id}-{span.flags & 0xFF:02x}"]


async def test_none_is_the_default_tracer_at_the_time_of_the_request() -> None:
    config = trace_config()
    async with (
        served(FarSide().app, handler_cancellation=True) as url,
        aiohttp.ClientSession(trace_configs=[config]) as client,
    ):
        for _ in range(2):
            async with capture_spans(default=True) as captured:
                await (await client.get(f"{url}/tea")).read()
                await ended(captured, "GET")


# Until the body is over --------------------------------------------------------------------------------------------


async def check_the_span_lasts_until_the_body_is_read() -> None:
    far_side = FarSide()
    async with (
        capture_spans() as captured,
        served(far_side.app, handler_cancellation=True) as url,
        session(captured) as client,
    ):
        async with captured.tracer.trace("run"), client.get(f"{url}/slow") as answer:
            assert await answer.content.readexactly(5) == b"begin"
            await captured.flush()
            assert captured.spans == ()
            far_side.may_go_on.set()
            assert await answer.content.read() == b"end"
            await captured.flush()
            assert [span.name for span in captured.spans] == ["GET"]
        await ended(captured, "run")
        assert_tree(captured.spans, "run ok\n  GET ok")


async def test_the_span_lasts_until_the_body_is_read() -> None:
    await check_the_span_lasts_until_the_body_is_read()


async def test_a_body_that_is_not_wanted_ends_the_span_and_is_no_error() -> None:
    async with (
        capture_spans() as captured,
        served(FarSide().app, handler_cancellation=True) as url,
        session(captured) as client,
    ):
        async with client.get(f"{url}/slow"):
            pass
        (span,) = await ended(captured, "GET")
    assert (span.ending, span.events) == ("ok", ())


async def test_answers_without_a_body_end_their_span() -> None:
    async with (
        capture_spans() as captured,
        served(FarSide().app, handler_cancellation=True) as url,
        session(captured) as client,
    ):
        answer = await client.head(f"{url}/tea")
        await ended(captured, "HEAD")
        answer.close()


async def check_a_body_that_breaks_is_an_error() -> None:
    async with (
        capture_spans() as captured,
        served(FarSide().app, handler_cancellation=True) as url,
        session(captured) as client,
    ):
        with pytest.raises(aiohttp.ClientPayloadError):
            async with client.get(f"{url}/broken") as answer:
                await answer.read()
        (span,) = await ended(captured, "GET")
    assert (span.ending, span.status) == ("error", StatusCode.ERROR)
    assert str(span.attributes["error.type"]).endswith("ClientPayloadError")
    assert span.attributes["http.response.status_code"] == 200


async def test_a_body_that_breaks_off_is_an_error() -> None:
    await check_a_body_that_breaks_is_an_error()


async def check_reading_that_is_cancelled() -> None:
    async with (
        capture_spans() as captured,
        served(FarSide().app, handler_cancellation=True) as url,
        session(captured) as client,
    ):
        has_begun = asyncio.Event()

        async def read() -> None:
            async with client.get(f"{url}/slow") as answer:
                await answer.content.readexactly(5)
                has_begun.set()
                await answer.content.read()

        task = asyncio.create_task(read())
        await has_begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (span,) = await ended(captured, "GET")
        with pytest.raises(TimeoutError):
            async with client.get(f"{url}/slow", timeout=aiohttp.ClientTimeout(0.3)) as answer:
                await answer.read()
        spans = await ended(captured, "GET", 2)
    assert (span.ending, span.status) == ("cancelled", StatusCode.UNSET)
    assert "timeout" in {one.ending for one in spans}


async def test_reading_that_is_cancelled_or_has_no_time_left_says_so() -> None:
    await check_reading_that_is_cancelled()


async def test_a_websocket_is_one_span_until_it_is_closed() -> None:
    async with (
        capture_spans() as captured,
        served(FarSide().app, handler_cancellation=True) as url,
        session(captured) as client,
    ):
        async with client.ws_connect(f"{url}/talk") as socket:
            await socket.send_str("tea")
            assert (await socket.receive()).data == "TEA"
            await captured.flush()
            assert captured.spans == ()
        (span,) = await ended(captured, "GET")
    assert (span.ending, span.attributes["http.response.status_code"]) == ("ok", 101)


# Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raises", [False, True], ids=["status", "raise_for_status"])
async def test_from_400_on_a_status_is_an_error(raises: bool) -> None:
    async with (
        capture_spans() as captured,
        served(FarSide().app, handler_cancellation=True) as url,
        session(captured) as client,
    ):
        for code in (204, 399, 404, 503):
            with contextlib.suppress(aiohttp.ClientResponseError):
                async with client.get(f"{url}/status", params={"code": code}, raise_for_status=raises) as answer:
                    await answer.read()
        spans = await ended(captured, "GET", 4)
    assert [span.attributes["http.response.status_code"] for span in spans] == [204, 399, 404, 503]
    assert [span.attributes.get("error.type") for span in spans] == [None, None, "404", "503"]
    assert [span.ending for span in spans] == ["ok", "ok", "error", "error"]
    assert not any(span.events for span in spans)


async def check_a_request_that_fails() -> None:
    async with capture_spans() as captured, session(captured) as client:
        async with captured.tracer.trace("run"):
            with pytest.raises(aiohttp.ClientConnectorError):
                await client.get("http://127.0.0.1:1/")
        await ended(captured, "run")
        assert_tree(captured.spans, "run ok\n  GET error")
        span = captured.find("GET")
    assert str(span.attributes["error.type"]).endswith("ClientConnectorError")
    assert [event.name for event in span.events] == ["exception"]
    assert "http.response.status_code" not in span.attributes


async def test_a_request_that_fails_is_an_error_and_the_exception_is_unchanged() -> None:
    await check_a_request_that_fails()


async def test_a_request_that_is_cancelled_ends_so_and_one_without_time_ends_timeout() -> None:
    async def never(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    app = web.Application()
    app.router.add_get("/never", never)
    async with capture_spans() as captured, served(app, shutdown_timeout=0.1) as url, session(captured) as client:
        with pytest.raises(TimeoutError):
            await client.get(f"{url}/never", timeout=aiohttp.ClientTimeout(0.1))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.get(f"{url}/never")
        spans = await ended(captured, "GET", 2)
    assert [span.ending for span in spans] == ["timeout", "cancelled"]


async def check_redirects_are_logs_of_one_span() -> None:
    async with (
        capture_spans(mask=False) as captured,
        served(FarSide().app, handler_cancellation=True) as url,
        session(captured) as client,
    ):
        async with client.get(f"{url}/redirect", params={"to": "/redirect?to=/tea?token%3Ds3cret"}) as answer:
            assert await answer.text() == "Sencha"
        (span,) = await ended(captured, "GET")
    assert span.attributes["http.request.resend_count"] == 2
    assert span.attributes["http.response.status_code"] == 200
    assert [event.name for event in span.events] == ["redirected"] * 2
    assert [event.attributes["http.response.status_code"] for event in span.events] == [302, 302]
    assert str(span.events[1].attributes["url.full"]) == f"{url}/tea?token=REDACTED"


async def test_redirects_that_are_followed_are_logs_of_one_span() -> None:
    await check_redirects_are_logs_of_one_span()


async def test_a_redirect_that_leads_nowhere_fails_as_without_it() -> None:
    async with (
        capture_spans() as captured,
        served(FarSide().app, handler_cancellation=True) as url,
        session(captured) as client,
    ):
        with pytest.raises((aiohttp.ClientError, ValueError)):
            await client.get(f"{url}/redirect", params={"to": "http://[::1"})
        with pytest.raises(aiohttp.TooManyRedirects):
            await client.get(f"{url}/redirect", params={"to": "/tea"}, max_redirects=1)
        spans = await ended(captured, "GET", 2)
        assert not captured.tracer.statistics().internal_errors
    assert {span.ending for span in spans} == {"error"}


# It breaks nothing -------------------------------------------------------------------------------------------------


async def check_an_error_of_ours_breaks_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*arguments: Any, **options: Any) -> Any:
        raise LookupError("tracing")

    async with served(FarSide().app, handler_cancellation=True) as url:
        for owner, name in (
            (_client, "full_url"),
            (_client, "_inject"),
            (asynctrace.ComponentTraceContext, "_end_apart"),
        ):
            async with capture_spans() as captured, session(captured) as client:
                with monkeypatch.context() as patched:
                    patched.setattr(owner, name, explode)
                    async with client.get(f"{url}/tea") as answer:
                        assert await answer.text() == "Sencha"
                assert captured.tracer.statistics().internal_errors == {"LookupError": 1}


async def test_an_error_of_ours_is_counted_and_breaks_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    await check_an_error_of_ours_breaks_no_request(monkeypatch)


async def test_what_is_no_tracer_is_refused_with_the_right_call() -> None:
    with pytest.raises(asynctrace.MisuseError, match=r"trace_configs=\[trace_config\(\)\]"):
        trace_config("shop")  # type: ignore[arg-type]


# The checks notice -------------------------------------------------------------------------------------------------


def _ends_with_the_headers(call: _client.Call, *rest: object) -> None:
    call.finish()


class _EndsWithTheHeaders(_aiohttp_client._Signals):
    async def end(self, session: Any, context: Any, params: Any) -> None:
        await super().end(session, context, params)
        if context.call is not None:
            context.call.finish()


class _ForgetsExceptions(_aiohttp_client._Signals):
    async def exception(self, session: Any, context: Any, params: Any) -> None:
        if context.call is not None:
            context.call.finish()


class _ForgetsRedirects(_aiohttp_client._Signals):
    async def redirect(self, session: Any, context: Any, params: Any) -> None:
        pass


class _SharesOneCall(_aiohttp_client._Signals):
    async def start(self, session: Any, context: Any, params: Any) -> None:
        await super().start(session, context, params)
        self.call = context.call = getattr(self, "call", context.call)


class _SetsNoHeaders(_client.Caller):
    def open(self, own_request: Any, headers: Any) -> Any:
        return super().open(own_request, {})


class _LooksAtNothing(_client.Caller):
    def open(self, own_request: Any, headers: Any) -> Any:
        span = self._tracer._open_apart("GET", parent=None)  # type: ignore[union-attr]
        _client._inject(self._tracer, span, headers)  # type: ignore[arg-type]
        return _client.Call(self._tracer, span)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("check", "owner", "name", "wrong"),
    [
        (check_the_span_lasts_until_the_body_is_read, _aiohttp_client, "_Signals", _EndsWithTheHeaders),
        (check_a_body_that_breaks_is_an_error, _aiohttp_client, "_body_ended", _ends_with_the_headers),
        (check_reading_that_is_cancelled, _aiohttp_client, "_body_ended", _ends_with_the_headers),
        (check_a_request_that_fails, _aiohttp_client, "_Signals", _ForgetsExceptions),
        (check_redirects_are_logs_of_one_span, _aiohttp_client, "_Signals", _ForgetsRedirects),
        (check_many_at_once, _aiohttp_client, "_Signals", _SharesOneCall),
        (check_the_trace_goes_on, _aiohttp_client, "Caller", _SetsNoHeaders),
        (check_the_trace_goes_on, _aiohttp_client, "Caller", _LooksAtNothing),
        (check_outside_any_trace, _aiohttp_client, "Caller", _LooksAtNothing),
        (check_suppressed, _aiohttp_client, "Caller", _LooksAtNothing),
        (check_a_request_is_described, _client, "redacted_query", str),
    ],
    ids=lambda part: getattr(part, "__name__", str(part)).strip("_"),
)
async def test_a_wrong_trace_config_is_noticed(
    check: Callable[[], Awaitable[None]], owner: Any, name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises((AssertionError, KeyError)):
        await check()


async def test_without_a_boundary_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client.Caller, "open", lambda caller, request, headers: caller._describe(request) and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await check_an_error_of_ours_breaks_no_request(monkeypatch)
