"""Whatever is wrong with the server or the way to it is one line that names it and shows a way out; and no call waits longer
than it may."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from asynctrace.collector import RequestKey
from asynctrace.collector.clickhouse import ClickHouseStore, ServerAway
from asynctrace.collector.clickhouse import _migrate as migrate
from asynctrace.collector.clickhouse._client import Client
from asynctrace.collector.clickhouse._url import Place, parse_url
from asynctrace.collector.store import Bounds, StoreError

from ...clickhouse_server import GRANTS, PASSWORD, USER, ClickHouse
from ..traffic import START, checkout, received
from .front import Answer, Front, Unsent


def check_opening_fails(url: str, *words: str, kind: type[StoreError] = StoreError) -> None:
    """With one line that has these words in it, and nothing secret."""
    with pytest.raises(kind) as caught:
        ClickHouseStore(url, timeout=20.0, patience=0).close()
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "\n" not in text
    assert PASSWORD not in text
    assert "p%40ss" not in text


@pytest.mark.parametrize(
    "url",
    [
        "", "clickhouse", "redis://localhost", "clickhouse://", "clickhouse://host:x/db", "clickhouse://host/two/names",
        "clickhouse://host/drop table", "clickhouse://host/db?secure=1", "clickhouse://p%40ss@/db", "clickhouse://[::1/db",
        "clickhouse://host/db;x", "clickhouse://host:70000/db", "clickhouse://host/größe", "clickhouse://u:p%40ss%0A@host/db",
    ],
)  # fmt: skip
def test_a_url_that_is_none_is_refused_with_one_that_is(url: str) -> None:
    check_opening_fails(url, "clickhouse://user:password@host:8123/database")


def test_a_url_says_where_the_store_is() -> None:
    assert parse_url("clickhouse://h") == Place(
        scheme="http", host="h", port=8123, database="asynctrace", user="default", password=""
    )
    assert parse_url("clickhouses://u%40:p%2F@h/d_1").url == "https://h:8443/"
    assert parse_url("https://h:1/d").port == 1
    place = parse_url(f"clickhouse://{USER}:{PASSWORD.replace('/', '%2F')}@[::1]:5/d")
    assert (place.user, place.password, place.url) == (USER, PASSWORD, "http://[::1]:5/")
    assert PASSWORD not in f"{place!r} {place}"


def test_a_wrong_password_and_an_unknown_user_are_told(clickhouse: ClickHouse) -> None:
    url = clickhouse.url("t1")
    check_opening_fails(url.replace("p%40ss", "wrong"), "refuses the user", "password in the store's URL")
    check_opening_fails(clickhouse.url("t1", user="nobody"), "refuses the user")


def test_a_user_who_may_only_read_is_told(clickhouse: ClickHouse) -> None:
    check_opening_fails(clickhouse.url("nowhere", user="reader"), "read-only", "right to write")


def test_a_server_that_is_not_there_is_told(clickhouse: ClickHouse) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        url = clickhouse.url("t1", port=nobody.getsockname()[1])
        check_opening_fails(url, "cannot be reached", "is the address right", kind=ServerAway)


def test_a_name_that_is_none_is_told() -> None:
    check_opening_fails(
        "clickhouse://no-such-host.invalid/db", "cannot be reached", "no-such-host.invalid", kind=ServerAway
    )


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, "<html>not here</html>"),
        Answer(200, "<html>welcome</html>"),
        Answer(400, "Port 9000 is for clickhouse-client program\nYou must use port 8123 for HTTP."),
    ],
)
def test_another_program_at_the_address_is_told(answer: Answer, clickhouse: ClickHouse, front: Front) -> None:
    front.plan("version()", answer)
    check_opening_fails(clickhouse.url("t1", port=front.port), "not as ClickHouse does", "8123")


def test_a_program_that_speaks_no_http_is_told(clickhouse: ClickHouse) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                connection.recv(100)
                connection.sendall(b"\x02nonsense\r\n\r\n")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        check_opening_fails(clickhouse.url("t1", port=server.getsockname()[1]), "not as ClickHouse does", "8123")


@pytest.mark.parametrize("version", ["18.16.1", "1.1.54385", "24.8.1.2684"])
def test_an_old_server_is_refused(version: str, clickhouse: ClickHouse, front: Front) -> None:
    front.plan("version()", Answer(200, f"{version}\n"))
    check_opening_fails(clickhouse.url("t1", port=front.port), version, "needs 25.3 or newer")


def test_a_proxy_whose_server_is_away_is_worth_another_try(clickhouse: ClickHouse, front: Front) -> None:
    front.plan("version()", Answer(502, "Bad Gateway"))
    check_opening_fails(clickhouse.url("t1", port=front.port), "away", "502", kind=ServerAway)


def check_a_server_that_hangs_is_left(clickhouse: ClickHouse, url: str) -> None:
    store = Client(url, timeout=1.0)
    try:
        with clickhouse.stopped():
            began = time.monotonic()
            with pytest.raises(ServerAway, match="did not answer within 1 seconds"):
                store.ask("SELECT 1")
            assert time.monotonic() - began < 30
        assert store.ask("SELECT 1", timeout=60.0) == b"1\n"
    finally:
        store.close()


def test_a_server_that_hangs_is_left_within_the_deadline(clickhouse: ClickHouse, url: str) -> None:
    check_a_server_that_hangs_is_left(clickhouse, url)


def check_a_server_that_answers_late_is_left(url: str) -> None:
    client = Client(url, timeout=1.0)
    try:
        began = time.monotonic()
        try:
            client.ask("SELECT sleepEachRow(1) FROM numbers(3) SETTINGS max_block_size = 1")
        except ServerAway:
            return
        raise AssertionError(f"it waited for {time.monotonic() - began} seconds")
    finally:
        client.close()


def test_a_server_that_answers_late_is_left(url: str) -> None:
    check_a_server_that_answers_late_is_left(url)


@pytest.fixture
def store(url: str) -> Iterator[ClickHouseStore]:
    made = ClickHouseStore(url, patience=0)
    yield made
    made.close()


def test_a_full_disk_is_told_and_what_is_there_can_be_read(store: ClickHouseStore, client: Client) -> None:
    """A bound of ClickHouse's own: it takes less room than there is for none."""
    store.add([received(checkout(1))])
    client.change("ALTER TABLE spans MODIFY SETTING min_free_disk_bytes_to_perform_insert = 1000000000000000000")
    with pytest.raises(StoreError, match="disk is full: free some space"):
        store.add([received(checkout(2))])
    assert int(client.ask("SELECT count() FROM spans")) == 3


