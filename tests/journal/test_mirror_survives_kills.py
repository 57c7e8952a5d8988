"""A process whose journal is written behind is killed at any instant: whatever the last completed copy covered is read by
the next one, whole and under its number, and a span that was open then is closed. Judged by a page that both processes see,
not by time."""

from __future__ import annotations

import mmap
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asynctrace._contracts import Ending
from asynctrace.spanlog.journal import _journal, _mirror, _mirror_files
from asynctrace.spanlog.journal._directory import JournalDirectory
from asynctrace.spanlog.journal._journal import Journal
from asynctrace.spanlog.journal._log import JournalLog

from . import mirrors
from .orphans import BOOT, ids_of, let_go, meta, numbered_spans, open_body, opened, record_of
from .segments import CHILD_LIVES_AT_MOST

KILLS = int(os.environ.get("ASYNCTRACE_TEST_KILLS", "48"))
LONGEST_LIFE = 0.15
"""Seconds: several copies."""
SPANS = 4000
KEPT = 40
"""Records that the lane is behind."""
RECORDS, CURSOR, NOTED, COPIES, STARTED = range(5)
"""What the words of the page say: of the last copy that completed, but for the last one."""
LOG = 8
"""From this word on: the span of each record, plus 1, stored before the record is."""


@pytest.fixture(scope="module")
def spans() -> list[tuple[bytes, bytes]]:
    """(what the slab holds, the record) of each span, whose id is its place."""
    return [(open_body(number), record_of(number, size=30 + number % 7 * 40)) for number in range(SPANS)]


class Counting(_mirror.Mirror):
    """Tells the page what a copy that completed has covered."""

    page = memoryview(bytes(8 * LOG)).cast("Q")
    known: Callable[[], tuple[int, int, int]] = staticmethod(lambda: (0, 0, 0))

    def copy(self) -> None:
        known = self.known()
        super().copy()
        self.page[RECORDS], self.page[CURSOR], self.page[NOTED] = known
        self.page[COPIES] += 1


class Traced:
    """A traced program, of one thread beside the keeper's."""

    def __init__(self, folder: Path, spans: list[tuple[bytes, bytes]], page: memoryview, seed: int) -> None:
        self._spans = spans
        self._page = page
        self._chance = random.Random(seed)
        self._noted = self._ended = self._settled = 0
        self._open: list[tuple[int, int]] = []
        self._log = JournalLog(capacity_bytes=128 * 1024, on_ready=lambda: None)
        self._journal = Journal(
            JournalDirectory.create(folder, meta()),
            ["otlp"],
            segment_bytes=self._log.segment_bytes,
            time_ns=time.time_ns,
            sync=0.01,
            is_mapped=False,
            on_trouble=fail,
        )
        self._store = self._journal.stores()["otlp"]
        self._log.attach(self._journal)

    def known(self) -> tuple[int, int, int]:
        return self._log.appended, self._settled, self._noted

    def run(self) -> None:
        for number in range(SPANS):
            self._enter(number)
            if len(self._open) > 10 or self._chance.random() < 0.7:
                self._end(*self._open.pop(self._chance.randrange(len(self._open))))
            if self._log.appended - self._settled > 2 * KEPT:
                self._send()
            self._page[STARTED] = 1
            if self._chance.random() < 0.02:
                time.sleep(0.001)
        time.sleep(CHILD_LIVES_AT_MOST)

    def _enter(self, number: int) -> None:
        self._open.append((number, self._journal.slab.enter(self._spans[number][0])))
        self._noted += 1

    def _end(self, number: int, slot: int) -> None:
        self._page[LOG + self._ended] = number + 1
        self._log.append_nowait(self._spans[number][1])
        self._ended += 1
        self._journal.slab.leave(slot)

    def _send(self) -> None:
        count = self._log.appended - self._settled - KEPT
        if not self._store.open_window(self._settled, count):
            os._exit(6)
        self._store.move_cursor(self._settled + count)
        self._settled += count
        self._log.release(self._settled)


