"""How much is stored makes no difference to a list: counted in rows that ClickHouse reads, over spans that are made inside
it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asynctrace.collector.clickhouse import ClickHouseStore
from asynctrace.collector.clickhouse import _search as search
from asynctrace.collector.clickhouse._client import Client
from asynctrace.collector.clickhouse._lines import among
from asynctrace.collector.clickhouse._search import ROOTS
from asynctrace.collector.query import parse

from ... import clickhouse_server
from ..traffic import checkout, group, received, span

SPANS = 10
"""Of each trace."""
MAKE = f"""
INSERT INTO {{database}}.spans_in
    (trace_id, span_id, parent_id, arrived, start_ns, end_ns, name, status, service, session, tokens, message)
SELECT
    reinterpretAsFixedString(sipHash128(intDiv(number, {SPANS}))),
    reinterpretAsFixedString(sipHash64(number, 1)),
    if(number % {SPANS} = 0, toFixedString('', 8), reinterpretAsFixedString(sipHash64(intDiv(number, {SPANS}) * {SPANS}, 1))),
    1763000000000000000 + number, 1700000000000000000 + number * 10000000, 1700000000000000000 + number * 10000000 + 5000,
    'work', if(number = 77, 2, 1), 'shop', if(number = 78, 'rare', ''), [if(number = 79, 7, number % 5)], 'message'
FROM numbers({{first}}, {{count}})
SETTINGS max_block_size = 1048576, min_insert_block_size_rows = 1048576, max_insert_block_size = 1048576, max_threads = 1
"""


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[ClickHouseStore]:
    with contextlib.closing(ClickHouseStore(clickhouse_server.shared().database(directory))) as store:
        yield store


def make_spans(directory: Path, first: int, count: int) -> None:
    """Seconds of work, without a span on this side."""
    server = clickhouse_server.shared()
    database = server.database(directory).rpartition("/")[2]
    server.ask(MAKE.format(database=database, first=first, count=count))
    for table in ("spans", "roots", "trace_ts", "arrivals"):
        server.ask(f"OPTIMIZE TABLE {database}.{table} FINAL")


def rows_read(ask: Callable[[], object]) -> int:
    """The fewest of several attempts: what the server merges in the background counts too."""
    return min(_read_once(ask) for _ in range(3))


def _read_once(ask: Callable[[], object]) -> int:
    before = _counted()
    ask()
    return _counted() - before


def _counted() -> int:
    """All rows that the server has read for anybody."""
    return int(clickhouse_server.shared().ask("SELECT value FROM system.events WHERE event = 'SelectedRows'"))


FEWER, MORE = 100_000, 500_000
PAGE = 10


def asked(store: ClickHouseStore) -> dict[str, int]:
    """Rows read for what people look at."""
    newest = store.runs(PAGE)
    assert [run.spans for run in newest.traces] == [SPANS] * PAGE
    trace_id = newest.traces[0].trace_id
    middle = f"{1_700_000_000_000_000_000 + FEWER * 5_000_000}-{trace_id}"
    return {
        "the newest page": rows_read(lambda: store.runs(PAGE)),
        "the page after": rows_read(lambda: store.runs(PAGE, newest.cursor)),
        "a page far down": rows_read(lambda: store.runs(PAGE, middle)),
        "a line": rows_read(lambda: store.summary(trace_id)),
        "a trace": rows_read(lambda: store.spans_of(trace_id)),
        "what is rare": rows_read(lambda: store.search(parse("attr.nowhere=1"), PAGE)),
    }


def check_more_spans_are_not_read(directory: Path, fewer: int = FEWER, more: int = MORE) -> None:
    with opened(directory) as store:
        make_spans(directory, 0, fewer)
        before = asked(store)
        make_spans(directory, fewer, more - fewer)
        for page, rows in asked(store).items():
            assert rows < 2 * before[page] + 5_000, f"{page}: {before[page]:,} of {fewer:,} spans, {rows:,} of {more:,}"


def test_a_list_of_five_times_as_much_reads_as_many_rows(tmp_path: Path) -> None:
    check_more_spans_are_not_read(tmp_path)


@pytest.mark.long
def test_a_list_of_millions_of_spans_reads_as_many_rows(tmp_path: Path) -> None:
    check_more_spans_are_not_read(tmp_path, 500_000, 4_000_000)


# ── a trace that lives for days ─────────────────────────────────────────────────────────────────────────────

LATER = """
INSERT INTO {database}.roots (start_ns, trace_id, arrived, spans)
SELECT first.start_ns + n.number * 1000, first.trace_id, first.arrived + n.number, 1
FROM numbers(1, 5000) AS n
CROSS JOIN (SELECT start_ns, trace_id, arrived FROM {database}.roots ORDER BY start_ns LIMIT 1) AS first
"""
"""What as many later inserts of the trace that began first leave there."""


def check_what_lives_long_hides_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ask = Client.ask

    def noted(self: Client, statement: str, *given: Any, **named: Any) -> bytes:
        asked.append(statement)
        return ask(self, statement, *given, **named)

    monkeypatch.setattr(Client, "ask", noted)
    with opened(directory) as store:
        store.add([received(checkout(2)), received(group(span(1, 1, start=-1)))])
        server = clickhouse_server.shared()
        server.ask(LATER.format(database=server.database(directory).rpartition("/")[2]))
        asked.clear()
        assert [int(run.trace_id, 16) for run in store.runs(PAGE).traces] == [2, 1]
        assert len(asked) < 12, "its lines are read a stretch at a time"


def test_a_trace_that_lives_long_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_what_lives_long_hides_nothing(tmp_path, monkeypatch)


def check_each_trace_stands_in_its_place(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However short the stretches are, and however many of the traces that are met can be remembered."""
    rnd = random.Random(1)
    monkeypatch.setattr(search, "SPARE", 1)
    monkeypatch.setattr(search, "MOST_AT_ONCE", 8)
    spans = [span(trace, number, start=rnd.randrange(60)) for trace in range(1, 25) for number in range(1, 5)]
    rnd.shuffle(spans)
    starts: dict[str, int] = {}
    for each in spans:
        starts[each.trace_id] = min(each.start_ns, starts.get(each.trace_id, each.start_ns))
    wanted = sorted(starts, key=lambda trace_id: (starts[trace_id], trace_id), reverse=True)
    with opened(directory) as store:
        for first in range(0, len(spans), 12):
            store.add([received(group(*spans[first : first + 12]))])
        for passed in (0, 2, 7):
            monkeypatch.setattr(search, "MOST_PASSED", passed)
            assert _pages(store) == wanted, passed


