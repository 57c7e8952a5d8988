"""A lane as simple as it can be said, random histories of lanes, and lane files with one fault each."""

from __future__ import annotations

import copy
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from asynctrace.spanlog.journal import _lane_file
from asynctrace.spanlog.journal._lane_file import LaneFile
from asynctrace.spanlog.journal._lane_state import Entry

JOURNAL = bytes(range(16))
FEW_ENTRIES = 96
"""Of a half: compacted every dozen operations."""

View = tuple[Any, ...]
Operation = tuple[Any, ...]
"""(name of a method, its arguments)"""


class Model:
    """What became of each single record, told one by one."""

    def __init__(self, start: int = 0) -> None:
        self.start = self.cursor = start
        self.window: dict[int, int] = {}
        self.fate: dict[int, tuple[str, str]] = {}
        self._serial = 0

    def open_window(self, first: int, count: int) -> None:
        self._serial += 1
        for number in range(first, first + count):
            self.window[number] = self._serial
            self.fate.pop(number, None)

    def add_run(self, first: int, count: int, kind: str, reason: str) -> None:
        for number in range(first, first + count):
            self.fate[number] = (kind, reason)

    def move_cursor(self, number: int) -> None:
        self.cursor = number

    def view(self) -> View:
        """Comparable with `view_of()` a lane file."""
        below = Counter(self.fate[number] for number in range(self.start, self.cursor) if number in self.fate)
        books = tuple(
            {reason: n for (kind, reason), n in below.items() if kind == wanted} for wanted in ("rejected", "dropped")
        )
        return (
            self.cursor,
            self.cursor - self.start - below.total(),
            self._pieces(self.window),
            books,
            [(first, count, *what) for first, count, what in self._runs()],
        )

    def _pieces(self, what: dict[int, int]) -> list[tuple[int, int]]:
        return [(first, count) for first, count, _ in _grouped(what, self.cursor)]

    def _runs(self) -> list[tuple[int, int, Any]]:
        return _grouped(self.fate, self.cursor)


def _grouped(what: dict[int, Any], cursor: int) -> list[tuple[int, int, Any]]:
    pieces: list[tuple[int, int, Any]] = []
    for number in sorted(number for number in what if number >= cursor):
        if pieces and sum(pieces[-1][:2]) == number and pieces[-1][2] == what[number]:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + 1, what[number])
        else:
            pieces.append((number, 1, what[number]))
    return pieces


def view_of(lane: LaneFile) -> View:
    """Everything that a lane file tells."""
    return lane.cursor, lane.accepted, lane.windows(), lane.books(), lane.runs_above()


def check_books(lane: LaneFile) -> None:
    """The identities that hold whatever happened."""
    rejected, dropped = lane.books()
    assert lane.cursor - lane.start == lane.accepted + sum(rejected.values()) + sum(dropped.values())
    assert lane.accepted >= 0
    at = lane.cursor
    for first, count in lane.windows():
        assert first >= at
        assert count > 0
        at = first + count
    covered = [(first, count) for first, count, *_ in lane.runs_above()] + lane.windows()
    numbers = {number for first, count in covered for number in range(first, first + count)}
    assert numbers == set(range(lane.cursor, lane.cut_to)), "what was cut lies in a window or a run"


# ── histories ───────────────────────────────────────────────────────────────────────────────────────────────


