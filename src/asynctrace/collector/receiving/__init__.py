"""From an HTTP request to rows for the store: spans enter here, and wait for their commit.

    _receive   an export request and its answer        _scan        spans as protobuf to rows
    _signals   what may be sent, and where             _attributes  what their attributes say, remembered
    _agentops  a token, for an SDK that wants one      _dialects    which attribute says what
    _body      undo compression, within bounds         _json        spans and logs as JSON to rows
    _admission how much may be under way at once       _logs        log records to rows
    _writer    group commit into a store               _intake      what was read of one request
    _sink      where a request goes when it was read   _kept        spans that were kept as a file
    _counters  what came, and what became of it

What leaves it is `Received`, of `_rows`.
"""

from __future__ import annotations

from ._admission import Behind
from ._agentops import token_routes
from ._body import Refused
from ._counters import Counters, CountersNow
from ._kept import read_kept
from ._receive import CAPACITY, Receiver
from ._signals import AGENTOPS_PATH, OTLP_PATHS
from ._sink import Sent, Sink
from ._writer import Writer

__all__ = [
    "Receiver",
    "Sink",
    "Sent",
    "Writer",
    "Refused",
    "Behind",
    "Counters",
    "CountersNow",
    "token_routes",
    "read_kept",
    "AGENTOPS_PATH",
    "CAPACITY",
    "OTLP_PATHS",
]
