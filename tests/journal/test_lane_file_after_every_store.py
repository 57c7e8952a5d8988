"""A lane's file, cut off after any single store, reads back as the state before the operation under way or after it, and the
books balance; whoever goes on from there goes on."""

from __future__ import annotations

import copy
import random

import pytest

from asynctrace._errors import JournalDamaged
from asynctrace.spanlog.journal import _lane_file, _lane_state
from asynctrace.spanlog.journal._lane_file import LaneFile

from ..spanlog.instants import every_instant
from .lane_models import (
    FAULTS,
    FEW_ENTRIES,
    History,
    Model,
    Watched,
    apply,
    check_books,
    image_of,
    new_lane,
    opened,
    steps,
    view_of,
)


def check_every_store(kind: type[LaneFile], seed: int, operations: int = 300) -> int:
    """How many crashes were tried."""
    model = Model(start=seed)
    lane = new_lane(kind, start=seed)
    shadow = image_of(lane)
    words = memoryview(shadow).cast("Q")
    crashes = 0
    for operation, before in steps(seed, lane, model, operations):
        allowed = [before.view(), model.view()]
        is_done = False
        for index, word in lane.stores:
            words[index] = word
            crashes += 1
            is_done = _check_crash(shadow, allowed, is_done, operation)
        lane.stores.clear()
        assert is_done or allowed[0] == allowed[1], f"{operation} was not stored"
        assert shadow == image_of(lane)
        assert view_of(lane) == model.view(), operation
    lane.close()
    return crashes


def _check_crash(shadow: bytearray, allowed: list[object], is_done: bool, operation: object) -> bool:
    found = opened(shadow)
    seen = view_of(found)
    check_books(found)
    found.close()
    assert seen in allowed, operation
    if allowed[0] == allowed[1]:
        return True
    assert not is_done or seen == allowed[1], f"{operation} was taken back"
    return seen == allowed[1]


@pytest.mark.parametrize("seed", range(3))
def test_a_crash_after_any_store_leaves_the_state_before_or_after(seed: int) -> None:
    assert check_every_store(Watched, seed) > 2_000


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 140))
def test_a_crash_after_any_store_leaves_the_state_before_or_after_in_long(seed: int) -> None:
    check_every_store(Watched, seed, operations=600)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_notices(fault: type[LaneFile]) -> None:
    def check() -> None:
        for seed in range(3):
            check_every_store(fault, seed)

    with pytest.raises((AssertionError, JournalDamaged, ValueError)):
        check()


def check_going_on_after_crashes(seed: int, crashes: int) -> None:
    """Crash in the middle of operations, open, go on: also over what an operation left half-way stored."""
    draw = random.Random(seed)
    model = Model()
    lane = new_lane()
    operations = History(seed).operations(model)
    for _ in range(crashes):
        for _ in range(draw.randrange(12)):
            apply_to_both(next(operations), model, lane)
        shadow = image_of(lane)
        lane.stores.clear()
        before = copy.deepcopy(model)
        operation = next(operations)
        apply_to_both(operation, model, lane)
        words = memoryview(shadow).cast("Q")
        for index, word in lane.stores[: draw.randrange(len(lane.stores) + 1)]:
            words[index] = word
        lane.close()
        lane = opened(shadow, Watched)
        assert view_of(lane) in (before.view(), model.view())
        apply(lane, operation)  # whoever recovers does again what may not have been done
        assert view_of(lane) == model.view()
    lane.close()


def apply_to_both(operation: tuple[object, ...], model: Model, lane: LaneFile) -> None:
    apply(model, operation)
    apply(lane, operation)


@pytest.mark.parametrize("seed", range(5))
def test_who_comes_after_a_crash_goes_on_where_it_happened(seed: int) -> None:
    check_going_on_after_crashes(seed, 60)


# ── a handler raises ────────────────────────────────────────────────────────────────────────────────────────

OURS = {_lane_file.__file__, _lane_state.__file__}

SITUATIONS = {
    "a window": ([("open_window", 0, 10)], ("open_window", 10, 5)),
    "the half of a window": ([("open_window", 0, 10)], ("open_window", 0, 5)),
    "a run for a new reason": ([("open_window", 0, 10)], ("add_run", 0, 3, "rejected", "long" * 15)),
    "the cursor": ([("open_window", 0, 10), ("add_run", 0, 3, "rejected", "bad")], ("move_cursor", 10)),
}


def check_an_interrupt(kind: type[LaneFile], name: str, full: bool) -> None:
    preparation, operation = SITUATIONS[name]
    state: dict[str, LaneFile] = {}

    def make() -> tuple[LaneFile, Model]:
        lane, model = new_lane(kind), Model()
        for step in preparation:
            apply_to_both(step, model, lane)
        while full and lane._used < FEW_ENTRIES - 3:
            lane.open_window(0, 10)
            for step in preparation:
                if step[0] == "add_run":
                    apply(lane, step)
        return lane, model

    def scenario() -> object:
        state["lane"], _ = make()
        return lambda: apply(state["lane"], operation)

    def interrupt() -> None:
        raise KeyboardInterrupt

    _, before = make()
    after = copy.deepcopy(before)
    apply(after, operation)
    for where, raised in every_instant(scenario, interrupt, "signal", OURS):
        assert isinstance(raised, KeyboardInterrupt), where
        lane = state["lane"]
        file = opened(image_of(lane))
        assert view_of(lane) == view_of(file), where
        assert view_of(lane) in (before.view(), after.view()), where
        apply(lane, operation)
        again = opened(image_of(lane))
        assert view_of(again) == view_of(lane) == after.view(), where
        for one in (file, again, lane):
            one.close()


@pytest.mark.parametrize("full", [False, True], ids=["room", "full half"])
@pytest.mark.parametrize("name", SITUATIONS)
def test_an_interrupt_at_every_instant_does_the_operation_or_does_not(name: str, full: bool) -> None:
    check_an_interrupt(LaneFile, name, full)


class BelievesItsMemory(LaneFile):
    """Goes on from what it has in memory after an interrupt."""

    def _known(self) -> _lane_state.LaneState:
        return self._state


def test_the_check_of_interrupts_notices() -> None:
    def check() -> None:
        for name in SITUATIONS:
            check_an_interrupt(BelievesItsMemory, name, False)

    with pytest.raises(AssertionError):
        check()
