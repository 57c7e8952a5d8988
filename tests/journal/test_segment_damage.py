"""Flipped, zeroed, cut and random bytes in a segment file: it is read up to what cannot be right, or refused as damaged.
Never another exception, never something that is not a whole record, and with marks never one that was not appended."""

from __future__ import annotations

import os
import random
import struct
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asynctrace._errors import JournalDamaged, JournalFromNewerVersion
from asynctrace.spanlog.journal import FORMAT_VERSION, HEADER_BYTES, FileSegment, _segment_reader
from asynctrace.spanlog.journal import _format as format_

from . import segments
from .segments import JOURNAL_ID, make_record, opener, read_file, records_of, store

CAPACITY = 16 * 1024
RECORDS = [make_record(number, 40 + 37 * (number % 9)) for number in range(70)]
PROVED = 60
FIELDS = format_.FIELD_WORDS * 8

Damage = Callable[[random.Random, bytearray], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A segment file with `RECORDS`, the first `PROVED` of which are synced."""
    folder = tmp_path_factory.mktemp("whole")
    segment = FileSegment.create(opener(folder), "00000000.seg", JOURNAL_ID, 7, 700, CAPACITY)
    start = 0
    for slot, record in enumerate(RECORDS):
        store(segment, slot, start, record)
        start += len(record)
        if slot + 1 == PROVED:
            segment.sync(PROVED)
    segment.close()
    return (folder / "00000000.seg").read_bytes()


def flip(chance: random.Random, content: bytearray) -> None:
    for _ in range(chance.choice([1, 1, 1, 5, 100])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def zero(chance: random.Random, content: bytearray) -> None:
    start, length = chance.randrange(len(content)), chance.choice([1, 8, 100, 512, 4096])
    content[start : start + length] = bytes(len(content[start : start + length]))


def cut(chance: random.Random, content: bytearray) -> None:
    del content[chance.randrange(len(content)) :]


def scramble(chance: random.Random, content: bytearray) -> None:
    start, length = chance.randrange(len(content)), chance.choice([8, 100, 512, 4096])
    content[start : start + length] = chance.randbytes(len(content[start : start + length]))


def scramble_words(chance: random.Random, content: bytearray) -> None:
    at = HEADER_BYTES + CAPACITY + 8 * chance.randrange(len(RECORDS) + 3)
    content[at : at + 8] = struct.pack("<Q", chance.choice([0, 1, CAPACITY, CAPACITY + 1, chance.getrandbits(64)]))


def lengthen(chance: random.Random, content: bytearray) -> None:
    content += chance.randbytes(chance.choice([1, 4096, 100_000]))


DAMAGES: list[Damage] = [flip, zero, cut, scramble, scramble_words, lengthen]


def read_damaged(whole: bytes, path: Path, damage: Damage, rounds: int, seed: int = 0) -> None:
    chance = random.Random(f"{damage.__name__} {seed}")
    for _ in range(rounds):
        content = bytearray(whole)
        damage(chance, content)
        path.write_bytes(content)
        check(path, bytes(content), whole)


def check(path: Path, content: bytes, whole: bytes) -> None:
    for trust in ("words", "marks"):
        try:
            found = read_file(path, trust)
        except JournalDamaged:
            continue
        if found is None:
            assert not any(content)
            continue
        records = records_of(found)
        assert content[:FIELDS] == whole[:FIELDS]
        assert found.claimed >= found.used
        assert found.damaged == (found.claimed > found.used)
        if trust == "marks":
            assert records == RECORDS[: len(records)]
            assert len(records) in (0, PROVED)
        for slot, record in enumerate(records):
            assert bytes(found.cut(slot, found.used, 1, 1)[0]) == record
        found.close()


@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_the_damage_only_whole_records_are_read(whole: bytes, tmp_path: Path, damage: Damage) -> None:
    read_damaged(whole, tmp_path / "x.seg", damage, 150)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_the_damage_at_length(whole: bytes, tmp_path: Path, damage: Damage, seed: int) -> None:
    read_damaged(whole, tmp_path / "x.seg", damage, 5_000, seed + 1)


def test_a_reader_that_believes_every_word_is_noticed(
    whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_segment_reader, "_whole_records", segments.believes_every_word)
    with pytest.raises((AssertionError, ValueError, IndexError)):
        read_damaged(whole, tmp_path / "x.seg", scramble_words, 150)


def test_a_reader_that_believes_every_mark_is_noticed(
    whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_segment_reader, "_proved_by_marks", segments.proves_without_checksum)
    with pytest.raises((AssertionError, ValueError)):
        read_damaged(whole, tmp_path / "x.seg", flip, 150)


def test_any_wrong_bit_of_the_header_is_damage(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.seg"
    for bit in range(FIELDS * 8):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(JournalDamaged, match=r"^x\.seg: "):
            read_file(path)


def test_undamaged_it_is_read_whole(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.seg").write_bytes(whole)
    by_words, by_marks = (read_file(tmp_path / "x.seg", trust) for trust in ("words", "marks"))
    assert by_words
    assert by_marks
    assert (by_words.name, by_words.number, by_words.base) == ("x.seg", 7, 700)
    assert records_of(by_words) == RECORDS
    assert not by_words.damaged
    assert records_of(by_marks) == RECORDS[:PROVED]
    assert by_marks.damaged
    assert by_marks.claimed == len(RECORDS)


def test_behind_a_word_that_was_lost_nothing_is_trusted(whole: bytes, tmp_path: Path) -> None:
    content = bytearray(whole)
    at = HEADER_BYTES + CAPACITY + 8 * 20
    content[at : at + 8] = bytes(8)
    (tmp_path / "x.seg").write_bytes(content)
    found = read_file(tmp_path / "x.seg")
    assert found
    assert records_of(found) == RECORDS[:20]
    assert found.damaged
    assert found.claimed == len(RECORDS) - 1


def test_the_other_bits_of_a_word_are_no_part_of_the_offset(whole: bytes, tmp_path: Path) -> None:
    """A later version may say in them of what kind a record is, and of which scope."""
    content = bytearray(whole)
    words = memoryview(content)[HEADER_BYTES + CAPACITY :].cast("Q")
    for slot in range(len(RECORDS)):
        words[slot] |= 0xABCD_0123_5 << 28
    (tmp_path / "x.seg").write_bytes(content)
    found = read_file(tmp_path / "x.seg")
    assert found
    assert records_of(found) == RECORDS
    assert not found.damaged


def sealed(whole: bytes, **fields: int) -> bytes:
    """The file with other fields in its header, and a checksum that is right."""
    header = array("Q", whole[:HEADER_BYTES])
    for name, value in fields.items():
        header[getattr(format_, name)] = value
    header[format_.STATE_AT] = format_.SEALED | format_.header_crc(memoryview(header))
    return header.tobytes() + whole[HEADER_BYTES:]


def lies(whole: bytes) -> Iterator[bytes]:
    for value in (2 * CAPACITY, 1 << 28, 1 << 40, (1 << 64) - 1, (1 << 64) - 4096):
        yield sealed(whole, CAPACITY_AT=value)
        yield sealed(whole, SLOTS_AT=value)


def test_a_header_that_lies_about_sizes_is_damage(whole: bytes, tmp_path: Path) -> None:
    for content in lies(whole):
        (tmp_path / "x.seg").write_bytes(content)
        with pytest.raises(JournalDamaged):
            read_file(tmp_path / "x.seg")


def test_a_newer_version_is_told_from_damage(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.seg").write_bytes(sealed(whole, VERSION_AT=FORMAT_VERSION + 1))
    with pytest.raises(JournalFromNewerVersion, match=f"format version {FORMAT_VERSION + 1}, this is {FORMAT_VERSION}"):
        read_file(tmp_path / "x.seg")


def test_a_segment_of_another_journal_is_refused(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.seg").write_bytes(whole)
    with pytest.raises(JournalDamaged, match="another journal"):
        read_file(tmp_path / "x.seg", journal_id=bytes(16))


def test_what_is_no_file_is_damage(tmp_path: Path) -> None:
    with pytest.raises(JournalDamaged, match="cannot be read"):
        read_file(tmp_path)


@pytest.mark.parametrize("size", [0, 8, 4096, 100_000])
def test_a_file_that_was_only_made_holds_nothing(tmp_path: Path, size: int) -> None:
    (tmp_path / "x.seg").write_bytes(bytes(size))
    assert read_file(tmp_path / "x.seg") is None


def test_zeros_over_the_header_of_a_segment_with_records_are_damage(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.seg").write_bytes(bytes(HEADER_BYTES) + whole[HEADER_BYTES:])
    with pytest.raises(JournalDamaged):
        read_file(tmp_path / "x.seg")


def test_a_view_outlives_its_segment(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.seg").write_bytes(whole)
    found = read_file(tmp_path / "x.seg")
    assert found
    view, count = found.cut(2, found.used, 3, 10_000)
    assert count == 3
    assert not found.reuse(0)
    found.close()
    found.close()
    assert bytes(view) == b"".join(RECORDS[2:5])
    assert found.used == 0
    assert view.readonly


def test_nothing_is_written_and_the_descriptor_is_left_open(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.seg"
    path.write_bytes(whole)
    fd = os.open(path, os.O_RDONLY)
    found = _segment_reader.read_segment(fd, "x.seg", journal_id=JOURNAL_ID, trust="words")
    os.close(fd)
    assert found
    assert records_of(found) == RECORDS
    assert path.read_bytes() == whole
