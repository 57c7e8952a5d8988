"""Where a trace goes on, as text: what passes from one process or machine to another, and back from it.

    _w3c      `traceparent` and `tracestate`      _headers      in headers and environments
    _ot       OpenTelemetry's part of the latter  _propagators  which of these a tracer speaks
    _baggage  texts that go along                 _plain        values that mean the same everywhere
    _b3       Zipkin's headers                    _carrier      a run in less than 2000 bytes

Text and values only: it knows no current component, no clock and no event loop. What comes from elsewhere is believed
by nobody: it is read whole and valid, or refused.
"""

from __future__ import annotations

from ._baggage import NO_BAGGAGE, Baggage, parse_baggage
from ._carrier import CARRIER_VERSION, MOST_CARRIER_BYTES, Carried, make_carrier, read_carrier
from ._headers import extract_headers, inject_headers
from ._ot import LARGEST_THRESHOLD, Chances, parse_chances, with_threshold
from ._propagators import KNOWN_PROPAGATORS, W3C, Extracted, Propagators
from ._w3c import RemoteSpan, format_traceparent, parse_traceparent, parse_tracestate

__all__ = [
    # the text of the headers
    "RemoteSpan",
    "format_traceparent",
    "parse_traceparent",
    "parse_tracestate",
    "Chances",
    "LARGEST_THRESHOLD",
    "parse_chances",
    "with_threshold",
    "NO_BAGGAGE",
    "Baggage",
    "parse_baggage",
    # in headers
    "KNOWN_PROPAGATORS",
    "W3C",
    "Extracted",
    "Propagators",
    "inject_headers",
    "extract_headers",
    # carriers
    "CARRIER_VERSION",
    "MOST_CARRIER_BYTES",
    "Carried",
    "make_carrier",
    "read_carrier",
]
