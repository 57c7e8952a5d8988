"""A process that is killed at any instant: every span that was open is in its slab, whole, and none that had ended."""

from __future__ import annotations

import mmap
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from asynctrace.spanlog.journal._slab import OpenSlab, inspect_slab

from .slabs import (
    JOURNAL,
    KeepsTheStateWhileStoring,
    StoresTheStateFirst,
    make_body,
    memory_file,
    small_steps,
    writer_of,
)

KILLS = int(os.environ.get("ASYNCTRACE_TEST_KILLS", "48"))
PLACES = 100
"""Spans that one thread has open at most."""
LONGEST_LIFE = 0.012
MOST_THREADS = 4

ENTERING, OPEN, LEAVING = 1, 2, 3
"""Phases, as the oracle has them: count << 2 | phase; 0 when there is nothing in the slab."""

Create = Callable[[Callable[[str, int], int], bytes], OpenSlab]


def enter_and_leave_for_ever(slab: OpenSlab, writer: int, oracle: memoryview) -> None:
    """The oracle is told before and after each step."""
    draw = random.Random()
    slots = [0] * PLACES
    count = 0
    while True:
        place = draw.randrange(PLACES)
        at = writer * PLACES + place
        if oracle[at]:
            oracle[at] |= LEAVING
            slab.leave(slots[place])
            oracle[at] = 0
        else:
            count += 1
            body = make_body(writer, place, count)
            oracle[at] = count << 2 | ENTERING
            slots[place] = slab.enter(body)
            oracle[at] = count << 2 | OPEN


def live(create: Create, fd: int, threads: int, oracle: memoryview) -> None:
    """What the child does."""
    slab = create(lambda name, size: fd, JOURNAL)
    for writer in range(1, threads):
        threading.Thread(target=enter_and_leave_for_ever, args=(slab, writer, oracle), daemon=True).start()
    enter_and_leave_for_ever(slab, 0, oracle)


def start(create: Create, fd: int, threads: int, oracle: memoryview) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests may have left a thread behind
        pid = os.fork()
    if not pid:
        try:
            live(create, fd, threads, oracle)
        finally:
            os._exit(4)
    return pid


def kill_and_check(create: Create, folder: Path, draw: random.Random) -> int:
    """One killing; how many spans were open."""
    from asynctrace.spanlog.journal import _slab

    threads = draw.randrange(1, MOST_THREADS + 1)
    memory = mmap.mmap(-1, MOST_THREADS * PLACES * 8)
    oracle = memoryview(memory).cast("Q")
    fd = os.open(folder / "open-00.slab", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    os.posix_fallocate(fd, 0, _slab.SLAB_FILE_BYTES)
    pid = start(create, fd, threads, oracle)
    try:
        deadline = time.monotonic() + 30
        while not any(oracle):
            assert time.monotonic() < deadline
            time.sleep(0.0002)
        time.sleep(draw.uniform(0, LONGEST_LIFE))
    finally:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    try:
        return check(fd, list(oracle))
    finally:
        os.close(fd)
        oracle.release()
        memory.close()


def check(fd: int, oracle: list[int]) -> int:
    reading = inspect_slab(fd, JOURNAL)
    assert not reading.damaged
    found = {}
    for body in reading.bodies:
        writer, place, count = writer_of(body)
        assert (writer, place) not in found
        found[writer, place] = count
    for at, told in enumerate(oracle):
        count, phase = told >> 2, told & 3
        seen = found.pop(divmod(at, PLACES), None)
        if phase == OPEN:
            assert seen == count, "an open span is not in the slab"
        else:
            assert seen is None or (phase and seen == count), "a span that is not open is in the slab"
    assert not found
    return sum(told & 3 == OPEN for told in oracle)


def kill_often(create: Create, folder: Path, kills: int, seed: int = 0) -> int:
    draw = random.Random(seed)
    return sum(kill_and_check(create, folder, draw) for _ in range(kills))


def test_what_was_open_at_the_kill_is_found_and_nothing_else(tmp_path: Path) -> None:
    assert kill_often(OpenSlab.create, tmp_path, KILLS // 2) > KILLS


def test_so_it_is_when_the_slab_is_growing(tmp_path: Path) -> None:
    with small_steps():
        assert kill_often(OpenSlab.create, tmp_path, KILLS // 2, 1) > KILLS


@pytest.mark.long
@pytest.mark.parametrize("small", [False, True])
def test_what_was_open_is_found_after_thousands_of_kills(tmp_path: Path, small: bool) -> None:
    if not small:
        kill_often(OpenSlab.create, tmp_path, 3_000, 2)
        return
    with small_steps():
        kill_often(OpenSlab.create, tmp_path, 3_000, 3)


@pytest.mark.parametrize("fault", [StoresTheStateFirst, KeepsTheStateWhileStoring])
def test_the_kills_notice(fault: type[OpenSlab], tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        kill_often(fault.create, tmp_path, 200)


def test_the_check_reads_what_is_open_now() -> None:
    """The oracle and the check agree on a slab that nobody kills."""
    slab = OpenSlab.create(memory_file, JOURNAL)
    oracle = [0] * (MOST_THREADS * PLACES)
    slots = [slab.enter(make_body(1, place, place + 1)) for place in range(PLACES)]
    oracle[PLACES : 2 * PLACES] = [place + 1 << 2 | OPEN for place in range(PLACES)]
    assert check(slab._fd, oracle) == PLACES
    slab.leave(slots[5])
    with pytest.raises(AssertionError, match="not in the slab"):
        check(slab._fd, oracle)
    slab.close()
