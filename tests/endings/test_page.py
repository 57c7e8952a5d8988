"""The page about endings has the rows of the table, and promises what they promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from . import servers_table
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


# In servers --------------------------------------------------------------------------------------------------------


def promises_of_servers(page: str) -> dict[str, dict[str, str]]:
    """What the page says of servers: by ending, by server."""
    _, _, section = page.partition("\n## In servers\n")
    lines = [line.split("|")[1:-1] for line in section.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in cells] for cells in lines]
    head = rows[0][1:] if rows else []
    return {cells[0]: dict(zip(head, cells[1:], strict=True)) for cells in rows[1:]}


def table_of_servers() -> dict[str, dict[str, str]]:
    return {row.ending: {server: str(cell or "—") for server, cell in row.cells.items()} for row in servers_table.ROWS}


def test_the_page_promises_of_servers_what_is_tested() -> None:
    assert promises_of_servers(PAGE.read_text()) == table_of_servers()


@pytest.mark.parametrize(
    ("says", "instead"),
    [("itself, `cancelled`", "itself, `lost`"), ("| os._exit |", "| os.exit |"), ("## In servers", "## Servers")],
    ids=["another promise", "another row", "no section"],
)
def test_a_page_that_says_something_else_of_servers_is_noticed(says: str, instead: str) -> None:
    page = PAGE.read_text().replace(says, instead, 1)
    assert promises_of_servers(page) != table_of_servers()
