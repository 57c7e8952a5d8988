"""The typing file uses every public name, so that none can lose its types unnoticed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import asynctrace
import asynctrace.exporters
import asynctrace.middleware
import asynctrace.processes
import asynctrace.testing

SOURCE = (Path(__file__).parent / "api.py").read_text()
FAULTS_LIKE_THE_ONES_SHOWN = {
    "AcceptThenReset",
    "Delay",
    "Exchange",
    "Fault",
    "Garbage",
    "HalfClose",
    "Hang",
    "OutOfOrder",
    "PartialSuccess",
    "Redirect",
    "RejectWhen",
    "ResetBeforeResponse",
    "ResetMidBody",
    "StallMidBody",
    "TooLargeOver",
    "Truncated",
}


def used_names(source: str) -> set[str]:
    """Names that are read, alone or as `asynctrace.name`; an import alone is no use."""
    return {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name)
        or (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "asynctrace")
    }


def missing_names(source: str) -> set[str]:
    modules = (asynctrace, asynctrace.exporters, asynctrace.middleware, asynctrace.processes, asynctrace.testing)
    public = {name for module in modules for name in module.__all__}
    return public - used_names(source) - FAULTS_LIKE_THE_ONES_SHOWN


def test_every_public_name_is_used_with_its_types() -> None:
    assert missing_names(SOURCE) == set()


@pytest.mark.parametrize("name", ["Receipt", "flush_sync", "OTLPExporter", "patch_threads", "capture_spans"])
def test_a_name_that_is_only_imported_is_noticed(name: str) -> None:
    imported_only = SOURCE.replace(name, "object") + f"\nfrom asynctrace import {name}\n"
    assert name in missing_names(imported_only)
