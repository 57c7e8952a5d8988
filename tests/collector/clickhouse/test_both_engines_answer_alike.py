"""Whatever is asked, ClickHouse answers what SQLite answers: about random traces, some of whose spans came in several
versions, in whatever order, merged or not."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asynctrace._contracts import Span
from asynctrace.collector import RunSummary, SQLiteStore, Store
from asynctrace.collector._rows import SpanRow
from asynctrace.collector.clickhouse._roll import Rolling
from asynctrace.collector.clickhouse._schema import PARTITIONED
from asynctrace.collector.clickhouse._spans import PLACED
from asynctrace.collector.clickhouse._sums import SUMS
from asynctrace.collector.query import parse
from asynctrace.collector.store import SessionSummary, TraceSpans
from asynctrace.wire import ResourceSpans

from ... import clickhouse_server
from ..store.stores import QUERIES, clickhouse_store, in_requests, opened, some_traces

MORE = """
-name:chat*
-dur>2s
-ending:lost
-attr.tags=b
-model:gpt-x
-text:zzz
name:"*T GPT*"
attr."llm.token_count.prompt">450
-is:error service:bank
is:root -user:u1
cost>=0
tokens=0
errors<2 spans>=2
session:"*1" -session:s1
id:0 attr.n=2
is:late
größe
-GRÖSSE
name:"Größe*" status:ok
since:2023-11-14T22:15Z -id:00000000000000000000000000000003
""".strip().split("\n")


def in_versions(seed: int) -> list[tuple[str, Span]]:
    """As `some_traces`, a few with another name; of some spans an open version came too, of some the same one again."""
    rnd = random.Random(seed)
    spans = [(service, _renamed(span) if rnd.random() < 0.2 else span) for service, span in some_traces(seed)]
    more = [(service, msgspec.structs.replace(span, end_ns=0)) for service, span in spans if rnd.random() < 0.2]
    spans += more + rnd.sample(spans, len(spans) // 8)
    rnd.shuffle(spans)
    return spans


def _renamed(span: Span) -> Span:
    return msgspec.structs.replace(span, name="Größe")


@contextlib.contextmanager
def both(directory: Path, seed: int) -> Iterator[tuple[Store, Store]]:
    """The same traces in a store of each engine."""
    with (
        opened(SQLiteStore, directory / "sqlite") as sqlite,
        opened(clickhouse_store, directory / "clickhouse") as clickhouse,
    ):
        for table in PARTITIONED:
            clickhouse_server.shared().ask(f"SYSTEM STOP MERGES {database_of(directory)}.{table}")
        for each in in_requests(in_versions(seed), 7):
            sqlite.add([each])
            clickhouse.add([each])
        for store in (sqlite, clickhouse):
            store.pin(f"{3:032x}")
        yield sqlite, clickhouse


def as_shown(runs: Iterable[RunSummary]) -> list[RunSummary]:
    """Without previews: where the span that gives the name has none, SQLite may show those of one that gave it before."""
    return [msgspec.structs.replace(run, input="", output="") for run in runs]


def sessions(store: Store, query: str = "") -> list[SessionSummary]:
    return [msgspec.structs.replace(each, last_input="") for each in store.sessions(9, query=parse(query)).sessions]


def check_all_answers_are_alike(sqlite: Store, clickhouse: Store, queries: list[str]) -> None:
    assert as_shown(clickhouse.runs(100).traces) == as_shown(sqlite.runs(100).traces)
    for text in queries:
        query = parse(text)
        found = [run.trace_id for run in clickhouse.search(query, 100).traces]
        assert found == [run.trace_id for run in sqlite.search(query, 100).traces], text


QUESTIONS: dict[str, Callable[[Store], Any]] = {
    "a page of sessions": sessions,
    "sessions of a user": lambda store: sessions(store, "user:U1 -status:error"),
    "names": lambda store: store.values("name"),
    "models that begin": lambda store: store.values("model", "G"),
    "users": lambda store: store.values("user"),
    "statistics by name": lambda store: store.stats("name"),
    "statistics by model": lambda store: store.stats("model", step=120),
    "statistics of a query": lambda store: store.stats("service", query=parse("name:chat* -errors>2")),
    "found": lambda store: store.find("0", 100),
    "how much": lambda store: msgspec.structs.replace(store.statistics(), size=0, segments=0),
}


def as_read(found: TraceSpans) -> list[tuple[SpanRow, str]]:
    """The order of origins is each store's own."""
    return [(row._replace(origin=0), found.origins[row.origin].service) for row in found.rows]


