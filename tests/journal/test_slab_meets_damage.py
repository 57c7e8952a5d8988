"""A slab whose bytes are damaged, whose power failed, or that another version wrote: what can be read is whole, the rest is
counted or told."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from asynctrace._errors import JournalDamaged, JournalFromNewerVersion
from asynctrace.spanlog.journal import _slab
from asynctrace.spanlog.journal._format import BLOCK_BYTES
from asynctrace.spanlog.journal._slab import LARGEST_BODY, OpenSlab, SlabReading, clear_slab, inspect_slab

from .slabs import JOURNAL, StoresTheStateFirst, make_body, memory_file, small_steps, writer_of
from .test_lane_file_meets_damage import DAMAGES, Damage


def read(image: bytes | bytearray, journal_id: bytes = JOURNAL) -> SlabReading:
    fd = os.memfd_create("slab")
    try:
        os.write(fd, image)
        return inspect_slab(fd, journal_id)
    finally:
        os.close(fd)


@pytest.fixture
def image() -> Iterator[bytes]:
    with small_steps():
        slab = OpenSlab.create(memory_file, JOURNAL)
        for place in range(100):
            slab.enter(make_body(1, place, place))
        slab.leave((20 << 5) + 31)
        yield bytes(slab.memory)
        slab.close()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_costs_what_it_hit(damage: Damage, image: bytes) -> None:
    draw = random.Random(damage.__name__)
    whole = read(image).bodies
    assert len(whole) == 99
    for _ in range(300):
        damaged = bytearray(image)
        damage(draw, damaged)
        try:
            reading = read(damaged)
        except JournalDamaged:
            continue
        assert len(reading.bodies) + reading.damaged <= 128
        assert all(len(body) <= LARGEST_BODY for body in reading.bodies)
        hit = [body for body in whole if body not in reading.bodies]
        assert len(hit) <= 3 or len(damaged) < len(image)


def test_a_state_that_was_never_written_is_counted_and_its_slot_skipped(image: bytes) -> None:
    damaged = bytearray(image)
    words = memoryview(damaged).cast("Q")
    words[(17 << 5) + 31] = 100  # a size, without what tells that it was stored by us
    words[(18 << 5) + 31] ^= 1 << 40
    words[(19 << 5) + 31] += 1
    reading = read(damaged)
    assert (len(reading.bodies), reading.damaged) == (96, 3)


def test_clearing_frees_damaged_slots_too(image: bytes) -> None:
    fd = os.memfd_create("slab")
    os.write(fd, image)
    os.pwrite(fd, b"\xff" * 8, 17 * 256 + 248)
    clear_slab(fd)
    assert inspect_slab(fd, JOURNAL)[1:] == ([], 0)
    os.close(fd)


def test_a_slab_of_another_journal_is_not_believed(image: bytes) -> None:
    with pytest.raises(JournalDamaged):
        read(image, bytes(16))


@pytest.mark.parametrize("content", [b"", b"x", bytes(5000)])
def test_a_file_that_was_never_finished_is_damaged(content: bytes) -> None:
    with pytest.raises(JournalDamaged):
        read(content)


def test_a_newer_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr(_slab, "FORMAT_VERSION", 2)
        slab = OpenSlab.create(memory_file, JOURNAL)
    newer = bytes(slab.memory)
    slab.close()
    with pytest.raises(JournalFromNewerVersion):
        read(newer)


# ── the power fails ─────────────────────────────────────────────────────────────────────────────────────────


class Seen:
    """Memory of a slab; notes what each block held after each store."""

    def __init__(self, view: memoryview, image: memoryview, versions: dict[int, list[bytes]]) -> None:
        self._view, self._image, self._versions = view, image, versions

    def __getitem__(self, at: int) -> int:
        return int(self._view[at])

    def __setitem__(self, at: int | slice, value: object) -> None:
        self._view[at] = value  # type: ignore[call-overload]
        block = (at.start if isinstance(at, slice) else at * 8) // BLOCK_BYTES
        place = slice(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)
        self._versions.setdefault(block, []).append(bytes(self._image[place]))


def check_power_cuts(kind: type[OpenSlab], seed: int, entered: int) -> int:
    """Of each block the disk has any of the contents it ever had. How many spans were read."""
    draw = random.Random(seed)
    with small_steps():
        slab = kind.create(memory_file, JOURNAL)
    empty = bytes(slab.memory)
    versions: dict[int, list[bytes]] = {}
    image = slab.memory
    slab.memory, slab.words = Seen(image, image, versions), Seen(slab.words, image, versions)  # type: ignore[assignment]
    slots: list[int] = []
    seen = 0
    for count in range(entered):
        if len(slots) > 30 or (slots and draw.random() < 0.5):
            slab.leave(slots.pop(draw.randrange(len(slots))))
        else:
            slots.append(slab.enter(make_body(1, count % 100, count)))
        torn = bytearray(empty)
        for block, contents in versions.items():
            torn[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES] = draw.choice(contents)
        reading = read(torn)
        assert not reading.damaged
        for body in reading.bodies:
            writer_of(body)
        seen += len(reading.bodies)
    image.release()
    slab.close()
    return seen


@pytest.mark.parametrize("seed", range(3))
def test_a_power_cut_leaves_whole_spans(seed: int) -> None:
    assert check_power_cuts(OpenSlab, seed, 400) > 400


def test_the_check_of_power_cuts_notices() -> None:
    with pytest.raises(AssertionError, match="torn"):
        check_power_cuts(StoresTheStateFirst, 0, 400)
