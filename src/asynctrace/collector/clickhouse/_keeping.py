"""What stays and what goes in a ClickHouse store: pins, deletions, bounds.

Retention drops whole days of arrival, in all tables; before that, what is pinned is copied into the partition of the same day
that has `kept` 1, which retention passes over. Until it is dropped, a row may be there in both: they have the same version.

Promises

- Every step may be repeated, and done by several processes at once: a copy that is there twice is one by its ids, a
  partition that is gone stays gone.
- A day goes by age when all of it is beyond the bound, and by size only when a later one is there.
- A deleted trace is gone for readers when `delete()` returns; its bytes go when ClickHouse merges.
"""

from __future__ import annotations

import datetime
import secrets
from typing import Final

import msgspec

from ..store import Bounds, Swept
from ._client import Client, Settings
from ._schema import PARTITIONED

__all__ = ["Keeping"]

DAY: Final = 86_400
OF_TRACES: Final = tuple(table for table in PARTITIONED if table != "origins")
MINUTE_FIRST: Final = ("spans", "span_io")
DROPS_WITHIN: Final = 300.0
"""Seconds."""
PINNED: Final = "SELECT trace_id FROM pins FINAL WHERE is_pinned"
THIS: Final = "trace_id = toFixedString(unhex({trace:String}), 16)"
MINUTES: Final = f"""
SELECT intDiv(min(start_ns), 60000000000), intDiv(max(last_start_ns), 60000000000) FROM trace_ts WHERE {THIS}
HAVING count() > 0
"""  # noqa: S608
PARTS: Final = f"""
SELECT toUInt32(substring(partition_id, 3)) AS day, toUInt64(sum(bytes_on_disk)) AS size,
    startsWith(partition_id, '1-') AS kept
FROM system.parts WHERE active AND database = currentDatabase() AND table IN {PARTITIONED}
GROUP BY day, kept ORDER BY day FORMAT JSONCompactEachRow
"""  # noqa: S608
COUNTS: Final = f"""
SELECT uniqExact(trace_id), uniqExact(trace_id, span_id) FROM arrivals
WHERE _partition_id = {{partition:String}} AND trace_id NOT IN ({PINNED}) FORMAT JSONCompactEachRow
"""  # noqa: S608
DIRTY: Final = """
INSERT INTO minutes (minute, arrived, rolled)
SELECT DISTINCT minute, {now:UInt64}, 0 FROM spans WHERE
"""
"""Percentiles of these minutes are to be made anew."""


class _Day(msgspec.Struct, frozen=True, array_like=True):
    day: int
    """As 20231114."""
    size: int | str
    kept: int


