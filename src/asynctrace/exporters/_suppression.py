"""Requests of an exporter are nobody's spans: asks OpenTelemetry's instrumentations to look away.

Without it an instrumented HTTP client makes a span of each export, which is exported, which makes a span.
Nothing is imported: where `opentelemetry.context` is not loaded, nobody can be looking.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["own_traffic"]

_KEY_NAMES = ("_SUPPRESS_HTTP_INSTRUMENTATION_KEY", "_SUPPRESS_INSTRUMENTATION_KEY")
"""Attributes of `opentelemetry.context`. Each process has other values: they are made at import."""

_PLAIN_KEY = "suppress_instrumentation"
"""What versions before 1.1 looked for, and some instrumentations still do."""


@contextlib.contextmanager
def own_traffic() -> Iterator[None]:
    """A block whose HTTP requests OpenTelemetry's instrumentations leave alone."""
    otel: Any = sys.modules.get("opentelemetry.context")
    if otel is None or not hasattr(otel, "attach"):
        yield
        return
    context = otel.set_value(_PLAIN_KEY, True)
    for name in _KEY_NAMES:
        if (key := getattr(otel, name, None)) is not None:
            context = otel.set_value(key, True, context)
    token = otel.attach(context)
    try:
        yield
    finally:
        otel.detach(token)
