"""How far a door believes its callers: what becomes of the trace that a request's headers name.

    Trust.CONTINUE   the request goes on in the caller's trace, with the caller's baggage     among one's own services
    Trust.LINK       a trace of its own, which links to the caller's span                     at a public edge
    Trust.IGNORE     a trace of its own; what the headers say is not read                     where they are noise or worse

A caller that is continued chooses the trace id, says whether the trace is recorded where the sampler follows callers, and
sets baggage for everything behind. One that is linked decides nothing.

Source: OpenTelemetry semantic conventions and the "public endpoint" of its HTTP instrumentations; W3C Trace Context,
"Security Considerations".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from .._contracts import Link
from .._errors import ConfigurationError
from ..propagation import NO_BAGGAGE
from ..tracing import TraceContext, extract

if TYPE_CHECKING:
    from ..tracing import Recorder

__all__ = ["Trust", "parse_trust", "place_request"]

_SAMPLED, _RANDOM = 0x1, 0x2
_REMOTE = 0x300
"""`Link.flags` bits 8 and 9 of OTLP: it is known whether the span is remote, and it is."""


class Trust(StrEnum):
    """What becomes of the trace that a caller names. Given as a member or as its text: `trust="link"`."""

    CONTINUE = "continue"
    """The request's run is a child of the caller's span."""
    LINK = "link"
    """The request's run starts a trace, and links to the caller's span. Baggage is not taken over."""
    IGNORE = "ignore"
    """The request's run starts a trace."""


def parse_trust(trust: object) -> Trust:
    """For an option `trust=`. Raises `ConfigurationError`."""
    try:
        return Trust(trust)  # type: ignore[arg-type]
    except ValueError:
        raise ConfigurationError(f'trust is "continue", "link" or "ignore", not {trust!r:.80}') from None


def place_request(
    headers: Mapping[Any, Any] | Iterable[tuple[Any, Any]],
    trust: Trust = Trust.CONTINUE,
    tracer: Recorder | None = None,
) -> tuple[TraceContext | None, tuple[Link, ...]]:
    """`(context, links)` for `tracer.trace(…, context=context, links=links)`, where a request with these headers is served.

    `headers` are pairs of bytes, as ASGI has them, pairs of text, or a (multi-)mapping such as aiohttp's. `tracer` reads
    them with its propagators; without one they are read as W3C says. Never raises for what is in the headers: a caller's
    trace that is malformed is a context without ids, which `trace()` counts.
    """
    if trust is Trust.IGNORE:
        return None, ()
    pairs = headers.items() if isinstance(headers, Mapping) else headers  # of headers only: not a carrier of ours
    context = extract(list(pairs)) if tracer is None else tracer.extract(list(pairs))
    if trust is Trust.CONTINUE:
        return context, ()
    context._baggage = NO_BAGGAGE
    return (context if context._invalid else None), _links_to(context)


def _links_to(context: TraceContext) -> tuple[Link, ...]:
    if not context.trace_id:
        return ()
    flags = _REMOTE | _SAMPLED * context.is_sampled | _RANDOM * context.is_random
    return (Link(trace_id=context.trace_id, span_id=context.span_id, trace_state=context.tracestate, flags=flags),)
