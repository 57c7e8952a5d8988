"""`asynctrace ingest`, `worker` and `view` as processes of their own, and what is asked of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from asynctrace.wire import ResourceSpans

from ..traffic import PROTOBUF, group, protobuf, span

STARTED = str(Path(__file__).with_name("started.py"))
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("ASYNCTRACE_")}
DEADLINE = 60.0
"""Seconds, for anything that takes one on a quiet machine."""


class Program:
    """A running program and its address."""

    def __init__(self, process: subprocess.Popen[str], url: str, errors: Path) -> None:
        self.process, self.url, self._errors = process, url, errors

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        """Status and body."""
        return ask(urllib.request.Request(f"{self.url}{path}", headers=headers))[:2]

    def post(self, body: bytes, path: str = "/v1/traces", **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers."""
        return ask(urllib.request.Request(f"{self.url}{path}", body, {"Content-Type": PROTOBUF, **headers}))

    def count(self, name: str, label: str = "") -> float:
        """A number of `/metrics`; 0 for one that is not there."""
        lines = self.get("/metrics")[1].decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name) and label in line)

    def traces(self) -> dict[str, int]:
        """How many spans each trace of the list has."""
        found: dict[str, int] = {}
        cursor = ""
        while True:
            status, body = self.get(f"/api/v1/traces?limit=1000{cursor}")
            assert status == 200, body
            page = msgspec.json.decode(body)
            found |= {each["trace_id"]: each["spans"] for each in page["traces"]}
            if page["cursor"] is None:
                return found
            cursor = f"&cursor={page['cursor']}"

    def said(self) -> str:
        """What it wrote to stderr so far."""
        return self._errors.read_text()

    def end(self) -> int:
        """SIGTERM, and its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)

    def kill(self) -> None:
        """As the kernel does it."""
        self.process.kill()
        self.process.wait(DEADLINE)


@contextlib.contextmanager
def running(folder: Path, *arguments: str, program: Sequence[str] = (), **environment: str) -> Iterator[Program]:
    """Started, and killed at the end if it still runs then. What it sent to Redis and must not fails the test."""
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("*.stderr")))
    errors, violations = folder / f"{number}.stderr", folder / f"{number}.violations"
    command = [sys.executable, *(program or (STARTED, str(violations))), *arguments, "--port", "0"]
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=ENVIRONMENT | environment
        ) as process,
    ):
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http://"), errors.read_text()
            yield Program(process, url, errors)
        finally:
            if process.poll() is None:
                process.kill()
    assert not violations.exists(), violations.read_text()


def ask(request: urllib.request.Request) -> tuple[int, bytes, dict[str, str]]:
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def eventually(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """What `condition` gives, as soon as it is true."""
    end = time.monotonic() + deadline
    while not (found := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return found


def spans_of(trace: int, count: int) -> ResourceSpans:
    """A trace of so many spans."""
    return group(*(span(trace, number, parent=int(number > 1)) for number in range(1, count + 1)))


def body_of(trace: int, count: int = 20) -> bytes:
    """As one request."""
    return protobuf([spans_of(trace, count)])


def name_of(trace: int) -> str:
    """Its id."""
    return f"{trace:032x}"
