"""The tracers that are compared, each making the same spans in the way its own manual shows.

One *run* is a root span with `SPANS_PER_RUN - 1` children below it, every span with three attributes (two
texts and one number that changes), followed by one turn of the event loop.

Each contender promises: `start()` connects nothing that is not its own, `produce()` makes exactly `runs *
SPANS_PER_RUN` spans, `settle()` returns when the far side has answered for all of them (as far as the
library can tell), `stop()` ends it as its manual says. `roomy=True` gives its queue room for everything, so
that nothing is dropped; otherwise its settings are its defaults.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

__all__ = ["CONTENDERS", "PEERS", "SPANS_PER_RUN", "Contender", "clean_environment", "make_contender"]

SPANS_PER_RUN = 20
"""As in a request or an agent's turn with a handful of steps; the root's extra cost is shared by twenty."""

ROOMY = 1 << 21
"""Spans: more than any benchmark lets wait."""


class Contender(Protocol):
    """A tracer under test."""

    package: ClassVar[str]
    """Its name on PyPI."""

    environment: ClassVar[Mapping[str, str]]
    """Variables its process starts with; `{origin}` stands for the sink."""

    async def start(self, origin: str, *, roomy: bool) -> None: ...

    async def produce(self, runs: int) -> None: ...

    async def settle(self) -> None: ...

    async def stop(self) -> None: ...


class Asynctrace:
    package: ClassVar[str] = "asynctrace"
    environment: ClassVar[Mapping[str, str]] = {}

    def __init__(self, journal: str | bool = False) -> None:
        self._journal = journal

    async def start(self, origin: str, *, roomy: bool) -> None:
        from asynctrace import Tracer
        from asynctrace.exporters import OTLPExporter

        options: dict[str, Any] = {"capacity_bytes": 1 << 30} if roomy else {}
        self.tracer = Tracer(service="benchmark", exporters=[OTLPExporter(origin)], journal=self._journal, **options)
        await self.tracer.start()

    async def produce(self, runs: int) -> None:
        tracer = self.tracer
        for _ in range(runs):
            async with tracer.trace("checkout") as run:
                run.set_attribute("http.request.method", "GET")
                run.set_attribute("http.route", "/cart/{id}")
                run.set_attribute("cart.items", 0)
                for step in range(1, SPANS_PER_RUN):
                    async with tracer.trace_component("step") as component:
                        component.set_attribute("http.request.method", "GET")
                        component.set_attribute("http.route", "/cart/{id}")
                        component.set_attribute("cart.items", step)
            await asyncio.sleep(0)

    async def settle(self) -> None:
        await self.tracer.flush()

    async def stop(self) -> None:
        await self.tracer.shutdown()


class OpenTelemetry:
    package: ClassVar[str] = "opentelemetry-sdk"
    environment: ClassVar[Mapping[str, str]] = {}

    async def start(self, origin: str, *, roomy: bool) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        options: dict[str, Any] = {"max_queue_size": ROOMY} if roomy else {}
        self._provider = TracerProvider(resource=Resource.create({"service.name": "benchmark"}))
        exporter = OTLPSpanExporter(endpoint=f"{origin}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter, **options))
        self._tracer = self._provider.get_tracer("benchmark")

    async def produce(self, runs: int) -> None:
        tracer = self._tracer
        for _ in range(runs):
            with tracer.start_as_current_span("checkout") as root:
                root.set_attribute("http.request.method", "GET")
                root.set_attribute("http.route", "/cart/{id}")
                root.set_attribute("cart.items", 0)
                for step in range(1, SPANS_PER_RUN):
                    with tracer.start_as_current_span("step") as span:
                        span.set_attribute("http.request.method", "GET")
                        span.set_attribute("http.route", "/cart/{id}")
                        span.set_attribute("cart.items", step)
            await asyncio.sleep(0)

    async def settle(self) -> None:
        self._provider.force_flush()

    async def stop(self) -> None:
        self._provider.shutdown()


class Bridge(OpenTelemetry):
    """asynctrace behind OpenTelemetry's API: the same calls, another provider."""

    package: ClassVar[str] = "asynctrace"

    async def start(self, origin: str, *, roomy: bool) -> None:
        from asynctrace.opentelemetry import TracerProvider

        self._core = Asynctrace()
        await self._core.start(origin, roomy=roomy)
        self._tracer = TracerProvider(self._core.tracer).get_tracer("benchmark")

    async def settle(self) -> None:
        await self._core.settle()

    async def stop(self) -> None:
        await self._core.stop()


