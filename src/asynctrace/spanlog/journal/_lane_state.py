"""What a lane's file says: its cursor, windows and runs, as the sum of entries. `_lane_file.py` keeps the entries.

Promises: the entries of `snapshot()` add up to the same state; numbers below the cursor are counted, not listed; an entry
that cannot have been written raises `ValueError`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any, Final, Generic, Literal, TypeVar, cast

__all__ = [
    "CURSOR",
    "KINDS",
    "MOST_ENTRIES_AT_ONCE",
    "OTHER_REASONS",
    "RUN",
    "SNAPSHOT",
    "WINDOW",
    "Entry",
    "LaneState",
    "Run",
    "RunKind",
    "bounded",
    "reason_entries",
]

RunKind = Literal["rejected", "dropped"]
Run = tuple[int, int, RunKind, str]
"""(first, count, kind, reason)"""

Entry = tuple[int, int, int, int, int]
"""(kind, what, three operands)"""

T = TypeVar("T")

OTHER_REASONS: Final = "other"
"""Stands for the reasons that the table of reasons has no room for."""

KINDS: Final[tuple[RunKind, RunKind]] = ("rejected", "dropped")

SNAPSHOT, _TEXT, _REASON, _SUM, CURSOR, WINDOW, RUN = range(1, 8)

_WORD: Final = 8
_TEXT_BYTES: Final = 3 * _WORD
_LONGEST_REASON: Final = 3 * _TEXT_BYTES
MOST_ENTRIES_AT_ONCE: Final = 4
"""Of one operation: a run for a new reason."""
_MOST: Final = (1 << 63) - 1


class _Pieces(Generic[T]):
    """Intervals of record numbers, in order, not overlapping, each with what it stands for."""

    def __init__(self, *, merge: bool) -> None:
        self._merges = merge
        self._pieces: list[tuple[int, int, T]] = []  # (first, end, what)

    def __len__(self) -> int:
        return len(self._pieces)

    @property
    def end(self) -> int:
        return self._pieces[-1][1] if self._pieces else 0

    def all(self) -> list[tuple[int, int, T]]:
        return list(self._pieces)

    def cut(self, first: int, end: int) -> list[tuple[int, int, T]]:
        """Take out what lies in `first` to `end`, and return it; what reaches beyond stays."""
        pieces = self._pieces
        low, high = self._touched(first, end)
        touched = pieces[low:high]
        before = [(start, first, what) for start, _, what in touched[:1] if start < first]
        after = [(end, stop, what) for _, stop, what in touched[-1:] if stop > end]
        pieces[low:high] = before + after
        return [(max(start, first), min(stop, end), what) for start, stop, what in touched]

    def put(self, first: int, end: int, what: T) -> None:
        """Let `first` to `end` stand for `what`, whatever they were before."""
        self.cut(first, end)
        place = bisect_left(self._pieces, first, key=_first)
        self._pieces.insert(place, (first, end, what))
        if self._merges:
            self._merge(place + 1)
            self._merge(place)

    def covers(self, first: int, end: int, other: _Pieces[Any]) -> bool:
        """Whether each number from `first` to `end` lies in a piece, of this or of the other."""
        for start, stop in sorted((piece[0], piece[1]) for part in (self, other) for piece in part._within(first, end)):
            if start > first:
                return False
            first = max(first, stop)
        return first >= end

    def holds(self, first: int, end: int) -> bool:
        """Whether these numbers are one piece."""
        return any(piece[:2] == (first, end) for piece in self._within(first, end))

    def _within(self, first: int, end: int) -> list[tuple[int, int, T]]:
        low, high = self._touched(first, end)
        return self._pieces[low:high]

    def _touched(self, first: int, end: int) -> tuple[int, int]:
        return bisect_right(self._pieces, first, key=_end), bisect_left(self._pieces, end, key=_first)

    def _merge(self, place: int) -> None:
        """Join the piece at `place` to the one before, if they touch and stand for the same."""
        if 0 < place < len(self._pieces):
            (first, middle, what), (start, end, other) = self._pieces[place - 1 : place + 1]
            if middle == start and what == other:
                self._pieces[place - 1 : place + 1] = [(first, end, what)]


def _first(piece: tuple[int, int, Any]) -> int:
    return piece[0]


def _end(piece: tuple[int, int, Any]) -> int:
    return piece[1]


class LaneState:
    """What the entries of a half add up to."""

    def __init__(self) -> None:
        self.start = self.cursor = 0
        self.windows: _Pieces[None] = _Pieces(merge=False)
        self.runs: _Pieces[tuple[int, int]] = _Pieces(merge=True)  # (kind, number of the reason)
        self.sums: dict[tuple[int, int], int] = {}
        self.reasons: dict[int, str] = {0: OTHER_REASONS}
        self._text: list[bytes] = []

    @property
    def cut_to(self) -> int:
        return max(self.cursor, self.windows.end, self.runs.end)

    def apply(self, entry: Entry) -> None:
        """Raises `ValueError` for what was never written."""
        kind, what, a, b, c = entry
        if kind == _TEXT:
            self._text = [*self._text[:what], _text_of(a, b, c)]
        elif kind == _REASON:
            self.reasons[what] = b"".join([*self._text, _text_of(a, b, c)]).rstrip(b"\0").decode()
            self._text = []
        elif kind == SNAPSHOT:
            self.start = a
        elif kind == CURSOR:
            self._move(a)
        elif kind == WINDOW:
            self.check(a, b)
            self.runs.cut(a, a + b)
            self.windows.put(a, a + b, None)
        elif kind == RUN:
            self.check(a, b)
            self.runs.put(a, a + b, self._named(what, c))
        elif kind == _SUM:
            self.sums[self._named(what, a)] = b
        else:
            raise ValueError(f"an entry of kind {kind}")

    def _move(self, number: int) -> None:
        if number < self.cursor:
            raise ValueError("the cursor goes back")
        self.windows.cut(self.cursor, number)
        for first, end, what in self.runs.cut(self.cursor, number):
            self.sums[what] = self.sums.get(what, 0) + end - first
        self.cursor = number

    def check(self, first: int, count: int) -> None:
        if first < self.cursor or count < 1 or first + count > _MOST:
            raise ValueError(f"{count} records from {first} on, with the cursor at {self.cursor}")

    def _named(self, kind: int, reason: int) -> tuple[int, int]:
        if kind >= len(KINDS) or reason not in self.reasons:
            raise ValueError(f"a run of kind {kind} for reason {reason}")
        return kind, reason

    def snapshot(self) -> list[Entry]:
        """Entries that add up to this state. Reasons that nothing refers to are forgotten."""
        used = {reason for _, reason in self.sums} | {what[1] for _, _, what in self.runs.all()}
        entries = [entry for number in sorted(used - {0}) for entry in reason_entries(number, self.reasons[number])]
        entries += [(_SUM, kind, reason, count, 0) for (kind, reason), count in self.sums.items()]
        entries.append((CURSOR, 0, self.cursor, 0, 0))
        entries += [(WINDOW, 0, first, end - first, 0) for first, end, _ in self.windows.all()]
        entries += [(RUN, kind, first, end - first, reason) for first, end, (kind, reason) in self.runs.all()]
        return [(SNAPSHOT, 0, self.start, len(entries) + 1, 0), *entries]


def _text_of(*words: int) -> bytes:
    return b"".join(word.to_bytes(_WORD, "little") for word in words)


def reason_entries(number: int, reason: str) -> list[Entry]:
    text = reason.encode()
    parts = [text[at : at + _TEXT_BYTES].ljust(_TEXT_BYTES, b"\0") for at in range(0, len(text), _TEXT_BYTES)]
    words = [[int.from_bytes(part[at : at + _WORD], "little") for at in (0, 8, 16)] for part in parts]
    entries = [(_TEXT, place, *three) for place, three in enumerate(words)]
    entries[-1] = (_REASON, number, *words[-1])
    return cast("list[Entry]", entries)


def bounded(reason: str) -> str:
    """As much of a reason as the table holds."""
    text = reason.replace("\0", "").encode("utf-8", "replace")
    return text[:_LONGEST_REASON].decode("utf-8", "ignore") or OTHER_REASONS
