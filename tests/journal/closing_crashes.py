"""A program: recoverers killed at each step of closing what was open, and what those find who come after them.

    python -c 'from tests.journal.closing_crashes import main; main()' <reader> <boot id> <folder>

prints, for each step at which the first recoverer was killed, what the second and the third one read.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asynctrace._contracts import Link
from asynctrace.spanlog.journal._directory import claim
from asynctrace.spanlog.journal._orphan import OrphanLog

from .orphans import BOOT, CREATED_NS, TRACE, DeadJournal, ids_of, let_go, numbered_spans, open_body, record_of, span_of
from .wrong_orphans import WRONG_AT_CLOSING

RECORDS = 8
OPEN, ENDED, LINKED = (101, 102, 103), 5, 101
"""Spans of the slab: three that were open, and one whose process died between storing its record and leaving the slot.
A record links to one of those that were open."""


def journal_with_open_spans(folder: Path) -> Path:
    journal = DeadJournal(folder)
    link = Link(trace_id=TRACE, span_id=span_of(LINKED).span_id)
    journal.segment(
        [record_of(number, links=(link,) if number == 2 else ()) for number in range(RECORDS)], synced=RECORDS
    )
    journal.slab.beat(CREATED_NS + 10**9)
    for number in (OPEN[0], ENDED, *OPEN[1:]):
        journal.slab.enter(open_body(number))
    return journal.die()


def read_and_let_go(reader: type[OrphanLog], path: Path, boot_id: str) -> dict[str, Any]:
    directory = claim(path)
    assert directory is not None
    log = reader.open(directory, boot_id=boot_id)
    found = {"spans": list(ids_of(numbered_spans(log)).items()), "corrupt": log.corrupt, "unclosed": log.unclosed}
    let_go(log)
    return found


def killed_at(step: int, reader: type[OrphanLog], path: Path, boot_id: str) -> bool:
    """Whether a recoverer in a process of its own came to this step, and so was killed there."""
    child = os.fork()
    if not child:
        directory = claim(path)
        assert directory is not None
        reader.open(directory, boot_id=boot_id, between=_kill_at(step))
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def _kill_at(step: int) -> Callable[[], object]:
    steps = iter(range(1, 1000))
    return lambda: next(steps) == step and os.kill(os.getpid(), signal.SIGKILL)


def crashes(reader: type[OrphanLog], boot_id: str, folder: Path) -> list[list[dict[str, Any]]]:
    """For each step, the last being none: what the second recoverer finds, and what the third."""
    found = []
    for step in range(1, 1000):
        place = folder / str(step)
        place.mkdir(mode=0o700)
        path = journal_with_open_spans(place)
        was_killed = killed_at(step, reader, path, boot_id)
        found.append([read_and_let_go(reader, path, boot_id) for _ in range(2)])
        if not was_killed:
            break
    return found


def main() -> None:
    name, boot_id, folder = sys.argv[1:]
    reader = WRONG_AT_CLOSING.get(name, OrphanLog)
    print(json.dumps(crashes(reader, boot_id, Path(folder))))


def run(name: str, folder: Path, boot_id: str = BOOT) -> list[list[dict[str, Any]]]:
    """The program's answer."""
    program = "from tests.journal.closing_crashes import main; main()"
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", program, name, boot_id, str(folder)],
        capture_output=True,
        cwd=root,
        timeout=60,
        check=True,
    )
    answer: list[list[dict[str, Any]]] = json.loads(result.stdout)
    return answer
