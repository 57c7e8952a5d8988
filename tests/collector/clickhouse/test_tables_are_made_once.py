"""A database is brought to this version once, whoever starts; and left alone when it is not ours, or newer."""

from __future__ import annotations

import threading

import pytest

from asynctrace.collector.clickhouse import ClickHouseStore
from asynctrace.collector.clickhouse import _migrate as migrate
from asynctrace.collector.clickhouse._client import Client
from asynctrace.collector.clickhouse._migrate import bring_up_to_date
from asynctrace.collector.clickhouse._schema import MIGRATIONS, VERSION, Migration
from asynctrace.collector.store import StoreError

from ...clickhouse_server import ClickHouse
from ..traffic import checkout, received

ADDS_A_ROW: tuple[Migration, ...] = (
    ("CREATE TABLE IF NOT EXISTS counted (n UInt32) ENGINE = MergeTree ORDER BY n",),
    ("INSERT INTO counted VALUES (2)",),
    ("INSERT INTO counted VALUES (3)", "ALTER TABLE counted ADD COLUMN IF NOT EXISTS more String"),
)
"""Whose statements show how often they ran."""


def check_many_start_at_once(url: str, client: Client) -> None:
    clients = [Client(url) for _ in range(6)]
    ready = threading.Barrier(len(clients))
    failed: list[BaseException] = []

    def start(one: Client) -> None:
        ready.wait()
        try:
            bring_up_to_date(one, ADDS_A_ROW)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=start, args=(each,)) for each in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in clients:
        each.close()
    assert failed == []
    assert client.ask("SELECT n FROM counted ORDER BY n").split() == [b"2", b"3"]
    assert client.ask("SELECT number FROM migrations ORDER BY number").split() == [b"1", b"2", b"3"]
    assert client.ask("EXISTS TABLE migrating") == b"0\n"


def test_a_migration_is_applied_once_when_many_start_at_once(url: str, client: Client) -> None:
    check_many_start_at_once(url, client)


def test_the_database_is_made_where_there_is_none(clickhouse: ClickHouse) -> None:
    url = clickhouse.url("made_here")
    for _ in range(2):
        store = ClickHouseStore(url)
        store.add([received(checkout(1))])
        store.close()
    assert clickhouse.ask("SELECT uniqExact(span_id) FROM made_here.spans") == "3\n"
    clickhouse.ask("DROP DATABASE made_here")


def test_who_may_only_read_is_enough_where_the_tables_are(clickhouse: ClickHouse, url: str) -> None:
    store = ClickHouseStore(url)
    store.add([received(checkout(1))])
    store.close()
    reader = ClickHouseStore(clickhouse.url(url.rpartition("/")[2], user="reader"))
    assert [run.spans for run in reader.runs(9).traces] == [3]
    with pytest.raises(StoreError, match="read-only"):
        reader.add([received(checkout(2))])
    reader.close()


def check_a_newer_database_is_left_alone(url: str, client: Client) -> None:
    bring_up_to_date(client)
    client.change(f"INSERT INTO migrations (number, by) VALUES ({VERSION + 1}, 'the future')")
    with pytest.raises(
        StoreError, match=f"has version {VERSION + 1}, this asynctrace knows up to {VERSION}: use the newer"
    ):
        ClickHouseStore(url)
    assert client.ask("SELECT count() FROM migrations") == f"{VERSION + 1}\n".encode()


def test_a_newer_database_is_refused_and_left_alone(url: str, client: Client) -> None:
    check_a_newer_database_is_left_alone(url, client)


@pytest.mark.parametrize("name", ["spans", "migrations"])
def test_tables_of_another_program_are_refused_and_left_alone(name: str, url: str, client: Client) -> None:
    client.change(f"CREATE TABLE {name} (number UInt32) ENGINE = MergeTree ORDER BY number")
    with pytest.raises(StoreError, match="holds tables of another program: give the store a database of its own"):
        ClickHouseStore(url)
    assert client.ask("SELECT count() FROM system.tables WHERE database = currentDatabase()") == b"1\n"


def test_other_tables_beside_ours_do_no_harm(url: str, client: Client) -> None:
    client.change("CREATE TABLE customers (n UInt32) ENGINE = MergeTree ORDER BY n")
    ClickHouseStore(url).close()
    assert client.ask("EXISTS TABLE customers") == b"1\n"


def test_a_migration_whose_process_died_is_taken_over(url: str, client: Client) -> None:
    bring_up_to_date(client, ADDS_A_ROW[:1])
    client.change(migrate.LOCK)
    client.change("INSERT INTO counted VALUES (2)")  # it died before it could note that
    bring_up_to_date(client, ADDS_A_ROW, patience=1.0)
    assert client.ask("SELECT number FROM migrations ORDER BY number").split() == [b"1", b"2", b"3"]


def test_a_migration_that_fails_is_told_and_can_be_tried_again(url: str, client: Client) -> None:
    wrong: tuple[Migration, ...] = (*ADDS_A_ROW[:1], ("CREATE TABLE counted AS nothing",))
    with pytest.raises(StoreError, match="refuses"):
        bring_up_to_date(client, wrong)
    assert client.ask("EXISTS TABLE migrating") == b"0\n"
    bring_up_to_date(client, ADDS_A_ROW)
    assert client.ask("SELECT n FROM counted ORDER BY n").split() == [b"2", b"3"]


def test_every_statement_may_run_twice(url: str, client: Client) -> None:
    bring_up_to_date(client)
    for migration in MIGRATIONS:
        for statement in migration:
            client.change(statement)


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


def test_migrations_without_a_lock_are_caught(url: str, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(6)

    def lock(client: Client) -> bool:
        together.wait(60)
        return True

    monkeypatch.setattr(migrate, "_lock", lock)
    with pytest.raises(AssertionError):
        check_many_start_at_once(url, client)


def test_a_store_that_takes_a_newer_database_is_caught(
    url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_version", lambda client, known: known)
    monkeypatch.setattr(migrate, "MIGRATIONS_TABLE", "SELECT 1")
    with pytest.raises((AssertionError, StoreError, pytest.fail.Exception)):
        check_a_newer_database_is_left_alone(url, client)
