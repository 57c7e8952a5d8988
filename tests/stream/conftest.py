"""Servers for the tests of streams, and the look at every command that goes to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from . import slots
from .places import PLACES, Place
from .servers import Servers, running


@pytest.fixture(autouse=True)
def checked() -> Iterator[slots.Checked]:
    """No test of this folder passes when a command of it mixes slots, or is one of those that may not be sent."""
    with slots.checked() as found:
        yield found
    found.raise_for_violations()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """For a test that breaks what it starts."""
    with running(tmp_path) as started:
        yield started


@pytest.fixture(scope="session")
def find_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Place]]:
    """A place by its name, started when it is first asked for. For tests that leave it as it was but for their prefix."""
    found: dict[str, Place] = {}
    with running(tmp_path_factory.mktemp("redis")) as started:

        def find(name: str) -> Place:
            if name not in found:
                found[name] = PLACES[name](started)
            return found[name]

        yield find


@pytest.fixture(params=PLACES)
def everywhere(request: pytest.FixtureRequest, find_place: Callable[[str], Place]) -> Place:
    """The test runs on every kind of Redis."""
    return find_place(request.param)


@pytest.fixture
def standalone(find_place: Callable[[str], Place]) -> Place:
    return find_place("standalone")


@pytest.fixture
def cluster_of_3(find_place: Callable[[str], Place]) -> Place:
    return find_place("cluster of 3")


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Of the keys of one test: what others left at the same place is not its business."""
    return f"t{abs(hash(request.node.nodeid)):x}"
