"""What holds for every store, whichever engine it has. A promise is a function `check_…(make, …)`; the tests give it each of
`STORES`, and the last ones stores with a fault."""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrace._contracts import AttributeValue, Ending, Span, StatusCode
from asynctrace.collector import RequestKey, RunSummary, SQLiteStore, Store
from asynctrace.collector._rows import EMPTY, Facts, LogRow, Origin, Received, SpanRow
from asynctrace.collector.query import Query, parse
from asynctrace.collector.query._match import Candidate, matches_trace
from asynctrace.collector.store import TraceSpans
from asynctrace.collector.store import _plan as plan
from asynctrace.collector.store import _segments as segments
from asynctrace.collector.store import _tally as tally
from asynctrace.collector.store import _writing as writing
from asynctrace.collector.store._chunk import NO_FEW
from asynctrace.collector.store._roll import Roll

from ..traffic import START, checkout, group, received, span
from .stores import PARSED, QUERIES, STORES, Make, in_requests, opened, run_of, some_traces

every_store = pytest.mark.parametrize("make", STORES.values(), ids=STORES)
SETTINGS = settings(max_examples=15, deadline=None)


def hexadecimal(number: int) -> str:
    return f"{number:032x}"


# ── one span is one, whoever comes first ────────────────────────────────────────────────────────────────────

Arrival = tuple[int, int, int, int, int, StatusCode]
ARRIVALS = st.lists(
    st.tuples(
        st.integers(1, 2),  # trace
        st.integers(1, 4),  # span
        st.integers(0, 4),  # parent
        st.integers(0, 3),  # start
        st.integers(0, 3),  # duration; 0 is open
        st.sampled_from(StatusCode),
    ),
    max_size=12,
)


def as_span(arrival: Arrival) -> Span:
    trace, number, parent, start, duration, status = arrival
    name = f"{number} {start} {duration}"
    return span(trace, number, parent=parent, start=start, duration=duration, status=status, name=name)


def check_sums_follow_the_spans(make: Make, arrivals: list[Arrival], size: int) -> None:
    spans = [as_span(arrival) for arrival in arrivals]
    with tempfile.TemporaryDirectory() as directory, opened(make, Path(directory)) as store:
        for first in range(0, len(spans), size):
            store.add([received(group(*spans[first : first + size]))])
        found = {run.trace_id: (run.spans, run.errors, run.open, run.end_ns) for run in store.runs(100).traces}
        assert found == model(spans)
        counted = store.statistics()
        assert (counted.traces, counted.spans) == (len(found), sum(each[0] for each in found.values()))
        assert counted.open == sum(each[2] for each in found.values())
        assert sum(each.count for each in store.stats().rows) == counted.spans, "the percentiles count others"


def model(spans: list[Span]) -> dict[str, tuple[int, int, int, int]]:
    """Ended beats open, the later end beats the earlier, among equals the later arrival wins."""
    newest: dict[tuple[str, str], Span] = {}
    for each in spans:
        known = newest.get((each.trace_id, each.span_id))
        if known is None or each.end_ns >= known.end_ns:
            newest[each.trace_id, each.span_id] = each
    traces: dict[str, list[Span]] = {}
    for each in newest.values():
        traces.setdefault(each.trace_id, []).append(each)
    return {
        trace_id: (
            len(some),
            sum(each.status is StatusCode.ERROR for each in some),
            sum(not each.end_ns for each in some),
            max(each.end_ns for each in some),
        )
        for trace_id, some in traces.items()
    }


@every_store
@SETTINGS
@given(arrivals=ARRIVALS, size=st.integers(1, 5))
def test_sums_follow_the_spans_in_whatever_order_they_come(make: Make, arrivals: list[Arrival], size: int) -> None:
    check_sums_follow_the_spans(make, arrivals, size)


def lost(trace: int, end: int) -> Span:
    attributes: dict[str, AttributeValue] = {"asynctrace.ending": Ending.LOST.value}
    return span(trace, 1, duration=end, status=StatusCode.ERROR, attributes=attributes)


VERSIONS: dict[str, Callable[[int], Span]] = {
    "open": lambda trace: span(trace, 1, duration=0),
    "lost early": lambda trace: lost(trace, 100),
    "lost late": lambda trace: lost(trace, 900),
    "ended": lambda trace: span(trace, 1, duration=500, status=StatusCode.OK),
    "failed": lambda trace: span(trace, 1, duration=600, status=StatusCode.ERROR),
}
"""From the lightest to the heaviest: the version that must stay."""


