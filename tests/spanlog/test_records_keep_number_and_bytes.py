"""A record has a number that is never reused, and comes out of the log as it went in, byte for byte."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrace.spanlog import SpanLog

from . import faulty
from .records import ended, make_log, make_record, number_of, read_all, split

MakeLog = Callable[..., SpanLog]


def check_bytes_come_out_as_they_went_in(make: MakeLog) -> None:
    for seed in range(30):
        draw = random.Random(seed)
        log = make_log(64_000, make=make)
        sizes = [draw.choice([40, 60, 200, 500, 3_000, 5_000, 9_000]) for _ in range(draw.randrange(1, 60))]
        records = [make_record(i, size) for i, size in enumerate(sizes)]
        kept = [record for record in records if log.append_nowait(record) and log.totals()[1] == {}]
        assert log.appended + log.refused().get("refused", 0) == len(records)
        found = read_all(log, most=draw.choice([1, 2, 7, 1000]), bytes_at_once=draw.choice([1, 300, 4_000, 1 << 20]))
        assert found[: len(kept)] == kept
        assert len(found) == log.appended


def check_runs_keep_their_limits(make: MakeLog) -> None:
    log = make_log(64_000, make=make)
    sizes = [40, 60, 200, 500, 3_000, 5_000, 200, 200, 9_000, 40, 40]
    records = [make_record(i, size) for i, size in enumerate(sizes)]
    for record in records:
        log.append_nowait(record)
    for start in range(len(records)):
        for most in (1, 2, 3, 100):
            for limit in (1, 100, 700, 4_000, 8_000, 100_000):
                slices, count = log.read(start, most, limit)
                found = split(slices)
                assert found == records[start : start + count]
                assert 1 <= count <= most
                size = sum(map(len, found))
                assert count == 1 or size <= limit
                could_take_more = count < most and start + count < len(records)
                assert not could_take_more or size + len(records[start + count]) > limit, "the run could be longer"


def test_bytes_come_out_as_they_went_in() -> None:
    check_bytes_come_out_as_they_went_in(SpanLog)


def test_a_run_keeps_both_limits_is_as_long_as_they_allow_and_has_at_least_one_record() -> None:
    check_runs_keep_their_limits(SpanLog)


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        (check_bytes_come_out_as_they_went_in, faulty.CutsOneRecordTooFew),
        (check_bytes_come_out_as_they_went_in, faulty.DropsWithoutCounting),
        (check_runs_keep_their_limits, faulty.CutsOneRecordTooFew),
        (check_runs_keep_their_limits, faulty.IgnoresTheByteLimit),
        (check_runs_keep_their_limits, faulty.StopsAtTheSegment),
        (check_runs_keep_their_limits, faulty.ReadsNothingOversized),
    ],
)
def test_the_checks_notice(check: Callable[[MakeLog], None], fault: MakeLog) -> None:
    with pytest.raises(AssertionError):
        check(fault)


def test_numbers_count_from_zero_and_are_never_reused() -> None:
    log = make_log()
    for i in range(100):
        assert log.appended == i
        log.append_nowait(make_record(i))
        if i % 10 == 9:
            log.release(log.appended)
    assert (log.appended, log.first) == (100, 100)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(40, 12_000), min_size=1, max_size=60),
    capacity=st.integers(32_000, 256_000),
    cuts=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 30_000)), min_size=1, max_size=10),
)
def test_any_sizes_cut_in_any_way_give_the_records_back_in_order(
    sizes: list[int], capacity: int, cuts: list[tuple[int, int]]
) -> None:
    log = make_log(capacity)
    records = [make_record(i, size) for i, size in enumerate(sizes)]
    found: list[bytes] = []
    for i, record in enumerate(records):
        log.append_nowait(record)
        if i % 5 == 4:  # a reader that follows
            slices, count = log.read(len(found), *cuts[i % len(cuts)])
            found += split(slices)
            log.release(len(found))
    while len(found) < log.appended:
        slices, count = log.read(len(found), *cuts[len(found) % len(cuts)])
        assert count
        found += split(slices)
    numbers = [number_of(record) for record in found]
    assert found == [records[number] for number in numbers]
    assert numbers == sorted(set(numbers))
    assert ended(log) == len(records)


@pytest.mark.parametrize("size", [16_000, 16_008, 40_000, 90_000])
def test_a_record_larger_than_a_segment_gets_one_of_its_own(size: int) -> None:
    log = make_log(128_000)
    records = [make_record(0), make_record(1, size), make_record(2)]
    for record in records:
        assert log.append_nowait(record)
    assert read_all(log) == records
    assert ended(log) == 3


def test_reading_at_the_end_gives_nothing() -> None:
    log = make_log()
    assert log.read(0, 10, 10) == ([], 0)
    log.append_nowait(make_record(0))
    assert log.appended == 1
    assert log.read(1, 10, 10) == ([], 0)
    log.release(1)
    assert log.read(1, 10, 10) == ([], 0)


def test_a_slice_stays_valid_after_its_segment_was_freed() -> None:
    log = make_log(64_000)
    records = [make_record(i) for i in range(200)]
    for record in records:
        log.append_nowait(record)
    slices, count = log.read(0, 50, 1 << 20)
    log.release(200)
    for i in range(200):
        log.append_nowait(make_record(1000 + i))
    assert split(slices) == records[:count]


def test_the_last_record_of_a_trace_is_found_in_any_segment() -> None:
    log = make_log(64_000)
    ours, other = b"\x07" * 16, b"\x09" * 16
    for i in range(300):
        log.append_nowait(make_record(i, 200, ours if i in (3, 120) else other))
    assert log._segments[1].base < 120
    assert log.last_number_of(ours, 0) == 120
    assert log.last_number_of(ours, 120) == 120
    assert log.last_number_of(ours, 121) is None
    assert log.last_number_of(b"\x08" * 16, 0) is None
    log.append_nowait(make_record(300, 200, ours))
    assert log.last_number_of(ours, 200) == 300, "what is staged is looked at too"


@pytest.mark.parametrize("records", [1, 10, 200])
def test_bytes_above_counts_the_records_from_a_number_on(records: int) -> None:
    log = make_log(64_000)
    sizes = [len(make_record(i, 100 + i)) for i in range(records)]
    for i in range(records):
        log.append_nowait(make_record(i, 100 + i))
    assert [log.bytes_above(i) for i in range(records)] == [sum(sizes[i:]) for i in range(records)]


def test_no_bytes_are_above_the_end() -> None:
    log = make_log()
    log.append_nowait(make_record(0))
    assert log.appended == 1
    assert log.bytes_above(1) == 0
