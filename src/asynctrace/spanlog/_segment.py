"""A segment: a run of records that is kept and freed as one.

    ┌──────────────────────────── payload ────────────────────────────┬──────── directory ────────┐
    │ record 0 │ record 1 │ record 2 │ …            (free)             │ word 0 │ word 1 │ …  0  0 │
    └──────────────────────────────────────────────────────────────────┴───────────────────────────┘

- Record i ends at byte `words[i]` of the payload and begins where record i-1 ends.
- A word is written once, after its payload; 0 means not written; written words form a prefix.
- Bytes below the last word never change, so a view of them can be sent while others append.
- A word holds `end offset : 28 | kind : 4 | scope : 16 | spare : 16`; only the offset is used in memory.

The memory is an anonymous private mapping: taking a segment costs no zeroing, and untouched pages cost nothing. A journal
puts a file in its place, with the payload behind a header.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from typing import ClassVar

__all__ = ["SEGMENT_BYTES", "WORD_BYTES", "Segment", "find_last", "slots_for", "whole_words"]

SEGMENT_BYTES = 1 << 20
"""One mebibyte: small enough to give back soon, large enough that rolling is rare (every 4,000 spans)."""

_BYTES_PER_SLOT = 96
"""One directory word for each so many payload bytes. The smallest span that asynctrace writes has 104 bytes."""

WORD_BYTES = 8
"""Of a directory word, which lies at a multiple of it."""


def whole_words(capacity: int) -> int:
    """`capacity` bytes, and as many more as the directory behind them needs to lie on a word."""
    return -(-capacity // WORD_BYTES) * WORD_BYTES


def slots_for(capacity: int) -> int:
    """How many records a segment of `capacity` payload bytes has directory words for."""
    return max(1, capacity // _BYTES_PER_SLOT)


class Segment:
    """Memory for `slots` records of together at most `capacity` bytes; `base` is the number of its first record."""

    __slots__ = ("_memory", "base", "capacity", "payload", "slots", "words")

    _payload_at: ClassVar[int] = 0
    """Where in the memory the payload begins."""

    payload: memoryview
    words: memoryview

    def __init__(self, base: int, capacity: int, memory: mmap.mmap | None = None) -> None:
        self.base = base
        self.capacity = whole_words(capacity)
        self.slots = slots_for(self.capacity)
        self._memory = memory or self._take_memory()
        self._lay_out()

    def _take_memory(self) -> mmap.mmap:
        size = self.capacity + self.slots * WORD_BYTES
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def reuse(self, base: int) -> bool:
        """Take the memory for new records; False, and it is of no use any more, while somebody holds a slice of it.

        Its pages are mapped already: a fresh mapping costs a page fault for every 16 spans, 0.15 µs a span.
        Old directory words stay until they are overwritten; nobody reads above the number of records written since.
        """
        self.payload.release()
        self.words.release()
        try:
            self._memory.resize(len(self._memory))  # refuses as long as a view of the mapping exists
        except (BufferError, ValueError, OSError, SystemError):  # the last where mappings cannot be resized
            return False
        self.base = base
        self._lay_out()
        return True

    def _lay_out(self) -> None:
        memory = memoryview(self._memory)
        words_at = self._payload_at + self.capacity
        self.payload = memory[self._payload_at : words_at]
        self.words = memory[words_at : words_at + self.slots * WORD_BYTES].cast("Q")

    def start_of(self, slot: int) -> int:
        """The payload offset at which record `slot` begins."""
        return self.words[slot - 1] if slot else 0

    def cut(self, slot: int, used: int, max_records: int, max_bytes: int) -> tuple[memoryview, int]:
        """The longest run from `slot` within both limits, but at least one record: (bytes, number of records)."""
        start = self.start_of(slot)
        stop = bisect_right(self.words, start + max_bytes, slot, min(used, slot + max_records))
        stop = max(stop, slot + 1)
        return self.payload[start : self.words[stop - 1]], stop - slot

    def view(self, used: int) -> tuple[memoryview, memoryview]:
        """The bytes and the words of the first `used` records."""
        return self.payload[: self.start_of(used)], self.words[:used]


def find_last(needle: bytes, payload: memoryview, words: memoryview) -> int | None:
    """The last record of a `Segment.view()` whose bytes contain `needle`."""
    # A copy, because bytes.rfind is several times faster than the same search in a mapping.
    offset = bytes(payload).rfind(needle)
    return None if offset < 0 else bisect_right(words, offset)
