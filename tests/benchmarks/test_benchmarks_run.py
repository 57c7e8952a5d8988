"""The benchmarks run, say what they measured, and cannot call a loss a result.

No absolute time is asserted here: what the figures must be is judged by `python benchmarks/run.py`.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem != "run" and path.stem[0] != "_")
VERDICTS = {"aim met", "must met", "aim missed", "must missed", "for orientation"}
TINY_TIMEOUT = 120
"""Seconds: a hung script fails; a slow machine does not."""

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
pytest.importorskip("aiozipkin")


@pytest.fixture
def benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    loaded = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in set(sys.modules) - loaded:
        if name.startswith("_") and (BENCHMARKS / f"{name}.py").exists():
            del sys.modules[name]


@pytest.fixture
def common(benchmarks_on_path: None) -> ModuleType:
    return _load("_common")


@pytest.fixture
def run(benchmarks_on_path: None) -> ModuleType:
    return _load("run")


def _load(name: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if name.startswith("_"):
        sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _answer(script: Path, *options: str) -> dict[str, Any]:
    finished = subprocess.run(
        [sys.executable, str(script), *options],
        capture_output=True,
        text=True,
        timeout=TINY_TIMEOUT,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def missing_fields(report: dict[str, Any]) -> set[str]:
    """The fields a report needs and does not have, a figure's as `figures.<field>`."""
    expected = {"benchmark", "question", "scale", "figures", "details", "environment"}
    of_figure = {"name", "measured", "unit", "must", "aim", "better", "note", "verdict"}
    of_environment = {"python", "system", "processor", "cores", "load", "versions"}
    return (
        (expected - report.keys())
        | {f"figures.{field}" for figure in report.get("figures", []) for field in of_figure - figure.keys()}
        | {f"environment.{field}" for field in of_environment - report.get("environment", {}).keys()}
    )


def test_every_script_is_run_and_every_run_script_exists(run: ModuleType) -> None:
    assert sorted(run.BENCHMARKS) == SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_benchmark_prints_its_figures_as_json(script: str) -> None:
    if script in ("fleet_rates", "stream_append") and shutil.which("redis-server") is None:
        pytest.skip("needs redis-server (Debian: redis-server)")
    report = _answer(BENCHMARKS / f"{script}.py", "--tiny")
    assert missing_fields(report) == set()
    assert report["benchmark"] == script
    assert report["scale"] == "tiny"
    assert report["figures"]
    assert {figure["verdict"] for figure in report["figures"]} <= VERDICTS
    assert any(figure["must"] is not None for figure in report["figures"])
    assert "not installed" not in report["environment"]["versions"].values()


def test_a_report_without_its_versions_is_noticed() -> None:
    figure = {
        "name": "a",
        "measured": 1.0,
        "unit": "ms",
        "must": None,
        "aim": None,
        "better": "lower",
        "note": "",
    }
    report = {
        "benchmark": "a",
        "question": "?",
        "scale": "tiny",
        "figures": [figure],
        "details": {},
        "environment": {},
    }
    assert {"figures.verdict", "environment.versions"} <= missing_fields(report)


@pytest.mark.parametrize(
    ("measured", "must", "aim", "better", "verdict"),
    [
        (1.0, 2.0, 1.5, "lower", "aim met"),
        (1.7, 2.0, 1.5, "lower", "must met"),
        (2.1, 2.0, 1.5, "lower", "must missed"),
        (12.0, 8.0, 12.0, "higher", "aim met"),
        (7.9, 8.0, 12.0, "higher", "must missed"),
        (99.0, None, 100.0, "higher", "aim missed"),
        (5.0, None, None, "lower", "for orientation"),
    ],
)
def test_a_figure_is_judged_by_its_bounds(
    common: ModuleType, measured: float, must: float | None, aim: float | None, better: str, verdict: str
) -> None:
    figure = common.Figure(name="f", measured=measured, unit="times", must=must, aim=aim, better=better)
    assert figure.verdict == verdict


class _Post:
    """A sender of one span, which may lose it or send it twice."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __call__(self, origin: str) -> None:
        body = json.dumps([{"id": "00000000000000a1"}]).encode()
        for _ in range(self.times):
            urllib.request.urlopen(urllib.request.Request(f"{origin}/api/v2/spans", body), timeout=10).close()


def test_a_round_in_which_everything_arrived_once_counts(common: ModuleType) -> None:
    with common.open_sink() as sink:
        _Post(times=1)(sink.origin)
        assert sink.expect(1)["distinct"] == 1


@pytest.mark.parametrize("times", [0, 2], ids=["lost", "doubled"])
def test_a_round_with_a_lost_or_doubled_span_has_no_figure(common: ModuleType, times: int) -> None:
    with common.open_sink() as sink:
        _Post(times)(sink.origin)
        with pytest.raises(common.Incomplete):
            sink.expect(1)


def test_refused_spans_are_not_counted_as_delivered(common: ModuleType) -> None:
    with common.open_sink("--unavailable", "60") as sink:
        with pytest.raises(urllib.error.HTTPError) as refused:
            _Post(times=1)(sink.origin)
        refused.value.close()
        stats = sink.stats()
    assert (stats["distinct"], stats["refused"]) == (0, 1)


def _fake_benchmarks(folder: Path, verdict: str) -> None:
    figure = {"name": "f", "measured": 3.0, "unit": "times", "must": 2.0 if verdict == "must missed" else 4.0}
    report = {
        "benchmark": "import_cost",
        "question": "?",
        "scale": "quick",
        "figures": [figure],
        "details": {},
        "environment": {
            "python": "CPython",
            "system": "Linux",
            "processor": "one",
            "cores": 2,
            "load": 0.1,
            "versions": {"asynctrace": "1"},
        },
    }
    for shared in ("run.py", "_common.py", "_contenders.py"):
        (folder / shared).write_text((BENCHMARKS / shared).read_text())
    (folder / "import_cost.py").write_text(f"print({json.dumps(json.dumps(report))})")


@pytest.mark.parametrize(
    ("verdict", "options", "status"),
    [("must met", (), 0), ("must missed", (), 1), ("must missed", ("--no-fail",), 0)],
)
def test_a_missed_must_fails_the_run(tmp_path: Path, verdict: str, options: tuple[str, ...], status: int) -> None:
    _fake_benchmarks(tmp_path, verdict)
    page = tmp_path / "page.md"
    command = [
        sys.executable,
        str(tmp_path / "run.py"),
        "--only",
        "import_cost",
        "--quick",
        "--output",
        str(page),
    ]
    finished = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == status, finished.stderr
    assert verdict in finished.stdout
    assert verdict in page.read_text()


def test_a_benchmark_without_a_result_fails_the_run_and_writes_no_page(tmp_path: Path) -> None:
    _fake_benchmarks(tmp_path, "must met")
    (tmp_path / "import_cost.py").write_text("raise SystemExit('no sink')")
    page = tmp_path / "page.md"
    command = [sys.executable, str(tmp_path / "run.py"), "--only", "import_cost", "--output", str(page)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 1
    assert "no sink" in finished.stderr
    assert not page.exists()
