"""OTLP/JSON to rows: spans are encoded once, as protobuf, and then read like those that came so.

Promises:

- One span or log record that makes no sense (a mistyped field, an id that is no hex) is rejected alone; a body that is no
  OTLP/JSON is refused as a whole (`WireError`).
- What came as JSON and what came as protobuf give the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from ..._contracts import Resource, Scope, Span
from ..._errors import WireError
from ...wire import Log, encode_log, encode_resource, encode_scope, encode_span, read_json_logs, read_json_spans
from ._intake import Intake, TooMany
from ._logs import add_log
from ._scan import Scanner

__all__ = ["json_logs", "json_spans"]

MOST_BRACES: Final = 4_000_000
"""Of a body, counted before anything is made of it: each may become an object, and an attribute has two."""

Item = TypeVar("Item", Span, Log)


def json_spans(scanner: Scanner, body: bytes) -> Intake:
    """All spans of an `ExportTraceServiceRequest`. `WireError`, `TooMany`."""
    _bound(body)
    intake = Intake()

    def take(span: Span) -> None:
        scanner.spans((encode_span(span),), len(intake.origins) - 1, intake)

    return _each(scanner, read_json_spans(body), take, intake)


def json_logs(scanner: Scanner, body: bytes) -> Intake:
    """All log records of an `ExportLogsServiceRequest`. `WireError`, `TooMany`."""
    _bound(body)
    intake = Intake()

    def take(log: Log) -> None:
        add_log(log, encode_log(log), intake)

    return _each(scanner, read_json_logs(body), take, intake)


def _bound(body: bytes) -> None:
    if body.count(b"{") > MOST_BRACES:
        raise TooMany


def _each(
    scanner: Scanner,
    groups: Iterable[tuple[Resource, Scope, list[Item | WireError]]],
    take: Callable[[Item], None],
    intake: Intake,
) -> Intake:
    for resource, scope, items in groups:
        try:
            encoded = encode_resource(resource), encode_scope(scope)
            intake.origins.append(scanner.origin(intake, *encoded, resource.schema_url, scope.schema_url))
        except ValueError as error:  # nested deeper than can be written
            for _ in items:
                intake.reject(f"the resource cannot be kept: {error}")
            continue
        for item in items:
            try:
                if isinstance(item, WireError):
                    raise item
                take(item)
            except ValueError as error:
                intake.reject(f"malformed: {error}")
    return intake
