"""Which tests have the purpose to show that a check notices: their names say so. `nox -s mutants` runs them, and prints what
was broken and what noticed it.

The rule: a name with one of the words `notices`, `noticed`, `caught`, `catches`, or one that ends with `notice`.
`tests/architecture/test_mutants_are_named.py` holds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

__all__ = ["MARKER", "is_about_a_mutant", "mark", "table"]

MARKER = "mutants"
_WORDS = re.compile(r"_(?:(?:notices|noticed|caught|catches)(?:_|$)|notice$)")
_OTHER_MEANING = {
    "test_without_a_loop_notices_wait_and_can_be_told_in_place",
    "test_any_damaged_byte_is_noticed",
}


def is_about_a_mutant(name: str) -> bool:
    """Whether a test function of this name shows that a check notices."""
    return bool(_WORDS.search(name)) and name not in _OTHER_MEANING


def mark(items: Iterable[pytest.Item]) -> None:
    for item in items:
        if is_about_a_mutant(getattr(item, "originalname", item.name)):
            item.add_marker(MARKER)


def table(outcomes: Iterable[tuple[str, str]]) -> list[str]:
    """Lines, from (test id, outcome)."""
    rows = sorted((*_broken(node), outcome) for node, outcome in outcomes)
    width = max([len("mutant"), *(len(mutant) for mutant, _, _ in rows)])
    return [
        f"{mutant:{width}}  {'survived' if outcome == 'failed' else outcome:8}  {test}"
        for mutant, test, outcome in [("mutant", "test", ""), *rows]
    ]


def _broken(node: str) -> tuple[str, str]:
    """(what is broken, the test that has to notice): the test's parameters, else what its name says."""
    test, _, parameters = node.partition("[")
    name = test.rpartition("::")[2]
    return parameters.removesuffix("]") or name.removeprefix("test_").replace("_", " "), test
