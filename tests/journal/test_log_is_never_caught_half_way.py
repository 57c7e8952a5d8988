"""A signal handler, a finaliser or another thread in the middle of an append to a journal, and a handler that raises: no
record is lost, none is stored twice, nothing dead-locks. An append takes no lock; that nobody can come in between is a
fact about CPython, and is looked up in the bytecode."""

from __future__ import annotations

import dis
import gc
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from asynctrace.spanlog.journal._log import JournalLog

from ..spanlog.instants import every_instant
from ..spanlog.records import ended, make_record, number_of, read_all, watchdog
from ..spanlog.test_interrupted_appends_lose_nothing import (
    SITUATIONS,
    broken_by_an_interrupt,
    check_a_storm_of_interrupts,
    check_a_storm_of_signals_and_finalisers,
    check_an_append_inside_an_append,
)
from . import logs
from .logs import FILES, attached, in_the_files


@pytest.fixture(autouse=True)
def _watched() -> Iterator[None]:
    with watchdog(120.0):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory, where there is such a place: thousands of files are made."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as made:
        yield Path(made)


# ── somebody appends in between ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", list(SITUATIONS))
def test_an_append_inside_an_append_wherever_other_code_can_run(folder: Path, name: str) -> None:
    with attached(folder, has_keeper=False) as make:
        check_an_append_inside_an_append(make, name, "collection", files=FILES)


@pytest.mark.parametrize("fault", [logs.StoresUnmarked, logs.MarksTooLate, logs.ForgetsWhatCameInBetween])
def test_the_check_of_nested_appends_notices(folder: Path, fault: type[JournalLog]) -> None:
    with attached(folder, fault, has_keeper=False) as make, pytest.raises((AssertionError, ValueError, IndexError)):
        check_an_append_inside_an_append(make, "room_in_the_segment", "collection", files=FILES)


def check_another_thread_wherever_other_code_can_run(folder: Path, kind: type[JournalLog]) -> None:
    """It appends, reads and releases, while the first is in the middle of an append; what is stored is in the files."""
    state: dict[str, Any] = {}

    with attached(folder, kind, has_keeper=False) as make:

        def scenario() -> Callable[[], object]:
            state["log"] = log = make(capacity_bytes=64_000, on_ready=lambda: None)
            for number in range(38):
                log.append_nowait(make_record(number))
            return lambda: [log.append_nowait(make_record(1_000 + i)) for i in range(3)]

        def meanwhile() -> None:
            log = state["log"]
            for number in range(2):
                log.append_nowait(make_record(2_000 + number))
            log.read(log.first, 10, 10_000)
            log.release(30)

        def come_in_between() -> None:
            state["thread"] = threading.Thread(target=meanwhile)
            state["thread"].start()
            state["thread"].join(0.005)  # it may have to wait for the lock that the interrupted append holds

        for where, raised in every_instant(scenario, come_in_between, "collection", FILES):
            assert raised is None, where
            state["thread"].join(5.0)
            log = state["log"]
            assert ended(log) == 43, where
            found = read_all(log)
            numbers = [number_of(record) for record in found]
            assert sorted(numbers) == [*range(log.first, 38), 1_000, 1_001, 1_002, 2_000, 2_001], where
            assert in_the_files(make.journal).items() >= dict(enumerate(found, log.first)).items(), where


def test_another_thread_wherever_other_code_can_run(folder: Path) -> None:
    check_another_thread_wherever_other_code_can_run(folder, JournalLog)


@pytest.mark.parametrize("fault", [logs.StoresUnmarked, logs.MarksTooLate])
def test_the_check_of_other_threads_notices(folder: Path, fault: type[JournalLog]) -> None:
    with pytest.raises((AssertionError, ValueError, IndexError)):
        check_another_thread_wherever_other_code_can_run(folder, fault)


# ── the collector, in the middle of making a slice ──────────────────────────────────────────────────────────


class EndsWhenCollected:
    """In a cycle, so that only the collector ends it."""

    def __init__(self, log: JournalLog, number: int) -> None:
        self.log, self.number, self.me = log, number, self

    def __del__(self) -> None:
        self.log.append_nowait(make_record(self.number))


def check_finalisers_at_every_allocation(folder: Path, kind: type[JournalLog]) -> int:
    """The collector runs after ever so many allocations, so at each of those that an append makes. How often it ran while
    an append was storing."""
    inside: list[int] = []

    class Notices(kind):  # type: ignore[misc, valid-type]
        def _store_staged(self) -> None:
            if self._storing:
                inside.append(1)
            super()._store_staged()

    with attached(folder, Notices, has_keeper=False) as make:
        log = make(capacity_bytes=4 << 20, on_ready=lambda: None)
        thresholds = gc.get_threshold()
        expected: list[int] = []
        gc.collect()
        try:
            for number in range(3_000):
                gc.disable()
                EndsWhenCollected(log, 10_000 + number)
                record = make_record(number)
                expected += [number, 10_000 + number]
                gc.set_threshold(1 + gc.get_count()[0] + number % 5)
                gc.enable()
                log.append_nowait(record)
        finally:
            gc.set_threshold(*thresholds)
            gc.enable()
        gc.collect()
        assert sorted(map(number_of, read_all(log))) == sorted(expected)
        assert log.totals() == (len(expected), {})
    return len(inside)


def test_a_finaliser_while_an_append_stores_loses_nothing(folder: Path) -> None:
    inside = check_finalisers_at_every_allocation(folder, JournalLog)
    assert sys.version_info >= (3, 12) or inside > 100, "from 3.12 on the collector waits until the append is over"


# ── a handler raises ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SITUATIONS)
def test_an_interrupt_at_every_instant_where_a_handler_may_raise(folder: Path, name: str) -> None:
    with attached(folder, has_keeper=False) as make:
        assert list(broken_by_an_interrupt(make, name, files=FILES)) == []


