"""What may be sent: the signals of OTLP, their addresses, and how each is read.

Langfuse's and LangSmith's SDKs put their own words before OTLP's path; what follows is OTLP.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

import msgspec

from ...wire import encode_response
from ._intake import Intake
from ._json import json_logs, json_spans
from ._logs import scan_logs
from ._scan import Scanner

__all__ = ["AGENTOPS_PATH", "JSON", "OTLP_PATHS", "PROTOBUF", "READERS", "Signal", "partial_success", "paths_of"]

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

PREFIXES: Final = ("", "/api/public/otel", "/otel")
"""Of OTLP itself, of Langfuse, of LangSmith."""
AGENTOPS_PATH: Final = "/v3/auth/token"
"""Where AgentOps' SDK asks for the token that it sends with its spans."""


class Signal(enum.StrEnum):
    """The last part of the path."""

    TRACES = "traces"
    LOGS = "logs"
    METRICS = "metrics"


def paths_of(signal: Signal) -> tuple[str, ...]:
    """Every address of a signal."""
    return tuple(f"{prefix}/v1/{signal}" for prefix in PREFIXES)


OTLP_PATHS: Final = frozenset(path for signal in Signal for path in paths_of(signal))

READERS: Final[dict[tuple[Signal, str], Callable[[Scanner, bytes], Intake]]] = {
    (Signal.TRACES, PROTOBUF): Scanner.request,
    (Signal.TRACES, JSON): json_spans,
    (Signal.LOGS, PROTOBUF): scan_logs,
    (Signal.LOGS, JSON): json_logs,
}

_REJECTED_NAMES: Final = {Signal.TRACES: "rejectedSpans", Signal.LOGS: "rejectedLogRecords"}


def partial_success(signal: Signal, rejected: int, reason: str, content_type: str) -> bytes:
    """The body of a good answer: `ExportTraceServiceResponse`, or that of logs, which has the same fields."""
    if content_type == PROTOBUF:
        return encode_response(rejected, reason) if rejected else encode_response()
    partial = {_REJECTED_NAMES[signal]: str(rejected), "errorMessage": reason}
    return msgspec.json.encode({"partialSuccess": partial} if rejected else {})
