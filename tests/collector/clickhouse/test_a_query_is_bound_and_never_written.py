"""What people look for reaches ClickHouse as parameters: whatever it says, the statements are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asynctrace.collector.clickhouse import ClickHouseStore
from asynctrace.collector.clickhouse import _select as select_module
from asynctrace.collector.clickhouse._client import Client
from asynctrace.collector.clickhouse._select import Bound, select
from asynctrace.collector.query import Query
from asynctrace.collector.query._terms import Attribute, Contains, Field, Identity, Not, Pattern, Plain, Word

from ..store.stores import in_requests, some_traces

EVIL = "x'); DROP TABLE spans; -- {p0:String} \\ \" \n\t\0 %27"

TERMS: dict[str, Callable[[str], Plain]] = {
    "a word": Word,
    "a field": lambda text: Field("name", Pattern(text)),
    "the beginning of a field": lambda text: Field("model", Pattern(text, after=True)),
    "a field of a trace": lambda text: Field("session", Pattern(text)),
    "a text": lambda text: Contains("text", text),
    "an attribute": lambda text: Attribute("n", "=", Pattern(text)),
    "the end of an attribute": lambda text: Attribute("n", "=", Pattern(text, before=True)),
    "the name of an attribute": lambda text: Attribute(text, ">", 1.0),
}


@pytest.fixture
def store(url: str) -> Iterator[ClickHouseStore]:
    made = ClickHouseStore(url)
    for each in in_requests(some_traces(1), 50):
        made.add([each])
    yield made
    made.close()


def check_no_statement_says_what_is_looked_for(
    store: ClickHouseStore, made: Callable[[str], Plain], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(text: str) -> list[str]:
        said.clear()
        store.search(Query((made(text), Not(made(text)))), 5)
        store.search(Query((made(text),)), 5)
        return list(said)

    said: list[str] = []
    real = Client.ask

    def recording(self: Client, statement: str, *arguments: Any, **more: Any) -> bytes:
        said.append(statement)
        return real(self, statement, *arguments, **more)

    monkeypatch.setattr(Client, "ask", recording)
    ask(EVIL)  # what is remembered is not asked for again
    assert ask(EVIL) == ask(EVIL.replace("DROP", "DRAW")), "the statement says it"
    assert said
    assert not [each for each in said if "DRAW" in each]
    assert store.statistics().traces == 12


@pytest.mark.parametrize("term", TERMS)
def test_no_statement_says_what_is_looked_for(
    term: str, store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_no_statement_says_what_is_looked_for(store, TERMS[term], monkeypatch)


def test_prefixes_cursors_and_names_are_bound_too(store: ClickHouseStore) -> None:
    assert store.values("name", EVIL) == []
    assert store.values(f"attr.{EVIL}") == []
    assert store.sessions(5, query=Query((Field("user", Pattern(EVIL)),))).sessions == ()
    assert store.stats(query=Query((Field("user", Pattern(EVIL)),))).rows == ()
    assert store.sessions(5, f"1700000000000000000-{EVIL}").sessions == ()
    assert store.search(Query((Identity("0"),)), 5).traces
    with pytest.raises(ValueError, match="trace id"):
        store.find(EVIL)
    assert store.statistics().traces == 12


def check_any_text_is_bound_as_it_is(client: Client, text: str) -> None:
    bound = Bound()
    assert select(client, f"SELECT lower(hex({bound(text, 'String')}))", bound) == [[text.encode().hex()]]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=30))
def test_any_text_is_bound_as_it_is(client: Client, text: str) -> None:
    check_any_text_is_bound_as_it_is(client, text)


def test_numbers_of_all_sizes_are_exact(client: Client) -> None:
    bound = Bound()
    large = [0, 2**53 + 1, 2**64 - 1]
    assert select(client, f"SELECT {bound(large, 'Array(UInt64)')}, {bound(-(2**63), 'Int64')}", bound) == [
        [large, -(2**63)]
    ]


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


def test_values_that_are_written_into_the_statement_are_noticed(
    store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bound, "__call__", lambda self, value, kind: repr(value).replace("\\x00", ""))
    with pytest.raises(AssertionError, match="says it"):
        check_no_statement_says_what_is_looked_for(store, lambda text: Word(text.replace("'", "")), monkeypatch)


def test_values_that_are_not_escaped_are_noticed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select_module, "_ESCAPED", {})
    with pytest.raises(Exception):  # noqa: B017, PT011  (what is read is another text, or none)
        check_any_text_is_bound_as_it_is(client, "a\\b\tc\n")
