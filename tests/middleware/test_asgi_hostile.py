"""Whatever a client sends and however odd a server's scope is: the application is served as if nobody looked."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrace import Span
from asynctrace._diagnostics import Diagnostics
from asynctrace.middleware import ASGIMiddleware, _asgi, _failures
from asynctrace.middleware._exchange import MARK
from asynctrace.middleware._http import redacted_query, request_name, split_host
from asynctrace.runtime import set_default
from asynctrace.testing import assert_no_context_leaked, capture_spans

from .asgi import Server, http_scope, websocket_scope

octets = st.binary(max_size=60)
header_names = st.one_of(
    octets, st.sampled_from([b"host", b"user-agent", b"traceparent", b"tracestate", b"baggage", b"b3", b"x-b3-traceid"])
)
headers = st.lists(st.tuples(header_names, octets), max_size=12)
texts = st.text(max_size=60)
odd = st.one_of(
    st.none(), st.integers(), texts, octets, st.lists(st.one_of(octets, st.integers()), max_size=3), st.floats()
)
scopes = st.dictionaries(
    st.sampled_from(
        ["headers", "method", "path", "query_string", "scheme", "server", "client", "http_version", "root_path", "route",
         "path_template", "path_params", "app_root_path", "state", MARK]
    ),
    odd,
    max_size=8,
)  # fmt: skip


def serve(scope: dict[str, Any], **options: Any) -> tuple[tuple[Span, ...], dict[str, int], list[Any]]:
    """Serve one request: its spans, the errors of the middleware's own, and what the application met."""
    met = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        met.append(await receive())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> tuple[tuple[Span, ...], dict[str, int]]:
        async with capture_spans() as captured:
            server = await Server(ASGIMiddleware(app, captured.tracer, **options), scope).run()
            assert [message["type"] for message in server.sent] == ["http.response.start", "http.response.body"]
            await captured.flush()
            assert captured.tracer.statistics().open == 0
            return captured.spans, dict(captured.tracer.statistics().internal_errors)

    spans, errors = asyncio.run(run())
    assert_no_context_leaked()
    assert met == [{"type": "http.request", "body": b""}]
    return spans, errors


def check_hostile_headers(pairs: list[tuple[bytes, bytes]], path: str, query: bytes, method: str) -> None:
    scope = http_scope(headers=pairs, path=path, query_string=query, method=method)
    spans, errors = serve(scope, capture_headers=["host", "x-odd"])
    assert errors == {}
    (span,) = spans
    assert span.ending == "ok"
    assert span.name in {request_name(method), "HTTP"}
    assert span.attributes["http.response.status_code"] == 204


@settings(max_examples=80, deadline=None)
@given(headers, texts, octets, st.one_of(st.sampled_from(["GET", "get", "BREW", "_OTHER"]), texts))
def test_whatever_a_client_sends_its_request_is_served_and_traced(
    pairs: list[tuple[bytes, bytes]], path: str, query: bytes, method: str
) -> None:
    check_hostile_headers(pairs, path, query, method)


def test_a_door_that_reads_headers_as_utf_8_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def strict(tracer: Any, scope: Any, headers: Any) -> Any:
        named = {name: value.decode("utf-8").encode() for name, value in headers}
        return named, {}

    monkeypatch.setattr(_asgi, "_read", strict)
    with pytest.raises((AssertionError, ValueError)):
        check_hostile_headers([(b"host", b"\xff\xfe")], "/", b"", "GET")


@settings(max_examples=80, deadline=None)
@given(scopes, st.sets(st.sampled_from(["headers", "method", "path", "query_string", "client", "server"])))
def test_however_odd_a_scope_is_the_application_is_served(changes: dict[str, Any], missing: set[str]) -> None:
    scope = http_scope() | changes
    for name in missing:
        scope.pop(name, None)
    spans, _ = serve(scope, excluded=("/healthz", "/static/*"))
    assert len(spans) <= 1


ODD: tuple[dict[str, Any], ...] = (
    {"headers": 7},
    {"headers": [b"host"]},
    {"query_string": "text"},
    {"client": 3},
    {"method": []},
    {"path": {}},
)


def check_odd_scopes() -> None:
    for changes in ODD:
        serve(http_scope() | changes)


