"""A segment: a run of records that is kept and freed as one.

    ┌──────────────────────────── payload ────────────────────────────┬──────── directory ────────┐
    │ record 0 │ record 1 │ record 2 │ …            (free)             │ word 0 │ word 1 │ …  0  0 │
    └──────────────────────────────────────────────────────────────────┴───────────────────────────┘

- Record i ends at byte `words[i]` of the payload and begins where record i-1 ends.
- A word is written once, after its payload; 0 means not written; written words form a prefix.
- Bytes below the last word never change, so a view of them can be sent while others append.
- A word holds `end offset : 28 | kind : 4 | scope : 16 | spare : 16`; only the offset is used in memory.

The memory is an anonymous private mapping: taking a segment costs no zeroing, untouched pages cost nothing, and a
journal can put a file in its place.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right

__all__ = ["SEGMENT_BYTES", "Segment", "find_last"]

SEGMENT_BYTES = 1 << 20
"""One mebibyte: small enough to give back soon, large enough that rolling is rare (every 4,000 spans)."""

_BYTES_PER_SLOT = 96
"""One directory word for each so many payload bytes. The smallest span that asynctrace writes has 104 bytes."""

_WORD = 8


class Segment:
    """Memory for `slots` records of together at most `capacity` bytes; `base` is the number of its first record."""

    __slots__ = ("_memory", "base", "capacity", "payload", "slots", "words")

    payload: memoryview
    words: memoryview

    def __init__(self, base: int, capacity: int) -> None:
        self.base = base
        self.capacity = -(-capacity // _WORD) * _WORD
        self.slots = max(1, self.capacity // _BYTES_PER_SLOT)
        size = self.capacity + self.slots * _WORD
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._lay_out()

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
        self.payload = memory[: self.capacity]
        self.words = memory[self.capacity :].cast("Q")

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
