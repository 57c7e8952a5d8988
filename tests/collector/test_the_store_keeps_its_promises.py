"""The SQLite store alone: one row for each span, whoever comes first; files that are not ours are left alone."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrace._contracts import Span, StatusCode
from asynctrace.collector import SQLiteReader, SQLiteStore, StoreError
from asynctrace.collector._sqlite import FORMAT_VERSION

from .doubles import StoreThatTrustsTheLatest
from .traffic import START, checkout, group, span


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with contextlib.closing(SQLiteStore(tmp_path / "state")) as made:
        yield made


# ── one row for each span ───────────────────────────────────────────────────────────────────────────────────


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


def balance(store_type: type[SQLiteStore], arrivals: list[Arrival], size: int) -> list[object]:
    """The list as the store sums it up, when the arrivals come in groups of `size`."""
    spans = [as_span(arrival) for arrival in arrivals]
    with tempfile.TemporaryDirectory() as directory, contextlib.closing(store_type(directory)) as store:
        for first in range(0, len(spans), size):
            store.add([group(*spans[first : first + size])])
        return sorted((run.trace_id, run.spans, run.errors, run.open) for run in store.runs(100).traces)


def model(arrivals: list[Arrival]) -> list[object]:
    """Ended beats open, the later end beats the earlier, among equals the later arrival wins."""
    newest: dict[tuple[str, str], Span] = {}
    for each in map(as_span, arrivals):
        known = newest.get((each.trace_id, each.span_id))
        if known is None or each.end_ns >= known.end_ns:
            newest[each.trace_id, each.span_id] = each
    traces: dict[str, list[Span]] = {}
    for each in newest.values():
        traces.setdefault(each.trace_id, []).append(each)
    return sorted(
        (
            trace_id,
            len(spans),
            sum(each.status is StatusCode.ERROR for each in spans),
            sum(not each.end_ns for each in spans),
        )
        for trace_id, spans in traces.items()
    )


@settings(max_examples=40, deadline=None)
@given(arrivals=ARRIVALS, size=st.integers(1, 5))
def test_sums_follow_the_spans_in_whatever_order_they_come(arrivals: list[Arrival], size: int) -> None:
    assert balance(SQLiteStore, arrivals, size) == model(arrivals)


def test_a_store_that_lets_open_spans_win_is_caught() -> None:
    ended_then_open: list[Arrival] = [(1, 1, 0, 0, 3, StatusCode.OK), (1, 1, 0, 0, 0, StatusCode.OK)]
    assert balance(SQLiteStore, ended_then_open, 1) == model(ended_then_open)
    assert balance(StoreThatTrustsTheLatest, ended_then_open, 1) != model(ended_then_open)


def test_an_ended_span_takes_the_place_of_its_open_version(store: SQLiteStore) -> None:
    store.add([group(span(duration=0))])
    (run,) = store.runs(1).traces
    assert (run.open, run.duration, run.ending) == (1, None, "open")
    store.add([group(span(duration=2_000_000_000, status=StatusCode.ERROR))])
    store.add([group(span(duration=0))])  # late
    (run,) = store.runs(1).traces
    assert (run.spans, run.open, run.errors, run.duration, run.ending) == (1, 0, 1, 2.0, "error")
    assert [each.duration_ns for each in store.trace(run.trace_id)[0].spans] == [2_000_000_000]


def test_a_trace_is_named_by_its_root_even_when_that_comes_last(store: SQLiteStore) -> None:
    store.add([group(span(number=3, parent=2, name="grandchild", start=5), service="far")])
    assert store.runs(1).traces[0].name == "grandchild"
    store.add([group(span(number=2, parent=1, name="child", start=2), service="far")])
    assert store.runs(1).traces[0].name == "child"
    store.add([group(span(number=1, name="root", start=1), service="near")])
    store.add([group(span(number=4, parent=7, name="skewed", start=-9), service="far")])
    (run,) = store.runs(1).traces
    assert (run.name, run.service, run.start_ns) == ("root", "near", START - 9)


def test_what_goes_in_comes_out(store: SQLiteStore) -> None:
    groups = [checkout(), group(span(1, 9, parent=1, name="other service"), service="bank")]
    store.add(groups)
    assert store.trace(f"{1:032x}") == groups
    assert store.trace(f"{2:032x}") == []


def test_values_beyond_what_sqlite_holds_are_kept_in_the_record(store: SQLiteStore) -> None:
    odd = Span(trace_id="f" * 32, span_id="f" * 16, start_ns=2**64 - 2, end_ns=2**64 - 1, name="a\0b \U0001f600")
    store.add([group(odd)])
    assert store.trace(odd.trace_id)[0].spans == (odd,)
    (run,) = store.runs(1).traces
    assert (run.start_ns, run.name) == (2**63 - 1, odd.name)


def test_a_group_is_taken_as_a_whole_or_not_at_all(store: SQLiteStore) -> None:
    with pytest.raises(ValueError, match="non-hexadecimal"):
        store.add([checkout(), group(Span(trace_id="no hex at all", span_id="1" * 16), service="new")])
    assert store.statistics().spans == 0
    store.add([checkout(), group(span(2), service="new")])  # what was cached on the way was forgotten too
    assert store.statistics().spans == 4
    assert [each.resource.attributes for each in store.trace(f"{2:032x}")] == [{"service.name": "new"}]


# ── lists ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_pages_follow_one_another_without_gap_or_overlap(store: SQLiteStore) -> None:
    store.add([group(*(span(n, 1, start=n // 3) for n in range(1, 26)))])
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = store.runs(4, cursor)
        seen += [run.trace_id for run in page.traces]
        store.add([group(span(100 + len(seen), 1, start=1_000))])  # newer ones do not move the older
        if (cursor := page.cursor) is None:
            break
    assert seen == [f"{n:032x}" for n in range(25, 0, -1)]


def test_a_full_last_page_has_no_cursor(store: SQLiteStore) -> None:
    store.add([group(*(span(n) for n in range(1, 5)))])
    assert store.runs(4).cursor is None
    assert store.runs(3).cursor is not None
    assert store.runs(1, "0-" + "0" * 32).traces == ()


@pytest.mark.parametrize("cursor", ["", "x", "1-", "1-zz", "-" + "0" * 32, "1-" + "0" * 31])
def test_a_cursor_from_elsewhere_is_refused(store: SQLiteStore, cursor: str) -> None:
    with pytest.raises(ValueError, match="no cursor"):
        store.runs(1, cursor)


def test_short_ids_are_unique_and_find_their_trace(store: SQLiteStore) -> None:
    ids = ["aaaaaaaa00000000", "aaaaaaaa00000001", "aaaaaaab00000000", "b000000000000000"]
    store.add([group(*(span(int(each.ljust(32, "0"), 16)) for each in ids))])
    shorts = {run.short_id for run in store.runs(10).traces}
    assert shorts == {"aaaaaaaa00000000", "aaaaaaaa00000001", "aaaaaaab", "b0000000"}
    assert all(len(store.find(short)) == 1 for short in shorts)
    assert len(store.find("aaaaaaa")) == 3
    assert len(store.find("aaaaaaa", limit=2)) == 2
    assert store.find("c") == []
    for wrong in ("x", "a" * 33, "a b", "²"):
        with pytest.raises(ValueError, match="trace id"):
            store.find(wrong)


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with contextlib.closing(SQLiteStore(tmp_path / "a" / "state")) as store:
            store.add([checkout()])
            modes = {path.name: path.stat().st_mode & 0o777 for path in store.directory.iterdir()}
            assert modes == dict.fromkeys(("collector.lock", "traces.db", "traces.db-wal", "traces.db-shm"), 0o600)
            assert store.directory.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_a_second_collector_is_refused_and_may_come_later(tmp_path: Path) -> None:
    first = SQLiteStore(tmp_path)
    with pytest.raises(StoreError, match=rf"another collector \(process {os.getpid()}\) uses .*--data"):
        SQLiteStore(tmp_path)
    first.add([checkout()])
    first.close()
    first.close()
    with contextlib.closing(SQLiteStore(tmp_path)) as second:
        assert second.statistics().spans == 3
    with pytest.raises(StoreError, match="closed"):
        first.add([checkout()])


def test_readers_see_commits_while_the_writer_writes(store: SQLiteStore) -> None:
    reader = SQLiteReader(store.directory)
    stop = threading.Event()
    counts: list[int] = []

    def read() -> None:
        while not stop.is_set():
            counts.append(reader.statistics().spans)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for n in range(100):
            store.add([group(*(span(n + 1, number) for number in range(1, 6)))])
            assert reader.statistics().spans == 5 * (n + 1)
    finally:
        stop.set()
        thread.join()
    assert counts == sorted(counts)
    assert all(count % 5 == 0 for count in counts)  # never half a group


def test_a_missing_store_is_no_new_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no store in .*asynctrace serve"):
        SQLiteReader(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def make(directory: Path) -> Path:
    with contextlib.closing(SQLiteStore(directory)) as store:
        store.add([group(*(span(n, name="x" * 500) for n in range(1, 200)))])
        return store.path


def newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")


def foreign(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")


def overwritten(path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (newer, rf"format {FORMAT_VERSION + 1}, this asynctrace reads up to {FORMAT_VERSION}: use the newer"),
        (foreign, "no store of asynctrace"),
        (overwritten, "damaged"),
    ],
)
@pytest.mark.parametrize("opened", [SQLiteReader, SQLiteStore])
def test_a_file_that_is_not_ours_is_refused_and_left_as_it_is(
    tmp_path: Path, damage: object, message: str, opened: type[SQLiteReader]
) -> None:
    assert callable(damage)
    path = make(tmp_path)
    damage(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=message):
        opened(tmp_path)
    assert path.read_bytes() == before


def test_damage_in_the_middle_is_a_clear_error(tmp_path: Path) -> None:
    path = make(tmp_path)
    content = bytearray(path.read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    path.write_bytes(content)
    more = [group(*(span(n, name="y" * 500) for n in range(1000, 3000)))]
    with contextlib.closing(SQLiteStore(tmp_path)) as store:
        with pytest.raises(StoreError, match="damaged: move it away"):
            store.runs(100)
        with pytest.raises(StoreError, match="damaged: move it away"):
            store.add(more)


def test_a_store_that_another_program_locks_is_a_clear_error(tmp_path: Path) -> None:
    path = make(tmp_path)
    hold = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE')"
    program = [sys.executable, "-c", f"{hold}; print('held', flush=True); sys.stdin.read()", str(path)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with contextlib.closing(SQLiteStore(tmp_path, busy_timeout=0.1)) as store:
            with pytest.raises(StoreError, match="locked by another process"):
                store.add([checkout()])
            assert store.statistics().spans == 199  # reading goes on
            other.communicate()
            store.add([checkout()])


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        SQLiteStore(tmp_path / "file")
    with pytest.raises(StoreError, match="cannot be used"):
        SQLiteStore(tmp_path / "file" / "below")
