"""Redis and ClickHouse for the programs that stand between them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from ... import clickhouse_server
from ...clickhouse_server import ClickHouse
from ...stream import slots
from ...stream.servers import Node, Servers
from ...stream.servers import running as redis_servers
from . import programs

_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither a test nor a program that it starts sends Redis a command that mixes slots, or one that may not be sent."""
    with slots.checked() as found, slots.watched_programs(tmp_path / "commands") as environment:
        for name, value in environment.items():
            monkeypatch.setitem(programs.ENVIRONMENT, name, value)
        yield
    found.raise_for_violations()


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One server for all tests of this process; each takes a `prefix` of its own."""
    with redis_servers(tmp_path_factory.mktemp("redis")) as servers:
        yield servers.standalone("--maxmemory-policy", "noeviction")


@pytest.fixture
def clickhouse() -> ClickHouse:
    """One server for all tests of this process; each takes a `database()` of its own."""
    if not clickhouse_server.is_installed():
        pytest.skip("needs the dependency group clickhouse")
    return clickhouse_server.shared()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """For a test that breaks what it starts."""
    with redis_servers(tmp_path / "redis") as started:
        yield started


@pytest.fixture
def prefix() -> str:
    """Of the keys of one test."""
    return f"fleet{next(_numbers)}"


@pytest.fixture
def stream(redis: Node, prefix: str) -> tuple[str, ...]:
    """The flags that lead a program to this test's stream."""
    return ("--stream", redis.url, "--stream-prefix", prefix, "--stream-shards", "8")


@pytest.fixture(params=["directory", "clickhouse"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of either engine, empty."""
    if request.param == "directory":
        return str(tmp_path / "store")
    server: ClickHouse = request.getfixturevalue("clickhouse")
    return server.database()
