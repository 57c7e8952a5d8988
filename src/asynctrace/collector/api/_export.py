"""A trace as a file: OTLP/JSON for any program, Markdown for people and prompts, one HTML page for a browser.

Promises: with `redact` no secret that the tracer's masker knows is in the bytes, by name and by value, inside JSON texts
too; without it OTLP/JSON is what came, so that importing it gives the same tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..._contracts import AttributeValue, Event, Resource, Scope, Span
from ..._tree import render_tree
from ...tracing import Masker
from ...wire import (
    Log,
    ResourceSpans,
    decode_log,
    decode_resource,
    decode_scope,
    decode_span,
    encode_resource,
    encode_span,
    json_request,
)
from .._rows import Origin, SpanRow
from ._critical_path import critical_path
from ._detail import detail, text_of
from ._skeleton import skeleton
from ._view import Whole

__all__ = ["FILES", "exported", "redacted"]

FILES: Final = {"otlp.json": "application/json", "md": "text/markdown", "html": "text/html"}
"""Kinds of files, and their types."""
MARKDOWN_TEXT: Final = 4000
"""Characters of an input or output in Markdown."""
DEEPEST: Final = 32


def exported(whole: Whole, kind: str, now_ns: int, *, is_redacted: bool) -> bytes:
    """The bytes of a file of this kind, one of `FILES`."""
    if is_redacted:
        whole = redacted(whole)
    if kind == "otlp.json":
        return _otlp_json(whole)
    if kind == "md":
        return _markdown(whole).encode("utf-8", "replace")
    return _page(whole, now_ns)


def _otlp_json(whole: Whole) -> bytes:
    """An `ExportTraceServiceRequest`, with the log records beside. A span that is open has no end."""
    return json_request(_groups(whole), _logs(whole))


def _groups(whole: Whole) -> list[ResourceSpans]:
    """The spans by resource and scope, in order of their indexes."""
    groups: dict[tuple[bytes, bytes, str, str], list[Span]] = {}
    for row in whole.rows:
        groups.setdefault(whole.origins[row.origin].key, []).append(decode_span(row.message))
    return [
        ResourceSpans(resource=_resource(*key), scope=_scope(*key), spans=tuple(spans)) for key, spans in groups.items()
    ]


def _logs(whole: Whole) -> list[tuple[Resource, Scope, list[Log]]]:
    """The log records by resource and scope, by time."""
    groups: dict[tuple[bytes, bytes, str, str], list[Log]] = {}
    for row in whole.logs:
        groups.setdefault(whole.origins[row.origin].key, []).append(decode_log(row.message))
    return [(_resource(*key), _scope(*key), logs) for key, logs in groups.items()]


def _resource(resource: bytes, _: bytes, schema: str, __: str) -> Resource:
    return msgspec.structs.replace(decode_resource(resource), schema_url=schema)


def _scope(_: bytes, scope: bytes, __: str, schema: str) -> Scope:
    return msgspec.structs.replace(decode_scope(scope), schema_url=schema)


def _page(whole: Whole, now_ns: int) -> bytes:
    """One HTML file that shows the trace without a collector."""
    from ..page import export_page  # loads the web server; commands read the rest

    encode = msgspec.json.encode
    spans = (encode(detail(whole, index, index)) for index in range(len(whole.rows)))
    return export_page(
        whole.summary.name, encode(skeleton(whole)), spans, encode({"path": critical_path(whole, now_ns)})
    )


def _markdown(whole: Whole) -> str:
    """The tree, then each span that has an input, an output or an error."""
    spans = [decode_span(row.message) for row in whole.rows]
    summary = whole.summary
    parts = [
        f"# {_line(summary.name) or 'trace'}",
        f"`{summary.trace_id}` · {_line(summary.service)} · {summary.spans} spans · {summary.errors} errors",
        _fenced(render_tree(spans, width=100, details=False)),
    ]
    for span in spans:
        said = [(side, text) for side in ("input", "output") if (text := text_of(span, side))]
        if said or span.status_message:
            parts.append(f"## {_line(span.name)} `{span.span_id}`")
        parts += [f"{side}\n\n{_fenced(_cut(text))}" for side, text in said]
        if span.status_message:
            parts.append(f"error\n\n{_fenced(_cut(span.status_message))}")
    return "\n\n".join(parts) + "\n"


def _line(text: str) -> str:
    """One line that Markdown takes for text."""
    return " ".join(text.split()).replace("`", "'").replace("<", "&lt;")[:200]


def _fenced(text: str) -> str:
    """In a fence that nothing inside can end."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"


