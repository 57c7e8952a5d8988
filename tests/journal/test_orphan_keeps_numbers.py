"""What a dead journal holds is read under the numbers it had; what is gone is a gap in the numbers; what somebody may still
need is not deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from asynctrace._errors import JournalError
from asynctrace.spanlog.journal._directory import claim
from asynctrace.spanlog.journal._orphan import OrphanLog

from .orphans import (
    BOOT,
    OTHER_BOOT,
    DeadJournal,
    ids_of,
    let_go,
    numbered_spans,
    opened,
    record_of,
    span_of,
)
from .wrong_orphans import CountsGapsAsHeld, DeletesWhatItIsPast, ReadsOverGaps


def three_segments(folder: Path, *, cursor: int = 0, synced: int = 0) -> Path:
    """Records 0 to 29, ten in each segment."""
    journal = DeadJournal(folder)
    journal.fill(synced=synced)
    if cursor:
        journal.lanes["otlp"].open_window(0, cursor)
        journal.lanes["otlp"].move_cursor(cursor)
    return journal.die()


def settle(log: OrphanLog, lane: str, number: int) -> None:
    """The lane is past everything below `number`."""
    file = log.lane_file(lane)
    if number > file.cursor:
        file.open_window(file.cursor, number - file.cursor)
        file.move_cursor(number)


def numbers(*parts: range) -> dict[int, int]:
    return {number: number for part in parts for number in part}


def spoil_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(40)
        file.write(b"\xff" * 8)


def delete(path: Path) -> None:
    path.unlink()


# ── numbers ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_records_keep_their_numbers_and_their_bytes(tmp_path: Path) -> None:
    log = opened(three_segments(tmp_path))
    assert (log.first, log.appended, log.corrupt, log.totals()) == (0, 30, 0, (30, {}))
    assert numbered_spans(log) == {number: span_of(number) for number in range(30)}
    slices, count = log.read(8, 5, 1 << 20)
    assert (b"".join(slices), count) == (b"".join(record_of(number) for number in range(8, 13)), 5)
    let_go(log)


def test_runs_stop_at_either_limit_but_hold_one_record_at_least(tmp_path: Path) -> None:
    log = opened(three_segments(tmp_path))
    one = len(record_of(0))
    assert [log.read(0, 7, 1 << 20)[1], log.read(0, 100, 3 * one)[1], log.read(9, 100, 2 * one)[1]] == [7, 3, 2]
    assert [log.read(0, 5, 1)[1], log.read(29, 5, 1 << 20)[1], log.read(30, 5, 1 << 20)[1]] == [1, 1, 0]
    assert [log.bytes_above(number) for number in (0, 15, 29, 30)] == [30 * one, 15 * one, one, 0]
    let_go(log)


def test_the_newest_record_of_a_trace_is_found(tmp_path: Path) -> None:
    journal = DeadJournal(tmp_path)
    other = "0af7651916cd43dd8448eb211c80319c"
    for base in (0, 10):
        journal.segment([record_of(base + n, **({"trace_id": other} if n == 4 else {})) for n in range(10)])
    log = opened(journal.die())
    found = [log.last_number_of(bytes.fromhex(other), above) for above in (0, 14, 15)]
    let_go(log)
    assert found == [14, 14, None]


def test_the_first_record_is_the_first_that_a_lane_still_wants(tmp_path: Path) -> None:
    log = opened(three_segments(tmp_path, cursor=13))
    assert (log.first, log.appended, log.corrupt) == (13, 30, 0)
    assert log.read(12, 5, 1 << 20) == ([], 0)
    assert ids_of(numbered_spans(log)) == numbers(range(13, 30))
    let_go(log)


def test_a_journal_without_segments_ends_where_its_lanes_do(tmp_path: Path) -> None:
    path = three_segments(tmp_path, cursor=30)
    for segment in path.glob("*.seg"):
        segment.unlink()
    log = opened(path)
    assert (log.first, log.appended, log.corrupt, log.next_present(0)) == (30, 30, 0, 30)
    let_go(log)


# ── gaps ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("spoil", [spoil_header, delete])
def test_a_segment_that_is_gone_is_a_gap_between_its_neighbors(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    path = three_segments(tmp_path)
    spoil(path / "00000001.seg")
    log = opened(path)
    assert (log.first, log.appended, log.corrupt, log.gap_reason) == (0, 30, 10, "corrupt")
    assert log.read(5, 100, 1 << 20)[1] == 5
    assert log.read(12, 100, 1 << 20) == ([], 0)
    assert [log.next_present(number) for number in (5, 10, 15, 20)] == [5, 20, 20, 20]
    assert ids_of(numbered_spans(log)) == numbers(range(10), range(20, 30))
    let_go(log)


def test_a_segment_that_is_cut_in_the_middle_loses_only_its_rest(tmp_path: Path) -> None:
    journal = DeadJournal(tmp_path)
    journal.fill(2)
    journal.segments[0].payload[journal.segments[0].words[5]] = 0xFF
    log = opened(journal.die())
    assert (log.corrupt, ids_of(numbered_spans(log))) == (4, numbers(range(6), range(10, 20)))
    let_go(log)


def test_of_a_damaged_last_segment_the_words_tell_how_much_is_gone(tmp_path: Path) -> None:
    journal = DeadJournal(tmp_path)
    journal.fill(2)
    journal.segments[1].payload[0] = 0xFF
    log = opened(journal.die())
    assert (log.appended, log.corrupt, ids_of(numbered_spans(log))) == (20, 10, numbers(range(10)))
    let_go(log)


def test_a_window_proves_that_its_records_were(tmp_path: Path) -> None:
    journal = DeadJournal(tmp_path)
    journal.fill(2)
    journal.lanes["otlp"].open_window(0, 18)
    path = journal.die()
    delete(path / "00000001.seg")
    log = opened(path)
    assert (log.appended, log.corrupt) == (18, 8)
    let_go(log)


def test_what_is_gone_in_front_is_a_gap_only_if_a_file_cannot_be_read(tmp_path: Path) -> None:
    for place, (spoil, first, corrupt) in enumerate([(spoil_header, 3, 7), (delete, 10, 0)]):
        folder = tmp_path / str(place)
        folder.mkdir(mode=0o700)
        path = three_segments(folder, cursor=3)
        spoil(path / "00000000.seg")
        log = opened(path)
        assert (log.first, log.corrupt, log.unreadable) == (first, corrupt, 1 - place)
        assert ids_of(numbered_spans(log)) == numbers(range(10, 30))
        let_go(log)


def test_after_a_power_cut_only_what_marks_prove_is_delivered(tmp_path: Path) -> None:
    path = three_segments(tmp_path, synced=6)
    log = opened(path, OTHER_BOOT)
    expected = numbers(range(6), range(10, 16), range(20, 26))
    assert (log.appended, log.corrupt, ids_of(numbered_spans(log))) == (30, 12, expected)
    let_go(log)
    log = opened(path, "")  # a system that does not tell: nothing but marks counts
    assert log.corrupt == 12
    let_go(log)
    log = opened(path, BOOT)
    assert log.corrupt == 0
    let_go(log)


@pytest.mark.parametrize("reader", [ReadsOverGaps, CountsGapsAsHeld])
def test_a_reader_that_takes_gaps_for_records_is_caught(tmp_path: Path, reader: type[OrphanLog]) -> None:
    path = three_segments(tmp_path)
    delete(path / "00000001.seg")
    directory = claim(path)
    assert directory is not None
    log = reader.open(directory, boot_id=BOOT)
    with pytest.raises(AssertionError):
        assert ids_of(numbered_spans(log, 100, 1 << 20)) == numbers(range(10), range(20, 30))
    let_go(log)


# ── lanes ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_lanes_are_known_by_the_names_they_had(tmp_path: Path) -> None:
    names = ["console", "my lane/%é", "x" * 300]
    journal = DeadJournal(tmp_path, lanes=names)
    journal.fill(1)
    log = opened(journal.die())
    assert log.lane_names() == names
    assert all(log.lane_file(name).name == name for name in names)
    assert log.journal_id == journal.directory.journal_id
    let_go(log)


def test_a_lane_whose_file_is_damaged_begins_at_the_first_record(tmp_path: Path) -> None:
    path = three_segments(tmp_path, cursor=25)
    (path / "otlp.lane").write_bytes(b"\0" * 100)
    delete(path / "00000000.seg")
    log = opened(path)
    assert (log.lane_names(), log.first, log.appended) == (["otlp"], 10, 30)
    log.release(30)
    assert len(list(path.glob("*.seg"))) == 2  # nobody knows what that lane has
    lane = log.lane_file("otlp")
    assert (lane.start, lane.cursor, log.lane_file("otlp") is lane) == (10, 10, True)
    settle(log, "otlp", 20)
    let_go(log)
    log = opened(path)
    assert log.first == 20
    let_go(log)


def test_a_lane_that_the_journal_does_not_know_gets_a_file(tmp_path: Path) -> None:
    path = three_segments(tmp_path)
    delete(path / "otlp.lane")
    log = opened(path)
    assert log.lane_names() == []
    settle(log, "file", 30)
    log.release(30)
    assert sorted(log._directory.names()) == ["file.lane", "open-00.slab"]
    let_go(log)


def test_the_lane_of_another_journal_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    path = three_segments(tmp_path)
    other = DeadJournal(tmp_path / "a", journal_id="00000000-0000-4000-8000-000000000001")
    other.lanes["otlp"].open_window(0, 30)
    other.lanes["otlp"].move_cursor(30)
    (other.die() / "otlp.lane").rename(path / "otlp.lane")
    log = opened(path)
    assert (log.first, log.lane_file("otlp").cursor) == (0, 0)
    let_go(log)


def test_what_is_no_file_but_has_the_name_of_a_lane_is_an_error_when_it_is_asked_for(tmp_path: Path) -> None:
    path = three_segments(tmp_path)
    (path / "odd.lane").mkdir()
    log = opened(path)
    with pytest.raises(JournalError, match=r"odd\.lane"):
        log.lane_file("odd")
    assert ids_of(numbered_spans(log)) == numbers(range(30))
    let_go(log)


# ── letting go ──────────────────────────────────────────────────────────────────────────────────────────────


def segments_of(path: Path) -> list[str]:
    return sorted(segment.name[7] for segment in path.glob("*.seg"))


def test_segments_are_deleted_as_delivery_goes_on(tmp_path: Path) -> None:
    path = three_segments(tmp_path)
    log = opened(path)
    for settled, left in [(9, "012"), (10, "12"), (25, "2"), (30, "")]:
        settle(log, "otlp", settled)
        log.release(settled)
        assert "".join(segments_of(path)) == left
    assert log.held_bytes == 0
    let_go(log)
    log = opened(path)
    assert (log.first, log.appended) == (30, 30)
    let_go(log)


def two_lanes(folder: Path) -> Path:
    journal = DeadJournal(folder, lanes=("otlp", "gone"))
    journal.fill()
    return journal.die()


def test_what_a_lane_needs_that_nobody_drives_now_is_kept(tmp_path: Path) -> None:
    path = two_lanes(tmp_path)
    log = opened(path)
    settle(log, "otlp", 30)
    log.release(30)
    assert segments_of(path) == ["0", "1", "2"]
    settle(log, "gone", 10)
    log.release(30)
    assert segments_of(path) == ["1", "2"]
    let_go(log)


def test_a_reader_that_looks_at_its_own_cursor_only_is_caught(tmp_path: Path) -> None:
    path = two_lanes(tmp_path)
    directory = claim(path)
    assert directory is not None
    log = DeletesWhatItIsPast.open(directory, boot_id=BOOT)
    settle(log, "otlp", 30)
    log.release(30)
    assert segments_of(path) != ["0", "1", "2"]
    let_go(log)


def test_a_segment_of_which_a_view_is_held_is_kept(tmp_path: Path) -> None:
    path = three_segments(tmp_path)
    log = opened(path)
    slices, _ = log.read(3, 2, 1 << 20)
    settle(log, "otlp", 30)
    log.release(30)
    assert segments_of(path) == ["0"]
    assert b"".join(slices) == record_of(3) + record_of(4)
    del slices
    log.release(30)
    assert segments_of(path) == []
    let_go(log)


def test_whoever_comes_next_finds_the_same_gap(tmp_path: Path) -> None:
    path = three_segments(tmp_path)
    delete(path / "00000001.seg")
    for cursor in (10, 15, 20):
        log = opened(path)
        settle(log, "otlp", cursor)
        log.release(cursor)
        let_go(log)
        log = opened(path)
        assert (log.first, log.corrupt) == (cursor, 20 - cursor)
        let_go(log)
    assert segments_of(path) == ["2"]


def test_slices_outlive_the_log(tmp_path: Path) -> None:
    log = opened(three_segments(tmp_path))
    slices, _ = log.read(0, 1, 1 << 20)
    let_go(log)
    log.close()
    assert b"".join(slices) == record_of(0)
