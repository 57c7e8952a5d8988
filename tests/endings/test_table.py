"""Each row of the table of endings, as a real process with a real far side: a script, and a child of multiprocessing."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asynctrace.testing import Accept, Delay, FaultServer, Hang

from .memory import little_memory
from .table import COUNTED, DELIVERED, LOST, ROWS, Row

PROGRAM = Path(__file__).with_name("program.py")
BETWEEN_SIGNALS = 0.4
"""Seconds, at least: the second must find the first one's work under way."""
SETTLED_WITHIN = 20.0
NEVER_ON_STDERR = re.compile(
    "can't create new thread|cannot schedule new futures|was destroyed|never retrieved|Exception ignored|Warning"
)


class Ended:
    """What a program said, and how it ended."""

    def __init__(self, process: subprocess.Popen[bytes], said: list[list[str]], errors: str, seconds: float) -> None:
        words = {kind: [line[1] for line in said if line[0] == kind] for kind in ("ended", "open", "code")}
        self.ended, self.open = set(words["ended"]), set(words["open"])
        self.code = int(words["code"][0]) if words["code"] else process.returncode
        self.errors, self.seconds = errors, seconds


def run_row(row: Row, where: str, url: str, journal: Path | None) -> Ended:
    arguments = [row.ending, where, url, str(journal or "-"), str(row.timeout)]
    with little_memory(row.ending == "out of memory") as enter, started(arguments, enter) as process:
        said, errors = [], b""
        assert process.stdout is not None
        began = time.monotonic()
        for line in process.stdout:
            said.append(line.decode().split())
            if said[-1][0] == "ready":
                send(row.signals, int(said[-1][1]))
            began = time.monotonic() if said[-1][0] != "code" else began
        _, errors = process.communicate(timeout=60)
        return Ended(process, said, errors.decode(), time.monotonic() - began)


@contextlib.contextmanager
def started(arguments: list[str], enter: str) -> Iterator[subprocess.Popen[bytes]]:
    warnings = ["-W", "error"]
    if arguments[0].startswith("KeyboardInterrupt twice"):
        warnings += ["-W", "ignore::ResourceWarning"]  # a loop was torn off in the middle, and its connections with it
    command = [sys.executable, *warnings, str(PROGRAM), *arguments]
    if enter:
        command = ["/bin/sh", "-c", f'echo $$ > {enter} && exec "$0" "$@"', *command]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def send(signals: tuple[int, ...], pid: int) -> None:
    for number in signals:
        if len(signals) > 1:
            let_it_settle(pid)
        else:
            time.sleep(0.05)
        os.kill(pid, number)


def let_it_settle(pid: int) -> None:
    """Until all its threads wait for something: a signal that finds the same one pending is no second one."""
    deadline = time.monotonic() + SETTLED_WITHIN
    while True:
        time.sleep(BETWEEN_SIGNALS)
        if all(map(waits, Path(f"/proc/{pid}/task").iterdir())) or time.monotonic() > deadline:
            return


def waits(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0] == "S"
    except OSError:  # it has ended
        return True


def check_row(row: Row, where: str, journal: Path | None = None) -> None:
    with FaultServer.in_thread(default=Hang() if row.is_away else Delay(0.05)) as server:
        ended = run_row(row, where, server.url, journal)
        accepted = server.accepted_ids
        endings = {span.span_id: span.attributes["asynctrace.ending"] for span in server.spans}
    assert ended.code == row.code_in(where), ended.errors
    assert ended.seconds < row.most_seconds, ended.seconds
    assert len(ended.ended) == 20
    assert not NEVER_ON_STDERR.search(ended.errors), ended.errors
    assert ("Traceback" in ended.errors) == row.has_traceback, ended.errors
    if row.outcome is DELIVERED:
        assert accepted == Counter(ended.ended | ended.open), f"{len(accepted)} arrived\n{ended.errors}"
        assert {endings[span] for span in ended.open} == {row.open} - {None}
    elif row.outcome is COUNTED:
        check_counted(row, ended, journal)
    elif journal is None:
        assert not accepted, "the row says lost: the far side should have answered nothing"
    if journal is not None and row.outcome is not DELIVERED:
        check_the_next_start(row, ended, journal)


