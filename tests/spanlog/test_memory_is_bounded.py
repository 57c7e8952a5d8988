"""The memory held is bounded by bytes and by spans, given back when records are settled, and little more than they are;
what does not fit is counted, with a reason."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrace._errors import ConfigurationError
from asynctrace.spanlog import DropNewest, DropOldest, SpanLog, WaitForRoom, parse_when_full

from . import faulty
from .records import ended, make_log, make_record, number_of, read_all

MakeLog = Callable[..., SpanLog]


# ── release ─────────────────────────────────────────────────────────────────────────────────────────────────


def check_release_frees_what_is_settled_and_no_more(make: MakeLog, held_in_the_end: int = 0) -> None:
    log = make_log(1 << 20, make=make)
    for i in range(4_000):
        log.append_nowait(make_record(i))
    assert log.appended == 4_000
    full = log.held_bytes
    held = weakref.ref(log._segments[0].payload.obj)
    for settled in range(0, 4_001, 50):
        log.release(settled)
        assert log.first <= settled
        assert [number_of(record) for record in read_all(log, settled, bytes_at_once=1 << 20)] == list(
            range(settled, 4_000)
        )
        live = (4_000 - settled) * 200
        assert log.held_bytes <= live + 2 * log._segment_bytes
        assert log.held_bytes == sum(segment.capacity for segment in log._segments)
    assert log.held_bytes <= held_in_the_end < full
    assert held_in_the_end or held() is None, "the memory was not given back"


def test_release_frees_what_is_settled_and_no_more() -> None:
    check_release_frees_what_is_settled_and_no_more(SpanLog)


def test_release_of_an_older_number_changes_nothing() -> None:
    log = make_log()
    for i in range(10):
        log.append_nowait(make_record(i))
    assert log.appended == 10
    log.release(5)
    log.release(2)
    assert [number_of(record) for record in read_all(log, 5)] == [5, 6, 7, 8, 9]
    log.release(10)
    log.release(3)
    log.append_nowait(make_record(10))
    assert [number_of(record) for record in read_all(log)] == [10]


def test_what_is_staged_survives_a_release_of_everything_stored() -> None:
    log = make_log()
    log.append_nowait(make_record(0))
    assert log.appended == 1
    log.append_nowait(make_record(1))
    log.release(1)
    assert [number_of(record) for record in read_all(log, 1)] == [1]


# ── bounds ──────────────────────────────────────────────────────────────────────────────────────────────────


def check_the_bound_of_bytes_holds(make: MakeLog) -> None:
    for policy in (DropNewest(), DropOldest()):
        log = make_log(100_000, make=make, when_full=policy)
        draw = random.Random(1)
        for i in range(3_000):
            log.append_nowait(make_record(i, draw.choice([40, 200, 1_000, 4_000, 11_000])))
            assert log.held_bytes <= 100_000
            assert sum(map(len, log._staged)) <= 64 * 4_096
        assert log.peak_bytes <= 100_000
        assert ended(log) == 3_000
        assert log.held_bytes >= 80_000, "the bound is used"


def check_the_bound_of_spans_holds(make: MakeLog) -> None:
    for policy in (DropNewest(), DropOldest()):
        log = make_log(make=make, when_full=policy, capacity_spans=100)
        settled = 0
        for i in range(2_000):
            log.append_nowait(make_record(i, 60))
            if i % 130 == 0:
                settled = max(settled, log.appended - 60)
                log.release(settled)
            held = log.appended - max(settled, log.first)
            assert held <= 100
            assert ended(log) == i + 1


def test_the_bound_of_bytes_holds() -> None:
    check_the_bound_of_bytes_holds(SpanLog)


def test_the_bound_of_spans_holds() -> None:
    check_the_bound_of_spans_holds(SpanLog)


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        (check_release_frees_what_is_settled_and_no_more, faulty.NeverFrees),
        (check_release_frees_what_is_settled_and_no_more, faulty.FreesTheSegmentOfTheCursor),
        (check_the_bound_of_bytes_holds, faulty.ForgetsItsBound),
        (check_the_bound_of_bytes_holds, faulty.DropsWithoutCounting),
        (check_the_bound_of_spans_holds, faulty.IgnoresTheBoundOfSpans),
        (check_the_bound_of_spans_holds, faulty.DropsWithoutCounting),
    ],
)
def test_the_checks_notice(check: Callable[[MakeLog], None], fault: MakeLog) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check(fault)


@pytest.mark.parametrize("policy", [DropNewest(), DropOldest()])
def test_a_record_larger_than_the_whole_log_is_refused(policy: DropNewest | DropOldest) -> None:
    log = make_log(8_192, when_full=policy)
    log.append_nowait(make_record(0, 20_000))
    assert ended(log) == 1
    assert log.peak_bytes <= 8_192


def test_the_bound_of_spans_also_bounds_the_memory_under_drop_oldest() -> None:
    log = make_log(1 << 20, when_full=DropOldest(), capacity_spans=100)
    for i in range(4_000):
        log.append_nowait(make_record(i))
    assert log.appended - log.first <= 100
    assert log.held_bytes <= 3 * log._segment_bytes


# ── policies ────────────────────────────────────────────────────────────────────────────────────────────────


def test_drop_newest_keeps_the_oldest_story_whole() -> None:
    log = make_log(64_000, when_full=DropNewest())
    for i in range(1_000):
        assert log.append_nowait(make_record(i)), "False is for WaitForRoom alone"
    found = [number_of(record) for record in read_all(log)]
    assert found == list(range(len(found)))
    assert log.refused() == {"refused": 1_000 - len(found)}
    assert log.first == 0


def test_drop_oldest_keeps_the_newest_story_whole_and_refuses_nothing() -> None:
    log = make_log(64_000, when_full=DropOldest())
    for i in range(1_000):
        assert log.append_nowait(make_record(i))
    assert log.totals() == (1_000, {})
    assert log.first > 0
    assert [number_of(record) for record in read_all(log)] == list(range(log.first, 1_000))


def test_drop_oldest_by_spans_keeps_exactly_the_newest() -> None:
    log = make_log(when_full=DropOldest(), capacity_spans=100)
    for i in range(1_000):
        log.append_nowait(make_record(i))
    assert log.totals() == (1_000, {})
    assert [number_of(record) for record in read_all(log)] == list(range(900, 1_000))


def test_room_that_comes_back_is_used_again() -> None:
    log = make_log(capacity_spans=10)
    for i in range(30):
        log.append_nowait(make_record(i))
    assert log.totals() == (10, {"refused": 20})
    log.release(4)
    for i in range(30, 50):
        log.append_nowait(make_record(i))
    assert log.totals() == (14, {"refused": 36})
    assert [number_of(record) for record in read_all(log, 4)] == [4, 5, 6, 7, 8, 9, 30, 31, 32, 33]


def test_policies_are_named_and_a_wrong_name_teaches() -> None:
    assert parse_when_full("drop_newest") == DropNewest()
    assert parse_when_full("drop_oldest") == DropOldest()
    assert parse_when_full("wait") == WaitForRoom(timeout=5.0)
    assert parse_when_full(WaitForRoom(timeout=1.5)) == WaitForRoom(timeout=1.5)
    for wrong in ("newest", None, 3, "journal"):
        with pytest.raises(ConfigurationError, match="when_full"):
            parse_when_full(wrong)
    for seconds in (-1.0, float("nan")):
        with pytest.raises(ConfigurationError, match="zero or more"):
            WaitForRoom(timeout=seconds)


# ── closing ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_after_close_every_record_is_refused_for_its_reason_and_what_was_there_stays() -> None:
    log = make_log()
    for i in range(70):
        log.append_nowait(make_record(i))
    log.close("after_shutdown")
    for i in range(70, 200):
        assert log.append_nowait(make_record(i))
    assert log.totals() == (70, {"after_shutdown": 130})
    assert [number_of(record) for record in read_all(log)] == list(range(70))
    log.refuse("cut")
    log.release(70)
    log.append_nowait(make_record(200))
    assert log.totals() == (70, {"after_shutdown": 131, "cut": 1})


def check_close_keeps_the_stage(make: MakeLog) -> None:
    log = make_log(make=make)
    for i in range(5):
        log.append_nowait(make_record(i))
    log.close("after_shutdown")
    assert log.totals() == (5, {})


def test_close_stores_what_is_staged() -> None:
    check_close_keeps_the_stage(SpanLog)
    with pytest.raises(AssertionError):
        check_close_keeps_the_stage(faulty.CloseForgetsTheStage)


def test_refused_sees_what_is_staged() -> None:
    log = make_log()
    log.close("after_shutdown")
    log.append_nowait(make_record(0))
    assert log.refused() == {"after_shutdown": 1}


# ── what waiting costs ──────────────────────────────────────────────────────────────────────────────────────

_MEASURE = """
import sys
from asynctrace.spanlog import SpanLog

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * {page}

