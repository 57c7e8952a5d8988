"""Trace context in headers and whatever is shaped like them: requests, messages, environments.

- Written: each name once, in lower case, and none of them that was there before in any case.
- Read: names in any case, as text or bytes, from mappings, multi-mappings and lists of pairs. Where two headers name
  different parents there is none.

Source: https://www.w3.org/TR/trace-context-2/, "Header Name"; RFC 9110, section 5.3.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping
from itertools import islice
from typing import Any

from ._w3c import RemoteSpan, format_traceparent, parse_traceparent, parse_tracestate

__all__ = [
    "BAGGAGE",
    "TRACEPARENT",
    "TRACESTATE",
    "extract_headers",
    "format_headers",
    "inject_headers",
    "parse_headers",
    "replace_headers",
    "values_in",
]

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
BAGGAGE = "baggage"

_MOST_PAIRS = 10_000
"""Pairs that are looked at: an environment may have thousands, and an iterable may have no end."""


def inject_headers(carrier: MutableMapping[str, str], span: RemoteSpan) -> None:
    """Write `span` into `carrier`, in place of what it has under these names in any case.

    A `tracestate` that is invalid is not written. Raises `MisuseError` when `span` has no valid ids; the carrier is
    unchanged then.
    """
    replace_headers(carrier, (TRACEPARENT, TRACESTATE), format_headers(span))


def format_headers(span: RemoteSpan) -> dict[str, str]:
    """`traceparent`, and a `tracestate` that is valid. Raises `MisuseError` when `span` has no valid ids."""
    headers = {TRACEPARENT: format_traceparent(span)}
    if tracestate := parse_tracestate([span.tracestate]):
        headers[TRACESTATE] = tracestate
    return headers


def replace_headers(carrier: MutableMapping[str, str], names: Collection[str], headers: Mapping[str, str]) -> None:
    """Write `headers`, in place of what `carrier` has under `names`, which are in lower case, in any case."""
    for name in [name for name in carrier if _name_of(name) in names]:
        if name in carrier:  # a multi-mapping names it twice and loses both at once
            del carrier[name]
    for name, value in headers.items():
        carrier[name] = value


def extract_headers(carrier: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> RemoteSpan | None:
    """The span that `carrier` names; `None` when it names none, an invalid one, or two that differ.

    Raises `TypeError` for what is neither a mapping nor an iterable of pairs. What is odd inside is ignored, and a
    carrier whose own code raises names none.
    """
    return parse_headers(values_in(carrier, (TRACEPARENT, TRACESTATE)) or {})


def parse_headers(values: Mapping[str, list[str]]) -> RemoteSpan | None:
    """`extract_headers()`, from what `values_in()` found."""
    parents = {text.strip(" \t") for text in values.get(TRACEPARENT, ())}
    span = parse_traceparent(parents.pop()) if len(parents) == 1 else None
    states = values.get(TRACESTATE)
    return span._replace(tracestate=parse_tracestate(states)) if span is not None and states else span


def values_in(
    carrier: Mapping[Any, Any] | Iterable[tuple[Any, Any]], names: Collection[str]
) -> dict[str, list[str]] | None:
    """The values of every header in `names`, which are in lower case, in their order; `None` for a carrier whose own code
    raises. Raises `TypeError` for what is neither a mapping nor an iterable of pairs."""
    kind = type(carrier)
    if issubclass(kind, str | bytes) or not (issubclass(kind, Iterable) or hasattr(kind, "items")):
        raise TypeError(f"trace context is read from a mapping or (name, value) pairs, not {kind.__name__}")
    try:
        return _values_in(carrier, names)
    except Exception:  # noqa: BLE001 - the carrier's own code
        return None


def _values_in(carrier: Mapping[Any, Any] | Iterable[tuple[Any, Any]], names: Collection[str]) -> dict[str, list[str]]:
    items = getattr(carrier, "items", None)
    pairs: Any = items() if callable(items) else carrier
    values: dict[str, list[str]] = {}
    for pair in islice(pairs, _MOST_PAIRS):
        if not issubclass(type(pair), tuple | list) or len(pair) != 2:
            continue
        name = _name_of(pair[0])
        if name in names:
            values.setdefault(name, []).extend(_texts(pair[1]))
    return values


def _name_of(name: object) -> str:
    """In lower case; an environment has `_` where a header has `-`."""
    return (_text(name) or "").lower().replace("_", "-")


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