class History:
    """What a lane would do, drawn at random: windows cut in order, split, settled in any order, records lost, the cursor
    passing what is settled; now and then what whoever recovers a lane would do."""

    REASONS = ("backend_rejected", "evicted", "a reason that is rather long, so that it needs three entries ☃", "x")

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._open: list[tuple[int, int, bool]] = []  # (first, count, settled)
        self._next = 0

    def operations(self, model: Model) -> Iterator[Operation]:
        """For ever. Every operation is allowed in the state that the model is in then."""
        self._next = model.start
        acts = [self._cut, self._settle, self._pass] * 2 + [self._split, self._lose, self._repeat]
        while True:
            yield from self._draw.choice(acts)()

    def _cut(self) -> Iterator[Operation]:
        if len(self._open) < 7:
            count = self._draw.choice([1, 2, 5, 30])
            self._open.append((self._next, count, False))
            self._next += count
            yield "open_window", *self._open[-1][:2]

    def _split(self) -> Iterator[Operation]:
        whole = [piece for piece in self._open if not piece[2] and piece[1] > 1]
        if whole and len(self._open) < 7:
            first, count, _ = self._draw.choice(whole)
            half = count // 2
            place = self._open.index((first, count, False))
            self._open[place : place + 1] = [(first, half, False), (first + half, count - half, False)]
            yield "open_window", first, half
            yield "open_window", first + half, count - half

    def _settle(self) -> Iterator[Operation]:
        flying = [piece for piece in self._open if not piece[2]]
        if flying:
            first, count, _ = self._draw.choice(flying)
            rejected = self._draw.choice([0, 0, 1, count])
            if rejected:
                yield "add_run", first, rejected, "rejected", self._draw.choice(self.REASONS)
                if self._draw.random() < 0.2:  # a recoverer may say again, or better, what was said already
                    yield "add_run", first, rejected, "dropped", self._draw.choice(self.REASONS)
            if 0 < rejected < count:
                yield "add_run", first + rejected, 1, "rejected", "unaccounted"
            self._open[self._open.index((first, count, False))] = (first, count, True)

    def _lose(self) -> Iterator[Operation]:
        if len(self._open) < 7:
            count = self._draw.choice([1, 3, 10])
            self._open.append((self._next, count, True))
            self._next += count
            yield "add_run", *self._open[-1][:2], "dropped", self._draw.choice(self.REASONS)

    def _pass(self) -> Iterator[Operation]:
        passed = None
        while self._open and self._open[0][2]:
            first, count, _ = self._open.pop(0)
            passed = first + count
        if passed is not None:
            yield "move_cursor", passed

    def _repeat(self) -> Iterator[Operation]:
        """Windows are sent again under their old keys."""
        if self._open and self._draw.random() < 0.2:
            first, count, _ = self._draw.choice(self._open)
            self._open[[piece[0] for piece in self._open].index(first)] = (first, count, False)
            yield "open_window", first, count


# ── files whose stores are seen ─────────────────────────────────────────────────────────────────────────────

Make = Callable[[int, int], LaneFile]
"""(fd, start) → a new lane"""


class Watched(LaneFile):
    """Remembers each store, as (word, value)."""

    stores: list[tuple[int, int]]
    _most_reasons = 5  # type: ignore[assignment]

    def _store(self, index: int, word: int) -> None:
        if "stores" in self.__dict__:
            self.stores.append((index, word))
        super()._store(index, word)

    def _clear(self, start: int, stop: int) -> None:
        for index in range(start, stop):
            self._store(index, 0)


def new_lane(kind: type[LaneFile] = Watched, *, start: int = 0, entries: int = FEW_ENTRIES) -> LaneFile:
    lane = kind.create(os.memfd_create("lane"), JOURNAL, "otlp", start=start, entries=entries)
    if isinstance(lane, Watched):
        lane.stores = []
    return lane


def image_of(lane: LaneFile) -> bytearray:
    return bytearray(lane._memory)


def opened(image: bytes | bytearray, kind: type[LaneFile] = LaneFile) -> LaneFile:
    """The lane whose file has this content."""
    fd = os.memfd_create("lane")
    os.write(fd, image)
    lane = kind.open(fd)
    if isinstance(lane, Watched):
        lane.stores = []
    return lane


def apply(target: Any, operation: Operation) -> None:
    name, *arguments = operation
    assert getattr(target, name)(*arguments) is not False, f"no room for {operation}"


def steps(seed: int, lane: LaneFile, model: Model, count: int) -> Iterator[tuple[Operation, Model]]:
    """Apply a history to the lane and to the model, and yield each operation with the model before it."""
    operations = History(seed).operations(model)
    for _ in range(count):
        operation = next(operations)
        before = copy.deepcopy(model)
        apply(model, operation)
        apply(lane, operation)
        yield operation, before


