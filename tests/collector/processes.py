"""`asynctrace serve` as a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

SERVE = ("-m", "asynctrace.cli", "serve")
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "ASYNCTRACE_TOKEN"}

ANSWERS_TOO_EARLY = """
import sys, time
from concurrent.futures import Future
from asynctrace.cli import main
from asynctrace.collector.receiving._writer import Writer

def submit(self, received, submit=Writer.submit):
    submit(self, received)
    answered = Future()
    answered.set_result(None)
    return answered

def commit(self, group, commit=Writer._commit):
    time.sleep(0.1)
    commit(self, group)

Writer.submit, Writer._commit = submit, commit
sys.exit(main(["serve", *sys.argv[1:]]))
"""
"""A collector that says 200 before the commit."""


class Served:
    """A running collector process, its URL and where it keeps its store."""

    def __init__(self, process: subprocess.Popen[str], url: str, directory: Path) -> None:
        self.process = process
        self.url = url
        self.directory = directory


@contextlib.contextmanager
def serving(directory: Path, *arguments: str, program: Sequence[str] = SERVE) -> Iterator[Served]:
    """Started, and killed at the end if it still runs then."""
    command = [sys.executable, *program, "--port", "0", "--data", str(directory), "--no-open", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http://"), process.communicate(timeout=10)
            yield Served(process, url, directory)
        finally:
            if process.poll() is None:
                process.kill()