log = SpanLog(capacity_bytes=256 << 20, on_ready=lambda: None)
record = b"r" * 200
log.append_nowait(record)
before = resident()
for i in range(200_000):
    log.append_nowait(record[:199] + b"x")
assert log.appended == 200_001
print((resident() - before) / (200_000 * 200))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_waiting_span_costs_at_most_1_3_times_its_bytes() -> None:
    assert Path("/proc/self/statm").exists()
    program = textwrap.dedent(_MEASURE).format(page=resource.getpagesize())
    ratio = float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    assert 1.0 <= ratio <= 1.3


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(40, 9_000)), st.tuples(st.just("release"), st.integers(0, 100))
        ),
        max_size=120,
    ),
    policy=st.sampled_from([DropNewest(), DropOldest()]),
    spans=st.one_of(st.none(), st.integers(1, 30)),
)
def test_books_and_bounds_hold_after_any_history(
    steps: list[tuple[str, int]], policy: DropNewest | DropOldest, spans: int | None
) -> None:
    log = make_log(40_000, when_full=policy, capacity_spans=spans)
    appends = settled = 0
    for step, value in steps:
        if step == "append":
            log.append_nowait(make_record(appends, value))
            appends += 1
        else:
            settled = max(settled, log.first, min(log.appended, settled + value))
            log.release(settled)
        assert ended(log) == appends
        assert log.held_bytes == sum(segment.capacity for segment in log._segments) <= 40_000
        assert spans is None or log.appended - max(settled, log.first) <= spans
        start = max(settled, log.first)
        numbers = [number_of(record) for record in read_all(log, start)]
        assert len(numbers) == log.appended - start
        assert numbers == sorted(set(numbers))
