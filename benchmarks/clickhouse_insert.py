"""How many rows does a worker put into ClickHouse in a second of its own CPU time?

A process reads OTLP requests of 512 spans (850 bytes each, with a prompt and an answer), as a worker does, and adds blocks
of about 20,000 rows to a ClickHouse store: under a token, each acknowledged before the next. What counts is the user and
system time of that process. The peer reads the same requests and inserts the same fields as JSONEachRow, encoded by msgspec,
over the same client with the same compression. The server is a real one where `chdb-core` is installed, with all tables and
views; elsewhere something that takes bodies and throws them away.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _collectors
import msgspec
from _common import HERE, Benchmark, Figure, Incomplete, Scale, Task, main, median_ratio, run_child

from asynctrace._serve_command import COLLECTED_AFTER
from asynctrace.collector._rows import Received
from asynctrace.collector.clickhouse._client import Client
from asynctrace.collector.clickhouse._compression import best_compression
from asynctrace.collector.clickhouse._migrate import bring_up_to_date
from asynctrace.collector.clickhouse._writing import Writing
from asynctrace.collector.receiving._scan import Scanner

MUST = 50_000
AIM = 80_000
RATIO_AIM = 2.0
REQUESTS_IN_A_BLOCK = 40
OURS, PEER = "Native", "JSONEachRow"
FLAT = "CREATE TABLE IF NOT EXISTS flat ({columns}) ENGINE = MergeTree ORDER BY (trace_id, span_id)"
DISCARD = """
import http.server
class Discards(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Discards)
print(server.server_port, flush=True)
server.serve_forever()
"""

COLUMNS = (
    *(
        "trace_id",
        "span_id",
        "parent_id",
        "name",
        "kind",
        "start_ns",
        "end_ns",
        "status",
        "resource",
        "scope",
        "message",
    ),
    *(
        "tokens",
        "ending",
        "type",
        "input",
        "output",
        "session",
        "user",
        "model",
        "input_tokens",
        "output_tokens",
        "cost",
    ),
    *("events", "links", "dropped"),
)
NUMBERS = {"kind", "start_ns", "end_ns", "status", "input_tokens", "output_tokens", "events", "links", "dropped"}
TYPES = {"tokens": "Array(UInt64)", "cost": "Float64", **dict.fromkeys(NUMBERS, "Int64")}


def as_json(received: list[Received]) -> bytes:
    """The rows of some requests, a line for each."""
    lines = []
    for each in received:
        origins = [
            (base64.b64encode(one.resource).decode(), base64.b64encode(one.scope).decode()) for one in each.origins
        ]
        for row in each.rows:
            facts = row.facts
            values = (
                *(
                    row.trace_id.hex(),
                    row.span_id.hex(),
                    row.parent_id.hex(),
                    row.name,
                    row.kind,
                    row.start_ns,
                    row.end_ns,
                ),
                *(row.status, *origins[row.origin], base64.b64encode(row.message).decode()),
                *([int.from_bytes(token, "little") for token in facts.tokens], facts.ending, facts.type, facts.input),
                *(facts.output, facts.session, facts.user, facts.model, facts.input_tokens, facts.output_tokens),
                *(facts.cost, facts.events, facts.links, facts.dropped),
            )
            lines.append(dict(zip(COLUMNS, values, strict=True)))
    return msgspec.json.Encoder().encode_lines(lines)


async def child(task: Task) -> dict[str, Any]:
    """Read and insert `options["requests"]`; the CPU seconds of it."""
    gc.set_threshold(*COLLECTED_AFTER)  # as the program does
    client = Client(task.origin, timeout=120.0)
    store, compress = Writing(client), best_compression()
    bodies = _collectors.bodies(task.options["requests"], task.options["seed"])
    scanner, rows = Scanner(), 0
    inserting = 0.0
    cpu, clock = time.process_time(), time.monotonic()
    for first in range(0, len(bodies), REQUESTS_IN_A_BLOCK):
        block = [_read(scanner, body) for body in bodies[first : first + REQUESTS_IN_A_BLOCK]]
        rows += sum(len(each.rows) for each in block)
        inserting -= time.process_time()
        if task.options["form"] == PEER:
            client.insert("INSERT INTO flat FORMAT JSONEachRow", compress(as_json(block)), encoding=compress.encoding)
        else:
            store.add(block, f"{task.options['seed']} {first}")
        inserting += time.process_time()
    seconds = time.process_time() - cpu
    clock = time.monotonic() - clock
    client.close()
    return {"rows": rows, "cpu": rows / seconds, "inserting": rows / inserting, "clock": rows / clock}


def _read(scanner: Scanner, body: bytes) -> Received:
    intake = scanner.request(body)
    return Received(origins=intake.origins, rows=intake.rows, size=len(body))


@contextlib.contextmanager
def real_server() -> Iterator[str]:
    """The URL of a database with the store's tables and the peer's."""
    sys.path.insert(0, str(HERE.parent))
    from tests.clickhouse_server import ClickHouse

    with tempfile.TemporaryDirectory() as directory, ClickHouse(Path(directory)) as server:
        url = server.database()
        client = Client(url)
        bring_up_to_date(client)
        client.change(FLAT.format(columns=", ".join(f"{name} {TYPES.get(name, 'String')}" for name in COLUMNS)))
        client.close()
        yield url


@contextlib.contextmanager
def discarding_server() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", DISCARD], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"clickhouse://127.0.0.1:{int(process.stdout.readline())}/benchmark"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def expect(url: str, rows: int) -> None:
    """Every row is there once, in each table."""
    client = Client(url)
    for table in ("spans", "span_io", "arrivals"):
        stored = int(client.ask(f"SELECT uniqExact(trace_id, span_id) FROM {table}"))
        if stored != rows:
            raise Incomplete(f"{stored} of {rows} rows are in {table}")
    client.close()


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    requests = scale.pick(400, 80, 2)
    has_server = importlib.util.find_spec("chdb") is not None and scale is not Scale.TINY
    pairs: list[tuple[float, float]] = []
    rounds: list[dict[str, Any]] = []
    with (real_server if has_server else discarding_server)() as url:
        rows = 0
        for seed in range(1, scale.pick(5, 2, 1) + 1):
            options = {"requests": requests, "seed": seed}
            ours, theirs = (
                run_child(__file__, Task(contender="asynctrace", origin=url, options={**options, "form": form}))
                for form in (OURS, PEER)
            )
            rows += ours["rows"]
            pairs.append((ours["inserting"], theirs["inserting"]))
            rounds += [ours, theirs]
        if has_server:
            expect(url, rows)
    figures = [
        Figure(
            name="rows read and inserted for each CPU second of a worker, quickest round",
            measured=max(each["cpu"] for each in rounds[::2]),
            unit="rows/s",
            must=MUST,
            aim=AIM,
            better="higher",
            note="850 B with prompt and answer" if has_server else "into nothing: ClickHouse is not installed",
        ),
        Figure(name="only inserted", measured=max(ours for ours, _ in pairs), unit="rows/s", better="higher"),
        Figure(
            name="only inserted, against JSONEachRow",
            measured=median_ratio(pairs),
            unit="x",
            aim=RATIO_AIM,
            better="higher",
        ),
        Figure(
            name="of the clock, one after the other",
            measured=statistics.median(each["clock"] for each in rounds[::2]),
            unit="rows/s",
            better="higher",
        ),
    ]
    return figures, {"rounds": rounds}


if __name__ == "__main__":
    question = "How many rows does a worker put into ClickHouse in a second of its own CPU time?"
    main(Benchmark(question=question, measure=measure, child=child), __file__)
