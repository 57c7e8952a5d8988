"""A signal handler or a finaliser that ends a span in the middle of another append, and a handler that raises: no record
is lost, none is stored twice, nothing dead-locks."""

from __future__ import annotations

import gc
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asynctrace.spanlog import DropOldest, SpanLog, WaitForRoom

from . import faulty
from .instants import Kind, every_instant
from .records import ended, in_thread, make_record, number_of, read_all, watchdog

MakeLog = Callable[..., SpanLog]

SITUATIONS: dict[str, Callable[[MakeLog], SpanLog]] = {}


def situation(make_situation: Callable[[MakeLog], SpanLog]) -> Callable[[MakeLog], SpanLog]:
    SITUATIONS[make_situation.__name__] = make_situation
    return make_situation


def _log(make: MakeLog, n: int, capacity: int = 64_000, **options: Any) -> SpanLog:
    def on_ready() -> None:
        log.wake_at = log._stored + 2

    log = make(capacity_bytes=capacity, on_ready=on_ready, **options)
    log.wake_at = 1 << 62
    for i in range(n):
        log.append_nowait(make_record(i))
    log.appended  # noqa: B018  (stores what is staged)
    return log


@situation
def empty(make: MakeLog) -> SpanLog:
    return _log(make, 0)


@situation
def room_in_the_segment(make: MakeLog) -> SpanLog:
    return _log(make, 5)


@situation
def about_to_roll(make: MakeLog) -> SpanLog:
    return _log(make, 38)


@situation
def about_to_be_full(make: MakeLog) -> SpanLog:
    return _log(make, 318)


@situation
def about_to_evict(make: MakeLog) -> SpanLog:
    return _log(make, 318, when_full=DropOldest())


@situation
def about_to_evict_by_spans(make: MakeLog) -> SpanLog:
    return _log(make, 9, when_full=DropOldest(), capacity_spans=10)


@situation
def somebody_may_wait(make: MakeLog) -> SpanLog:
    return _log(make, 5, when_full=WaitForRoom(timeout=0.01))


@situation
def closed(make: MakeLog) -> SpanLog:
    log = _log(make, 5)
    log.close("after_shutdown")
    return log


@pytest.fixture(autouse=True)
def _watched() -> Iterator[None]:
    with watchdog(90.0):
        yield


def _numbers(log: SpanLog) -> list[int]:
    return [number_of(record) for record in read_all(log)]


# ── somebody appends in between ─────────────────────────────────────────────────────────────────────────────


def check_an_append_inside_an_append(make: MakeLog, name: str, kind: Kind = "opcode", **watched: set[str]) -> None:
    state: dict[str, Any] = {}

    def scenario() -> Callable[[], object]:
        state["log"] = log = SITUATIONS[name](make)
        state["before"] = ended(log)
        return lambda: [log.append_nowait(make_record(1_000 + i)) for i in range(3)]

    def end_spans() -> None:
        for i in range(3):
            state["log"].append_nowait(make_record(2_000 + i))

    for where, raised in every_instant(scenario, end_spans, kind, **watched):
        assert raised is None, where
        log = state["log"]
        assert ended(log) == state["before"] + 6, where
        found = _numbers(log)
        assert len(found) == log.appended - log.first, where
        assert len(set(found)) == len(found), where
        new = [number for number in found if number >= 1_000]
        if not log.refused():
            assert len(new) == 6, where
        assert log.held_bytes == sum(segment.capacity for segment in log._segments), where
        assert not log._storing
        assert not log._lock._is_owned()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", list(SITUATIONS))
def test_an_append_inside_an_append_at_every_instant(name: str) -> None:
    check_an_append_inside_an_append(SpanLog, name)


@pytest.mark.parametrize("fault", [faulty.StagesWithoutReentry, faulty.DropsWhatComesInBetween])
def test_the_check_of_nested_appends_notices(fault: MakeLog) -> None:
    def check_all() -> None:
        for name in SITUATIONS:
            check_an_append_inside_an_append(fault, name)

    with pytest.raises((AssertionError, ValueError, IndexError)):
        check_all()


