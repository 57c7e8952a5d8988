"""The reference names everything there is: public names, options, variables, endings, errors, events."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import asynctrace
from asynctrace import _errors, collector, exporters, middleware, opentelemetry, processes, testing
from asynctrace._fleet_settings import SETTINGS
from asynctrace.tracing import Limits

REPOSITORY = Path(__file__).parents[2]
REFERENCE = REPOSITORY / "docs" / "reference"
SOURCE = REPOSITORY / "src" / "asynctrace"


def unnamed(names: set[str], page: str) -> set[str]:
    """Names that do not stand in the page as code."""
    code = set(re.findall(r"[\w.]+", " ".join(re.findall(r"`([^`\n]+)`", page))))
    words = code | {part for name in code for part in name.split(".")}
    return {name for name in names if name not in words}


def names_of_options() -> set[str]:
    names = set(inspect.signature(asynctrace.Tracer).parameters)
    return names | set(Limits.__struct_fields__) | set(asynctrace.DeliveryOptions.__struct_fields__)


def variables() -> set[str]:
    readers = ("runtime/_environment.py", "cli.py", "_fleet_settings.py")
    text = "".join((SOURCE / name).read_text() for name in readers)
    of_otlp = {f"OTEL_EXPORTER_OTLP_{name}" for name in re.findall(r'_otlp\("(\w+)"\)', text)}
    return of_otlp | set(re.findall(r'"((?:OTEL|ASYNCTRACE|XDG)_[A-Z_]*[A-Z]|NO_COLOR)"', text))


def events() -> set[str]:
    said = r'\.(?:debug|info|warning|error)\(\s*"([a-z_]+\.[a-z_]+)"'
    return {event for path in SOURCE.rglob("*.py") for event in re.findall(said, path.read_text())}


def members_of_statistics() -> set[str]:
    return set(asynctrace.Statistics.__struct_fields__) | set(asynctrace.LaneStatistics.__struct_fields__)


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("api.md", set(asynctrace.__all__)),
        ("api.md", set(exporters.__all__) - {"KeptBatch", "OTLPStatistics"}),
        ("api.md", set(middleware.__all__)),
        ("api.md", set(opentelemetry.__all__)),
        ("api.md", set(processes.__all__)),
        ("api.md", {"capture_spans", "assert_tree", "tree_text", "FaultServer", "ManualClock", "SeededIds"}),
        ("api.md", members_of_statistics()),
        ("options-and-limits.md", names_of_options()),
        ("environment.md", variables()),
        ("endings-and-attributes.md", {ending.value for ending in asynctrace.Ending}),
        ("errors.md", set(_errors.__all__)),
        ("diagnostics.md", events()),
    ],
    ids=[
        "api",
        "exporters",
        "middleware",
        "opentelemetry",
        "processes",
        "testing",
        "statistics",
        "options",
        "variables",
        "endings",
        "errors",
        "events",
    ],
)
def test_a_reference_page_names_everything_there_is(page: str, names: set[str]) -> None:
    assert names
    assert unnamed(names, (REFERENCE / page).read_text()) == set()


def test_the_flags_of_ingest_worker_and_view_stand_in_the_reference_with_their_variables() -> None:
    rows = (REFERENCE / "cli.md").read_text()
    variables = (REFERENCE / "environment.md").read_text()
    for setting in {each for settings in SETTINGS.values() for each in settings}:
        default = f"`{setting.default}`" if setting.default else ""
        assert f"| `{setting.flag} {setting.metavar}` | {default} | {setting.help} |" in rows
        assert f"| `{setting.variable}` | `{setting.flag}` |" in variables


def test_defaults_in_the_reference_are_those_of_the_code() -> None:
    page = (REFERENCE / "options-and-limits.md").read_text()
    assert wrong_defaults(page) == []


def wrong_defaults(page: str) -> list[str]:
    """Rows `| `name` | default | …` of `Limits` and `DeliveryOptions` whose number is not the code's."""
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d_.]+) \|", page, re.MULTILINE))
    defaults = {
        name: getattr(made, name)
        for made in (Limits(), asynctrace.DeliveryOptions())
        for name in made.__struct_fields__
    }
    return [name for name, default in defaults.items() if float(rows.get(name, "nan").replace("_", "")) != default]


def test_a_name_that_is_not_there_and_a_wrong_default_are_found() -> None:
    assert unnamed({"flush", "shutdown"}, "call `tracer.flush()` and shutdown") == {"shutdown"}
    assert "depth" in wrong_defaults("| `depth` | 17 | …")
    assert "depth" not in wrong_defaults("| `depth` | 16 | …")


def test_the_collectors_and_kits_names_can_be_imported() -> None:
    for module in (collector, testing):
        assert [name for name in module.__all__ if not hasattr(module, name)] == []
