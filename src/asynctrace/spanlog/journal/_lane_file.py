"""A lane's file: its cursor, the windows it is sending, and what it did not deliver, with the reason.

Promises:

1. After any single store the file reads back as the state before the operation under way, or as the state after it.
2. `cursor` means: everything from `start` to it was accepted, or lies in a run. `move_cursor()` passes nothing that no
   window and no run covers, so that `accepted = cursor - start - runs below` can never claim what nobody was sent.
3. The file never grows: 132 KiB, whatever the number of operations.
4. Bytes that cannot be what was written are `JournalDamaged`, never another exception. A file cut back by damage to an
   earlier state is that earlier state: the windows from then are repeated under their old keys.

The file:

    ┌─ header, 4096 ───────────────┬─ half 0 ──────────────────────────┬─ half 1 ──────────────────────────┐
    │ fields │ name │ … generation │ snapshot │ entry │ entry │ 0 0 0 … │ snapshot │ entry │ …       │ 0 …  │
    └──────────────────────────────┴───────────────────────────────────┴───────────────────────────────────┘

Each half is a list of entries of four words, and the state is what the entries of one half say, one after the other. An
entry's first word is stored last; while it is 0 the entry is not there. Entry:

    0  kind : 8 | what : 24 | crc : 32      1, 2, 3  operands

Which half counts says the generation, a word in a block of its own: generation g means half g % 2. When a half is full,
its state is written into the other half, cleared before, as a snapshot: sums of the runs below the cursor, the cursor,
windows and runs above it. Then one store, of the generation, makes it count. The crc of an entry begins with the header's,
the generation and the entry's place: what an earlier life of the file or of the half wrote there proves nothing.

What the power may do: blocks of 512 bytes that were not synced reach the disk or not, in any order. A half without its
last blocks is an earlier state; one that lacks blocks in the middle, or a generation whose snapshot is not whole, is
damaged. `sync()` waits for the disk.

What whoever opens the lane of a dead process has to do, in the order of the numbers:

- Repeat each of `windows()` under its old key, after `open_window()` with the same numbers. A window that had been settled
  above the cursor is listed too, because the file does not say that it was: its far side recognises the repetition by the
  key. `open_window()` takes back the runs inside that window: whatever they said is not settled, and the answer to the
  repetition decides anew.
- A run outside every window was dropped before it was sent. It stands, nobody sends it, the cursor passes it.
- Numbers of a window that the segments do not hold any more are a run of their own (`corrupt`), and the rest of the window
  stays one under its new numbers.
- `JournalDamaged`: `create()` on the same descriptor with the first record held as `start`. What was delivered before is
  delivered again, and recognised by span ids only; what was counted below is forgotten.
- A cursor above the records that could be proved (the power failed, and this file was the more recent one) is harmless:
  there is nothing left to send.
"""

from __future__ import annotations

import mmap
import os
import zlib
from struct import Struct
from typing import Final

from ..._errors import JournalDamaged, JournalError, JournalFromNewerVersion
from ._files import MAP_OPTIONS, NO_DESCRIPTOR, give_back
from ._format import BLOCK_BYTES, FORMAT_VERSION, HEADER_BYTES, SEALED
from ._lane_state import (
    CURSOR,
    KINDS,
    MOST_ENTRIES_AT_ONCE,
    OTHER_REASONS,
    RUN,
    SNAPSHOT,
    WINDOW,
    Entry,
    LaneState,
    Run,
    RunKind,
    bounded,
    reason_entries,
)

__all__ = ["LANE_FILE_BYTES", "OTHER_REASONS", "LaneFile", "Run", "RunKind"]

_MAGIC: Final = int.from_bytes(b"ATRCLAN\n", "little")
_ENTRIES: Final = 2048
"""Entries of a half: a compaction, of about a millisecond, every thousand batches."""
_FEWEST_ENTRIES: Final = 64
_MOST_ENTRIES: Final = 1 << 20

_WORD: Final = 8
_ENTRY_WORDS: Final = 4
_ENTRY_BYTES: Final = _ENTRY_WORDS * _WORD
_GENERATION_AT: Final = BLOCK_BYTES // _WORD
_HALVES_AT: Final = HEADER_BYTES // _WORD

LANE_FILE_BYTES: Final = HEADER_BYTES + 2 * _ENTRIES * _ENTRY_BYTES
"""The size of a lane's file."""

_FIELDS = Struct("<QQQQ16sQ")
"""magic, version, sealed crc, entries of a half, journal id, length of the name; the name follows."""
_STATE_BYTES = slice(16, 24)
_LONGEST_NAME: Final = BLOCK_BYTES - _FIELDS.size