def check_the_heaviest_version_stays(make: Make, orders: Sequence[Sequence[str]], directory: Path) -> None:
    """Each of `orders` is that of the arrivals of one trace."""
    with opened(make, directory) as store:
        for arrivals in zip(*orders, strict=True):
            store.add([received(group(VERSIONS[name](trace))) for trace, name in enumerate(arrivals, 1)])
        for trace, arrivals in enumerate(orders, 1):
            wanted = VERSIONS[max(arrivals, key=list(VERSIONS).index)](trace)
            run = store.summary(hexadecimal(trace))
            assert run is not None
            ((stored,),) = [part.spans for part in store.trace(run.trace_id)]
            assert (stored.end_ns, stored.ending) == (wanted.end_ns, wanted.ending), arrivals
            counted = (run.spans, run.errors, run.open)
            assert counted == (1, wanted.status is StatusCode.ERROR, not wanted.end_ns), arrivals
            assert run.end_ns == wanted.end_ns, f"{arrivals}: the trace's end is that of a version that is gone"
            assert run.ending == (wanted.ending if wanted.end_ns else "open"), arrivals
            assert run.lost == (run.ending == "lost"), arrivals


@every_store
def test_an_ended_span_beats_a_lost_one_in_whatever_order_they_come(make: Make, tmp_path: Path) -> None:
    check_the_heaviest_version_stays(make, list(itertools.permutations(VERSIONS, 3)), tmp_path)


def check_spans_keep_their_place(make: Make, directory: Path) -> None:
    with opened(make, directory) as store:
        store.add([received(group(span(1, 3, parent=1), span(1, 1, duration=0)))])
        store.add([received(group(span(1, 2, parent=1)))])
        store.add([received(group(span(1, 4, parent=1), span(1, 1, name="ended")))])
        found = spans_of(store, 1)
        assert [(row.span_id[-1], row.name) for row in found.rows] == [
            (3, "work"),
            (1, "ended"),
            (2, "work"),
            (4, "work"),
        ]
        before = found.version
        store.add([received(group(span(1, 5)))])
        assert spans_of(store, 1).version > before
        assert [row.span_id[-1] for row in spans_of(store, 1).rows] == [3, 1, 2, 4, 5]


@every_store
def test_spans_keep_their_place_in_the_order_of_first_arrival(make: Make, tmp_path: Path) -> None:
    check_spans_keep_their_place(make, tmp_path)


def spans_of(store: Store, trace: int, *, messages: bool = True) -> TraceSpans:
    found = store.spans_of(hexadecimal(trace), messages=messages)
    assert found is not None
    return found


@every_store
def test_a_trace_is_named_by_its_root_even_when_that_comes_last(make: Make, tmp_path: Path) -> None:
    with opened(make, tmp_path) as store:
        store.add([received(group(span(number=3, parent=2, name="grandchild", start=5), service="far"))])
        assert (store.runs(1).traces[0].name, store.runs(1).traces[0].has_root) == ("grandchild", False)
        store.add([received(group(span(number=2, parent=1, name="child", start=2), service="far"))])
        assert store.runs(1).traces[0].name == "child"
        store.add([received(group(span(number=1, name="root", start=1), service="near"))])
        store.add([received(group(span(number=4, parent=7, name="skewed", start=-9), service="far"))])
        (run,) = store.runs(1).traces
        assert (run.name, run.service, run.start_ns, run.has_root) == ("root", "near", START - 9, True)


def check_what_goes_in_comes_out(make: Make, directory: Path) -> None:
    groups = [checkout(), group(span(1, 9, parent=1, name="other service"), service="bank")]
    with opened(make, directory) as store:
        store.add([received(*groups)])
        assert store.trace(hexadecimal(1)) == groups
        assert store.trace(hexadecimal(2)) == []
        assert store.spans_of(hexadecimal(2)) is None
        assert store.summary(hexadecimal(2)) is None
        assert store.summary(hexadecimal(1)) == store.runs(1).traces[0]


@every_store
def test_what_goes_in_comes_out(make: Make, tmp_path: Path) -> None:
    check_what_goes_in_comes_out(make, tmp_path)


def check_schemas_are_kept(make: Make, directory: Path) -> None:
    """The same resource and scope under other schemas is another origin."""
    urls = "https://opentelemetry.io/schemas/1.27.0", "https://opentelemetry.io/schemas/1.37.0"
    groups = [
        group(span(1, 1)),
        group(span(1, 2), schemas=urls),
        group(span(1, 3), schemas=urls[::-1]),
        group(span(1, 4), schemas=("", urls[0])),
    ]
    with opened(make, directory) as store:
        for each in groups:
            store.add([received(each)])
        assert store.trace(hexadecimal(1)) == groups
        found = spans_of(store, 1)
        schemas = [(origin.resource_schema, origin.scope_schema) for origin in found.origins]
        assert [schemas[row.origin] for row in found.rows] == [("", ""), urls, urls[::-1], ("", urls[0])]


