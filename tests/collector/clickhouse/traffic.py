"""What these tests add."""

from __future__ import annotations

import msgspec

from asynctrace.collector._rows import LogRow, Received

from ..traffic import START

__all__ = ["log", "with_logs"]


def log(trace: int, number: int, text: str, at: int = 0) -> LogRow:
    """Of a span, or with `number` 0 of a trace only."""
    span_id = number.to_bytes(8, "big") if number else b""
    return LogRow(trace.to_bytes(16, "big"), span_id, START + at, 9, 0, text.encode())


def with_logs(received: Received, *logs: LogRow) -> Received:
    return msgspec.structs.replace(received, logs=list(logs))