_ENTRY = Struct("<IIQQQ")
_CHECKED = Struct("<IIQQQ")

_MOST: Final = (1 << 63) - 1


# ── the file ────────────────────────────────────────────────────────────────────────────────────────────────


class LaneFile:
    """The cursor, windows and runs of one lane. One thread at a time; an operation that an exception from a signal handler
    ends was done or was not, and the next one goes on from there.

    `fd` is taken over: closed by `close()`, or before `create()` or `open()` raises.
    """

    def __init__(self, fd: int, entries: int, access: int = mmap.PROT_READ | mmap.PROT_WRITE) -> None:
        """For `create()` and `open()`."""
        self._fd = fd
        self._entries = entries
        self._memory = mmap.mmap(fd, _file_bytes(entries), mmap.MAP_SHARED, access, **MAP_OPTIONS)
        self._words = memoryview(self._memory).cast("Q")
        self._is_current = False
        self._state = LaneState()
        self._generation = self._used = self._seed = self._header_crc = 0
        self.name = ""
        self.journal_id = b""

    @classmethod
    def create(cls, fd: int, journal_id: bytes, name: str, *, start: int = 0, entries: int = _ENTRIES) -> LaneFile:
        """A lane that has settled nothing, and is responsible for the records from `start` on. The file may hold anything;
        it is damaged until this returns. Raises `OSError` if it is too small and cannot be made larger.

        `entries` (of each half; at least 64) is for tests: the file has 4096 + 64 bytes for each.
        """
        try:
            if os.fstat(fd).st_size < _file_bytes(entries):
                os.posix_fallocate(fd, 0, _file_bytes(entries))
            lane = cls(fd, entries)
        except BaseException:
            os.close(fd)
            raise
        try:
            lane._lay_out(journal_id, name, start)
        except BaseException:
            lane.close()
            raise
        return lane

    @classmethod
    def open(cls, fd: int, *, write: bool = True) -> LaneFile:
        """The lane as its file tells it; without `write`, to look only. Raises `JournalDamaged`, `JournalFromNewerVersion`,
        `OSError`. While another process writes, `JournalDamaged` may only mean that it was changing halves."""
        try:
            header = os.pread(fd, BLOCK_BYTES, 0)
            entries = _read_header(header)[0]
            if os.fstat(fd).st_size < _file_bytes(entries):
                raise JournalDamaged("a lane's file is damaged: it ends too soon")
            lane = cls(fd, entries, mmap.PROT_READ | mmap.PROT_WRITE if write else mmap.PROT_READ)
        except BaseException:
            os.close(fd)
            raise
        try:
            lane._catch_up()
        except BaseException:
            lane.close()
            raise
        return lane

    def close(self) -> None:
        """Give back the descriptor and the mapping. Stores nothing; may be repeated."""
        fd, self._fd = self._fd, NO_DESCRIPTOR
        self._words.release()
        self._memory.close()
        give_back(fd)

    def sync(self) -> None:
        """Wait until the disk has it. Raises `OSError`."""
        os.fdatasync(self._fd)

    # The state ---------------------------------------------------------------------------------------------------

    @property
    def start(self) -> int:
        """The first record that this lane is responsible for."""
        return self._known().start

    @property
    def cursor(self) -> int:
        """Every record from `start` to here is accepted, or counted in `books()`."""
        return self._known().cursor

    @property
    def cut_to(self) -> int:
        """Every record from the cursor to here was in a window or a run once; nothing from here on."""
        return self._known().cut_to

    @property
    def accepted(self) -> int:
        """Derived: what the cursor has passed, without the runs below it."""
        state = self._known()
        return state.cursor - state.start - sum(state.sums.values())

    def windows(self) -> list[tuple[int, int]]:
        """(first, count) of the windows above the cursor, in order. Where two were opened over the same records the later
        one counts, and what it leaves of the earlier one is a window."""
        return [(first, end - first) for first, end, _ in self._known().windows.all()]

    def books(self) -> tuple[dict[str, int], dict[str, int]]:
        """(rejected, dropped), by reason, below the cursor."""
        state = self._known()
        books: tuple[dict[str, int], dict[str, int]] = ({}, {})
        for (kind, reason), count in state.sums.items():
            text = state.reasons[reason]
            books[kind][text] = books[kind].get(text, 0) + count
        return books

    def runs_above(self) -> list[Run]:
        """The runs above the cursor, in order; adjacent ones of the same kind and reason are one."""
        state = self._known()
        return [
            (first, end - first, KINDS[kind], state.reasons[reason]) for first, end, (kind, reason) in state.runs.all()
        ]

    # Operations --------------------------------------------------------------------------------------------------

    def open_window(self, first: int, count: int) -> bool:
        """Store, before its bytes leave, that these records travel together. Takes back the runs inside.

        False, and nothing is stored: too many windows or runs wait for the cursor, so it must not be sent now. A part of a
        window that is open already finds room when a new one does not. `ValueError` below the cursor.
        """
        state = self._known()
        state.check(first, count)
        if not self._has_room_for(first, count):
            return False
        self._make_room()
        self._append([(WINDOW, 0, first, count, 0)])
        return True

    def add_run(self, first: int, count: int, kind: RunKind, reason: str) -> None:
        """Store, before the cursor passes them, that these records were not delivered, and why. Over records of an earlier
        run it takes their place. Of a window that is settled as a whole, any of its records may stand for the ones meant.

        `ValueError` below the cursor; `JournalError` when thousands of runs wait for the cursor, which windows that were
        all opened with `open_window()` do not lead to.
        """
        state = self._known()
        state.check(first, count)
        if len(state.runs) + 2 > self._most_runs:
            raise JournalError("too many runs wait for the cursor of a lane")
        self._make_room()
        number, entries = self._intern(bounded(reason))
        self._append([*entries, (RUN, KINDS.index(kind), first, count, number)])

    def move_cursor(self, number: int) -> None:
        """Store that everything below `number` is settled. `ValueError` if it goes back, or passes records that no window
        and no run covers: nobody was ever sent them."""
        state = self._known()
        if number == state.cursor:
            return
        if number < state.cursor or not state.windows.covers(state.cursor, number, state.runs):
            raise ValueError(f"the cursor is at {state.cursor} and cannot move to {number}")
        self._make_room()
        self._append([(CURSOR, 0, number, 0, 0)])

    # Bounds ------------------------------------------------------------------------------------------------------
    # What a snapshot may hold at most, in parts of a half: windows 2/8, runs 3/8, reasons 1/64 with 3 entries each, sums
    # 2/64, and three entries. At least a quarter of a half is left for what comes after.

    @property
    def _most_runs(self) -> int:
        return self._entries * 3 // 8

    @property
    def _most_reasons(self) -> int:
        return self._entries // 64

    def _has_room_for(self, first: int, count: int) -> bool:
        state = self._state
        if state.windows.holds(first, first + count):
            return True
        most = self._entries // 8
        if first < state.cut_to:  # a lane splits few windows at a time, each some twenty times
            return len(state.windows) + 2 <= 2 * most
        return len(state.windows) < most and len(state.runs) < self._most_runs // 2

    def _intern(self, reason: str) -> tuple[int, list[Entry]]:
        """The number of a reason, and the entries that introduce it if it is new."""
        reasons = self._state.reasons
        for number, text in reasons.items():
            if text == reason:
                return number, []
        number = min(set(range(1, self._most_reasons + 1)) - reasons.keys(), default=0)
        return number, reason_entries(number, reason) if number else []

    # Storing -----------------------------------------------------------------------------------------------------

    def _store(self, index: int, word: int) -> None:
        """Every store but the header's and the zeros goes through here."""
        self._words[index] = word

    def _clear(self, start: int, stop: int) -> None:
        """Store zeros from word `start` to `stop`, in any order."""
        self._words[start:stop] = memoryview(bytes((stop - start) * _WORD)).cast("Q")

    def _known(self) -> LaneState:
        if not self._is_current:
            self._catch_up()
        return self._state

    def _append(self, entries: list[Entry]) -> None:
        """Only the last of the entries may change what the state tells."""
        self._is_current = False
        self._write(entries)
        self._is_current = True

    def _write(self, entries: list[Entry]) -> None:
        for entry in entries:
            self._put(entry)
            self._used += 1
            self._state.apply(entry)

    def _put(self, entry: Entry) -> None:
        kind, what, a, b, c = entry
        at = self._entry_at(self._used)
        self._store(at + 1, a)
        self._store(at + 2, b)
        self._store(at + 3, c)
        low = kind | what << 8
        self._store(at, low | _entry_crc(self._seed, self._used, low, a, b, c) << 32)

    def _make_room(self) -> None:
        """For one operation: go on in the other half, with a snapshot of the state, if this one is full."""
        if self._used + MOST_ENTRIES_AT_ONCE <= self._entries:
            return
        self._is_current = False
        self._begin(self._generation + 1, self._state.snapshot())
        self._catch_up()

    def _begin(self, generation: int, entries: list[Entry]) -> None:
        self._generation, self._used = generation, 0
        self._seed = self._seed_of(generation)
        at = self._entry_at(0)
        self._clear(at, at + self._entries * _ENTRY_WORDS)
        for entry in entries:
            self._put(entry)
            self._used += 1
        self._store(_GENERATION_AT, _generation_word(self._header_crc, generation))

    def _seed_of(self, generation: int) -> int:
        """What the checksums of a generation's entries begin with."""
        return zlib.crc32(generation.to_bytes(_WORD, "little"), self._header_crc)

    def _entry_at(self, place: int) -> int:
        return _HALVES_AT + (self._generation % 2 * self._entries + place) * _ENTRY_WORDS

    def _lay_out(self, journal_id: bytes, name: str, start: int) -> None:
        self._store(_GENERATION_AT, 0)
        header = _make_header(self._entries, journal_id, name)
        memoryview(self._memory)[:BLOCK_BYTES] = header
        self._header_crc = _read_header(header)[1]
        state = LaneState()
        state.start = state.cursor = start
        self._begin(1, state.snapshot())
        self._catch_up()

    # Reading -----------------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Take the state from the file."""
        image = bytes(self._memory)
        self._entries, self._header_crc, self.journal_id, self.name = _read_header(image)
        self._generation = _read_generation(self._header_crc, self._words[_GENERATION_AT])
        self._seed = self._seed_of(self._generation)
        begin = self._entry_at(0) * _WORD
        half = image[begin : begin + self._entries * _ENTRY_BYTES]
        try:
            self._state, self._used = _replay(half, self._seed)
        except (ValueError, UnicodeDecodeError) as error:
            raise JournalDamaged(f"a lane's file is damaged: {error}") from error
        self._is_current = True


