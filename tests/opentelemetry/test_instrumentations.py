"""Instrumentations from PyPI, as they are, record into asynctrace: below our components, and our components below theirs."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from asynctrace import Span, SpanKind, Tracer
from asynctrace.exporters import MemoryExporter
from asynctrace.opentelemetry import TracerProvider

from .far_sides import HTTPServer, asgi_server, http_server, redis_server

pytest.importorskip("openinference.instrumentation.openai", reason="needs the dependency group 'test'")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
"""Of the instrumentations."""


class Traced:
    """A tracer, its provider, and what arrived of it."""

    def __init__(self) -> None:
        self.exporter = MemoryExporter()
        self.tracer = Tracer(service="shop", exporters=[self.exporter], journal=False)
        self.provider = TracerProvider(self.tracer)

    def spans(self) -> dict[str, Span]:
        """All of them, by name."""
        assert self.tracer.flush_sync(30).complete
        assert not self.tracer.statistics().internal_errors
        return {span.name: span for span in self.exporter.spans}


@pytest.fixture
def traced(caplog: pytest.LogCaptureFixture) -> Iterator[Traced]:
    made = Traced()
    with caplog.at_level(logging.WARNING, "opentelemetry"):
        yield made
    made.tracer.shutdown_sync()
    assert [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry")] == []


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with http_server() as running:
        yield running


@pytest.fixture
def threads_as_they_were() -> Iterator[None]:
    """The instrumentation of threads leaves a patch of timers behind: it ends with the test."""
    owners = (threading.Thread, threading.Timer, ThreadPoolExecutor)
    before = {owner: dict(vars(owner)) for owner in owners}
    yield
    for owner in owners:
        for name in {"start", "run", "submit"} & set(vars(owner)):
            if name in before[owner]:
                setattr(owner, name, before[owner][name])
            else:
                delattr(owner, name)


@pytest.fixture
def instrumented(request: pytest.FixtureRequest, threads_as_they_were: None, traced: Traced) -> Iterator[Any]:
    """The instrumentor that the test's parameter makes, on our provider."""
    instrumentor = request.param()
    instrumentor.instrument(tracer_provider=traced.provider)
    yield instrumentor
    instrumentor.uninstrument()


def httpx_instrumentor() -> Any:
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

    return HTTPXClientInstrumentor()


def redis_instrumentor() -> Any:
    from opentelemetry.instrumentation.redis import RedisInstrumentor

    return RedisInstrumentor()


def threading_instrumentor() -> Any:
    from opentelemetry.instrumentation.threading import ThreadingInstrumentor

    return ThreadingInstrumentor()


def openai_v2() -> Any:
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

    return OpenAIInstrumentor()


def openinference() -> Any:
    from openinference.instrumentation.openai import OpenAIInstrumentor

    return OpenAIInstrumentor()


def scope_of(span: Span) -> object:
    return span.attributes["otel.scope.name"]


# HTTP --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instrumented", [httpx_instrumentor], indirect=True)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_request_of_httpx_is_a_client_span_and_its_ids_travel(
    traced: Traced, instrumented: Any, server: HTTPServer, is_async: bool
) -> None:
    async def ask() -> None:
        async with httpx.AsyncClient() as client:
            await client.get(f"{server.url}/404")

    with traced.tracer.trace_component("component"):
        if is_async:
            asyncio.run(ask())
        else:
            httpx.get(f"{server.url}/404")
    spans = traced.spans()
    assert (spans["GET"].kind, spans["GET"].parent_id) == (SpanKind.CLIENT, spans["component"].span_id)
    assert scope_of(spans["GET"]) == "opentelemetry.instrumentation.httpx"
    assert spans["GET"].ending == "error"
    flags = f"{spans['GET'].flags & 0xFF:02x}"
    assert server.headers[0]["traceparent"] == f"00-{spans['GET'].trace_id}-{spans['GET'].span_id}-{flags}"
    assert flags == "03", "sampled, and a random trace id"


def test_a_request_to_fastapi_is_a_server_span_around_our_components(traced: Traced) -> None:
    from fastapi import FastAPI
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    app = FastAPI()

    @app.get("/waits/{n}")
    async def waits(n: int) -> int:
        async with traced.tracer.trace_component("in a coroutine"):
            return n

    @app.get("/works/{n}")
    def works(n: int) -> int:
        with traced.tracer.trace_component("in a thread"):
            return n

    @app.get("/fails")
    async def fails() -> int:
        raise ValueError("no")

    FastAPIInstrumentor.instrument_app(app, tracer_provider=traced.provider)
    with asgi_server(app) as url, traced.tracer.trace("caller") as caller:
        headers: dict[str, str] = {}
        traced.tracer.inject(headers)
        assert httpx.get(f"{url}/waits/1", headers=headers).status_code == 200
        assert httpx.get(f"{url}/works/1", headers=headers).status_code == 200
        assert httpx.get(f"{url}/fails").status_code == 500
    spans = traced.spans()
    for component, route in (("in a coroutine", "GET /waits/{n}"), ("in a thread", "GET /works/{n}")):
        assert (spans[route].kind, spans[route].parent_id) == (SpanKind.SERVER, caller.span_id)
        assert spans[component].parent_id == spans[route].span_id
    assert (spans["GET /fails"].ending, spans["GET /fails"].parent_id) == ("error", "")
    assert spans["GET /fails"].events[0].attributes["exception.type"] == "ValueError"


