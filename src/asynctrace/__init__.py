"""Tracing for asyncio programs that can tell you what became of every span.

    wire/         the OTLP bytes: encode a span, scan records, decode        (knows no other folder)
    tracing/      1  where spans are made: runs, components, capture, masking, sampling
    propagation/     W3C trace context, baggage, B3 and carriers: a place in a trace as text
    spanlog/      2  where spans wait: segments, bounds, cursors; the journal, which outlives the process
    delivery/     3  who moves them: lanes, batching, retry, receipts
    exporters/    4  where they leave: OTLP, console, file, memory
    runtime/      assembly: the tracer's life, event loops, forks, signals, the environment, the exit
    middleware/   doors for frameworks: the requests and the lifespan of an ASGI application
    opentelemetry/  OpenTelemetry's tracing API on this core, for its instrumentations
    processes/    doors for processes and threads: pools, children, the environment of a program
    testing/      the kit for tests of traced programs: captured spans, clocks, ids, a backend that fails
    collector/    another program with the same stages: receive, queue, store
    cli.py        the command `asynctrace`
    _contracts.py what the stages say to one another; _errors.py every exception; both: read these first

Importing this module loads nothing but this file: each public name loads its home when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import exporters as exporters
    from . import middleware as middleware
    from . import opentelemetry as opentelemetry
    from . import processes as processes
    from . import testing as testing
    from ._contracts import (
        Batch,
        Clock,
        Ending,
        Exporter,
        ExportResult,
        IdSource,
        LaneReceipt,
        Link,
        Outcome,
        Receipt,
        Resource,
        Span,
        SpanKind,
        StatusCode,
    )
    from ._errors import (
        AsynctraceError,
        ConfigurationError,
        DeliveryError,
        DeliveryTimeout,
        JournalDamaged,
        JournalError,
        JournalFromNewerVersion,
        MisuseError,
        SpansLost,
        WireError,
    )
    from .delivery import DeliveryNotice, DeliveryOptions, LaneStatistics
    from .middleware import lifespan
    from .propagation import Baggage
    from .runtime import (
        JournalOptions,
        SignalHandlers,
        Statistics,
        Tracer,
        add_log,
        bind,
        configure,
        default_tracer,
        end_tracers,
        extract,
        flush,
        flush_sync,
        inject,
        install_signal_handlers,
        receipt,
        set_outputs,
        shutdown,
        shutdown_sync,
        start_tracers,
        statistics,
        trace,
        trace_component,
        trace_stream,
    )
    from .spanlog import DropNewest, DropOldest, WaitForRoom
    from .tracing import (
        ALWAYS_OFF,
        ALWAYS_ON,
        ComponentTraceContext,
        Limits,
        ParentBased,
        Probability,
        RateLimit,
        Sampler,
        Sampling,
        SamplingRequest,
        TraceContext,
        TraceIdRatio,
        current_component,
        current_trace,
        suppress,
    )

__all__ = [
    # a tracer and its options
    "Tracer",
    "configure",
    "default_tracer",
    "DeliveryOptions",
    "JournalOptions",
    "Limits",
    "DropNewest",
    "DropOldest",
    "WaitForRoom",
    # where spans are made
    "trace",
    "trace_component",
    "trace_stream",
    "TraceContext",
    "ComponentTraceContext",
    "Baggage",
    "current_trace",
    "current_component",
    "add_log",
    "set_outputs",
    "start_tracers",
    "end_tracers",
    "bind",
    "inject",
    "extract",
    "suppress",
    "Sampler",
    "SamplingRequest",
    "Sampling",
    "ALWAYS_ON",
    "ALWAYS_OFF",
    "TraceIdRatio",
    "Probability",
    "RateLimit",
    "ParentBased",
    # what became of them
    "flush",
    "flush_sync",
    "shutdown",
    "shutdown_sync",
    "install_signal_handlers",
    "SignalHandlers",
    "lifespan",
    "receipt",
    "Receipt",
    "LaneReceipt",
    "statistics",
    "Statistics",
    "LaneStatistics",
    "DeliveryNotice",
    # where they leave
    "Exporter",
    "ExportResult",
    "Outcome",
    "Batch",
    # spans as values
    "Span",
    "SpanKind",
    "StatusCode",
    "Ending",
    "Link",
    "Resource",
    # seams
    "Clock",
    "IdSource",
    # errors
    "AsynctraceError",
    "ConfigurationError",
    "MisuseError",
    "DeliveryError",
    "DeliveryTimeout",
    "SpansLost",
    "JournalError",
    "JournalDamaged",
    "JournalFromNewerVersion",
    "WireError",
    "__version__",
]

__version__ = "0.1.0"

_NAMES = {
    "._contracts": (
        "Batch",
        "Clock",
        "Ending",
        "Exporter",
        "ExportResult",
        "IdSource",
        "LaneReceipt",
        "Link",
        "Outcome",
        "Receipt",
        "Resource",
        "Span",
        "SpanKind",
        "StatusCode",
    ),
    "._errors": (
        "AsynctraceError",
        "ConfigurationError",
        "DeliveryError",
        "DeliveryTimeout",
        "JournalDamaged",
        "JournalError",
        "JournalFromNewerVersion",
        "MisuseError",
        "SpansLost",
        "WireError",
    ),
    ".delivery": (
        "DeliveryNotice",
        "DeliveryOptions",
        "LaneStatistics",
    ),
    ".propagation": ("Baggage",),
    ".middleware": ("lifespan",),
    ".runtime": (
        "JournalOptions",
        "SignalHandlers",
        "Statistics",
        "Tracer",
        "add_log",
        "bind",
        "configure",
        "default_tracer",
        "end_tracers",
        "extract",
        "flush",
        "flush_sync",
        "inject",
        "install_signal_handlers",
        "receipt",
        "set_outputs",
        "shutdown",
        "shutdown_sync",
        "start_tracers",
        "statistics",
        "trace",
        "trace_component",
        "trace_stream",
    ),
    ".spanlog": (
        "DropNewest",
        "DropOldest",
        "WaitForRoom",
    ),
    ".tracing": (
        "ALWAYS_OFF",
        "ALWAYS_ON",
        "ComponentTraceContext",
        "Limits",
        "ParentBased",
        "Probability",
        "RateLimit",
        "Sampler",
        "Sampling",
        "SamplingRequest",
        "TraceContext",
        "TraceIdRatio",
        "current_component",
        "current_trace",
        "suppress",
    ),
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}
_FOLDERS = ("exporters", "middleware", "opentelemetry", "processes", "testing")


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _FOLDERS:
        return import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
