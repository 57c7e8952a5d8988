"""A trace as columns: what a page needs to draw its tree, and nothing of what a span holds.

Indexes stand for spans, small numbers for texts, distances for times: 100,000 spans are 0.4 MB compressed. Times are
microseconds; `start` is the distance to the span before it, of the first one to `t0`.

    names      what the numbers in `name` mean, for the whole trace: each text keeps its number; the others likewise
    parent     index, -1: a root, -2: not there (`missing` has its id)
    duration   -1: open, -2: lost
    moved      spans before `first` whose parent has arrived since: {index: parent}
    seen       for open and lost spans: microseconds after `t0` at which they were last heard of
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from ...wire import decode_scope
from .._rows import EMPTY, SpanRow
from ..query._match import ending_of
from ..query._terms import ENDINGS
from ._view import Whole

__all__ = [
    "LOST",
    "OPEN",
    "ROOT",
    "Mark",
    "Numbering",
    "completeness",
    "duration_of",
    "ending_at",
    "mark",
    "parents",
    "skeleton",
]

Mark = tuple[int, int, int, str, int]

ROOT: Final = -1
NOT_THERE: Final = -2
OPEN: Final = -1
LOST: Final = -2


SPARSE: Final = ("missing", "tokens", "cost", "model", "links", "flags")


class Numbering:
    """What the numbers of a skeleton stand for. It grows with its trace: what was numbered keeps its number."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.types: dict[str, int] = {}
        self.services: dict[str, int] = {}
        self.scopes: dict[str, int] = {}
        self.endings = _numbers(ENDINGS)  # a span that changes changes its ending, and no number
        self.places: dict[bytes, int] = {}
        self.parent: list[int] = []
        self.orphans = 0
        self.logs: Counter[bytes] = Counter()
        self._logs = 0
        self._service_of: list[int] = []
        self._scope_of: list[int] = []
        self._waiting: dict[bytes, list[int]] = {}

    def extend(self, whole: Whole) -> list[int]:
        """Number what is new. Returns the spans that were there before their parents, which have come now."""
        for origin in whole.origins[len(self._service_of) :]:
            self._service_of.append(_number(self.services, origin.service))
            self._scope_of.append(_number(self.scopes, decode_scope(origin.scope).name))
        for log in whole.logs[self._logs :]:
            self.logs[log.span_id] += 1
        self._logs = len(whole.logs)
        first = len(self.parent)
        new = whole.rows[first:]
        self.places.update((row.span_id, index) for index, row in enumerate(new, first))
        self.parent += [self.places.get(row.parent_id, NOT_THERE) if row.parent_id else ROOT for row in new]
        for index, row in enumerate(new, first):
            self.number(row)
            if self.parent[index] == NOT_THERE:
                self.orphans += 1
                self._waiting.setdefault(row.parent_id, []).append(index)
        return [index for row in new if row.span_id in self._waiting for index in self._adopted(row.span_id)]

    def keep_texts(self, before: Numbering) -> None:
        """Texts that had numbers have them still."""
        self.names, self.types, self.endings = before.names, before.types, before.endings
        self.services, self.scopes = before.services, before.scopes

    def number(self, row: SpanRow) -> None:
        """The texts of one span."""
        _number(self.names, row.name)
        _number(self.types, row.facts.type)

    def columns(self, whole: Whole, after: int) -> dict[str, list[Any]]:
        """Columns of texts from index `after` on, and what their numbers mean, for the whole trace."""
        shown = whole.rows[after:]
        endings = [_number(self.endings, ending_at(whole, index)) for index in range(after, len(whole.rows))]
        return {
            "names": list(self.names),
            "types": list(self.types),
            "services": list(self.services),
            "scopes": list(self.scopes),
            "endings": list(self.endings),
            "name": [self.names[row.name] for row in shown],
            "type": [self.types[row.facts.type] for row in shown],
            "service": [self._service_of[row.origin] for row in shown],
            "scope": [self._scope_of[row.origin] for row in shown],
            "ending": endings,
        }

    def _adopted(self, span_id: bytes) -> list[int]:
        """The spans that waited for this one; those that came with it found it themselves."""
        waited = self._waiting.pop(span_id)
        for index in waited:
            self.parent[index] = self.places[span_id]
        self.orphans -= len(waited)
        return waited