def test_too_many_parts_are_worth_another_try(store: ClickHouseStore, client: Client) -> None:
    client.change("ALTER TABLE spans MODIFY SETTING parts_to_throw_insert = 1, parts_to_delay_insert = 1")
    store.add([received(checkout(1))])
    with pytest.raises(ServerAway, match="more parts than it can merge"):
        store.add([received(checkout(2))])


def test_tables_that_are_gone_are_told(store: ClickHouseStore, client: Client) -> None:
    client.change("DROP TABLE spans_in")
    with pytest.raises(StoreError, match="has not the tables of a store here"):
        store.add([received(checkout(1))])


def test_a_right_that_is_missing_is_told(clickhouse: ClickHouse, url: str) -> None:
    check_opening_fails(
        clickhouse.url(url.rpartition("/")[2], user="worker"), "does not let this user", "GRANT SELECT, INSERT"
    )


def test_the_rights_that_the_documentation_asks_for_suffice(clickhouse: ClickHouse) -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "clickhouse.md"
    for user, grants in GRANTS.items():
        for grant in grants:
            assert f"{grant.replace('granted', 'asynctrace')} TO {user}\n" in page.read_text()
    clickhouse.ask("CREATE DATABASE granted")
    now = [START / 1e9]
    store = ClickHouseStore(clickhouse.url("granted", user="worker"), bounds=Bounds(age=86_400.0), time=lambda: now[0])
    store.add([received(checkout(n)) for n in (1, 2, 3)])
    store.add([received(checkout(4), key=RequestKey("log", 0, 3))])
    assert store.pin(f"{1:032x}")
    assert store.delete(f"{2:032x}")
    now[0] += 3 * 86_400
    assert (store.sweep().segments, store.has(RequestKey("log", 0, 3))) == (1, True)
    viewer = ClickHouseStore(clickhouse.url("granted", user="viewer"))
    assert [int(run.trace_id, 16) for run in viewer.runs(9).traces] == [1]
    assert (viewer.statistics().spans, len(viewer.stats().rows), viewer.find("00")) == (3, 3, [f"{1:032x}"])
    with pytest.raises(StoreError, match="does not let this user"):
        viewer.delete(f"{1:032x}")
    viewer.close()
    assert store.unpin(f"{1:032x}")
    store.close()
    clickhouse.ask("DROP DATABASE granted SYNC")


