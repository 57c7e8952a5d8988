"""A segment of a process that is gone: what of it can be trusted.

Promises:

1. What is read is a run of whole records from the first on, each the bytes that were appended, as far as the trust goes:
   `words` — the same kernel still runs: the process was killed, memory and its order of stores are not in doubt;
   `marks` — the power failed or the machine was reset: blocks may be on the disk or not, in any combination, and only
   what the newest mark proves by checksum counts.
2. A record is cut off, with all behind it, at the first word that is not above the one before, or lies outside the payload,
   or does not end a whole frame (tag, length, body). Then the segment is `damaged`, and says how many records it claims.
3. A file that never held a record, or was about to be used anew, is None. A header that cannot be right raises
   `JournalDamaged`, a newer version's `JournalFromNewerVersion`. Nothing else is raised for any bytes whatsoever.
4. Nothing is written. Bytes are checked with `pread` before they are mapped: a disk that cannot read them is an error
   here, and no SIGBUS.
"""

from __future__ import annotations

import mmap
import os
import zlib
from array import array
from collections.abc import Iterator
from itertools import takewhile
from typing import Literal

from ..._errors import JournalDamaged, JournalFromNewerVersion
from .._segment import WORD_BYTES, Segment
from ._files import MAP_OPTIONS
from ._format import (
    BASE_AT,
    CAPACITY_AT,
    END_MASK,
    FORMAT_VERSION,
    FREE,
    HEADER_BYTES,
    ID_AT,
    LARGEST_SEGMENT,
    MAGIC,
    MAGIC_AT,
    MARK_WORDS,
    MARKS_AT,
    NUMBER_AT,
    SEALED,
    SLOTS_AT,
    STATE_AT,
    VERSION_AT,
    header_crc,
    mark_crc,
    mark_seed,
)

__all__ = ["ReadSegment", "Trust", "read_segment"]

Trust = Literal["words", "marks"]

_RECORD_TAG = 0x12
"""Field 2, length-delimited: `ScopeSpans.spans`."""

_LONGEST_LENGTH = 5
"""Bytes of a varint that can hold a length of 28 bits, and one to spare."""

_PIECE = 1 << 20

_LONGEST_FILE = 2 * LARGEST_SEGMENT
"""No segment file comes near it: the directory is a twelfth of the payload."""

_NO_BYTES = memoryview(b"")


class ReadSegment(Segment):
    """The records of a segment file that can be trusted: `used` of them, from number `base` on. Read-only."""

    __slots__ = ("claimed", "damaged", "name", "number", "used")

    def __init__(self, fd: int, name: str, header: memoryview, ends: array[int], claimed: int) -> None:
        """For `read_segment()`."""
        self.name = name
        self.number: int = header[NUMBER_AT]
        self.base = header[BASE_AT]
        self.capacity = header[CAPACITY_AT]
        self.slots = header[SLOTS_AT]
        self.used = len(ends)
        """Records that can be trusted."""
        self.claimed = claimed
        """Directory words that are not zero: how many records there were, if those words are right."""
        self.damaged = claimed > self.used
        """Whether something in it could not be trusted."""
        self.words = memoryview(ends).toreadonly()
        """End offsets of the `used` records, without the other bits of a directory word."""
        self.payload = _NO_BYTES
        if ends:
            self._memory = mmap.mmap(fd, HEADER_BYTES + ends[-1], mmap.MAP_SHARED, mmap.PROT_READ, **MAP_OPTIONS)
            self.payload = memoryview(self._memory)[HEADER_BYTES:]

    def reuse(self, base: int) -> bool:
        """False: nobody appends to it."""
        return False

    def close(self) -> None:
        """Let go of the file; it is unmapped when nobody holds a view of it any more. May be repeated."""
        self.payload = _NO_BYTES
        if self.used:
            del self._memory
        self.used = 0


