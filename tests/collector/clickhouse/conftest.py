"""Tests of what only the ClickHouse store has. They need the dependency group `clickhouse`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asynctrace.collector.clickhouse._client import Client

from ... import clickhouse_server
from ...clickhouse_server import ClickHouse
from .front import Front

if not clickhouse_server.is_installed():
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def clickhouse() -> ClickHouse:
    return clickhouse_server.shared()


@pytest.fixture
def url(clickhouse: ClickHouse) -> str:
    """Of an empty database."""
    return clickhouse.database()


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    """Asks ClickHouse itself, past the store."""
    made = Client(url)
    yield made
    made.close()


@pytest.fixture
def front(clickhouse: ClickHouse) -> Iterator[Front]:
    with Front(clickhouse.port) as made:
        yield made
