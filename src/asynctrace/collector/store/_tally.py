"""The line of one trace while spans arrive: sums, the head, texts for the list.

The *head* of a trace is its earliest root span, or the earliest span while no root is there; it gives the trace its
name, and its previews are shown, else the first that are known. Numbers are counted from the versions that hold; texts
(session, user, model) stay once they are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ..._contracts import Ending, StatusCode
from .._rows import EMPTY, Facts, Origin, SpanRow
from ._chunk import Arrived, columns_of
from ._store import LARGEST

__all__ = ["COLUMNS", "LATE_NS", "Tally", "weight"]

LATE_NS: Final = 10 * 10**9
"""After the root arrived. Senders batch for five seconds; what comes after two batches was held up."""

COLUMNS: Final = (
    *("trace_id", "continues", "chunks", "version", "stored", "root_received_ns", "received_ns"),
    *("start_ns", "end_ns", "spans", "errors", "open", "lost", "late", "dropped", "depth", "head_start"),
    *("name", "service", "ending", "type", "model", "session", "user", "input", "output"),
    *("input_tokens", "output_tokens", "cost"),
)
"""Of the table `trace`, but its number."""

NO_HEAD: Final = 2
NEVER: Final = 2 * LARGEST
"""After every start."""
LOST: Final = Ending.LOST.value
ERROR: Final = int(StatusCode.ERROR)


def weight(row: SpanRow) -> tuple[int, int]:
    """Of two versions of one span the heavier stays: open, closed as lost by a later process, ended; then by the end.

    A process may die after a span ended and before that was written down where its successor looks: the time of its
    last heartbeat, at which the successor lets the span end, may be later than the end itself.
    """
    if not row.end_ns:
        return (0, 0)
    return (1 if row.facts.ending == LOST else 2, row.end_ns)


class Tally:
    """The row of a trace in the segment that is written, and the ids of its spans in all segments."""

    __slots__ = ("is_written", "known", "no", *COLUMNS)

    def __init__(self, no: int, trace_id: bytes) -> None:
        self.no = no
        self.trace_id = trace_id
        self.known: set[bytes] = set()
        self.is_written = False
        self.continues = self.chunks = self.version = self.stored = 0
        self.root_received_ns = self.received_ns = 0
        self.late = 0
        self.start_ns, self.end_ns = NEVER, 0
        self.spans = self.errors = self.open = self.lost = self.dropped = 0
        self.depth, self.head_start = NO_HEAD, LARGEST
        self.name = self.service = self.ending = ""
        self.type = self.model = self.session = self.user = self.input = self.output = ""
        self.input_tokens = self.output_tokens = 0
        self.cost = 0.0

    @classmethod
    def of_row(cls, no: int, row: Sequence[Any]) -> Tally:
        """As it was written: the columns in their order. `known` is the caller's."""
        tally = cls(no, row[0])
        for column, value in zip(COLUMNS, row, strict=True):
            setattr(tally, column, value)
        return tally

    def row(self) -> tuple[Any, ...]:
        """The columns in their order."""
        return (
            *(self.trace_id, self.continues, self.chunks, self.version, self.stored),
            *(self.root_received_ns, self.received_ns),
            *(min(self.start_ns, LARGEST), min(self.end_ns, LARGEST)),
            *(self.spans, self.errors, self.open, self.lost, self.late, self.dropped),
            *(self.depth, min(self.head_start, LARGEST)),
            *(_text(self.name), _text(self.service), _text(self.ending), _text(self.type), _text(self.model)),
            *(_text(self.session), _text(self.user), _text(self.input), _text(self.output)),
            *(min(self.input_tokens, LARGEST), min(self.output_tokens, LARGEST), self.cost),
        )

    def arrived(self, received_ns: int) -> bool:
        """Something of the trace came at that time. Whether spans that come then are late."""
        self.received_ns = max(self.received_ns, received_ns)
        return bool(self.root_received_ns) and received_ns - self.root_received_ns > LATE_NS

    def count(self, arrived: Arrived, origins: Mapping[int, Origin] | Sequence[Origin]) -> None:
        """Add spans that were not there; each says which of `origins` it came from."""
        self.spans += len(arrived.ids)
        self.start_ns = min(self.start_ns, *arrived.starts)
        self.end_ns = max(self.end_ns, *arrived.ends)
        self.open += arrived.ends.count(0)
        self.errors += arrived.statuses.count(ERROR)
        head = self._lead(arrived, origins)
        told = [facts for facts in arrived.facts if facts is not EMPTY]
        if told:
            self._learn(told, head)

    def recount(self, rows: Iterable[SpanRow], origins: Sequence[Origin]) -> None:
        """Count anew, from all spans. What comes from the times of arrival stays."""
        self.start_ns, self.end_ns = NEVER, 0
        self.spans = self.errors = self.open = self.lost = self.dropped = 0
        self.depth, self.head_start = NO_HEAD, LARGEST
        self.input_tokens = self.output_tokens = 0
        self.cost = 0.0
        lines = [(row, row.origin, 0) for row in rows]
        if lines:
            self.count(columns_of(lines), origins)

    def _lead(self, arrived: Arrived, origins: Mapping[int, Origin] | Sequence[Origin]) -> Facts:
        """What the head says, where it is among them; the last of those that began at the same instant."""
        parents, starts = arrived.parents, arrived.starts
        roots = [start for start, parent in zip(starts, parents, strict=True) if not parent]
        depth, first = (0, min(roots)) if roots else (1, min(starts))
        if (depth, first) > (self.depth, self.head_start):
            return EMPTY
        self.depth, self.head_start = depth, first
        head = max(i for i, start in enumerate(starts) if start == first and (depth or not parents[i]))
        facts = arrived.facts[head]
        self.name, self.service, self.type = arrived.titles[head], origins[arrived.origins[head]].service, facts.type
        if not arrived.ends[head]:
            self.ending = "open"
        else:
            self.ending = facts.ending or ("error" if arrived.statuses[head] == ERROR else "ok")
        return facts

    def _learn(self, told: Sequence[Facts], head: Facts) -> None:
        """From what some spans say of themselves, in the order in which they came; `head` is one of them, or says nothing."""
        all_of: Any = Facts._make(zip(*told, strict=True))
        self.lost += all_of.ending.count(LOST)
        self.input_tokens += sum(all_of.input_tokens)
        self.output_tokens += sum(all_of.output_tokens)
        self.cost += sum(all_of.cost)
        self.dropped += sum(all_of.dropped)
        self.session = self.session or _first(all_of.session)
        self.user = self.user or _first(all_of.user)
        self.model = self.model or _first(all_of.model)
        self.input = head.input or self.input or _first(all_of.input)
        self.output = head.output or self.output or _first(all_of.output)


def _first(texts: Iterable[str]) -> str:
    return next(filter(None, texts), "")


def _text(text: str) -> str:
    """SQLite stores UTF-8 only: a lone surrogate becomes `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
