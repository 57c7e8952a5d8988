"""OpenTelemetry's tracing API on this core: what its instrumentations trace is recorded here. Needs `opentelemetry-api` only.

    from asynctrace.opentelemetry import TracerProvider

    HTTPXClientInstrumentor().instrument(tracer_provider=TracerProvider(tracer))

    _provider  `TracerProvider`: one for each tracer, global only if the program makes it so
    _tracer    `start_span()`, `start_as_current_span()`
    _span      a component with the face of OpenTelemetry's `Span`
    _parents   whose child a new span is
    _context   one current span, whichever of the two APIs asks

Promises:

1. The current span is one: a component is the parent of OpenTelemetry's spans and the other way round, also where a span
   was only attached to a context. Leaving restores by value; no error about contexts is ever logged because of us.
2. Nothing becomes global: `set_tracer_provider()` is the program's to call, and another provider's spans stay its own.
3. What OpenTelemetry's API does not raise for, this does not raise for.
"""

from __future__ import annotations

try:
    import opentelemetry.trace  # noqa: F401
except ImportError as missing:
    raise ImportError(
        "asynctrace.opentelemetry needs opentelemetry-api: pip install 'asynctrace[opentelemetry]'"
    ) from missing

from ._provider import TracerProvider
from ._span import Span
from ._tracer import Tracer

__all__ = ["Span", "Tracer", "TracerProvider"]
