"""The map holds: who imports whom, what is public, what things are called, what `import asynctrace` costs.

Each check is first shown to find what it looks for, in a small tree that breaks its rule.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from ._rules import (
    LATE,
    MAY_IMPORT,
    forbidden_names,
    modules_of,
    rule_breaks,
    unmapped,
    unproved_exports,
)

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "src"
MOST_MODULES = 150
"""What `import asynctrace` may have loaded in all, the interpreter's own modules included."""

PUBLIC_MODULES = [
    "asynctrace",
    "asynctrace.collector",
    "asynctrace.collector.api",
    "asynctrace.collector.clickhouse",
    "asynctrace.collector.fleet",
    "asynctrace.collector.live",
    "asynctrace.collector.page",
    "asynctrace.collector.query",
    "asynctrace.collector.receiving",
    "asynctrace.collector.store",
    "asynctrace.delivery",
    "asynctrace.exporters",
    "asynctrace.middleware",
    "asynctrace.opentelemetry",
    "asynctrace.processes",
    "asynctrace.propagation",
    "asynctrace.runtime",
    "asynctrace.spanlog",
    "asynctrace.spanlog.journal",
    "asynctrace.stream",
    "asynctrace.testing",
    "asynctrace.tracing",
    "asynctrace.wire",
]


def a_tree(folder: Path, files: dict[str, str]) -> Path:
    """A package `asynctrace` of modules, by their paths below it without `.py`."""
    for name, text in files.items():
        path = folder / "asynctrace" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


# Who imports whom ------------------------------------------------------------------------------------------------


def test_every_import_follows_the_map() -> None:
    assert rule_breaks(SOURCE) == []


@pytest.mark.parametrize(
    ("module", "text", "broken"),
    [
        ("wire/span", "import asynctrace", "imports the façade"),
        ("runtime/tracer", "from asynctrace.wire import frame", "imports the façade"),
        ("propagation/w3c", "from ..tracing import TraceContext", "imports tracing"),
        ("propagation/w3c", "from contextvars import ContextVar", "imports contextvars"),
        ("tracing/run", "from ..spanlog import SpanLog", "imports spanlog"),
        ("tracing/run", "def enter():\n    from ..delivery import Lane", "imports delivery"),
        ("tracing/run", "from .. import exporters", "imports exporters"),
        ("tracing/run", "import asyncio", "imports asyncio"),
        ("tracing/run", "def now():\n    import time", "imports time"),
        ("spanlog/log", "from ..delivery._lane import Lane", "imports delivery"),
        ("spanlog/log", "from random import random", "imports random"),
        ("delivery/lane", "from ..tracing import Recorder", "imports tracing"),
        ("delivery/lane", "from ..exporters._otlp import OTLPExporter", "imports exporters"),
        ("exporters/otlp", "from ..tracing._scope import component_var", "imports tracing"),
        ("exporters/otlp", "import os\nos.environ['X']", "reads os.environ"),
        ("exporters/otlp", "from os import getenv", "reads os.environ"),
        ("exporters/__init__", "import aiohttp", "loads with the package"),
        ("runtime/tracer", "import structlog", "loads with the package"),
        ("runtime/tracer", "from ..testing import ManualClock", "imports testing"),
        ("runtime/tracer", "def serve():\n    from ..collector import App", "imports collector"),
        ("collector/app", "from ..cli import main", "imports cli"),
        ("wire/span", "from .._tree import render_tree", "imports _tree"),
        ("pipeline/stage", "", "is not on the map"),
        ("wire/span", "def f(n):\n    assert n > 0", "asserts"),
        ("runtime/tracer", "import sys\nif 'pytest' in sys.modules: ...", "asks for tests"),
    ],
)
def test_an_import_against_the_map_is_found(tmp_path: Path, module: str, text: str, broken: str) -> None:
    breaks = rule_breaks(a_tree(tmp_path, {module: text}))
    assert [found.rpartition(": ")[2] for found in breaks] == [broken]


def test_imports_that_follow_the_map_are_no_breaks(tmp_path: Path) -> None:
    tree = a_tree(
        tmp_path,
        {
            "tracing/run": """
            from typing import TYPE_CHECKING
            from .._errors import MisuseError
            from ..wire import frame
            from ._scope import trace_var
            if TYPE_CHECKING:
                from ..runtime import Tracer
        """,
            "exporters/otlp": "import aiohttp\nimport os\nos.path",
            "runtime/tracer": "def say():\n    import structlog",
        },
    )
    assert rule_breaks(tree) == []


def test_the_map_of_the_rules_names_no_part_twice_over() -> None:
    """A part that may be imported exists in the map itself, so a renamed folder cannot leave a hole."""
    assert {target for targets in MAY_IMPORT.values() for target in targets} <= MAY_IMPORT.keys()


# What is public --------------------------------------------------------------------------------------------------


def test_all_is_what_each_module_makes_public() -> None:
    assert unproved_exports(SOURCE) == []


