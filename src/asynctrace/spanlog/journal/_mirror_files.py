"""A memory file and the real one behind it, for each kind of file that a journal has.

What has changed is found at the speed of `memcmp`, and written in an order that may end after any write. The order in which
the files are written is that of `_mirror.py`.
"""

from __future__ import annotations

import mmap
import os
import threading
import zlib
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from ..._errors import JournalDamaged
from ._files import MAP_OPTIONS, NO_DESCRIPTOR, allocate, give_back
from ._format import (
    BLOCK_BYTES,
    CAPACITY_AT,
    END_MASK,
    FIELD_WORDS,
    FREE,
    HEADER_BYTES,
    NUMBER_AT,
    PAGE_BYTES,
    SEALED,
    SLOTS_AT,
    STATE_AT,
)
from ._lane_file import LaneFile

__all__ = ["LaneCopy", "SegmentCopy", "SlabCopy", "memory_file"]

_WORD: Final = 8
_CHUNK: Final = 16 * PAGE_BYTES
"""What is compared at once: large enough that its comparison costs more than the call."""
_AHEAD: Final = 4
"""Of such chunks of the slab: twice the reserve that it keeps apart."""
_FIELDS: Final = FIELD_WORDS * _WORD
_STATE: Final = slice(STATE_AT * _WORD, (STATE_AT + 1) * _WORD)
_FREE_STATE: Final = FREE.to_bytes(_WORD, "little")
_GENERATION: Final = slice(BLOCK_BYTES, BLOCK_BYTES + _WORD)
"""Of a lane's file; its `_STATE` is that of every file."""