def test_on_ready_is_called_outside_the_lock_also_from_an_append_inside_an_append() -> None:
    state: dict[str, Any] = {}
    inside: list[int] = []

    def scenario() -> Callable[[], object]:
        def on_ready() -> None:
            if log._lock._is_owned():  # type: ignore[attr-defined]
                inside.append(1)

        log = SpanLog(capacity_bytes=64_000, on_ready=on_ready)
        state["log"] = log
        return lambda: [log.append_nowait(make_record(i)) for i in range(3)]

    for _ in every_instant(scenario, lambda: state["log"].append_nowait(make_record(9)), "opcode"):
        pass
    assert not inside


# ── a handler raises ────────────────────────────────────────────────────────────────────────────────────────


def broken_by_an_interrupt(make: MakeLog, name: str, **watched: set[str]) -> Iterator[str]:
    """Where a `KeyboardInterrupt` in an append left the log in a state that is not that of 0 or 1 records more."""
    state: dict[str, Any] = {}

    def scenario() -> Callable[[], object]:
        state["log"] = log = SITUATIONS[name](make)
        state["before"], state["returned"] = ended(log), []

        def run() -> None:
            for i in range(4):
                log.append_nowait(make_record(1_000 + i))
                state["returned"].append(1_000 + i)

        return run

    def interrupt() -> None:
        raise KeyboardInterrupt

    def check() -> None:
        log, returned = state["log"], state["returned"]
        in_thread(lambda: log.append_nowait(make_record(3_000)), 2.0)  # the lock is free
        fewest = state["before"] + len(returned) + 1
        assert fewest <= ended(log) <= fewest + 1, f"{fewest} spans ended, or one more; counted {ended(log)}"
        found = _numbers(log)
        assert len(found) == log.appended - log.first
        assert len(set(found)) == len(found), "stored twice"
        if not log.refused() and not log.first:
            assert set(returned) <= set(found), "lost"
        assert log.held_bytes == sum(segment.capacity for segment in log._segments), "held_bytes"
        assert log._segments[0].base <= log.first, "first"
        for i in range(400):
            log.append_nowait(make_record(4_000 + i))
        assert len(_numbers(log)) == log.appended - log.first
        told: list[int] = []
        log._on_ready = lambda: told.append(1)
        log.release(log.appended)
        if log._closed_for is None:
            log.wake_at = log.appended + 1
            log.append_nowait(make_record(5_000))
            assert told, "wake"

    for where, raised in every_instant(scenario, interrupt, "signal", **watched):
        if not isinstance(raised, KeyboardInterrupt):
            yield f"{where}: {raised!r}"
            continue
        try:
            check()
        except (AssertionError, ValueError, IndexError) as error:
            yield f"{where}: {error!r}"[:200]


@pytest.mark.parametrize("name", SITUATIONS)
def test_an_interrupt_at_every_instant_where_a_handler_may_raise(name: str) -> None:
    assert list(broken_by_an_interrupt(SpanLog, name)) == []


@pytest.mark.parametrize("fault", [faulty.CountsOnceMoreWhenInterrupted, faulty.StoresWithoutWith])
def test_the_check_of_interrupts_notices(fault: MakeLog) -> None:
    assert any(defect for name in ("empty", "about_to_roll") for defect in broken_by_an_interrupt(fault, name))


# ── storms ──────────────────────────────────────────────────────────────────────────────────────────────────


class EndsWhenCollected:
    """An abandoned handle: its finaliser ends a span, in a cycle, so that the collector runs it at any allocation."""

    def __init__(self, log: SpanLog, number: int) -> None:
        self.log, self.number, self.me = log, number, self

    def __del__(self) -> None:
        self.log.append_nowait(make_record(self.number, 60))


def collect_all_handles() -> None:
    """`gc.collect()` does nothing while another thread, a journal's keeper, is in the middle of a collection of its own."""
    deadline = time.monotonic() + 30
    gc.collect()
    while any(type(left) is EndsWhenCollected for left in gc.get_objects()):
        assert time.monotonic() < deadline, "handles are kept"
        gc.collect()


