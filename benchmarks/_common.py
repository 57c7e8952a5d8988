"""What every benchmark shares: the sink, rounds in fresh processes, verdicts, and the JSON that comes out.

A benchmark is one script with one question. It measures in processes of its own (`--child`), compares
ratios that were taken in interleaved rounds (asynctrace, peer, asynctrace, peer, …), and prints one JSON
document: the figures with what they must and should be, every round behind them, the machine, the
interpreter and the versions. A round in which a span is missing at the sink has no figure: it raises.

    python benchmarks/cpu_end_to_end.py            # minutes: what docs/reference/benchmarks.md shows
    python benchmarks/cpu_end_to_end.py --quick    # seconds: the order of magnitude
"""

from __future__ import annotations

import argparse
import contextlib
import enum
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import _contenders
import msgspec

__all__ = [
    "HERE",
    "Benchmark",
    "Figure",
    "Incomplete",
    "Report",
    "RunningSink",
    "Scale",
    "Task",
    "Verdict",
    "environment",
    "interleaved",
    "main",
    "median_ratio",
    "open_sink",
    "percentile",
    "resident_bytes",
    "run_child",
]

HERE = Path(__file__).parent
CHILD_TIMEOUT = 240.0
"""Seconds; a peer may retry for a minute before it gives up."""

T = TypeVar("T")


class Incomplete(RuntimeError):
    """Spans were missing (or there twice) at the sink: the round measured something else."""


class Scale(enum.StrEnum):
    """How long to measure."""

    FULL = "full"
    QUICK = "quick"
    TINY = "tiny"

    def pick(self, full: T, quick: T, tiny: T) -> T:
        """The one that fits this scale."""
        return {Scale.FULL: full, Scale.QUICK: quick, Scale.TINY: tiny}[self]


class Verdict(enum.StrEnum):
    """What a figure says about its bounds."""

    AIM = "aim met"
    MUST = "must met"
    SHORT = "aim missed"
    """There is an aim and no must."""
    MISSED = "must missed"
    INFORMATION = "for orientation"


class Figure(msgspec.Struct, kw_only=True, omit_defaults=False):
    """One measured number and what it has to be."""

    name: str
    measured: float
    unit: str
    must: float | None = None
    aim: float | None = None
    better: str = "lower"
    """`lower` or `higher`."""
    note: str = ""
    verdict: Verdict = Verdict.INFORMATION

    def __post_init__(self) -> None:
        self.verdict = self._judge()

    def _judge(self) -> Verdict:
        if self.must is not None and not self._reaches(self.must):
            return Verdict.MISSED
        if self.aim is not None:
            return Verdict.AIM if self._reaches(self.aim) else self._below_aim()
        return Verdict.INFORMATION if self.must is None else Verdict.MUST

    def _below_aim(self) -> Verdict:
        return Verdict.SHORT if self.must is None else Verdict.MUST

    def _reaches(self, bound: float) -> bool:
        return self.measured <= bound if self.better == "lower" else self.measured >= bound


class Report(msgspec.Struct, kw_only=True):
    """What one benchmark prints."""

    benchmark: str
    question: str
    scale: Scale
    figures: list[Figure]
    details: dict[str, Any]
    environment: dict[str, Any]


class Task(msgspec.Struct, kw_only=True):
    """What a process of a benchmark is asked to do."""

    contender: str
    origin: str = ""
    options: dict[str, Any] = {}


class Benchmark(msgspec.Struct, kw_only=True):
    """One question: `measure` asks it in the parent, `child` is what its processes run."""

    question: str
    measure: Callable[[Scale], tuple[list[Figure], dict[str, Any]]]
    child: Callable[[Task], Awaitable[dict[str, Any]]] | None = None


def main(benchmark: Benchmark, script: str) -> None:
    """The command line of a benchmark: measure and print, or be one of its processes."""
    parser = argparse.ArgumentParser(description=benchmark.question)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--tiny", action="store_true", help="only to see that it runs")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        print(json.dumps(_be_child(benchmark, msgspec.json.decode(given.child, type=Task))))
        return
    scale = Scale.TINY if given.tiny else Scale.QUICK if given.quick else Scale.FULL
    figures, details = benchmark.measure(scale)
    report = Report(
        benchmark=Path(script).stem,
        question=benchmark.question,
        scale=scale,
        figures=figures,
        details=details,
        environment=environment(),
    )
    print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())


def _be_child(benchmark: Benchmark, task: Task) -> dict[str, Any]:
    import asyncio

    if benchmark.child is None:
        raise SystemExit("this benchmark starts no process of this kind")
    return asyncio.run(_awaited(benchmark.child(task)))


async def _awaited(work: Awaitable[T]) -> T:
    return await work


def run_child(script: str, task: Task, **environment_changes: str) -> dict[str, Any]:
    """Run one process of `script` and return the JSON of its last line.

    Raises `RuntimeError` with what it wrote to standard error when it fails.
    """
    command = [sys.executable, script, "--child", msgspec.json.encode(task).decode()]
    clean = _contenders.clean_environment(task.contender, task.origin) | environment_changes
    finished = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=CHILD_TIMEOUT, check=False)
    if finished.returncode:
        raise RuntimeError(f"{task.contender} ended with {finished.returncode}:\n{finished.stderr[-4000:]}")
    answer: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return answer


class RunningSink:
    """The sink's process, seen from outside."""

    def __init__(self, origin: str) -> None:
        self.origin = origin

    def stats(self) -> dict[str, int]:
        """What has arrived so far: `spans`, `distinct`, `span_bytes`, `requests`, `refused`."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.origin}/stats", timeout=120) as answer:
            stats: dict[str, int] = json.load(answer)
        return stats

    def expect(self, spans: int) -> dict[str, int]:
        """The stats, after every one of `spans` was seen exactly once; otherwise `Incomplete`."""
        stats = self.stats()
        if stats["spans"] != spans or stats["distinct"] != spans:
            raise Incomplete(f"{stats['spans']} spans with {stats['distinct']} ids arrived, {spans} were made")
        return stats


@contextlib.contextmanager
def open_sink(*options: str) -> Iterator[RunningSink]:
    """Start a sink with command-line `options` of `_sink.py`, end it afterwards."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "_sink.py"), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield RunningSink(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


def interleaved(
    contenders: Sequence[str], rounds: int, measure: Callable[[str], float]
) -> dict[str, list[tuple[float, float]]]:
    """For each peer, `rounds` pairs (asynctrace, peer) measured directly after one another."""
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name in contenders:
            ours = measure("asynctrace")
            pairs[name].append((ours, measure(name)))
    return pairs


def percentile(values: Sequence[float], fraction: float) -> float:
    """The smallest value that at least `fraction` of `values` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(fraction * len(ordered)) - 1))]


def resident_bytes() -> int:
    """This process's resident memory, after a collection (Linux)."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def median_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """The median of asynctrace / peer over the pairs."""
    return statistics.median(ours / theirs for ours, theirs in pairs)


def environment() -> dict[str, Any]:
    """The machine, the interpreter and the versions that were measured."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "versions": {name: _version(name) for name in (*_packages(), "aiohttp", "msgspec", "anyio")},
    }


def _packages() -> list[str]:
    return [kind.package for kind in _contenders.CONTENDERS.values()]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