@every_store
def test_schemas_are_kept(make: Make, tmp_path: Path) -> None:
    check_schemas_are_kept(make, tmp_path)


def check_what_arrived_since_is_told(make: Make, directory: Path) -> None:
    """Whoever adds what arrived to what was there knows what reading everything tells."""
    with opened(make, directory) as store:
        known: dict[bytes, SpanRow] = {}
        version = told = 0
        for each in in_requests([("shop", made) for _, made in some_traces(7, traces=1, most_spans=60)], 4):
            store.add([each])
            found = store.spans_of(each.rows[0].trace_id.hex(), messages=False, since=version)
            assert found is not None
            told += len(found.rows)
            if not found.since:
                known.clear()
            for row in found.rows:
                before = known.get(row.span_id)
                if before is None or tally.weight(row) >= tally.weight(before):
                    known[row.span_id] = row._replace(origin=0)
            version = found.version
            whole = spans_of(store, 1, messages=False)
            assert list(known.values()) == [row._replace(origin=0) for row in whole.rows]
            assert whole.version == version
            again = store.spans_of(hexadecimal(1), since=version)
            assert again is not None
            assert not again.since or not again.rows
        assert told == len(known) or not again.since, "what was known is told again"


@every_store
def test_what_arrived_since_a_version_is_told(make: Make, tmp_path: Path) -> None:
    check_what_arrived_since_is_told(make, tmp_path)


@every_store
def test_a_version_that_was_never_told_is_answered_with_everything(make: Make, tmp_path: Path) -> None:
    with opened(make, tmp_path) as store:
        store.add([received(checkout())])
        found = store.spans_of(hexadecimal(1), since=1000)
        assert found is not None
        assert (found.since, len(found.rows)) == (0, 3)
        assert store.spans_of(hexadecimal(2), since=1000) is None


FACTS = Facts(
    ending="timeout", type="llm", session="s", user="u", model="m", input_tokens=5, output_tokens=7, cost=0.25, events=1,
    links=2, dropped=12,
)  # fmt: skip


def check_a_line_without_messages_says_the_same(make: Make, directory: Path) -> None:
    (row,) = received(group(span(1, 1))).rows
    rows = [row._replace(facts=FACTS), row._replace(span_id=bytes(7) + b"2", parent_id=row.span_id, kind=3, status=2)]
    with opened(make, directory) as store:
        store.add([msgspec.structs.replace(received(checkout()), rows=rows)])
        assert spans_of(store, 1).rows == rows
        assert spans_of(store, 1, messages=False).rows == [row._replace(message=b"") for row in rows]
        one = store.span_of(hexadecimal(1), rows[1].span_id.hex())
        assert one is not None
        assert one.rows == [rows[1]]
        assert store.span_of(hexadecimal(1), "f" * 16) is None
        (run,) = store.runs(1).traces
        assert (run.type, run.model, run.session, run.user, run.dropped) == ("llm", "m", "s", "u", 12)
        assert (run.input_tokens, run.output_tokens, run.cost, run.ending) == (5, 7, 0.25, "timeout")


@every_store
def test_a_line_without_messages_says_the_same(make: Make, tmp_path: Path) -> None:
    check_a_line_without_messages_says_the_same(make, tmp_path)


@every_store
def test_previews_are_those_of_the_head_else_the_first_that_there_are(make: Make, tmp_path: Path) -> None:
    with opened(make, tmp_path) as store:
        child = {"input.value": "child asks", "output.value": "child says"}
        store.add([received(group(span(1, 2, parent=1, attributes=child)))])
        (run,) = store.runs(1).traces
        assert (run.input, run.output) == ("child asks", "child says")
        store.add([received(group(span(1, 1, attributes={"input.value": "root asks"})))])
        store.add([received(group(span(1, 3, parent=1, attributes=child)))])
        (run,) = store.runs(1).traces
        assert (run.input, run.output) == ("root asks", "child says")


@every_store
def test_values_beyond_what_databases_hold_are_kept_in_the_record(make: Make, tmp_path: Path) -> None:
    odd = Span(trace_id="f" * 32, span_id="f" * 16, start_ns=2**64 - 2, end_ns=2**64 - 1, name="a\0b \U0001f600")
    with opened(make, tmp_path) as store:
        store.add([received(group(odd))])
        assert store.trace(odd.trace_id)[0].spans == (odd,)
        (run,) = store.runs(1).traces
        assert (run.start_ns, run.name) == (2**63 - 1, odd.name)


@every_store
def test_notices_of_open_spans_are_passed_over(make: Make, tmp_path: Path) -> None:
    (row,) = received(group(span(duration=0))).rows
    with opened(make, tmp_path) as store:
        store.add([msgspec.structs.replace(received(checkout()), rows=[row._replace(facts=Facts(is_open=True))])])
        assert store.runs(1).traces == ()


