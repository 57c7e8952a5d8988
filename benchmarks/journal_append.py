"""What does it cost to store a record where it outlives the process?

One record of 300 bytes after the other, in three ways: into the memory of a span log; into a mapped file of a journal, as
asynctrace does; by a `write()` into a file for each record. First alone, as CPU for each, with all that has to be done for
it: records are settled as if they had been delivered. Then how long one takes beside a thread that computes without a pause
and a process that writes and syncs on the same disk: whoever makes a system call hands over the interpreter, and waits for
its turn.

`TMPDIR` chooses the disk; a file system that is not mapped (see docs/explanation/journal.md) is told, and measured as it is.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
import uuid
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _busy import busy_disk, busy_thread
from _common import Benchmark, Figure, Scale, Task, main, percentile, run_child

from asynctrace.spanlog import SpanLog
from asynctrace.spanlog.journal import Journal, JournalDirectory, JournalLog, JournalMeta, Mode, choose, service_folder

RECORD = b"\x12\xa9\x02" + bytes(297)
CAPACITY = 256 * 1024 * 1024
IN_A_ROW = 20
"""Records between two pauses of a millisecond, where the single append is timed: a program that also does something else."""
MUST_MS, AIM_MS = 1.0, 0.1
"""p99.99 of one append to a mapped file, beside both."""
WAYS = ("memory", "mapped file", "write() for each")

SETTLED_AT_ONCE = 512

Append = Callable[[bytes], Any]
Settle = Callable[[int], Any]


@contextlib.contextmanager
def appending(way: str, folder: Path) -> Iterator[tuple[Append, Settle]]:
    """How to store one record, and how to say that so many have been delivered."""
    if way == "memory":
        log = SpanLog(capacity_bytes=CAPACITY, on_ready=lambda: None)
        yield log.append_nowait, _reader_of(log)
    elif way == "mapped file":
        yield from _mapped(folder)
    else:
        descriptor = os.open(folder / "records", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            yield (lambda record: os.write(descriptor, record)), lambda number: None
        finally:
            os.close(descriptor)


def _reader_of(log: SpanLog) -> Settle:
    def settle(number: int) -> None:
        log.release(number, number)
        log.wake_at = number + SETTLED_AT_ONCE

    settle(0)
    return settle


def _mapped(folder: Path) -> Iterator[tuple[Append, Settle]]:
    meta = JournalMeta(
        journal_id=str(uuid.uuid4()),
        boot_id="",
        pid=os.getpid(),
        created_ns=time.time_ns(),
        service="benchmark",
        resource=b"",
        scope=b"",
    )
    log = JournalLog(capacity_bytes=CAPACITY, on_ready=lambda: None)
    journal = Journal(
        JournalDirectory.create(service_folder(folder, "benchmark"), meta),
        ["otlp"],
        segment_bytes=log.segment_bytes,
        time_ns=time.time_ns,
        sync=None,
        is_mapped=choose(folder).mode is Mode.MAP,
        on_trouble=lambda what, error: sys.exit(f"{what}: {error!r}"),
    )
    log.attach(journal)
    try:
        yield log.append_nowait, _reader_of(log)
    finally:
        journal.finish(is_drained=True)


async def child(task: Task) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, appending(task.options["way"], Path(name)) as (append, settle):
        if task.options["alone"]:
            return {"ns": _cpu_for_each(append, settle, task.options["appends"])}
        with busy_thread(), busy_disk(Path(name)):
            waits = _latencies(append, settle, task.options["appends"])
        return {
            "ms": {str(share): percentile(waits, share) / 1e6 for share in (0.5, 0.99, 0.9999, 1.0)},
            "file_system": choose(Path(name)).file_system,
        }


def _cpu_for_each(append: Append, settle: Settle, count: int) -> float:
    begin = time.process_time_ns()
    for number in range(count):
        append(RECORD)
        if number % SETTLED_AT_ONCE == 0:
            settle(number)
    return (time.process_time_ns() - begin) / count


def _latencies(append: Append, settle: Settle, count: int) -> list[int]:
    """Nanoseconds of each append."""
    waits = array("Q", bytes(8 * count))
    clock = time.perf_counter_ns
    for number in range(count):
        if number % IN_A_ROW == 0:
            settle(number)
            time.sleep(0.001)
        begin = clock()
        append(RECORD)
        waits[number] = clock() - begin
    return waits.tolist()


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    rounds = scale.pick(7, 3, 1)
    alone: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            alone[way].append(_run(way, alone=True, appends=scale.pick(200_000, 100_000, 2000))["ns"])
    busy = {way: _run(way, alone=False, appends=scale.pick(100_000, 30_000, 400)) for way in WAYS}
    figures = [_alone(way, alone) for way in WAYS] + [_busy(way, busy[way]) for way in WAYS]
    return figures, {"nanoseconds alone": alone, "milliseconds beside both": busy}


def _run(way: str, *, alone: bool, appends: int) -> dict[str, Any]:
    options = {"way": way, "alone": alone, "appends": appends}
    return run_child(__file__, Task(contender="asynctrace", options=options))


def _alone(way: str, alone: dict[str, list[float]]) -> Figure:
    ratio = statistics.median(ours / memory for ours, memory in zip(alone[way], alone["memory"], strict=True))
    return Figure(
        name=f"CPU of an append, {way}",
        measured=statistics.median(alone[way]),
        unit="ns",
        note="" if way == "memory" else f"{ratio:.1f} times the memory's",
    )


def _busy(way: str, measured: dict[str, Any]) -> Figure:
    waits = measured["ms"]
    is_ours = way == "mapped file"
    return Figure(
        name=f"one append beside a busy thread and a busy disk, p99.99, {way}",
        measured=waits["0.9999"],
        unit="ms",
        must=MUST_MS if is_ours else None,
        aim=AIM_MS if is_ours else None,
        note=f"p50 {waits['0.5']:.4f}, p99 {waits['0.99']:.3f}, longest {waits['1.0']:.1f}; {measured['file_system']}",
    )


if __name__ == "__main__":
    main(
        Benchmark(
            question="What does it cost to store a record where it outlives the process?", measure=measure, child=child
        ),
        __file__,
    )
