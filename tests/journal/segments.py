"""What the tests of segment files share: a chain of segments that is appended to, every state a file passes through, files
after a power cut, and doubles with one fault each. Started as a program it is the process that is killed while it appends.
"""

from __future__ import annotations

import gc
import mmap
import os
import random
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from asynctrace.spanlog.journal import FileSegment, ReadSegment, read_segment
from asynctrace.spanlog.journal import _format as format_
from asynctrace.wire import encode_varint, scan_records

JOURNAL_ID = bytes(range(16))

CHILD_LIVES_AT_MOST = 20.0

THREADS_AT_MOST = 8


def opener(folder: Path) -> Callable[[str, int], int]:
    """What a journal's directory gives to `FileSegment.create()`."""

    def open_file(name: str, size: int) -> int:
        fd = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.posix_fallocate(fd, 0, size)
        return fd

    return open_file


def make_record(number: int, size: int = 0, writer: int = 0) -> bytes:
    """A record of at least `size` bytes that names its writer and number, all of its bytes determined by them."""
    body = struct.pack("<QQ", number, writer) + _filling(number, max(0, size - 18))
    return b"\x12" + encode_varint(len(body)) + body


def numbers_in(record: bytes) -> tuple[int, int]:
    """(number, writer) of a record that `make_record()` made; raises when it is not wholly that."""
    body = record[3:] if record[1] >= 0x80 else record[2:]
    number, writer = struct.unpack_from("<QQ", body)
    if body[16:] != _filling(number, len(body) - 16):
        raise ValueError(f"record {number} of writer {writer} is torn")
    return number, writer


def _filling(number: int, size: int) -> bytes:
    return bytes([1 + number % 250]) * size


def records_of(segment: ReadSegment) -> list[bytes]:
    """The trusted records; checked to be whole frames by the parser that is used for anything else."""
    payload, words = segment.view(segment.used)
    whole = bytes(payload)
    spans = list(scan_records(whole))
    assert [end for _, end in spans] == list(words)
    return [whole[start:end] for start, end in spans]


def read_file(path: Path, trust: Any = "words", journal_id: bytes = JOURNAL_ID) -> ReadSegment | None:
    """`read_segment()` of a path."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_segment(fd, path.name, journal_id=journal_id, trust=trust)
    finally:
        os.close(fd)


# Appending -------------------------------------------------------------------------------------------------------------

Store = Callable[[FileSegment, int, int, bytes], None]
"""Stores a record into `segment` as record `slot`, beginning at byte `start`."""


def store(segment: FileSegment, slot: int, start: int, record: bytes) -> None:
    """As the log does: the payload, then its word."""
    end = start + len(record)
    segment.payload[start:end] = record
    segment.words[slot] = end


def word_first(segment: FileSegment, slot: int, start: int, record: bytes) -> None:
    """Wrong: for an instant the word vouches for bytes that are not there."""
    end = start + len(record)
    segment.words[slot] = end
    segment.payload[start:end] = record


def packed_words(segment: FileSegment, slot: int, start: int, record: bytes) -> None:
    """Wrong: `struct.pack_into` stores zeros first, here over the words before it, too."""
    end = start + len(record)
    segment.payload[start:end] = record
    first = max(0, slot - 63)
    ends = [*segment.words[first:slot], end]
    struct.pack_into(f"<{len(ends)}Q", segment.words.cast("B"), first * 8, *ends)


def word_in_pieces(segment: FileSegment, slot: int, start: int, record: bytes) -> None:
    """Wrong: for an instant a word is there by half."""
    end = start + len(record)
    segment.payload[start:end] = record
    octets = segment.words.cast("B")
    for place, octet in enumerate(end.to_bytes(8, "little")):
        octets[slot * 8 + place] = octet


STORES: dict[str, Store] = {made.__name__: made for made in (store, word_first, packed_words, word_in_pieces)}


class Chain:
    """A log of segment files that only grows; every third file is one that was used before."""

    def __init__(self, open_file: Callable[[str, int], int], capacity: int, how: Store = store) -> None:
        self._open_file = open_file
        self._capacity = capacity
        self._store = how
        self._count = self._base = self._slot = self._end = 0
        self._segment = self._next()

    def append(self, record: bytes) -> None:
        if self._end + len(record) > self._capacity or self._slot == self._segment.slots:
            self._base += self._slot
            self._slot = self._end = 0
            self._segment.close()
            self._segment = self._next()
        self._store(self._segment, self._slot, self._end, record)
        self._end += len(record)
        self._slot += 1

    def _next(self) -> FileSegment:
        number = self._count
        self._count += 1
        name = format_.segment_file(number)
        if number % 3 != 2:
            return FileSegment.create(self._open_file, name, JOURNAL_ID, number, self._base, self._capacity)
        segment = FileSegment.create(self._open_file, name, JOURNAL_ID, 1 << 40, 1 << 50, self._capacity)
        for slot in range(3):
            store(segment, slot, slot * 40, make_record(slot, 40, writer=99))
        assert segment.recycle(number, self._base)
        return segment


def append_for_ever(
    folder: Path, threads: int, sizes: Sequence[int], how: Store, capacity: int, oracle: memoryview
) -> None:
    """Append until killed; `oracle[writer]` is how many appends of that writer have returned."""
    lock = threading.Lock()
    chain = Chain(opener(folder), capacity, how)

    def write(writer: int) -> None:
        number = 0
        while True:
            record = make_record(number, sizes[number % len(sizes)], writer)
            with lock:
                chain.append(record)
            number += 1
            oracle[writer] = number

    sys.setswitchinterval(1e-4)
    for writer in range(1, threads):
        threading.Thread(target=write, args=(writer,), daemon=True).start()
    threading.Timer(CHILD_LIVES_AT_MOST, os._exit, (3,)).start()
    write(0)


def open_oracle(path: Path) -> memoryview:
    """A page that both processes see: one word for each thread that writes."""
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")


def program(folder: Path, threads: int, sizes: Sequence[int], how: str, capacity: int) -> list[str]:
    """The command line of a process that runs `append_for_ever()`."""
    sized = ",".join(map(str, sizes))
    return [sys.executable, __file__, str(folder), str(threads), sized, how, str(capacity)]


# Every state of a file -------------------------------------------------------------------------------------------------


class History:
    """The contents of one file: `states`, and which of them (`durable`, by index) an `fdatasync` has seen to the disk."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = path.stat().st_size
        self.states = [os.pread(self._fd, self._size, 0)]
        self.durable = [0]

    def record(self, action: Callable[[], object]) -> None:
        """Call `action`; note the file after each of its bytecodes that changed it, and each `fdatasync`."""

        def fdatasync(fd: int) -> None:
            self._look()
            real(fd)
            self.durable.append(len(self.states) - 1)

        real = os.fdatasync
        os.fdatasync = fdatasync
        gc.disable()
        try:
            call_looking_at_each_bytecode(action, self._look)
        finally:
            os.fdatasync = real
            gc.enable()
            self._look()

    def _look(self) -> None:
        now = os.pread(self._fd, self._size, 0)
        if now != self.states[-1]:
            self.states.append(now)

    def close(self) -> None:
        os.close(self._fd)


