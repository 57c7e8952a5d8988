"""How many spans does an ingest node put into a stream, and a worker take out of it, in a second of CPU time?

`asynctrace ingest`, Redis (Debian: redis-server) and `asynctrace worker` are processes of their own. Requests of 512 spans
(850 bytes each, with a prompt and an answer) are posted to the node, which answers when they are in the stream, while the
worker is held; then it stores them. What counts is the user and system time of the node's process, and of the worker's. The
peer is `asynctrace serve`, which does both, in the same rounds: what slows the machine down slows down all of them. The
worker's store is ClickHouse, out of the wheel of chdb-core, where that is installed, else a directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _collectors
from _common import HERE, Benchmark, Figure, Incomplete, Scale, main

INGEST_MUST = 60_000
WORKER_MUST = 50_000
SHARDS = "8"
"""As the page on scaling out says for a rate like this: then a batch has tens of thousands of rows."""
STORED_WITHIN = 600.0
"""Seconds."""


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    if shutil.which("redis-server") is None:
        raise RuntimeError("redis-server is not installed (Debian: redis-server)")
    requests = scale.pick(400, 80, 4)
    rounds = [_round(requests, seed) for seed in range(scale.pick(4, 2, 1))]
    ingest, worker, serve = (max(each[name] for each in rounds) for name in ("ingest", "worker", "serve"))
    figures = [
        Figure(
            name="spans that an ingest node has put into the stream for each CPU second, quickest round",
            measured=ingest,
            unit="spans/s",
            must=INGEST_MUST,
            better="higher",
            note="850 B with prompt and answer",
        ),
        Figure(
            name="spans that a worker has stored for each CPU second, quickest round",
            measured=worker,
            unit="spans/s",
            must=WORKER_MUST,
            better="higher",
            note=rounds[0]["store"],
        ),
        _ratio("ingest against `asynctrace serve`", "ingest", rounds),
        _ratio("worker against `asynctrace serve`", "worker", rounds),
        Figure(name="`asynctrace serve`, for each CPU second", measured=serve, unit="spans/s", better="higher"),
        Figure(name="memory of the node", measured=max(each["ingest_mb"] for each in rounds), unit="MB"),
        Figure(name="memory of the worker", measured=max(each["worker_mb"] for each in rounds), unit="MB"),
    ]
    return figures, {"rounds": rounds}


def _ratio(name: str, which: str, rounds: list[dict[str, Any]]) -> Figure:
    ratio = statistics.median(each[which] / each["serve"] for each in rounds)
    return Figure(name=name, measured=ratio, unit="x", better="higher")


def _round(requests: int, seed: int) -> dict[str, Any]:
    sent = _collectors.bodies(requests, seed)
    spans = requests * _collectors.SPANS_IN_A_BODY
    with tempfile.TemporaryDirectory() as directory, _redis(Path(directory)) as stream, _store(directory) as store:
        flags = ["--stream", stream, "--stream-shards", SHARDS]
        with _collectors.asynctrace_program("worker", *flags, "--store", store) as worker:
            worker.process.send_signal(signal.SIGSTOP)
            with _collectors.asynctrace_program("ingest", *flags, "--stream-size", "4GB") as ingest:
                taken = _taken(ingest, sent)
                found = {"ingest": spans / taken, "ingest_mb": ingest.resident_megabytes()}
            found |= {"worker": spans / _stored(worker, spans), "worker_mb": worker.resident_megabytes()}
    with _collectors.asynctrace_serve() as serve:
        found["serve"] = spans / _taken(serve, sent)
    return found | {"store": "ClickHouse" if "://" in store else "a directory"}


def _taken(collecting: _collectors.Collecting, sent: list[bytes]) -> float:
    """CPU seconds until everything is acknowledged."""
    before = collecting.cpu_seconds()
    asyncio.run(_collectors.post_all(collecting.url, sent))
    return max(collecting.cpu_seconds() - before, 0.01)


def _stored(worker: _collectors.Collecting, spans: int) -> float:
    """CPU seconds, from when it may begin to work, until everything is stored."""
    before = worker.cpu_seconds()
    worker.process.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + STORED_WITHIN
    while _collectors.number_of(worker.url, 'asynctrace_worker_inserted_total{of="spans"}') < spans:
        if time.monotonic() > deadline:
            raise Incomplete("the worker has not stored everything")
        time.sleep(0.5)
    return max(worker.cpu_seconds() - before, 0.01)


@contextlib.contextmanager
def _redis(directory: Path) -> Iterator[str]:
    """A server that keeps nothing on disk."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--maxmemory-policy", "noeviction"]
    process = subprocess.Popen(["redis-server", *options], cwd=directory, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _store(directory: str) -> Iterator[str]:
    """A database of ClickHouse, or a directory where there is none."""
    if importlib.util.find_spec("chdb") is None or importlib.util.find_spec("pytest") is None:
        yield f"{directory}/store"
        return
    sys.path.insert(0, str(HERE.parent / "tests"))
    from clickhouse_server import ClickHouse

    with ClickHouse(Path(directory, "clickhouse")) as server:
        yield server.database()


if __name__ == "__main__":
    main(
        Benchmark(
            question="How many spans do an ingest node and a worker take in a second of CPU time?", measure=measure
        ),
        __file__,
    )