def check_counted(row: Row, ended: Ended, journal: Path | None) -> None:
    lines = [line for line in ended.errors.splitlines() if "runtime.shutdown_incomplete" in line]
    assert len(lines) == 1, ended.errors
    left = "dropped" if journal is None else "spooled"
    assert f"{left}={len(ended.ended | ended.open)}" in lines[0], lines[0]


def check_the_next_start(row: Row, ended: Ended, journal: Path) -> None:
    """A program on the same journal delivers what the dead one could not."""
    wanted = ended.ended | ended.open
    with FaultServer.in_thread(default=Accept()) as server:
        with started(["restart", "script", server.url, str(journal), "10"], "") as process:
            server.wait_for_spans_sync(len(wanted) + 1, 20.0)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
        by_key = {request.key: request.spans for request in server.requests}  # as a far side that knows the key
        spans = [span for group in by_key.values() for span in group if span.name != "restart"]
    arrived = Counter(span.span_id for span in spans)
    assert arrived == Counter(wanted), f"{len(arrived)} of {len(wanted)}"
    endings = {span.span_id: span.attributes["asynctrace.ending"] for span in spans}
    assert {endings[span] for span in ended.open} <= {row.open or "lost"}


# The rows ----------------------------------------------------------------------------------------------------------


OF_CHILDREN = {
    "fork": ("return", "exception", "KeyboardInterrupt twice", "SIGTERM, handler", "os._exit", "backend down"),
    "spawn": ("return", "KeyboardInterrupt twice", "SIGTERM, handler"),
}
"""The others differ from the script's only in how a child begins and ends, which these show; they are in the long form."""


def rows_in(where: str) -> list[Any]:
    return [
        pytest.param(row, marks=() if row.ending in OF_CHILDREN[where] else pytest.mark.long, id=row.ending)
        for row in ROWS
        if where != "spawn" or row.in_spawned
    ]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.ending)
def test_a_script_ends_as_the_table_says(row: Row) -> None:
    check_row(row, "script")


@pytest.mark.parametrize("row", rows_in("fork"))
def test_a_forked_child_ends_as_the_table_says(row: Row) -> None:
    check_row(row, "fork")


@pytest.mark.parametrize("row", rows_in("spawn"))
def test_a_spawned_child_ends_as_the_table_says(row: Row) -> None:
    check_row(row, "spawn")


IN_CI = [
    row
    for row in ROWS
    if row.outcome is LOST or row.ending in ("return", "backend down", "SIGTERM, handler", "SIGINT twice, handler")
]


@pytest.mark.parametrize("row", IN_CI, ids=lambda row: row.ending)
def test_with_a_journal_a_script_loses_nothing_that_ended(row: Row, tmp_path: Path) -> None:
    check_row(row, "script", tmp_path / "state")


@pytest.mark.long
@pytest.mark.parametrize("where", ["script", "fork", "spawn"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.ending)
def test_with_a_journal_no_ending_loses_what_ended(row: Row, where: str, tmp_path: Path) -> None:
    check_row(row, where, tmp_path / "state")


# The checks notice -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "wrong"),
    [
        ("return", {"code": 1}),
        ("return", {"outcome": COUNTED}),
        ("SIGTERM, handler", {"open": "lost"}),
        ("os._exit", {"outcome": DELIVERED}),
        ("backend down", {"outcome": DELIVERED}),
        ("exception", {"has_traceback": False}),
    ],
)
def test_a_row_that_says_something_else_is_noticed(ending: str, wrong: dict[str, object]) -> None:
    row = next(row for row in ROWS if row.ending == ending)
    with pytest.raises(AssertionError):
        check_row(dataclasses.replace(row, **wrong), "script")  # type: ignore[arg-type]


def test_each_outcome_is_in_the_table() -> None:
    assert {row.outcome for row in ROWS} == {DELIVERED, COUNTED, LOST}
