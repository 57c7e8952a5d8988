"""Files of a journal written behind: for file systems on which a store into a mapped file may end the process.

    segments, slab, lanes ── stores ──▶ memory files ── copy(), every 20 ms ──▶ files, in the same format

Promises:

1. What was stored when a `copy()` began is in the files when it returns, and survives the process. Whatever came later may
   be lost with it: what 20 milliseconds bring.
2. A process that is killed between any two writes of a copy leaves files each of which reads back as a state that it had.
   None claims what another one lacks, because they are written in this order:

       lanes ──▶ segments, the older first ──▶ slab (as it was before the segments were looked at)

   A cursor is in its file before a segment that it passed is overwritten, and a record before its span ceases to be open.
3. A disk that is full costs nothing that the memory holds: `copy()` raises, and what was not written is tried again by the
   next. While a lane cannot be written, no segment is overwritten with newer records; while a segment cannot, what ends does
   not cease to be open.
4. `watch()` and `settle()` take no lock and make no system call.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
import threading
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from ..._errors import JournalDamaged
from ._files import allocate
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

__all__ = ["Mirror", "MirroredLane"]

_WORD: Final = 8
_CHUNK: Final = 16 * PAGE_BYTES
"""What is compared at once: large enough that its comparison costs more than the call."""
_AHEAD: Final = 4
"""Of such chunks of the slab: twice the reserve that it keeps apart."""
_PATIENCE: Final = 5.0
"""Seconds to wait for another `copy()`, which may be waiting for a disk."""
_FIELDS: Final = FIELD_WORDS * _WORD
_STATE: Final = slice(STATE_AT * _WORD, (STATE_AT + 1) * _WORD)
_FREE_STATE: Final = FREE.to_bytes(_WORD, "little")
_GENERATION: Final = slice(BLOCK_BYTES, BLOCK_BYTES + _WORD)
"""Of a lane's file; its `_STATE` is that of every file."""

_Outcome = tuple[bool, list[OSError]]
"""(whether the files have all that was to be copied, what went wrong)"""

_MAP_OPTIONS: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
_NO_DESCRIPTOR: Final = -1


class Mirror:
    """Memory files in the place of those that `open_file(name, size)` makes. `close()` must be called."""

    def __init__(self, open_file: Callable[[str, int], int]) -> None:
        self._open_file = open_file
        self._lanes: dict[str, _LaneCopy] = {}
        self._slabs: dict[str, _SlabCopy] = {}
        self._segments: dict[str, _SegmentCopy] = {}
        self._watched: set[str] = set()
        self._settling: list[str] = []
        self._due: set[str] = set()
        self._lock = threading.Lock()
        """Held by a copy of everything. Each file has a lock of its own as well: a lane does not wait for the segments."""

    # Files -------------------------------------------------------------------------------------------------------

    def open_file(self, name: str, size: int) -> int:
        """A memory file of `size` zeros, whose descriptor is the caller's, and behind it a real one. Raises `OSError`."""
        memory = _memory_file(name, size)
        try:
            self._add(name, memory, size)
        except BaseException:
            os.close(memory)
            raise
        return memory

    def _add(self, name: str, memory: int, size: int) -> None:
        kind = os.path.splitext(name)[1]
        if kind == ".lane":
            self._lanes[name] = _LaneCopy(self._open_file, name, memory, size)
        elif kind == ".slab":
            self._slabs[name] = _SlabCopy(self._open_file, name, memory, size)
        else:
            self._segments[name] = _SegmentCopy(self._open_file, name, memory, size)

    def watch(self, name: str) -> None:
        """Records are appended to this segment from now on: look at it in each copy. Slabs and lanes always are looked at."""
        self._watched.add(name)

    def settle(self, name: str) -> None:
        """Nothing is appended to this segment any more: look at it once more, in the next copy that begins."""
        self._settling.append(name)
        self._watched.discard(name)

    def forget(self, name: str) -> None:
        """Its file is going to be deleted. Writes the lanes first, if that can be: their cursors have passed it."""
        self._copy_lanes()
        self._watched.discard(name)
        self._due.discard(name)
        if (segment := self._segments.pop(name, None)) is not None:
            segment.close()

    # Copying -----------------------------------------------------------------------------------------------------

    def copy(self) -> None:
        """Write what has changed. Raises the first `OSError`, after having tried every file whose turn came."""
        if not self._lock.acquire(timeout=_PATIENCE):
            raise TimeoutError(errno.ETIMEDOUT, "the files of the journal are being written for too long")
        try:
            failures = self._copy_all()
        finally:
            self._lock.release()
        if failures:
            raise failures[0]

    def copy_one(self, name: str) -> None:
        """Write what has changed in a lane's file. Waits for no other file. Raises `OSError`."""
        self._lanes[name].copy()

    def sync(self) -> None:
        """`copy()`, and wait until the disk has it. Raises `OSError`."""
        self.copy()
        files = [*self._lanes.values(), *self._segments.values(), *self._slabs.values()]
        failures = _try_each([file.sync for file in files])
        if failures:
            raise failures[0]

    def _copy_all(self) -> list[OSError]:
        slabs = list(self._slabs.values())
        failures = _try_each([slab.look for slab in slabs])
        lanes_are_there, of_lanes = self._copy_lanes()
        records_are_there, of_segments = self._copy_segments(may_replace=lanes_are_there)
        failures += of_lanes + of_segments
        if records_are_there:
            failures += _try_each([slab.write for slab in slabs])
        return failures

    def _copy_lanes(self) -> _Outcome:
        return _outcome_of([lane.copy for lane in list(self._lanes.values())])

    def _copy_segments(self, *, may_replace: bool) -> _Outcome:
        while self._settling:
            self._due.add(self._settling.pop())
        self._due.intersection_update(self._segments)
        named = [(name, self._segments.get(name)) for name in self._due.union(list(self._watched))]
        found = [(name, segment) for name, segment in named if segment is not None]
        found.sort(key=lambda pair: pair[1].number)  # what is lost with the process is the newest
        return _outcome_of([partial(self._copy_segment, name, segment, may_replace) for name, segment in found])

    def _copy_segment(self, name: str, segment: _SegmentCopy, may_replace: bool) -> bool:
        is_there = segment.copy(may_replace=may_replace)
        if is_there:
            self._due.discard(name)
        return is_there

    # Its end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back descriptors and memory; a file that another thread is writing at this moment keeps its own."""
        for files in (self._lanes, self._slabs, self._segments):
            _close_all(files, forcibly=False)

    def forget_in_child(self) -> None:
        """After a fork, in the child: the same, whatever other threads of the parent were doing."""
        for files in (self._lanes, self._slabs, self._segments):
            _close_all(files, forcibly=True)
        self._watched.clear()
        self._due.clear()


