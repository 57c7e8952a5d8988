"""Values that a query can ask for: of fields from sums and lines, of attributes from a sample of the latest spans."""

from __future__ import annotations

from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from typing import Final

from ..._contracts import AttributeValue
from ...wire import decode_span
from ..query._terms import KEYS
from ..store import ValueCount
from ..store._sums import CLOSED, LONGEST_VALUE, SAMPLE_SPANS, SAMPLE_TRACES, texts_of
from ..store._writing import FIELDS
from ._client import Client
from ._select import select
from ._sums import number_by

__all__ = ["values"]

MOST_VALUES: Final = 10_000
"""Of a field; the others are rarer."""

SESSIONS: Final = """
SELECT {field} AS value, uniqExact(trace_id) FROM (
    SELECT trace_id, {field} FROM roots ORDER BY start_ns DESC LIMIT {sample}
) WHERE value != '' GROUP BY value
"""
MESSAGES: Final = "SELECT base64Encode(message) FROM span_io ORDER BY minute DESC LIMIT {sample}"


def values(client: Client, key: str, prefix: str, limit: int) -> list[ValueCount]:
    """The most frequent values of `key` that begin with `prefix`."""
    found: Counter[str] = Counter()
    for value, count in _counted(client, key):
        if value.lower().startswith(prefix.lower()) and len(value) <= LONGEST_VALUE:
            found[value] += count
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [ValueCount(value, count) for value, count in ordered[:limit]]


def _counted(client: Client, key: str) -> Iterator[tuple[str, int]]:
    if not key:
        yield from ((each, 0) for each in KEYS)
        yield from ((f"attr.{name}", 1) for name, _ in _attributes(client))
    elif key in CLOSED:
        yield from ((each, 0) for each in CLOSED[key])
    elif key in FIELDS:
        yield from ((value, count) for value, count in number_by(client, key, MOST_VALUES) if value)
    elif key in ("session", "user"):
        yield from ((value, count) for value, count in select(client, SESSIONS.format(field=key, sample=SAMPLE_TRACES)))
    else:
        wanted = key.removeprefix("attr.")
        for name, value in _attributes(client):
            if name == wanted:
                yield from ((text, 1) for text in texts_of(value))


def _attributes(client: Client) -> Iterator[tuple[str, AttributeValue]]:
    for (message,) in select(client, MESSAGES.format(sample=SAMPLE_SPANS)):
        yield from decode_span(b64decode(message)).attributes.items()
