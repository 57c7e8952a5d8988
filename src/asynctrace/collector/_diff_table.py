"""Two traces side by side as text: what `asynctrace diff` prints.

Promises: no line is wider than `width`, from 60 columns on; nothing that comes from a span can move the cursor.

      agent run                                         1.20 s   1.90 s  +0.70 s
    ~ ├ chat            output differs                  0.80 s   1.50 s  +0.70 s
    - ├ search          only in a                      12.0 ms
    + └ fetch           only in b                               0.10 s
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .._tree import _clip, _columns, _duration, _safe

__all__ = ["render_diff"]

SIGNS: Final = {"same": " ", "changed": "~", "only_a": "-", "only_b": "+"}
NUMBER_COLUMNS: Final = 8
DEEPEST: Final = 12
"""Levels that are indented."""


def render_diff(diff: Mapping[str, Any], *, width: int = 80, everything: bool = False) -> str:
    """What `GET /api/v1/diff` answers, as lines without a newline at the end: where the two part, the spans that differ
    and what is above them (with `everything` all spans), and the sums."""
    rows = diff["rows"] if everything else _differing(diff["rows"])
    lines = [_first(diff["first"], width), *(_line(row, width) for row in rows), *_sums(diff, width)]
    return "\n".join(line.rstrip() for line in lines)


def _differing(rows: list[Any]) -> list[Any]:
    """The rows that are not the same, and their ancestors."""
    kept: list[Any] = []
    depth = 0
    for row in reversed(rows):
        if row["state"] != "same" or row["depth"] < depth:
            kept.append(row)
            depth = row["depth"]
    return kept[::-1]


def _first(first: Mapping[str, Any] | None, width: int) -> str:
    if first is None:
        return "no difference"
    path = " › ".join(_safe(name, width) for name in first["path"])  # noqa: RUF001
    return _clip(f"first difference: {path}: {_safe(first['what'], width)}", width)


def _line(row: Mapping[str, Any], width: int) -> str:
    a, b = row["duration"]
    numbers = "".join(f"{text:>{NUMBER_COLUMNS + 1}}" for text in (_seconds(a), _seconds(b), _change(a, b)))
    left = f"{SIGNS[row['state']]} {'  ' * min(row['depth'], DEEPEST)}{_safe(row['name'], width) or '(no name)'}"
    what = f"  {_safe(row['what'], width)}" if row["what"] else ""
    room = width - len(numbers)
    name_room = max(16, room - _columns(what)) if what else room
    shown = _clip(_clip(left, name_room) + what, room)
    return shown + " " * (room - _columns(shown)) + numbers


def _sums(diff: Mapping[str, Any], width: int) -> list[str]:
    """One line, or two where one has no room for both."""
    counts, totals = diff["counts"], diff["totals"]
    cost = totals["cost"][1] - totals["cost"][0]
    spans = f"{counts['same']} same, {counts['changed']} changed, {counts['only_a']} only in a, {counts['only_b']} only in b"
    changes = " · ".join(
        (
            f"{_change(*totals['duration']) or '±0'} time",
            f"{totals['tokens'][1] - totals['tokens'][0]:+} tokens",
            f"{'-' if cost < 0 else '+'}${abs(cost):.4g}",
        )
    )
    both = f"{spans} · {changes}"
    return [both] if _columns(both) <= width else [_clip(spans, width), _clip(changes, width)]


def _seconds(value: float | None) -> str:
    return "" if value is None else _duration(round(value * 1e9))


def _change(a: float | None, b: float | None) -> str:
    if a is None or b is None:
        return ""
    change = round((b - a) * 1e9)
    return f"{'+' if change >= 0 else '-'}{_duration(abs(change))}"
