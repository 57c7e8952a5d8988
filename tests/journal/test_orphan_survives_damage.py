"""Random damage to any file of a journal: undamaged segments are read whole, every record is either read or counted, and
nothing but an error of the journal is ever raised."""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from asynctrace._errors import JournalError, WireError
from asynctrace.spanlog.journal._directory import claim
from asynctrace.spanlog.journal._orphan import OrphanLog

from .orphans import BOOT, CREATED_NS, OTHER_BOOT, DeadJournal, numbered_spans, open_body, span_of

SEGMENTS, EACH, OPEN = 4, 12, 3
RECORDS = SEGMENTS * EACH
SEEDS = 150


def sound_journal(folder: Path) -> Path:
    """Four segments, proved by marks; one window under way; three open spans."""
    journal = DeadJournal(folder, lanes=("file", "otlp"))
    journal.fill(SEGMENTS, EACH, synced=EACH)
    journal.lanes["otlp"].open_window(0, 5)
    journal.slab.beat(CREATED_NS + 10**9)
    for number in range(OPEN):
        journal.slab.enter(open_body(1000 + number))
    return journal.die()


# ── what may happen to a file ───────────────────────────────────────────────────────────────────────────────


def flip(path: Path, rng: random.Random) -> None:
    """A few bits, most of them where something stands."""
    content = bytearray(path.read_bytes())
    used = len(content.rstrip(b"\0")) or len(content)
    for _ in range(rng.randint(1, 5)):
        content[rng.randrange(used if rng.random() < 0.8 else len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def zero(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content)) // 512 * 512 if rng.random() < 0.5 else rng.randrange(len(content))
    content[start : start + rng.choice([1, 8, 512, 4096, 100_000])] = b""
    path.write_bytes(content.ljust(path.stat().st_size, b"\0"))


def overwrite(path: Path, rng: random.Random) -> None:
    with path.open("r+b") as file:
        file.seek(rng.randrange(path.stat().st_size))
        file.write(rng.randbytes(rng.choice([1, 8, 64, 3000])))


def cut(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def lengthen(path: Path, rng: random.Random) -> None:
    with path.open("ab") as file:
        file.write(rng.randbytes(rng.randint(1, 10_000)))


def delete(path: Path, rng: random.Random) -> None:
    path.unlink()


def swap_for_something_else(path: Path, rng: random.Random) -> None:
    path.unlink()
    rng.choice([path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to("/etc/hostname"), path.touch])()


def copy_over(path: Path, rng: random.Random) -> None:
    """Another file of the journal stands in its place."""
    path.write_bytes(rng.choice(files_of(path.parent)).read_bytes())


def add_strangers(path: Path, rng: random.Random) -> None:
    for name in ("note.txt", "99999999.seg", "00000001.seg.new", "open-07.slab", "x.lane", ".seg", "123.seg"):
        (path.parent / name).write_bytes(rng.randbytes(rng.choice([0, 10, 5000])))


DAMAGES = [flip, flip, zero, overwrite, cut, lengthen, delete, swap_for_something_else, copy_over, add_strangers]


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if _is_whole(file))


def _is_whole(file: Path) -> bool:
    status = file.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_size > 0 and file.name not in ("lock", "deaths")


def damage(path: Path, rng: random.Random) -> set[str]:
    """Damage one file or several; their names."""
    names = set()
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        victim = rng.choice(files_of(path))
        rng.choice(DAMAGES)(victim, rng)
        names.add(victim.name)
    return names


# ── what must be true all the same ──────────────────────────────────────────────────────────────────────────


def check(path: Path, damaged: set[str], boot_id: str, reader: type[OrphanLog] = OrphanLog) -> None:
    try:
        directory = claim(path)
    except (JournalError, IsADirectoryError):
        directory = None
    if directory is None:
        assert damaged & {"meta"}, "a journal that could be read was not claimed"
        return
    try:
        log = reader.open(directory, boot_id=boot_id)
    except JournalError as error:
        raise AssertionError(f"not opened: {error!r}") from error
    finally:
        directory.release()
    try:
        check_books(log)
        check_undamaged_segments(log, damaged)
    finally:
        log.close()


def check_books(log: OrphanLog) -> None:
    try:
        found = numbered_spans(log)
    except WireError:  # whole frames whose bytes were changed: without a checksum nobody can tell before it is decoded
        found = dict.fromkeys(number for number in range(log.first, log.appended) if log.next_present(number) == number)
    assert len(found) + log.corrupt == log.appended - log.first, f"{len(found)} read: {log!r}"
    assert sorted(found) == sorted(set(found))


def check_undamaged_segments(log: OrphanLog, damaged: set[str]) -> None:
    for place in range(SEGMENTS):
        if f"{place:08}.seg" not in damaged:
            for number in range(place * EACH, place * EACH + EACH):
                slices, count = log.read(number, 1, 1 << 20)
                assert count == 1, f"record {number} of an undamaged segment is gone: {log!r}"
                assert span_of(number).span_id in b"".join(slices).hex()


def damaged_journals(folder: Path, seeds: range) -> Iterator[tuple[Path, set[str]]]:
    """One for each seed; each is deleted when the next one is asked for."""
    (folder / "sound").mkdir(mode=0o700, parents=True)
    sound = sound_journal(folder / "sound")
    for seed in seeds:
        path = folder / str(seed) / sound.name
        shutil.copytree(sound, path)
        yield path, damage(path, random.Random(seed))
        shutil.rmtree(path.parent)


@pytest.mark.parametrize("boot_id", [BOOT, OTHER_BOOT])
def test_damage_is_local_and_counted(tmp_path: Path, boot_id: str) -> None:
    for path, damaged in damaged_journals(tmp_path, range(SEEDS)):
        try:
            check(path, damaged, boot_id)
            check(path, damaged, boot_id)  # a second recoverer, after what the first one changed
        except Exception as error:
            raise AssertionError(f"{path} with damage to {sorted(damaged)}") from error


@pytest.mark.long
def test_damage_is_local_and_counted_thousands_of_times(tmp_path: Path) -> None:
    for path, damaged in damaged_journals(tmp_path, range(10_000, 15_000)):
        check(path, damaged, BOOT)


class StopsAtTheFirstDamage(OrphanLog):
    """What lies behind a gap is given up."""

    def read(self, number: int, max_records: int, max_bytes: int) -> tuple[list[memoryview], int]:
        if any(self.next_present(earlier) != earlier for earlier in range(self.first, number)):
            return [], 0
        return super().read(number, max_records, max_bytes)


class CountsNothing(OrphanLog):
    """Gaps are not told of."""

    @property
    def corrupt(self) -> int:
        return 0

    @corrupt.setter
    def corrupt(self, count: int) -> None:
        return


@pytest.mark.parametrize("reader", [StopsAtTheFirstDamage, CountsNothing])
def test_a_reader_that_hides_damage_is_caught(tmp_path: Path, reader: type[OrphanLog]) -> None:
    def caught(path: Path, damaged: set[str]) -> bool:
        try:
            check(path, damaged, BOOT, reader)
        except AssertionError:
            return True
        return False

    assert any(caught(*journal) for journal in damaged_journals(tmp_path, range(60)))
