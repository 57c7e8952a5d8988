"""Every page does what it says: its code runs, prints what stands below it, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ._pages import PageError, anchors_of, blocks_of, links_of, run_page, same_output

if TYPE_CHECKING:
    from .conftest import RunningCollector

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
NEED_REDIS = {"write-straight-to-the-stream.md"}
"""Their code is run beside a server, in tests/stream."""
WITH_CODE = [page for page in PAGES if page.name not in NEED_REDIS and blocks_of(page.read_text())]
HOW_TOS = sorted((DOCS / "how-to").glob("*.md"))


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_the_code_of_a_page_does_what_the_page_says(page: Path, tmp_path: Path, collector: RunningCollector) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    run_page(page.read_text(), folder, endpoint=collector.endpoint, state=collector.state)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in links_of(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target.read_text())):
            broken.append(link)
    return broken


def test_every_page_can_be_reached_from_the_index() -> None:
    assert unreached(DOCS) == set()


def unreached(docs: Path) -> set[str]:
    waiting, seen = [docs / "index.md"], set[Path]()
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links_of(page.read_text())]
    return {str(page.relative_to(docs)) for page in docs.rglob("*.md") if page not in seen}


@pytest.mark.parametrize("page", HOW_TOS, ids=name_of)
def test_a_how_to_says_how_to_verify_and_what_to_do_if_it_does_not_work(page: Path) -> None:
    assert missing_parts(page.read_text()) == []


def missing_parts(page: str) -> list[str]:
    headings = " ".join(anchors_of(page))
    wanted = {"verify": "verify", "if it does not work": "if-it-does-not"}
    missing = [part for part, anchor in wanted.items() if anchor not in headings]
    return missing if blocks_of(page) else [*missing, "a program"]


# The checks themselves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page",
    [
        "```python\nprint('tea')\n```\n\n```text\ncoffee\n```\n",
        "```python\nraise SystemExit('gone')\n```\n",
        "```python\nimport warnings\nwarnings.warn('old')\n```\n",
        "```console\n$ echo tea\ncoffee\n```\n",
        "```console\n$ false\n```\n",
        "```python\n# test_it.py\ndef test_it():\n    assert 0\n```\n",
    ],
    ids=["other output", "an error", "a warning", "other output of a command", "a command fails", "a test fails"],
)
def test_a_page_that_does_not_do_what_it_says_is_found(page: str, tmp_path: Path) -> None:
    with pytest.raises(PageError):
        run_page(page, tmp_path)


def test_a_page_that_does_what_it_says_runs_all_its_blocks(tmp_path: Path) -> None:
    page = (
        "```python\n# tea.py\nprint('tea', 12)\n```\n\n```text\ntea …\n```\n```console\n$ python tea.py\ntea 12\n```\n"
    )
    assert run_page(page, tmp_path) == 2


@pytest.mark.parametrize(
    ("expected", "printed", "is_same"),
    [
        ("took 3 ms", "took 41.5 ms", True),
        ("a   b", "a b", True),
        ("id 0123456789abcdef", "id fedcba9876543210", True),
        ("a … c", "a b b c", True),
        ("accepted=2", "accepted=3", False),
        ("a", "a\nb", False),
    ],
)
def test_outputs_compare_but_for_what_differs_from_run_to_run(expected: str, printed: str, is_same: bool) -> None:
    assert same_output(expected, printed) is is_same


def test_a_broken_link_or_anchor_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# There\n")
    page = tmp_path / "a.md"
    page.write_text("[a](b.md#there) [b](b.md#gone) [c](gone.md) [d](https://example.org) `[e](x)`\n")
    assert broken_links(page) == ["b.md#gone", "gone.md"]


def test_a_page_that_no_other_leads_to_is_found(tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text("[a](a.md)")
    (tmp_path / "a.md").write_text("a")
    (tmp_path / "lost.md").write_text("b")
    assert unreached(tmp_path) == {"lost.md"}


def test_a_how_to_without_its_parts_is_found() -> None:
    assert missing_parts("# Do it\n\n## Verify\n") == ["if it does not work", "a program"]
