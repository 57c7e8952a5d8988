"""Trace context in headers and whatever is shaped like them: requests, messages, environments.

- Written: one `traceparent`, at most one `tracestate`, in lower case, and none that was there before in any case.
- Read: names in any case, as text or bytes, from mappings, multi-mappings and lists of pairs. Where two headers name
  different parents there is none.

Source: https://www.w3.org/TR/trace-context-2/, "Header Name"; RFC 9110, section 5.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from itertools import islice
from typing import Any

from ._w3c import RemoteSpan, format_traceparent, parse_traceparent, parse_tracestate

__all__ = ["TRACEPARENT", "TRACESTATE", "extract_headers", "inject_headers"]

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

_MOST_PAIRS = 10_000
"""Pairs that are looked at: an environment may have thousands, and an iterable may have no end."""


def inject_headers(carrier: MutableMapping[str, str], span: RemoteSpan) -> None:
    """Write `span` into `carrier`, in place of what it has under these names in any case.

    A `tracestate` that is invalid is not written. Raises `MisuseError` when `span` has no valid ids; the carrier is
    unchanged then.
    """
    traceparent, tracestate = format_traceparent(span), parse_tracestate([span.tracestate])
    for name in [name for name in carrier if _name_of(name) in (TRACEPARENT, TRACESTATE)]:
        if name in carrier:  # a multi-mapping names it twice and loses both at once
            del carrier[name]
    carrier[TRACEPARENT] = traceparent
    if tracestate:
        carrier[TRACESTATE] = tracestate


def extract_headers(carrier: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> RemoteSpan | None:
    """The span that `carrier` names; `None` when it names none, an invalid one, or two that differ.

    Raises `TypeError` for what is neither a mapping nor an iterable of pairs. What is odd inside is ignored, and a
    carrier whose own code raises names none.
    """
    kind = type(carrier)
    if issubclass(kind, str | bytes) or not (issubclass(kind, Iterable) or hasattr(kind, "items")):
        raise TypeError(f"trace context is read from a mapping or (name, value) pairs, not {kind.__name__}")
    try:
        parents, states = _values_of(carrier)
    except Exception:  # noqa: BLE001 - the carrier's own code
        return None
    span = parse_traceparent(parents.pop()) if len(parents) == 1 else None
    return span._replace(tracestate=parse_tracestate(states)) if span is not None and states else span


def _values_of(carrier: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> tuple[set[str], list[str]]:
    """Every different `traceparent`, and the values of every `tracestate` in their order."""
    items = getattr(carrier, "items", None)
    pairs: Any = items() if callable(items) else carrier
    parents: set[str] = set()
    states: list[str] = []
    for pair in islice(pairs, _MOST_PAIRS):
        if not issubclass(type(pair), tuple | list) or len(pair) != 2:
            continue
        name = _name_of(pair[0])
        if name == TRACEPARENT:
            parents.update(text.strip(" \t") for text in _texts(pair[1]))
        elif name == TRACESTATE:
            states.extend(_texts(pair[1]))
    return parents, states


def _name_of(name: object) -> str:
    return (_text(name) or "").lower()


def _texts(value: Any) -> Iterator[str]:
    """A value, or each of several that came under one name."""
    for one in value if issubclass(type(value), list | tuple) else (value,):
        text = _text(one)
        if text is not None:
            yield text


def _text(value: Any) -> str | None:
    kind = type(value)  # an object may lie about its class, not about its type
    if issubclass(kind, str):
        return str.__str__(value)
    return bytes.decode(value, "latin-1") if issubclass(kind, bytes) else None