def check_a_storm_of_signals_and_finalisers(make: MakeLog, seconds: float = 2.0) -> None:
    log = make(capacity_bytes=1 << 30, on_ready=lambda: None)
    numbers = iter(range(1 << 40))  # next() is atomic
    handled: list[int] = []
    made: list[list[int]] = []
    open_handlers = 0

    def handler(signum: int, frame: object) -> None:
        nonlocal open_handlers
        open_handlers += 1
        if open_handlers < 20:  # on a busy machine they wait for the lock, and in each wait there is time for the next
            signal.setitimer(signal.ITIMER_REAL, 1e-4)
        number = next(numbers)
        handled.append(number)
        log.append_nowait(make_record(number, 60))
        open_handlers -= 1
        signal.setitimer(signal.ITIMER_REAL, 0 if time.monotonic() > deadline else 1e-4)

    def append(deadline: float, mine: list[int]) -> None:
        while time.monotonic() < deadline:
            for _ in range(20):
                number = next(numbers)
                log.append_nowait(make_record(number, 60))
                mine.append(number)
            number = next(numbers)
            EndsWhenCollected(log, number)
            mine.append(number)

    previous = signal.signal(signal.SIGALRM, handler)
    thresholds = gc.get_threshold()
    interval = sys.getswitchinterval()
    deadline = time.monotonic() + seconds
    threads = []
    for _ in range(3):
        made.append([])
        threads.append(threading.Thread(target=append, args=(deadline, made[-1])))
    made.append([])
    try:
        gc.set_threshold(5)
        sys.setswitchinterval(1e-5)
        signal.setitimer(signal.ITIMER_REAL, 1e-4)
        for thread in threads:
            thread.start()
        append(deadline, made[-1])
        for thread in threads:
            thread.join()
    finally:
        deadline = 0.0  # a handler that is still to come does not set the timer again
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)
        for thread in threads:
            if thread.is_alive():
                thread.join()
    collect_all_handles()
    assert handled, "no signal came"
    expected = Counter(handled)
    for numbers_of_thread in made:
        expected.update(numbers_of_thread)
    assert log.totals() == (expected.total(), {})
    assert Counter(number_of(record) for record in read_all(log, most=10_000, bytes_at_once=1 << 20)) == expected


def test_a_storm_of_signals_and_finalisers_loses_nothing_and_doubles_nothing() -> None:
    check_a_storm_of_signals_and_finalisers(SpanLog)


def test_the_storm_notices() -> None:
    with pytest.raises((AssertionError, ValueError)):
        check_a_storm_of_signals_and_finalisers(faulty.DropsWhatComesInBetween, 1.0)


def check_a_storm_of_interrupts(make: MakeLog, seconds: float = 2.0) -> None:
    log = make(capacity_bytes=1 << 30, on_ready=lambda: None)
    draw = random.Random(7)
    armed = False
    interrupts = 0

    def handler(signum: int, frame: object) -> None:
        if armed:
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, handler)
    returned: set[int] = set()
    tried = 0
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-6, 3e-4))
            try:
                armed = True
                for _ in range(300):
                    tried += 1
                    log.append_nowait(make_record(tried, 60))
                    returned.add(tried)
                armed = False
            except KeyboardInterrupt:
                armed = False
                interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert interrupts > 10, "no interrupt came"
    assert log.totals()[1] == {}
    found = Counter(number_of(record) for record in read_all(log, most=10_000, bytes_at_once=1 << 20))
    assert max(found.values()) == 1, "stored twice"
    assert returned <= found.keys(), "lost"
    assert len(found) - len(returned) <= interrupts
    in_thread(lambda: log.append_nowait(make_record(0)), 2.0)


def test_a_storm_of_interrupts_stores_each_record_at_most_once_and_each_that_returned() -> None:
    check_a_storm_of_interrupts(SpanLog)


def test_the_storm_of_interrupts_notices() -> None:
    with pytest.raises((AssertionError, ValueError)):
        check_a_storm_of_interrupts(faulty.StoresWithoutWith, 1.0)
