"""A segment file as it lies there: its layout, what making one costs and leaves behind, syncs that fail, pages that are
present before somebody waits for them, and the file that says whose journal it is."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import resource
import select
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from asynctrace._errors import JournalDamaged, JournalFromNewerVersion
from asynctrace.spanlog.journal import HEADER_BYTES, FileSegment, JournalMeta, decode_meta, encode_meta
from asynctrace.spanlog.journal import _format as format_
from asynctrace.spanlog.journal import _populate as populate_
from asynctrace.spanlog.journal._segment_file import segment_file_bytes

from .segments import JOURNAL_ID, make_record, opener, read_file, records_of, store

MIB = 1 << 20


def make(folder: Path, capacity: int = MIB, name: str = "00000000.seg") -> FileSegment:
    return FileSegment.create(opener(folder), name, JOURNAL_ID, 7, 700, capacity)


def fill(segment: FileSegment, count: int, size: int = 300, first: int = 0) -> None:
    for slot in range(first, first + count):
        store(segment, slot, segment.start_of(slot), make_record(slot, size))


def descriptors() -> int:
    gc.collect()  # what other tests left
    return len(os.listdir("/proc/self/fd"))


def mappings(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


# Layout ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [8, 4096, 5000, MIB, 3 * MIB + 1])
def test_header_payload_and_directory_lie_where_the_format_says(tmp_path: Path, capacity: int) -> None:
    segment = make(tmp_path, capacity)
    record = b"\x12\x03abc"
    store(segment, 0, 0, record)
    content = (tmp_path / "00000000.seg").read_bytes()
    assert content.startswith(b"ATRCSEG\n" + (1).to_bytes(8, "little"))
    assert content[HEADER_BYTES:].startswith(record)
    directory = HEADER_BYTES + segment.capacity
    assert content[directory : directory + 8] == len(record).to_bytes(8, "little")
    assert directory % 8 == 0
    assert len(content) == segment.size == segment_file_bytes(capacity)
    assert len(content) % 4096 == 0
    assert len(segment.words) == segment.slots
    assert len(segment.payload) == segment.capacity >= capacity
    segment.close()


def test_a_segment_larger_than_an_offset_can_say_is_refused_before_a_file_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most 268435448 bytes"):
        make(tmp_path, 1 << 28)
    assert list(tmp_path.iterdir()) == []


# Life ------------------------------------------------------------------------------------------------------------------


def test_what_the_directory_raises_comes_through(tmp_path: Path) -> None:
    def full(name: str, size: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        FileSegment.create(full, "00000000.seg", JOURNAL_ID, 1, 0, MIB)


def test_a_file_that_cannot_be_mapped_costs_no_descriptor(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises((ValueError, OSError)):
        FileSegment.create(lambda name, size: opener(tmp_path)(name, 4096), "00000000.seg", JOURNAL_ID, 1, 0, MIB)
    assert descriptors() <= before


def test_closing_gives_back_descriptor_and_mapping_and_stores_nothing(tmp_path: Path) -> None:
    before = descriptors()
    segment = make(tmp_path)
    fill(segment, 10)
    content = (tmp_path / "00000000.seg").read_bytes()
    segment.close()
    segment.close()
    assert descriptors() <= before
    assert mappings(tmp_path) == 0
    assert (tmp_path / "00000000.seg").read_bytes() == content


def test_a_view_that_is_held_stays_valid_and_keeps_only_the_mapping(tmp_path: Path) -> None:
    before = descriptors()
    segment = make(tmp_path)
    fill(segment, 10)
    view, _ = segment.cut(0, 10, 2, 10_000)
    segment.close()
    assert bytes(view) == make_record(0, 300) + make_record(1, 300)
    assert mappings(tmp_path) == 1
    del view, segment
    gc.collect()
    assert mappings(tmp_path) == 0
    assert descriptors() <= before


def test_making_a_segment_touches_few_pages(tmp_path: Path) -> None:
    """It may be needed by a thread that appends: the 279 pages of the file must not be brought in then."""
    make(tmp_path, name="00000000.seg").close()
    before = faults()
    segment = make(tmp_path, name="00000001.seg")
    made = faults() - before
    segment.populate()
    populated = faults() - before - made
    segment.close()
    assert made < 60
    assert populated > 100 or not populate_._madvise()


# Syncs -----------------------------------------------------------------------------------------------------------------


def proved(folder: Path) -> int:
    found = read_file(folder / "00000000.seg", "marks")
    assert found
    assert records_of(found) == [make_record(number, 300) for number in range(found.used)]
    return found.used


def test_a_sync_proves_what_was_appended_before_it(tmp_path: Path) -> None:
    segment = make(tmp_path)
    assert proved(tmp_path) == 0
    for used in (1, 2, 50, 3000):
        fill(segment, used - segment._marked, first=segment._marked)
        segment.sync(used)
        assert proved(tmp_path) == used
    segment.close()


def test_a_sync_of_what_is_proved_already_asks_the_disk_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(os, "fdatasync", asked.append)
    segment = make(tmp_path)
    fill(segment, 10)
    for used in (0, 10, 10, 9, 0):
        segment.sync(used)
    segment.close()
    assert len(asked) == 1


def test_a_sync_that_fails_costs_nothing_that_was_proved_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    segment = make(tmp_path)
    fill(segment, 20)
    segment.sync(5)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        for used in (10, 12):
            with pytest.raises(OSError, match="Input/output"):
                segment.sync(used)
    lose_the_newest_mark(tmp_path / "00000000.seg")
    assert proved(tmp_path) == 5
    segment.sync(11)  # the disk is back; twelve were begun
    assert proved(tmp_path) == 12
    segment.sync(20)
    assert proved(tmp_path) == 20
    segment.close()


def lose_the_newest_mark(path: Path) -> None:
    """As a power cut does during a sync."""
    with path.open("r+b") as file:
        marks = []
        for word in format_.MARKS_AT:
            file.seek(word * 8)
            marks.append((int.from_bytes(file.read(8), "little"), word * 8))
        file.seek(max(marks)[1])
        file.write(bytes(format_.MARK_WORDS * 8))


# Pages -----------------------------------------------------------------------------------------------------------------


def without_kernel() -> None:
    return None


def refusing_kernel() -> Callable[[int, int, int], int]:
    return lambda address, length, advice: -1


def test_appending_to_a_populated_segment_faults_no_page(tmp_path: Path) -> None:
    segment = make(tmp_path)
    unpopulated = make(tmp_path, name="00000001.seg")
    segment.populate()
    counts = []
    for filled in (segment, unpopulated):
        before = faults()
        fill(filled, 3000)
        counts.append(faults() - before)
        filled.close()
    assert counts[0] < 20
    assert counts[1] > 100


def test_a_segment_that_is_used_anew_faults_no_page(tmp_path: Path) -> None:
    segment = make(tmp_path)
    segment.populate()
    fill(segment, 3000)
    segment.sync(3000)  # which takes the leave to write from every page
    assert segment.recycle(8, 800)
    before = faults()
    fill(segment, 3000)
    assert faults() - before < 20
    segment.close()


def test_after_a_sync_the_pages_ahead_are_writable(tmp_path: Path) -> None:
    segment = make(tmp_path)
    segment.populate()
    fill(segment, 300)
    segment.sync(300)
    before = faults()
    fill(segment, 300, first=300)
    assert faults() - before < 5
    segment.close()


@pytest.mark.parametrize("kernel", [without_kernel, refusing_kernel])
def test_where_the_kernel_cannot_populate_pages_are_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Callable[[], object]
) -> None:
    monkeypatch.setattr(populate_, "_madvise", kernel)
    segment = make(tmp_path)
    fill(segment, 1000)
    content = (tmp_path / "00000000.seg").read_bytes()
    segment.populate()
    assert (tmp_path / "00000000.seg").read_bytes() == content
    before = faults()
    fill(segment, 2000, first=1000)
    assert faults() - before < 20
    segment.close()


@pytest.mark.parametrize("kernel", [without_kernel, refusing_kernel])
def test_pages_that_others_store_into_are_never_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Callable[[], object]
) -> None:
    """To read a byte and to store it again would undo what another thread stored in between."""
    touched: list[int] = []
    monkeypatch.setattr(populate_, "_madvise", kernel)
    monkeypatch.setattr(populate_, "_touch", lambda memory, start, stop: touched.append(start))
    segment = make(tmp_path)
    fill(segment, 10)
    segment.sync(10)
    assert touched == []
    segment.populate()
    assert touched == [0]
    segment.close()


def ticks_meanwhile(work: Callable[[], object]) -> int:
    """How often another thread had its turn during `work()`, in which nobody is made to give the GIL away."""
    ticks = 0
    stop = False

    def tick() -> None:
        nonlocal ticks
        while not stop:
            ticks += 1
            select.select((), (), (), 0.00005)

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=tick)
    sys.setswitchinterval(1000)
    try:
        thread.start()
        before = ticks
        work()
        return ticks - before
    finally:
        stop = True
        sys.setswitchinterval(interval)
        thread.join()


def test_others_have_their_turn_while_pages_are_populated(tmp_path: Path) -> None:
    if not populate_._madvise():
        pytest.skip("this system has no madvise(2) to populate pages with: they are touched, which holds the GIL")
    segment = make(tmp_path, 64 * MIB)
    assert ticks_meanwhile(segment.populate) > 10
    segment.close()


def test_holding_the_gil_while_pages_are_populated_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    madvise = ctypes.PyDLL(None).madvise  # as `mmap.madvise` calls it
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    monkeypatch.setattr(populate_, "_madvise", lambda: madvise)
    segment = make(tmp_path, 64 * MIB)
    assert ticks_meanwhile(segment.populate) == 0
    segment.close()


# Whose journal ---------------------------------------------------------------------------------------------------------

META = JournalMeta(
    journal_id="6f0c1c3e-4a0e-4a7b-9d8a-2b8c0e7d1f11",
    boot_id="b",
    pid=1,
    created_ns=1_700_000_000_000_000_000,
    service="café \n shop",
    resource=bytes(range(256)),
    scope=b"",
)


def test_meta_is_read_as_it_was_written() -> None:
    assert decode_meta(encode_meta(META)) == META
    assert encode_meta(META).count(b"\n") == 2


def test_meta_with_any_byte_wrong_or_missing_is_damaged() -> None:
    content = encode_meta(META)
    for at in range(len(content)):
        wrong = bytearray(content)
        wrong[at] ^= 0x11
        for damaged in (bytes(wrong), content[:at]):
            with pytest.raises(JournalDamaged):
                decode_meta(damaged)


def sealed(line: bytes) -> bytes:
    return b"%s\n%08x\n" % (line, zlib.crc32(line))


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[]", b"\xff", b'{"version": 1}', b'{"version": "1"}', b'{"version": 1e400}']
)
def test_meta_that_says_something_else_is_damaged(line: bytes) -> None:
    with pytest.raises(JournalDamaged):
        decode_meta(sealed(line))


def test_meta_of_a_newer_version_is_left_alone_whatever_else_it_says() -> None:
    newer = msgspec.json.encode({"version": 2, "journal_id": ["?"], "new": True})
    with pytest.raises(JournalFromNewerVersion, match="format version 2, this is 1"):
        decode_meta(sealed(newer))


@pytest.mark.parametrize("lane", ["otlp", "a b", "../../x", "..", "", "ü/ö", "a%2Fb", "\ud800", "x" * 200])
def test_a_lane_has_a_file_of_its_own_whatever_its_name(lane: str) -> None:
    name = format_.lane_file(lane)
    assert format_.lane_of(name) == lane
    assert "/" not in name
    assert name not in {".", "..", "lock", "meta"}


def test_lanes_with_long_names_are_told_apart() -> None:
    names = {format_.lane_file("ü" * 300 + end) for end in "abc"}
    assert len(names) == 3
    assert all(len(name) < 255 for name in names)


def test_names_of_segments_sort_in_the_order_of_making() -> None:
    assert format_.segment_file(12) == "00000012.seg"
    assert format_.segment_index("00000012.seg") == 12
    assert format_.slab_file(3) == "open-03.slab"
    for name in ("12.seg", "00000012.seg~", "x0000012.seg", "lock", "\u0660" * 8 + ".seg"):
        assert format_.segment_index(name) is None
    assert format_.lane_of("lock") is None
