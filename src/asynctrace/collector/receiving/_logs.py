"""`/v1/logs`: records that belong to a trace are kept beside its spans, as they came.

A record names its span, or only its trace, and may arrive before the span or after it: which span it is shown at is
settled when the trace is read.

Promises: a record without a trace id is counted and passed over, because other programs keep logs; one with an id of a
wrong length is rejected alone.

Source: opentelemetry/proto/logs/v1/logs.proto of OTLP 1.x.
"""

from __future__ import annotations

from ..._errors import WireError
from ...wire import Log, decode_log, read_fields
from .._rows import LogRow
from ._intake import Intake
from ._scan import Scanner, schema_url

__all__ = ["add_log", "scan_logs"]


def scan_logs(scanner: Scanner, body: bytes) -> Intake:
    """All log records of an `ExportLogsServiceRequest`. `WireError`, `TooMany`."""
    intake = Intake()
    for tag, first, last in read_fields(body, 0, len(body)):
        intake.count(1)
        if tag == 0x0A:
            _resource_logs(scanner, body, first, last, intake)
    return intake


def add_log(log: Log, message: bytes, intake: Intake) -> None:
    """Take one record whose origin is the last of `intake`, or reject it, or pass it over."""
    intake.count(1 + len(log.attributes))
    trace_id, span_id = bytes.fromhex(log.trace_id), bytes.fromhex(log.span_id)
    if not any(trace_id):
        intake.ignored += 1
    elif len(trace_id) != 16 or len(span_id) not in (0, 8):
        intake.reject("trace_id must be 16 bytes and span_id 8, or both empty")
    else:
        span_id = span_id if any(span_id) else b""
        time_ns = log.time_ns or log.observed_ns
        intake.logs.append(LogRow(trace_id, span_id, time_ns, log.severity, len(intake.origins) - 1, message))


def _resource_logs(scanner: Scanner, body: bytes, position: int, end: int, intake: Intake) -> None:
    resource: list[bytes] = []
    schema = ""
    scopes: list[tuple[int, int]] = []
    for tag, first, last in read_fields(body, position, end):
        intake.count(1)
        if tag == 0x0A:
            resource.append(body[first:last])
        elif tag == 0x12:
            scopes.append((first, last))
        elif tag == 0x1A:
            schema = schema_url(body[first:last])
    whole = b"".join(resource)
    if not scopes:
        scanner.origin(intake, whole, b"", schema)
    for first, last in scopes:
        _scope_logs(scanner, body, first, last, (whole, schema), intake)


def _scope_logs(
    scanner: Scanner, body: bytes, position: int, end: int, resource: tuple[bytes, str], intake: Intake
) -> None:
    scope: list[bytes] = []
    schema = ""
    records: list[bytes] = []
    for tag, first, last in read_fields(body, position, end):
        intake.count(1)
        if tag == 0x0A:
            scope.append(body[first:last])
        elif tag == 0x12:
            records.append(body[first:last])
        elif tag == 0x1A:
            schema = schema_url(body[first:last])
    intake.origins.append(scanner.origin(intake, resource[0], b"".join(scope), resource[1], schema))
    for record in records:
        try:
            add_log(decode_log(record), record, intake)
        except WireError as error:
            intake.reject(f"a log record is malformed: {error}")
