"""The files of the embedded store: who may read them, what ends them, what stays when they go, and what if one is damaged.

A promise is a function `check_…(store_type, …)`, where a store with a fault must fail it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asynctrace.collector import RequestKey, SQLiteReader, SQLiteStore, StoreError
from asynctrace.collector.query import parse
from asynctrace.collector.store import Bounds, Swept
from asynctrace.collector.store import _retention as retention
from asynctrace.collector.store import _schema as schema
from asynctrace.collector.store import _writing as writing
from asynctrace.collector.store._schema import FORMAT_VERSION

from ..traffic import checkout, group, received, span

FIRST = "seg-000001.db"
LARGE = {"input.value": "x" * 500}


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@contextlib.contextmanager
def opened(
    directory: Path, store_type: Callable[..., SQLiteStore] = SQLiteStore, **options: Any
) -> Iterator[SQLiteStore]:
    with contextlib.closing(store_type(directory, **options)) as store:
        yield store


def hexadecimal(number: int) -> str:
    return f"{number:032x}"


def noise(trace: int, spans: int = 200) -> Any:
    """A trace that hardly compresses: about 100 KB."""
    return received(
        group(*(span(trace, n, attributes={"input.value": os.urandom(250).hex()}) for n in range(1, spans + 1)))
    )


def ids_of(store: SQLiteReader) -> set[int]:
    return {int(run.trace_id, 16) for run in store.runs(10_000).traces}


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(tmp_path / "a" / "state", segment_size=1) as store:
            for n in (1, 2):
                store.add([received(checkout(n))])
            modes = {path.name: path.stat().st_mode & 0o777 for path in store.directory.iterdir()}
            assert set(modes.values()) == {0o600}
            assert {FIRST, "seg-000002.db", "books.db", "collector.lock"} <= set(modes)
            assert store.directory.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_a_second_collector_is_refused_and_may_come_later(tmp_path: Path) -> None:
    first = SQLiteStore(tmp_path)
    with pytest.raises(StoreError, match=rf"another collector \(process {os.getpid()}\) uses .*--data"):
        SQLiteStore(tmp_path)
    first.add([received(checkout())])
    first.close()
    first.close()
    with opened(tmp_path) as second:
        assert second.statistics().spans == 3
    for late in (lambda: first.add([received(checkout())]), first.sweep, lambda: first.has(RequestKey("log", 0, 1))):
        with pytest.raises(StoreError, match="closed"):
            late()


def test_a_missing_store_is_no_new_one(tmp_path: Path) -> None:
    for directory in (tmp_path / "none", tmp_path):
        with pytest.raises(StoreError, match=r"no store in .*asynctrace serve"):
            SQLiteReader(directory)
    assert not (tmp_path / "none").exists()


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="cannot be used"):
            SQLiteStore(directory)


def test_a_reader_of_another_process_sees_what_is_committed(tmp_path: Path) -> None:
    with opened(tmp_path, segment_size=1) as store:
        store.add([received(checkout(1))])
        reader = SQLiteReader(tmp_path)
        for n in range(2, 5):
            store.add([received(checkout(n))])
            assert ids_of(reader) == set(range(1, n + 1))
        store.delete(hexadecimal(1))
        assert ids_of(reader) == {2, 3, 4}


def test_a_segment_ends_by_size_and_by_age(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, time=clock, segment_size=1024 * 1024, segment_age=3600) as store:
        store.add([received(checkout(1))])
        clock.now += 3599
        store.add([received(checkout(2))])
        assert store.statistics().segments == 1
        clock.now += 2
        store.sweep()
        assert store.statistics().segments == 2
        clock.now += 7200
        store.sweep()
        assert store.statistics().segments == 2, "an empty one does not age"
        for n in range(3, 20):
            store.add([noise(n)])
        assert store.statistics().segments >= 3
    with opened(tmp_path, time=clock) as store:
        assert ids_of(store) == set(range(1, 20))


# ── retention ───────────────────────────────────────────────────────────────────────────────────────────────

CAP = 6 * 1024 * 1024


def check_the_oldest_unpinned_go(store_type: Callable[..., SQLiteStore], directory: Path) -> None:
    traces, spans = 24, 800  # 400 KB each
    with opened(directory, store_type, bounds=Bounds(size=CAP)) as store:
        for n in range(1, traces + 1):
            store.add([noise(n, spans)])
            if n in (2, 3):
                store.pin(hexadecimal(n))
                store.add([received(group(span(n, 9999, attributes={"late": True})))])
            assert sum(path.stat().st_size for path in directory.iterdir() if path.suffix == ".db") <= CAP
        there = ids_of(store)
        newest = sorted(there - {2, 3})
        assert {2, 3} < there, "a pinned one went"
        assert 1 not in there, "nothing went"
        assert newest == list(range(newest[0], traces + 1)), "not the oldest went"
        assert all(run.spans == spans + run.pinned for run in store.runs(1000).traces), "a trace was cut"
        assert len(store.runs(1000).traces) == len(there), "a trace is there twice"
        pinned = store.spans_of(hexadecimal(2))
        assert pinned is not None
        assert len(pinned.rows) == spans + 1
        found = store.search(parse("attr.late=true"), 9)
        assert {int(run.trace_id, 16) for run in found.traces} == {2, 3}, "pinned ones cannot be searched"
        counted = store.statistics()
        assert (counted.traces, counted.spans) == (len(there), spans * len(there) + 2)
        assert store.sweep().traces >= traces - len(there), "what went to make room is told by nobody"
        assert store.unpin(hexadecimal(2))
        store.sweep()
        assert 2 not in ids_of(store), "what is not pinned any more is beyond the bounds"
        assert 3 in ids_of(store)
        assert sum(each.count for each in store.stats().rows) == store.statistics().spans, "what went is still counted"
    with opened(directory, store_type, bounds=Bounds(size=CAP)) as store:
        assert 3 in ids_of(store)


def test_a_cap_takes_the_oldest_unpinned(tmp_path: Path) -> None:
    check_the_oldest_unpinned_go(SQLiteStore, tmp_path)


def test_what_is_too_old_goes_when_all_of_its_segment_is(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, time=clock, bounds=Bounds(age=3600)) as store:
        for n in range(1, 30):
            store.add([received(checkout(n))])
            clock.now += 300
        swept = store.sweep()
        assert swept == Swept(segments=0) or swept.traces > 0
        there = ids_of(store)
        oldest = 29 - 3600 // 300
        assert set(range(oldest + 1, 30)) <= there, "something went before its time"
        assert min(there) >= oldest - 3, "something stayed an eighth longer"
        clock.now += 10_000
        store.sweep()
        store.sweep()
        assert ids_of(store) == set()


def check_what_goes_on_is_counted_anew(directory: Path) -> None:
    with opened(directory, segment_size=1) as store:
        parts = [span(1, 1, name="root", start=5), span(1, 2, parent=1, start=7), span(1, 3, parent=1, start=9)]
        for part in parts:
            store.add([received(group(part))])
        assert store.statistics().segments == 3
        store.bounds = Bounds(size=store.statistics().size - 1)
        store._segment_size = 0
        store.sweep()
        store.bounds = Bounds()
        (run,) = store.runs(9).traces
        spans = store.spans_of(run.trace_id)
        assert spans is not None
        assert run.spans == len(spans.rows) < 3
        assert (run.has_root, run.start_ns) == (False, min(row.start_ns for row in spans.rows))
        store.add([received(group(span(1, 4, parent=1)))])
        assert store.runs(9).traces[0].spans == run.spans + 1
        store.add([received(group(parts[0]))])  # comes again
        assert store.runs(9).traces[0].spans == run.spans + 2


def test_a_trace_of_which_a_part_went_is_counted_anew(tmp_path: Path) -> None:
    check_what_goes_on_is_counted_anew(tmp_path)


class Death(BaseException):
    """Of the process, at this place."""


def dies(*_: Any, **__: Any) -> Any:
    raise Death


@pytest.mark.parametrize("place", ["_copy", "_recount", "unlink", "copy one"])
def test_a_sweep_that_is_cut_short_loses_nothing_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    with opened(tmp_path, segment_size=1) as store:
        for n in range(1, 5):
            store.add([received(checkout(n)), received(group(span(n + 1, 9, parent=1)))])
        for n in (1, 2):
            store.pin(hexadecimal(n))
        spans = {run.trace_id: run.spans for run in store.runs(9).traces}
        with monkeypatch.context() as death:
            if place == "unlink":
                death.setattr(retention, "_unlink", dies)
            elif place == "copy one":
                copied: list[int] = []

                def copy(self: Any, *rest: Any, copy: Any = writing.SegmentWriter.copy) -> None:
                    if copied:
                        raise Death
                    copied.append(1)
                    copy(self, *rest)

                death.setattr(writing.SegmentWriter, "copy", copy)
            else:
                death.setattr(retention.Retention, place, dies)
            store.bounds = Bounds(size=1)
            with pytest.raises(Death):
                store.sweep()
    with opened(tmp_path, segment_size=1) as store:
        assert {run.trace_id: run.spans for run in store.runs(9).traces} == spans
        store.bounds = Bounds(size=1)
        store.sweep()
        left = {int(run.trace_id, 16): run.spans for run in store.runs(9).traces}
        assert (left[1], left[2]) == (3, 4)
        assert 3 not in left
        assert len(store.runs(9).traces) == len(left)


def test_deleted_bytes_are_overwritten(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.add([noise(1, 3), received(checkout(2))])
        assert store._current is not None
        (body,) = store._current.connection.execute("SELECT max(body) FROM chunk").fetchone()
        assert any(body[:200] in path.read_bytes() for path in tmp_path.iterdir())
        store.delete(hexadecimal(1))
        store.delete(hexadecimal(2))
        assert not any(body[:200] in path.read_bytes() for path in tmp_path.iterdir())


# ── damage ──────────────────────────────────────────────────────────────────────────────────────────────────


def make(directory: Path, store_type: Callable[..., SQLiteStore] = SQLiteStore) -> Path:
    """Three segments: traces 1 to 199, 200, 201."""
    with opened(directory, store_type, segment_size=1) as store:
        store.add([received(group(*(span(n, name="x" * 500) for n in range(1, 200))))])
        store.add([received(checkout(200))])
        store.add([received(checkout(201))])
    return directory / FIRST


def newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")


def foreign(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (newer, rf"format {FORMAT_VERSION + 1}, this asynctrace reads up to {FORMAT_VERSION}: use the newer"),
        (foreign, "no store of asynctrace"),
    ],
)
@pytest.mark.parametrize("file", [FIRST, "seg-000003.db", "books.db"])
def test_a_file_that_is_newer_or_not_ours_is_refused_and_left_as_it_is(
    tmp_path: Path, damage: Callable[[Path], None], message: str, file: str
) -> None:
    make(tmp_path)
    path = tmp_path / file
    damage(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=message):
        SQLiteStore(tmp_path)
    with pytest.raises(StoreError, match=message):
        SQLiteReader(tmp_path).runs(1)
    assert path.read_bytes() == before


def overwritten(path: Path) -> None:
    path.write_bytes(b"this is no database" * 5000)


def torn(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[16384:] = os.urandom(len(content) - 16384)
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40_000])


def check_the_rest_goes_on(
    store_type: Callable[..., SQLiteStore], damage: Callable[[Path], None], directory: Path
) -> None:
    path = make(directory, store_type)
    damage(path)
    before = path.read_bytes()
    with opened(directory, store_type, segment_size=1, bounds=Bounds(size=1_000_000)) as store:
        assert ids_of(store) == {200, 201}, "the rest is not shown"
        assert store.search(parse("name:pay"), 9).traces
        store.add([received(checkout(202))])
        store.sweep()
        assert store.summary(hexadecimal(202)) is not None
        (problem,) = store.statistics().unreadable
        assert FIRST in problem
        assert "damaged" in problem
        with pytest.raises(StoreError, match="damaged"):
            store.trace(hexadecimal(7))
        store.bounds = Bounds(size=1)
        store.sweep()
        assert 200 not in ids_of(store), "nothing is swept any more"
        assert path.read_bytes() == before, "what may be saved by hand was touched"
    reader = SQLiteReader(directory)
    assert 202 in ids_of(reader)


@pytest.mark.parametrize("damage", [overwritten, torn, cut])
def test_a_damaged_segment_is_left_alone_and_the_rest_goes_on(damage: Callable[[Path], None], tmp_path: Path) -> None:
    check_the_rest_goes_on(SQLiteStore, damage, tmp_path)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [overwritten, torn, cut, emptied])
def test_damage_to_what_is_pinned_stops_neither_sweeping_nor_writing(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    clock = Clock()
    bounds = Bounds(age=3600)
    with opened(tmp_path, time=clock, bounds=bounds) as store:
        store.add([noise(1), noise(2)])
        store.pin(hexadecimal(1))
        clock.now += 10_000
        store.sweep()
        store.unpin(hexadecimal(1))
    pinned = tmp_path / "seg-000000.db"
    damage(pinned)
    before = pinned.read_bytes()
    with opened(tmp_path, time=clock, bounds=bounds) as store:
        for n in range(3, 6):
            store.add([received(checkout(n))])
            clock.now += 10_000
            store.sweep()
        assert 3 not in ids_of(store), "nothing is swept any more"
        store.add([received(checkout(6))])
        assert 6 in ids_of(store)
    assert pinned.read_bytes() == before, "what may be saved by hand was touched"


@pytest.mark.parametrize("damage", [overwritten, torn, cut])
def test_after_damage_to_the_newest_segment_a_new_one_is_written(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path)
    damage(tmp_path / "seg-000003.db")
    with opened(tmp_path) as store:
        store.add([received(checkout(300))])
        store.add([received(checkout(301))])
        assert {200, 300, 301} <= ids_of(store)


def test_damage_while_it_is_written_costs_no_new_span(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.add([received(group(*(span(n, name="x" * 500) for n in range(1, 500))))])
        assert store._current is not None
        store._current.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        torn(store._current.path)
        store._current.connection.execute("PRAGMA cache_size = 0")
        for n in range(1000, 1010):
            store.add([noise(n, 20)])
        assert set(range(1000, 1010)) <= ids_of(store)


def test_a_file_that_was_hardly_begun_is_begun_again(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "seg-000004.db").write_bytes(b"")
    assert 201 in ids_of(SQLiteReader(tmp_path))
    with opened(tmp_path) as store:
        store.add([received(checkout(300))])
        assert {200, 201, 300} <= ids_of(store)


def check_a_full_disk_is_a_clear_error(directory: Path, full: Callable[[SQLiteStore], None]) -> None:
    with opened(directory) as store:
        store.add([received(checkout(1), key=RequestKey("log", 0, 3))])
        assert store._current is not None
        full(store)
        with pytest.raises(StoreError, match=r"seg-000001.db cannot grow, the disk is full"):
            store.add([noise(2, 2000), received(checkout(3), key=RequestKey("log", 3, 3))])
        assert ids_of(store) == {1}
        assert not store.has(RequestKey("log", 3, 3))
        store._current.connection.execute("PRAGMA max_page_count = 1000000")
        store.add([noise(2, 2000), received(checkout(3), key=RequestKey("log", 3, 3))])
        assert ids_of(store) == {1, 2, 3}
        assert store.has(RequestKey("log", 0, 6))


def as_full_as_now(store: SQLiteStore) -> None:
    assert store._current is not None
    connection = store._current.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_is_a_clear_error_and_nothing_is_lost(tmp_path: Path) -> None:
    check_a_full_disk_is_a_clear_error(tmp_path, as_full_as_now)


def test_a_store_that_may_not_be_written_is_a_clear_error(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert store._current is not None
        store._current.connection.execute("PRAGMA query_only = ON")
        with pytest.raises(StoreError, match="read-only"):
            store.add([received(checkout())])
        store._current.connection.execute("PRAGMA query_only = OFF")
        store.add([received(checkout())])


def test_a_store_that_another_program_locks_is_a_clear_error(tmp_path: Path) -> None:
    make(tmp_path)
    newest = tmp_path / "seg-000003.db"
    hold = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE')"
    program = [sys.executable, "-c", f"{hold}; print('held', flush=True); sys.stdin.read()", str(newest)]
    with (
        opened(tmp_path, busy_timeout=0.1) as store,
        subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
    ):
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match="locked by another process"):
            store.add([received(checkout())])
        assert store.statistics().traces == 201  # reading goes on
        other.communicate()
        store.add([received(checkout())])


# ── what a machine may lack ─────────────────────────────────────────────────────────────────────────────────


def test_without_zstd_chunks_are_written_with_zlib_and_those_of_zstd_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("zstandard")
    with opened(tmp_path) as store:
        store.add([received(checkout(1))])
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with opened(tmp_path) as store:
        store.add([received(checkout(2))])
        assert len(store.trace(hexadecimal(2))[0].spans) == 3
        with pytest.raises(StoreError, match=r"pip install 'asynctrace\[zstd\]'"):
            store.trace(hexadecimal(1))
        assert ids_of(store) == {1, 2}
    monkeypatch.undo()
    with opened(tmp_path) as store:
        assert len(store.trace(hexadecimal(1))[0].spans) == len(store.trace(hexadecimal(2))[0].spans) == 3


@pytest.mark.parametrize("full_text", [True, False])
def test_the_index_is_fts5_where_sqlite_has_it(tmp_path: Path, full_text: bool) -> None:
    with opened(tmp_path, full_text=full_text) as store:
        store.add([received(checkout(1))])
    with contextlib.closing(sqlite3.connect(tmp_path / FIRST)) as connection:
        (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'kv'").fetchone()
    assert ("fts5" in sql) is full_text


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "KNOWN_SPANS", 10)
    monkeypatch.setattr(writing, "KNOWN_NAMES", 5)
    with opened(tmp_path) as store:
        for number in range(1, 4):
            for trace in range(1, 9):
                store.add([received(group(span(trace, number, name=f"{trace} {number}"), span(trace, 1)))])
        assert store._current is not None
        writer = store._current._writer
        assert sum(len(each.known) for each in writer._tallies.values()) <= 10 + 3
        assert len(writer._names) <= 5 + 1
        assert {run.spans for run in store.runs(99).traces} == {3}


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


class ForgetsPins(SQLiteStore):
    def _pinned(self) -> set[bytes]:
        return set()


class TakesTheNewest(SQLiteStore):
    """Not the oldest."""

    def _sweep(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self._segments, "oldest_first", self._segments.newest_first)
            super()._sweep()


class NeverSweeps(SQLiteStore):
    def _sweep(self) -> None: ...


class TellsNothing(SQLiteStore):
    def sweep(self) -> Swept:
        super().sweep()
        return Swept()


@pytest.mark.parametrize("wrong", [ForgetsPins, TakesTheNewest, NeverSweeps, TellsNothing])
def test_retention_with_this_fault_is_caught(wrong: type[SQLiteStore], tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_the_oldest_unpinned_go(wrong, tmp_path)


def test_pinned_traces_that_are_copied_without_their_line_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention.Retention, "_copy", lambda *_: None)
    with pytest.raises(AssertionError, match="a pinned one went"):
        check_the_oldest_unpinned_go(SQLiteStore, tmp_path)


def test_percentiles_that_keep_what_was_unpinned_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_take_out", lambda *_: None)
    with pytest.raises(AssertionError, match="still counted"):
        check_the_oldest_unpinned_go(SQLiteStore, tmp_path)


def test_a_part_that_went_and_still_counts_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention.Retention, "_recount", lambda *_: None)
    with pytest.raises(AssertionError):
        check_what_goes_on_is_counted_anew(tmp_path)


def test_damage_that_stops_everything_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asynctrace.collector.store._segments.is_damage", lambda error: False)
    with pytest.raises(StoreError):
        check_the_rest_goes_on(SQLiteStore, overwritten, tmp_path)


def test_a_transaction_that_commits_what_failed_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def careless(connection: sqlite3.Connection) -> Iterator[None]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.execute("COMMIT")

    for module in (writing, schema):
        monkeypatch.setattr(module, "transaction", careless)
    with pytest.raises(AssertionError):
        check_a_full_disk_is_a_clear_error(tmp_path, as_full_as_now)