def _file_bytes(entries: int) -> int:
    return HEADER_BYTES + 2 * entries * _ENTRY_BYTES


def _make_header(entries: int, journal_id: bytes, name: str) -> bytes:
    text = name.encode("utf-8", "surrogatepass")[:_LONGEST_NAME]
    fields = _FIELDS.pack(_MAGIC, FORMAT_VERSION, 0, entries, journal_id, len(text)) + text
    header = bytearray(fields.ljust(BLOCK_BYTES, b"\0"))
    header[_STATE_BYTES] = (SEALED | zlib.crc32(header)).to_bytes(_WORD, "little")
    return bytes(header)


def _read_header(image: bytes) -> tuple[int, int, bytes, str]:
    """(entries of a half, crc, journal id, name)"""
    header = bytearray(image[:BLOCK_BYTES])
    if len(header) < BLOCK_BYTES:
        raise JournalDamaged("a lane's file is damaged: it ends in its header")
    magic, version, sealed, entries, journal_id, size = _FIELDS.unpack_from(header)
    header[_STATE_BYTES] = bytes(_WORD)
    crc = zlib.crc32(header)
    if magic != _MAGIC or sealed != SEALED | crc:
        raise JournalDamaged("a lane's file is damaged: its header is wrong")
    if version > FORMAT_VERSION:
        raise JournalFromNewerVersion(f"a lane's file has format version {version}, this is {FORMAT_VERSION}")
    if not (_FEWEST_ENTRIES <= entries <= _MOST_ENTRIES and size <= _LONGEST_NAME):
        raise JournalDamaged("a lane's file is damaged: its header cannot be")
    name = bytes(header[_FIELDS.size : _FIELDS.size + size])
    return entries, crc, journal_id, name.decode("utf-8", "replace")


