"""Run every benchmark, print what must be, what should be and what was measured, and write the results page.

    python benchmarks/run.py            # about fifteen minutes; writes docs/reference/benchmarks.md
    python benchmarks/run.py --quick    # about three minutes; writes nothing

Exit status 1: a "must" was missed, or a benchmark had no result; with `--no-fail` both are only reported.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from _common import HERE, Figure, Report, Verdict

__all__ = ["BENCHMARKS", "main", "page", "table"]

BENCHMARKS = (
    "cpu_end_to_end",
    "opentelemetry_bridge",
    "application_cost",
    "disabled_cost",
    "throughput",
    "burst",
    "memory",
    "loop_lag",
    "journal_cost",
    "journal_stalls",
    "journal_append",
    "collector_store",
    "asgi_request",
    "aiohttp_request",
    "import_cost",
    "collector_ingest",
    "fleet_rates",
    "collector_idle",
    "collector_deaths",
    "stream_append",
    "clickhouse_insert",
)
"""In the order of the budget; each is a script beside this one."""

PAGE = HERE.parent / "docs" / "reference" / "benchmarks.md"
BENCHMARK_TIMEOUT = 1800.0
"""Seconds."""

HEADINGS = ("what", "must", "aim", "measured", "verdict", "remarks")
INTRODUCTION = """# Benchmarks

This page is written by `python benchmarks/run.py`; do not edit it.

The budget is one of ratios: every ratio was taken in interleaved rounds on one machine, each round in
processes of its own, and its median is shown, for CPU end to end the quickest. Rounds in which a span was
missing at the far side do not count. Absolute numbers are for orientation. How each figure is taken is
described at the head of its script in `benchmarks/`.
"""


def main() -> int:
    given = _arguments()
    reports, failures = _run_all(given.only or BENCHMARKS, quick=given.quick)
    figures = [figure for report in reports for figure in report.figures]
    print(table(figures))
    for name, reason in failures.items():
        print(f"\n{name} has no result: {reason}", file=sys.stderr)
    if reports and not failures:
        _write(given.output or (None if given.quick or given.only else PAGE), reports)
    missed = any(figure.verdict is Verdict.MISSED for figure in figures)
    return 1 if (missed or failures) and not given.no_fail else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run every benchmark and judge the figures.")
    parser.add_argument("--quick", action="store_true", help="minutes instead of a quarter of an hour")
    parser.add_argument("--no-fail", action="store_true", help="exit 0 also when a must is missed")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="one benchmark; may be repeated")
    parser.add_argument("--output", type=Path, help="where the page goes (default: only a whole, full run writes it)")
    return parser.parse_args()


def _write(output: Path | None, reports: Sequence[Report]) -> None:
    if output is None:
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page(reports), encoding="utf-8")
    print(f"\nwritten: {output}")


def _run_all(names: Sequence[str], *, quick: bool) -> tuple[list[Report], dict[str, str]]:
    reports, failures = [], {}
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            reports.append(_run(name, quick=quick))
        except (RuntimeError, subprocess.TimeoutExpired, msgspec.DecodeError) as error:
            failures[name] = str(error)
    return reports, failures


def _run(name: str, *, quick: bool) -> Report:
    command = [sys.executable, str(HERE / f"{name}.py"), *(["--quick"] if quick else [])]
    finished = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=BENCHMARK_TIMEOUT,
        check=False,
    )
    if finished.returncode:
        raise RuntimeError(finished.stderr.strip()[-2000:] or f"exit status {finished.returncode}")
    return msgspec.json.decode(finished.stdout, type=Report)


def table(figures: Iterable[Figure]) -> str:
    """The figures as a Markdown table with aligned columns."""
    rows = [HEADINGS, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def _row(figure: Figure) -> tuple[str, ...]:
    sign = "≤" if figure.better == "lower" else "≥"
    bounds = ("" if bound is None else f"{sign} {_number(bound)}" for bound in (figure.must, figure.aim))
    measured = f"{_number(figure.measured)} {figure.unit}"
    return (figure.name, *bounds, measured, str(figure.verdict), figure.note)


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def page(reports: Sequence[Report]) -> str:
    """The results page: the machine, then each question with its table."""
    parts = [INTRODUCTION, _described(reports)]
    for report in reports:
        command = f"python benchmarks/{report.benchmark}.py" + ("" if report.scale == "full" else " --quick")
        parts.append(f"## {report.question}\n\n{table(report.figures)}\n\n    {command}\n")
    return "\n".join(parts)


def _described(reports: Sequence[Report]) -> str:
    measured = reports[0].environment
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    loads = ", ".join(str(report.environment["load"]) for report in reports)
    machine = f"{measured['processor']}, {measured['cores']} cores, {measured['system']}, {measured['python']}"
    scale = "" if all(report.scale == "full" for report in reports) else " Quick rounds: expect ±20 %."
    if max(report.environment["load"] for report in reports) > measured["cores"]:
        scale += " The machine was busy: trust the CPU ratios, not what was measured by the clock on the wall."
    return f"Machine: {machine}.\nVersions: {versions}.\nLoad average after each benchmark: {loads}.{scale}\n"


if __name__ == "__main__":
    raise SystemExit(main())