def test_the_check_of_interrupts_notices(folder: Path) -> None:
    with attached(folder, logs.StaysMarked, has_keeper=False) as make:
        assert any(broken_by_an_interrupt(make, "room_in_the_segment", files=FILES))


# ── storms ──────────────────────────────────────────────────────────────────────────────────────────────────


def check_what_is_read_is_in_the_files(make: logs.Attached, log: JournalLog) -> None:
    found = in_the_files(make.journal)
    assert found == dict(enumerate(read_all(log, most=10_000, bytes_at_once=1 << 20)))


def _remembering(make: logs.Attached, made: list[JournalLog]) -> Callable[..., JournalLog]:
    def make_and_remember(**options: Any) -> JournalLog:
        made.append(make(**options))
        return made[-1]

    return make_and_remember


def test_a_storm_of_signals_and_finalisers_loses_nothing_and_doubles_nothing(folder: Path) -> None:
    made: list[JournalLog] = []
    with attached(folder) as make:
        check_a_storm_of_signals_and_finalisers(_remembering(make, made), 1.5)
        check_what_is_read_is_in_the_files(make, made[0])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("fault", [logs.StoresUnmarked, logs.ForgetsWhatCameInBetween])
def test_the_storm_notices(folder: Path, fault: type[JournalLog]) -> None:
    with attached(folder, fault) as make:
        with pytest.raises((AssertionError, ValueError, IndexError)):
            check_a_storm_of_signals_and_finalisers(make, 1.0)
        gc.collect()


def test_a_storm_of_interrupts_stores_each_record_at_most_once_and_each_that_returned(folder: Path) -> None:
    made: list[JournalLog] = []
    with attached(folder) as make:
        check_a_storm_of_interrupts(_remembering(make, made), 1.5)
        check_what_is_read_is_in_the_files(make, made[0])


def test_the_storm_of_interrupts_notices(folder: Path) -> None:
    with attached(folder, logs.StaysMarked) as make, pytest.raises((AssertionError, ValueError)):
        check_a_storm_of_interrupts(make, 1.0)


# ── nobody can come in between ──────────────────────────────────────────────────────────────────────────────

_BEGINNINGS = ("CALL", "PRECALL", "RESUME", "SEND", "YIELD", "RETURN_GENERATOR", "FOR_ITER", "BEFORE_WITH", "IMPORT")
HANDS_OVER = {
    name
    for name in dis.opmap
    if name.startswith(_BEGINNINGS) or ("JUMP_BACKWARD" in name and "NO_INTERRUPT" not in name)
}
"""Opcodes at, or below, which CPython lets other code run."""


def openings(append: Callable[..., object]) -> list[str]:
    """Bytecodes, on a way from the first look at the tail to the end of the store, at which something else could run."""
    instructions = list(dis.get_instructions(append))
    places = {instruction.offset: place for place, instruction in enumerate(instructions)}
    following = [_following(instructions, place, places) for place in range(len(instructions))]
    names = [(instruction.opname, instruction.argval) for instruction in instructions]
    first = names.index(("LOAD_ATTR", "_end"))
    stored = max(place for place, name in enumerate(names) if name == ("STORE_ATTR", "_stored"))
    last = names.index(("STORE_ATTR", "_storing"), stored)
    between = [place for place in _reached(first, following) if last in _reached(place, following, last)]
    return [instructions[place].opname for place in sorted(between) if instructions[place].opname in HANDS_OVER]


def _following(instructions: list[dis.Instruction], place: int, places: dict[int, int]) -> list[int]:
    instruction = instructions[place]
    name = instruction.opname
    found = [places[instruction.argval]] if "JUMP" in name or name == "FOR_ITER" else []
    goes_on = not name.startswith(("RETURN", "RAISE", "RERAISE", "JUMP")) and place + 1 < len(instructions)
    return [*found, place + 1] if goes_on else found


def _reached(start: int, following: list[list[int]], last: int | None = None) -> set[int]:
    """From `start` on, but not beyond `last`."""
    found: set[int] = set()
    ahead = [start]
    while ahead:
        place = ahead.pop()
        if place not in found:
            found.add(place)
            ahead += [] if place == last else following[place]
    return found


def calls_in_between(self: Any, record: bytes) -> bool:
    start = self._end
    end = start + len(record)
    self._storing = True
    try:
        self._payload[start:end] = record
        self._stored = self._stored + 1
    finally:
        self._storing = False
    return True


def loops_in_between(self: Any, record: bytes) -> bool:
    end = self._end
    self._storing = True
    try:
        while end < 7:
            end += 1
        self._stored = end
    finally:
        self._storing = False
    return True


def test_nothing_can_run_between_the_look_at_the_tail_and_the_end_of_the_store() -> None:
    assert openings(JournalLog._append_through) == []


@pytest.mark.parametrize("fault", [calls_in_between, loops_in_between])
def test_the_look_at_the_bytecode_notices(fault: Callable[..., object]) -> None:
    assert openings(fault)


def test_no_attribute_of_the_log_is_a_function_in_disguise() -> None:
    """A property, `__getattr__` or `__setattr__` would be a call that the bytecode does not show."""
    code: CodeType = JournalLog._append_through.__code__
    for name in set(code.co_names) - {"len", "append", "_store_staged", "_tell_reader"}:
        for kind in JournalLog.__mro__:
            assert not hasattr(vars(kind).get(name), "__get__"), f"{kind.__name__}.{name}"
    assert JournalLog.__setattr__ is object.__setattr__
    assert JournalLog.__getattribute__ is object.__getattribute__
    assert not hasattr(JournalLog, "__getattr__")