def _try_each(jobs: Iterable[Callable[[], object]]) -> list[OSError]:
    return [failure for job in jobs if (failure := _try(job)) is not None]


def _try(job: Callable[[], object]) -> OSError | None:
    try:
        job()
    except OSError as error:
        return error
    return None


def _outcome_of(copies: Sequence[Callable[[], bool]]) -> _Outcome:
    there: list[bool] = []
    failures = _try_each([partial(_note, copy, there) for copy in copies])
    return sum(there) == len(copies), failures


def _note(copy: Callable[[], bool], there: list[bool]) -> None:
    there.append(copy())


def _close_all(files: dict[str, Any], *, forcibly: bool) -> None:
    for file in list(files.values()):
        file.close(forcibly=forcibly)
    files.clear()


def _memory_file(name: str, size: int) -> int:
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


# ── one file ────────────────────────────────────────────────────────────────────────────────────────────────


class MirroredLane:
    """Where a lane writes down what must outlive the process: a window is in the lane's real file before its bytes leave."""

    def __init__(self, mirror: Mirror, file_name: str, lane: LaneFile) -> None:
        self._mirror = mirror
        self._file_name = file_name
        self._lane = lane
        self.add_run = lane.add_run
        self.move_cursor = lane.move_cursor

    @property
    def cursor(self) -> int:
        return self._lane.cursor

    def open_window(self, first: int, count: int) -> bool:
        """See `LaneFile.open_window()`. A file that cannot be written stops nobody from sending: a copy tells of it."""
        opened = self._lane.open_window(first, count)
        if opened:
            with suppress(OSError):
                self._mirror.copy_one(self._file_name)
        return opened


class _Copy:
    """A memory file and the real one behind it."""

    def __init__(self, open_file: Callable[[str, int], int], name: str, memory: int, size: int) -> None:
        """The memory first: a failure leaves no file behind."""
        self._memory = mmap.mmap(memory, size, mmap.MAP_SHARED, mmap.PROT_READ, **_MAP_OPTIONS)
        self._lock = threading.Lock()
        self._is_unsynced = False
        self._real = open_file(name, size)

    def sync(self) -> None:
        """Wait until the disk has what was written."""
        with self._lock:
            if self._is_unsynced and self._real != _NO_DESCRIPTOR:
                os.fdatasync(self._real)
                self._is_unsynced = False

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
        real, self._real = self._real, _NO_DESCRIPTOR
        if real != _NO_DESCRIPTOR:
            os.close(real)
        with suppress(BufferError):
            self._memory.close()


class _LaneCopy(_Copy):
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
            return self._real == _NO_DESCRIPTOR or self._copy()

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
    descriptor = _memory_file("lane", len(image))
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


class _SlabCopy(_Copy):
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
            if self._real != _NO_DESCRIPTOR:
                self._look()

    def write(self) -> None:
        """Write what was noted."""
        with self._lock:
            if self._real != _NO_DESCRIPTOR:
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
        memory = mmap.mmap(self._fd, size, mmap.MAP_SHARED, mmap.PROT_READ, **_MAP_OPTIONS)
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
        fd, self._fd = self._fd, _NO_DESCRIPTOR
        if fd != _NO_DESCRIPTOR:
            os.close(fd)
        super()._close()


class _SegmentCopy(_Copy):
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
            return self._real == _NO_DESCRIPTOR or self._copy(may_replace)

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
