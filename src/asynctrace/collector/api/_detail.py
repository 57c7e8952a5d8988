"""One span with everything it holds: what a page asks for when a span is opened."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..._contracts import AttributeValue, Span
from ...wire import decode_log, decode_resource, decode_scope, decode_span
from .._rows import LogRow
from ..query._terms import KINDS
from ..receiving._dialects import OF_A_KIND, TABLE
from ._skeleton import ending_at
from ._view import Whole

__all__ = ["detail", "text_of"]

SAID_BY: Final = {field: keys for field, _, keys in TABLE if field in ("input", "output")}
"""The attributes that hold the whole of it, the preferred one first."""


def detail(whole: Whole, index: int, shown: int | None) -> dict[str, Any]:
    """The span `whole.rows[index]`; `shown` is its index in its trace."""
    row = whole.rows[index]
    span = decode_span(row.message)
    origin = whole.origins[row.origin]
    scope = decode_scope(origin.scope)
    attributes = span.attributes
    return {
        "index": shown,
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "name": span.name,
        "kind": KINDS[span.kind],
        "type": row.facts.type,
        "service": origin.service,
        "scope": {"name": scope.name, "version": scope.version, "attributes": _plain(scope.attributes)},
        "resource": _plain(decode_resource(origin.resource).attributes),
        "start_ns": span.start_ns,
        "start_ms": span.start_ns / 1e6,
        "end_ns": span.end_ns,
        "duration": span.duration_ns / 1e9 if span.end_ns else None,
        "status": span.status.name.lower(),
        "status_message": span.status_message,
        "ending": ending_at(whole, index),
        "attributes": _plain(attributes),
        "input": _side(span, "input"),
        "output": _side(span, "output"),
        "events": [
            {"time_ns": event.time_ns, "name": event.name, "attributes": _plain(event.attributes)}
            for event in span.events
        ],
        "logs": [_log(log) for log in whole.logs if log.span_id == row.span_id],
        "links": [
            {"trace_id": link.trace_id, "span_id": link.span_id, "attributes": _plain(link.attributes)}
            for link in span.links
        ],
        "exception": _exception(span),
        "messages": None,
        "model": row.facts.model,
        "tokens": [row.facts.input_tokens, row.facts.output_tokens],
        "cost": row.facts.cost,
        "session": row.facts.session,
        "user": row.facts.user,
        "trace_state": span.trace_state,
        "flags": span.flags,
        "dropped": {
            "attributes": span.dropped_attributes,
            "events": span.dropped_events,
            "links": span.dropped_links,
        },
        "seen_ns": whole.heard.get(index),
    }


def text_of(span: Span, side: str) -> str | None:
    """Its `input` or `output` as text; `None` when no attribute says it."""
    of_a_kind = (key for key in span.attributes if (found := OF_A_KIND.fullmatch(key)) and found[1] == side)
    key = next((key for key in SAID_BY[side] if key in span.attributes), None) or next(of_a_kind, None)
    if key is None:
        return None
    value = span.attributes[key]
    return value if isinstance(value, str) else msgspec.json.encode(_plain(value)).decode()


def _side(span: Span, side: str) -> dict[str, Any] | None:
    text = text_of(span, side)
    if text is None:
        return None
    mime = span.attributes.get(f"{side}.mime_type")
    if not isinstance(mime, str):
        mime = "application/json" if text[:1] in ("{", "[") else "text/plain"
    return {"mime": mime, "text": text, "bytes": len(text.encode("utf-8", "surrogatepass"))}


def _exception(span: Span) -> dict[str, str] | None:
    for event in span.events:
        if event.name == "exception":
            told = ((part, event.attributes.get(f"exception.{part}")) for part in ("type", "message", "stacktrace"))
            return {part: value if isinstance(value, str) else "" for part, value in told}
    return None


def _log(row: LogRow) -> dict[str, Any]:
    log = decode_log(row.message)
    return {
        "time_ns": row.time_ns,
        "severity": log.severity,
        "severity_text": log.severity_text,
        "event_name": log.event_name,
        "body": _plain(log.body),
        "attributes": _plain(log.attributes),
    }


def _plain(value: AttributeValue) -> Any:
    """As JSON can carry it: bytes as base64, what is no finite number as text."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value
