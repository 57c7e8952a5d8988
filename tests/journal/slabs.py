"""What the tests of the slab share: bodies that tell who entered them, small slabs, and slabs with one fault each."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from asynctrace.spanlog.journal import _slab
from asynctrace.spanlog.journal._slab import LARGEST_BODY, STATE_WORDS, OpenSlab, inspect_slab

JOURNAL = bytes(range(16))
FEW_SLOTS = 64
"""That a small slab grows by."""


def make_body(writer: int, place: int, count: int) -> bytes:
    """Of 8 to 248 bytes, every one of which depends on who wrote it."""
    return (struct.pack("<BBHI", writer, 0xA5, place, count) * 31)[: 8 + count * 37 % (LARGEST_BODY - 7)]


def writer_of(body: bytes) -> tuple[int, int, int]:
    """What went into `make_body()`; checks that the body is whole."""
    writer, _, place, count = struct.unpack_from("<BBHI", body)
    assert body == make_body(writer, place, count), "torn"
    return writer, place, count


def memory_file(name: str, size: int) -> int:
    fd = os.memfd_create(name)
    os.posix_fallocate(fd, 0, size)
    return fd


@contextmanager
def small_steps(slots: int = FEW_SLOTS, reserve: int = 8) -> Iterator[None]:
    """Slabs that grow by so few slots."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_slab, "_STEP", slots)
        patch.setattr(_slab, "_RESERVE", reserve)
        patch.setattr(_slab, "SLAB_FILE_BYTES", _slab._bytes_of(1))
        yield


def bodies_in(slab: OpenSlab) -> list[bytes]:
    reading = inspect_slab(slab._fd, JOURNAL)
    assert not reading.damaged
    return reading.bodies


def slots_of(slab: OpenSlab) -> int:
    return slab._steps * _slab._STEP


def check_free_slots(slab: OpenSlab, taken: int = 0, lost: int = 0) -> None:
    """Each slot is free once, or taken."""
    free = slab.free + slab._reserve
    assert len(set(free)) == len(free), "a slot would be handed out twice"
    assert slots_of(slab) - lost <= len(free) + taken <= slots_of(slab)
    assert not any(slab.words[place] for place in free)


def _pause() -> None:
    for _ in range(200):
        pass


class StoresTheStateFirst(OpenSlab):
    """A slot says that it is open before its body is there."""

    def enter(self, body: bytes) -> int:
        place = self.free.pop()
        self.words[place] = STATE_WORDS[len(body)]
        _pause()
        self.memory[(place << 3) - 248 : (place << 3) - 248 + len(body)] = body
        return place


class KeepsTheStateWhileStoring(OpenSlab):
    """`leave()` only gives the place back; the next body is stored under the old state."""

    def enter(self, body: bytes) -> int:
        place = self.free.pop()
        self.memory[(place << 3) - 248 : (place << 3) - 248 + len(body)] = body
        _pause()
        self.words[place] = STATE_WORDS[len(body)]
        return place

    def leave(self, place: int) -> None:
        self.free.append(place)


class GivesBackBeforeClearing(OpenSlab):
    """Whoever takes the slot in between has his state cleared."""

    def leave(self, place: int) -> None:
        self.free.append(place)
        _pause()
        self.words[place] = 0


class LooksBeforeItTakes(OpenSlab):
    """Two may look at the same time."""

    def enter(self, body: bytes) -> int:
        place = self.free[-1]
        _pause()
        if self.free.pop() != place:
            _pause()
        at = (place << 3) - 248
        self.memory[at : at + len(body)] = body
        self.words[place] = STATE_WORDS[len(body)]
        return place
