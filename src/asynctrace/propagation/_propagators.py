"""Which formats are written into headers, and looked for in them.

    tracecontext   `traceparent`, `tracestate`           W3C Trace Context
    baggage        `baggage`                             W3C Baggage
    b3             `b3`                                  Zipkin; both forms are read
    b3multi        `x-b3-traceid` and so on              Zipkin; both forms are read
    none           nothing, and nothing else beside it

All that are chosen are written. Read in their order, and the last one that names a span counts, as in OpenTelemetry.

Source: OpenTelemetry specification, "Propagators API", and `OTEL_PROPAGATORS` in "Environment variable specification".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from .._errors import ConfigurationError
from ._b3 import B3_NAMES, format_b3, format_b3_several, names_a_span, parse_b3
from ._baggage import NO_BAGGAGE, Baggage, parse_baggage
from ._headers import BAGGAGE, TRACEPARENT, TRACESTATE, format_headers, parse_headers, replace_headers, values_in
from ._w3c import RemoteSpan

__all__ = ["KNOWN_PROPAGATORS", "W3C", "Extracted", "Propagators"]

Values: TypeAlias = Mapping[str, list[str]]


class Extracted(NamedTuple):
    """What headers say."""

    span: RemoteSpan | None
    baggage: Baggage
    is_malformed: bool
    """They mean to name a span, and do not."""


class _Format(NamedTuple):
    names: tuple[str, ...]
    write: Callable[[RemoteSpan], dict[str, str]]
    read: Callable[[Values], RemoteSpan | None]
    names_a_span: Callable[[Values], bool]


def _has_a_traceparent(values: Values) -> bool:
    return TRACEPARENT in values


_FORMATS = {
    "tracecontext": _Format((TRACEPARENT, TRACESTATE), format_headers, parse_headers, _has_a_traceparent),
    "b3": _Format(B3_NAMES, format_b3, parse_b3, names_a_span),
    "b3multi": _Format(B3_NAMES, format_b3_several, parse_b3, names_a_span),
}
KNOWN_PROPAGATORS = ("tracecontext", "baggage", "b3", "b3multi", "none")


class Propagators:
    """A choice of formats. Raises `ConfigurationError` for a name that is none, and `TypeError` for what are no names."""

    __slots__ = ("_carries_baggage", "_fields", "_formats", "names")

    def __init__(self, names: Sequence[str]) -> None:
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise TypeError(f'propagators is a list, propagators=["tracecontext"], not {type(names).__name__}')
        for name in names:
            if name not in KNOWN_PROPAGATORS:
                raise ConfigurationError(f"a propagator is one of {', '.join(KNOWN_PROPAGATORS)}, not {name!r:.80}")
        self.names = () if "none" in names else tuple(dict.fromkeys(names))
        self._formats = tuple(_FORMATS[name] for name in self.names if name in _FORMATS)
        self._carries_baggage = "baggage" in self.names
        self._fields = frozenset(name for one in self._formats for name in one.names)
        if self._carries_baggage:
            self._fields |= {BAGGAGE}

    def inject(self, carrier: MutableMapping[str, str], span: RemoteSpan, baggage: Baggage) -> None:
        """Write both into `carrier`, in place of what it has under these names in any case."""
        if not self._fields:
            return
        headers: dict[str, str] = {}
        for one in self._formats:
            headers.update(one.write(span))
        if self._carries_baggage and baggage:
            headers[BAGGAGE] = baggage.header()
        replace_headers(carrier, self._fields, headers)

    def extract(self, carrier: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> Extracted:
        """What `carrier` says. Raises `TypeError` for what is neither a mapping nor an iterable of pairs; what is odd inside
        is ignored, and a carrier whose own code raises is malformed."""
        values = values_in(carrier, self._fields)
        if values is None:
            return Extracted(None, NO_BAGGAGE, True)
        if not values:
            return Extracted(None, NO_BAGGAGE, False)
        span = None
        for one in self._formats:
            span = one.read(values) or span
        baggage = parse_baggage(values[BAGGAGE]) if BAGGAGE in values else NO_BAGGAGE
        return Extracted(span, baggage, span is None and any(one.names_a_span(values) for one in self._formats))

    def __repr__(self) -> str:
        return f"Propagators({list(self.names)})"


W3C = Propagators(["tracecontext", "baggage"])
"""What is used where nobody chose."""
