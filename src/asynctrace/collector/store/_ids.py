"""What the stores of every engine say in the same words: ids as text, cursors of the list, a trace as it was sent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from ...wire import ResourceSpans, decode_request, encode_request, frame
from .._rows import Origin
from ._store import LARGEST, TraceSpans

__all__ = [
    "SHORTEST_PREFIX",
    "cursor_at",
    "groups_of",
    "identity",
    "position_of",
    "session_position",
    "shortened",
    "span_identity",
]

SHORTEST_PREFIX: Final = 8
"""Hex digits of a short trace id: two of 10,000 random ids share them once in a hundred stores."""


def identity(hexadecimal: str) -> bytes:
    """A trace id as bytes; `ValueError` when it is none."""
    if len(hexadecimal) != 32 or not hexadecimal.isalnum():  # fromhex() would skip spaces
        raise ValueError(f"a trace id is 32 hexadecimal digits, or the beginning of them, not {hexadecimal!r}")
    try:
        return bytes.fromhex(hexadecimal)
    except ValueError:
        raise ValueError(f"a trace id has hexadecimal digits only, not {hexadecimal!r}") from None


def span_identity(hexadecimal: str) -> bytes:
    """A span id as bytes; `ValueError` when it is none."""
    if len(hexadecimal) != 16:
        raise ValueError(f"a span id is 16 hexadecimal digits, not {hexadecimal!r}")
    return identity(hexadecimal + "0" * 16)[:8]


def shortened(trace_id: str, neighbors: Iterable[str]) -> str:
    """The shortest beginning, of at least 8 digits, that none of `neighbors` has."""
    shared = max((_shared(trace_id, other) for other in neighbors), default=0)
    return trace_id[: max(SHORTEST_PREFIX, shared + 1)]


def _shared(one: str, other: str) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))


def cursor_at(start_ns: int, trace_id: bytes) -> str:
    """The cursor of the page that ends with this trace."""
    return f"{start_ns}-{trace_id.hex()}"


def position_of(cursor: str, largest: int = LARGEST) -> tuple[int, bytes]:
    """The start, cut at `largest`, and the trace that a cursor stands for; `ValueError` when it stands for none."""
    start, _, trace_id = cursor.partition("-")
    try:
        return min(max(int(start), 0), largest), identity(trace_id)
    except ValueError:
        raise ValueError(f"no cursor of this store: {cursor!r}") from None


def session_position(cursor: str) -> tuple[int, str]:
    """Start of the latest trace, and name of the session, that a cursor stands for; `ValueError` when it stands for none."""
    last, dash, session = cursor.partition("-")
    if not dash or not last.isdecimal() or not last.isascii():
        raise ValueError(f"no cursor of this store: {cursor!r}")
    return int(last), session


def groups_of(found: TraceSpans) -> list[ResourceSpans]:
    """The spans, decoded, by resource and scope."""
    messages: dict[int, list[bytes]] = {}
    for row in sorted(found.rows, key=lambda row: (row.origin, row.start_ns, row.span_id)):
        messages.setdefault(row.origin, []).append(frame(row.message))
    groups: list[ResourceSpans] = []
    for index, records in messages.items():
        origin = found.origins[index]
        request = decode_request(b"".join(encode_request(origin.resource, origin.scope, records)))
        groups += [_with_schemas(group, origin) for group in request]
    return groups


def _with_schemas(group: ResourceSpans, origin: Origin) -> ResourceSpans:
    return ResourceSpans(
        resource=msgspec.structs.replace(group.resource, schema_url=origin.resource_schema),
        scope=msgspec.structs.replace(group.scope, schema_url=origin.scope_schema),
        spans=group.spans,
    )
