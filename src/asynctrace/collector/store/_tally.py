"""The line of one trace while spans arrive: sums, the head, texts for the list.

The *head* of a trace is its earliest root span, or the earliest span while no root is there; it gives the trace its
name. Numbers are counted from the versions that hold; texts (session, user, previews) stay once they are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ..._contracts import Ending, StatusCode
from .._rows import EMPTY, Facts, Origin, SpanRow
from ._chunk import Line
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

    def count(self, lines: Iterable[Line], origins: Mapping[int, Origin] | Sequence[Origin]) -> None:
        """Add spans that were not there; each line says which of `origins` it came from."""
        start_ns, end_ns, head = self.start_ns, self.end_ns, (self.depth, self.head_start)
        for row, origin, _ in lines:
            _, _, parent, _, _, start, end, status, _, _, facts = row
            self.spans += 1
            if start < start_ns:
                start_ns = start
            if end > end_ns:
                end_ns = end
            elif not end:
                self.open += 1
            if status == ERROR:
                self.errors += 1
            place = (1 if parent else 0, start)
            is_head = place <= head
            if is_head:
                head = place
                self._lead(row, origins[origin].service)
            if facts is not EMPTY:
                self._learn(facts, is_head=is_head)
        self.start_ns, self.end_ns, (self.depth, self.head_start) = start_ns, end_ns, head

    def recount(self, rows: Iterable[SpanRow], origins: Sequence[Origin]) -> None:
        """Count anew, from all spans. What comes from the times of arrival stays."""
        self.start_ns, self.end_ns = NEVER, 0
        self.spans = self.errors = self.open = self.lost = self.dropped = 0
        self.depth, self.head_start = NO_HEAD, LARGEST
        self.input_tokens = self.output_tokens = 0
        self.cost = 0.0
        self.count(((row, row.origin, 0) for row in rows), origins)

    def _lead(self, row: SpanRow, service: str) -> None:
        self.name, self.service = row.name, service
        self.type = row.facts.type
        if not row.end_ns:
            self.ending = "open"
        else:
            self.ending = row.facts.ending or ("error" if row.status == ERROR else "ok")

    def _learn(self, facts: Facts, *, is_head: bool) -> None:
        if facts.ending == LOST:
            self.lost += 1
        self.input_tokens += facts.input_tokens
        self.output_tokens += facts.output_tokens
        self.cost += facts.cost
        self.dropped += facts.dropped
        self.session = self.session or facts.session
        self.user = self.user or facts.user
        self.model = self.model or facts.model
        if facts.input and (is_head or not self.input):
            self.input = facts.input
        if facts.output and (is_head or not self.output):
            self.output = facts.output


def _text(text: str) -> str:
    """SQLite stores UTF-8 only: a lone surrogate becomes `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
