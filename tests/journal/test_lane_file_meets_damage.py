"""A lane's file whose bytes are damaged, whose power failed, or that another version wrote: `JournalDamaged`, or a state that
it really had. Never another exception, never a claim that was not made."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from asynctrace._errors import JournalDamaged, JournalFromNewerVersion
from asynctrace.spanlog.journal import _lane_file
from asynctrace.spanlog.journal._format import BLOCK_BYTES
from asynctrace.spanlog.journal._lane_file import LANE_FILE_BYTES, LaneFile

from .lane_models import (
    JOURNAL,
    GivesEveryLifeTheSameChecksums,
    Model,
    View,
    Watched,
    check_books,
    image_of,
    new_lane,
    opened,
    steps,
    view_of,
)

Damage = Callable[[random.Random, bytearray], None]


def flip_a_bit(draw: random.Random, image: bytearray) -> None:
    image[draw.randrange(len(image))] ^= 1 << draw.randrange(8)


def zero_a_word(draw: random.Random, image: bytearray) -> None:
    at = draw.randrange(len(image) // 8) * 8
    image[at : at + 8] = bytes(8)


def zero_a_block(draw: random.Random, image: bytearray) -> None:
    at = draw.randrange(len(image) // BLOCK_BYTES) * BLOCK_BYTES
    image[at : at + BLOCK_BYTES] = bytes(BLOCK_BYTES)


def randomize_a_block(draw: random.Random, image: bytearray) -> None:
    at = draw.randrange(len(image) // BLOCK_BYTES) * BLOCK_BYTES
    image[at : at + BLOCK_BYTES] = draw.randbytes(BLOCK_BYTES)


def cut_the_end_off(draw: random.Random, image: bytearray) -> None:
    del image[draw.randrange(len(image)) :]


def swap_two_blocks(draw: random.Random, image: bytearray) -> None:
    one, other = (draw.randrange(len(image) // 32) * 32 for _ in range(2))
    image[one : one + 32], image[other : other + 32] = image[other : other + 32], image[one : one + 32]


def make_all_of_it_random(draw: random.Random, image: bytearray) -> None:
    image[:] = draw.randbytes(len(image))


DAMAGES: list[Damage] = [
    flip_a_bit,
    zero_a_word,
    zero_a_block,
    randomize_a_block,
    cut_the_end_off,
    swap_two_blocks,
    make_all_of_it_random,
]


def history_of_views(seed: int, operations: int) -> tuple[bytearray, list[View]]:
    lane = new_lane()
    views = [view_of(lane)]
    views += [view_of(lane) for _ in steps(seed, lane, Model(), operations)]
    image = image_of(lane)
    lane.close()
    return image, views


def check_damage(damage: Damage, seed: int, tries: int = 150) -> int:
    """How often the file could be opened nevertheless."""
    draw = random.Random(seed)
    image, views = history_of_views(seed, 130)
    readable = 0
    for _ in range(tries):
        damaged = bytearray(image)
        damage(draw, damaged)
        try:
            lane = opened(damaged)
        except JournalDamaged:
            continue
        assert view_of(lane) in views
        check_books(lane)
        lane.open_window(lane.cut_to, 5)
        lane.move_cursor(lane.cut_to)
        check_books(lane)
        lane.close()
        readable += 1
    return readable


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_told_or_leaves_a_state_that_was(damage: Damage) -> None:
    readable = sum(check_damage(damage, seed) for seed in range(3))
    assert readable < 450 or damage in (swap_two_blocks,)
    if damage is make_all_of_it_random:
        assert not readable


def test_the_check_of_damage_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lane_file, "_entry_crc", lambda *_: 1)

    def check() -> None:
        for seed in range(3):
            for damage in (flip_a_bit, zero_a_word, zero_a_block):
                check_damage(damage, seed)

    with pytest.raises(AssertionError):
        check()


def test_who_finds_damage_begins_anew_at_the_first_record_held() -> None:
    image = image_of(new_lane())
    image[20] ^= 1
    fd = os.memfd_create("lane")
    os.write(fd, image)
    with pytest.raises(JournalDamaged):
        LaneFile.open(os.dup(fd))
    lane = LaneFile.create(os.dup(fd), JOURNAL, "otlp", start=4_000)
    assert (lane.start, lane.cursor, lane.accepted, lane.windows()) == (4_000, 4_000, 0, [])
    assert lane.open_window(4_000, 10)
    lane.move_cursor(4_010)
    lane.close()
    again = LaneFile.open(fd)
    assert (again.start, again.cursor, again.accepted) == (4_000, 4_010, 10)
    assert (again.name, again.journal_id) == ("otlp", JOURNAL)
    again.close()


def test_a_file_that_was_never_finished_is_damaged() -> None:
    for content in (b"", bytes(100), bytes(LANE_FILE_BYTES)):
        with pytest.raises(JournalDamaged):
            opened(content)


def test_a_newer_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lane_file, "FORMAT_VERSION", 2)
    with monkeypatch.context() as later:
        later.setattr(LaneFile, "_catch_up", lambda lane: None)
        image = image_of(new_lane(LaneFile))
    monkeypatch.undo()
    with pytest.raises(JournalFromNewerVersion):
        opened(image)


# ── the power fails ─────────────────────────────────────────────────────────────────────────────────────────


def check_power_cuts(kind: type[LaneFile], seed: int, cuts: int) -> int:
    """Of each block the disk has any of the contents it had since the last sync. How many files could be read."""
    draw = random.Random(seed)
    lane = new_lane(kind)
    disk = image_of(lane)
    versions: dict[int, list[bytes]] = {}
    views = [view_of(lane)]
    readable = 0
    for _ in steps(seed, lane, Model(), cuts):
        shadow = bytearray(disk)
        for block, contents in versions.items():
            shadow[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES] = contents[-1]
        _note_versions(shadow, lane, disk, versions)
        views.append(view_of(lane))
        torn = bytearray(disk)
        for block, contents in versions.items():
            torn[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES] = (
                contents[-1] if draw.random() < 0.6 else draw.choice(contents)
            )
        readable += _reads_as_one_of(torn, kind, views)
        if draw.random() < 0.01:
            disk, versions, views = image_of(lane), {}, views[-1:]
    return readable


def _note_versions(shadow: bytearray, lane: LaneFile, disk: bytearray, versions: dict[int, list[bytes]]) -> None:
    """Every content of every block that the last operation stored into."""
    assert isinstance(lane, Watched)
    words = memoryview(shadow).cast("Q")
    for index, word in lane.stores:
        words[index] = word
        block = index * 8 // BLOCK_BYTES
        place = slice(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)
        versions.setdefault(block, [bytes(disk[place])]).append(bytes(shadow[place]))
    lane.stores.clear()


def _reads_as_one_of(image: bytearray, kind: type[LaneFile], views: list[View]) -> bool:
    try:
        lane = opened(image, kind)
    except JournalDamaged:
        return False
    assert view_of(lane) in views
    lane.close()
    return True


@pytest.mark.parametrize("seed", range(3))
def test_a_power_cut_leaves_a_state_since_the_last_sync_or_damage(seed: int) -> None:
    assert check_power_cuts(Watched, seed, 600) > 100


def test_the_check_of_power_cuts_notices() -> None:
    def check() -> None:
        for seed in range(10):
            check_power_cuts(GivesEveryLifeTheSameChecksums, seed, 600)

    with pytest.raises(AssertionError):
        check()