@pytest.mark.parametrize(
    ("module", "text", "wrong"),
    [
        ("wire/span", "__all__ = ['a']\ndef a(): ...\ndef b(): ...", "wire.span: b is public and not in __all__"),
        ("wire/span", "__all__ = ['gone']", "wire.span: gone is in __all__ and not there"),
        ("wire/span", "class Span: ...", "wire.span: has no __all__"),
        ("wire/__init__", "from .span import a, b\n__all__ = ['a']", "wire: b is public and not in __all__"),
        ("wire/__init__", "from .span import a", "wire: has no __all__"),
    ],
)
def test_an_all_that_says_something_else_is_found(tmp_path: Path, module: str, text: str, wrong: str) -> None:
    assert unproved_exports(a_tree(tmp_path, {module: text})) == [wrong]


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_every_name_in_all_can_be_imported_once(name: str) -> None:
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    assert [wanted for wanted in module.__all__ if not hasattr(module, wanted)] == []


def test_every_folder_is_among_the_public_modules() -> None:
    folders = {
        path.parent.name for path in modules_of(SOURCE).values() if path.read_text() and path.name == "__init__.py"
    }
    assert folders == {name.rpartition(".")[2] for name in PUBLIC_MODULES}


# What things are called ------------------------------------------------------------------------------------------


def test_no_name_uses_a_word_that_says_nothing() -> None:
    assert forbidden_names(SOURCE) == []


@pytest.mark.parametrize(
    ("module", "text", "name"),
    [
        ("wire/span", "class SpanManager: ...", "SpanManager"),
        ("wire/span", "def encode_helper(): ...", "encode_helper"),
        ("wire/span", "def do_send(): ...", "do_send"),
        ("wire/span", "def _perform_send(): ...", "_perform_send"),
        ("wire/span", "def send(data): ...", "data"),
        ("wire/span", "span_info = 1", "span_info"),
        ("wire/span", "class A:\n    def f(self):\n        self.raw_data = 1", "raw_data"),
        ("wire/utils", "", "the module's own name"),
    ],
)
def test_a_word_that_says_nothing_is_found(tmp_path: Path, module: str, text: str, name: str) -> None:
    found = forbidden_names(a_tree(tmp_path, {module: text}))
    assert [one.rpartition(": ")[2] for one in found] == [name]


def test_names_that_only_contain_such_letters_are_fine(tmp_path: Path) -> None:
    tree = a_tree(
        tmp_path, {"wire/span": "metadata = 1\ndef information(): ...\ndef door(): ...\ndef f(exc_info): ..."}
    )
    assert forbidden_names(tree) == []


# The page --------------------------------------------------------------------------------------------------------


def test_the_architecture_page_names_every_folder_and_module() -> None:
    assert unmapped(SOURCE, (REPOSITORY / "ARCHITECTURE.md").read_text()) == []


def test_a_module_that_the_page_does_not_name_is_found(tmp_path: Path) -> None:
    tree = a_tree(
        tmp_path, dict.fromkeys(["wire/__init__", "wire/_span", "tracing/__init__", "tracing/_span_kind"], "")
    )
    assert unmapped(tree, "wire/\n  _span.py\n") == ["tracing/", "_span_kind.py"]


# What importing costs --------------------------------------------------------------------------------------------


def modules_after(statement: str) -> set[str]:
    """What a fresh interpreter has loaded after `statement`, without `.pth` files of the environment."""
    program = f"import sys; sys.path[:0] = {[str(SOURCE), *site_packages()]!r}; {statement}; print(*sys.modules)"
    finished = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    return set(finished.stdout.split())


def site_packages() -> list[str]:
    return [entry for entry in sys.path if entry.endswith("-packages")]


def test_importing_loads_nothing_heavy_and_few_modules(capsys: pytest.CaptureFixture[str]) -> None:
    loaded = modules_after("import asynctrace")
    with capsys.disabled():
        print(f"\n`import asynctrace`: {len(loaded)} modules in all, at most {MOST_MODULES}")
    assert loaded & LATE == set()
    assert len(loaded) <= MOST_MODULES
    assert "asynctrace" in loaded


def test_a_tracer_that_sends_nothing_loads_nothing_heavy() -> None:
    loaded = modules_after("import asynctrace; asynctrace.Tracer(exporters=[])")
    assert "asynctrace.runtime" in loaded
    assert loaded & LATE == set()


def test_a_tracer_without_a_journal_loads_nothing_of_one() -> None:
    loaded = modules_after("import asynctrace; asynctrace.Tracer(exporters=[], journal=False)")
    assert {name for name in loaded if name.startswith("asynctrace.spanlog.journal")} == set()


def test_a_tracer_that_loads_the_journal_is_noticed() -> None:
    loaded = modules_after("import asynctrace; asynctrace.Tracer(exporters=[], journal='state')")
    assert "asynctrace.spanlog.journal" in loaded


@pytest.mark.parametrize("name", ["aiohttp", "structlog"])
def test_a_heavy_import_would_be_noticed(name: str) -> None:
    loaded = modules_after(f"import asynctrace, {name}")
    assert name in loaded & LATE


def test_the_version_is_told_in_one_place_and_has_a_changelog() -> None:
    import asynctrace

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert f"## {asynctrace.__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_ci_runs_the_command_that_the_readme_gives() -> None:
    command = "python3 -m venv .venv && .venv/bin/pip install nox && .venv/bin/nox"
    assert command in (REPOSITORY / "README.md").read_text().splitlines()
    assert f"{command} || status=$?" in (REPOSITORY / ".ci" / "run").read_text().splitlines()
