"""Rules for every test: asyncio only, and the event loop is guarded against blocking calls where a test asks for it."""

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
