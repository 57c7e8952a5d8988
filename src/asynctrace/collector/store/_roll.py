"""Percentiles without reading spans: for each minute and name, how many spans fell into which bucket of duration.

Buckets grow with the duration, eight for each doubling, so a percentile is right to one part in sixteen at worst.
A span that is replaced by a heavier version is taken out again: its bucket is counted down, in the segment that is
written then.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from typing import Final, TypeAlias

import msgspec

from ..._contracts import StatusCode
from .._rows import EMPTY, SpanRow
from ._chunk import Arrived
from ._store import LARGEST

__all__ = ["MINUTE_NS", "Roll", "bucket_of", "decode_buckets", "middle_of", "percentiles"]

MINUTE_NS: Final = 60 * 10**9
ERROR: Final = int(StatusCode.ERROR)
OPEN: Final = -1
"""The bucket of spans without an end: they are counted, and have no duration."""

READ: Final = "SELECT buckets FROM roll WHERE minute = ? AND name = ?"
UPSERT: Final = """
INSERT INTO roll VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    count = count + excluded.count, errors = errors + excluded.errors,
    input_tokens = input_tokens + excluded.input_tokens, output_tokens = output_tokens + excluded.output_tokens,
    cost = cost + excluded.cost, buckets = excluded.buckets
"""

Key: TypeAlias = tuple[int, int]
Buckets: TypeAlias = dict[int, int]

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Buckets).decode


class Roll:
    """What one commit adds."""

    def __init__(self) -> None:
        self._buckets: dict[Key, Buckets] = {}
        self._sums: dict[Key, list[float]] = {}

    def count(self, row: SpanRow, name: int, sign: int = 1) -> None:
        """Add a span, or with `sign` -1 take one out."""
        _, _, _, _, _, start, end, status, _, _, facts = row
        key = (start // MINUTE_NS, name)
        bucket = bucket_of(end - start) if end else OPEN
        buckets = self._buckets.setdefault(key, {})
        buckets[bucket] = buckets.get(bucket, 0) + sign
        sums = self._sums.setdefault(key, [0, 0, 0, 0.0])
        sums[0] += sign * (status == ERROR)
        sums[1] += sign * facts.input_tokens
        sums[2] += sign * facts.output_tokens
        sums[3] += sign * facts.cost

    def count_all(self, arrived: Arrived) -> None:
        """Add spans. As `count()`, but a commit has thousands."""
        keys = list(zip([start // MINUTE_NS for start in arrived.starts], arrived.names, strict=True))
        buckets = [
            OPEN if not end else bucket_of(end - start) for start, end in zip(arrived.starts, arrived.ends, strict=True)
        ]
        for (key, bucket), number in Counter(zip(keys, buckets, strict=True)).items():
            of_key = self._buckets.setdefault(key, {})
            of_key[bucket] = of_key.get(bucket, 0) + number
        for key, status, facts in zip(keys, arrived.statuses, arrived.facts, strict=True):
            if status == ERROR or facts is not EMPTY:
                sums = self._sums.get(key)
                if sums is None:
                    sums = self._sums[key] = [0, 0, 0, 0.0]
                sums[0] += status == ERROR
                sums[1] += facts[8]
                sums[2] += facts[9]
                sums[3] += facts[10]

    def write(self, connection: sqlite3.Connection) -> None:
        """Within a transaction of the caller's."""
        connection.executemany(UPSERT, [self._row(connection, key) for key in sorted(self._buckets)])

    def _row(self, connection: sqlite3.Connection, key: Key) -> tuple[object, ...]:
        new = self._buckets[key]
        count = sum(new.values())
        stored = connection.execute(READ, key).fetchone()
        if stored is not None:
            for bucket, number in decode_buckets(stored[0]).items():
                new[bucket] = new.get(bucket, 0) + number
        return (*key, count, *map(_fitting, self._sums.get(key, (0, 0, 0, 0.0))), _encode(new))


def decode_buckets(encoded: bytes) -> Buckets:
    """How many durations fell into which bucket."""
    buckets: Buckets = _decode(encoded)
    return buckets


def bucket_of(duration_ns: int) -> int:
    """The bucket of a duration; a negative one counts as 0."""
    if duration_ns < 8:
        return max(0, duration_ns)
    shift = duration_ns.bit_length() - 4
    return (shift << 3) + (duration_ns >> shift)


def middle_of(bucket: int) -> float:
    """Seconds: the middle of a bucket."""
    if bucket < 16:
        return bucket / 1e9
    shift = (bucket >> 3) - 1
    return (((bucket & 7) + 8.5) * (1 << shift)) / 1e9


def percentiles(counts: Iterable[tuple[int, int]]) -> tuple[float, float, float]:
    """p50, p95 and p99 in seconds, from (bucket, count); 0 where no span has ended."""
    ended = sorted((bucket, count) for bucket, count in counts if bucket != OPEN and count > 0)
    total = sum(count for _, count in ended)
    wanted = [-(-total * percent // 100) for percent in (50, 95, 99)]
    found: list[float] = []
    seen = 0
    for bucket, count in ended:
        seen += count
        while len(found) < 3 and seen >= wanted[len(found)] > 0:
            found.append(middle_of(bucket))
    p50, p95, p99 = found or (0.0, 0.0, 0.0)
    return p50, p95, p99


def _fitting(number: float) -> float:
    return max(-LARGEST, min(number, LARGEST)) if isinstance(number, int) else number
