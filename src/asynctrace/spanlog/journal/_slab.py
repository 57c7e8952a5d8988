"""The slab: spans that are open, so that the next process can close those that this one could not.

Promises:

1. A span is in the slab from the moment `enter()` returns until `leave()` is called, whenever the process is killed.
2. A body is read whole or not at all.
3. `enter()` and `leave()` are safe from any thread, a signal handler and a finaliser, take no lock and make no system call
   (but to grow, when nobody grew it in time). No slot is handed out twice.
4. The slab is bounded: 16 times 4,096 spans. What finds no room is counted in `unnoted`, and is only lost with its process.

The file, `open-00.slab`, in slots of 256 bytes:

    ┌─ slots 0 … 15: header ────────────┬─ slot 16 ───────────────────┬─ slot 17 … ─
    │ fields, crc │ … heartbeat │ … 0   │ body, ≤ 248 │ … │ state : 8 │ …     │
    └───────────────────────────────────┴─────────────────────────────┴─────────────

A span's *place* is the number of its state among the words of the file: the last word of its slot, whose body begins at byte
`(place << 3) - 248`. The state is 0, free, or one of `STATE_WORDS`, which says how long the body is, with a crc of the
length. The body is stored first, then the state; `leave()` stores 0. The state comes last in the slot so that one
`Struct.pack_into()` can store both, in that order.

Why the body needs no crc (which would cost half as much again as the rest of `enter()`): a process that is killed leaves its
stores in their order, so a state word tells that its body is there. When the power fails a disk keeps of each block
of 512 bytes what it held at one instant; a slot lies in one block, so the same is true of it, though the slots it is
read with may be older. That is as much as is promised for open spans then: whoever reads the slab of another boot finds
whole spans, but perhaps some that had ended, or lacks some that were open.

Growing maps the file anew, larger, in place of the mapping before: `memory` and `words` change, places stay what they are.
`grow()` is for a thread that may wait; `on_needs_room()` asks for it when only a reserve is left. A thread that enters
grows the slab itself only when the reserve is used up too.

What a raising signal handler may cost: a slot, if it interrupts `enter()` between taking it and storing into it.

For hot paths that cannot afford a call, `enter()` and `leave()` written out:

    try:
        place = slab.free.pop()                     # first: `memory` may be replaced, by one that has more slots
    except IndexError:
        place = slab.enter(body)                    # from the reserve, or -1
    else:
        slab.memory[(at := (place << 3) - 248) : at + len(body)] = body
        slab.words[place] = STATE_WORDS[len(body)]          # a body of more than LARGEST_BODY bytes must not come here

    if place > 0 and slab.words[place]:             # nothing between this look and the store lets another thread in
        slab.words[place] = 0
        slab.free.append(place)
"""

from __future__ import annotations

import mmap
import os
import threading
import zlib
from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple

from ..._errors import JournalDamaged, JournalFromNewerVersion
from ._files import MAP_OPTIONS, NO_DESCRIPTOR, give_back
from ._format import BLOCK_BYTES, FORMAT_VERSION, HEADER_BYTES, SEALED, slab_file
from ._populate import populate

__all__ = [
    "LARGEST_BODY",
    "SLAB_FILE_BYTES",
    "STATE_WORDS",
    "OpenSlab",
    "SlabReading",
    "clear_slab",
    "inspect_slab",
    "read_slab",
]

_SLOT_BYTES: Final = 256
_WORD: Final = 8
_SLOT_WORDS: Final = _SLOT_BYTES // _WORD
_FIRST_SLOT: Final = HEADER_BYTES // _SLOT_BYTES
_STEP: Final = 4096
"""Slots that the slab grows by: 1 MiB."""
_MOST_STEPS: Final = 16
_RESERVE: Final = 512
"""Slots that are left when room is asked for."""

LARGEST_BODY: Final = _SLOT_BYTES - _WORD
SLAB_FILE_BYTES: Final = HEADER_BYTES + _STEP * _SLOT_BYTES
"""The size of a new slab."""

_MAGIC: Final = int.from_bytes(b"ATRCSLB\n", "little")
_FIELDS: Final = Struct("<QQQ16s")
"""magic, version, sealed crc, journal id"""
_STATE_BYTES: Final = slice(16, 24)
_BEAT_AT: Final = BLOCK_BYTES // _WORD
"""In a block of its own: it is stored all the time, the fields never."""

STATE_WORDS: Final = tuple(
    zlib.crc32(b"open" + bytes((size,))) << 32 | 1 << 16 | size for size in range(LARGEST_BODY + 1)
)
"""The state of a slot with a body of so many bytes."""
_SIZES: Final = {word: size for size, word in enumerate(STATE_WORDS)}


def _nobody() -> None:
    return None


