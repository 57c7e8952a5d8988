"""Percentiles by minute, made from the spans of minutes that have become quiet.

    minutes   arrived 12:07:31, rolled 12:05:02   something came since: whoever asks reads its spans
              arrived 12:07:31, rolled 12:07:31   `roll` has its sums, in the rows with that `rolled`

A span whose heavier version came later is counted once: the minute it is in is made anew. Two processes that make the same
minute make the same rows.

Promises: what `roll` says of a minute is what its spans said at `rolled`. A version that moves a span's start into another
minute leaves the older one counted in its own, in `roll` only.
"""

from __future__ import annotations

import secrets
from typing import Final

import msgspec

from ._client import Client, Settings

__all__ = ["BUCKET", "QUIET", "Rolling"]

QUIET: Final = 120.0
"""Seconds without arrivals after which a minute is summed up: most senders are done with it after a few."""
AT_ONCE: Final = 60
"""Minutes that one sweep sums up."""
ROLLS_WITHIN: Final = 300.0
"""Seconds for one minute."""

BUCKET: Final = """
multiIf(end_ns = 0, -1, end_ns <= start_ns, 0, end_ns - start_ns < 8, end_ns - start_ns,
    (bitShiftRight(reinterpretAsUInt64(toFloat64(end_ns - start_ns)), 52) - 1026) * 8
    + bitShiftRight(end_ns - start_ns, bitShiftRight(reinterpretAsUInt64(toFloat64(end_ns - start_ns)), 52) - 1026))
"""
"""`store._roll.bucket_of` in SQL: the exponent of a double is the place of the highest bit; 1026 is its bias plus three."""

DUE: Final = """
SELECT minute, max(arrived) AS upto FROM minutes GROUP BY minute
HAVING upto > max(rolled) AND upto < {quiet:UInt64} ORDER BY minute LIMIT {most:UInt32} FORMAT JSONCompactEachRow
SETTINGS output_format_json_quote_64bit_integers = 0
"""
MAKE: Final = f"""
INSERT INTO roll
SELECT minute, name, service, type, model, {{upto:UInt64}}, sum(number), sum(failed), sum(tokens_in), sum(tokens_out),
    sum(costs), CAST((groupArray(toInt32(bucket)), groupArray(number)), 'Map(Int32, UInt64)')
FROM (
    SELECT minute, name, service, type, model, {BUCKET} AS bucket, count() AS number, countIf(status = 2) AS failed,
        sum(input_tokens) AS tokens_in, sum(output_tokens) AS tokens_out, sum(cost) AS costs
    FROM (
        SELECT minute, latest.1 AS name, latest.2 AS service, latest.3 AS type, latest.4 AS model, latest.5 AS start_ns,
            latest.6 AS end_ns, latest.7 AS status, latest.8 AS input_tokens, latest.9 AS output_tokens, latest.10 AS cost
        FROM (
            SELECT minute, argMax((name, service, type, model, start_ns, end_ns, status, input_tokens, output_tokens, cost),
                version) AS latest
            FROM spans WHERE minute = {{minute:UInt32}} GROUP BY minute, xxHash32(trace_id), trace_id, span_id
        )
    ) GROUP BY minute, name, service, type, model, bucket
) GROUP BY minute, name, service, type, model
"""  # noqa: S608
NOTE: Final = "INSERT INTO minutes (minute, arrived, rolled) SELECT {minute:UInt32}, 0, {upto:UInt64}"


class Rolling:
    """Sums minutes up. `client` is not owned."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def roll(self, now_ns: int, *, quiet: float = QUIET) -> int:
        """Sum up the minutes that are due, `AT_ONCE` at most; how many."""
        asked = {"quiet": max(0, now_ns - int(quiet * 1e9)), "most": AT_ONCE}
        due = [msgspec.json.decode(line, type=tuple[int, int]) for line in self._client.ask(DUE, asked).splitlines()]
        for minute, upto in due:
            values: Settings = {"minute": minute, "upto": upto}
            # The same sums may come again after others: they are not to be taken for those that were there.
            settings: Settings = {
                "optimize_aggregation_in_order": 1,
                "insert_deduplication_token": secrets.token_hex(16),
            }
            self._client.change(MAKE, values, settings=settings, timeout=ROLLS_WITHIN)
            self._client.change(NOTE, values, settings={"insert_deduplication_token": secrets.token_hex(16)})
        return len(due)
