"""A process that is killed at any instant, while it appends to segment files: whatever was appended is there, each record
whole and in order. And whoever looks on while it appends never sees half of a word, nor a word before its record."""

from __future__ import annotations

import mmap
import os
import random
import shutil
import signal
import subprocess
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from asynctrace.spanlog.journal import HEADER_BYTES, ReadSegment
from asynctrace.spanlog.journal._format import SLOTS_AT, segment_index

from .segments import (
    STORES,
    THREADS_AT_MOST,
    append_for_ever,
    make_record,
    numbers_in,
    open_oracle,
    program,
    read_file,
    records_of,
)

KILLS = int(os.environ.get("ASYNCTRACE_TEST_KILLS", "64"))
"""Of processes that are forked, in the short form; an eighth as many are started as new programs."""

LONGEST_LIFE = 0.012
"""Seconds: some 5,000 appends."""

SIZES = [(0,), (120, 300), (30, 4000, 90), (1000,)]
CAPACITIES = [4096, 64 * 1024, 1 << 20]

Start = Callable[[Path, int, tuple[int, ...], str, int], int]
"""Starts a process that appends in a folder, with so many threads, records of those sizes, in that way, into segments
of that capacity; gives its process id."""


def fork(folder: Path, threads: int, sizes: tuple[int, ...], how: str, capacity: int) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests may have left a thread behind
        pid = os.fork()
    if not pid:
        try:
            append_for_ever(folder, threads, sizes, STORES[how], capacity, open_oracle(folder / "oracle"))
        finally:
            os._exit(4)
    return pid


def spawn(folder: Path, threads: int, sizes: tuple[int, ...], how: str, capacity: int) -> int:
    process = subprocess.Popen(program(folder, threads, sizes, how, capacity))
    process.returncode = 0  # it is waited for by its process id
    return process.pid


@contextmanager
def appending(
    start: Start, folder: Path, threads: int, sizes: tuple[int, ...], how: str, capacity: int
) -> Iterator[memoryview]:
    """A process that appends, from its first append on; killed on leaving. Yields the oracle."""
    (folder / "oracle").write_bytes(bytes(mmap.PAGESIZE))
    oracle = open_oracle(folder / "oracle")
    pid = start(folder, threads, sizes, how, capacity)
    try:
        deadline = time.monotonic() + 30
        while not any(oracle[:THREADS_AT_MOST]):
            assert time.monotonic() < deadline
            time.sleep(0.0002)
        yield oracle
    finally:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def kill_and_read(start: Start, folder: Path, chance: random.Random, how: str) -> int:
    """One killing; checks what it left, and returns how many appends had returned."""
    threads = chance.choice([1, 1, 2, 4])
    with appending(start, folder, threads, chance.choice(SIZES), how, chance.choice(CAPACITIES)) as oracle:
        time.sleep(chance.uniform(0, LONGEST_LIFE))
    return check(folder, list(oracle[:threads]))


def check(folder: Path, returned: list[int]) -> int:
    """0 lost, 0 torn, order kept: each writer's records are 0, 1, 2 … up to at least what has returned to it."""
    segments = segments_in(folder)
    for before, after in pairwise(segments):
        assert after.base == before.base + before.used
    numbers: dict[int, list[int]] = defaultdict(list)
    for segment in segments:
        assert not segment.damaged
        for record in records_of(segment):
            number, writer = numbers_in(record)
            numbers[writer].append(number)
    for writer, least in enumerate(returned):
        stored = numbers.pop(writer, [])
        assert stored == list(range(len(stored)))
        assert least <= len(stored) <= least + 1
    assert not numbers
    return sum(returned)


def segments_in(folder: Path) -> list[ReadSegment]:
    """The segments of a chain; that which was being made when it ended may hold nothing, or what it held before."""
    files = sorted(folder.glob("*.seg"))
    segments = [read_file(path) for path in files]
    if segments and (segments[-1] is None or segments[-1].number != segment_index(files[-1].name)):
        segments.pop()
    assert None not in segments
    return [segment for segment in segments if segment]


def kill_often(start: Start, folder: Path, kills: int, how: str = "store", seed: int = 0) -> int:
    """So many killings, each checked; returns how many appends had returned in all."""
    chance = random.Random(f"{start.__name__} {seed}")
    returned = 0
    for number in range(kills):
        killed = fresh(folder, number)
        returned += kill_and_read(start, killed, chance, how)
        shutil.rmtree(killed)
    return returned


def fresh(folder: Path, number: int) -> Path:
    made = folder / str(number)
    made.mkdir()
    return made


def test_whatever_was_appended_survives_kills_of_forked_processes(tmp_path: Path) -> None:
    assert kill_often(fork, tmp_path, KILLS) > 100 * KILLS


def test_whatever_was_appended_survives_kills_of_new_programs(tmp_path: Path) -> None:
    assert kill_often(spawn, tmp_path, KILLS // 8) > 10 * KILLS


@pytest.mark.long
@pytest.mark.parametrize("seed", range(40))
def test_whatever_was_appended_survives_thousands_of_kills(tmp_path: Path, seed: int) -> None:
    kill_often(fork, fresh(tmp_path, 1), 90, seed=seed)
    kill_often(spawn, fresh(tmp_path, 2), 10, seed=seed)


def test_the_kill_loop_notices_a_word_that_is_stored_before_its_record(tmp_path: Path) -> None:
    with pytest.raises((AssertionError, ValueError)):
        kill_often(fork, tmp_path, 300, "word_first")


# A witness -------------------------------------------------------------------------------------------------------------

WITNESSED = 100
"""Bytes of each record that the witness expects."""


def watch(folder: Path, how: str) -> list[int]:
    """Look at each word of a segment until it is there; the slots that were not what they became, or came too early."""
    expected = [make_record(number, WITNESSED) for number in range(12_000)]
    size = len(expected[0])
    with appending(fork, folder, 1, (WITNESSED,), how, 1 << 20), (folder / "00000000.seg").open("rb") as file:
        memory = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        payload = memory[HEADER_BYTES : HEADER_BYTES + (1 << 20)]
        slots = memory[:HEADER_BYTES].cast("Q")[SLOTS_AT]
        words = memory[HEADER_BYTES + (1 << 20) :][: slots * 8].cast("Q")
        return [
            slot
            for slot, record in zip(range((1 << 20) // size), expected, strict=False)
            if appeared(words, slot) != (slot + 1) * size or bytes(payload[slot * size :][:size]) != record
        ]


def appeared(words: memoryview, slot: int) -> int:
    """The first value of a word that is not zero; 0 if the word before it vanished meanwhile."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for _ in range(100):
            if word := words[slot]:
                return int(word)
            if slot and not words[slot - 1]:
                return 0
    raise AssertionError("nothing is appended any more")


def test_who_looks_on_sees_each_word_whole_and_behind_its_record(tmp_path: Path) -> None:
    for number in range(3):
        assert watch(fresh(tmp_path, number), "store") == []


@pytest.mark.parametrize("how", ["packed_words", "word_in_pieces", "word_first"])
def test_who_looks_on_notices(tmp_path: Path, how: str) -> None:
    assert any(watch(fresh(tmp_path, number), how) for number in range(40))