class Keeping:
    """Used by one store. `client` is not owned."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def is_known(self, trace_id: bytes) -> bool:
        """Whether there is a span of it."""
        answer = self._client.ask(f"SELECT 1 FROM trace_ts WHERE {THIS} LIMIT 1", {"trace": trace_id.hex()})  # noqa: S608
        return bool(answer)

    def is_pinned(self, trace_id: bytes) -> bool:
        answer = self._client.ask(f"SELECT is_pinned FROM pins FINAL WHERE {THIS}", {"trace": trace_id.hex()})  # noqa: S608
        return answer == b"1\n"

    def pin(self, trace_id: bytes, now_ns: int) -> bool:
        """False when it is unknown."""
        if not self.is_known(trace_id):
            return False
        self._note_pin(trace_id, now_ns, is_pinned=True)
        return True

    def unpin(self, trace_id: bytes, now_ns: int) -> bool:
        """False when it was not pinned. Copies that outlived their day go."""
        if not self.is_pinned(trace_id):
            return False
        self._note_pin(trace_id, now_ns, is_pinned=False)
        values: Settings = {"trace": trace_id.hex(), "now": now_ns}
        self._client.change(f"{DIRTY} kept AND {THIS}", values, settings=_once())
        for table in OF_TRACES:
            self._delete(table, trace_id, "kept")
        return True

    def delete(self, trace_id: bytes, now_ns: int) -> bool:
        """False when it is unknown."""
        range_of = self._client.ask(MINUTES, {"trace": trace_id.hex()}).decode().split()
        if not range_of:
            return self._delete_logs(trace_id)
        if self.is_pinned(trace_id):
            self._note_pin(trace_id, now_ns, is_pinned=False)
        minutes = "minute BETWEEN {} AND {}".format(*range_of)
        values: Settings = {"trace": trace_id.hex(), "now": now_ns}
        self._client.change(f"{DIRTY} {minutes} AND {THIS}", values, settings=_once())
        for table in OF_TRACES:
            self._delete(table, trace_id, minutes if table in MINUTE_FIRST else "1")
        return True

    def sweep(self, bounds: Bounds, now_ns: int) -> Swept:
        """Drop the days that are beyond the bounds."""
        swept = Swept()
        for each in self._beyond(bounds, now_ns):
            partition = f"0-{each.day}"
            (counts,) = msgspec.json.decode(
                b"[%s]" % self._client.ask(COUNTS, {"partition": partition}).strip(),
                strict=False,
                type=list[tuple[int, int]],
            )
            self._drop(partition, now_ns)
            swept = Swept(
                segments=swept.segments + 1,
                traces=swept.traces + counts[0],
                spans=swept.spans + counts[1],
                size=swept.size + int(each.size),
            )
        return swept

    def _beyond(self, bounds: Bounds, now_ns: int) -> list[_Day]:
        if bounds.age is None and bounds.size is None:
            return []
        days = [msgspec.json.decode(line, type=_Day) for line in self._client.ask(PARTS).splitlines()]
        total = sum(int(each.size) for each in days)
        passing = [each for each in days if not each.kept]
        gone: list[_Day] = []
        for each in passing:
            is_old = bounds.age is not None and each.day < _day_of(now_ns // 10**9 - bounds.age)
            is_much = bounds.size is not None and total > bounds.size and each is not passing[-1]
            if is_old or is_much:
                gone.append(each)
                total -= int(each.size)
        return gone

    def _drop(self, partition: str, now_ns: int) -> None:
        parameters: Settings = {"partition": partition, "now": now_ns}
        self._client.change(f"{DIRTY} _partition_id = {{partition:String}}", parameters, settings=_once())
        for table in PARTITIONED:
            self._client.change(_copy(table), parameters, settings=_once(), timeout=DROPS_WITHIN)
        for table in PARTITIONED:
            self._client.change(f"ALTER TABLE {table} DROP PARTITION ID '{partition}'", timeout=DROPS_WITHIN)

    def _delete(self, table: str, trace_id: bytes, where: str) -> None:
        """Without waiting until parts are written anew: who reads leaves out what is deleted (`apply_mutations_on_fly`)."""
        statement = f"DELETE FROM {table} WHERE {where} AND trace_id = toFixedString(unhex('{trace_id.hex()}'), 16)"  # noqa: S608
        self._client.change(statement, settings={"lightweight_deletes_sync": 0})

    def _delete_logs(self, trace_id: bytes) -> bool:
        """Of a trace of which no span came. False where no log record came either."""
        if not self._client.ask(f"SELECT 1 FROM logs WHERE {THIS} LIMIT 1", {"trace": trace_id.hex()}):  # noqa: S608
            return False
        self._delete("logs", trace_id, "1")
        return True

    def _note_pin(self, trace_id: bytes, now_ns: int, *, is_pinned: bool) -> None:
        statement = "INSERT INTO pins SELECT unhex({trace:String}), {pinned:UInt8}, {now:UInt64}"
        values: Settings = {"trace": trace_id.hex(), "pinned": int(is_pinned), "now": now_ns}
        self._client.change(statement, values, settings=_once())


def _once() -> Settings:
    """For an INSERT of what may have been inserted before, and deleted since: nothing else has its token."""
    return {"insert_deduplication_token": secrets.token_hex(16), "max_partitions_per_insert_block": 0}


def _copy(table: str) -> str:
    """What is pinned of a partition, and the origins it needs."""
    if table == "origins":
        named = " UNION ALL ".join(
            f"SELECT origin FROM {each} WHERE _partition_id = {{partition:String}} AND trace_id IN ({PINNED})"  # noqa: S608
            for each in ("spans", "logs")
        )
        which = f"origin IN ({named})"
    else:
        which = f"trace_id IN ({PINNED})"
    rows = f"SELECT * REPLACE(1 AS kept) FROM {table} WHERE _partition_id = {{partition:String}} AND {which}"  # noqa: S608
    return f"INSERT INTO {table} {rows}"


def _day_of(seconds: float) -> int:
    """The UTC day, as 20231114."""
    return int(f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y%m%d}")
