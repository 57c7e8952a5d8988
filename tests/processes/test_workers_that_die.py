"""Workers of multiprocessing and concurrent.futures that are ended in the middle: what they had ended arrives, each span
once, through the parent or a sibling; what was open arrives as `lost`; and a parent that collects has it when it goes on.

The far side answers late, so that requests of a worker are under way when it dies: they come again under their key.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from asynctrace import Span
from asynctrace.testing import Delay, FaultServer

from .forks import WARNINGS

PROGRAM = Path(__file__).parent / "programs" / "deaths.py"
PATIENCE = 90.0

FORKED = [
    "Process.terminate",
    "Process.kill",
    "os._exit",
    "Pool.terminate",
    "Pool, a worker is killed",
    "Pool(maxtasksperchild=1)",
    "ProcessPoolExecutor, a worker is killed",
]
SPAWNED = [
    *FORKED,
    "our executor, a worker is killed",
    "ProcessPoolExecutor(max_tasks_per_child=1)",
]  # the standard library refuses that under fork
SHORT = {
    ("Process.terminate", "spawn"),
    ("Pool.terminate", "forkserver"),
    ("Pool, a worker is killed", "spawn"),
    ("ProcessPoolExecutor(max_tasks_per_child=1)", "forkserver"),
    ("our executor, a worker is killed", "spawn"),
}
CASES = [
    *((way, "fork") for way in FORKED),
    *(
        pytest.param(way, method, marks=() if (way, method) in SHORT else pytest.mark.long)
        for method in ("spawn", "forkserver")
        for way in SPAWNED
    ),
]


class Said:
    """What workers and their parent said, in lines."""

    def __init__(self, lines: list[list[str]]) -> None:
        words = {kind: {line[1] for line in lines if line[0] == kind} for kind in ("log", "ended", "open")}
        self.logs, self.ended, self.open = words["log"], words["ended"], words["open"]
        self.counts = {line[0]: [int(word) for word in line[1:]] for line in lines if line[0] not in words}


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, *WARNINGS, str(PROGRAM), *arguments]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def check_workers_that_die(way: str, method: str, state: Path, fault: str = "", seconds: float = 60.0) -> None:
    with FaultServer.in_thread(default=Delay(0.3)) as server:
        with started(way, method, server.url, str(state), str(seconds), fault) as process:
            out, errors = process.communicate(timeout=PATIENCE)
        arrived = once(server)
    assert "DeliveryTimeout" not in errors, errors
    if process.returncode != 0:
        raise RuntimeError(errors)
    said = Said([line.split() for line in out.splitlines()])
    try:
        check_spans(said, arrived)
    except AssertionError as failure:
        failure.add_note(f"{out}\n{errors}\n{sorted(map(str, state.rglob('*')))}")
        raise
    assert said.counts["collected"][0] == 0, "it returned, and something was left"
    if said.open:
        assert said.counts["before"][0] > 0, "the receipt did not say that children have something left"
        assert said.counts["collected"][1] > 0


def check_nobody_collects(way: str, method: str, state: Path, fault: str = "", patience: float = PATIENCE) -> None:
    with FaultServer.in_thread(default=Delay(0.3)) as server:
        with started(way, method, server.url, str(state), "-", fault) as process:
            lines = []
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.split())
                if lines[-1][0] == "before":
                    break
            said = Said(lines)
            with contextlib.suppress(TimeoutError):
                server.wait_for_spans_sync(len(said.ended | said.open) + 1, patience)
        arrived = once(server)
    check_spans(said, arrived)


def once(server: FaultServer) -> list[tuple[str, Span]]:
    """(log, span) for each that came, as for a far side that knows the keys."""
    by_key = {request.key: request.spans for request in server.requests if request.spans}
    spans = [(key.partition(":")[0], span) for key, spans in by_key.items() for span in spans]
    return [(log, span) for log, span in spans if span.name != "parent"]


def check_spans(said: Said, found: list[tuple[str, Span]]) -> None:
    arrived = [span for _, span in found]
    assert {log for log, _ in found} == said.logs, "a key is not that of the process that made the spans"
    assert Counter(span.span_id for span in arrived) == Counter(said.ended | said.open)
    assert {span.ending for span in arrived if span.span_id in said.open} <= {"lost"}
    assert {span.ending for span in arrived if span.span_id in said.ended} == {"ok"}


@pytest.mark.parametrize(("way", "method"), CASES)
def test_what_workers_ended_is_delivered_when_the_parent_has_collected(way: str, method: str, tmp_path: Path) -> None:
    check_workers_that_die(way, method, tmp_path)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_workers_ended_arrives_also_where_nobody_collects(method: str, tmp_path: Path) -> None:
    check_nobody_collects("Pool.terminate", method, tmp_path)


WRONG = {
    "a child that does not say where it comes from": "from asynctrace.runtime._journal import Journaling\n"
    "Journaling.line_of_descent = lambda self: ''",
    "a parent that waits for nobody": "from asynctrace.processes import _children\n"
    "_children._is_left = lambda targets, found: False",
    "a parent that leaves the dead to others": "from asynctrace.runtime._recovery import Recovery\n"
    "from asynctrace.processes import _children\n"
    "Recovery.move_in = lambda self, loop: None\n"
    "_children._is_left = lambda targets, found: any(not held.is_dead for held in found.values())",
    "a recoverer that leaves open spans open": "from asynctrace.spanlog.journal._orphan import OrphanLog\n"
    "OrphanLog.close_open_spans = lambda self, between=None: 0",
    "a recoverer with keys of its own": "from asynctrace.delivery import Origin\n"
    "import uuid\n"
    "recorded = Origin.recorded\n"
    "Origin.recorded = lambda log_id, *given: recorded(str(uuid.uuid4()), *given)",
    "a child that keeps no journal": "from asynctrace.runtime import _journal\n"
    "opens = _journal.open_journal\n"
    "_journal.open_journal = lambda settings, **more: "
    "opens(settings, **more) if not more['parent'] else (None, 'memory')",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_parent_child_or_recoverer_is_noticed(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_workers_that_die("Process.terminate", "fork", tmp_path, WRONG[wrong], seconds=3.0)


def test_a_worker_whose_own_tracer_is_nobodys_child_is_noticed(tmp_path: Path) -> None:
    fault = "from asynctrace.runtime import _travel\n_travel._adopt = lambda tracer, described: None"
    with pytest.raises(AssertionError):
        check_workers_that_die("our executor, a worker is killed", "spawn", tmp_path, fault)


def test_a_parent_that_never_recovers_is_noticed(tmp_path: Path) -> None:
    fault = "from asynctrace.runtime._recovery import Recovery\nRecovery.move_in = lambda self, loop: None"
    with pytest.raises(AssertionError):
        check_nobody_collects("Process.terminate", "fork", tmp_path, fault, patience=3.0)
