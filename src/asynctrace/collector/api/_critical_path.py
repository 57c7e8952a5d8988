"""Which spans a trace waited for.

    from the end of a span back to its start: the child that ended last *before that moment* was awaited; what lies before
    that child's start is asked in the same way; the rest is the span's own time

So of the branches of a `gather` the one that ended last is on the path; a child that outlives its parent was not awaited,
and is not.
"""

from __future__ import annotations

from typing import Any

from ._skeleton import ROOT, parents
from ._view import Whole

__all__ = ["critical_path"]


def critical_path(whole: Whole, now_ns: int) -> list[dict[str, Any]]:
    """The spans on the path with the part that counts, microseconds after the start of the trace, by start."""
    ends = [row.end_ns or whole.heard.get(index, 0) or now_ns for index, row in enumerate(whole.rows)]
    children = _children(whole, ends)
    top = _top(whole)
    waiting = [(top, ends[top])] if top is not None else []
    path: list[tuple[int, int, int]] = []
    seen = set()
    while waiting:
        index, until = waiting.pop()
        if index in seen:
            continue
        seen.add(index)
        start = whole.rows[index].start_ns
        path.append((start, until, index))
        moment = until
        for child in children.get(index, ()):
            if ends[child] <= moment and ends[child] > start:
                waiting.append((child, ends[child]))
                moment = whole.rows[child].start_ns
            if moment <= start:
                break
    path.sort(key=lambda part: (part[0], -part[1]))
    t0 = whole.summary.start_ns
    return [
        {"index": index, "start": (start - t0) // 1000, "end": (until - t0) // 1000} for start, until, index in path
    ]


def _children(whole: Whole, ends: list[int]) -> dict[int, list[int]]:
    """By parent, the one that ended last first."""
    children: dict[int, list[int]] = {}
    for index, parent in enumerate(parents(whole)):
        if parent >= 0:
            children.setdefault(parent, []).append(index)
    for several in children.values():
        several.sort(key=lambda child: (ends[child], whole.rows[child].start_ns), reverse=True)
    return children


def _top(whole: Whole) -> int | None:
    """The earliest root; where there is none, the earliest span."""
    parent = parents(whole)
    roots = [index for index in range(len(whole.rows)) if parent[index] == ROOT] or list(range(len(whole.rows)))
    return min(roots, key=lambda index: whole.rows[index].start_ns, default=None)
