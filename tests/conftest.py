"""Rules for every test: asyncio only, a state directory of its own, and the long form only when it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def state_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test finds the journals that another one left, and none leaves any in the home of whoever runs them."""
    path = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(path))
    return path


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long form of a test, minutes of work, runs only when it is asked for by `-m long`."""
    if "long" in config.option.markexpr:
        return
    not_asked_for = pytest.mark.skip(reason="long form: run with -m long")
    for item in items:
        if item.get_closest_marker("long") is not None:
            item.add_marker(not_asked_for)
