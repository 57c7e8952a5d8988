"""How long does an append take, at worst, while the disk and another thread are busy?

One thread appends bursts of 200 records of 300 bytes and rests a moment, as code between two awaits does; in turns to a span
log in memory and to one whose segments are files. Beside it a Python thread never rests, and another process writes to the
same disk, with an `fsync` every 8 MiB. Each append is timed by itself. An append that made a system call would hand
the interpreter to the busy thread, and get it back 5 ms later. `TMPDIR` chooses the disk.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from _busy import busy_disk, busy_thread
from _common import Benchmark, Figure, Scale, Task, main, percentile, run_child

BURST = 200
REST = 0.0005
RECORD = b"\x12\xa9\x02" + bytes(297)
NEVER = 1 << 62
MUST = 1.0
"""Milliseconds."""
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.99": 0.9999, "max": 1.0}


@contextlib.contextmanager
def open_logs(folder: Path) -> Iterator[dict[str, Any]]:
    from asynctrace.spanlog import SpanLog
    from asynctrace.spanlog.journal import Journal, JournalDirectory, JournalLog, JournalMeta

    def tell(what: str, error: Exception) -> None:
        print(what, error, file=sys.stderr)

    def make(kind: Callable[..., Any]) -> Any:
        def on_ready() -> None:
            log.wake_at = NEVER

        log = kind(capacity_bytes=64 << 20, on_ready=on_ready)
        log.wake_at = NEVER
        return log

    memory, log = make(SpanLog), make(JournalLog)
    meta = JournalMeta(
        journal_id=str(uuid4()), boot_id="", pid=0, created_ns=time.time_ns(), service="", resource=b"", scope=b""
    )
    journal = Journal(
        JournalDirectory.create(folder, meta),
        ["lane"],
        segment_bytes=log.segment_bytes,
        time_ns=time.time_ns,
        sync=None,
        is_mapped=True,
        on_trouble=tell,
    )
    log.attach(journal)
    try:
        yield {"memory": memory, "journal": log}
    finally:
        log.close("after_shutdown")
        journal.finish(is_drained=True)


def append_burst(append: Callable[[bytes], object], took: list[int]) -> None:
    clock = time.perf_counter_ns
    for _ in range(BURST):
        begin = clock()
        append(RECORD)
        took.append(clock() - begin)


async def child(task: Task) -> dict[str, Any]:
    appends: int = task.options["appends"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with open_logs(folder) as logs, busy_disk(folder), busy_thread():
            took: dict[str, list[int]] = {way: [] for way in logs}
            for way, log in logs.items():
                append_burst(log.append_nowait, [])
                assert log.appended == BURST, way
            for burst in range(appends // BURST):
                for way, log in logs.items():
                    append_burst(log.append_nowait, took[way])
                    if burst % 50 == 0:
                        log.release(log.appended)
                    time.sleep(REST)  # noqa: ASYNC251  (there is nothing else on this loop)
            for log in logs.values():
                assert log.refused() == {}
    return {
        way: {name: percentile(found, fraction) / 1e6 for name, fraction in PERCENTILES.items()}
        for way, found in took.items()
    }


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    appends = scale.pick(400_000, 100_000, 2_000)
    found = run_child(__file__, Task(contender="asynctrace", options={"appends": appends}))
    figures = [
        Figure(
            name=f"append to {'a journal' if way == 'journal' else 'memory'}, {name}, disk and a thread busy",
            measured=measured,
            unit="ms",
            must=MUST if (way, name) == ("journal", "p99.99") else None,
        )
        for way, percentiles in found.items()
        for name, measured in percentiles.items()
    ]
    return figures, {"appends": appends, "milliseconds": found}


if __name__ == "__main__":
    main(
        Benchmark(
            question="How long does an append take, at worst, while the disk and a thread are busy?",
            measure=measure,
            child=child,
        ),
        __file__,
    )
