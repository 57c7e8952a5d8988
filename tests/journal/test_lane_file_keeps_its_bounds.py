"""A lane's file never grows, says when it is full, and refuses what would make its books lie."""

from __future__ import annotations

import contextlib
import os

import pytest

from asynctrace._errors import JournalError
from asynctrace.spanlog.journal._lane_file import LANE_FILE_BYTES, OTHER_REASONS, LaneFile

from .lane_models import JOURNAL, check_books, image_of, new_lane, opened, view_of


@pytest.fixture
def lane() -> LaneFile:
    return LaneFile.create(os.memfd_create("lane"), JOURNAL, "otlp")


def test_single_rejections_without_end_need_no_more_room(lane: LaneFile) -> None:
    reasons = ("backend_rejected", "oversize", "unaccounted")
    rejected = 0
    for first in range(0, 60_000, 1_000):
        assert lane.open_window(first, 1_000)
        for number in range(first, first + 1_000):
            lane.add_run(number, 1, "rejected", reasons[number // 100 % 3])
            rejected += 1
        lane.move_cursor(first + 1_000)
    assert (lane.cursor, lane.accepted) == (rejected, 0)
    assert lane.books() == (dict.fromkeys(reasons, rejected // 3), {})
    assert os.fstat(lane._fd).st_size == len(image_of(lane)) == LANE_FILE_BYTES
    assert view_of(opened(image_of(lane))) == view_of(lane)


def test_adjacent_runs_of_a_kind_and_reason_are_one(lane: LaneFile) -> None:
    for number in (5, 3, 4, 9, 6):
        lane.add_run(number, 1, "dropped", "evicted")
    lane.add_run(7, 1, "rejected", "evicted")
    assert lane.runs_above() == [
        (3, 4, "dropped", "evicted"),
        (7, 1, "rejected", "evicted"),
        (9, 1, "dropped", "evicted"),
    ]


def test_windows_are_refused_when_too_many_wait_and_taken_again_when_the_cursor_moves(lane: LaneFile) -> None:
    opened_windows = 0
    while lane.open_window(opened_windows * 10, 10):
        opened_windows += 1
        assert opened_windows < 10_000
    before = image_of(lane)
    assert not lane.open_window(opened_windows * 10, 10)
    assert image_of(lane) == before
    assert lane.open_window(0, 10), "one that is open is repeated"
    assert lane.open_window(0, 5), "and split"
    assert lane.open_window(0, 2)
    lane.move_cursor(10)
    assert lane.open_window(opened_windows * 10, 10)


def test_a_full_table_of_windows_fits_a_snapshot_with_all_its_runs() -> None:
    for entries in (64, 512, 2048):
        lane = new_lane(LaneFile, entries=entries)
        last = 0
        while lane.open_window(last, 10):
            last += 10
        for first in range(0, last, 10):
            for half in (first, first + 5):
                with contextlib.suppress(JournalError):
                    lane.open_window(half, 5)
                    lane.add_run(half, 1, "rejected", f"reason {first % 70} that is rather long, " + "x" * 80)
                    lane.add_run(half + 1, 1, "dropped", "y" * first)
        before = lane._generation
        while lane._generation < before + 3:
            lane.open_window(0, 5)
            if lane._used % 16 == 0:
                assert view_of(opened(image_of(lane))) == view_of(lane)
        lane.move_cursor(last)
        check_books(lane)
        lane.close()


def test_runs_beyond_all_measure_are_an_error_that_leaves_the_file_whole(lane: LaneFile) -> None:
    def add_them() -> None:
        for number in range(0, 10_000, 2):
            lane.add_run(number, 1, "dropped", "expired")

    with pytest.raises(JournalError):
        add_them()
    assert view_of(opened(image_of(lane))) == view_of(lane)


def test_reasons_beyond_the_table_are_other(lane: LaneFile) -> None:
    for number in range(200):
        lane.add_run(number, 1, "dropped", f"reason {number}")
    dropped = [reason for _, count, _, reason in lane.runs_above() for _ in range(count)]
    assert len(dropped) == 200
    assert 100 < dropped.count(OTHER_REASONS) < 200
    assert view_of(opened(image_of(lane))) == view_of(lane)


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("", OTHER_REASONS),
        ("é" * 100, "é" * 36),
        ("a\0b", "ab"),
        ("\ud800", "?"),
        ("x" * 24, "x" * 24),
        ("x" * 25, "x" * 25),
    ],
)
def test_any_text_is_a_reason(lane: LaneFile, reason: str, kept: str) -> None:
    lane.add_run(0, 2, "rejected", reason)
    lane.add_run(2, 2, "rejected", reason)
    assert lane.runs_above() == [(0, 4, "rejected", kept)]
    assert opened(image_of(lane)).runs_above() == [(0, 4, "rejected", kept)]


def test_large_numbers_are_kept(lane: LaneFile) -> None:
    lane.add_run(0, 1 << 50, "dropped", "evicted")
    lane.move_cursor(1 << 50)
    assert lane.open_window(1 << 50, 10)
    again = opened(image_of(lane))
    assert again.books() == ({}, {"evicted": 1 << 50})
    assert again.windows() == [(1 << 50, 10)]


def test_the_cursor_passes_nothing_that_nobody_was_sent(lane: LaneFile) -> None:
    assert lane.open_window(0, 10)
    lane.add_run(15, 5, "dropped", "evicted")
    for wrong in (11, 15, 20, 1_000):
        with pytest.raises(ValueError, match="cursor"):
            lane.move_cursor(wrong)
    lane.move_cursor(10)
    lane.move_cursor(10)
    assert lane.open_window(10, 5)
    lane.move_cursor(20)
    for back in (0, 19):
        with pytest.raises(ValueError, match="cursor"):
            lane.move_cursor(back)
    assert (lane.cursor, lane.accepted) == (20, 15)


@pytest.mark.parametrize(("first", "count"), [(9, 5), (0, 5), (10, 0), (10, -1), (1 << 63, 1)])
def test_windows_and_runs_lie_above_the_cursor(lane: LaneFile, first: int, count: int) -> None:
    lane.open_window(0, 10)
    lane.move_cursor(10)
    with pytest.raises(ValueError, match="cursor at 10"):
        lane.open_window(first, count)
    with pytest.raises(ValueError, match="cursor at 10"):
        lane.add_run(first, count, "dropped", "evicted")


def test_what_the_segments_do_not_hold_any_more_is_cut_off_a_window(lane: LaneFile) -> None:
    lane.open_window(0, 10)
    lane.add_run(0, 4, "dropped", "corrupt")
    lane.move_cursor(4)
    assert lane.windows() == [(4, 6)]
    assert lane.accepted == 0


def test_a_lane_can_be_looked_at_without_the_right_to_write(lane: LaneFile) -> None:
    lane.open_window(0, 10)
    fd = os.open(f"/proc/self/fd/{lane._fd}", os.O_RDONLY)
    looked_at = LaneFile.open(fd, write=False)
    assert looked_at.windows() == [(0, 10)]
    with pytest.raises(TypeError):
        looked_at.open_window(10, 1)
    looked_at.close()


def test_the_descriptor_is_closed_also_when_the_file_is_refused() -> None:
    fd = os.memfd_create("lane")
    with pytest.raises(JournalError):
        LaneFile.open(fd)
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)
    lane = new_lane(LaneFile)
    lane.close()
    lane.close()