# ── logs ────────────────────────────────────────────────────────────────────────────────────────────────────


def log(trace: int, number: int, at: int, text: str) -> LogRow:
    span_id = number.to_bytes(8, "big") if number else b""
    return LogRow(trace.to_bytes(16, "big"), span_id, START + at, 9, 0, text.encode())


def check_logs_are_attached(make: Make, directory: Path) -> None:
    origins = received(checkout()).origins
    with opened(make, directory) as store:
        store.add([Received(origins=origins, rows=[], logs=[log(1, 2, 7, "second"), log(1, 1, 5, "first")])])
        assert store.runs(9).traces == (), "a trace without a span is none yet"
        store.add([received(checkout())])
        store.add(
            [
                Received(
                    origins=origins, rows=[], logs=[log(1, 2, 9, "third"), log(1, 2, 7, "second"), log(1, 0, 8, "?")]
                )
            ]
        )
        assert [each.message for each in spans_of(store, 1).logs] == [b"first", b"second", b"?", b"third"]
        assert store.runs(9).traces[0].spans == 3
        one = store.span_of(hexadecimal(1), f"{2:016x}")
        assert one is not None
        assert [each.message for each in one.logs] == [b"second", b"third"]
        assert {one.origins[each.origin].service for each in one.logs} == {"shop"}


@every_store
def test_logs_come_with_their_trace_once_and_by_time(make: Make, tmp_path: Path) -> None:
    check_logs_are_attached(make, tmp_path)


# ── all or nothing ──────────────────────────────────────────────────────────────────────────────────────────


def check_a_group_is_taken_whole_or_not_at_all(make: Make, directory: Path) -> None:
    bad = received(group(span(3), service="new"))
    rows = [bad.rows[0]._replace(name=None)]  # type: ignore[arg-type]
    with opened(make, directory) as store:
        with pytest.raises((TypeError, AttributeError)):
            store.add([received(checkout(), key=RequestKey("log", 0, 3)), msgspec.structs.replace(bad, rows=rows)])
        assert store.statistics().spans == 0
        assert store.runs(9).traces == ()
        assert not store.has(RequestKey("log", 0, 3)), "the key is there, the spans are not"
        store.add([received(checkout()), bad])  # what was remembered on the way was forgotten too
        assert store.statistics().spans == 4
        assert [each.resource.attributes for each in store.trace(hexadecimal(3))] == [{"service.name": "new"}]


@every_store
def test_a_group_is_taken_as_a_whole_or_not_at_all(make: Make, tmp_path: Path) -> None:
    check_a_group_is_taken_whole_or_not_at_all(make, tmp_path)


@every_store
def test_readers_see_whole_commits_while_the_writer_writes(make: Make, tmp_path: Path) -> None:
    with opened(make, tmp_path) as store:
        stop = threading.Event()
        counts: list[int] = []

        def read() -> None:
            while not stop.is_set():
                counts.append(sum(run.spans for run in store.runs(1000).traces))

        thread = threading.Thread(target=read)
        thread.start()
        try:
            for n in range(30):
                store.add([received(group(*(span(n + 1, number) for number in range(1, 6))))])
        finally:
            stop.set()
            thread.join()
        assert counts == sorted(counts)
        assert all(count % 5 == 0 for count in counts)  # never half a group


# ── lists ───────────────────────────────────────────────────────────────────────────────────────────────────