def memory_file(name: str, size: int) -> int:
    """A file without a name, of `size` zeros, that stays in memory where the system has such."""
    if not hasattr(os, "memfd_create"):
        return _unlinked_file(size)
    descriptor = os.memfd_create(f"asynctrace {name}"[:200], os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _unlinked_file(size: int) -> int:
    import tempfile

    with tempfile.TemporaryFile() as file:
        allocate(file.fileno(), size)
        return os.dup(file.fileno())


def _write(descriptor: int, content: bytes | memoryview, at: int) -> None:
    rest = memoryview(content)
    while rest:
        written = os.pwrite(descriptor, rest, at)
        rest = rest[written:]
        at += written


# ── copies ──────────────────────────────────────────────────────────────────────────────────────────────────


class _Copy:
    """A memory file and the real one behind it."""

    def __init__(self, open_file: Callable[[str, int], int], name: str, memory: int, size: int) -> None:
        """The memory first: a failure leaves no file behind."""
        self._memory = mmap.mmap(memory, size, mmap.MAP_SHARED, mmap.PROT_READ, **MAP_OPTIONS)
        self._lock = threading.Lock()
        self._is_unsynced = False
        self._real = open_file(name, size)

    def sync(self) -> None:
        """Wait until the disk has what was written. Without the lock: a window does not wait for the disk."""
        if not self._is_unsynced:
            return
        self._is_unsynced = False
        try:
            os.fdatasync(self._real)
        except BaseException:
            self._is_unsynced = True
            raise

    def _store(self, content: bytes | memoryview, at: int) -> None:
        """Every write into the real file goes through here."""
        self._is_unsynced = True
        _write(self._real, content, at)

    def close(self, *, forcibly: bool = False) -> None:
        if forcibly:
            self._close()
        elif self._lock.acquire(timeout=0.1):
            try:
                self._close()
            finally:
                self._lock.release()

    def _close(self) -> None:
        real, self._real = self._real, NO_DESCRIPTOR
        give_back(real)
        with suppress(BufferError):
            self._memory.close()


class LaneCopy(_Copy):
    """A lane's file: entries in two halves, and a generation that says which of them counts.

    All of it is looked at in one instant. Written is, in this order, the half that counts, from its beginning on; the
    generation; the other half. So the generation in the file never vouches for a half that is not there yet.
    """

    def __init__(self, open_file: Callable[[str, int], int], name: str, memory: int, size: int) -> None:
        super().__init__(open_file, name, memory, size)
        self._shadow = bytearray(size)
        """What the file holds, but for the pages in `_unsure`."""
        self._unsure: set[int] = set()

    def copy(self) -> bool:
        """False, and the file is as it was: a second generation since the last copy is just beginning."""
        with self._lock:
            return self._real == NO_DESCRIPTOR or self._copy()

    def _copy(self) -> bool:
        memory: Any = self._memory
        if not self._unsure and self._shadow == memory:  # a bytearray and a buffer: memcmp
            return True
        image = self._memory[:]
        generation, before = _generation(image), _generation(self._shadow)
        if before and generation != before and generation % 2 == before % 2:
            earlier = _one_generation_back(image)
            if earlier is None:
                return False
            self._write_state(earlier)
        self._write_state(image)
        return True

    def _write_state(self, image: bytes) -> None:
        size = (len(image) - HEADER_BYTES) // 2
        halves = [(HEADER_BYTES, HEADER_BYTES + size), (HEADER_BYTES + size, len(image))]
        generation = _generation(image)
        self._write_changes(image, *halves[generation % 2])
        self._write_changes(image, 0, HEADER_BYTES)
        self._write_changes(image, *halves[1 - generation % 2])

    def _write_changes(self, image: bytes, start: int, stop: int) -> None:
        for at in range(start, stop, PAGE_BYTES):
            page = image[at : min(at + PAGE_BYTES, stop)]
            if at in self._unsure or self._shadow[at : at + len(page)] != page:
                self._write_page(page, at)

    def _write_page(self, page: bytes, at: int) -> None:
        self._unsure.add(at)
        self._store(page, at)
        self._shadow[at : at + len(page)] = page
        self._unsure.discard(at)


def _generation(image: bytes | bytearray) -> int:
    return int.from_bytes(image[_GENERATION][:4], "little")


def _one_generation_back(image: bytes) -> bytes | None:
    """The lane as it was when the generation before was full, which the other half still tells; None if it does not.

    It is the stepping stone when two generations began since the last copy: what counts in the file is the very half that
    has to be written.
    """
    generation = (_generation(image) - 1).to_bytes(4, "little")
    seed = int.from_bytes(image[_STATE][:4], "little")
    word = generation + zlib.crc32(generation, seed).to_bytes(4, "little")
    earlier = image[: _GENERATION.start] + word + image[_GENERATION.stop :]
    return earlier if _can_be_read(earlier) else None


def _can_be_read(image: bytes) -> bool:
    descriptor = memory_file("lane", len(image))
    try:
        _write(descriptor, image, 0)
    except BaseException:
        os.close(descriptor)
        raise
    try:
        LaneFile.open(descriptor, write=False).close()
    except JournalDamaged:
        return False
    return True


class SlabCopy(_Copy):
    """The open spans: slots that do not depend on each other, none of which lies in two pages. Looked at page by page.

    A slab hands its slots out from the lowest on, so that most of it never changes: what lies `_AHEAD` above whatever changed
    is looked at in turns. (Less, and a thousand slots could be taken at once, in vain.)
    """

    # A tick of a quiet journal, one lane: 20 µs; 60 when all of the slab is compared, with the GIL held.

    def __init__(self, open_file: Callable[[str, int], int], name: str, memory: int, size: int) -> None:
        super().__init__(open_file, name, memory, size)
        self._fd = os.dup(memory)
        self._shadow = [bytearray(min(_CHUNK, size - at)) for at in range(0, size, _CHUNK)]
        self._seen: dict[int, bytes] = {}
        """Pages that differ from the file, or may do so."""
        self._reach = _AHEAD
        """Chunks to look at each time."""
        self._turn = 0

    def look(self) -> None:
        """Note what has changed. Raises `OSError` when the slab has grown and its file cannot."""
        with self._lock:
            if self._real != NO_DESCRIPTOR:
                self._look()

    def write(self) -> None:
        """Write what was noted."""
        with self._lock:
            if self._real != NO_DESCRIPTOR:
                self._write_pages()

    def _look(self) -> None:
        octets = memoryview(self._memory)
        try:
            self._compare(octets)
        finally:
            octets.release()
        if os.fstat(self._fd).st_size > len(self._memory):
            self._follow()

    def _compare(self, octets: memoryview) -> None:
        number = 0
        while number < min(self._reach, len(self._shadow)):
            self._compare_chunk(number, octets)  # which may set `_reach` higher
            number += 1
        self._turn += 1
        if above := range(number, len(self._shadow)):
            self._compare_chunk(above[self._turn % len(above)], octets)
        for at in self._seen:
            self._seen[at] = self._memory[at : at + PAGE_BYTES]

    def _compare_chunk(self, number: int, octets: memoryview) -> None:
        chunk, at = self._shadow[number], number * _CHUNK
        if chunk != octets[at : at + len(chunk)]:  # memcmp again
            self._compare_pages(chunk, at)

    def _compare_pages(self, chunk: bytearray, start: int) -> None:
        self._reach = max(self._reach, start // _CHUNK + 1 + _AHEAD)
        for at in range(0, len(chunk), PAGE_BYTES):
            page = self._memory[start + at : start + at + PAGE_BYTES]
            if chunk[at : at + PAGE_BYTES] != page:
                self._seen[start + at] = page

    def _follow(self) -> None:
        """The slab has grown."""
        size = os.fstat(self._fd).st_size
        allocate(self._real, size)
        memory = mmap.mmap(self._fd, size, mmap.MAP_SHARED, mmap.PROT_READ, **MAP_OPTIONS)
        before, self._memory = self._memory, memory
        last = self._shadow[-1]
        last.extend(bytes(min(_CHUNK, size - (len(self._shadow) - 1) * _CHUNK) - len(last)))
        self._shadow += [bytearray(min(_CHUNK, size - at)) for at in range(len(self._shadow) * _CHUNK, size, _CHUNK)]
        before.close()
        self._look()

    def _write_pages(self) -> None:
        for at in sorted(self._seen):
            page = self._seen[at]
            self._store(page, at)
            chunk = self._shadow[at // _CHUNK]
            chunk[at % _CHUNK : at % _CHUNK + len(page)] = page
            del self._seen[at]

    def _close(self) -> None:
        fd, self._fd = self._fd, NO_DESCRIPTOR
        give_back(fd)
        super()._close()


class SegmentCopy(_Copy):
    """A segment: its payload below the last word never changes, so that it is enough to know how far it was copied.

    A new life of the file: the header with the state FREE, payload, words, and the state last.
    """

    def __init__(self, open_file: Callable[[str, int], int], name: str, memory: int, size: int) -> None:
        super().__init__(open_file, name, memory, size)
        self._words = memoryview(self._memory).cast("Q")
        self._header = b""
        """In the file, once it is known."""
        self._life = b""
        """The fields of the header in the file, if its state vouches for what is there."""
        self._records = self._end = 0
        """How much of that is there."""
        self._stale = 0
        """Words in the file that may not be 0."""

    @property
    def number(self) -> int:
        """Its place among the segments."""
        try:
            return int(self._words[NUMBER_AT])
        except ValueError:
            return 0  # closed

    def copy(self, *, may_replace: bool) -> bool:
        """False when the file was left alone because it holds records that something else may need (see `may_replace`)."""
        with self._lock:
            return self._real == NO_DESCRIPTOR or self._copy(may_replace)

    def _copy(self, may_replace: bool) -> bool:
        header = self._memory[:HEADER_BYTES]
        life = header[:_FIELDS]
        if header == self._header and not (self._life and self._has_more()):
            return True
        if life != self._life and self._life and not may_replace:
            return False
        if not int.from_bytes(header[_STATE], "little") & SEALED:
            self._free(header)
            return True
        if life != self._life:
            self._free(header)
        return self._go_on(header, life)

    def _has_more(self) -> bool:
        first, slots = self._place_of_words()
        return self._records < slots and bool(self._words[first + self._records])

    def _place_of_words(self) -> tuple[int, int]:
        """(the first, how many): the same in every life."""
        return (HEADER_BYTES + self._words[CAPACITY_AT]) // _WORD, self._words[SLOTS_AT]

    def _free(self, header: bytes) -> None:
        """Let the file hold nothing."""
        self._header = self._life = b""
        header = header[: _STATE.start] + _FREE_STATE + header[_STATE.stop :]
        self._store(header, 0)
        self._records = self._end = 0
        self._header = header

    def _go_on(self, header: bytes, life: bytes) -> bool:
        at, slots = self._place_of_words()
        records = bisect_left(self._words, True, at + self._records, at + slots, key=_is_unwritten) - at
        words = self._words[at + self._records : at + records].tobytes()
        end = self._words[at + records - 1] & END_MASK if records else 0
        if self._memory[:_FIELDS] != life:
            return False  # it is being made ready for other records: the next copy sees to it
        self._write_payload(end)
        self._write_words(at, records, words)
        self._end = end
        self._write_header(header, life)
        return True

    def _write_payload(self, end: int) -> None:
        if end > self._end:
            octets = memoryview(self._memory)[HEADER_BYTES + self._end : HEADER_BYTES + end]
            try:
                self._store(octets, HEADER_BYTES + self._end)
            finally:
                octets.release()

    def _write_words(self, at: int, records: int, words: bytes) -> None:
        before, self._stale = self._stale, max(self._stale, records)
        if not self._life:  # of the life before
            words += bytes(max(0, before - records) * _WORD)
        self._store(words, (at + self._records) * _WORD)
        self._stale = self._records = records

    def _write_header(self, header: bytes, life: bytes) -> None:
        if not self._life:
            self._store(header[_STATE], _STATE.start)
        elif header != self._header:
            self._header = b""
            self._store(header[_FIELDS:], _FIELDS)
        self._header, self._life = header, life

    def _close(self) -> None:
        self._words.release()
        super()._close()


def _is_unwritten(word: int) -> bool:
    return word == 0
