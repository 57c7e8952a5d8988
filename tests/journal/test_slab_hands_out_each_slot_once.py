"""Threads, signal handlers and finalisers that enter and leave in the middle of another: no slot is lost, none is handed out
twice, and what is open is in the slab."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from asynctrace.spanlog.journal import _slab
from asynctrace.spanlog.journal._slab import OpenSlab

from ..spanlog.instants import every_instant
from ..spanlog.records import watchdog
from . import slabs
from .slabs import (
    FEW_SLOTS,
    JOURNAL,
    GivesBackBeforeClearing,
    LooksBeforeItTakes,
    bodies_in,
    check_free_slots,
    make_body,
    memory_file,
    small_steps,
    writer_of,
)

OURS = {_slab.__file__, slabs.__file__}


@pytest.fixture(autouse=True)
def _watched() -> Iterator[None]:
    with watchdog(90.0):
        yield


def new_slab(kind: type[OpenSlab] = OpenSlab, taken: int = 0) -> tuple[OpenSlab, list[int]]:
    slab = kind.create(memory_file, JOURNAL)
    return slab, [slab.enter(make_body(9, place, 1)) for place in range(taken)]


TAKEN = {"much room": 3, "the reserve": FEW_SLOTS - 8, "in need": FEW_SLOTS, "full": 16 * FEW_SLOTS - 1}


def check_nested(kind: type[OpenSlab], taken: int) -> None:
    state: dict[str, OpenSlab] = {}
    nested: list[int] = []
    ours: list[int] = []

    def scenario() -> Callable[[], object]:
        if "slab" in state:
            state["slab"].close()
        state["slab"], _ = new_slab(kind, taken)
        slab = state["slab"]
        nested.clear()
        ours.clear()

        def run() -> None:
            ours.append(slab.enter(make_body(1, 1, 1)))
            slab.leave(ours.pop())
            ours.append(slab.enter(make_body(1, 2, 2)))

        return run

    def come_in_between() -> None:
        slab = state["slab"]
        nested.append(slab.enter(make_body(2, 2, 2)))
        slab.leave(slab.enter(make_body(2, 1, 1)))

    for where, raised in every_instant(scenario, come_in_between, "opcode", OURS):
        assert raised is None, where
        slab = state["slab"]
        held = [slot for slot in ours + nested if slot >= 0]
        assert len(set(held)) == len(held), where
        check_free_slots(slab, taken + len(held))
        found = {writer_of(body)[:2] for body in bodies_in(slab)} - {(9, place) for place in range(taken)}
        expected = {(1, 2)} if ours[0] >= 0 else set()
        assert found == expected | ({(2, 2)} if nested[0] >= 0 else set()), where
        if taken < 10 * FEW_SLOTS:
            assert ours[0] >= 0
    state["slab"].close()


@pytest.mark.parametrize("taken", TAKEN.values(), ids=TAKEN)
def test_who_comes_in_between_at_any_instant_gets_slots_of_his_own(taken: int) -> None:
    with small_steps():
        check_nested(OpenSlab, taken)


@pytest.mark.parametrize("fault", [LooksBeforeItTakes, GivesBackBeforeClearing])
def test_the_check_of_nesting_notices(fault: type[OpenSlab]) -> None:
    with small_steps(), pytest.raises(AssertionError):
        check_nested(fault, 3)


@pytest.mark.parametrize("taken", TAKEN.values(), ids=TAKEN)
def test_a_handler_that_raises_costs_a_slot_at_most(taken: int) -> None:
    state: dict[str, OpenSlab] = {}

    def scenario() -> Callable[[], object]:
        if "slab" in state:
            state["slab"].close()
        state["slab"], _ = new_slab(taken=taken)
        return lambda: state["slab"].leave(state["slab"].enter(make_body(1, 1, 1)))

    def interrupt() -> None:
        raise KeyboardInterrupt

    with small_steps():
        for where, raised in every_instant(scenario, interrupt, "signal", OURS):
            assert isinstance(raised, KeyboardInterrupt), where
            slab = state["slab"]
            still_open = len(bodies_in(slab)) - taken
            assert 0 <= still_open <= 1
            # A handler that raises while the slab grows may cost the growth; the next in need tries again or counts.
            check_free_slots(slab, taken + still_open, lost=max(1, FEW_SLOTS))
            slab.grow()
            if taken < 10 * FEW_SLOTS:
                assert slab.enter(make_body(1, 1, 1)) > 0
        state["slab"].close()


# ── storms ──────────────────────────────────────────────────────────────────────────────────────────────────


class Storm:
    """Everybody who enters notes the slot; nobody else may hold it."""

    def __init__(self, slab: OpenSlab) -> None:
        self.slab = slab
        self.held: dict[int, object] = {}
        self.faults: list[str] = []
        self.entered = 0

    def enter(self, count: int) -> tuple[int, object]:
        me = object()
        place = self.slab.enter(make_body(1, 1, count))
        if place >= 0 and self.held.setdefault(place, me) is not me:
            self.faults.append("handed out twice")
        self.entered += 1
        return place, me

    def leave(self, place: int) -> None:
        if place < 0:
            self.faults.append("no room")
            return
        if not self.slab.words[place]:
            self.faults.append("cleared by somebody else")
        self.held.pop(place, None)
        self.slab.leave(place)


class LeavesWhenCollected:
    """An abandoned handle, in a cycle: its finaliser runs at any allocation."""

    def __init__(self, storm: Storm, place: int) -> None:
        self.storm, self.place, self.me = storm, place, self

    def __del__(self) -> None:
        self.storm.leave(self.place)
        place, _ = self.storm.enter(7)
        self.storm.leave(place)


def check_storm(kind: type[OpenSlab], seconds: float) -> Storm:
    slab, _ = new_slab(kind)
    storm = Storm(slab)
    handled: list[int] = []

    def handler(signum: int, frame: object) -> None:
        place, _ = storm.enter(5)
        handled.append(place)
        if len(handled) > 20:
            storm.leave(handled.pop(0))

    def work(deadline: float) -> None:
        count = 0
        while time.monotonic() < deadline and not storm.faults:
            mine = [storm.enter(count := count + 1)[0] for _ in range(10)]
            LeavesWhenCollected(storm, mine.pop())
            for place in mine:
                storm.leave(place)

    previous = signal.signal(signal.SIGALRM, handler)
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    deadline = time.monotonic() + seconds
    threads = [threading.Thread(target=work, args=(deadline,)) for _ in range(3)]
    try:
        gc.set_threshold(5)
        sys.setswitchinterval(1e-5)
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
        for thread in threads:
            thread.start()
        work(deadline)
        for thread in threads:
            thread.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)
    gc.collect()
    assert not storm.faults, storm.faults[:3]
    for place in handled:
        storm.leave(place)
    assert not storm.faults
    assert not storm.held
    assert bodies_in(slab) == []
    check_free_slots(slab)
    slab.close()
    return storm


def test_a_storm_loses_no_slot_and_hands_none_out_twice() -> None:
    assert check_storm(OpenSlab, 1.5).entered > 1_000


@pytest.mark.parametrize("fault", [LooksBeforeItTakes, GivesBackBeforeClearing])
def test_the_storm_notices(fault: type[OpenSlab]) -> None:
    with pytest.raises((AssertionError, IndexError)):
        check_storm(fault, 2.0)
