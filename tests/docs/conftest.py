"""A collector for the pages: the real one, on a free port, with a store of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class RunningCollector:
    """Where it listens (`host:port`), and the state folder that its commands look into."""

    endpoint: str
    state: Path


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[RunningCollector]:
    command = [sys.executable, "-m", "asynctrace.cli", "serve", "--port", "0", "--no-open"]
    state = tmp_path / "state"
    process = subprocess.Popen(
        [*command, "--data", str(state / "asynctrace")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        first_line = process.stdout.readline()
        found = re.search(r"http://([\d.]+:\d+)", first_line)
        assert found is not None, first_line
        yield RunningCollector(found[1], state)
    finally:
        process.terminate()
        process.communicate(timeout=30)