def _cut(text: str) -> str:
    return text if len(text) <= MARKDOWN_TEXT else f"{text[:MARKDOWN_TEXT]}… ({len(text)} characters)"


# ── redaction ───────────────────────────────────────────────────────────────────────────────────────────────


def redacted(whole: Whole) -> Whole:
    """The trace without its secrets, and without its log records, whose texts are nobody's to know."""
    masker = Masker()
    rows = [_redacted_row(row, masker) for row in whole.rows]
    summary = whole.summary
    fields = {key: masker.mask_text(getattr(summary, key)) for key in ("name", "session", "user")}
    fields |= {side: _masked_text(side, getattr(summary, side), masker, 0) for side in ("input", "output")}
    return msgspec.structs.replace(
        whole,
        rows=rows,
        origins=[_redacted_origin(origin, masker) for origin in whole.origins],
        logs=[],
        summary=msgspec.structs.replace(summary, **fields),
    )


def _redacted_row(row: SpanRow, masker: Masker) -> SpanRow:
    span = _redacted(decode_span(row.message), masker)
    facts = row.facts._replace(
        session=masker.mask_value("session.id", row.facts.session), user=masker.mask_text(row.facts.user)
    )
    return row._replace(name=span.name, message=encode_span(span), facts=facts)


def _redacted_origin(origin: Origin, masker: Masker) -> Origin:
    resource = decode_resource(origin.resource)
    masked = msgspec.structs.replace(resource, attributes=_redacted_all(resource.attributes, masker))
    return msgspec.structs.replace(origin, resource=encode_resource(masked))


def _redacted_all(attributes: Mapping[str, AttributeValue], masker: Masker) -> dict[str, AttributeValue]:
    return {key: _masked(key, value, masker, 0) for key, value in attributes.items()}


def _redacted(span: Span, masker: Masker) -> Span:
    return msgspec.structs.replace(
        span,
        name=masker.mask_text(span.name),
        status_message=masker.mask_text(span.status_message),
        trace_state=masker.mask_text(span.trace_state),
        attributes=_redacted_all(span.attributes, masker),
        events=tuple(_redacted_event(event, masker) for event in span.events),
        links=tuple(
            msgspec.structs.replace(link, attributes=_redacted_all(link.attributes, masker)) for link in span.links
        ),
    )


def _redacted_event(event: Event, masker: Masker) -> Event:
    return msgspec.structs.replace(
        event, name=masker.mask_text(event.name), attributes=_redacted_all(event.attributes, masker)
    )


def _masked(key: str, value: Any, masker: Masker, depth: int) -> Any:
    if isinstance(value, str):
        return _masked_text(key, value, masker, depth)
    if masker.is_secret_key(key) and value is not None and not isinstance(value, bool):
        return "[masked]"
    if isinstance(value, Mapping) and depth < DEEPEST:
        return {name: _masked(name, each, masker, depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple) and depth < DEEPEST:
        return [_masked(key, each, masker, depth + 1) for each in value]
    if isinstance(value, bytes):
        text = value.decode("latin-1")
        return value if masker.mask_text(text) == text else b"[masked]"
    return masker.mask_int(value) if type(value) is int else value


def _masked_text(key: str, text: str, masker: Masker, depth: int) -> str:
    if text[:1] in ("{", "[") and depth < DEEPEST and not masker.is_secret_key(key):
        inner = _json_or_none(text)
        if inner is not None:
            masked = _masked(key, inner, masker, depth + 1)
            return text if masked == inner else msgspec.json.encode(masked).decode()
    return masker.mask_value(key, text)


def _json_or_none(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
