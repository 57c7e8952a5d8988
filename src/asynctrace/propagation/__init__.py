"""Where a trace goes on, as text: what passes from one process or machine to another, and back from it.

    _w3c      `traceparent` and `tracestate`      _plain    values that mean the same everywhere
    _headers  in headers and environments         _carrier  a run in less than 2000 bytes

Text and values only: it knows no current component, no clock and no event loop. What comes from elsewhere is believed
by nobody: it is read whole and valid, or refused.
"""

from __future__ import annotations

from ._carrier import CARRIER_VERSION, MOST_CARRIER_BYTES, Carried, make_carrier, read_carrier
from ._headers import extract_headers, inject_headers
from ._w3c import RemoteSpan, format_traceparent, parse_traceparent, parse_tracestate

__all__ = [
    # the text of the headers
    "RemoteSpan",
    "format_traceparent",
    "parse_traceparent",
    "parse_tracestate",
    # in headers
    "inject_headers",
    "extract_headers",
    # carriers
    "CARRIER_VERSION",
    "MOST_CARRIER_BYTES",
    "Carried",
    "make_carrier",
    "read_carrier",
]