def call_looking_at_each_bytecode(action: Callable[[], object], look: Callable[[], object]) -> None:
    """Call `action`, and `look` before each bytecode that is executed meanwhile."""
    if sys.version_info < (3, 12):
        before = sys.gettrace()
        sys.settrace(_tracing(look))
        try:
            action()
        finally:
            sys.settrace(before)
        return
    # From 3.12 on `settrace` leaves out the bytecodes of functions that were never traced before.
    monitoring = sys.monitoring
    monitoring.use_tool_id(monitoring.DEBUGGER_ID, "asynctrace tests")
    try:
        monitoring.register_callback(monitoring.DEBUGGER_ID, monitoring.events.INSTRUCTION, lambda code, at: look())
        monitoring.set_events(monitoring.DEBUGGER_ID, monitoring.events.INSTRUCTION)
        action()
    finally:
        monitoring.set_events(monitoring.DEBUGGER_ID, 0)
        monitoring.free_tool_id(monitoring.DEBUGGER_ID)


def _tracing(look: Callable[[], object]) -> Callable[[FrameType, str, Any], Any]:
    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        look()
        return trace

    return trace


def after_power_cut(chance: random.Random, states: Sequence[bytes]) -> bytes:
    """What a disk may hold that was in step with the first of the states, and lost power in the last of them.

    Each block of 512 bytes is the old one, the current one, or now and then one that was written back in between.
    """
    old, current = states[0], states[-1]
    bias = chance.random()
    blocks = []
    for at in range(0, len(old), format_.BLOCK_BYTES):
        block = slice(at, at + format_.BLOCK_BYTES)
        source = old if chance.random() < bias else current
        if chance.random() < 0.1:
            source = chance.choice(states)
        blocks.append(source[block])
    return b"".join(blocks)


# Doubles ---------------------------------------------------------------------------------------------------------------


class KeepsTheOldState(FileSegment):
    """Made anew without saying so first."""

    __slots__ = ()

    def prepare(self) -> bool:
        state = self._header[format_.STATE_AT]
        self._zero_words()
        self._header[format_.STATE_AT] = state
        return super().prepare()


class SealsBeforeTheFields(FileSegment):
    __slots__ = ()

    def assign(self, number: int, base: int) -> None:
        self._header[format_.STATE_AT] = format_.SEALED | format_.header_crc(self._header)
        super().assign(number, base)


class LeavesTheWords(FileSegment):
    __slots__ = ()

    def _zero_words(self) -> None:
        pass


class MarksInOnePlace(FileSegment):
    """A power cut during a sync costs what the one before proved."""

    __slots__ = ()

    def _write_mark(self) -> None:
        self._sequence = 0
        super()._write_mark()


class MarksAfterTheSync(FileSegment):
    """Writes each mark behind the `fdatasync` that should have taken it along."""

    __slots__ = ("_late",)

    def _write_mark(self) -> None:
        self._late = True

    def populate_ahead(self, used: int, length: int) -> None:
        self._sequence -= 1
        super()._write_mark()
        self._sequence += 1


def proves_without_checksum(header: memoryview, payload: memoryview, words: Any, ends: Any) -> int:
    """A reader that takes the newest mark's word for what the blocks hold."""
    seed = format_.mark_seed(header)
    marks = [header[at : at + format_.MARK_WORDS] for at in format_.MARKS_AT]
    whole = [mark for mark in marks if mark[4] == format_.SEALED | format_.mark_crc(mark, seed)]
    return min(len(ends), max((mark[1] for mark in whole), default=0))


def no_seed(header: memoryview) -> int:
    """What a mark of an earlier life of the file proved, it goes on proving."""
    return 0


def believes_every_word(payload: memoryview, ends: Sequence[int]) -> int:
    """A reader that does not look at what lies below a word."""
    return len(ends)


if __name__ == "__main__":
    _folder, _threads, _sizes, _how, _capacity = sys.argv[1:]
    append_for_ever(
        Path(_folder),
        int(_threads),
        [int(size) for size in _sizes.split(",")],
        STORES[_how],
        int(_capacity),
        open_oracle(Path(_folder, "oracle")),
    )
