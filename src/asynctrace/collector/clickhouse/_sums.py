"""Percentiles by name and time, and what is stored at all.

Spans of a minute that is rolled up are counted from `roll`, those of the others from `spans`, from the versions that hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..store import Group, SpanStatistics, StoreStatistics, TimePoint
from ..store._roll import OPEN, percentiles
from ..store._store import LARGEST
from ..store._sums import check_asked, found_between, found_parts, summed_up
from ._client import Client
from ._lines import MINUTE_NS, held
from ._roll import BUCKET
from ._search import Search
from ._select import Bound, Row, select

__all__ = ["found_statistics", "number_by", "span_statistics", "statistics"]

COUNTED: Final = (
    "name",
    "service",
    "type",
    "model",
    "start_ns",
    "end_ns",
    "status",
    "input_tokens",
    "output_tokens",
    "cost",
)
DUE: Final = "SELECT minute FROM minutes WHERE {between} GROUP BY minute HAVING max(arrived) > max(rolled)"
ROLLED: Final = (
    "SELECT minute, max(rolled) AS upto FROM minutes WHERE {between} GROUP BY minute HAVING upto >= max(arrived)"
)
SUMS: Final = f"""
SELECT {{key}} AS key, toInt64(sum(number)) AS total, toInt64(sum(failed)), toString(sum(toInt128(tokens_in))),
    toString(sum(toInt128(tokens_out))), sum(costs), sumMap(durations)
FROM (
    SELECT minute, name, service, type, model, count AS number, errors AS failed, input_tokens AS tokens_in,
        output_tokens AS tokens_out, cost AS costs, buckets AS durations
    FROM roll WHERE {{between}} AND (minute, rolled) IN ({ROLLED}) LIMIT 1 BY minute, name, service, type, model
    UNION ALL
    SELECT toUInt32(intDiv(start_ns, {MINUTE_NS})), name, service, type, model, 1, status = 2, input_tokens, output_tokens,
        cost, map(toInt32({BUCKET}), 1)
    FROM ({held(COUNTED, f"{{between}} AND minute IN ({DUE})")})
) GROUP BY key ORDER BY total DESC, key LIMIT {{limit}}
"""  # noqa: S608  (what is asked for is bound)
MOST_POINTS: Final = 100_000
TRACES: Final = "SELECT {count}(trace_id) FROM trace_ts"
MANY: Final = 5_000_000
"""Traces; of more, the number is an estimate, good to about one in a hundred."""
SIZE: Final = """
SELECT sum(bytes_on_disk), uniqExactIf(partition_id, table = 'spans') FROM system.parts
WHERE active AND database = currentDatabase()
"""
PINS: Final = "SELECT count() FROM (SELECT trace_id FROM pins GROUP BY trace_id HAVING argMax(is_pinned, changed))"
OLDEST: Final = "SELECT start_ns FROM roots ORDER BY start_ns LIMIT 1"


def span_statistics(client: Client, by: str, step: int, since_ns: int, until_ns: int, limit: int) -> SpanStatistics:
    """Counts, percentiles and sums by `by`, and over time."""
    check_asked(by, step)
    minutes = (since_ns // MINUTE_NS, until_ns // MINUTE_NS)
    groups = _sums(client, by, minutes, limit)
    times = _sums(client, f"intDiv(minute, {step // 60})", minutes, MOST_POINTS)
    series = sorted((_point(row, step) for row in times), key=lambda point: point.t)
    return SpanStatistics(rows=tuple(map(_group, groups)), series=tuple(series))


def found_statistics(search: Search, by: str, step: int, since_ns: int, until_ns: int, limit: int) -> SpanStatistics:
    """As `span_statistics`, of the spans that are searched for."""
    check_asked(by, step)
    minutes = (since_ns // MINUTE_NS, until_ns // MINUTE_NS)
    spans = search.spans(*found_between(minutes))
    return summed_up(found_parts(spans, by, minutes), step, limit, search.counted_since)


def number_by(client: Client, field: str, limit: int) -> list[tuple[str, int]]:
    """How many spans have which value of a field, the most frequent first."""
    return [(row[0], row[1]) for row in _sums(client, field, (0, LARGEST), limit)]


def statistics(client: Client) -> StoreStatistics:
    """Count what is there."""
    everything = _sums(client, "''", (0, LARGEST), 1)
    spans, buckets = (everything[0][1], _buckets(everything[0][6])) if everything else (0, {})
    ((rows,),) = select(client, TRACES.format(count="count"))
    ((traces,),) = select(client, TRACES.format(count="uniqExact" if rows <= MANY else "uniq"))
    ((size, segments),) = select(client, SIZE)
    ((pinned,),) = select(client, PINS)
    oldest = select(client, OLDEST)
    return StoreStatistics(
        traces=traces,
        spans=spans,
        open=buckets.get(OPEN, 0),
        size=size,
        segments=segments,
        pinned=pinned,
        oldest_ns=min(oldest[0][0], LARGEST) if oldest else 0,
    )


def _sums(client: Client, key: str, minutes: tuple[int, int], limit: int) -> list[Row]:
    bound = Bound()
    first, last = (bound(min(minute, 2**32 - 1), "UInt32") for minute in minutes)
    between = f"minute BETWEEN {first} AND {last}"
    return select(client, SUMS.format(key=key, between=between, limit=limit), bound)


def _group(row: Row) -> Group:
    key, count, errors, input_tokens, output_tokens, cost, buckets = row
    p50, p95, p99 = percentiles(_buckets(buckets).items())
    return Group(
        key=key,
        count=count,
        errors=errors,
        p50=p50,
        p95=p95,
        p99=p99,
        input_tokens=int(input_tokens),
        output_tokens=int(output_tokens),
        cost=cost or 0.0,
    )


def _point(row: Row, step: int) -> TimePoint:
    number, count, errors, *_, buckets = row
    p50, p95, p99 = percentiles(_buckets(buckets).items())
    return TimePoint(t=number * step, count=count, errors=errors, p50=p50, p95=p95, p99=p99)


def _buckets(found: Mapping[str, int]) -> dict[int, int]:
    return {int(bucket): number for bucket, number in found.items()}