def test_odd_scopes_are_served() -> None:
    check_odd_scopes()


def test_a_door_without_a_failure_boundary_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unguarded(self: Any, scope: Any, receive: Any, send: Any) -> Any:
        tracer = self.tracer
        run = self._run(tracer, scope)
        return _asgi.HTTPExchange(self, tracer, run._enter(), scope, receive, send)

    monkeypatch.setattr(ASGIMiddleware, "_open", unguarded)
    with pytest.raises((TypeError, AttributeError)):
        check_odd_scopes()


@pytest.mark.parametrize("broken", ["_name", "_start", "_end", "_close", "_describe_end"])
def test_an_error_of_the_middlewares_own_is_counted_and_reaches_nobody(
    monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Whichever of its steps fails; what it makes of the span then is not promised."""
    from asynctrace.middleware._exchange import HTTPExchange

    def fails(self: Any, *arguments: Any, **options: Any) -> Any:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(HTTPExchange, broken, fails)
    _, errors = serve_and_leave_open()
    assert set(errors) == {"ZeroDivisionError"}


def serve_and_leave_open() -> tuple[int, dict[str, int]]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"tea"})

    async def run() -> tuple[int, dict[str, int]]:
        async with capture_spans() as captured:
            server = await Server(ASGIMiddleware(app, captured.tracer), http_scope()).run()
            assert captured.tracer.statistics().open == 0
            return server.status, dict(captured.tracer.statistics().internal_errors)

    status, errors = asyncio.run(run())
    assert status == 200
    assert_no_context_leaked()
    return status, errors


def test_odd_messages_of_websockets_are_handed_on() -> None:
    messages = [
        {},
        {"type": 7},
        {"type": "websocket.close", "code": "never"},
        {"type": "websocket.http.response.start"},
    ]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
            await receive()

    async def run() -> None:
        async with capture_spans() as captured:
            incoming = [{}, {"type": None}, {"type": "websocket.disconnect", "code": "odd"}]
            server = Server(ASGIMiddleware(app, captured.tracer), websocket_scope(), incoming, stays=False)
            await server.run()
            assert server.sent == messages
            assert captured.tracer.statistics().open == 0

    asyncio.run(run())


# The parts, each by itself -----------------------------------------------------------------------------------------------


@given(st.text(max_size=200))
def test_redacting_a_query_only_ever_replaces_values(query: str) -> None:
    redacted = redacted_query(query)
    assert [pair.partition("=")[0] for pair in redacted.split("&")] == [
        pair.partition("=")[0] for pair in query.split("&")
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ""),
        ("page=2", "page=2"),
        ("page=2&sig=abc&x", "page=2&sig=REDACTED&x"),
        ("X-Goog-Signature=a&Signature=c", "X-Goog-Signature=REDACTED&Signature=REDACTED"),
        ("AWSAccessKeyId=b", "AWSAccessKeyId=REDACTED"),
        ("access_token=abc&pass%77ord=def", "access_token=REDACTED&pass%77ord=REDACTED"),
        ("api+key=abc", "api+key=REDACTED"),
        ("token=", "token="),
        ("password=a=b", "password=REDACTED"),
    ],
)  # fmt: skip
def test_values_that_are_secret_by_their_names_are_redacted(query: str, expected: str) -> None:
    assert redacted_query(query) == expected


def test_a_query_of_any_length_is_cut() -> None:
    assert len(redacted_query("x=" + "a" * 100_000)) == 8192


@given(st.text(max_size=60))
def test_any_host_header_names_something(host: str) -> None:
    address, port = split_host(host, "http")
    assert isinstance(address, str)
    assert port is None or 0 <= port <= 99_999


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_without_a_default_tracer_requests_are_answered_and_it_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "no url")
    monkeypatch.setattr(_failures, "_without_tracer", Diagnostics(time.monotonic_ns))  # it tells once a minute
    before = set_default(None)
    try:
        server = asyncio.run(Server(ASGIMiddleware(_answer), http_scope("/")).run())
    finally:
        set_default(before)
    assert server.sent[0]["status"] == 204
    assert "middleware.no_tracer" in capsys.readouterr().err
