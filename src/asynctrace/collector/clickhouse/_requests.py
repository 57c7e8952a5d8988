"""Which requests a ClickHouse store has: the table `requests`.

One row for each request that was added under a key. A request is known when the rows of its log cover its records, so a part
of one that was stored is found like the whole.

Promises: a key is written after its spans; ClickHouse forgets it after a week.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from .._keys import RequestKey
from ._client import Client
from ._native import block, integers, texts

__all__ = ["COLUMNS", "encode_keys", "known_among"]

AT_ONCE: Final = 500
"""Logs that one statement asks for: 60 KB of it."""
COLUMNS: Final = "log_id, first, end"

Runs = dict[str, list[tuple[int, int]]]


def known_among(client: Client, keys: Sequence[RequestKey]) -> set[RequestKey]:
    """Those whose records were all added before."""
    spans: dict[str, tuple[int, int]] = {}
    for key in keys:
        first, end = spans.get(key.log_id, (key.first, key.end))
        spans[key.log_id] = (min(first, key.first), max(end, key.end))
    wanted = [(log_id, first, end) for log_id, (first, end) in spans.items()]
    runs: Runs = {}
    for start in range(0, len(wanted), AT_ONCE):
        _read(client, wanted[start : start + AT_ONCE], runs)
    return {key for key in keys if _covers(runs.get(key.log_id, ()), key)}


def encode_keys(keys: Iterable[RequestKey]) -> bytes:
    """A block for `requests`."""
    some = list(keys)
    return block(
        len(some),
        [
            ("log_id", "String", texts([key.log_id for key in some])),
            ("first", "UInt64", integers("Q", [key.first for key in some])),
            ("end", "UInt64", integers("Q", [key.end for key in some])),
        ],
    )


def _read(client: Client, wanted: Sequence[tuple[str, int, int]], runs: Runs) -> None:
    """Log ids have letters, digits and `._-` only (`parse_key`); what has more is nobody's that was added."""
    rows = ", ".join(f"({_quoted(log_id)}, {first}, {end})" for log_id, first, end in wanted)
    names = ", ".join(_quoted(log_id) for log_id, _, _ in wanted)
    statement = f"""
        SELECT DISTINCT r.log_id, r.first, r.end FROM requests AS r
        INNER JOIN (SELECT w.1 AS log_id, w.2 AS first, w.3 AS end FROM (SELECT arrayJoin([{rows}]) AS w)) AS w
        ON r.log_id = w.log_id
        WHERE r.log_id IN ({names}) AND r.first < w.end AND r.end > w.first FORMAT TabSeparated
    """  # noqa: S608
    for line in client.ask(statement).decode().splitlines():
        log_id, first, end = line.split("\t")
        runs.setdefault(log_id, []).append((int(first), int(end)))


def _quoted(log_id: str) -> str:
    return "'" + log_id.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _covers(runs: Iterable[tuple[int, int]], key: RequestKey) -> bool:
    reached = key.first
    for first, end in sorted(runs):
        if first > reached:
            break
        reached = max(reached, end)
    return reached >= key.end