class Datadog:
    """ddtrace with its native core and without the products beside tracing."""

    package: ClassVar[str] = "ddtrace"
    environment: ClassVar[Mapping[str, str]] = {
        "DD_TRACE_AGENT_URL": "{origin}",
        "DD_SERVICE": "benchmark",
        "DD_APPSEC_ENABLED": "false",
        "DD_CRASHTRACKING_ENABLED": "false",
        "DD_DYNAMIC_INSTRUMENTATION_ENABLED": "false",
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_PROFILING_ENABLED": "false",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
        "DD_RUNTIME_METRICS_ENABLED": "false",
        "DD_TRACE_STARTUP_LOGS": "false",
    }

    async def start(self, origin: str, *, roomy: bool) -> None:
        from ddtrace.trace import tracer

        self._tracer = tracer

    async def produce(self, runs: int) -> None:
        tracer = self._tracer
        for _ in range(runs):
            with tracer.trace("checkout") as root:
                root.set_tag("http.request.method", "GET")
                root.set_tag("http.route", "/cart/{id}")
                root.set_metric("cart.items", 0)
                for step in range(1, SPANS_PER_RUN):
                    with tracer.trace("step") as span:
                        span.set_tag("http.request.method", "GET")
                        span.set_tag("http.route", "/cart/{id}")
                        span.set_metric("cart.items", step)
            await asyncio.sleep(0)

    async def settle(self) -> None:
        self._tracer.flush()  # type: ignore[no-untyped-call]

    async def stop(self) -> None:
        self._tracer.shutdown()


class Zipkin:
    """aiozipkin: it has no current span, and its only flush is `close()`."""

    package: ClassVar[str] = "aiozipkin"
    environment: ClassVar[Mapping[str, str]] = {}

    async def start(self, origin: str, *, roomy: bool) -> None:
        import aiozipkin

        self._create = aiozipkin.create
        self._endpoint = aiozipkin.create_endpoint("benchmark")
        self._address = f"{origin}/api/v2/spans"
        self._tracer = await self._create(self._address, self._endpoint, sample_rate=1.0)

    async def produce(self, runs: int) -> None:
        tracer = self._tracer
        for _ in range(runs):
            with tracer.new_trace() as root:
                root.name("checkout")
                root.tag("http.request.method", "GET")
                root.tag("http.route", "/cart/{id}")
                root.tag("cart.items", 0)  # type: ignore[arg-type]  # made a text, as its own code does
                for step in range(1, SPANS_PER_RUN):
                    with tracer.new_child(root.context) as span:
                        span.name("step")
                        span.tag("http.request.method", "GET")
                        span.tag("http.route", "/cart/{id}")
                        span.tag("cart.items", step)  # type: ignore[arg-type]
            await asyncio.sleep(0)

    async def settle(self) -> None:
        await self._tracer.close()
        self._tracer = await self._create(self._address, self._endpoint, sample_rate=1.0)

    async def stop(self) -> None:
        await self._tracer.close()


CONTENDERS: dict[str, type[Contender]] = {
    "asynctrace": Asynctrace,
    "asynctrace.opentelemetry": Bridge,
    "opentelemetry-sdk": OpenTelemetry,
    "ddtrace": Datadog,
    "aiozipkin": Zipkin,
}
PEERS = tuple(name for name in CONTENDERS if not name.startswith("asynctrace"))
"""What asynctrace is measured against."""


def make_contender(name: str) -> Contender:
    """The contender called `name`; a message that names the remedy when its package is missing."""
    kind = CONTENDERS[name]
    try:
        importlib.metadata.version(kind.package)
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit(f"{kind.package} is not installed; install the dependency group 'bench'") from None
    return kind()


def clean_environment(name: str, origin: str) -> dict[str, str]:
    """This process's environment without proxies and tracing settings, and with what the contender needs."""
    kept = {key: value for key, value in os.environ.items() if not _is_foreign(key)}
    return kept | {key: value.format(origin=origin) for key, value in CONTENDERS[name].environment.items()}


def _is_foreign(variable: str) -> bool:
    return variable.startswith(("OTEL_", "DD_", "_DD_", "ASYNCTRACE_")) or variable.lower().endswith("_proxy")
