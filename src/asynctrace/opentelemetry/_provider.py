"""`TracerProvider`: what instrumentations are given, `instrument(tracer_provider=TracerProvider(tracer))`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace as otel

from .._contracts import AttributeValue, Scope
from .._errors import DeliveryError, DeliveryTimeout
from ..runtime import Tracer as OurTracer
from ..runtime import _registry
from ..tracing import Recorder
from ._context import share_context
from ._parents import add_provider, place_elsewhere
from ._tracer import Tracer

__all__ = ["TracerProvider"]

_NOT_HERE = {
    "add_span_processor": "spans leave through the exporters of the tracer: asynctrace.Tracer(exporters=[…])",
    "id_generator": "ids come from the tracer: asynctrace.Tracer(ids=…)",
    "sampler": "traces are sampled by the tracer: asynctrace.Tracer(sampler=…)",
}
"""Attributes of opentelemetry-sdk's provider that programs look for, and what there is instead."""


class TracerProvider(otel.TracerProvider):
    """OpenTelemetry's API on `tracer`; None: the default tracer, whichever that is when a span starts.

    `foreign_parents`: whether a current span of another provider of this process is the parent of what is opened below it,
    as in OpenTelemetry, or is looked through. A remote caller's always is. Making a provider makes nothing global; for
    programs that take the global one: `opentelemetry.trace.set_tracer_provider(provider)`.
    """

    def __init__(self, tracer: OurTracer | None = None, *, foreign_parents: bool = True) -> None:
        if tracer is not None and not isinstance(tracer, Recorder):
            raise TypeError(f"TracerProvider(tracer) takes an asynctrace.Tracer, not {type(tracer).__name__}")
        self._tracer = tracer
        self.foreign_parents = foreign_parents
        add_provider(self)
        share_context(place_elsewhere)

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Tracer:
        """A tracer whose spans carry this scope: as `otel.scope.name` and so on, and in OTLP in its own place."""
        scope = Scope(
            name=_text(instrumenting_module_name),
            version=_text(instrumenting_library_version),
            schema_url=_text(schema_url),
            attributes={_text(key): _plain(value) for key, value in (attributes or {}).items()},
        )
        return Tracer(self, scope)

    # Delivery ----------------------------------------------------------------------------------------------------

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """True only if every span that ended was accepted by every exporter: `receipt().complete`. In a running event loop it
        cannot wait: there it tells what is known, and `await tracer.flush()` is the call to use."""
        tracer = self.used()
        if asyncio._get_running_loop() is not None:
            return tracer.receipt().complete
        try:
            return tracer.flush_sync(timeout_millis / 1000).complete
        except (DeliveryTimeout, DeliveryError):
            return False

    def shutdown(self) -> None:
        """Shut the tracer down. Raises `MisuseError` in a running event loop: `await tracer.shutdown()`."""
        self.used().shutdown_sync()

    # Whose spans these are ---------------------------------------------------------------------------------------

    @property
    def recorder(self) -> OurTracer | None:
        """The tracer, if there is one already."""
        return self._tracer or _registry._default

    def used(self) -> OurTracer:
        """The tracer, made now if it is the default one and nobody has."""
        return self._tracer or _registry.default_tracer()

    def __getattr__(self, name: str) -> Any:
        hint = f": {_NOT_HERE[name]}" if name in _NOT_HERE else ""
        raise AttributeError(f"asynctrace.opentelemetry.TracerProvider has no {name!r}{hint}")

    def __repr__(self) -> str:
        return f"TracerProvider({self._tracer!r})"


def _plain(value: object) -> AttributeValue:
    return value if isinstance(value, str | bool | int | float) else str(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
