"""The page about endings has the rows of the table, and promises what they promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .table import COUNTED, DELIVERED, LOST, ROWS, Row

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "how-a-process-ends.md"
WORDS = {DELIVERED: "delivered", COUNTED: "counted", LOST: "lost"}


def promises(page: str) -> dict[str, str]:
    """What the page says of a tracer in memory, by ending."""
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| ")]
    return {ending: cells[1] for cells in rows for ending in re.findall(r"`([^`]+)`", cells[0])}


def wrong(page: str, rows: list[Row]) -> list[str]:
    said = promises(page)
    endings = {row: row.ending.removesuffix(", loop never started") for row in rows}
    return [row.ending for row in rows if WORDS[row.outcome] not in said.get(endings[row], "")]


def test_the_page_promises_what_is_tested() -> None:
    rows = [row for row in ROWS if "SIGQUIT" not in row.ending]
    assert wrong(PAGE.read_text(), rows) == []


@pytest.mark.parametrize(
    "page",
    ["", "| `return` | lost | … |\n", "| `returns` | delivered | … |\n"],
    ids=["empty", "another promise", "no row"],
)
def test_a_page_that_says_something_else_is_noticed(page: str) -> None:
    assert wrong(page, [ROWS[0]]) == ["return"]