# Stores ------------------------------------------------------------------------------------------------------------


def test_a_statement_of_sqlalchemy_is_a_client_span(traced: Traced) -> None:
    import sqlalchemy
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

    engine = sqlalchemy.create_engine("sqlite://")
    instrumentor = SQLAlchemyInstrumentor()
    instrumentor.instrument(engine=engine, tracer_provider=traced.provider)
    try:
        with traced.tracer.trace("run"), traced.tracer.trace_component("component"), engine.connect() as connection:
            assert connection.execute(sqlalchemy.text("SELECT 6 * 7")).scalar() == 42
            with pytest.raises(sqlalchemy.exc.OperationalError):
                connection.execute(sqlalchemy.text("SELECT * FROM nothing"))
    finally:
        instrumentor.uninstrument()
        engine.dispose()
    assert traced.tracer.flush_sync(30).complete
    statements = [span for span in traced.exporter.spans if span.kind is SpanKind.CLIENT]
    assert {span.parent_id for span in traced.exporter.spans if span.name.startswith(("SELECT", "connect"))} == {
        traced.spans()["component"].span_id
    }
    assert [span.ending for span in statements if span.name.startswith("SELECT")] == ["ok", "error"]
    assert "SELECT 6 * 7" in repr(statements)


@pytest.mark.parametrize("instrumented", [redis_instrumentor], indirect=True)
def test_commands_of_redis_are_client_spans(traced: Traced, instrumented: Any, tmp_path: Path) -> None:
    import redis
    import redis.asyncio

    async def ask(socket: str) -> None:
        async with redis.asyncio.Redis(unix_socket_path=socket) as client:
            await client.set("tea", "green")
            async with client.pipeline() as pipeline:
                await pipeline.get("tea").get("coffee").execute()

    with redis_server(tmp_path) as socket, traced.tracer.trace_component("component"):
        with redis.Redis(unix_socket_path=socket) as client:
            assert client.get("tea") is None
        asyncio.run(ask(socket))
    spans = traced.spans()
    component = spans.pop("component")
    assert {"GET", "SET", "GET GET"} <= set(spans)
    assert {span.parent_id for span in spans.values()} == {component.span_id}
    assert {scope_of(span) for span in spans.values()} == {"opentelemetry.instrumentation.redis"}


# Threads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instrumented", [threading_instrumentor], indirect=True)
def test_the_instrumentation_of_threads_carries_our_components(traced: Traced, instrumented: Any) -> None:
    def work() -> None:
        with traced.tracer.trace_component("there"):
            pass

    with traced.tracer.trace_component("component"), ThreadPoolExecutor(1) as pool:
        pool.submit(work).result(30)
    spans = traced.spans()
    assert spans["there"].parent_id == spans["component"].span_id


# Models ------------------------------------------------------------------------------------------------------------

MESSAGES: Any = [{"role": "user", "content": "what to drink?"}]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("instrumented", [openai_v2, openinference], indirect=True)
def test_a_chat_with_a_model_is_a_span_with_its_tokens(
    traced: Traced, instrumented: Any, server: HTTPServer, streams: bool, is_async: bool
) -> None:
    import openai

    options: dict[str, Any] = {"model": "m-1", "messages": MESSAGES}
    if streams:
        options |= {"stream": True, "stream_options": {"include_usage": True}}

    async def chat() -> str:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0) as client:
            answer = await client.chat.completions.create(**options)
            if not streams:
                return str(answer.choices[0].message.content)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices])

    def chat_sync() -> str:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0) as client:
            answer = client.chat.completions.create(**options)
            if not streams:
                return str(answer.choices[0].message.content)
            return "".join([chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices])

    with traced.tracer.trace("agent"), traced.tracer.trace_component("turn"):
        assert (asyncio.run(chat()) if is_async else chat_sync()) == "tea"
    spans = traced.spans()
    turn = spans.pop("turn")
    del spans["agent"]
    (span,) = spans.values()
    assert span.parent_id == turn.span_id
    tokens = {key: value for key, value in span.attributes.items() if "token" in key and value in (2, 3)}
    assert sorted(tokens.values())[:2] == [2, 3]
    assert span.ending == "ok"
    assert str(scope_of(span)).startswith(("opentelemetry.util.genai", "openinference.instrumentation.openai"))


@pytest.mark.parametrize("instrumented", [openai_v2, openinference], indirect=True)
def test_a_chat_that_fails_is_an_error(traced: Traced, instrumented: Any, server: HTTPServer) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0)
    with pytest.raises(openai.NotFoundError), client:
        client.chat.completions.create(model="missing", messages=MESSAGES)
    (span,) = traced.spans().values()
    assert span.ending == "error"
    assert "no such model" in span.status_message + repr(span.events)
