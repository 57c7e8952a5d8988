"""What is staged makes no difference: readers see everything that was appended before they looked, and `on_ready` is
called when `wake_at` is reached, whoever else is at work."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrace.spanlog import DropOldest, SpanLog

from . import faulty
from .instants import every_instant
from .records import NEVER, TRACE, make_log, make_record, number_of, read_all, split

MakeLog = Callable[..., SpanLog]


def check_a_reader_sees_what_was_appended_before(make: MakeLog) -> None:
    looks: list[Callable[[SpanLog], object]] = [
        lambda log: log.appended == 7,
        lambda log: log.totals() == (7, {}),
        lambda log: log.read(0, 100, 1 << 20)[1] == 7,
        lambda log: [number_of(record) for record in split(log.read(0, 100, 1 << 20)[0])] == list(range(7)),
        lambda log: log.last_number_of(TRACE, 0) == 6,
        lambda log: log.bytes_above(0) == sum(len(make_record(i)) for i in range(7)),
    ]
    for look in looks:
        log = make_log(make=make)
        for i in range(7):
            log.append_nowait(make_record(i))
        assert len(log._staged) == 7, "this test is about staged records"
        assert look(log)


def test_a_reader_sees_what_was_appended_before() -> None:
    check_a_reader_sees_what_was_appended_before(SpanLog)
    with pytest.raises(AssertionError):
        check_a_reader_sees_what_was_appended_before(faulty.KeepsTheStageToItself)


def test_a_large_record_is_not_staged() -> None:
    log = make_log()
    log.append_nowait(make_record(0))
    log.append_nowait(make_record(1, 5_000))
    assert log._staged == []


def check_on_ready_is_called_at_wake_at(make: MakeLog) -> None:
    for wake_at in (1, 2, 3, 63, 64, 65, 100, 128, 500):
        assert told_at(make, 1 + wake_at) == [1 + wake_at]


def told_at(make: MakeLog, wake_at: int) -> list[int]:
    """How many records were stored each time `on_ready` was called."""
    told: list[int] = []

    def on_ready() -> None:
        told.append(log._stored)
        log.wake_at = NEVER

    log = make(capacity_bytes=1 << 20, on_ready=on_ready)
    log.append_nowait(make_record(0))  # the first segment is told of
    told.clear()
    log.wake_at = wake_at
    for i in range(1, 600):
        log.append_nowait(make_record(i))
    return told


def test_on_ready_is_called_at_wake_at_neither_earlier_nor_later() -> None:
    check_on_ready_is_called_at_wake_at(SpanLog)
    with pytest.raises(AssertionError):
        check_on_ready_is_called_at_wake_at(faulty.WakesOnlyWhenTheStageIsFull)


def test_on_ready_is_called_when_a_segment_is_full_and_at_the_first_loss_of_a_kind() -> None:
    calls: list[tuple[int, int]] = []

    def on_ready() -> None:
        calls.append((len(log._segments), sum(log.totals()[1].values())))
        log.wake_at = NEVER

    log = SpanLog(capacity_bytes=64_000, on_ready=on_ready)
    log.wake_at = NEVER
    for i in range(500):
        log.append_nowait(make_record(i))
    segments = [at for at, lost in calls if not lost]
    assert segments == sorted(set(segments)), "once for each segment"
    assert segments[-1] == len(log._segments)
    assert max(b - a for a, b in pairwise(segments)) <= 2, "64 staged records fill up to two"
    assert sum(1 for _, lost in calls if lost) == 1


@settings(max_examples=30, deadline=None)
@given(wakes=st.lists(st.integers(1, 150), min_size=1, max_size=8))
def test_a_reader_that_asks_again_is_told_each_time(wakes: list[int]) -> None:
    told: list[int] = []

    def on_ready() -> None:
        told.append(log.appended)
        log.wake_at = log.appended + wakes[len(told)] if len(told) < len(wakes) else NEVER

    log = SpanLog(capacity_bytes=1 << 20, on_ready=on_ready)
    log.append_nowait(make_record(0))
    for i in range(1, sum(wakes) + 1):
        log.append_nowait(make_record(i, 60))
    assert told[0] == 1
    assert told[1:] == [1 + sum(wakes[1 : i + 1]) for i in range(1, len(wakes))]


class Reader(threading.Thread):
    """Follows the log as delivery does: asks to be told, looks once more, and then sleeps until it is told.

    `patience` seconds without being told while records wait is a lost wake.
    """

    def __init__(self, make: MakeLog, n: int, patience: float = 0.5, **options: Any) -> None:
        super().__init__(daemon=True)
        self.told = threading.Event()
        self.log = make(capacity_bytes=1 << 20, on_ready=self.on_ready, **options)
        self.found: list[int] = []
        self.lost_wakes = 0
        self._n = n
        self._patience = patience

    def on_ready(self) -> None:
        self.log.wake_at = NEVER
        self.told.set()

    def run(self) -> None:
        log = self.log
        while len(self.found) < self._n:
            self.told.clear()
            while (number := len(self.found)) < log.appended:
                slices, _ = log.read(number, 10, 1 << 20)
                self.found += [number_of(record) for record in split(slices)]
                log.release(len(self.found))
            log.wake_at = wake_at = len(self.found) + 1
            if log.appended >= wake_at:
                log.wake_at = NEVER
                continue
            if len(self.found) < self._n and not self.told.wait(self._patience) and log.appended >= wake_at:
                self.lost_wakes += 1


def check_no_wake_is_lost_between_threads(make: MakeLog, seconds: float = 1.5) -> None:
    deadline = time.monotonic() + seconds
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        while time.monotonic() < deadline:
            reader = Reader(make, 4 * 150)

            def append(start: int, log: SpanLog = reader.log) -> None:
                for i in range(start, start + 150):
                    log.append_nowait(make_record(i, 60))

            writers = [threading.Thread(target=append, args=(i * 150,)) for i in range(4)]
            for thread in [reader, *writers]:
                thread.start()
            for thread in [*writers, reader]:
                thread.join(10.0)
            assert not reader.is_alive()
            assert sorted(reader.found) == list(range(600))
            assert reader.lost_wakes == 0
    finally:
        sys.setswitchinterval(interval)


def test_no_wake_is_lost_between_threads() -> None:
    check_no_wake_is_lost_between_threads(SpanLog)


def test_the_check_of_wakes_notices() -> None:
    with pytest.raises(AssertionError):
        check_no_wake_is_lost_between_threads(faulty.WakesOnlyWhenTheStageIsFull)


def lost_wakes_at_any_instant(make: MakeLog) -> list[str]:
    """At each instant of an append another thread asks to be told of one more record; then one more record comes."""
    lost: list[str] = []
    state: dict[str, Any] = {}

    def scenario() -> Callable[[], object]:
        told = threading.Event()
        log = make(capacity_bytes=1 << 20, on_ready=told.set)
        log.append_nowait(make_record(0))
        log.wake_at = NEVER
        for i in range(1, 60):
            log.append_nowait(make_record(i))
        told.clear()
        log.wake_at = 3  # below what is stored: the next append stores, and calculates anew
        log.wake_at = NEVER
        state.update(log=log, told=told, reader=None, saw=False)
        return lambda: [log.append_nowait(make_record(i)) for i in range(60, 65)]

    def ask() -> None:
        def run(log: SpanLog = state["log"]) -> None:
            number = log.appended + 1
            log.wake_at = number
            state["saw"] = log.appended >= number

        state["reader"] = threading.Thread(target=run)
        state["reader"].start()
        state["reader"].join(0.01)  # it may have to wait for the lock that the interrupted append holds

    for where, raised in every_instant(scenario, ask, "opcode"):
        assert raised is None
        state["reader"].join(5.0)
        log = state["log"]
        for i in range(2):
            log.append_nowait(make_record(100 + i))
        if not (state["told"].is_set() or state["saw"]):
            lost.append(where)
    return lost


def test_no_wake_is_lost_whenever_the_reader_asks() -> None:
    assert lost_wakes_at_any_instant(SpanLog) == []


def test_the_exhaustive_check_of_wakes_notices() -> None:
    assert lost_wakes_at_any_instant(faulty.WakesOnlyWhenTheStageIsFull)


@pytest.mark.parametrize("policy", [None, DropOldest()])
def test_readers_and_appends_at_once_agree_on_every_record(policy: DropOldest | None) -> None:
    """A reader in the middle of appends from another thread: what it reads is whole and in its place."""
    log = make_log(64_000, when_full=policy)
    n = 20_000
    done = threading.Event()

    def append() -> None:
        for i in range(n):
            log.append_nowait(make_record(i, 40 + i % 400))
        done.set()

    writer = threading.Thread(target=append)
    writer.start()
    found: list[int] = []
    number = 0
    while not (done.is_set() and number >= log.appended):
        log.release(number)
        number = max(number, log.first)
        try:
            slices, count = log.read(number, 100, 1 << 20)
        except (ValueError, IndexError):
            assert policy is not None, "only an eviction may come between `first` and read()"
            assert number < log.first
            continue
        records = split(slices)
        assert len(records) == count
        for record in records:
            i = number_of(record)
            assert record == make_record(i, 40 + i % 400)
            found.append(i)
        number += count
    writer.join()
    assert found == sorted(set(found))
    appended, refused = log.totals()
    assert appended + sum(refused.values()) == n
    assert read_all(log, appended) == []
    if policy is None:
        assert len(found) == appended
