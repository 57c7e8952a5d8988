"""What a request's span says: its name, its attributes, its ending, its place; and what stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import asynctrace
from asynctrace import ALWAYS_OFF, ConfigurationError, Limits, MisuseError, Span, SpanKind, StatusCode
from asynctrace.middleware import ASGIMiddleware, Trust, _exchange
from asynctrace.testing import assert_no_context_leaked, assert_tree, capture_spans

from .asgi import Server, http_scope, text_app, watched

pytestmark = pytest.mark.anyio

Door = Callable[..., Any]


async def served(app: Any, scope: dict[str, Any] | None = None, *, door: Door = ASGIMiddleware, **options: Any) -> Span:
    """The one span of a request."""
    async with watched() as captured:
        await Server(door(app, captured.tracer, **options), scope or http_scope()).run()
        await captured.flush()
        (span,) = captured.spans
    return span


# Name and attributes -------------------------------------------------------------------------------------------------


async def test_a_request_is_a_server_span_in_the_words_of_the_conventions() -> None:
    span = await served(text_app(), http_scope(query_string=b"page=2&token=abc&sig=def"))
    assert (span.name, span.kind, span.ending, span.parent_id) == ("GET /items/{id}", SpanKind.SERVER, "ok", "")
    query = str(span.attributes["url.query"])
    assert query.startswith("page=2&token=")
    assert "abc" not in query
    assert "def" not in query
    expected = {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/items/{id}",
        "url.path": "/items/7",
        "url.scheme": "http",
        "server.address": "shop.example.com",
        "server.port": 80,
        "client.address": "192.0.2.7",
        "client.port": 50123,
        "network.protocol.version": "1.1",
        "user_agent.original": "tester/1",
        "asynctrace.run.name": "GET /items/{id}",
    }
    assert expected.items() <= span.attributes.items()
    assert span.attributes.keys() - expected.keys() == {"url.query", "asynctrace.ending"}


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        (b"shop.example.com:8443", "shop.example.com", 8443),
        (b"[2001:db8::1]:8000", "2001:db8::1", 8000),
        (b"[2001:db8::1]", "2001:db8::1", 80),
        (b"shop:port", "shop", 80),
        (b"", "127.0.0.1", 8000),
    ],
)
async def test_the_server_is_whom_the_client_asked_for(host: bytes, address: str, port: int) -> None:
    span = await served(text_app(), http_scope(headers=[(b"host", host)]))
    assert (span.attributes["server.address"], span.attributes["server.port"]) == (address, port)


async def test_what_a_client_makes_up_becomes_no_name() -> None:
    async def no_route(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body"})

    span = await served(no_route, http_scope("/made/up", method="BREW"))
    assert span.name == "HTTP"
    assert span.attributes["http.request.method"] == "_OTHER"
    assert span.attributes["http.request.method_original"] == "BREW"
    assert "http.route" not in span.attributes


async def check_names_are_few(door: Door = ASGIMiddleware) -> None:
    names = {(await served(text_app(), http_scope(f"/items/{number}"), door=door)).name for number in range(3)}
    assert names == {"GET /items/{id}"}


async def test_names_are_as_few_as_routes() -> None:
    await check_names_are_few()


async def test_a_door_that_names_by_path_is_noticed() -> None:
    def by_path(app: Any, tracer: Any) -> ASGIMiddleware:
        return ASGIMiddleware(app, tracer, route=lambda scope: str(scope["path"]))

    with pytest.raises(AssertionError, match="items"):
        await check_names_are_few(by_path)


async def test_a_route_can_be_found_by_the_program() -> None:
    span = await served(text_app(), route=lambda scope: "/shelf/{item}")
    assert (span.name, span.attributes["http.route"]) == ("GET /shelf/{item}", "/shelf/{item}")


async def test_headers_are_captured_where_they_are_named_and_secrets_in_them_masked() -> None:
    headers = [
        (b"x-request-id", b"r-1"),
        (b"x-request-id", b"r-2"),
        (b"authorization", b"Bearer abcdefgh"),
        (b"x-no", b"1"),
    ]
    span = await served(
        text_app(),
        http_scope(headers=headers),
        capture_headers=["X-Request-Id", "authorization"],
        capture_response_headers="content-type",
    )
    assert list(span.attributes["http.request.header.x-request-id"]) == ["r-1", "r-2"]  # type: ignore[arg-type]
    assert "abcdefgh" not in repr(span)
    assert list(span.attributes["http.response.header.content-type"]) == ["text/plain"]  # type: ignore[arg-type]
    assert not any("x-no" in key for key in span.attributes)


async def test_no_header_and_no_body_is_captured_unasked() -> None:
    span = await served(text_app(), http_scope(headers=[(b"x-request-id", b"r-1"), (b"cookie", b"s=secret")]))
    assert not [key for key in span.attributes if "header" in key or "body" in key]
    assert "secret" not in repr(span)


async def test_the_limits_of_a_span_hold_for_a_request_too() -> None:
    async with watched(limits=Limits(attributes=4)) as captured:
        for _ in range(2):
            await Server(ASGIMiddleware(text_app(), captured.tracer), http_scope()).run()
        await captured.flush()
        assert {(len(span.attributes), span.dropped_attributes > 0) for span in captured.spans} == {(5, True)}


async def test_a_masker_is_asked_for_each_request() -> None:
    asked = []

    def masker(key: str, text: str) -> str:
        asked.append(key)
        return f"{text[:3]}…" if key == "user_agent.original" else text

    async with watched(mask=masker) as captured:
        app = ASGIMiddleware(text_app(), captured.tracer)
        for _ in range(2):
            await Server(app, http_scope()).run()
        await captured.flush()
        assert {span.attributes["user_agent.original"] for span in captured.spans} == {"tes…"}
    assert asked.count("user_agent.original") == 2


async def test_what_clients_say_of_themselves_is_not_kept_without_bound() -> None:
    async with watched() as captured:
        app = ASGIMiddleware(text_app(), captured.tracer)
        for number in range(1200):
            agent = b"x" * 1000 if number % 2 else f"tester/{number}".encode()
            await Server(app, http_scope(headers=[(b"user-agent", agent)])).run()
        await captured.flush()
        assert len({span.attributes["user_agent.original"] for span in captured.spans}) == 601
        assert app._prepared is not None
        assert len(app._prepared._kept) <= 512
        assert max(len(key[4]) for key in app._prepared._kept) < 20  # type: ignore[index, misc, arg-type]


# Endings -------------------------------------------------------------------------------------------------------------


async def check_statuses(door: Door = ASGIMiddleware) -> None:
    found = {}
    for status in (200, 302, 404, 500, 503):
        span = await served(text_app(status), door=door)
        found[status] = (span.ending, span.status, span.attributes.get("error.type"))
    assert found == {
        200: ("ok", StatusCode.OK, None),
        302: ("ok", StatusCode.OK, None),
        404: ("ok", StatusCode.UNSET, None),
        500: ("error", StatusCode.ERROR, "500"),
        503: ("error", StatusCode.ERROR, "503"),
    }


async def test_the_servers_failures_are_errors_and_the_clients_are_not() -> None:
    await check_statuses()


@pytest.mark.parametrize("limit", [400, 600])
async def test_a_door_that_judges_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    def judged(span: Any, status: int) -> bool:
        span.set_attribute("http.response.status_code", status)
        if status >= limit:
            span.set_attribute("error.type", str(status))
        return status >= limit

    monkeypatch.setattr(_exchange, "set_status_code", judged)
    with pytest.raises(AssertionError):
        await check_statuses()


async def check_exceptions_pass(door: Door = ASGIMiddleware) -> None:
    raised = LookupError("no tea")

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        scope["path_template"] = "/items/{id}"
        raise raised

    async with watched() as captured:
        with pytest.raises(BaseException, match="no tea") as caught:
            await Server(door(broken, captured.tracer), http_scope()).run()
        assert caught.value is raised
        assert raised.__context__ is None
        await captured.flush()
        span = captured.find("GET /items/{id}")
    assert (span.ending, span.attributes["error.type"], span.status_message) == ("error", "LookupError", "no tea")
    assert [event.name for event in span.events] == ["exception"]


async def test_the_applications_exception_passes_unchanged() -> None:
    await check_exceptions_pass()


async def test_a_door_that_raises_an_exception_of_its_own_is_noticed() -> None:
    class Wrapping(ASGIMiddleware):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await super().__call__(scope, receive, send)
            except LookupError as error:
                raise RuntimeError("no tea") from error

    with pytest.raises(AssertionError):
        await check_exceptions_pass(Wrapping)


async def test_an_exception_that_follows_an_answer_of_500_belongs_to_the_request() -> None:
    async def answers_and_raises(scope: Any, receive: Any, send: Any) -> None:
        """As Starlette's outermost middleware does."""
        await text_app(500)(scope, receive, send)
        raise LookupError("no tea")

    async with watched() as captured:
        with pytest.raises(LookupError):
            await Server(ASGIMiddleware(answers_and_raises, captured.tracer), http_scope()).run()
        await captured.flush()
        assert_tree(captured.spans, "GET /items/{id} error")
        (span,) = captured.spans
    assert [event.attributes["exception.type"] for event in span.events] == ["LookupError"]