class OpenSlab:
    """Slots for spans that are open. `close()` must be called: it gives back the descriptor."""

    __slots__ = (
        "_fd",
        "_has_asked",
        "_is_growing",
        "_is_refused",
        "_lock",
        "_reserve",
        "_steps",
        "free",
        "memory",
        "on_needs_room",
        "states",
        "unnoted",
        "words",
    )

    def __init__(self, fd: int) -> None:
        """For `create()`."""
        self._fd = fd
        self._lock = threading.RLock()
        self._has_asked = self._is_growing = self._is_refused = False
        self._steps = 0
        self._reserve: list[int] = []
        self.free: list[int] = []
        """Places to take with `pop()`."""
        self.memory = memoryview(b"")
        """The bytes of the file."""
        self.words = self.memory
        """The same as 8-byte words."""
        self.states = STATE_WORDS
        self.unnoted = 0
        """How often `enter()` found no room."""
        self.on_needs_room: Callable[[], object] = _nobody
        """Called by `enter()`, in any thread or signal handler, when only the reserve is left: it has to see that some thread
        calls `grow()`, and must not raise. Not called again before that."""

    @classmethod
    def create(cls, open_file: Callable[[str, int], int], journal_id: bytes) -> OpenSlab:
        """`open_file(name, size)` makes the file, of zeros and with its blocks allocated, and gives its descriptor, which is
        then ours. Raises `OSError`."""
        slab = cls(open_file(slab_file(0), SLAB_FILE_BYTES))
        try:
            memory = slab._map(1)
            populate(memory, 0, len(memory))
            slab._use(memory)
            slab.memory[:BLOCK_BYTES] = _make_header(journal_id)
            slab._hand_out(1)
        except BaseException:
            slab.close()
            raise
        return slab

    # The hot path ------------------------------------------------------------------------------------------------

    def enter(self, body: bytes) -> int:
        """Note an open span by a partial OTLP `Span` message. The place for `leave()`, or -1: no room, or a body of more than
        `LARGEST_BODY` bytes."""
        try:
            state = STATE_WORDS[len(body)]
            place = self.free.pop()
        except IndexError:
            if (place := self._last_resort(body)) < 0:
                return place
            state = STATE_WORDS[len(body)]
        at = (place << 3) - LARGEST_BODY
        self.memory[at : at + len(body)] = body
        self.words[place] = state
        return place

    def leave(self, place: int) -> None:
        """The span has ended. A place that was left already, and -1, are ignored."""
        if place > 0 and self.words[place]:
            self.words[place] = 0
            self.free.append(place)

    def beat(self, time_ns: int) -> None:
        """Say that the process was alive at this time. What is found open ended then, as far as anyone knows."""
        self.words[_BEAT_AT] = time_ns

    # Room --------------------------------------------------------------------------------------------------------

    def _last_resort(self, body: bytes) -> int:
        """A place of the reserve, or one more of a slab that grows now, or -1."""
        if len(body) <= LARGEST_BODY:
            self._ask_for_room()
            while self._reserve or self.free or self._grow_in_need():
                place = _popped(self._reserve) or _popped(self.free)
                if place:
                    return place
        self.unnoted += 1
        return -1

    def _ask_for_room(self) -> None:
        if not self._has_asked:
            self._has_asked = True
            self.on_needs_room()

    def _grow_in_need(self) -> bool:
        if self._is_refused:  # a full disk is not asked again for every span
            return False
        try:
            return self._grow_alone(wait=False)
        except OSError:
            self._is_refused = True
            return False

    def grow(self) -> bool:
        """Fill the reserve; 4,096 slots more if that cannot be done from free ones. False when the slab is as large as it
        gets, or closed. Raises `OSError` (the disk is full), and nothing has changed."""
        return self._grow_alone(wait=True)

    def _grow_alone(self, *, wait: bool) -> bool:
        with self._lock:
            if self._is_growing or self._fd == NO_DESCRIPTOR:
                return False
            self._is_growing = True
            try:
                grown = self._grow(wait)
                self._is_refused = False
                return grown
            finally:
                self._is_growing = self._has_asked = False

    def _grow(self, wait: bool) -> bool:
        if len(self.free) + len(self._reserve) > _RESERVE:
            self._fill_reserve()
            return True
        if self._steps >= _MOST_STEPS:
            return False
        steps = self._steps + 1
        os.posix_fallocate(self._fd, 0, _bytes_of(steps))
        memory = self._map(steps)
        if wait:
            populate(memory, 0, len(memory), in_use=True)
        self._use(memory)
        self._hand_out(steps)
        return True

    def _map(self, steps: int) -> mmap.mmap:
        return mmap.mmap(self._fd, _bytes_of(steps), mmap.MAP_SHARED, **MAP_OPTIONS)

    def _use(self, memory: mmap.mmap) -> None:
        """Who has taken a slot of the mapping before may still store into it: it stays as long as somebody does."""
        octets = memoryview(memory)
        self.words = octets.cast("Q")
        self.memory = octets

    def _hand_out(self, steps: int) -> None:
        """Slots of step number `steps`, the lowest to be taken first: the fewer pages are touched."""
        first = _FIRST_SLOT + (steps - 1) * _STEP
        self._steps = steps
        self.free[:0] = [slot * _SLOT_WORDS + _SLOT_WORDS - 1 for slot in range(first + _STEP - 1, first - 1, -1)]
        self._fill_reserve()

    def _fill_reserve(self) -> None:
        while len(self._reserve) < _RESERVE and (place := _popped(self.free)):
            self._reserve.append(place)

    # Its end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back the descriptor and the mapping. What is open stays open in the file. Stores nothing; may be repeated.

        Later calls do nothing: `enter()` finds no room.
        """
        with self._lock:
            fd, self._fd = self._fd, NO_DESCRIPTOR
            self._use(
                mmap.mmap(-1, _bytes_of(max(1, self._steps)), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            )  # costs no memory
            self.free.clear()
            self._reserve.clear()
        give_back(fd)

    def forget_in_child(self) -> None:
        """After a fork, in the child: `close()`, whatever another thread of the parent was doing. The file is the parent's;
        places taken before the fork are left in vain."""
        self._lock = threading.RLock()
        self._is_growing = False
        self.close()


def _popped(places: list[int]) -> int:
    try:
        return places.pop()
    except IndexError:
        return 0


def _bytes_of(steps: int) -> int:
    return HEADER_BYTES + steps * _STEP * _SLOT_BYTES


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────


class SlabReading(NamedTuple):
    """What a slab tells of a process that has ended."""

    heartbeat_ns: int
    """Of the last `beat()`; 0 if there was none."""
    bodies: list[bytes]
    """Of the spans that were open."""
    damaged: int
    """Slots whose state cannot be what was written: neither free nor open."""


def read_slab(fd: int, journal_id: bytes) -> tuple[int, list[bytes]]:
    """(heartbeat in nanoseconds, bodies of the spans that were open). Raises like `inspect_slab()`."""
    return inspect_slab(fd, journal_id)[:2]


def inspect_slab(fd: int, journal_id: bytes) -> SlabReading:
    """Raises `JournalDamaged` when the header is not that of a slab of this journal, `JournalFromNewerVersion`, `OSError`."""
    image = _read_all(fd, _bytes_of(_MOST_STEPS))
    if len(image) >= SLAB_FILE_BYTES and image.count(0) == len(image):
        return SlabReading(0, [], 0)  # its process died before the header was there, so before any span
    _check_header(image, journal_id)
    bodies: list[bytes] = []
    damaged = 0
    for at, state in _states(image):
        if (size := _SIZES.get(state)) is None:
            damaged += 1
        else:
            bodies.append(image[at - LARGEST_BODY : at - LARGEST_BODY + size])
    beat = int.from_bytes(image[_BEAT_AT * _WORD : (_BEAT_AT + 1) * _WORD], "little")
    return SlabReading(beat, bodies, damaged)


def clear_slab(fd: int) -> None:
    """Let every slot be free: what was open has been closed elsewhere. Raises `OSError`; may be repeated."""
    for at, _ in _states(_read_all(fd, _bytes_of(_MOST_STEPS))):
        os.pwrite(fd, bytes(_WORD), at)


def _states(image: bytes) -> list[tuple[int, int]]:
    """(byte, value) of the states that are not free, of the slots that lie wholly in the file."""
    words = memoryview(image)[: len(image) // _SLOT_BYTES * _SLOT_BYTES].cast("Q")
    states = enumerate(words[_SLOT_WORDS - 1 :: _SLOT_WORDS].tolist())
    return [(slot * _SLOT_BYTES + LARGEST_BODY, state) for slot, state in states if state and slot >= _FIRST_SLOT]


def _read_all(fd: int, most: int) -> bytes:
    parts = []
    at = 0
    while at < most and (part := os.pread(fd, most - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _make_header(journal_id: bytes) -> bytes:
    header = bytearray(_FIELDS.pack(_MAGIC, FORMAT_VERSION, 0, journal_id).ljust(BLOCK_BYTES, b"\0"))
    header[_STATE_BYTES] = (SEALED | zlib.crc32(header)).to_bytes(_WORD, "little")
    return bytes(header)


def _check_header(image: bytes, journal_id: bytes) -> None:
    header = bytearray(image[:BLOCK_BYTES])
    if len(header) < BLOCK_BYTES:
        raise JournalDamaged("the file of open spans is damaged: it ends in its header")
    magic, version, sealed, found = _FIELDS.unpack_from(header)
    header[_STATE_BYTES] = bytes(_WORD)
    if magic != _MAGIC or sealed != SEALED | zlib.crc32(header):
        raise JournalDamaged("the file of open spans is damaged: its header is wrong")
    if version > FORMAT_VERSION:
        raise JournalFromNewerVersion(f"the file of open spans has format version {version}, this is {FORMAT_VERSION}")
    if found != journal_id:
        raise JournalDamaged("the file of open spans belongs to another journal")