def slowly(fd: int, content: bytes | memoryview, at: int) -> None:
    """To a disk that takes its time, so that most kills come in the middle of a copy."""
    os.pwrite(fd, content, at)
    time.sleep(0.0005)


def trace_for_ever(folder: Path, spans: list[tuple[bytes, bytes]], page: memoryview, seed: int) -> None:
    """Until killed."""
    threading.Timer(CHILD_LIVES_AT_MOST, os._exit, (3,)).start()
    sys.setswitchinterval(1e-4)
    module: Any = _journal
    module.Mirror = type("Counted", (Counting, _mirror.Mirror), {})
    Counting.page = page
    patched: Any = _mirror_files
    patched._write = slowly
    program = Traced(folder, spans, page, seed)
    Counting.known = staticmethod(program.known)
    program.run()


def fail(what: str, error: Exception) -> None:
    os.write(2, f"{what}: {error!r}\n".encode())
    os._exit(5)


def kill_one(folder: Path, spans: list[tuple[bytes, bytes]], chance: random.Random) -> int:
    """One killing; checks what it left, and returns how many copies had completed."""
    folder.mkdir()
    page = open_page(folder / "page")
    seed = chance.randrange(1 << 30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests may have left a thread behind
        pid = os.fork()
    if not pid:
        try:
            trace_for_ever(folder, spans, page, seed)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(4)
    try:
        wait_for(page, STARTED)
        time.sleep(chance.uniform(0, LONGEST_LIFE))
    finally:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    check(next(folder.glob("*.j")), page)
    copies: int = page[COPIES]
    shutil.rmtree(folder)
    return copies


def open_page(path: Path) -> memoryview:
    path.write_bytes(bytes(8 * (LOG + SPANS)))
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")


def wait_for(page: memoryview, word: int) -> None:
    deadline = time.monotonic() + 30
    while not page[word]:
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def check(path: Path, page: memoryview) -> None:
    log = [span - 1 for span in page[LOG:].tolist()]
    orphan = opened(path, BOOT)
    try:
        cursor = orphan.lane_file("otlp").cursor
        assert cursor >= page[CURSOR]
        assert orphan.unreadable == orphan.damaged_slots == 0
        assert not any(part.segment.damaged for part in orphan._held)
        found = numbered_spans(orphan)
        assert all(number in found for number in range(cursor, page[RECORDS])), "records are lost"
        ids = ids_of(found)
        lost = [number for number, span in found.items() if span.ending == Ending.LOST]
        assert lost == list(range(orphan.appended - len(lost), orphan.appended))
        assert all(log[number] == ids[number] for number in found.keys() - set(lost))
        assert all(found[number].name == name_of(ids[number]) for number in found.keys() - set(lost))
        told = set(ids.values()) | set(log[:cursor])
        assert told >= set(range(page[NOTED])), "spans are lost"
    finally:
        let_go(orphan)


def name_of(span: int) -> str:
    return "n" * (30 + span % 7 * 40)


def kill_often(folder: Path, spans: list[tuple[bytes, bytes]], kills: int, seed: int = 0) -> int:
    chance = random.Random(seed)
    return sum(kill_one(folder / str(number), spans, chance) for number in range(kills))


def test_whatever_was_copied_survives_kills(tmp_path: Path, spans: list[tuple[bytes, bytes]]) -> None:
    assert kill_often(tmp_path, spans, KILLS // 2) > KILLS


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 20))
def test_whatever_was_copied_survives_thousands_of_kills(
    tmp_path: Path, spans: list[tuple[bytes, bytes]], seed: int
) -> None:
    kill_often(tmp_path, spans, 100, seed)


class WordsLongBefore(mirrors.WordsFirst):
    """Words that vouch for records which come a while later."""

    def wait(self) -> None:
        time.sleep(0.01)


def test_the_kill_loop_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spans: list[tuple[bytes, bytes]]
) -> None:
    monkeypatch.setattr(_mirror, "SegmentCopy", WordsLongBefore)
    with pytest.raises((AssertionError, ValueError)):
        kill_often(tmp_path, spans, 300)
