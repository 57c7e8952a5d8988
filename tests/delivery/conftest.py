"""Rules for the promise tests: the long form of a test runs only when it is asked for by `-m long`."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: minutes of work; run with `pytest -m long`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "long" in config.option.markexpr:
        return
    not_asked_for = pytest.mark.skip(reason="long form: run with -m long")
    for item in items:
        if item.get_closest_marker("long") is not None:
            item.add_marker(not_asked_for)
