"""Every public name as a typed program uses it. Checked by `mypy --strict` and pyright, never run.

`assert_type` says what a checker must see; a line with `type: ignore` must be an error, since an ignore that is not
needed is one itself.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, assert_type

import aiohttp
import httpx
from aiohttp import web

import asynctrace
import asynctrace.processes
from asynctrace import (
    ALWAYS_OFF,
    ALWAYS_ON,
    AsynctraceError,
    Baggage,
    Batch,
    Clock,
    ComponentTraceContext,
    ConfigurationError,
    DeliveryError,
    DeliveryNotice,
    DeliveryOptions,
    DeliveryTimeout,
    DropNewest,
    DropOldest,
    Ending,
    Exporter,
    ExportResult,
    IdSource,
    JournalDamaged,
    JournalError,
    JournalFromNewerVersion,
    JournalOptions,
    LaneReceipt,
    LaneStatistics,
    Limits,
    Link,
    MisuseError,
    Outcome,
    ParentBased,
    Probability,
    RateLimit,
    Receipt,
    Resource,
    Sampler,
    Sampling,
    SamplingRequest,
    SignalHandlers,
    Span,
    SpanKind,
    SpansLost,
    Statistics,
    StatusCode,
    TraceContext,
    TraceIdRatio,
    Tracer,
    WaitForRoom,
    WireError,
)
from asynctrace.exporters import (
    ConsoleExporter,
    FileExporter,
    KeptBatch,
    MemoryExporter,
    OTLPExporter,
    OTLPStatistics,
    RedisExporter,
    RedisStatistics,
)
from asynctrace.middleware import (
    ASGIMiddleware,
    AsyncHTTPXTransport,
    HTTPXTransport,
    LoggingFilter,
    LoggingHandler,
    Trust,
    aiohttp_lifespan,
    aiohttp_middleware,
    lifespan,
    structlog_processor,
    trace_config,
)
from asynctrace.processes import (
    ProcessPoolExecutor,
    ThreadPatch,
    collect_children,
    collect_children_sync,
    environment,
    patch_threads,
)
from asynctrace.testing import (
    Accept,
    CapturedSpans,
    FaultServer,
    ManualClock,
    ReceivedRequest,
    SeededIds,
    Status,
    assert_no_context_leaked,
    assert_no_span_left_open,
    assert_tree,
    capture_spans,
    tree_text,
)

assert_type(asynctrace.__version__, str)


# Seams and exporters that a user writes -----------------------------------------------------------------------


class MyExporter:
    @property
    def name(self) -> str:
        return "mine"

    async def export(self, batch: Batch) -> ExportResult:
        assert_type(batch.payload, Sequence[bytes | memoryview])
        assert_type(batch.count, int)
        assert_type(batch.size, int)
        assert_type(batch.resource, Resource)
        assert_type(batch.key, str)
        assert_type(batch.spans(), tuple[Span, ...])
        if batch.count > 100:
            return ExportResult.too_large("at most 100")
        if batch.key == "again":
            return ExportResult.try_again(after=1.5, reason="busy")
        if batch.key == "some":
            return ExportResult(accepted=1, rejected=batch.count - 1, reason="quota")
        return ExportResult.all_accepted(batch)

    async def aclose(self) -> None: ...


class NoExporter:
    def export(self, batch: Batch) -> ExportResult: ...  # type: ignore[empty-body]


class MyClock:
    def time_ns(self) -> int:
        return 0

    def monotonic_ns(self) -> int:
        return 0


class MyIds:
    def trace_id(self) -> bytes:
        return b"1" * 16

    def span_id(self) -> bytes:
        return b"1" * 8


class MySampler:
    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
        return name != "noise"


class MyLongerSampler(MySampler):
    def decide(self, request: SamplingRequest) -> Sampling:
        assert_type(request.parent is None, bool)
        return Sampling(is_sampled=request.name != "noise", tracestate="mine=1", attributes={"rule": 1})


exporter: Exporter = MyExporter()
no_exporter: Exporter = NoExporter()  # type: ignore[assignment]
clocks: list[Clock] = [MyClock(), ManualClock(wall_ns=1, monotonic_ns=2)]
ids: list[IdSource] = [MyIds(), SeededIds(seed=3)]
samplers: list[Sampler] = [MySampler(), ALWAYS_ON, ALWAYS_OFF, TraceIdRatio(0.1), ParentBased(root=TraceIdRatio(0.5))]
samplers += [
    MyLongerSampler(),
    Probability(0.1),
    RateLimit(5),
    ParentBased(RateLimit(5), local_parent_sampled=MySampler()),
]
ParentBased(0.5)  # type: ignore[arg-type]
exporters: list[Exporter] = [
    OTLPExporter(),
    OTLPExporter("https://example.org", headers={"x": "y"}, timeout=5, compression="gzip", encoding="json", name="a"),
    ConsoleExporter(color=False),
    FileExporter("spans.jsonl"),
    MemoryExporter(),
]
OTLPExporter("http://127.0.0.1", {"x": "y"})  # type: ignore[call-arg]
OTLPExporter(encoding="yaml")  # type: ignore[arg-type]
RedisExporter("redis://127.0.0.1:6379", compression="lz4")  # type: ignore[arg-type]
assert_type(
    RedisExporter("redis://127.0.0.1:6379", wait=1, credentials=lambda: ("user", "password")).statistics(),
    RedisStatistics,
)
assert_type(OTLPExporter().statistics(), OTLPStatistics)
assert_type(OTLPExporter().endpoint, str)
assert_type(MemoryExporter().spans, list[Span])
assert_type(MemoryExporter().batches, list[KeptBatch])


# Tracers ------------------------------------------------------------------------------------------------------


def make_tracers(mask: Callable[[str, str], str]) -> Iterator[Tracer]:
    yield Tracer("shop")
    yield Tracer(service="shop", exporters=exporters, journal=False, shutdown_timeout=5, resource={"team": "tea"})
    yield Tracer(mask=mask, limits=Limits(depth=8), sampler=ALWAYS_OFF, clock=MyClock(), ids=MyIds())
    yield Tracer(mask=False, capacity_bytes=1 << 20, capacity_spans=1000, delivery=DeliveryOptions(linger=0.2))
    for when_full in (DropNewest(), DropOldest(), WaitForRoom(timeout=1.5), "drop_oldest"):
        yield Tracer(when_full=when_full)
    for journal in ("auto", True, "state", Path("state"), JournalOptions(path="state", max_age=3600.0)):
        yield Tracer(journal=journal, sync=0.2, when_full="journal")
    yield Tracer(on_drop=told, on_reject=told_later, on_spool=print, on_recover=lambda notice: notice.count)
    yield assert_type(asynctrace.configure(service="shop", exporters=[]), Tracer)
    yield assert_type(asynctrace.default_tracer(), Tracer)
    Tracer(exporters=MemoryExporter())  # type: ignore[arg-type]
    Tracer(sevice="shop")  # type: ignore[call-arg]
    Tracer(journal=3)  # type: ignore[arg-type]
    Tracer(on_drop=without_an_argument)  # type: ignore[arg-type]


def told(notice: DeliveryNotice) -> None:
    assert_type(notice.kind, Literal["drop", "reject", "spool", "recover"])
    assert_type(notice.count, int)
    assert_type(notice.first, int | None)
    for text in (notice.lane, notice.reason, notice.detail, notice.journal_id):
        assert_type(text, str)


async def told_later(notice: DeliveryNotice) -> None:
    told(notice)


def without_an_argument() -> None: ...


def signals() -> None:
    handlers = asynctrace.install_signal_handlers()
    assert_type(handlers, SignalHandlers)
    assert_type(handlers.restore(), None)
    with asynctrace.install_signal_handlers([signal.SIGTERM], timeout=5) as entered:
        assert_type(entered, SignalHandlers)
    asynctrace.install_signal_handlers(timeout="5")  # type: ignore[arg-type]


async def life_of_a_tracer(tracer: Tracer) -> None:
    async with Tracer() as entered:
        assert_type(entered, Tracer)
    assert_type(await tracer.start(), Tracer)
    assert_type(await tracer.flush(), Receipt)
    assert_type(await tracer.flush(0.5, trace_id="1" * 32), Receipt)
    assert_type(await tracer.shutdown(timeout=1), Receipt)
    assert_type(tracer.receipt(), Receipt)
    assert_type(tracer.statistics(), Statistics)
    assert_type(await asynctrace.flush(timeout=None), Receipt)
    assert_type(await asynctrace.shutdown(), Receipt)
    assert_type(asynctrace.receipt(), Receipt)
    assert_type(asynctrace.statistics(), Statistics)


def life_without_a_loop(tracer: Tracer) -> None:
    with Tracer() as entered:
        assert_type(entered, Tracer)
    assert_type(tracer.start_sync(), Tracer)
    assert_type(tracer.flush_sync(timeout=1.5), Receipt)
    assert_type(tracer.shutdown_sync(), Receipt)
    assert_type(asynctrace.flush_sync(), Receipt)
    assert_type(asynctrace.shutdown_sync(), Receipt)


async def children(tracer: Tracer) -> None:
    assert_type(await collect_children(), Receipt)
    assert_type(await collect_children(5.0, tracer=tracer), Receipt)
    assert_type(collect_children_sync(timeout=5, tracer=tracer), Receipt)


def books(receipt: Receipt, statistics: Statistics) -> None:
    for count in (receipt.ended, receipt.accepted, receipt.rejected, receipt.dropped, receipt.spooled, receipt.pending):
        assert_type(count, int)
    assert_type(receipt.recovered, int)
    assert_type(receipt.children, int)
    assert_type(receipt.complete, bool)
    assert_type(receipt.dropped_by_reason, dict[str, int])
    assert_type(receipt.rejected_by_reason, dict[str, int])
    assert_type(receipt.lanes["otlp"], LaneReceipt)
    assert_type(receipt.raise_for_loss(), None)
    assert_type(statistics.open, int)
    assert_type(statistics.late_calls, dict[str, int])
    assert_type(statistics.journal, str)
    assert_type(statistics.journal_troubles, dict[str, int])
    assert_type(statistics.unnoted, int)
    assert_type(statistics.lanes, dict[str, LaneStatistics])
    receipt.ended = 3  # type: ignore[misc]


# Runs and components ------------------------------------------------------------------------------------------


async def runs(tracer: Tracer, remote: TraceContext) -> None:
    async with tracer.trace(
        "checkout",
        run_id="r",
        session_id="s",
        user_id="u",
        project="p",
        tags=["a"],
        metadata={"k": 1},
        inputs={"q": object()},
        context=remote,
        kind="server",
        attributes={"a": 1},
        links=[remote],
    ) as run:
        assert_type(run, TraceContext)
        assert_type(run.trace_id, str)
        assert_type(run.is_random, bool)
        assert_type(run.baggage, Baggage)
        assert_type(run.baggage["tenant"], str)
        assert_type(run.baggage.properties("tenant"), tuple[str, ...])
        run.set_baggage("tenant", "t-1")
        run.set_baggage("tenant", 1)  # type: ignore[arg-type]
        run.remove_baggage("tenant")
        assert_type(run.span_id, str)
        assert_type(run.name, str)
        assert_type(run.run_id, str | None)
        assert_type(run.session_id, str | None)
        assert_type(run.user_id, str | None)
        assert_type(run.project, str | None)
        assert_type(run.tags, tuple[str, ...])
        assert_type(run.metadata, dict[str, Any])
        run.add_log("message", field=1)
        run.set_outputs({"documents": 3}, metadata={"model": "m"})
        run.set_attribute("key", [1, 2])
        run.set_attributes({"a": "b"})
        run.set_name("renamed")
        run.set_status("error", "why")
        run.record_exception(ValueError())
    with asynctrace.trace("plain") as plain:
        assert_type(plain, TraceContext)
    assert_type(tracer.start_tracers("r", "name", user_id="u", session_id="s", project_name="p"), TraceContext)
    assert_type(asynctrace.start_tracers(None, "name"), TraceContext)
    assert_type(tracer.end_tracers({"a": 1}, error=ValueError(), run=run), None)
    assert_type(asynctrace.end_tracers(), None)
    asynctrace.trace(7)  # type: ignore[arg-type]
    asynctrace.trace("x", "r-1")  # type: ignore[call-arg]


async def components(tracer: Tracer, link: Link) -> None:
    async with tracer.trace_component(
        "retrieve", type="retriever", kind=SpanKind.CLIENT, inputs=[1], metadata={}, attributes={"a": 1}, links=[link]
    ) as component:
        assert_type(component, ComponentTraceContext)
        assert_type(component.span_id, str)
        assert_type(component.parent_id, str)
        assert_type(component.trace_id, str)
        assert_type(component.name, str)
        assert_type(component.type, str | None)
        assert_type(component.trace, TraceContext)
        assert_type(component.is_recording, bool)
        component.add_log("cache miss", shard=3)
        component.set_outputs({"documents": 3}, metadata={"model": "m"})
        component.set_attribute("key", 1.5)
        component.set_attributes({"a": "b"})
        component.record_exception(KeyError("k"))
        component.set_status(StatusCode.ERROR, "why")
        component.set_status("ok")
    with asynctrace.trace_component("plain", kind="client", links=[component, component.trace]) as plain:
        assert_type(plain, ComponentTraceContext)
    started = assert_type(tracer.trace_component("by hand").start(), ComponentTraceContext)
    started.set_name("by hand, renamed")
    started.set_model("m", provider="p", parameters={"temperature": 0}, finish_reasons=["stop"])
    started.set_usage(input_tokens=1, output_tokens=2, cached_tokens=0, reasoning_tokens=0, cost=0.1)
    started.set_messages([{"role": "user", "content": "q"}], "a", system="s")
    started.set_tool("t", call_id="c", arguments={"a": 1}, result=[])
    started.set_usage(input_tokens="1")  # type: ignore[arg-type]
    started.end()
    component.add_log(message="named")  # type: ignore[call-arg]
    component.set_status("ok", 3)  # type: ignore[arg-type]


def current(tracer: Tracer) -> None:
    assert_type(asynctrace.current_trace(), TraceContext | None)
    assert_type(asynctrace.current_component(), ComponentTraceContext | None)
    assert_type(tracer.current_trace(), TraceContext | None)
    assert_type(tracer.current_component(), ComponentTraceContext | None)
    asynctrace.add_log("message", shard=3)
    asynctrace.set_outputs({"a": 1}, metadata={"m": 1})
    tracer.add_log("message")
    tracer.set_outputs(None)


async def streams(tracer: Tracer, source: AsyncIterator[int], component: ComponentTraceContext) -> None:
    assert_type(asynctrace.trace_stream("answer", source, type="llm"), AsyncIterator[int])
    assert_type(tracer.trace_stream("answer", [1], inputs="q", text=str), list[int])
    assert_type(component.stream(source), AsyncIterator[int])
    tracer.trace_stream("answer", source, text=3)  # type: ignore[arg-type]


# Decorators keep the type of what they decorate -----------------------------------------------------------------


@asynctrace.trace_component("function")
def function(a: int, *, b: str = "") -> str:
    return b * a


@asynctrace.trace_component("coroutine function", type="tool")
async def coroutine_function(a: int) -> bytes:
    return bytes(a)


@asynctrace.trace_component("generator")
def generator(n: int) -> Iterator[int]:
    yield n


@asynctrace.trace_component("async generator")
async def async_generator(n: int) -> AsyncIterator[str]:
    yield str(n)


class Shop:
    @asynctrace.trace_component("method")
    async def method(self, n: int) -> float:
        return float(n)


@asynctrace.trace_component  # type: ignore[arg-type]
def without_a_name() -> None: ...


async def decorated() -> None:
    assert_type(function(1, b="x"), str)
    assert_type(await coroutine_function(1), bytes)
    assert_type(list(generator(1)), list[int])
    assert_type([item async for item in async_generator(1)], list[str])
    assert_type(await Shop().method(1), float)
    function("x")  # type: ignore[arg-type]
    await coroutine_function()  # type: ignore[call-arg]
    bound = asynctrace.bind(function)
    assert_type(bound(2), str)
    assert_type(await asynctrace.bind(coroutine_function)(3), bytes)
    asynctrace.bind(3)  # type: ignore[type-var]
    headers: dict[str, str] = {}
    asynctrace.inject(headers)
    context = asynctrace.extract(headers)
    assert_type(context, TraceContext)
    with ProcessPoolExecutor(2, tracer=asynctrace.default_tracer()) as pool:
        assert_type(pool.submit(function, 2).result(), str)
        pool.submit(function)  # type: ignore[call-arg]
    assert_type(environment(), dict[str, str])
    assert_type(TraceContext.from_carrier(context.to_carrier()), TraceContext)


def threads() -> None:
    patch = patch_threads()
    assert_type(patch, ThreadPatch)
    assert_type(patch.restore(), None)
    with patch_threads() as inner:
        assert_type(inner, ThreadPatch)


async def quiet(tracer: Tracer) -> None:
    with asynctrace.suppress() as nothing:
        assert_type(nothing, None)
    async with tracer.suppress():
        pass


# Values and errors ----------------------------------------------------------------------------------------------


def values(span: Span, link: Link, result: ExportResult) -> None:
    for text in (span.trace_id, span.span_id, span.parent_id, span.name, span.ending, link.trace_id):
        assert_type(text, str)
    for number in (span.start_ns, span.end_ns, span.duration_ns):
        assert_type(number, int)
    assert_type(span.kind, SpanKind)
    assert_type(span.status, StatusCode)
    assert_type(span.links, tuple[Link, ...])
    assert_type(result.outcome, Outcome)
    assert_type(result.after, float | None)
    assert_type(Ending("ok"), Ending)
    as_text: str = Ending.LOST
    del as_text
    attributes: Mapping[str, object] = Resource(attributes={"service.name": "shop"}).attributes
    del attributes


async def errors(tracer: Tracer) -> None:
    try:
        (await tracer.flush(timeout=1)).raise_for_loss()
    except DeliveryTimeout as timeout:
        assert_type(timeout.receipt, Receipt)
        as_builtin: TimeoutError = timeout
        as_parent: DeliveryError = timeout
        del as_builtin, as_parent
    except SpansLost as lost:
        assert_type(lost.receipt, Receipt)
    except (ConfigurationError, WireError) as wrong:
        as_value: ValueError = wrong
        del as_value
    except (JournalDamaged, JournalFromNewerVersion) as unread:
        as_journal: JournalError = unread
        del as_journal
    except MisuseError as misuse:
        as_runtime: RuntimeError = misuse
        del as_runtime
    except AsynctraceError:
        pass


# Doors for frameworks --------------------------------------------------------------------------------------------


async def doors(tracer: Tracer, app: object) -> None:
    logging.getLogger().addHandler(LoggingHandler("warning", tracer))
    logging.StreamHandler().addFilter(LoggingFilter())
    assert_type(structlog_processor(tracer, capture=20)(None, "info", {}), MutableMapping[str, Any])
    structlog_processor("shop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(asynctrace.lifespan(), Callable[[object], AbstractAsyncContextManager[None]])
    async with lifespan(tracer)(app) as state:
        assert_type(state, None)

    async def served(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        pass

    assert_type(ASGIMiddleware(served, tracer, trust=Trust.LINK, excluded=("/healthz",), flush=1.5), ASGIMiddleware)
    ASGIMiddleware(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    lifespan("shop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def doors_for_aiohttp_and_httpx(tracer: Tracer) -> None:
    served = web.Application(middlewares=[aiohttp_middleware(tracer, trust="link", excluded=["/healthz"])])
    served.cleanup_ctx.append(aiohttp_lifespan(tracer))
    aiohttp_middleware("shop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(trace_config(), aiohttp.TraceConfig)
    async with aiohttp.ClientSession(trace_configs=[trace_config(tracer, start_traces=False, propagate=False)]):
        pass
    async with httpx.AsyncClient(transport=AsyncHTTPXTransport(httpx.AsyncHTTPTransport(), tracer)):
        pass
    with httpx.Client(transport=HTTPXTransport(tracer=tracer)):
        pass
    AsyncHTTPXTransport(httpx.HTTPTransport())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# OpenTelemetry ----------------------------------------------------------------------------------------------------


def bridge(tracer: Tracer) -> None:
    provider = asynctrace.opentelemetry.TracerProvider(tracer, foreign_parents=False)
    assert_type(provider.get_tracer("library", "1"), asynctrace.opentelemetry.Tracer)
    assert_type(provider.get_tracer("library").start_span("name"), asynctrace.opentelemetry.Span)
    with provider.get_tracer("library").start_as_current_span("name") as span:
        assert_type(span, asynctrace.opentelemetry.Span)
    assert_type(provider.force_flush(timeout_millis=10), bool)
    asynctrace.opentelemetry.TracerProvider("shop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# The test kit -----------------------------------------------------------------------------------------------------


async def kit(spans: CapturedSpans) -> None:
    async with capture_spans(default=True, clock=ManualClock()) as captured:
        assert_type(captured, CapturedSpans)
        assert_type(captured.tracer, Tracer)
        assert_type(await captured.flush(), Receipt)
        assert_type(captured.spans, tuple[Span, ...])
        assert_type(captured.find("x"), Span)
        assert_type(captured.by_name, dict[str, list[Span]])
        assert_type(captured.tree(attributes=("session.id",), durations=True), str)
    with capture_spans() as plain:
        assert_tree(plain.spans, "run ok", attributes=["a"])
    assert_type(tree_text(spans.spans), str)
    assert_no_span_left_open(spans.tracer)
    with assert_no_context_leaked():
        pass
    async with FaultServer(default=Accept()) as server:
        server.plan(Status(503, retry_after=1))
        assert_type(server.url, str)
        assert_type(await server.wait_for_spans(1), list[Span])
        assert_type(server.requests, list[ReceivedRequest])
