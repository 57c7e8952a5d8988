"""A segment file is used anew: whoever reads it after any single store of that finds what it held, or nothing, or what it
holds now. Never a mixture."""

from __future__ import annotations

import os
from itertools import groupby
from pathlib import Path

import pytest

from asynctrace._errors import JournalError
from asynctrace.spanlog.journal import FileSegment, ReadSegment

from . import segments
from .segments import JOURNAL_ID, History, make_record, opener, read_file, records_of, store

CAPACITY = 4096
OLD = [make_record(number, 50, writer=1) for number in range(12)]
NEW = [make_record(number, 90, writer=2) for number in range(3)]


def make(folder: Path, kind: type[FileSegment] = FileSegment) -> FileSegment:
    """A segment with the number 1, base 100, and `OLD` in it, which two marks prove."""
    segment = kind.create(opener(folder), "00000000.seg", JOURNAL_ID, 1, 100, CAPACITY)
    fill(segment, OLD[:5])
    segment.sync(5)
    fill(segment, OLD)
    segment.sync(len(OLD))
    return segment


def fill(segment: FileSegment, records: list[bytes]) -> None:
    start = 0
    for slot, record in enumerate(records):
        store(segment, slot, start, record)
        start += len(record)


def use_anew(segment: FileSegment) -> None:
    assert segment.recycle(2, 200)
    fill(segment, NEW)


def describe(found: ReadSegment | None) -> str:
    """Which of the states a file may be in; raises when it is in none of them."""
    if found is None:
        return "free"
    records = records_of(found)
    if (found.number, found.base) == (1, 100):
        assert records == OLD
        return "old"
    assert (found.number, found.base) == (2, 200)
    assert records == NEW[: len(records)]
    return f"new {len(records)}"


def states_while_used_anew(folder: Path, kind: type[FileSegment] = FileSegment) -> list[str]:
    """The state after each store, neighbours that are equal only once."""
    segment = make(folder, kind)
    history = History(folder / "00000000.seg")
    history.record(lambda: use_anew(segment))
    history.close()
    segment.close()
    seen: list[str] = []
    for state in history.states:
        (folder / "state").write_bytes(state)
        found = read_file(folder / "state", "words")
        assert not (found and found.damaged)
        seen.append(describe(found))
        proved = describe(read_file(folder / "state", "marks"))  # of the new records nothing was proved yet
        assert proved == ("new 0" if "new" in seen[-1] else seen[-1])
    assert len(history.states) == 22  # each store was seen alone: 12 to make it free, 3 to assign it, 6 to fill it
    return [state for state, _ in groupby(seen)]


def test_after_any_store_it_is_read_as_old_or_as_empty_or_as_new(tmp_path: Path) -> None:
    assert states_while_used_anew(tmp_path) == ["old", "free", "new 0", "new 1", "new 2", "new 3"]


@pytest.mark.parametrize("kind", [segments.KeepsTheOldState, segments.SealsBeforeTheFields, segments.LeavesTheWords])
def test_reading_after_any_store_notices(tmp_path: Path, kind: type[FileSegment]) -> None:
    with pytest.raises((AssertionError, JournalError, ValueError)):
        states_while_used_anew(tmp_path, kind)


def test_a_file_that_is_being_made_is_read_as_nothing_until_it_is_made(tmp_path: Path) -> None:
    fd = opener(tmp_path)("00000000.seg", 12288)
    history = History(tmp_path / "00000000.seg")
    made: list[FileSegment] = []
    history.record(
        lambda: made.append(FileSegment.create(lambda name, size: os.dup(fd), "x", JOURNAL_ID, 2, 200, CAPACITY))
    )
    history.close()
    os.close(fd)
    made[0].close()
    seen = []
    for state in history.states:
        (tmp_path / "state").write_bytes(state)
        seen.append(describe(read_file(tmp_path / "state")))
    assert seen == ["free"] * (len(seen) - 1) + ["new 0"]
    assert len(seen) == 11  # each of the ten words of the header was stored alone


def test_a_spare_holds_nothing_until_it_is_assigned(tmp_path: Path) -> None:
    spare = FileSegment.create_spare(opener(tmp_path), "00000000.seg", JOURNAL_ID, CAPACITY)
    assert read_file(tmp_path / "00000000.seg") is None
    spare.assign(2, 200)
    fill(spare, NEW)
    spare.close()
    found = read_file(tmp_path / "00000000.seg")
    assert describe(found) == "new 3"


def test_a_file_that_somebody_holds_a_view_of_is_left_as_it_is(tmp_path: Path) -> None:
    segment = make(tmp_path)
    before = (tmp_path / "00000000.seg").read_bytes()
    view, _ = segment.cut(0, len(OLD), 3, 10_000)
    assert not segment.recycle(2, 200)
    assert not segment.prepare()
    assert (tmp_path / "00000000.seg").read_bytes() == before
    assert (segment.number, segment.base) == (1, 100)
    assert segment.payload[: len(OLD[0])] == OLD[0]
    view.release()
    assert segment.recycle(2, 200)
    assert (segment.number, segment.base) == (2, 200)
    segment.close()


def test_the_two_halves_do_what_recycling_does(tmp_path: Path) -> None:
    segment = make(tmp_path)
    assert segment.prepare()
    assert read_file(tmp_path / "00000000.seg") is None
    segment.assign(2, 200)
    fill(segment, NEW)
    segment.sync(3)
    segment.close()
    found = read_file(tmp_path / "00000000.seg", "marks")
    assert describe(found) == "new 3"


def test_memory_of_a_file_is_never_reused_as_memory_is(tmp_path: Path) -> None:
    segment = make(tmp_path)
    assert not segment.reuse(200)
    segment.close()
    assert describe(read_file(tmp_path / "00000000.seg")) == "old"
