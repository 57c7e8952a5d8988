"""What a span log promises, one does that appends to files: every test of the log in memory is run with it, but for those
named below; and what only files can get wrong."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from asynctrace.spanlog import DropOldest
from asynctrace.spanlog.journal._log import JournalLog
from asynctrace.spanlog.journal._segment_file import FileSegment

from ..spanlog import records, test_memory_is_bounded, test_records_keep_number_and_bytes, test_waiting_for_room
from ..spanlog.records import NEVER, ended, make_record, number_of, read_all, split, watchdog
from ..spanlog.test_many_threads import check_many_threads
from ..spanlog.test_memory_is_bounded import (
    check_close_keeps_the_stage,
    check_release_frees_what_is_settled_and_no_more,
    check_the_bound_of_bytes_holds,
    check_the_bound_of_spans_holds,
)
from ..spanlog.test_records_keep_number_and_bytes import (
    check_bytes_come_out_as_they_went_in,
    check_runs_keep_their_limits,
)
from ..spanlog.test_waiting_for_room import check_after_the_timeout_it_is_refused, check_an_async_ending_waits_for_room
from . import logs
from .logs import Attached, attached, in_the_files

SEGMENT = 128 * 1024

NOT_HERE = {
    "test_a_waiting_span_costs_at_most_1_3_times_its_bytes": "measures memory",
    "test_waiting_with_a_record_larger_than_a_segment_lets_the_loop_go_on": "a program of its own",
    "test_policies_are_named_and_a_wrong_name_teaches": "not about a log",
    "test_numbers_count_from_zero_and_are_never_reused": "looks at `first`: a journal keeps the open segment",
    "test_release_of_an_older_number_changes_nothing": "looks at `first`, too",
}


def promises() -> Iterator[tuple[ModuleType, Callable[..., Any]]]:
    """Tests of the log in memory that make it with `make_log()` and nothing else."""
    for module in (test_memory_is_bounded, test_records_keep_number_and_bytes, test_waiting_for_room):
        for name, function in vars(module).items():
            takes = inspect.signature(function).parameters if name.startswith("test_") else None
            if takes is not None and not takes and name not in NOT_HERE:
                yield module, function


PROMISES = {function.__name__: (module, function) for module, function in promises()}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Attached]:
    with attached(tmp_path) as made, watchdog(120.0):
        yield made


@pytest.mark.anyio
@pytest.mark.parametrize("name", PROMISES)
async def test_what_a_log_in_memory_promises(name: str, make: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    module, promise = PROMISES[name]
    monkeypatch.setattr(module, "make_log", partial(records.make_log, make=make))
    told = promise()
    if inspect.isawaitable(told):
        await told


def test_enough_promises_are_found() -> None:
    assert len(PROMISES) > 35


# ── checks that are told which log to make ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "check",
    [
        check_the_bound_of_bytes_holds,
        check_the_bound_of_spans_holds,
        check_bytes_come_out_as_they_went_in,
        check_runs_keep_their_limits,
        check_close_keeps_the_stage,
        partial(check_release_frees_what_is_settled_and_no_more, held_in_the_end=SEGMENT),
    ],
    ids=lambda check: getattr(check, "__name__", "check_release"),
)
def test_checks_of_the_log(check: Callable[[Any], None], make: Attached) -> None:
    check(make)


@pytest.mark.anyio
@pytest.mark.parametrize("check", [check_an_async_ending_waits_for_room, check_after_the_timeout_it_is_refused])
async def test_checks_of_waiting(check: Callable[[Any], Any], make: Attached) -> None:
    await check(make)


def test_a_hundred_thousand_records_from_sixteen_threads_come_out_exactly_once(make: Attached) -> None:
    check_many_threads(make, 100_000, held_in_the_end=2 << 20)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("fault", [logs.StoresUnmarked, logs.ForgetsWhatCameInBetween])
def test_the_check_of_threads_notices(tmp_path: Path, fault: type[JournalLog]) -> None:
    def check_often(make: Attached) -> None:
        for _ in range(20):
            check_many_threads(make, 20_000, held_in_the_end=2 << 20)

    with watchdog(120.0), attached(tmp_path, fault) as made, pytest.raises((AssertionError, ValueError, IndexError)):
        check_often(made)


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────


def check_a_roll_needs_no_spare(folder: Path, kind: type[JournalLog] = JournalLog) -> None:
    with attached(folder, kind, has_keeper=False) as made:
        log = records.make_log(128_000, make=made)
        for number in range(600):
            log.append_nowait(make_record(number))
        assert log.totals() == (600, {})
        assert len(log._segments) == 8
        assert all(isinstance(segment, FileSegment) for segment in log._segments)
        assert in_the_files(made.journal) == dict(enumerate(read_all(log)))


def test_a_roll_for_which_no_file_is_ready_makes_one(tmp_path: Path) -> None:
    check_a_roll_needs_no_spare(tmp_path)


def test_the_check_of_rolls_notices(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_a_roll_needs_no_spare(tmp_path, logs.NeedsASpare)


def check_a_view_outlives_its_segment(folder: Path, kind: type[JournalLog] = JournalLog) -> None:
    """A request holds what it sends, while its segment is settled, and its file used anew as soon as nobody holds it."""
    with attached(folder, kind) as made:
        log = records.make_log(256_000, make=made)
        numbers = iter(range(1 << 30))
        held: list[tuple[list[memoryview], list[bytes]]] = []
        for _ in range(40):
            for _ in range(100):
                log.append_nowait(make_record(next(numbers)))
            slices, count = log.read(log.appended - 100, 100, 1 << 20)
            held.append((slices, [bytes(record) for record in split(slices)]))
            assert count == 100
            log.release(log.appended)
            if len(held) > 5:
                slices, before = held.pop(0)
                assert split(slices) == before, "bytes of a request changed under way"
                for view in slices:
                    view.release()
        assert log.totals() == (4_000, {})
        for slices, before in held:
            assert split(slices) == before
            for view in slices:
                view.release()


def test_a_retired_segment_is_not_used_anew_while_a_view_of_it_is_held(tmp_path: Path) -> None:
    check_a_view_outlives_its_segment(tmp_path)


def test_the_check_of_views_notices(tmp_path: Path) -> None:
    with pytest.raises((AssertionError, ValueError, IndexError)):
        check_a_view_outlives_its_segment(tmp_path, logs.UsesAnewAtOnce)


def check_files_stay_few(folder: Path, kind: type[JournalLog] = JournalLog) -> None:
    """As many as the bound has room for, and two that are ready, however much goes through."""
    with attached(folder, kind) as made:
        log = records.make_log(64_000, make=made)
        most = 0
        for number in range(6_000):
            log.append_nowait(make_record(number))
            if number % 100 == 99:
                log.release(log.appended)
                caught_up = threading.Event()
                made.journal._keeper._jobs.put(caught_up.set)
                assert caught_up.wait(10.0)
                most = max(most, len(list(made.journal.directory.path.glob("*.seg"))))
        assert log.totals() == (6_000, {})
        assert most <= 8 + 3, "files pile up"


def test_files_stay_few(tmp_path: Path) -> None:
    check_files_stay_few(tmp_path)


def test_the_check_of_few_files_notices(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_files_stay_few(tmp_path, logs.KeepsTheLastSegment)


def test_what_was_appended_before_the_journal_is_read_after_it(tmp_path: Path) -> None:
    """The first records are memory; from `attach()` on they are files, under the numbers that follow."""
    with attached(tmp_path, has_keeper=False) as made:
        other = made(capacity_bytes=64_000, on_ready=lambda: None)
        log = JournalLog(capacity_bytes=64_000, on_ready=lambda: None)
        log.wake_at = NEVER
        for number in range(10):
            log.append_nowait(make_record(number))
        log.attach(made.journal)
        for number in range(10, 20):
            log.append_nowait(make_record(number))
        assert [number_of(record) for record in read_all(log)] == list(range(20))
        found = in_the_files(made.journal)
        assert {number: number_of(record) for number, record in found.items()} == {n: n for n in range(10, 20)}
        assert ended(other) == 0


def test_what_was_given_up_for_newer_records_is_gone_from_the_files_too(tmp_path: Path) -> None:
    with attached(tmp_path) as made:
        log = records.make_log(64_000, make=made, when_full=DropOldest())
        for number in range(2_000):
            log.append_nowait(make_record(number))
        held = dict(enumerate(read_all(log), log.first))
        found = in_the_files(made.journal)
        assert found.items() >= held.items()
        assert all(number_of(record) == number for number, record in found.items())
