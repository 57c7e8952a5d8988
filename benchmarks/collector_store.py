"""What does it cost to keep a span where it can be found again, and how long does it take to find it?

A million spans with prompts in them (about 800 bytes each, `_prompts.py`) are added in groups of 4,096, by the embedded store
and, in turns, by the usual form: one row for each span, attributes as JSON, three indexes. CPU is that of the thread that
adds; making the spans is not counted. Then the store is asked what a page asks. A time is the quickest of five: the machine
is shared. The store lies in a temporary directory (`TMPDIR` chooses the disk).
"""

from __future__ import annotations

import contextlib
import resource
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from _common import Benchmark, Figure, Scale, Task, main, run_child
from _prompts import CUSTOMERS, Prompts

from asynctrace.collector import SQLiteStore
from asynctrace.collector._rows import Received
from asynctrace.collector.query import parse
from asynctrace.collector.store import Bounds

MUST_BYTES = 450.0
"""On disk for a span of 850 bytes."""
MUST_MS = 50.0
"""A page of the list, and a search by an attribute."""
AIM_SPANS = 90_000.0
"""For each second of CPU."""
MUST_TEXT_SECONDS = 3.0
TRIES = 5

ROWS = """
CREATE TABLE span (trace_id BLOB, span_id BLOB, parent_id BLOB, name TEXT, service TEXT, kind INTEGER,
    start_ns INTEGER, end_ns INTEGER, status INTEGER, attributes TEXT);
CREATE UNIQUE INDEX span_by_id ON span (trace_id, span_id);
CREATE INDEX span_by_start ON span (start_ns);
CREATE INDEX span_by_name ON span (name, start_ns);
"""


class Kept(Protocol):
    def add(self, request: Received, as_json: list[str]) -> None: ...

    def size(self) -> int: ...


class Segments:
    """The embedded store."""

    def __init__(self, directory: Path) -> None:
        self.store = SQLiteStore(directory)

    def add(self, request: Received, as_json: list[str]) -> None:
        self.store.add([request])

    def size(self) -> int:
        return self.store.statistics().size