def skeleton(
    whole: Whole, after: int = 0, numbering: Numbering | None = None, changed: Sequence[int] | None = None
) -> dict[str, Any]:
    """The columns of the spans from index `after` on. `numbering` knows the trace already; `changed` are the spans before
    `after` that became something else since, whose parents may have come: what only some spans have is said of them too."""
    if numbering is None:
        numbering = Numbering()
        numbering.extend(whole)
    rows, parent = whole.rows, numbering.parent
    after = min(max(after, 0), len(rows))
    t0_ns = whole.summary.start_ns
    shown = rows[after:]
    told = [*(changed or ()), *range(after, len(rows))]
    starts = [(row.start_ns - t0_ns) // 1000 for row in shown]
    return {
        "trace_id": whole.summary.trace_id,
        "version": whole.version,
        "order": whole.order,
        "count": len(rows),
        "first": after,
        "t0_ns": t0_ns,
        "t0_ms": t0_ns / 1e6,
        **numbering.columns(whole, after),
        "status": [row.status for row in shown],
        "kind": [row.kind for row in shown],
        "start": [start - before for start, before in zip(starts, [0, *starts], strict=False)],
        "duration": [duration_of(whole, index) for index in range(after, len(rows))],
        "parent": parent[after:],
        **_sparse(whole, told, parent),
        "moved": {
            index: parent[index] for index in (range(after) if changed is None else changed) if parent[index] >= after
        },
        "logs": _logs(whole, told, numbering.logs),
        "seen": {index: (whole.heard[index] - t0_ns) // 1000 for index in told if index in whole.heard},
        "summary": whole.summary,
        "completeness": completeness(whole, numbering.orphans),
    }


def _numbers(texts: Iterable[str]) -> dict[str, int]:
    """Texts in the order of their first use."""
    return {text: number for number, text in enumerate(dict.fromkeys(texts))}


def _number(numbers: dict[str, int], text: str) -> int:
    return numbers.setdefault(text, len(numbers))


def _sparse(whole: Whole, told: Iterable[int], parent: list[int]) -> dict[str, dict[int, Any]]:
    """What only some spans have, by index."""
    columns: dict[str, dict[int, Any]] = {key: {} for key in SPARSE}
    rows = whole.rows
    for index in told:
        row, facts = rows[index], rows[index].facts
        if parent[index] == NOT_THERE:
            columns["missing"][index] = row.parent_id.hex()
        elif parent[index] >= 0 and row.start_ns < rows[parent[index]].start_ns - 1000:
            columns["flags"][index] = "skewed"
        if facts is EMPTY:
            continue
        if facts.input_tokens or facts.output_tokens:
            columns["tokens"][index] = (facts.input_tokens, facts.output_tokens)
        for key, value in (("cost", facts.cost), ("model", facts.model), ("links", facts.links)):
            if value:
                columns[key][index] = value
    return columns


def parents(whole: Whole) -> list[int]:
    """The index of each span's parent."""
    places = {row.span_id: index for index, row in enumerate(whole.rows)}
    return [places.get(row.parent_id, NOT_THERE) if row.parent_id else ROOT for row in whole.rows]


def duration_of(whole: Whole, index: int) -> int:
    """Microseconds, or `OPEN`, or `LOST`."""
    row = whole.rows[index]
    if row.end_ns:
        return max(0, row.end_ns - row.start_ns) // 1000
    return LOST if index in whole.lost else OPEN


def ending_at(whole: Whole, index: int) -> str:
    """How the span ended: `open`, `lost`, `interrupted`, …"""
    if index in whole.lost:
        return "interrupted" if index in whole.interrupted else "lost"
    return ending_of(whole.rows[index])


def mark(whole: Whole, index: int, parent: int) -> Mark:
    """What can change of a span: index, duration, status, ending, the index of its parent."""
    return (index, duration_of(whole, index), whole.rows[index].status, ending_at(whole, index), parent)


def completeness(whole: Whole, orphans: int) -> dict[str, int]:
    """What is missing, as far as anybody said."""
    summary = whole.summary
    return {
        "dropped": summary.dropped,
        "late": summary.late,
        "orphaned": orphans,
        "open": summary.open,
        "lost": summary.lost,
    }


def _logs(whole: Whole, told: Iterable[int], of_span: Counter[bytes]) -> dict[int, int]:
    """How many events and log records each span has."""
    counted = ((index, whole.rows[index]) for index in told)
    return {index: many for index, row in counted if (many := row.facts.events + of_span[row.span_id])}
