"""A directory of the first release: its traces stay visible. `formats/traces-1.db.gz` was written by that release."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from asynctrace.collector import SQLiteReader, SQLiteStore, StoreError
from asynctrace.collector._upkeep import take_over
from asynctrace.collector.receiving import Writer
from asynctrace.collector.store import has_old, old_bodies

from ..traffic import checkout, group, span

KEPT = Path(__file__).parent / "formats" / "traces-1.db.gz"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """With a checkout and one span more, a trace of another service, and an open span."""
    (tmp_path / "traces.db").write_bytes(gzip.decompress(KEPT.read_bytes()))
    return tmp_path


@contextlib.contextmanager
def taken_over(directory: Path) -> Iterator[SQLiteStore]:
    with contextlib.closing(SQLiteStore(directory)) as store:
        writer = Writer(store)
        try:
            take_over(directory, writer)
        finally:
            writer.close()
        yield store


def check_everything_is_there(directory: Path) -> None:
    with taken_over(directory) as store:
        spans = [each for part in store.trace(f"{1:032x}") for each in part.spans]
        assert sorted(spans, key=lambda each: each.span_id) == [*checkout(1).spans, span(1, 4, parent=1, name="late")]
        assert store.trace(f"{2:032x}") == [group(span(2, 1, name="other"), service="bank")]
        runs = {run.trace_id: run for run in store.runs(9).traces}
        assert [runs[f"{n:032x}"].spans for n in (1, 2, 3)] == [4, 1, 1]
        assert (runs[f"{1:032x}"].errors, runs[f"{3:032x}"].open) == (1, 1)


def test_its_traces_are_there_after_the_first_start(directory: Path) -> None:
    assert has_old(directory)
    check_everything_is_there(directory)
    assert not has_old(directory)
    assert (directory / "traces.db.taken-over").read_bytes() == gzip.decompress(KEPT.read_bytes())
    check_everything_is_there(directory)  # and stay there


def test_a_start_that_was_cut_short_is_repeated(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(_: Path) -> None:
        raise StoreError("cut short")

    with monkeypatch.context() as death:
        death.setattr("asynctrace.collector._upkeep.retire_old", cut)
        with pytest.raises(StoreError, match="cut short"), taken_over(directory):
            pass
    assert has_old(directory)
    assert SQLiteReader(directory).statistics().spans == 6
    check_everything_is_there(directory)


def test_reading_before_the_first_start_says_what_to_do(directory: Path) -> None:
    with pytest.raises(StoreError, match=r"has format 1: start `asynctrace serve` once"):
        SQLiteReader(directory)


@pytest.mark.parametrize("content", [b"", b"no database" * 1000])
def test_what_is_no_store_of_ours_is_refused_and_left_there(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "traces.db").write_bytes(content)
    with pytest.raises(StoreError, match=r"move it away"):
        list(old_bodies(tmp_path))
    assert (tmp_path / "traces.db").read_bytes() == content


def test_a_store_that_forgets_a_part_is_caught(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(old_bodies(directory))
    monkeypatch.setattr("asynctrace.collector._upkeep.old_bodies", lambda _: iter([first]))
    with pytest.raises((AssertionError, KeyError)):
        check_everything_is_there(directory)
