"""Two traces side by side: which spans are the same, which changed, which only one of them has, and where they first part.

Spans are paired from the roots down: among the children of a pair, in order of their start, the longest common sequence of
(name, type). A pair is *changed* when its ending, model, input or output differ; times, tokens and cost are told, not judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Any, Final, TypeAlias

from ...wire import decode_span
from ..query._match import ending_of
from ._detail import text_of
from ._skeleton import parents
from ._view import Whole

__all__ = ["compare_traces"]

MOST_COMPARED: Final = 4_000_000
"""Pairs of siblings beyond which they are paired by their number instead of by their sequence."""

Pair: TypeAlias = tuple[int | None, int | None, int]
"""Index in the one, in the other, depth."""


class _Side:
    """One of the two."""

    def __init__(self, whole: Whole) -> None:
        self.whole = whole
        self.children: dict[int, list[int]] = {}
        for index, parent in enumerate(parents(whole)):
            self.children.setdefault(max(parent, -1), []).append(index)
        for several in self.children.values():
            several.sort(key=lambda index: (whole.rows[index].start_ns, index))

    def below(self, index: int) -> list[int]:
        return self.children.get(index, [])

    def key(self, index: int) -> tuple[str, str]:
        row = self.whole.rows[index]
        return (row.name, row.facts.type)


def compare_traces(a: Whole, b: Whole) -> dict[str, Any]:
    """As `GET /api/v1/diff` answers."""
    left, right = _Side(a), _Side(b)
    rows: list[dict[str, Any]] = []
    first: dict[str, Any] | None = None
    path: list[str] = []
    for one, other, depth in _pairs(left, right):
        what = _difference(a, one, b, other)
        row = _row(a, one, b, other, depth, what)
        rows.append(row)
        path[depth:] = [row["name"]]
        if what and first is None:
            first = {"path": list(path), "a": one, "b": other, "what": what}
    counted = Counter(row["state"] for row in rows)
    return {
        "a": a.summary,
        "b": b.summary,
        "first": first,
        "counts": {state: counted[state] for state in ("same", "changed", "only_a", "only_b")},
        "rows": rows,
        "totals": {
            "duration": [a.summary.duration, b.summary.duration],
            "spans": [a.summary.spans, b.summary.spans],
            "tokens": [_tokens(a), _tokens(b)],
            "cost": [a.summary.cost, b.summary.cost],
        },
    }


# ── pairing ─────────────────────────────────────────────────────────────────────────────────────────────────


def _pairs(left: _Side, right: _Side) -> Iterator[Pair]:
    """Every span once, parents before children."""
    waiting = _siblings(left, left.below(-1), right, right.below(-1), 0)[::-1]
    while waiting:
        pair = waiting.pop()
        yield pair
        one, other, depth = pair
        mine = left.below(one) if one is not None else []
        theirs = right.below(other) if other is not None else []
        waiting += _siblings(left, mine, right, theirs, depth + 1)[::-1]


def _siblings(left: _Side, mine: list[int], right: _Side, theirs: list[int], depth: int) -> list[Pair]:
    if len(mine) * len(theirs) > MOST_COMPARED:
        return _by_number(left, mine, right, theirs, depth)
    matcher = SequenceMatcher(None, list(map(left.key, mine)), list(map(right.key, theirs)), autojunk=False)
    pairs: list[Pair] = []
    for kind, a1, a2, b1, b2 in matcher.get_opcodes():
        if kind == "equal":
            pairs += [(one, other, depth) for one, other in zip(mine[a1:a2], theirs[b1:b2], strict=True)]
        else:
            pairs += [(one, None, depth) for one in mine[a1:a2]]
            pairs += [(None, other, depth) for other in theirs[b1:b2]]
    return pairs


def _by_number(left: _Side, mine: list[int], right: _Side, theirs: list[int], depth: int) -> list[Pair]:
    """The third `x` of one with the third `x` of the other."""
    waiting: dict[tuple[str, str], list[int]] = {}
    for other in reversed(theirs):
        waiting.setdefault(right.key(other), []).append(other)
    pairs: list[Pair] = []
    for one in mine:
        others = waiting.get(left.key(one))
        pairs.append((one, others.pop() if others else None, depth))
    return pairs + [(None, other, depth) for others in waiting.values() for other in reversed(others)]


# ── judging ─────────────────────────────────────────────────────────────────────────────────────────────────


def _difference(a: Whole, one: int | None, b: Whole, other: int | None) -> str:
    """What differs, in words; empty for the same."""
    if one is None or other is None:
        return "only in b" if one is None else "only in a"
    mine, theirs = a.rows[one], b.rows[other]
    before, after = ending_of(mine), ending_of(theirs)
    if before != after:
        return f"ending: {before} → {after}"
    if mine.facts.model != theirs.facts.model:
        return f"model: {mine.facts.model or 'none'} → {theirs.facts.model or 'none'}"
    span, counterpart = decode_span(mine.message), decode_span(theirs.message)
    differing = [side for side in ("input", "output") if text_of(span, side) != text_of(counterpart, side)]
    return f"{' and '.join(differing)} differ{'s' if len(differing) == 1 else ''}" if differing else ""


def _row(a: Whole, one: int | None, b: Whole, other: int | None, depth: int, what: str) -> dict[str, Any]:
    row = a.rows[one] if one is not None else b.rows[other or 0]
    state = "only_b" if one is None else "only_a" if other is None else "changed" if what else "same"
    return {
        "a": one,
        "b": other,
        "depth": depth,
        "name": row.name,
        "state": state,
        "what": what,
        "duration": [_duration(a, one), _duration(b, other)],
        "tokens": [_of(a, one, "input_tokens", "output_tokens"), _of(b, other, "input_tokens", "output_tokens")],
        "cost": [_of(a, one, "cost"), _of(b, other, "cost")],
    }


def _duration(whole: Whole, index: int | None) -> float | None:
    if index is None or not whole.rows[index].end_ns:
        return None
    return max(0, whole.rows[index].end_ns - whole.rows[index].start_ns) / 1e9


def _of(whole: Whole, index: int | None, *fields: str) -> float | None:
    return None if index is None else sum(getattr(whole.rows[index].facts, field) for field in fields)


def _tokens(whole: Whole) -> int:
    return whole.summary.input_tokens + whole.summary.output_tokens