async def test_an_application_that_returns_without_an_answer_is_an_error() -> None:
    async def forgets(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    span = await served(forgets)
    assert (span.ending, span.attributes["error.type"]) == ("error", "response_incomplete")


# Its place -----------------------------------------------------------------------------------------------------------

CALLER = http_scope(headers=[(b"traceparent", b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01")])


async def test_the_request_goes_on_in_its_callers_trace() -> None:
    span = await served(text_app(), dict(CALLER))
    assert (span.trace_id, span.parent_id, span.links) == ("ab" * 16, "cd" * 8, ())


async def test_a_caller_at_a_public_edge_is_only_linked() -> None:
    span = await served(text_app(), dict(CALLER), trust=Trust.LINK)
    assert span.trace_id != "ab" * 16
    assert [(link.trace_id, link.span_id) for link in span.links] == [("ab" * 16, "cd" * 8)]


async def test_a_caller_can_be_ignored() -> None:
    span = await served(text_app(), dict(CALLER), trust="ignore")
    assert span.trace_id != "ab" * 16
    assert span.links == ()


async def check_one_span_for_a_request(door: Door = ASGIMiddleware) -> None:
    async with watched() as captured:

        async def inner(scope: Any, receive: Any, send: Any) -> None:
            async with captured.tracer.trace_component("inside"):
                await text_app()(scope, receive, send)

        app = door(door(door(inner, captured.tracer), captured.tracer), captured.tracer)
        await Server(app, http_scope()).run()
        await captured.flush()
        assert_tree(captured.spans, "GET /items/{id} ok\n  inside ok")


async def test_however_often_it_is_mounted_there_is_one_span() -> None:
    await check_one_span_for_a_request()


async def test_a_door_that_does_not_look_for_itself_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(ASGIMiddleware):
        def _open(self, scope: Any, receive: Any, send: Any) -> Any:
            scope.pop(_exchange.MARK, None)
            return super()._open(scope, receive, send)

    with pytest.raises(AssertionError, match="the trace differs"):
        await check_one_span_for_a_request(Forgetful)


async def test_two_tracers_make_a_span_each_and_share_nothing() -> None:
    async with watched() as one, watched() as other:

        async def inner(scope: Any, receive: Any, send: Any) -> None:
            async with one.tracer.trace_component("of one"), other.tracer.trace_component("of other"):
                await text_app()(scope, receive, send)

        await Server(ASGIMiddleware(ASGIMiddleware(inner, other.tracer), one.tracer), http_scope()).run()
        await one.flush()
        await other.flush()
        assert_tree(one.spans, "GET /items/{id} ok\n  of one ok")
        assert_tree(other.spans, "GET /items/{id} ok\n  of other ok")
        assert one.spans[0].trace_id != other.spans[0].trace_id


async def test_a_scope_that_is_served_again_is_traced_again() -> None:
    async with watched() as captured:
        scope, app = http_scope(), ASGIMiddleware(text_app(), captured.tracer)
        for _ in range(2):
            await Server(app, scope).run()
        await captured.flush()
        assert len(captured.spans) == 2


async def test_without_a_tracer_it_is_the_default_one_of_that_moment() -> None:
    app = ASGIMiddleware(text_app())
    for _ in range(2):
        async with watched(default=True) as captured:
            await Server(app, http_scope()).run()
            await captured.flush()
            assert_tree(captured.spans, "GET /items/{id} ok")


async def test_what_is_made_in_the_request_is_below_it_and_nothing_is_current_afterwards() -> None:
    async with watched(default=True) as captured:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            asynctrace.add_log("asked")
            async with asynctrace.trace_component("look up"):
                await text_app()(scope, receive, send)

        await Server(ASGIMiddleware(app), http_scope()).run()
        assert_no_context_leaked()
        await captured.flush()
        assert_tree(captured.spans, "GET /items/{id} ok\n  look up ok")
        assert captured.find("GET /items/{id}").events[0].name == "asked"


async def test_a_tracer_inside_is_done_before_the_one_outside() -> None:
    async with watched() as one, watched() as other:
        inside = ASGIMiddleware(text_app(), other.tracer)

        async def asks_twice(scope: Any, receive: Any, send: Any) -> None:
            await inside(scope, receive, send)
            await ASGIMiddleware(inside, one.tracer)(scope, receive, send)

        await Server(ASGIMiddleware(asks_twice, one.tracer), http_scope()).run()
        await one.flush()
        await other.flush()
        assert (len(one.spans), len(other.spans)) == (1, 2)


async def test_a_function_for_routes_that_fails_costs_the_route_and_nothing_else() -> None:
    def fails(scope: Any) -> str:
        raise LookupError("no route")

    async with capture_spans() as captured:
        await Server(ASGIMiddleware(text_app(404), captured.tracer, route=fails), http_scope()).run()
        await captured.flush()
        (span,) = captured.spans
        assert (span.name, span.attributes["http.response.status_code"]) == ("GET", 404)
        assert captured.tracer.statistics().internal_errors == {"LookupError": 1}


# What passes through -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/static/", "/static/tea.png"])
async def test_excluded_paths_have_no_span(path: str) -> None:
    async with watched() as captured:
        app = ASGIMiddleware(text_app(), captured.tracer, excluded=("/healthz", "/static/*"))
        assert (await Server(app, http_scope(path)).run()).status == 200
        for traced in ("/healthz/deep", "/static"):
            await Server(app, http_scope(traced)).run()
        await captured.flush()
        assert {span.attributes["url.path"] for span in captured.spans} == {"/healthz/deep", "/static"}


async def test_scopes_of_other_types_pass_through_untouched() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    async with watched() as captured:
        for kind in ("lifespan", "telepathy"):
            scope = {"type": kind}
            server = Server(app, scope)
            await ASGIMiddleware(app, captured.tracer)(scope, server.receive, server.send)
            assert seen.pop() == (scope, server.receive, server.send)
            assert scope == {"type": kind}
        await captured.flush()
        assert captured.spans == ()


async def test_what_is_not_sampled_is_served_and_not_recorded() -> None:
    async with watched(sampler=ALWAYS_OFF) as captured:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            async with captured.tracer.trace_component("inside"):
                await text_app()(scope, receive, send)

        assert (await Server(ASGIMiddleware(app, captured.tracer), http_scope()).run()).status == 200
        await captured.flush()
        assert captured.spans == ()


async def test_messages_are_handed_on_as_they_are() -> None:
    async with watched() as captured:
        body = {"type": "http.request", "body": b"{}", "more_body": False, "odd": 1}
        received = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            received.append(await receive())
            await text_app()(scope, receive, send)

        server = await Server(ASGIMiddleware(app, captured.tracer), http_scope(), [body]).run()
        assert received[0] is body
        assert [message["type"] for message in server.sent] == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"excluded": ["healthz"]}, ConfigurationError),
        ({"excluded": [1]}, ConfigurationError),
        ({"trust": "everybody"}, ConfigurationError),
        ({"capture_headers": [b"host"]}, ConfigurationError),
        ({"flush": -1}, ConfigurationError),
        ({"flush": True}, ConfigurationError),
        ({"background_after": "soon"}, ConfigurationError),
        ({"route": "/items"}, ConfigurationError),
        ({"tracer": "shop"}, MisuseError),
        ({"app": None}, MisuseError),
    ],
)
async def test_a_wrong_option_is_an_error_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        ASGIMiddleware(**({"app": text_app()} | options))
