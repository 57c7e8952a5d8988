"""What does one operation cost each part of a fleet? Writes `costs.json`, which `simulate.py` reads.

Real parts, each a process of its own on this machine: `asynctrace ingest`, a Redis master with a replica (Debian's
redis-server), `asynctrace worker`, ClickHouse (out of the chdb-core wheel, as the tests use it). Requests of 20 and of 400
spans (850 bytes each, with a prompt and an answer) are sent through; what counts is the CPU time that each process has
used for them. Two sizes give two costs: one of the request, one of the span.

    python benchmarks/capacity/measure.py            # prints the costs
    python benchmarks/capacity/measure.py --write    # into costs.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent)]

import _collectors  # noqa: E402  (their folders are not on the path of a script in this one)
import msgspec  # noqa: E402
import redis  # noqa: E402
from _fleet import Costs  # noqa: E402

SIZES: Final = {20: 1500, 400: 150}
"""Spans in a request: requests of that size. 30,000 and 60,000 spans."""
ROUNDS: Final = 3
DEADLINE: Final = 120.0
IDLE: Final = 2.0
"""Seconds for which a worker without work is watched."""


class Process:
    """A process, seen from outside."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def cpu(self) -> float:
        """Microseconds of user and system time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") * 1e6


@contextlib.contextmanager
def started(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def program(name: str, *arguments: str) -> Iterator[tuple[Process, str]]:
    """`asynctrace NAME`, and where it answers."""
    with started(sys.executable, "-m", "asynctrace.cli", name, "--port", "0", *arguments) as process:
        assert process.stdout is not None
        yield Process(process.pid), process.stdout.readline().strip()


@contextlib.contextmanager
def redis_pair(folder: str) -> Iterator[tuple[Process, redis.Redis]]:
    """A master with a replica that follows it."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    plain = ("--save", "", "--bind", "127.0.0.1", "--dir", folder, "--repl-diskless-sync-delay", "0")
    follow = ("--replicaof", "127.0.0.1", str(ports[0]))
    with (
        started("redis-server", "--port", str(ports[0]), *plain) as master,
        started("redis-server", "--port", str(ports[1]), *plain, *follow),
    ):
        client = redis.Redis(port=ports[0], socket_timeout=30)
        until(lambda: client.info("replication")["connected_slaves"] == 1, "the replica follows")
        yield Process(master.pid), client


