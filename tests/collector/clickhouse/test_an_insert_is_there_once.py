"""What is added is there once, in every table, whatever became of the answer; and what was acknowledged stays there."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asynctrace.collector import RequestKey
from asynctrace.collector._rows import Received
from asynctrace.collector.clickhouse import ServerAway
from asynctrace.collector.clickhouse import _settings as settings
from asynctrace.collector.clickhouse import _writing as writing
from asynctrace.collector.clickhouse._client import Client
from asynctrace.collector.clickhouse._migrate import bring_up_to_date
from asynctrace.collector.clickhouse._writing import Writing

from ...clickhouse_server import ClickHouse
from ..traffic import checkout, group, received, span
from .front import CutBody, Fault, Front, Late, LostAnswer, Unsent
from .traffic import log, with_logs

KEY = RequestKey("log", 0, 4)
ONCE = {"spans": 4, "span_io": 4, "arrivals": 4, "roots": 2, "trace_ts": 2, "logs": 2, "requests": 1}
"""Rows of `four_spans()`."""


def four_spans(key: RequestKey | None = KEY) -> Received:
    return with_logs(received(checkout(1), group(span(2, 1)), key=key), log(1, 1, "first"), log(2, 0, "second"))


@contextlib.contextmanager
def writing_to(url: str, patience: float = 20.0, timeout: float = 30.0) -> Iterator[Writing]:
    client = Client(url, timeout=timeout)
    try:
        bring_up_to_date(client)
        yield Writing(client, patience=patience)
    finally:
        client.close()


def rows(client: Client) -> dict[str, int]:
    return {table: int(client.ask(f"SELECT count() FROM {table}")) for table in ONCE}


INSERTS = ("spans_in", "logs_in", "requests (")
FAULTS = (LostAnswer, Unsent, CutBody)


def check_an_insert_is_repeated(insert: str, fault: type[Fault], url: str, client: Client, front: Front) -> None:
    with writing_to(url) as store:
        front.plan(f"INSERT INTO {insert}", fault(), fault())
        store.add([four_spans()], "claim 1")
    tokens = [token for statement, token in front.seen if insert in statement and "INSERT INTO" in statement]
    assert len(tokens) == 3, "the fault was not played, or not noticed"
    assert len(set(tokens)) == 1
    assert rows(client) == ONCE


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("insert", INSERTS)
def test_an_insert_whose_answer_is_lost_is_repeated_and_there_once(
    insert: str, fault: type[Fault], url: str, client: Client, front: Front, clickhouse: ClickHouse
) -> None:
    check_an_insert_is_repeated(insert, fault, through(url, clickhouse, front), client, front)


def through(url: str, server: ClickHouse, front: Front) -> str:
    return server.url(url.rpartition("/")[2], port=front.port)


def check_another_process_repeats_it(url: str, client: Client, front: Front, server: ClickHouse) -> None:
    """The first process dies when it has inserted, and before it knows that."""
    front.plan("INSERT INTO logs_in", LostAnswer())
    with writing_to(through(url, server, front), patience=0) as dead, pytest.raises(ServerAway):
        dead.add([four_spans()], "claim 1")
    assert rows(client)["spans"] == 4
    assert rows(client)["requests"] == 0
    with writing_to(url) as following:
        following.add([four_spans()], "claim 1")
        assert rows(client) == ONCE
        following.add([four_spans()], "claim 2")
        assert rows(client) == ONCE, "its key is known by now"
        following.add([four_spans(key=None)], "claim 1")
        assert rows(client) == ONCE


def test_the_same_token_from_another_process_adds_nothing_twice(
    url: str, client: Client, front: Front, clickhouse: ClickHouse
) -> None:
    check_another_process_repeats_it(url, client, front, clickhouse)


def test_an_insert_that_is_still_under_way_and_its_repetition_are_one(
    url: str, client: Client, front: Front, clickhouse: ClickHouse
) -> None:
    late = Late()
    front.plan("INSERT INTO spans_in", late)
    try:
        with writing_to(through(url, clickhouse, front), timeout=1.0, patience=30.0) as store:
            store.add([four_spans()], "claim 1")
            assert rows(client) == ONCE
    finally:
        late.let_go.set()


def test_many_threads_add_at_once(url: str, client: Client) -> None:
    with writing_to(url) as store:
        threads = [
            threading.Thread(target=store.add, args=([received(group(span(n, 1), span(n, 2)))],)) for n in range(1, 21)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert int(client.ask("SELECT uniqExact(trace_id, span_id) FROM spans")) == 40
    assert int(client.ask("SELECT uniqExact(arrived) FROM arrivals")) == 40, "two rows came at the same time"


def check_a_key_is_never_before_its_spans(url: str, front: Front, server: ClickHouse) -> None:
    front.plan("INSERT INTO spans_in", Unsent())
    with writing_to(through(url, server, front), patience=0) as store:
        with pytest.raises(ServerAway):
            store.add([four_spans()])
        assert not store.has(KEY)
        store.add([four_spans()])
        assert store.has(KEY)


def test_a_key_is_never_there_before_its_spans(url: str, front: Front, clickhouse: ClickHouse) -> None:
    check_a_key_is_never_before_its_spans(url, front, clickhouse)


def test_a_request_whose_key_is_known_is_not_added_again(url: str, client: Client) -> None:
    with writing_to(url) as store:
        store.add([four_spans()])
        store.add([four_spans(), received(group(span(3)), key=RequestKey("log", 4, 1))])
        assert rows(client) == {
            **ONCE,
            "spans": 5,
            "span_io": 5,
            "arrivals": 5,
            "roots": 3,
            "trace_ts": 3,
            "requests": 2,
        }


def test_a_request_is_known_when_others_of_its_log_cover_it(url: str) -> None:
    with writing_to(url) as store:
        for log_id, first, count in (("a", 10, 10), ("a", 0, 10), ("a", 22, 8), ("a", 30, 5), ("c", 7, 1)):
            spans = [span(1, number + 1) for number in range(count)]
            store.add([received(group(*spans), key=RequestKey(log_id, first, count))])
        for known in (("a", 0, 10), ("a", 3, 4), ("a", 0, 11), ("a", 5, 15), ("a", 29, 4), ("c", 7, 1)):
            assert store.has(RequestKey(*known)), known
        for unknown in (
            ("a", 19, 2),
            ("a", 21, 1),
            ("a", 34, 2),
            ("b", 0, 1),
            ("c", 6, 2),
            ("it's", 0, 1),
            ("\\", 0, 1),
        ):
            assert not store.has(RequestKey(*unknown)), unknown


def test_many_keys_are_asked_for_at_once(url: str) -> None:
    with writing_to(url) as store:
        requests = [received(group(span(n)), key=RequestKey(f"log-{n}", 0, 1)) for n in range(1, 1202)]
        store.add(requests[:600])
        assert store.has(RequestKey("log-600", 0, 1))
        assert not store.has(RequestKey("log-601", 0, 1))
        store.add(requests)
        assert int(store._client.ask("SELECT count() FROM requests")) == 1201
        assert int(store._client.ask("SELECT count() FROM span_io")) == 1201


def test_what_was_acknowledged_survives_the_death_of_the_server(tmp_path: Path) -> None:
    with ClickHouse(tmp_path) as server:
        url = server.database()
        with writing_to(url) as store:
            store.add([four_spans()], "claim 1")
            server.kill()
            server.start()
            assert rows(store._client) == ONCE
            store.add([four_spans(key=None)], "claim 1")
            assert rows(store._client) == ONCE, "it forgot the token"


def test_an_insert_waits_for_a_server_that_comes_back(tmp_path: Path) -> None:
    with ClickHouse(tmp_path) as server:
        url = server.database()
        with writing_to(url, patience=60.0) as store:
            server.kill()
            adding = threading.Thread(target=store.add, args=([four_spans()],))
            adding.start()
            server.start()
            adding.join()
            assert rows(store._client) == ONCE


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


def with_a_token_for_each_try(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count()

    def insert(self: Client, *arguments: object, insert: Callable[..., None] = Client.insert, **named: object) -> None:
        unlike = {**named.pop("settings"), "insert_deduplication_token": f"{next(numbers)}"}  # type: ignore[dict-item]
        insert(self, *arguments, settings=unlike, **named)

    monkeypatch.setattr(Client, "insert", insert)


def without_the_views(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {**settings.INSERTING, "deduplicate_blocks_in_dependent_materialized_views": 0}
    monkeypatch.setattr(settings, "INSERTING", wrong)


@pytest.mark.parametrize("fault", [with_a_token_for_each_try, without_the_views])
def test_a_store_that_repeats_so_is_caught(
    fault: Callable[[pytest.MonkeyPatch], None],
    url: str,
    client: Client,
    front: Front,
    clickhouse: ClickHouse,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check_an_insert_is_repeated("spans_in", LostAnswer, through(url, clickhouse, front), client, front)


def test_a_store_that_notes_keys_first_is_caught(
    url: str, front: Front, clickhouse: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(self: Writing, received: list[Received], token: str = "", add: Callable[..., None] = Writing.add) -> None:
        keys = [each.key for each in received if each.key is not None]
        self._insert(f"requests ({writing.COLUMNS})", writing.encode_keys(keys), "keys", writing._Patient(0))
        add(self, received, token)

    monkeypatch.setattr(Writing, "add", add)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check_a_key_is_never_before_its_spans(url, front, clickhouse)
