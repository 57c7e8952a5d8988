"""Which tracer a door works for, and what becomes of an error in a door: it is counted and told of, and breaks no request."""

from __future__ import annotations

from .._diagnostics import Diagnostics
from .._errors import MisuseError
from ..runtime import Tracer
from ..runtime._sources import SystemClock

__all__ = ["checked_tracer", "tell"]

_without_tracer = Diagnostics(SystemClock().monotonic_ns)


def checked_tracer(tracer: Tracer | None, call: str) -> Tracer | None:
    """The argument `tracer` of a door. Raises `MisuseError` with the right `call` for what is none."""
    if tracer is not None and not isinstance(tracer, Tracer):
        raise MisuseError(f"a door takes a Tracer or nothing, {call}, not {tracer!r:.80}")
    return tracer


def tell(tracer: Tracer | None, error: Exception) -> None:
    """Count `error` in `tracer`, and tell of it once a minute. None: there is no default tracer, because settings in the
    environment are wrong."""
    if tracer is not None:
        tracer._failed(error)
    else:
        _without_tracer.error("middleware.no_tracer", error=f"{type(error).__name__}: {error}")
