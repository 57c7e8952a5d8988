"""A test that expects a check to fail is named so that `nox -s mutants` runs it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from ..mutants import is_about_a_mutant

TESTS = Path(__file__).parents[1]

ALSO_ANOTHER_PURPOSE = {
    "test_a_reader_sees_what_was_appended_before",
    "test_a_span_left_open_is_named",
    "test_after_the_timeout_it_is_refused",
    "test_any_difference_fails_and_shows_both_pictures",
    "test_close_stores_what_is_staged",
    "test_on_ready_is_called_at_wake_at_neither_earlier_nor_later",
    "test_the_check_reads_what_is_open_now",
}
"""They hold a promise, or one of the kit's, and show in passing that the check notices."""


def unnamed(source: str) -> Iterator[str]:
    """Tests in which something has to raise an `AssertionError`, and whose name does not say so."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            expects = any(_expects_a_check_to_fail(inner) for inner in ast.walk(node))
            if expects and not is_about_a_mutant(node.name):
                yield node.name


def _expects_a_check_to_fail(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "raises":
        return False
    return any(isinstance(name, ast.Name) and name.id == "AssertionError" for name in ast.walk(node))


def test_who_expects_a_check_to_fail_says_so_in_its_name() -> None:
    found = {name for path in TESTS.rglob("test_*.py") for name in unnamed(path.read_text(encoding="utf-8"))}
    assert found <= ALSO_ANOTHER_PURPOSE, sorted(found - ALSO_ANOTHER_PURPOSE)


def test_the_rule_notices() -> None:
    assert list(unnamed("def test_a():\n    with pytest.raises((AssertionError, ValueError)):\n        check(Wrong)\n"))
    assert not list(
        unnamed("def test_the_check_notices():\n    with pytest.raises(AssertionError):\n        check(Wrong)\n")
    )
