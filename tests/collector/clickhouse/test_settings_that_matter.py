"""An insert has the settings it needs, whatever the user's profile says; what is the administrator's to set is told."""

from __future__ import annotations

import pytest

from asynctrace.collector.clickhouse import ClickHouseStore
from asynctrace.collector.clickhouse import _settings as settings
from asynctrace.collector.clickhouse._client import Client
from asynctrace.collector.clickhouse._settings import insert_settings

from ..traffic import checkout, received


def test_settings_that_this_clickhouse_does_not_know_are_left_out(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "INSERTING", {**settings.INSERTING, "of_another_century": 1})
    given = insert_settings(client)
    assert "of_another_century" not in given
    assert given["deduplicate_blocks_in_dependent_materialized_views"] == 1


def test_a_large_insert_is_one_part_in_each_table(url: str, client: Client) -> None:
    store = ClickHouseStore(url)
    store.add([received(checkout(n)) for n in range(1, 2001)])
    parts = client.ask(
        "SELECT table, max(max_block_number) FROM system.parts WHERE database = currentDatabase() "
        "AND table IN ('spans', 'span_io', 'arrivals', 'roots', 'trace_ts') GROUP BY table ORDER BY table"
    )
    assert [line.split(b"\t") for line in parts.splitlines()] == [
        [table, b"1"] for table in (b"arrivals", b"roots", b"span_io", b"spans", b"trace_ts")
    ]
    store.close()


def test_logs_of_the_server_without_an_end_are_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This server keeps none: a table of ours stands for one."""
    store = ClickHouseStore(url)
    assert store.advice() == []
    elsewhere = settings.UNBOUNDED_LOGS.replace("database = 'system'", "database = currentDatabase()")
    monkeypatch.setattr(settings, "UNBOUNDED_LOGS", elsewhere)
    store._client.change("CREATE TABLE query_log (d Date) ENGINE = MergeTree ORDER BY d")
    store._client.change("CREATE TABLE part_log (d Date) ENGINE = MergeTree ORDER BY d TTL d + INTERVAL 7 DAY")
    (line,) = store.advice()
    assert "(query_log)" in line
    assert "TTL" in line
    store.close()