def by_service(groups: Iterable[ResourceSpans]) -> list[ResourceSpans]:
    return sorted(groups, key=lambda group: str(group.resource.attributes["service.name"]))


def check_traces_are_alike(sqlite: Store, clickhouse: Store) -> None:
    for run in sqlite.runs(100).traces:
        summary = clickhouse.summary(run.trace_id)
        assert summary is not None
        assert as_shown([summary]) == as_shown([run])
        assert by_service(clickhouse.trace(run.trace_id)) == by_service(sqlite.trace(run.trace_id))
        one, other = sqlite.spans_of(run.trace_id, messages=False), clickhouse.spans_of(run.trace_id, messages=False)
        assert one is not None
        assert other is not None
        assert as_read(other) == as_read(one)
        span_id = one.rows[0].span_id.hex()
        alone, again = sqlite.span_of(run.trace_id, span_id), clickhouse.span_of(run.trace_id, span_id)
        assert alone is not None
        assert again is not None
        assert as_read(again) == as_read(alone)


def check_engines_answer_alike(directory: Path, seed: int, queries: list[str], *, is_merged: bool = False) -> None:
    with both(directory, seed) as (sqlite, other):
        if is_merged:
            for table in PARTITIONED:
                clickhouse_server.shared().ask(f"SYSTEM START MERGES {database_of(directory)}.{table}")
                clickhouse_server.shared().ask(f"OPTIMIZE TABLE {database_of(directory)}.{table} FINAL")
            other.sweep()
        check_all_answers_are_alike(sqlite, other, queries)
        check_traces_are_alike(sqlite, other)
        for asked, question in QUESTIONS.items():
            assert question(other) == question(sqlite), asked


def database_of(directory: Path) -> str:
    return clickhouse_server.shared().database(directory / "clickhouse").rpartition("/")[2]


def test_both_engines_answer_alike(tmp_path: Path) -> None:
    check_engines_answer_alike(tmp_path, 11, MORE)


def check_merging_changes_no_answer(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asynctrace.collector.clickhouse._roll.Rolling.roll", partialmethod(Rolling.roll, quiet=-60.0))
    check_engines_answer_alike(directory, 12, QUERIES[:20], is_merged=True)


def test_merging_and_rolling_up_change_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_merging_changes_no_answer(tmp_path, monkeypatch)


SMALL = {"_search.FEW": 2, "_search.LEAST_AT_ONCE": 1, "_search.MOST_AT_ONCE": 4, "_lines.MOST_AT_ONCE": 3}
SMALLER = {"_search.SPARE": 0, "_search.SPANS_AT_ONCE": 2, "_lines.NEIGHBORS_AT_ONCE": 1, "_sessions.FIRST": 1}


def test_small_portions_change_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretches of a few lines, no index for more than two traces: what happens to millions of them."""
    for name, number in (SMALL | SMALLER).items():
        monkeypatch.setattr(f"asynctrace.collector.clickhouse.{name}", number)
    monkeypatch.setattr("asynctrace.collector.store._search.SCAN_SECONDS", 60.0)
    check_engines_answer_alike(tmp_path, 13, MORE[::4])


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20, 30))
def test_both_engines_answer_every_query_alike(seed: int, tmp_path: Path) -> None:
    check_engines_answer_alike(tmp_path, seed, [*QUERIES, *MORE], is_merged=seed % 2 == 0)


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────

FAULTS: dict[str, tuple[str, Any]] = {
    "the latest arrival as the version that holds": ("_lines.VERSION", "arrived"),
    "spans in the order of their last arrival": ("_spans.PLACED", PLACED.replace("min(", "max(")),
    "conditions that forget other texts than ASCII": ("_conditions.BEYOND", "0"),
    "conditions turned round that are none": ("_conditions._in_message", lambda *_: "0"),
    "what was found is not asked again": ("_search.matches", lambda *_: True),
    "an index that hides what is there": ("_search.indexed", lambda *_: ["0"]),
}


def test_minutes_that_are_counted_twice_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asynctrace.collector.clickhouse._sums.SUMS", SUMS.replace("max(arrived) > max(rolled)", "1"))
    with pytest.raises(AssertionError):
        check_merging_changes_no_answer(tmp_path, monkeypatch)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_engine_with_this_fault_is_noticed(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, broken = FAULTS[fault]
    monkeypatch.setattr(f"asynctrace.collector.clickhouse.{name}", broken)
    with pytest.raises(AssertionError):
        check_engines_answer_alike(tmp_path, 11, MORE)
