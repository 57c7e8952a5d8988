"""Work that is done in another process: its spans stand below the component that asked for it, and are delivered when its
result is there, however that process was started."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from asynctrace.runtime._journal import boot_id
from asynctrace.spanlog.journal import list_journals
from asynctrace.spanlog.journal._look import JournalLook
from asynctrace.testing import FaultServer

PROGRAM = Path(__file__).parent / "programs" / "pools.py"
WRONG_PROGRAM = PROGRAM.with_name("wrong_pools.py")
METHODS = ("fork", "spawn", "forkserver")
TASKS = 4

WAYS = [
    "our executor",
    "another executor",
    "a pool",
    "a pool that replaces workers",
    "processes",
    "run_in_executor",
]
ALL = [
    *(
        pytest.param(way, method, marks=pytest.mark.long if method == "forkserver" and way != "our executor" else ())
        for way in WAYS
        for method in METHODS
    ),
    ("anyio", "spawn"),
    ("programs", "spawn"),
]
"""A fork server's children are forked, and get what they call as spawned ones do: one way shows it."""


def check_work_elsewhere(way: str, method: str, state: Path, program: Path = PROGRAM) -> None:
    with FaultServer.in_thread() as server:
        command = [sys.executable, "-W", "error", str(program), way, method, server.url, str(state)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            asked_by, tasks, pids = "", set(), set()
            for line in process.stdout:
                kind, span_id, *pid = line.split()
                if kind == "asks":
                    asked_by = span_id
                else:
                    assert span_id in server.accepted_ids, "a result came before its spans were delivered"
                    tasks.add(span_id)
                    pids |= set(pid)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors, errors
        assert len(tasks) == TASKS
        assert str(process.pid) not in pids, "the work was done at home"
        arrived = server.accepted_ids
        spans = {span.span_id: span for span in server.spans}
    assert max(Counter(arrived).values()) == 1
    assert len({span.trace_id for span in spans.values()}) == 1, "a task began a trace of its own"
    for span_id in tasks:
        assert spans[span_id].parent_id == asked_by, f"{spans[span_id]}"
        assert spans[span_id].attributes.get("session.id") == (None if way == "programs" else "s-1"), "no session.id"
    assert [span for span in spans.values() if span.attributes["asynctrace.ending"] != "ok"] == []
    assert undelivered(state) == 0, "a journal was left, and something in it"


def undelivered(state: Path) -> int:
    """Records and open spans in the journals of workers that were ended by a signal."""
    count = 0
    for path in state.rglob("*.j"):
        entry = next(entry for entry in list_journals(path.parent) if entry.path == path)
        assert entry.meta is not None
        with closing(JournalLook(path, entry.meta, boot_id=boot_id())) as look:
            count += sum(waiting or 0 for waiting in look.waiting().values()) + len(look.open_spans())
    return count


@pytest.mark.parametrize(("way", "method"), ALL)
def test_work_in_another_process_stands_below_who_asked_and_is_delivered_with_its_result(
    way: str, method: str, tmp_path: Path
) -> None:
    check_work_elsewhere(way, method, tmp_path)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("does not wait for delivery", "before its spans were delivered"),
        ("forgets the place", "a trace of its own"),
        ("forgets the session", "session.id"),
    ],
)
def test_a_task_that_arrives_incomplete_is_noticed(
    fault: str, complaint: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", fault)
    with pytest.raises(AssertionError, match=complaint):
        check_work_elsewhere("our executor", method, tmp_path, WRONG_PROGRAM)
