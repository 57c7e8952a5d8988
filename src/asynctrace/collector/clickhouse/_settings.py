"""The settings of ClickHouse that matter, given with each insert, and what an administrator should hear of the others.

Promise: what a profile of the server says otherwise does not change what an insert does; a setting that this ClickHouse does
not know is left out.
"""

from __future__ import annotations

from typing import Final

from ._client import Client, Settings

__all__ = ["advice", "insert_settings"]

INSERTING: Final[Settings] = {
    # deduplication by token, in the tables that views fill as well
    "insert_deduplicate": 1,
    "deduplicate_insert": "enable",
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # a block is neither cut nor joined with others: else half of it could be seen, and a token would be a part's
    "max_insert_block_size": 2**30,
    "min_insert_block_size_rows": 0,
    "min_insert_block_size_bytes": 0,
    "max_block_size": 2**20,
    "max_insert_threads": 1,
    "max_threads": 1,
    # all or an error
    "materialized_views_ignore_errors": 0,
    "max_partitions_per_insert_block": 0,
}
KNOWN: Final = "SELECT name FROM system.settings WHERE name IN ({names})"
UNBOUNDED_LOGS: Final = """
SELECT name FROM system.tables WHERE database = 'system' AND name LIKE '%\\_log' AND engine LIKE '%MergeTree'
AND create_table_query NOT LIKE '% TTL %' ORDER BY name
"""


def insert_settings(client: Client) -> Settings:
    """Those of `INSERTING` that the server knows."""
    names = ", ".join(f"'{name}'" for name in INSERTING)
    known = set(client.ask(KNOWN.format(names=names)).decode().split())
    return {name: value for name, value in INSERTING.items() if name in known}


def advice(client: Client) -> list[str]:
    """One line for each thing that will cost somebody a disk or an evening."""
    logs = client.ask(UNBOUNDED_LOGS).decode().split()
    if not logs:
        return []
    return [
        f"ClickHouse at {client.place} keeps its own logs for ever ({', '.join(logs)}): give them a TTL in the server's "
        "configuration, or they outgrow the traces"
    ]