def test_a_closed_store_is_told(url: str) -> None:
    store = ClickHouseStore(url)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.add([received(checkout(1))])


def test_closing_ends_what_others_wait_for(clickhouse: ClickHouse, url: str) -> None:
    client = Client(url, timeout=60.0)
    ended: list[StoreError] = []

    def ask() -> None:
        try:
            client.ask("SELECT sleepEachRow(1) FROM numbers(60) SETTINGS max_block_size = 1")
        except StoreError as error:
            ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    running = "SELECT count() FROM system.processes WHERE query LIKE 'SELECT sleep%numbers(60)%'"
    while clickhouse.ask(running) == "0\n":
        time.sleep(0.02)
    client.close()
    thread.join()
    assert [str(error) for error in ended] == [f"the store at {client.place} is closed"]


def test_an_idle_connection_that_died_is_made_anew(clickhouse: ClickHouse, front: Front, url: str) -> None:
    client = Client(clickhouse.url(url.rpartition("/")[2], port=front.port))
    try:
        assert client.ask("SELECT 1") == b"1\n"
        front.plan("SELECT 2", Unsent())
        assert client.ask("SELECT 2") == b"2\n"
        front.plan("SELECT 3", Unsent(), Unsent())
        with pytest.raises(ServerAway, match="broke the connection off"):
            client.ask("SELECT 3")
    finally:
        client.close()


def test_a_certificate_of_an_own_authority_is_trusted_when_it_is_given(clickhouse: ClickHouse, tmp_path: Path) -> None:
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    with Front(clickhouse.port, certificate=authority.issue_cert("127.0.0.1")) as front:
        url = clickhouse.url("t1", port=front.port).replace("clickhouse://", "clickhouses://")
        check_opening_fails(url, "certificate that is not trusted")
        client = Client(url, ca_file=str(ca_file))
        assert client.ask("SELECT 1", database="") == b"1\n"
        client.close()
    with pytest.raises(StoreError, match="CA file"):
        Client(url, ca_file=str(tmp_path / "missing"))


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


def test_a_message_with_the_password_is_caught(clickhouse: ClickHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "__str__", lambda self: f"{self.url} {self.password}")
    with pytest.raises(AssertionError):
        check_opening_fails(clickhouse.url("t1").replace(USER, "nobody"), "refuses the user")


def test_a_store_that_takes_any_server_is_caught(
    clickhouse: ClickHouse, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "MINIMUM", (0, 0))
    front.plan("version()", Answer(200, "18.16.1\n"))
    with pytest.raises(pytest.fail.Exception):
        check_opening_fails(clickhouse.url("t1", port=front.port), "18.16.1")


def test_a_call_without_a_deadline_is_caught(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Client.__init__
    monkeypatch.setattr(Client, "__init__", lambda self, url, timeout: made(self, url, timeout=300.0))
    with pytest.raises(AssertionError, match="it waited"):
        check_a_server_that_answers_late_is_left(url)
