"""The simulation of a fleet: no span vanishes in it, it is the same each time, and the page says what it says."""

from __future__ import annotations

import importlib.util
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

CAPACITY = Path(__file__).parents[2] / "benchmarks" / "capacity"


@pytest.fixture(scope="module")
def simulate() -> Iterator[ModuleType]:
    """The script as a module; what it brought along is taken away again."""
    loaded, path = set(sys.modules), list(sys.path)
    spec = importlib.util.spec_from_file_location("simulate", CAPACITY / "simulate.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["simulate"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path
    for name in ("simulate", "_fleet", "_stations"):
        if name in sys.modules and name not in loaded:
            del sys.modules[name]


def small(simulate: ModuleType, **changes: Any) -> Any:
    """A fleet that is simulated in a moment."""
    plan = {"spans_per_second": 8_000, "ingests": 2, "masters": 3, "workers": 2, "store_cores": 4, **changes}
    return simulate.Plan(**plan)


def disturbed(simulate: ModuleType, kind: Any, seed: int, seconds: float = 40.0) -> Any:
    """A run in which parts go and come by chance, at its end, when it had time to recover."""
    chance = random.Random(seed)
    plan = small(
        simulate,
        spans_per_request=chance.choice([20, 400]),
        master_bytes=chance.choice([2_000_000, 10**9]),
        has_spill=chance.random() < 0.5,
    )
    fleet = kind(plan, simulate.costs_of().costs, seed)
    for number in range(plan.masters):
        begin = chance.uniform(2, 10)
        fleet.clock.at(begin, fleet.master_goes, number)
        fleet.clock.at(begin + chance.uniform(0.5, 12), fleet.master_comes, number)
    begin = chance.uniform(2, 10)
    fleet.clock.at(begin, fleet.store_goes)
    fleet.clock.at(begin + chance.uniform(1, 8), fleet.store_comes)
    fleet.clock.at(chance.uniform(2, 20), fleet.worker_dies, 0)
    fleet.run_until(seconds)
    return fleet


@pytest.mark.parametrize("seed", range(3))
def test_every_span_is_at_one_place_whatever_goes_away(simulate: ModuleType, seed: int) -> None:
    fleet = disturbed(simulate, simulate.Fleet, seed)
    assert 0 < fleet.books.stored <= fleet.books.offered


def test_what_was_acknowledged_is_stored_in_the_end(simulate: ModuleType) -> None:
    fleet = disturbed(simulate, simulate.Fleet, 1)
    fleet.stop_offering()
    fleet.run_until(fleet.clock.now + 600)
    assert fleet.books.stored == fleet.books.offered
    assert sum(spans for _, _, spans in fleet.seen) == sum(spans for _, _, spans in fleet.acknowledged)


def wrong_fleets(simulate: ModuleType) -> dict[str, Any]:
    class Forgets(simulate.Fleet):  # type: ignore[misc, name-defined]
        """A sender that is told to come again does not."""

        def _come_again(self, entry: Any) -> None:
            self.books.waiting -= entry.spans

    class StoresTwice(simulate.Fleet):  # type: ignore[misc, name-defined]
        """A batch of a dead worker is stored by both."""

        def worker_dies(self, number: int) -> None:
            for shard in self.shards:
                for entry in shard.claimed or ():
                    self.books.stored += entry.spans

    class LosesUnconfirmed(simulate.Fleet):  # type: ignore[misc, name-defined]
        """A master answers before its replica has confirmed, and dies."""

        def master_goes(self, number: int) -> None:
            super().master_goes(number)
            for shard in self.shards:
                if shard.master is self.masters[number] and shard.entries:
                    self.books.streamed -= shard.entries.pop().spans

    return {"forgets": Forgets, "stores twice": StoresTwice, "loses unconfirmed": LosesUnconfirmed}


@pytest.mark.parametrize("name", ["forgets", "stores twice", "loses unconfirmed"])
def test_a_fleet_that_loses_or_doubles_spans_is_caught(simulate: ModuleType, name: str) -> None:
    kind = wrong_fleets(simulate)[name]
    with pytest.raises(simulate.NotConserved):
        [disturbed(simulate, kind, seed) for seed in range(5)]


def test_the_same_seed_gives_the_same_run(simulate: ModuleType) -> None:
    costs = simulate.costs_of().costs

    def books(seed: int) -> Any:
        fleet = simulate.Fleet(small(simulate), costs, seed)
        fleet.run_until(5)
        return fleet.books

    assert books(1) == books(1)
    assert books(1) != books(2)


# ── what a part can do ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("field", ["ingests", "masters", "workers", "store_cores"])
def test_a_part_saturates_below_what_its_cost_allows_and_not_far_below(simulate: ModuleType, field: str) -> None:
    costs = simulate.costs_of().costs
    part = next(part for part in simulate.PARTS if part.field == field)
    at_most = simulate.roughly(part, costs, 400)
    assert 0.4 * at_most < simulate.saturation(part, costs, 400) < 1.1 * at_most


def test_twice_the_cost_halves_what_a_part_can_do(simulate: ModuleType) -> None:
    costs = simulate.costs_of().costs
    part = simulate.PARTS[2]
    dear = msgspec.structs.replace(costs, worker_span=2 * costs.worker_span, worker_message=2 * costs.worker_message)
    ratio = simulate.saturation(part, dear, 400) / simulate.saturation(part, costs, 400)
    assert 0.42 < ratio < 0.58


# ── the page ────────────────────────────────────────────────────────────────────────────────────────────────


def said(page: str) -> dict[str, str]:
    """What stands below each heading between the page's marks."""
    simulated = page.partition("<!-- simulated -->")[2].partition("<!-- end -->")[0]
    parts = re.split(r"^### (.*)\n", simulated, flags=re.MULTILINE)[1:]
    return {heading: text.strip() for heading, text in zip(parts[::2], parts[1::2], strict=True)}


def wrong_sections(page: str, simulated: dict[str, str]) -> list[str]:
    """Headings below which the page says something else than the simulation."""
    return [heading for heading, text in simulated.items() if said(page).get(heading) != text.strip()]


@pytest.fixture(scope="module")
def simulated(simulate: ModuleType) -> Any:
    """The quick parts: not what happens in the minutes after something was away."""
    return simulate.sections(simulate.costs_of(), whole=False)


def test_the_page_says_what_the_simulation_says(simulate: ModuleType, simulated: dict[str, str]) -> None:
    assert wrong_sections(simulate.PAGE.read_text(), simulated) == []


@pytest.mark.long
def test_the_whole_page_says_what_the_simulation_says(simulate: ModuleType) -> None:
    page = simulate.PAGE.read_text()
    whole = simulate.sections(simulate.costs_of(), whole=True)
    assert list(said(page)) == list(whole)
    assert wrong_sections(page, whole) == []


def test_a_page_that_says_something_else_is_noticed(simulate: ModuleType, simulated: dict[str, str]) -> None:
    page = simulate.PAGE.read_text()
    number = re.search(r"\| ingest process \|[^|]*\| ([\d,]+)/s", page)
    assert number is not None
    assert wrong_sections(page.replace(number[1], "1,234,567"), simulated) == ["One unit of each part"]