class Rows:
    """The usual form."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.connection = sqlite3.connect(directory / "rows.db", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.executescript(ROWS)

    def add(self, request: Received, as_json: list[str]) -> None:
        services = [origin.service for origin in request.origins]
        rows = [
            (row[0], row[1], row[2], row[3], services[row[8]], row[4], row[5], row[6], row[7], text)
            for row, text in zip(request.rows, as_json, strict=True)
        ]
        self.connection.execute("BEGIN")
        self.connection.executemany("INSERT INTO span VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self.connection.execute("COMMIT")

    def size(self) -> int:
        return sum(path.stat().st_size for path in self._directory.iterdir())


FORMS: dict[str, Callable[[Path], Any]] = {"asynctrace": Segments, "a row for each span": Rows}


@contextlib.contextmanager
def filled(form: str, spans: int) -> Iterator[tuple[Any, dict[str, Any]]]:
    prompts = Prompts()
    with tempfile.TemporaryDirectory() as directory:
        kept = FORMS[form](Path(directory))
        cpu = added = size = 0.0
        while added < spans:
            request = prompts.request()
            before = time.thread_time()
            kept.add(request, prompts.as_json)
            cpu += time.thread_time() - before
            added += len(request.rows)
            size += sum(len(row.message) for row in request.rows)
        yield (
            kept,
            {
                "spans": added,
                "message": size / added,
                "cpu_us": cpu / added * 1e6,
                "disk": kept.size() / added,
                "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            },
        )


def quickest(ask: Callable[[], Any]) -> float:
    """Milliseconds."""
    times = []
    for _ in range(TRIES):
        before = time.perf_counter()
        ask()
        times.append((time.perf_counter() - before) * 1e3)
    return min(times)


async def child(task: Task) -> dict[str, Any]:
    """Fill one form, and ask it."""
    with filled(task.options["form"], task.options["spans"]) as (kept, figures):
        if task.options.get("ask"):
            figures |= ask_segments(kept.store) if isinstance(kept, Segments) else ask_rows(kept.connection)
        return figures


def ask_segments(store: SQLiteStore) -> dict[str, Any]:
    first = store.runs(50)

    def search(text: str) -> Callable[[], Any]:
        query = parse(text)
        return lambda: store.search(query, 50)

    asked = {
        "list": quickest(lambda: store.runs(50)),
        "next page": quickest(lambda: store.runs(50, first.cursor)),
        "attribute, rare": quickest(search(f"attr.customer.id=c{CUSTOMERS // 2}")),
        "attribute, nowhere": quickest(search("attr.customer.id=nobody")),
        "attribute, everywhere": quickest(search("attr.deployment.environment.name=production")),
        "name and status": quickest(search("name:chat* status:error")),
        "session": quickest(search("session:s77")),
        "a trace": quickest(lambda: store.spans_of(first.traces[0].trace_id)),
        "percentiles by name": quickest(lambda: store.stats("name")),
        "sessions": quickest(lambda: store.sessions(50)),
    }
    text = scan(store)
    swept, seconds = unlink(store)
    return {"ms": asked, "text": text, "unlink": {"bytes": swept, "seconds": seconds}}


def scan(store: SQLiteStore) -> dict[str, Any]:
    """Look for a text that is nowhere, page after page."""
    query, cursor, pages = parse('text:"nowhere to be found"'), None, []
    scanned = 0
    before, cpu = time.perf_counter(), time.thread_time()
    while True:
        begun = time.perf_counter()
        page = store.search(query, 50, cursor)
        pages.append(time.perf_counter() - begun)
        scanned += page.scanned or 0
        if (cursor := page.cursor) is None:
            break
    seconds, cpu = time.perf_counter() - before, time.thread_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "spans": scanned, "pages": len(pages), "longest page": max(pages)}


def unlink(store: SQLiteStore) -> tuple[int, float]:
    """Let the oldest segment go."""
    store.bounds = Bounds(size=store.statistics().size)
    before = time.perf_counter()
    swept = store.sweep()
    return swept.size, time.perf_counter() - before


def ask_rows(connection: sqlite3.Connection) -> dict[str, Any]:
    rows = {
        "list": "SELECT * FROM span WHERE parent_id = x'' ORDER BY start_ns DESC LIMIT 50",
        "attribute, rare": f'SELECT trace_id FROM span WHERE attributes LIKE \'%"customer.id":"c{CUSTOMERS // 2}"%\'',
    }
    return {
        "ms": {name: quickest(lambda query=query: connection.execute(query).fetchall()) for name, query in rows.items()}
    }


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    spans, rounds = scale.pick((1_000_000, 3), (150_000, 3), (4_096, 1))
    pairs = []
    for number in range(rounds):
        options = {"spans": spans if number == 0 else min(spans, 200_000), "ask": number == 0}
        tasks = [Task(contender="asynctrace", options={"form": form, **options}) for form in FORMS]
        pairs.append([run_child(__file__, task) for task in tasks])
    ours, theirs = pairs[0]
    ratio = statistics.median(mine["cpu_us"] / other["cpu_us"] for mine, other in pairs)
    best = min(mine["cpu_us"] for mine, _ in pairs)
    text = ours["text"]
    per_million = text["cpu"] / max(1, text["spans"]) * 1e6
    slower = f"{theirs['ms']['attribute, rare']:.0f} ms with a row for each span"
    return [
        Figure(name="CPU of adding a span / a row for each span", measured=ratio, unit="times",
               note="with the index of attributes, previews and percentiles, which rows have not"),
        Figure(name="spans added in a second of CPU", measured=1e6 / best, unit="spans", aim=AIM_SPANS, better="higher",
               note=f"a row for each span: {1e6 / min(other['cpu_us'] for _, other in pairs):,.0f}"),
        Figure(name=f"disk for a span of {ours['message']:.0f} bytes", measured=ours["disk"], unit="bytes",
               must=scale.pick(MUST_BYTES, None, None),  # what does not grow with the spans weighs more on fewer
               note=f"a row for each span: {theirs['disk']:.0f}"),
        Figure(name="a page of the list", measured=ours["ms"]["list"], unit="ms", must=MUST_MS),
        Figure(name="the next page", measured=ours["ms"]["next page"], unit="ms", must=MUST_MS),
        *(
            Figure(name=f"search by an {kind}", measured=ours["ms"][kind], unit="ms", must=MUST_MS,
                   note=slower if kind == "attribute, rare" else "")
            for kind in ("attribute, rare", "attribute, nowhere", "attribute, everywhere")
        ),
        *(
            Figure(name=kind, measured=ours["ms"][kind], unit="ms")
            for kind in ("name and status", "session", "a trace", "percentiles by name", "sessions")
        ),
        Figure(name="text that is nowhere, CPU for a million spans", measured=per_million, unit="s", must=MUST_TEXT_SECONDS,
               note=f"in {text['pages']} pages, the longest {text['longest page']:.1f} s"),
        Figure(name="unlinking a segment", measured=ours["unlink"]["seconds"], unit="s",
               note=f"{ours['unlink']['bytes'] / 2**20:.0f} MB"),
        Figure(name="resident memory while adding", measured=ours["rss"], unit="MB",
               note=f"a row for each span: {theirs['rss']:.0f}; both with what makes the spans"),
    ], {"pairs": pairs}  # fmt: skip


if __name__ == "__main__":
    main(
        Benchmark(
            question="What does it cost to keep a span where it can be found again, and how long until it is found?",
            measure=measure,
            child=child,
        ),
        __file__,
    )
