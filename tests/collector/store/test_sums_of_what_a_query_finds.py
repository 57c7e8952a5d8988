"""Statistics and sessions of what a query finds, in any store, are those that reading everything gives.

A query picks traces as it does in the list; statistics count those of their spans that satisfy its terms of a span.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from asynctrace.collector import RunSummary, SQLiteStore, Store
from asynctrace.collector._rows import SpanRow
from asynctrace.collector.query import Query, parse
from asynctrace.collector.query._match import matches, matches_trace, trace_holds
from asynctrace.collector.store import SessionSummary, TraceSpans, _search

from ..traffic import START, group, received, span
from .stores import PARSED, QUERIES, STORES, Make, in_requests, opened, some_traces
from .test_any_store_keeps_its_promises import candidates, everything

every_store = pytest.mark.parametrize("make", STORES.values(), ids=STORES)
MINUTE = 60 * 10**9


def filled(store: Store, seed: int) -> list[tuple[RunSummary, TraceSpans]]:
    for each in in_requests(some_traces(seed, traces=14), 5):
        store.add([each])
    store.pin(f"{3:032x}")
    return everything(store)


# ── statistics ──────────────────────────────────────────────────────────────────────────────────────────────


def rows_by_hand(traces: list[tuple[RunSummary, TraceSpans]], query: Query) -> Iterator[tuple[SpanRow, str]]:
    """The spans that count, each with its service."""
    now = time.time_ns()
    for run, found in traces:
        if all(trace_holds(term, run, now) for term in query.of_trace):
            for each in candidates(found):
                if matches(Query(query.of_span), each, run, now):
                    yield each.row, each.origin.service


def check_statistics_are_of_what_is_found(make: Make, seed: int, directory: Path) -> None:
    with opened(make, directory) as store:
        traces = filled(store, seed)
        for text, query in zip(QUERIES, PARSED, strict=True):
            rows = list(rows_by_hand(traces, query))
            found = store.stats("name", query=query)
            counted = {each.key: (each.count, each.errors, each.input_tokens) for each in found.rows}
            assert counted == {
                name: sums(row for row, _ in rows if row.name == name) for name in {r.name for r, _ in rows}
            }, text
            assert sum(each.count for each in found.series) == len(rows), text
            assert found.counted_since_ns == 0
            services = {each.key: each.count for each in store.stats("service", query=query).rows}
            assert services == Counter(service for _, service in rows), text


def sums(rows: Iterator[SpanRow]) -> tuple[int, int, int]:
    some = list(rows)
    return len(some), sum(row.status == 2 for row in some), sum(row.facts.input_tokens for row in some)


@every_store
def test_statistics_of_a_query_count_the_spans_that_it_finds(make: Make, tmp_path: Path) -> None:
    check_statistics_are_of_what_is_found(make, 1, tmp_path)


def check_a_query_that_all_fit_changes_nothing(make: Make, directory: Path) -> None:
    with opened(make, directory) as store:
        filled(store, 2)
        for by in ("name", "service", "type", "model"):
            for between in ({}, {"since_ns": START + 3 * MINUTE + 5, "until_ns": START + 6 * MINUTE + 5}):
                assert store.stats(by, step=120, query=parse("name:*"), **between) == store.stats(
                    by, step=120, **between
                )


@every_store
def test_what_is_rolled_up_and_what_is_read_span_by_span_are_the_same(make: Make, tmp_path: Path) -> None:
    check_a_query_that_all_fit_changes_nothing(make, tmp_path)


def test_statistics_say_how_far_they_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asynctrace.collector.store._sums.SUM_SECONDS", 0.0)
    with opened(SQLiteStore, tmp_path) as store:
        store.add([received(group(*(span(trace, 1, start=trace * MINUTE) for trace in range(1, 9))))])
        found = store.stats(query=parse("name:*"))
        assert (found.rows[0].count, found.counted_since_ns) == (1, START + 8 * MINUTE)
        assert store.stats().rows[0].count == 8, "nothing has to be read for these"


# ── sessions ────────────────────────────────────────────────────────────────────────────────────────────────


def sessions_of(store: Store, query: Query) -> list[SessionSummary]:
    found: list[SessionSummary] = []
    cursor = None
    while True:
        page = store.sessions(1, cursor, query=query)
        assert page.counted_since_ns == 0
        found += page.sessions
        if (cursor := page.cursor) is None:
            return found


def check_sessions_are_of_what_is_found(make: Make, seed: int, directory: Path) -> None:
    with opened(make, directory) as store:
        traces = filled(store, seed)
        for text, query in zip(QUERIES, PARSED, strict=True):
            wanted: dict[str, list[RunSummary]] = {}
            for run, spans in traces:
                if run.session and matches_trace(query, run, partial(candidates, spans), time.time_ns()):
                    wanted.setdefault(run.session, []).append(run)
            found = sessions_of(store, query)
            assert [each.session for each in found] == sorted(wanted, key=lambda key: (wanted[key][0].start_ns, key))[
                ::-1
            ], text
            for each in found:
                runs = wanted[each.session]
                assert (each.traces, each.first_ns, each.last_ns) == (len(runs), runs[-1].start_ns, runs[0].start_ns), (
                    text
                )
                for field in ("spans", "errors", "open", "input_tokens", "output_tokens"):
                    assert getattr(each, field) == sum(getattr(run, field) for run in runs), (text, field)
                assert (each.user, each.last_input) == (runs[0].user, runs[0].input), text


@every_store
def test_sessions_of_a_query_sum_up_the_traces_that_it_finds(make: Make, tmp_path: Path) -> None:
    check_sessions_are_of_what_is_found(make, 1, tmp_path)


@every_store
@pytest.mark.parametrize("query", ["since:2023-01-01", "service:shop", "dur>0"])
def test_sessions_say_how_far_they_came(
    make: Make, query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asynctrace.collector.store._sums.SUM_SECONDS", 0.0)
    with opened(make, tmp_path) as store:
        spans = [span(n, 1, start=n * MINUTE, attributes={"session.id": f"s{n}"}) for n in range(1, 9)]
        store.add([received(group(*spans))])
        assert store.sessions(9, query=parse(query)).counted_since_ns >= START + MINUTE
        assert store.sessions(9).counted_since_ns == 0, "nothing has to be searched for these"


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


Broken = Callable[..., Any]
Check = Callable[[Make, int, Path], None]


@pytest.mark.parametrize(
    ("name", "broken", "check"),
    [
        ("matches", lambda *_: True, check_statistics_are_of_what_is_found),
        ("trace_holds", lambda *_: True, check_statistics_are_of_what_is_found),
        ("matches_trace", lambda *_: True, check_sessions_are_of_what_is_found),
        ("_is_plain", lambda line: True, check_statistics_are_of_what_is_found),
    ],
)
def test_sums_of_too_much_are_caught(
    name: str, broken: Broken, check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_search, name, broken)
    with pytest.raises(AssertionError):
        check(STORES["sqlite, a segment for each commit"], 1, tmp_path)


def test_statistics_of_other_minutes_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asynctrace.collector.store._sums.MINUTE_NS", 59 * 10**9)
    with pytest.raises(AssertionError):
        check_a_query_that_all_fit_changes_nothing(SQLiteStore, tmp_path)