# ── faults ──────────────────────────────────────────────────────────────────────────────────────────────────


class MovesTheCursorBeforeTheRun(Watched):
    """Keeps runs to itself until the cursor has passed them."""

    def _append(self, entries: list[Entry]) -> None:
        late: list[Entry] = self.__dict__.setdefault("late", [])
        if entries[-1][0] == _lane_file.RUN:
            late += entries
            self._state.apply(entries[-1]) if len(entries) == 1 else [self._state.apply(entry) for entry in entries]
        else:
            super()._append(entries)
            if entries[-1][0] == _lane_file.CURSOR:
                ours, self.__dict__["late"] = late, []
                for kind, what, first, count, reason in ours:
                    if kind == _lane_file.RUN:
                        at = self._state.cursor
                        self._put(
                            (4, what, reason, count, 0) if first + count <= at else (kind, what, first, count, reason)
                        )
                    else:
                        self._put((kind, what, first, count, reason))
                    self._used += 1


class OpensWindowsInMemoryOnly(Watched):
    """No window is stored before its bytes leave."""

    def _append(self, entries: list[Entry]) -> None:
        if entries[-1][0] == _lane_file.WINDOW:
            self._state.apply(entries[-1])
        else:
            super()._append(entries)


class FlipsBeforeTheHalfIsWhole(Watched):
    """The generation is stored before the snapshot."""

    def _begin(self, generation: int, entries: list[Entry]) -> None:
        at = _lane_file._GENERATION_AT
        self._store(at, _lane_file._generation_word(self._header_crc, generation))
        super()._begin(generation, entries)


class StoresTheFirstWordFirst(Watched):
    """An entry is there before its operands are."""

    def _put(self, entry: Entry) -> None:
        words: list[tuple[int, int]] = []
        store = LaneFile._store
        try:
            self._store = lambda index, word: words.append((index, word))  # type: ignore[method-assign]
            super()._put(entry)
        finally:
            del self.__dict__["_store"]
        assert store is LaneFile._store
        for index, word in reversed(words):
            self._store(index, word)


class LeavesWhatWasThere(Watched):
    """A half is not cleared before it is used anew."""

    def _clear(self, start: int, stop: int) -> None:
        return


class ForgetsWhatTheCursorPassed(Watched):
    """A snapshot without the sums."""

    def _begin(self, generation: int, entries: list[Entry]) -> None:
        kept = [entry for entry in entries if entry[0] != 4]
        first = kept[0]
        super()._begin(generation, [(*first[:3], len(kept), 0), *kept[1:]])


class CountsASecondRunOnTop(Watched):
    """A run that is stored again is counted again."""

    def _append(self, entries: list[Entry]) -> None:
        kind, what, first, count, reason = entries[-1]
        state = self._state
        if kind == _lane_file.RUN and state.runs.cut(first, first + count):
            state.sums[(what, reason)] = state.sums.get((what, reason), 0) + count
        super()._append(entries)


class KeepsRunsOfARepeatedWindow(Watched):
    """What the first answer said still counts when the window is sent again."""

    def open_window(self, first: int, count: int) -> bool:
        runs = [run for run in self.runs_above() if first <= run[0] < first + count]
        opened = super().open_window(first, count)
        for run in runs:
            self.add_run(*run)
        return opened


class GivesEveryLifeTheSameChecksums(Watched):
    """Entries of an earlier life of a half look like those of this one."""

    def _seed_of(self, generation: int) -> int:
        return 0


FAULTS: tuple[type[LaneFile], ...] = (
    MovesTheCursorBeforeTheRun,
    OpensWindowsInMemoryOnly,
    FlipsBeforeTheHalfIsWhole,
    StoresTheFirstWordFirst,
    LeavesWhatWasThere,
    ForgetsWhatTheCursorPassed,
    CountsASecondRunOnTop,
    KeepsRunsOfARepeatedWindow,
)
