"""What tracing itself sends is nobody's span, also where every client of the process is instrumented."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import httpx
import pytest
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import asynctrace
from asynctrace import Batch, ExportResult
from asynctrace.exporters import OTLPExporter
from asynctrace.middleware import AsyncHTTPXTransport, _client, trace_config
from asynctrace.testing import FaultServer

pytestmark = pytest.mark.anyio

ROUNDS = 5


@pytest.fixture
def every_session_is_instrumented(monkeypatch: pytest.MonkeyPatch) -> None:
    """With our own door, in the way in which OpenTelemetry's instrumentation does it: in the constructor."""
    construct = aiohttp.ClientSession.__init__

    def instrumented(session: aiohttp.ClientSession, *arguments: Any, **options: Any) -> None:
        options["trace_configs"] = [*(options.get("trace_configs") or ()), trace_config()]
        construct(session, *arguments, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", instrumented)


async def check_exports_make_no_spans(make_exporter: Callable[[str], asynctrace.Exporter] = OTLPExporter) -> None:
    """Each round exports what the round before has made; a span of an export would be among it."""
    with FaultServer.in_thread() as far_side, FaultServer.in_thread() as shop:
        async with asynctrace.configure(
            service="shop", exporters=[make_exporter(far_side.url)], journal=False
        ) as tracer:
            for _ in range(ROUNDS):
                async with tracer.trace("round"):
                    pass
                await tracer.flush()
            async with aiohttp.ClientSession() as session, session.get(shop.url):
                pass
        names = [span.name for span in far_side.spans]
        assert [name for name in names if name != "GET"] == ["round"] * ROUNDS
        assert names.count("POST") == 0
        assert names.count("GET") <= 1, "the request of the application, where that is traced"
        assert not any("traceparent" in request.headers for request in far_side.requests)
    assert tracer.receipt().complete


@pytest.fixture(autouse=True)
def default_tracer_of_before() -> Iterator[None]:
    before = asynctrace.runtime.set_default(None)
    yield
    asynctrace.runtime.set_default(before)


@pytest.mark.usefixtures("every_session_is_instrumented")
async def test_exports_make_no_spans_where_every_aiohttp_session_has_our_trace_config() -> None:
    await check_exports_make_no_spans()


async def test_exports_make_no_spans_where_opentelemetry_instruments_aiohttp() -> None:
    collected, provider, instrumentor = InMemorySpanExporter(), TracerProvider(), AioHttpClientInstrumentor()
    provider.add_span_processor(SimpleSpanProcessor(collected))
    instrumentor.instrument(tracer_provider=provider)
    try:
        await check_exports_make_no_spans()
    finally:
        instrumentor.uninstrument()
        provider.shutdown()
    assert [span.name for span in collected.get_finished_spans()] == ["GET"], "the application's own request is traced"


class ThroughHTTPX:
    """An exporter of a program's own, whose client is traced like all of its clients."""

    name = "through httpx"

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.AsyncClient(transport=AsyncHTTPXTransport())

    async def export(self, batch: Batch) -> ExportResult:
        exporter = OTLPExporter(self._url)  # what it sends is OTLP; that it asked somebody before is what counts here
        await self._client.get(self._url)
        result = await exporter.export(batch)
        await exporter.aclose()
        return result

    async def aclose(self) -> None:
        await self._client.aclose()


async def test_an_exporter_of_the_programs_own_makes_no_spans_with_a_client_that_is_traced() -> None:
    await check_exports_make_no_spans(ThroughHTTPX)


# The checks notice -------------------------------------------------------------------------------------------------


class _LooksAtNothing(_client.Caller):
    def open(self, own_request: Any, headers: Any) -> Any:
        tracer = asynctrace.runtime.default_tracer()
        request = self._describe(own_request)
        span = tracer._open_apart(request.method, parent=None)
        return _client.Call(tracer, span)


@pytest.mark.usefixtures("every_session_is_instrumented")
@pytest.mark.parametrize("make_exporter", [OTLPExporter, ThroughHTTPX])
async def test_a_door_that_traces_exports_is_noticed(make_exporter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asynctrace.middleware._aiohttp_client.Caller", _LooksAtNothing)
    monkeypatch.setattr("asynctrace.middleware._httpx.Caller", _LooksAtNothing)
    with pytest.raises(AssertionError):
        await check_exports_make_no_spans(make_exporter)
