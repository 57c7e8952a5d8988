"""The span that a trace goes on from, and its text in B3, which Zipkin and older neighbors speak.

    b3: 4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1        one header
    X-B3-TraceId, X-B3-SpanId, X-B3-Sampled, X-B3-Flags            or several

- Read: both forms, the one header first; trace ids of 64 bits get zeros in front. A caller that leaves the decision to
  this service counts as sampled; one that names no span (`b3: 0`) as no caller.
- Written: ids of 128 bits, the decision, and the debug flag where it came in; never a parent's id.
- Neither `tracestate` nor whether the trace id is random can be said.

Source: https://github.com/openzipkin/b3-propagation; OpenTelemetry specification, "B3 Requirements".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from ._w3c import RemoteSpan, format_traceparent

__all__ = ["B3_NAMES", "format_b3", "format_b3_several", "names_a_span", "parse_b3"]

B3 = "b3"
_TRACE_ID, _SPAN_ID, _SAMPLED, _FLAGS = "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags"
B3_NAMES = (B3, _TRACE_ID, _SPAN_ID, _SAMPLED, _FLAGS)

Values: TypeAlias = Mapping[str, Sequence[str]]

_IDS = r"(?!0{16,32}-)([0-9a-f]{16}|[0-9a-f]{32})-(?!0{16})([0-9a-f]{16})"
_SINGLE = re.compile(rf"{_IDS}(?:-([01d])(?:-[0-9a-f]{{16}})?)?")
_SEVERAL = re.compile(_IDS)
_NO = ("0", "false")


def parse_b3(values: Values) -> RemoteSpan | None:
    """The span that headers name, from all their values by lower-case name; None where they name none or an invalid one."""
    if values.get(B3):
        found = _SINGLE.fullmatch(_only(values, B3))
        return None if found is None else _span(found[1], found[2], found[3] or "1")
    found = _SEVERAL.fullmatch(f"{_only(values, _TRACE_ID)}-{_only(values, _SPAN_ID)}".lower())
    if found is None:
        return None
    state = "d" if _only(values, _FLAGS) == "1" else _only(values, _SAMPLED).lower()
    return _span(found[1], found[2], state)


def names_a_span(values: Values) -> bool:
    """Whether headers mean to: `b3: 0` is a decision about nothing."""
    return bool(values.get(_TRACE_ID)) or any(
        value.strip(" \t") not in ("", "0", "1", "d") for value in values.get(B3, ())
    )


def _span(trace_id: str, span_id: str, state: str) -> RemoteSpan:
    return RemoteSpan(trace_id.rjust(32, "0"), span_id, state not in _NO, is_debug=state == "d")


def _only(values: Values, name: str) -> str:
    """The one value of a header; of several that differ there is none."""
    different = {value.strip(" \t") for value in values.get(name, ())}
    return different.pop() if len(different) == 1 else ""


def format_b3(span: RemoteSpan) -> dict[str, str]:
    """One header. Raises `MisuseError` for ids that no header may have."""
    format_traceparent(span)  # which checks them
    return {B3: f"{span.trace_id}-{span.span_id}-{'d' if span.is_debug else int(span.is_sampled)}"}


def format_b3_several(span: RemoteSpan) -> dict[str, str]:
    """Several headers. Raises `MisuseError` for ids that no header may have."""
    format_traceparent(span)
    decision = {_FLAGS: "1"} if span.is_debug else {_SAMPLED: str(int(span.is_sampled))}
    return {_TRACE_ID: span.trace_id, _SPAN_ID: span.span_id, **decision}
