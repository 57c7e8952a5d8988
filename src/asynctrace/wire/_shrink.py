"""A smaller record for a far side, or a journal, that does not take the large one.

Promises

1. The result is a record that parses, is no longer than the limit, and has the ids, times, name, kind, status
   code, events and links of the original. Only values of attributes, and the status message, are replaced.
2. What is replaced says so: `[asynctrace: cut, <n> bytes, sha256 <16 hex>]`, with the length and the hash of
   what stood there (the UTF-8 of a text; the encoded `AnyValue` of anything else).
3. Inputs and outputs go first, then the largest value, until the record fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

import msgspec

from .._contracts import AttributeValue, Span
from .._errors import WireError
from ._decode import Attributes, decode_records
from ._scan import scan_records
from ._span import encode_span, frame
from ._values import encode_any_value, encode_text

__all__ = ["shrink_record"]

_FIRST = frozenset({"input.value", "output.value"})
_TYPE_OF = {"input.value": "input.mime_type", "output.value": "output.mime_type"}

Place: TypeAlias = tuple[str, int, str]
"""Which list ("span", "event", "link", "status"), which item of it, which key."""


def shrink_record(record: bytes, limit: int) -> bytes | None:
    """Return `record` with values cut until it is at most `limit` bytes long; `None` when all are not enough.

    A record within the limit is returned as it is. Raises `WireError` when it is not exactly one record, and
    `ValueError` when its values are nested deeper than this package writes them.
    """
    if len(record) <= limit:
        return record
    if sum(1 for _ in scan_records(record)) != 1:
        raise WireError("exactly one record was expected")
    (span,) = decode_records([record])
    markers: dict[Place, str] = {}
    excess = len(frame(encode_span(span))) - limit
    for place, saved, marker in _cuts(span):
        if excess <= 0:
            break
        markers[place] = marker
        excess -= saved
    shrunk = frame(encode_span(_with_markers(span, markers)))
    return shrunk if len(shrunk) <= limit else None


def _cuts(span: Span) -> list[tuple[Place, int, str]]:
    """What can be cut, what that saves at least, and what then stands there; in the order of cutting."""
    cuts = [(place, saved, marker) for place, value in _places(span) for saved, marker in (_cut(value),) if saved > 0]
    return sorted(cuts, key=lambda cut: (cut[0][2] not in _FIRST, -cut[1]))


def _places(span: Span) -> Iterator[tuple[Place, AttributeValue]]:
    for key, value in span.attributes.items():
        yield ("span", 0, key), value
    for index, event in enumerate(span.events):
        for key, value in event.attributes.items():
            yield ("event", index, key), value
    for index, link in enumerate(span.links):
        for key, value in link.attributes.items():
            yield ("link", index, key), value
    yield ("status", 0, ""), span.status_message


def _cut(value: AttributeValue) -> tuple[int, str]:
    if isinstance(value, str):
        content = encode_text(value)
        marker = _marker(content)
        return len(content) - len(marker), marker
    content = encode_any_value(value)
    marker = _marker(content)
    return len(content) - len(encode_any_value(marker)), marker


def _marker(content: bytes) -> str:
    import hashlib  # loads OpenSSL, which programs without oversized spans need not pay for

    return f"[asynctrace: cut, {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()[:16]}]"


def _with_markers(span: Span, markers: Mapping[Place, str]) -> Span:
    events = [
        msgspec.structs.replace(event, attributes=_replaced(event.attributes, "event", index, markers))
        for index, event in enumerate(span.events)
    ]
    links = [
        msgspec.structs.replace(link, attributes=_replaced(link.attributes, "link", index, markers))
        for index, link in enumerate(span.links)
    ]
    return msgspec.structs.replace(
        span,
        attributes=_honest_types(_replaced(span.attributes, "span", 0, markers), markers),
        events=tuple(events),
        links=tuple(links),
        status_message=markers.get(("status", 0, ""), span.status_message),
    )


def _replaced(attributes: Attributes, where: str, index: int, markers: Mapping[Place, str]) -> Attributes:
    return {key: markers.get((where, index, key), value) for key, value in attributes.items()}


def _honest_types(attributes: Attributes, markers: Mapping[Place, str]) -> Attributes:
    """A marker is no JSON: where an input or output was cut, its type becomes `text/plain`."""
    for key, type_key in _TYPE_OF.items():
        if ("span", 0, key) in markers and attributes.get(type_key) == "application/json":
            attributes[type_key] = "text/plain"
    return attributes