def check_pages_follow_one_another(make: Make, directory: Path) -> None:
    with opened(make, directory) as store:
        for n in range(1, 26):
            store.add([received(group(span(n, 1, start=n // 3), span(n, 2, start=n // 3)))])
        store.add([received(group(*(span(n, 3, start=50) for n in range(1, 26, 4))))])  # these go on later
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = store.runs(4, cursor)
            seen += [run.trace_id for run in page.traces]
            store.add([received(group(span(100 + len(seen), 1, start=1_000)))])  # newer ones do not move the older
            if (cursor := page.cursor) is None:
                break
        assert seen == [hexadecimal(n) for n in range(25, 0, -1)]


@every_store
def test_pages_follow_one_another_without_gap_or_overlap(make: Make, tmp_path: Path) -> None:
    check_pages_follow_one_another(make, tmp_path)


@every_store
def test_a_full_last_page_has_no_cursor(make: Make, tmp_path: Path) -> None:
    with opened(make, tmp_path) as store:
        store.add([received(group(*(span(n) for n in range(1, 5))))])
        assert store.runs(4).cursor is None
        assert store.runs(3).cursor is not None
        assert store.runs(1, "0-" + "0" * 32).traces == ()
        with pytest.raises(ValueError, match="limit"):
            store.runs(0)


@every_store
@pytest.mark.parametrize("cursor", ["", "x", "1-", "1-zz", "-" + "0" * 32, "1-" + "0" * 31])
def test_a_cursor_from_elsewhere_is_refused(make: Make, tmp_path: Path, cursor: str) -> None:
    with opened(make, tmp_path) as store, pytest.raises(ValueError, match="no cursor"):
        store.runs(1, cursor)


@every_store
def test_short_ids_are_unique_and_find_their_trace(make: Make, tmp_path: Path) -> None:
    ids = ["aaaaaaaa00000000", "aaaaaaaa00000001", "aaaaaaab00000000", "b000000000000000"]
    with opened(make, tmp_path) as store:
        for each in ids:
            store.add([received(group(span(int(each.ljust(32, "0"), 16))))])
        shorts = {run.short_id for run in store.runs(10).traces}
        assert shorts == {"aaaaaaaa00000000", "aaaaaaaa00000001", "aaaaaaab", "b0000000"}
        assert all(len(store.find(short)) == 1 for short in shorts)
        assert len(store.find("aaaaaaa")) == 3
        assert len(store.find("aaaaaaa", limit=2)) == 2
        assert store.find("c") == []
        for wrong in ("x", "a" * 33, "a b", "²"):
            with pytest.raises(ValueError, match="trace id"):
                store.find(wrong)


# ── queries ─────────────────────────────────────────────────────────────────────────────────────────────────

NOW = START + 900 * 10**9


def filled(store: Store, seed: int, *, size: int = 5) -> None:
    for each in in_requests(some_traces(seed), size):
        store.add([each])


def all_pages(page_after: Callable[[str | None], Any]) -> list[RunSummary]:
    found: list[RunSummary] = []
    cursor = None
    while True:
        page = page_after(cursor)
        found += page.traces
        if (cursor := page.cursor) is None:
            return found


def by_hand(traces: list[tuple[RunSummary, TraceSpans]], query: Query) -> list[str]:
    """Each trace asked, whole."""
    return [
        run.trace_id for run, spans in traces if matches_trace(query, run, partial(candidates, spans), time.time_ns())
    ]


def candidates(found: TraceSpans) -> Iterable[Candidate]:
    return (Candidate(row, found.origins[row.origin]) for row in found.rows)


def check_queries_find_what_reading_everything_finds(make: Make, seed: int, directory: Path) -> None:
    with opened(make, directory) as store:
        filled(store, seed)
        store.pin(hexadecimal(3))
        traces = everything(store)
        for text, query in zip(QUERIES, PARSED, strict=True):
            found = all_pages(lambda cursor, query=query: store.search(query, 3, cursor))
            assert [run.trace_id for run in found] == by_hand(traces, query), text


@every_store
@pytest.mark.parametrize("seed", [1, 2])
def test_queries_find_what_reading_everything_finds(make: Make, seed: int, tmp_path: Path) -> None:
    check_queries_find_what_reading_everything_finds(make, seed, tmp_path)


def test_the_queries_of_these_tests_tell_traces_apart(tmp_path: Path) -> None:
    """Each operator finds some traces and not all, in one of the two seeds."""
    alike = set(QUERIES)
    for seed in (1, 2):
        with opened(SQLiteStore, tmp_path / str(seed)) as store:
            filled(store, seed)
            everything = len(store.runs(100).traces)
            alike -= {text for text in alike if 0 < len(store.search(parse(text), 100).traces) < everything}
    assert not {text for text in alike if "=" in text and "attr" in text} - {
        "attr.n=2 attr.n=3", "attr.ratio=0.5", "attr.missing=1", "attr.missing=*", "attr.customer=*"
    }  # fmt: skip


@every_store
def test_a_scan_says_how_far_it_came_and_an_index_does_not(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asynctrace.collector.store._search.SCAN_SECONDS", 0.0)
    with opened(make, tmp_path) as store:
        filled(store, 1)
        page = store.search(parse('text:"nowhere at all"'), 50)
        assert page.traces == ()
        assert page.cursor is not None, "the time was up after the first trace"
        assert page.scanned is not None
        assert page.scanned > 0
        for indexed in ("", "attr.n=2", "service:shop"):
            page = store.search(parse(indexed), 50)
            assert (page.scanned, page.cursor) == (None, None), "the time has nothing to say where an index answers"


# ── sums over many ──────────────────────────────────────────────────────────────────────────────────────────


def everything(store: Store) -> list[tuple[RunSummary, TraceSpans]]:
    runs = all_pages(lambda cursor: store.runs(50, cursor))
    return [(run, spans_of(store, int(run.trace_id, 16))) for run in runs]


def at_percent(durations: list[int], percent: int) -> float:
    return sorted(durations)[-(-len(durations) * percent // 100) - 1] / 1e9


def check_percentiles_are_right(make: Make, seed: int, directory: Path) -> None:
    with opened(make, directory) as store:
        filled(store, seed)
        rows = [row for _, spans in everything(store) for row in spans.rows]
        for by in ("name", "type", "model"):
            groups = {each.key: each for each in store.stats(by).rows}
            found: dict[str, list[SpanRow]] = {}
            for row in rows:
                found.setdefault(row.name if by == "name" else getattr(row.facts, by), []).append(row)
            assert groups.keys() == found.keys()
            for key, some in found.items():
                assert groups[key].count == len(some)
                assert groups[key].errors == sum(row.status == 2 for row in some)
                assert groups[key].input_tokens == sum(row.facts.input_tokens for row in some)
                durations = [row.end_ns - row.start_ns for row in some if row.end_ns]
                if durations:
                    wanted = [at_percent(durations, percent) for percent in (50, 95, 99)]
                    assert [groups[key].p50, groups[key].p95, groups[key].p99] == pytest.approx(wanted, rel=1 / 15)
        series = store.stats("name", step=120).series
        assert {each.t: each.count for each in series} == Counter(row.start_ns // 10**9 // 120 * 120 for row in rows)
        late = store.stats("name", since_ns=START + 300 * 10**9, until_ns=START + 420 * 10**9)
        minute = 60 * 10**9
        first, last = (START // minute + 5) * minute, (START // minute + 8) * minute
        assert sum(each.count for each in late.rows) == sum(first <= row.start_ns < last for row in rows)


@every_store
def test_percentiles_are_those_of_the_spans(make: Make, tmp_path: Path) -> None:
    check_percentiles_are_right(make, 3, tmp_path)


@every_store
@pytest.mark.parametrize(("by", "step"), [("color", 60), ("name", 0), ("name", 90)])
def test_statistics_by_what_is_not_known_are_refused(make: Make, tmp_path: Path, by: str, step: int) -> None:
    with opened(make, tmp_path) as store, pytest.raises(ValueError, match=r"statistics are by|multiple of 60"):
        store.stats(by, step=step)


def check_sessions_are_summed_up(make: Make, directory: Path) -> None:
    with opened(make, directory) as store:
        filled(store, 4)
        wanted: dict[str, list[RunSummary]] = {}
        for run in all_pages(lambda cursor: store.runs(50, cursor)):
            if run.session:
                wanted.setdefault(run.session, []).append(run)
        found = []
        cursor = None
        while True:
            page = store.sessions(1, cursor)
            found += page.sessions
            if (cursor := page.cursor) is None:
                break
        assert [each.session for each in found] == sorted(wanted, key=lambda key: (-wanted[key][0].start_ns, key))
        for each in found:
            runs = wanted[each.session]
            assert (each.traces, each.spans) == (len(runs), sum(run.spans for run in runs))
            assert (each.last_ns, each.first_ns) == (runs[0].start_ns, runs[-1].start_ns)
            assert each.input_tokens == sum(run.input_tokens for run in runs)
            assert (each.user, each.last_input) == (runs[0].user, runs[0].input)
        with pytest.raises(ValueError, match="no cursor"):
            store.sessions(9, "x")


@every_store
def test_sessions_are_the_sums_of_their_traces(make: Make, tmp_path: Path) -> None:
    check_sessions_are_summed_up(make, tmp_path)


@every_store
def test_values_are_offered_the_most_frequent_first(make: Make, tmp_path: Path) -> None:
    with opened(make, tmp_path) as store:
        filled(store, 5)
        rows = [row for _, spans in everything(store) for row in spans.rows]
        names = Counter(row.name for row in rows)
        assert {each.value: each.count for each in store.values("name")} == names
        assert [each.count for each in store.values("name")] == sorted(names.values(), reverse=True)
        assert [each.value for each in store.values("name", "CHAT")] == ["chat gpt-x"]
        assert {each.value for each in store.values("service")} == {"shop", "bank"}
        assert {each.value for each in store.values("attr.customer")} == {"Anna", "Björn"}  # the longest is not offered
        assert {each.value for each in store.values("n", limit=2)} < {"0", "1", "2", "3"}
        assert {"error", "ok"} <= {each.value for each in store.values("status")}
        assert {each.value for each in store.values("session")} == {"s0", "s1", "s2"}
        assert {"name", "attr.customer", "dur"} <= {each.value for each in store.values("", limit=1000)}


# ── what goes ───────────────────────────────────────────────────────────────────────────────────────────────


def check_a_deleted_trace_is_gone(make: Make, directory: Path) -> None:
    with opened(make, directory) as store:
        store.add([received(checkout(1)), received(checkout(2))])
        store.add([received(group(span(1, 9, parent=1, name="later", attributes={"secret": "tea"})))])
        store.pin(hexadecimal(1))
        assert store.delete(hexadecimal(1))
        assert not store.delete(hexadecimal(1))
        assert not store.unpin(hexadecimal(1))
        assert [run.trace_id for run in store.runs(9).traces] == [hexadecimal(2)]
        assert store.spans_of(hexadecimal(1)) is None
        assert store.search(parse("attr.secret=tea"), 9).traces == ()
        counted = store.statistics()
        assert (counted.traces, counted.spans) == (1, 3)
        assert sum(each.count for each in store.stats().rows) == 3
        store.add([received(checkout(1))])
        assert store.summary(hexadecimal(1)) is not None
        assert spans_of(store, 1).summary.spans == 3, "it begins anew"


@every_store
def test_a_deleted_trace_is_gone_from_everywhere(make: Make, tmp_path: Path) -> None:
    check_a_deleted_trace_is_gone(make, tmp_path)


@every_store
def test_log_records_without_a_span_can_be_deleted(make: Make, tmp_path: Path) -> None:
    with opened(make, tmp_path) as store:
        store.add([Received(origins=received(checkout()).origins, rows=[], logs=[log(1, 2, 7, "secret")])])
        assert spans_of(store, 1).logs
        assert store.delete(hexadecimal(1))
        assert store.spans_of(hexadecimal(1)) is None
        assert not store.delete(hexadecimal(1))


@every_store
def test_pins_are_kept_by_the_store(make: Make, tmp_path: Path) -> None:
    with opened(make, tmp_path) as store:
        store.add([received(checkout(1))])
        assert store.pin(hexadecimal(1))
        assert not store.pin(hexadecimal(2))
    with opened(make, tmp_path) as store:
        assert [run.pinned for run in store.runs(9).traces] == [True]
        assert store.statistics().pinned == 1
        assert store.unpin(hexadecimal(1))
        assert not store.unpin(hexadecimal(1))
        assert not store.runs(9).traces[0].pinned


@every_store
def test_a_store_that_is_opened_again_goes_on(make: Make, tmp_path: Path) -> None:
    for number in range(1, 4):
        with opened(make, tmp_path) as store:
            store.add([received(group(span(1, number), span(number + 1, 1)))])
            filled(store, number)
    with opened(make, tmp_path) as store:
        assert {row.span_id[-1] for row in spans_of(store, 1).rows} >= {1, 2, 3}
        counted = store.statistics()
        runs = all_pages(lambda cursor: store.runs(5, cursor))
        assert (counted.traces, counted.spans) == (len(runs), sum(run.spans for run in runs))


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


class ForgetsLogs(SQLiteStore):
    def add(self, received: Sequence[Received]) -> None:
        super().add([msgspec.structs.replace(each, logs=[]) for each in received])


class AddsOneByOne(SQLiteStore):
    """A commit for each request of a group."""

    def add(self, received: Sequence[Received]) -> None:
        for each in received:
            super().add([each])


class DeletesTheLineOnly(SQLiteStore):
    def delete(self, trace_id: str) -> bool:
        is_known = self.summary(trace_id) is not None
        assert self._current is not None
        self._current.connection.execute("DELETE FROM trace WHERE trace_id = ?", (bytes.fromhex(trace_id),))
        self._current.forget()
        self.unpin(trace_id)
        return is_known


def test_a_store_that_lets_the_last_version_win_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (tally, segments, writing):
        monkeypatch.setattr(module, "weight", lambda row: (0, 0))
    with pytest.raises(AssertionError):
        check_the_heaviest_version_stays(SQLiteStore, [("ended", "open")], tmp_path)
    ended_then_open: list[Arrival] = [(1, 1, 0, 0, 3, StatusCode.OK), (1, 1, 0, 0, 0, StatusCode.OK)]
    with pytest.raises(AssertionError):
        check_sums_follow_the_spans(SQLiteStore, ended_then_open, 1)


@pytest.mark.parametrize("arrivals", [("lost late", "ended"), ("ended", "lost late")])
def test_a_store_that_only_compares_ends_is_caught(
    arrivals: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (tally, segments, writing):
        monkeypatch.setattr(module, "weight", lambda row: (2 if row.end_ns else 0, row.end_ns))
    with pytest.raises(AssertionError):
        check_the_heaviest_version_stays(SQLiteStore, [arrivals], tmp_path)


def test_a_trace_that_keeps_the_end_of_a_version_that_is_gone_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recount(self: tally.Tally, rows: Any, origins: Any, recount: Any = tally.Tally.recount) -> None:
        end_ns = self.end_ns
        recount(self, rows, origins)
        self.end_ns = max(end_ns, self.end_ns)

    monkeypatch.setattr(tally.Tally, "recount", recount)
    with pytest.raises(AssertionError, match="is gone"):
        check_the_heaviest_version_stays(SQLiteStore, [("lost late", "ended")], tmp_path)


def test_a_store_that_counts_every_arrival_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing.SegmentWriter, "remember", lambda *_: None)
    twice: list[Arrival] = [(1, 1, 0, 0, 3, StatusCode.OK)] * 2
    with pytest.raises(AssertionError):
        check_sums_follow_the_spans(SQLiteStore, twice, 1)


def test_percentiles_that_keep_what_was_replaced_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(self: Roll, row: SpanRow, name: int, sign: int = 1, count: Any = Roll.count) -> None:
        if sign > 0:
            count(self, row, name)

    monkeypatch.setattr(Roll, "count", count)
    twice: list[Arrival] = [(1, 1, 0, 0, 0, StatusCode.OK), (1, 1, 0, 0, 3, StatusCode.OK)]
    with pytest.raises(AssertionError, match="percentiles"):
        check_sums_follow_the_spans(SQLiteStore, twice, 1)


def test_a_store_that_moves_what_is_replaced_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(self: segments.Gathered, rows: Iterable[SpanRow]) -> None:
        for row in rows:
            self._rows.pop(row.span_id, None)
            self._rows[row.span_id] = row

    monkeypatch.setattr(segments.Gathered, "add", add)
    with pytest.raises(AssertionError):
        check_spans_keep_their_place(SQLiteStore, tmp_path)


def test_a_skeleton_that_forgets_facts_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asynctrace.collector.store._chunk._few", lambda facts: NO_FEW)
    with pytest.raises(AssertionError):
        check_a_line_without_messages_says_the_same(SQLiteStore, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        (ForgetsLogs, check_logs_are_attached),
        (AddsOneByOne, check_a_group_is_taken_whole_or_not_at_all),
        (DeletesTheLineOnly, check_a_deleted_trace_is_gone),
    ],
)
def test_a_store_with_this_fault_is_caught(
    wrong: type[SQLiteStore], check: Callable[[Make, Path], None], tmp_path: Path
) -> None:
    with pytest.raises(AssertionError):
        check(wrong, tmp_path)


def test_a_list_that_shows_superseded_lines_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments.Reading, "continued", lambda self: iter(()))
    check_pages_follow_one_another(SQLiteStore, tmp_path / "one segment")
    with pytest.raises(AssertionError):
        check_sessions_are_summed_up(STORES["sqlite, a segment for each commit"], tmp_path / "many")


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("_attribute", lambda term: [b"no token"]),
        ("_closed", lambda field, word: [b"no token"]),
        ("needles", lambda query: [b"refund"]),
        ("needs_messages", lambda query: False),
    ],
)
def test_an_index_that_hides_something_is_caught(
    name: str, broken: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, name, broken)
    if hasattr(search_module(), name):
        monkeypatch.setattr(search_module(), name, broken)
    with pytest.raises(AssertionError):
        check_queries_find_what_reading_everything_finds(SQLiteStore, 1, tmp_path)


def search_module() -> Any:
    from asynctrace.collector.store import _search

    return _search


def test_tokens_that_are_not_asked_again_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module().Search, "_is_wanted", lambda self, found: True)
    with pytest.raises(AssertionError):
        check_queries_find_what_reading_everything_finds(SQLiteStore, 1, tmp_path)


def test_origins_told_apart_without_their_schemas_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Origin, "key", property(lambda self: (self.resource, self.scope)))
    with pytest.raises(AssertionError):
        check_schemas_are_kept(SQLiteStore, tmp_path)


@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_store_that_is_wrong_by_one_chunk_is_caught(
    wrong: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gather(self: Any, *arguments: Any, first: int = 0, gather: Any = segments.Reading.gather, **named: Any) -> None:
        gather(self, *arguments, first=max(0, first + wrong) if first else 0, **named)

    monkeypatch.setattr(segments.Reading, "gather", gather)
    with pytest.raises(AssertionError):
        check_what_arrived_since_is_told(SQLiteStore, tmp_path)


def test_percentiles_by_the_wrong_bucket_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asynctrace.collector.store._roll.middle_of", lambda bucket: bucket / 1e3)
    with pytest.raises(AssertionError):
        check_percentiles_are_right(SQLiteStore, 3, tmp_path)


def test_what_is_no_fact_is_shared() -> None:
    assert received(group(span())).rows[0].facts is not None
    assert Facts() == EMPTY
    assert run_of(1).rows[0].parent_id == b""