def until(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        with contextlib.suppress(redis.ConnectionError, redis.BusyLoadingError, OSError):
            if condition():
                return
        time.sleep(0.02)
    raise TimeoutError(what)


def clickhouse_of_the_tests() -> ModuleType:
    spec = importlib.util.spec_from_file_location("clickhouse_server", ROOT / "tests" / "clickhouse_server.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["clickhouse_server"] = module
    spec.loader.exec_module(module)
    return module


class Line:
    """Cost = `fixed` + `each` for each span, through two points."""

    def __init__(self, points: dict[int, float]) -> None:
        (small, low), (large, high) = sorted(points.items())
        self.each = (high - low) / (large - small)
        self.fixed = max(0.0, low - self.each * small)


def through_the_fleet(folder: str, server: Any) -> dict[str, dict[int, float]]:
    """Microseconds of CPU for each request of a size, of each part; and the bytes of its message."""
    found: dict[str, dict[int, float]] = {"ingest": {}, "master": {}, "worker": {}, "bytes": {}}
    with redis_pair(folder) as (master, client):
        url = f"redis://127.0.0.1:{client.connection_pool.connection_kwargs['port']}"
        for spans, count in SIZES.items():
            rounds = [one_round(url, client, master, server, spans, count, seed) for seed in range(ROUNDS)]
            for part in found:
                found[part][spans] = min(each[part] for each in rounds)
    return found


def one_round(
    url: str, client: redis.Redis, master: Process, server: Any, spans: int, count: int, seed: int
) -> dict[str, float]:
    warm, sent = _collectors.bodies(20, 1000 + seed, spans), _collectors.bodies(count, seed, spans)
    prefix = f"m{spans}-{seed}"
    with program("ingest", "--stream", url, "--stream-prefix", prefix, "--stream-size", "none") as (ingest, address):
        asyncio.run(_collectors.post_all(address, warm))
        before = ingest.cpu(), master.cpu()
        asyncio.run(_collectors.post_all(address, sent))
        used = {"ingest": (ingest.cpu() - before[0]) / count}
        into = (master.cpu() - before[1]) / count
    held = sum(client.memory_usage(key) or 0 for key in client.scan_iter(f"{prefix}:*:in"))
    used["bytes"] = held / (count + len(warm)) / spans
    before_worker, begin = master.cpu(), time.monotonic()
    store = server.database()
    with program("worker", "--stream", url, "--stream-prefix", prefix, "--store", store) as (worker, _):
        idle = worker.cpu()
        until(lambda: waiting(client, prefix) == 0, "the stream is empty")
        used["worker"] = (worker.cpu() - idle) / (count + len(warm))
        out, took = master.cpu() - before_worker, time.monotonic() - begin
        asking = master.cpu()
        time.sleep(IDLE)
        looked = (master.cpu() - asking) / IDLE * took  # for batches, where there are none: not the price of a message
    used["master"] = into + max(0.0, out - looked) / (count + len(warm))
    return used


def waiting(client: redis.Redis, prefix: str) -> int:
    return sum(client.xlen(key) for key in client.scan_iter(f"{prefix}:*:in"))


def kilobyte_of_a_master(folder: str) -> tuple[float, float]:
    """(microseconds for a kilobyte that is written and read once, milliseconds until a replica has confirmed)."""
    with redis_pair(folder) as (master, client):
        costs = {}
        for size in (1024, 65 * 1024):
            body = os.urandom(size)
            before = master.cpu()
            for number in range(4000):
                client.xadd("k", {"b": body}, maxlen=10, approximate=False)
                if number % 8 == 0:
                    client.xrange("k", count=8)
            costs[size] = (master.cpu() - before) / 4000
        confirmed = []
        for _ in range(500):
            client.xadd("k", {"b": b"x"}, maxlen=10)
            begin = time.perf_counter()
            client.wait(1, 1000)
            confirmed.append((time.perf_counter() - begin) * 1000)
        return (costs[65 * 1024] - costs[1024]) / 64, statistics.median(confirmed)


def store_costs(server: Any) -> dict[str, float]:
    """Of ClickHouse: an insert, a row of it, merging a row once, a page of the list; microseconds."""
    from asynctrace.collector.clickhouse import ClickHouseStore
    from asynctrace.collector.receiving._scan import Scanner

    process = Process(server.pid)
    url = server.database()
    store = ClickHouseStore(url)
    try:
        scanner = Scanner()
        points = {}
        for requests, inserts in ((4, 12), (100, 4)):
            before = process.cpu()
            for number in range(inserts):
                received = [
                    received_of(scanner, body) for body in _collectors.bodies(requests, number * 1000 + requests, 400)
                ]
                store.add(received, token=f"{requests}-{number}")
            points[requests * 400] = (process.cpu() - before) / inserts
        line = Line(points)
        rows = 4 * 12 * 400 + 100 * 4 * 400
        before = process.cpu()
        for table in asked(
            url, "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"
        ).split():
            asked(url, f"OPTIMIZE TABLE {table} FINAL")
        merge = (process.cpu() - before) / rows
        stored = float(
            asked(url, "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase()")
        )
        before = process.cpu()
        for _ in range(50):
            store.runs(50)
        return {
            "store_insert": line.fixed,
            "store_span": line.each,
            "merge_span": merge,
            "list_read": (process.cpu() - before) / 50,
            "stored_bytes_of_span": stored / rows,
        }
    finally:
        store.close()


def received_of(scanner: Any, body: bytes) -> Any:
    from asynctrace.collector.fleet._requests import received_of as read
    from asynctrace.stream import Message

    return read(scanner, Message(records=400, body=body))


def asked(url: str, query: str) -> str:
    parts = urllib.parse.urlsplit(url)
    user, password = (urllib.parse.unquote(each or "") for each in (parts.username, parts.password))
    where = f"http://{parts.hostname}:{parts.port}/?database={parts.path.strip('/')}"
    headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": password}
    with urllib.request.urlopen(urllib.request.Request(where, query.encode(), headers), timeout=DEADLINE) as answer:
        return answer.read().decode().strip()


def costs() -> Costs:
    with tempfile.TemporaryDirectory() as folder, clickhouse_of_the_tests().ClickHouse(Path(folder) / "ch") as server:
        store = store_costs(server)
        kilobyte, replica = kilobyte_of_a_master(folder)
        found = through_the_fleet(folder, server)
    ingest, worker = Line(found["ingest"]), Line(found["worker"])
    message_bytes = found["bytes"][400]
    return Costs(
        ingest_request=ingest.fixed,
        ingest_span=ingest.each,
        master_message=max(1.0, found["master"][20] - kilobyte * 20 * message_bytes / 1024),
        master_kilobyte=kilobyte,
        replica_milliseconds=replica,
        worker_message=worker.fixed,
        worker_span=worker.each,
        message_bytes_of_span=message_bytes,
        **store,
    )


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    cores, load = os.cpu_count(), os.getloadavg()[0]
    return f"{model}, {cores} cores, Linux {platform.release()}, CPython {platform.python_version()}; load {load:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="into costs.json")
    write = parser.parse_args().write
    rounded = {name: float(f"{value:.3g}") for name, value in msgspec.structs.asdict(costs()).items()}
    document = {"command": "python benchmarks/capacity/measure.py --write", "machine": machine(), "costs": rounded}
    text = json.dumps(document, indent=2) + "\n"
    if write:
        (HERE / "costs.json").write_text(text)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