def _pages(store: ClickHouseStore) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page = store.runs(5, cursor)
        found += [run.trace_id for run in page.traces]
        if (cursor := page.cursor) is None:
            return found


def test_each_trace_stands_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_each_trace_stands_in_its_place(tmp_path, monkeypatch)


def test_a_walk_that_meets_a_trace_again_and_again_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_PASSED", 0)
    with pytest.raises(AssertionError, match="a stretch at a time"):
        check_what_lives_long_hides_nothing(tmp_path, monkeypatch)


def test_a_walk_that_loses_its_order_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_position", lambda place: place.trace_id)
    with pytest.raises(AssertionError):
        check_each_trace_stands_in_its_place(tmp_path, monkeypatch)


FAULTS: dict[str, tuple[str, Any]] = {
    "a list in an order of its own": ("_search.ROOTS", ROOTS.replace("ORDER BY start_ns", "ORDER BY start_ns + 0")),
    "lines out of all minutes": (
        "_lines.within",
        lambda places, bound: among((place.trace_id for place in places), bound),
    ),
    "an index that is not asked": ("_search.indexed", lambda *_: []),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_reads_more_is_noticed(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, broken = FAULTS[fault]
    monkeypatch.setattr(f"asynctrace.collector.clickhouse.{name}", broken)
    monkeypatch.setattr(search.bounds, "SCAN_SECONDS", 100.0)  # on a slow machine both ways would read for as long
    with pytest.raises(AssertionError, match="spans, "):
        check_more_spans_are_not_read(tmp_path)
