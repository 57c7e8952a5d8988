"""Any history of appends, answers, evictions and stops: the real span log and lanes do what a small model says.

A failing seed of `random_history()` is a test of its own: add it to `FAILED_ONCE`.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from asynctrace import ExportResult
from asynctrace.delivery._lane import Lane
from asynctrace.spanlog import SpanLog

from . import mutants
from .model import SETTINGS, Broken, Machine, random_history

HISTORIES = 300
STEPS = 120

FAILED_ONCE = [6, 41, 124, 664]
"""Found: an eviction between two looks, several probes after a failure, a limit raised, a Retry-After overridden."""


def first_breach(make_lane: type[Lane], make_log: type[SpanLog] = SpanLog, histories: int = HISTORIES) -> Broken | None:
    for seed in [*range(histories), *FAILED_ONCE]:
        try:
            random_history(seed, STEPS, make_lane, make_log)
        except Broken as broken:
            broken.add_note(f"seed {seed}")
            return broken
    return None


def test_any_history_keeps_every_promise() -> None:
    for seed in [*range(HISTORIES), *FAILED_ONCE]:
        random_history(seed, STEPS)


@pytest.mark.parametrize(("mutant", "promises"), mutants.LANES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_wrong_lane_is_caught(mutant: type[Lane], promises: set[str]) -> None:
    broken = first_breach(mutant)
    assert broken is not None, "nobody noticed"
    assert broken.promise in promises, broken


@pytest.mark.parametrize(("mutant", "promises"), mutants.LOGS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_wrong_log_is_caught(mutant: type[SpanLog], promises: set[str]) -> None:
    broken = first_breach(Lane, mutant)
    assert broken is not None, "nobody noticed"
    assert broken.promise in promises, broken


which = st.integers(0, 3)
seconds = st.sampled_from([None, None, 0.0, 5.0, 1_000.0])


class Histories(RuleBasedStateMachine):
    """The same actions, chosen and shrunk by hypothesis."""

    machine: Machine

    @initialize(setting=st.sampled_from(SETTINGS), seed=st.integers(0, 3))
    def start(self, setting: dict[str, object], seed: int) -> None:
        self.machine = Machine(seed=seed, **setting)  # type: ignore[arg-type]

    def lane(self, index: int) -> int:
        return index % len(self.machine.lanes)

    @rule(sizes=st.lists(st.sampled_from([60, 200, 900, 6_000]), min_size=1, max_size=30))
    def append(self, sizes: list[int]) -> None:
        for size in sizes:
            self.machine.append(size)

    @rule(index=which)
    def take(self, index: int) -> None:
        self.machine.take(self.lane(index))

    @rule(index=which, window=which, latency=st.sampled_from([0.001, 0.2]))
    def accept(self, index: int, window: int, latency: float) -> None:
        flying = self.machine.models[self.lane(index)].in_flight
        if flying:
            result = ExportResult(accepted=flying[window % len(flying)].count)
            self.machine.answer(self.lane(index), window % len(flying), result, latency)

    @rule(index=which, window=which, accepted=st.integers(0, 40), rejected=st.integers(0, 40))
    def lie(self, index: int, window: int, accepted: int, rejected: int) -> None:
        result = ExportResult(accepted=accepted, rejected=rejected, reason="quota")
        self.machine.answer(self.lane(index), window, result)

    @rule(index=which, window=which, after=seconds)
    def try_again(self, index: int, window: int, after: float | None) -> None:
        self.machine.answer(self.lane(index), window, ExportResult.try_again(after))

    @rule(index=which, window=which, after=seconds)
    def block(self, index: int, window: int, after: float | None) -> None:
        self.machine.answer(self.lane(index), window, ExportResult.blocked("401", after))

    @rule(index=which, window=which, too_large=st.booleans())
    def refuse(self, index: int, window: int, too_large: bool) -> None:
        result = ExportResult.too_large("413") if too_large else ExportResult.refused("400")
        self.machine.answer(self.lane(index), window, result)

    @rule(index=which, window=which)
    def put_back(self, index: int, window: int) -> None:
        self.machine.put_back(self.lane(index), window)

    @rule(index=which)
    def adopt(self, index: int) -> None:
        self.machine.adopt(self.lane(index))

    @rule(index=which)
    def flush(self, index: int) -> None:
        self.machine.flush(self.lane(index))

    @rule(time=st.sampled_from([0.1, 1.0, 5.0, 30.0]))
    def tick(self, time: float) -> None:
        self.machine.tick(time)

    @rule(index=st.integers(0, 40))
    def stop(self, index: int) -> None:
        if index < len(self.machine.lanes):
            self.machine.stop(index)

    @rule(luck=st.integers(0, 20))
    def close(self, luck: int) -> None:
        if luck == 0:
            self.machine.close()

    def teardown(self) -> None:
        if hasattr(self, "machine"):
            self.machine.drain()


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