def read_segment(fd: int, name: str, *, journal_id: bytes, trust: Trust) -> ReadSegment | None:
    """What can be trusted of the segment file that `fd` is open on; None if it holds nothing. `fd` stays the caller's.

    Raises `JournalDamaged` (its header, or the file as a whole) and `JournalFromNewerVersion`.
    """
    try:
        if _is_blank(fd):
            return None
        header = memoryview(_read_words(fd, 0, HEADER_BYTES // WORD_BYTES))
        if header[STATE_AT] == FREE:
            return None
        _check_header(header, os.fstat(fd).st_size, journal_id)
        words = _read_words(fd, HEADER_BYTES + header[CAPACITY_AT], header[SLOTS_AT])
        ends = array("Q", (word & END_MASK for word in words[: _written(words)]))
        payload = _read(fd, HEADER_BYTES, min(max(ends, default=0), header[CAPACITY_AT]))
        if trust == "marks":
            del ends[_proved_by_marks(header, payload, words, ends) :]
        del ends[_whole_records(payload, ends) :]
        return ReadSegment(fd, name, header, ends, claimed=len(words) - words.count(0))
    except (JournalDamaged, JournalFromNewerVersion) as error:
        raise type(error)(f"{name}: {error}") from None
    except (OSError, ValueError) as error:  # the latter from `mmap`, of a file that was cut meanwhile
        raise JournalDamaged(f"{name} cannot be read: {error}") from error


def _is_blank(fd: int) -> bool:
    """Whether the file was made and no more: it is empty, or all zeros."""
    return not any(any(piece) for piece in _pieces(fd, 0))


def _check_header(header: memoryview, size: int, journal_id: bytes) -> None:
    if header[MAGIC_AT] != MAGIC:
        raise JournalDamaged("not a segment, or its first bytes are damaged")
    if header[STATE_AT] != SEALED | header_crc(header):
        raise JournalDamaged("the checksum of the header is wrong")
    if header[VERSION_AT] > FORMAT_VERSION:
        raise JournalFromNewerVersion(f"written in format version {header[VERSION_AT]}, this is {FORMAT_VERSION}")
    if b"".join(word.to_bytes(WORD_BYTES, "little") for word in header[ID_AT : ID_AT + 2]) != journal_id:
        raise JournalDamaged("belongs to another journal")
    capacity, slots = header[CAPACITY_AT], header[SLOTS_AT]
    if capacity > LARGEST_SEGMENT or HEADER_BYTES + capacity + slots * WORD_BYTES > size:
        raise JournalDamaged("the file is shorter than its header says")


def _written(words: array[int]) -> int:
    """How many words there are before the first that was not written."""
    try:
        return words.index(0)
    except ValueError:
        return len(words)


def _proved_by_marks(header: memoryview, payload: memoryview, words: array[int], ends: array[int]) -> int:
    """How many records the newest mark proves that can prove anything."""
    seed = mark_seed(header)
    marks = [header[at : at + MARK_WORDS] for at in MARKS_AT]
    for mark in sorted(marks, key=lambda mark: mark[0], reverse=True):
        _, records, end, crcs, seal = mark
        if (
            seal == SEALED | mark_crc(mark, seed)
            and 0 < records <= len(ends)
            and ends[records - 1] == end <= len(payload)
            and crcs == zlib.crc32(memoryview(words)[:records], seed) << 32 | zlib.crc32(payload[:end], seed)
        ):
            return records
    return 0


def _whole_records(payload: memoryview, ends: array[int]) -> int:
    """How many of the records from the first on are whole frames that end where their words say."""
    start = 0
    for slot, end in enumerate(ends):
        if not start < end <= len(payload) or _end_of_frame(payload, start) != end:
            return slot
        start = end
    return len(ends)


def _end_of_frame(payload: memoryview, start: int) -> int:
    """Where the record at `start` ends by its own length; -1 where none can begin."""
    if payload[start] != _RECORD_TAG:
        return -1
    length = 0
    for place, octet in enumerate(payload[start + 1 : start + 1 + _LONGEST_LENGTH]):
        length |= (octet & 0x7F) << 7 * place
        if octet < 0x80:
            return start + 2 + place + length
    return -1


def _read_words(fd: int, at: int, count: int) -> array[int]:
    return array("Q", bytes(_read(fd, at, count * WORD_BYTES)))


def _read(fd: int, at: int, length: int) -> memoryview:
    """Exactly `length` bytes from `at` on, read and not mapped. Raises `JournalDamaged` where the file is shorter."""
    found = b"".join(_pieces(fd, at, at + length))
    if len(found) < length:
        raise JournalDamaged(f"the file ends at byte {at + len(found)}")
    return memoryview(found)


def _pieces(fd: int, start: int, stop: int = _LONGEST_FILE) -> Iterator[bytes]:
    """The bytes of the file from `start` to `stop`, or to its end."""
    pieces = (range(at, min(at + _PIECE, stop)) for at in range(start, stop, _PIECE))
    return takewhile(len, (os.pread(fd, len(piece), piece.start) for piece in pieces))
