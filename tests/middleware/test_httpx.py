"""`asynctrace.middleware.AsyncHTTPXTransport` and `HTTPXTransport`: a client span for each request of an httpx client."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from aiohttp import web

import asynctrace
from asynctrace import SpanKind, StatusCode
from asynctrace.middleware import AsyncHTTPXTransport, HTTPXTransport, _httpx, aiohttp_middleware
from asynctrace.testing import CapturedSpans, assert_tree, capture_spans

from .served import ended, served

pytestmark = pytest.mark.anyio


def client(captured: CapturedSpans, inner: Any = None, **options: Any) -> httpx.AsyncClient:
    kind: Any = _httpx.AsyncHTTPXTransport  # as it is now: mutants replace it
    return httpx.AsyncClient(transport=kind(inner, captured.tracer, **options), timeout=30)


def far_side(*middlewares: Any) -> web.Application:
    async def tea(request: web.Request) -> web.Response:
        return web.Response(text=request.headers.get("traceparent", ""))

    async def status(request: web.Request) -> web.Response:
        return web.Response(status=int(request.query["code"]))

    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/tea"})

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begin")
        await asyncio.sleep(60)
        return response

    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"begin")
        assert request.transport is not None
        request.transport.close()
        return response

    app = web.Application(middlewares=middlewares)
    for handler in (tea, status, redirect, slow, broken):
        app.router.add_route("*", f"/{handler.__name__}", handler)
    return app


def reached(*middlewares: Any) -> Any:
    return served(far_side(*middlewares), handler_cancellation=True)


# What a span says, where it belongs ------------------------------------------------------------------------------


async def check_a_request_is_described() -> None:
    async with capture_spans(mask=False) as captured, reached() as url, client(captured) as asks:
        host, _, port = url.removeprefix("http://").partition(":")
        answer = await asks.get(f"http://me:s3cret@{host}:{port}/tea", params={"page": "2", "api_key": "s3cret"})
        (span,) = await ended(captured, "GET")
    assert answer.text == f"00-{span.trace_id}-{span.span_id}-{span.flags & 0xFF:02x}"
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


async def test_a_request_is_described_in_the_words_of_the_conventions_and_without_secrets() -> None:
    await check_a_request_is_described()


@pytest.mark.parametrize(
    "url", ["http://[::1]:1/a%20b?é=1#x", "https://tea.invalid", "http://bücher.invalid/", "tea:1"]
)
async def test_odd_urls_are_described_and_fail_as_without_it(url: str) -> None:
    async with capture_spans() as captured, client(captured) as asks:
        with pytest.raises((httpx.TransportError, httpx.InvalidURL)):
            await asks.get(url)
        await ended(captured, "GET")
        assert {span.ending for span in captured.spans} == {"error"}
        assert not captured.tracer.statistics().internal_errors


async def check_the_trace_goes_on() -> None:
    async with capture_spans() as captured, reached(aiohttp_middleware(captured.tracer)) as url:
        async with client(captured) as asks, captured.tracer.trace("run"):
            await asks.get(f"{url}/tea")
            with captured.tracer.suppress():
                assert (await asks.get(f"{url}/status", params={"code": 200})).status_code == 200
        await ended(captured, "GET /status")
        assert_tree(captured.spans, "run ok\n  GET ok\n    GET /tea ok\nGET /status ok")


async def test_the_far_side_goes_on_below_the_clients_span_and_not_inside_suppress() -> None:
    await check_the_trace_goes_on()


async def test_requests_that_are_not_to_be_traced_or_told_of_are_not() -> None:
    async with capture_spans() as captured, reached() as url:
        async with client(captured, start_traces=False) as asks:
            assert (await asks.get(f"{url}/tea")).text == ""
        async with client(captured, propagate=False) as asks:
            assert (await asks.get(f"{url}/tea")).text == ""
        await captured.flush()
        assert_tree(captured.spans, "GET ok")


async def test_redirects_are_requests_of_their_own() -> None:
    async with capture_spans() as captured, reached() as url, client(captured) as asks:
        async with captured.tracer.trace("run"):
            assert (await asks.get(f"{url}/redirect", follow_redirects=True)).status_code == 200
        await ended(captured, "run")
        assert_tree(captured.spans, "run ok\n  GET ok\n  GET ok")
        assert [span.attributes["http.response.status_code"] for span in captured.by_name["GET"]] == [302, 200]


async def check_many_at_once(requests: int = 200) -> None:
    async with capture_spans() as captured:
        app = web.Application(middlewares=[aiohttp_middleware(captured.tracer)])

        async def echo(request: web.Request) -> web.Response:
            return web.Response(text=request.match_info["id"])

        app.router.add_get("/{id}", echo)
        async with served(app) as url, client(captured) as asks:

            async def ask(number: int) -> None:
                async with captured.tracer.trace("ask", run_id=str(number)):
                    assert (await asks.get(f"{url}/{number}", timeout=60)).text == str(number)

            await asyncio.gather(*map(ask, range(requests)))
        runs = {span.span_id: span for span in await ended(captured, "ask", requests)}
        servers = {span.parent_id: span for span in await ended(captured, "GET /{id}", requests)}
        for span in captured.by_name["GET"]:
            run, server = runs.pop(span.parent_id), servers.pop(span.span_id)
            assert server.attributes["url.path"] == f"/{run.attributes['asynctrace.run.id']}"
            assert span.ending == "ok"
        assert not runs
        assert not servers


async def test_two_hundred_requests_at_once_each_belong_to_who_made_them() -> None:
    await check_many_at_once()


async def test_none_is_the_default_tracer_at_the_time_of_the_request() -> None:
    async with reached() as url, httpx.AsyncClient(transport=AsyncHTTPXTransport()) as asks:
        for _ in range(2):
            async with capture_spans(default=True) as captured:
                await asks.get(f"{url}/tea")
                await ended(captured, "GET")


# Until the body is over --------------------------------------------------------------------------------------------


async def check_the_span_lasts_until_the_body_is_over() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"begin"
        await may_go_on.wait()
        yield b"end"

    async def give(request: web.Request) -> web.Response:
        return web.Response(body=body())

    may_go_on = asyncio.Event()
    app = web.Application()
    app.router.add_get("/give", give)
    async with (
        capture_spans() as captured,
        served(app, handler_cancellation=True) as url,
        client(captured) as asks,
    ):
        async with asks.stream("GET", f"{url}/give") as answer:
            parts = answer.aiter_raw()
            assert await anext(parts) == b"begin"
            await captured.flush()
            assert captured.spans == ()
            may_go_on.set()
            assert [part async for part in parts] == [b"end"]
        await captured.flush()
        assert_tree(captured.spans, "GET ok")


async def test_the_span_lasts_until_the_body_is_over() -> None:
    await check_the_span_lasts_until_the_body_is_over()


async def test_a_body_that_is_not_wanted_is_no_error() -> None:
    async with capture_spans() as captured, reached() as url, client(captured) as asks:
        async with asks.stream("GET", f"{url}/slow"):
            pass
        async with asks.stream("GET", f"{url}/slow") as answer:
            async for _ in answer.aiter_raw():
                break
        spans = await ended(captured, "GET", 2)
    assert [(span.ending, span.events) for span in spans] == [("ok", ())] * 2


async def test_a_response_that_is_never_closed_ends_its_span_when_it_is_collected() -> None:
    def tea(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Tea())

    async with capture_spans() as captured, client(captured, httpx.MockTransport(tea)) as asks:
        answer = await asks.send(asks.build_request("GET", "http://tea.example"), stream=True)
        await captured.flush()
        assert captured.spans == ()
        del answer
        gc.collect()  # a response and its stream know each other
        (span,) = await ended(captured, "GET")
    assert span.ending == "abandoned"


class Tea(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"Sencha"


async def check_bodies_that_fail() -> None:
    async with capture_spans() as captured, reached() as url, client(captured) as asks:
        with pytest.raises(httpx.RemoteProtocolError):
            await asks.get(f"{url}/broken")
        with pytest.raises(httpx.ReadTimeout):
            await asks.get(f"{url}/slow", timeout=0.3)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await asks.get(f"{url}/slow")
        spans = await ended(captured, "GET", 3)
    assert [span.ending for span in spans] == ["error", "timeout", "cancelled"]
    assert [span.status for span in spans] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    names = [str(span.attributes.get("error.type")).rpartition(".")[2] for span in spans]
    assert names == ["RemoteProtocolError", "ReadTimeout", "None"]


async def test_a_body_that_breaks_off_takes_too_long_or_is_cancelled_says_so() -> None:
    await check_bodies_that_fail()


# Errors ----------------------------------------------------------------------------------------------------------


async def check_errors() -> None:
    async with capture_spans() as captured, reached() as url, client(captured) as asks:
        for code in (204, 404, 503):
            await asks.get(f"{url}/status", params={"code": code})
        with pytest.raises(httpx.ConnectError):
            await asks.get("http://127.0.0.1:1/")
        spans = await ended(captured, "GET", 4)
    assert [span.attributes.get("http.response.status_code") for span in spans] == [204, 404, 503, None]
    assert [span.ending for span in spans] == ["ok", "error", "error", "error"]
    assert [str(span.attributes.get("error.type")).rpartition(".")[2] for span in spans] == [
        "None", "404", "503", "ConnectError"
    ]  # fmt: skip
    assert [[event.name for event in span.events] for span in spans] == [[], [], [], ["exception"]]


async def test_from_400_on_a_status_is_an_error_and_a_request_that_fails_is_one() -> None:
    await check_errors()


async def test_an_exception_of_the_transport_inside_passes_unchanged() -> None:
    raised = LookupError("no tea")

    def refuse(request: httpx.Request) -> httpx.Response:
        raise raised

    async with capture_spans() as captured, client(captured, httpx.MockTransport(refuse)) as asks:
        with pytest.raises(LookupError) as caught:
            await asks.get("http://tea.example")
        await ended(captured, "GET")
    assert caught.value is raised


async def check_an_error_of_ours_breaks_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*arguments: Any, **options: Any) -> Any:
        raise LookupError("tracing")

    async with reached() as url:
        for owner, name in ((httpx.URL, "userinfo"), (asynctrace.ComponentTraceContext, "_end_apart")):
            async with capture_spans() as captured, client(captured) as asks:
                with monkeypatch.context() as patched:
                    patched.setattr(owner, name, property(explode) if owner is httpx.URL else explode)
                    request = httpx.Request("GET", f"{url}/tea")
                    answer = await asks._transport.handle_async_request(request)
                    assert answer.status_code == 200
                    await answer.aread()
                assert captured.tracer.statistics().internal_errors == {"LookupError": 1}


async def test_an_error_of_ours_is_counted_and_breaks_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    await check_an_error_of_ours_breaks_no_request(monkeypatch)


async def test_what_is_no_tracer_is_refused_with_the_right_call() -> None:
    with pytest.raises(asynctrace.MisuseError, match=r"httpx\.AsyncClient\(transport=AsyncHTTPXTransport\(\)\)"):
        AsyncHTTPXTransport(None, "shop")  # type: ignore[arg-type]
    with pytest.raises(asynctrace.MisuseError, match=r"httpx\.Client\(transport=HTTPXTransport\(\)\)"):
        HTTPXTransport(None, "shop")  # type: ignore[arg-type]


def test_what_is_no_transport_is_refused_with_the_right_call() -> None:
    tracer = asynctrace.Tracer(service="shop", exporters=[], journal=False)
    for inner in (tracer, httpx.HTTPTransport()):
        with pytest.raises(asynctrace.MisuseError, match=r"AsyncHTTPXTransport\(\)\): .* tracer=…"):
            AsyncHTTPXTransport(inner)  # type: ignore[arg-type]
    for inner in (tracer, httpx.AsyncHTTPTransport()):
        with pytest.raises(asynctrace.MisuseError, match=r"\(transport=HTTPXTransport\(\)\): .* tracer=…"):
            HTTPXTransport(inner)  # type: ignore[arg-type]


# Without a loop ----------------------------------------------------------------------------------------------------


def check_without_a_loop(url: str) -> None:
    with capture_spans() as captured:
        kind: Any = _httpx.HTTPXTransport
        transport = kind(None, captured.tracer)
        with httpx.Client(transport=transport, timeout=30) as asks, captured.tracer.trace("run"):
            assert asks.get(f"{url}/tea").text
            with pytest.raises(httpx.RemoteProtocolError):
                asks.get(f"{url}/broken")
            with pytest.raises(httpx.ReadTimeout):
                asks.get(f"{url}/slow", timeout=0.3)
            with pytest.raises(httpx.ConnectError):
                asks.get("http://127.0.0.1:1/")
            with asks.stream("GET", f"{url}/slow") as answer:
                assert next(answer.iter_raw()) == b"begin"
                captured.tracer.flush_sync()
                assert len(captured.spans) == 4
    assert_tree(captured.spans, "run ok\n  GET ok\n  GET error\n  GET timeout\n  GET error\n  GET ok")


async def test_a_client_without_a_loop_is_traced_alike() -> None:
    async with reached() as url:
        await asyncio.to_thread(check_without_a_loop, url)


async def test_a_transport_is_opened_and_closed_with_the_client() -> None:
    class Counted(httpx.AsyncHTTPTransport):
        steps: list[str] = []  # noqa: RUF012

        async def __aenter__(self) -> Any:
            self.steps.append("opened")
            return await super().__aenter__()

        async def __aexit__(self, *exc: Any) -> None:
            self.steps.append("closed")
            await super().__aexit__(*exc)

        async def aclose(self) -> None:
            self.steps.append("aclose")
            await super().aclose()

    async with capture_spans() as captured:
        async with client(captured, Counted()):
            pass
        await client(captured, Counted()).aclose()
    assert Counted.steps == ["opened", "closed", "aclose"]


# The checks notice -------------------------------------------------------------------------------------------------


class _EndsWithTheHeaders(AsyncHTTPXTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if isinstance(response.stream, _httpx._AsyncBody):
            response.stream._call.finish()
        return response


class _TellsNobody(_httpx.Caller):
    def open(self, own_request: Any, headers: Any) -> Any:
        return super().open(own_request, {})


class _KnowsNoStatus(AsyncHTTPXTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if isinstance(response.stream, _httpx._AsyncBody):
            response.stream._call._ending = asynctrace.Ending.OK
        return response


class _NeverCloses(HTTPXTransport):
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        if isinstance(response.stream, _httpx._Body):
            response.stream.close = response.stream._inner.close  # type: ignore[method-assign]
        return response


class _SeesNoFailures(_httpx._AsyncBody):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._inner:
            yield part


class _SeesNoFailuresEither(_httpx._Body):
    def __iter__(self) -> Iterator[bytes]:
        yield from self._inner


@pytest.mark.parametrize(
    ("check", "name", "wrong"),
    [
        (check_the_span_lasts_until_the_body_is_over, "AsyncHTTPXTransport", _EndsWithTheHeaders),
        (check_the_trace_goes_on, "Caller", _TellsNobody),
        (check_errors, "AsyncHTTPXTransport", _KnowsNoStatus),
        (check_bodies_that_fail, "_AsyncBody", _SeesNoFailures),
        (check_bodies_that_fail, "_ending_of", lambda error: None),
        (check_a_request_is_described, "_request_of", lambda request: _plain(request)),
    ],
    ids=["ends with the headers", "tells nobody", "knows no status", "sees no failures", "timeouts", "no credentials"],
)
async def test_a_wrong_transport_is_noticed(
    check: Callable[[], Awaitable[None]], name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_httpx, name, wrong)
    with pytest.raises(AssertionError):
        await check()


def _plain(request: httpx.Request) -> Any:
    url = request.url
    return _httpx.Request(request.method, url.scheme, url.netloc.decode(), url.path, url.query.decode(), False)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("HTTPXTransport", _NeverCloses), ("_Body", _SeesNoFailuresEither)],
    ids=["never closes", "sees no failures"],
)
async def test_a_wrong_transport_without_a_loop_is_noticed(
    name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_httpx, name, wrong)
    async with reached() as url:
        with pytest.raises(AssertionError):
            await asyncio.to_thread(check_without_a_loop, url)