def _generation_word(seed: int, generation: int) -> int:
    low = generation & 0xFFFFFFFF
    return low | zlib.crc32(low.to_bytes(4, "little"), seed) << 32


def _read_generation(seed: int, word: int) -> int:
    generation = word & 0xFFFFFFFF
    if not generation or word != _generation_word(seed, generation):
        raise JournalDamaged("a lane's file is damaged: it does not say which half counts")
    return generation


def _entry_crc(seed: int, place: int, low: int, a: int, b: int, c: int) -> int:
    return zlib.crc32(_CHECKED.pack(place, low, a, b, c), seed)


def _replay(half: bytes, seed: int) -> tuple[LaneState, int]:
    """What the entries of a half add up to, and how many there are. `ValueError` for what was never written."""
    state = LaneState()
    used = needed = 0
    for low, crc, a, b, c in _ENTRY.iter_unpack(half):
        if not low | crc:
            break
        if crc != _entry_crc(seed, used, low, a, b, c):
            raise ValueError("the checksum of an entry is wrong")
        if not used:
            needed = b if low == SNAPSHOT else len(half)
        state.apply((low & 0xFF, low >> 8, a, b, c))
        used += 1
    if used < max(needed, 1):
        raise ValueError("its snapshot is not whole")
    if half[(used + 1) * _ENTRY_BYTES :].strip(b"\0"):
        raise ValueError("entries lie behind a gap")
    return state, used
