"""The slab grows before it is full, never beyond its bound, counts what it has no room for, and is harmless once closed."""

from __future__ import annotations

import fcntl
import os
import timeit
from collections.abc import Iterator

import pytest

from asynctrace.spanlog.journal import _slab
from asynctrace.spanlog.journal._slab import (
    LARGEST_BODY,
    SLAB_FILE_BYTES,
    STATE_WORDS,
    OpenSlab,
    clear_slab,
    inspect_slab,
    read_slab,
)

from .slabs import (
    FEW_SLOTS,
    JOURNAL,
    bodies_in,
    check_free_slots,
    make_body,
    memory_file,
    slots_of,
    small_steps,
    writer_of,
)


@pytest.fixture
def slab() -> Iterator[OpenSlab]:
    with small_steps():
        slab = OpenSlab.create(memory_file, JOURNAL)
        yield slab
        slab.close()


def test_what_entered_and_did_not_leave_is_read(slab: OpenSlab) -> None:
    slots = [slab.enter(make_body(0, place, 1)) for place in range(20)]
    for slot in slots[::2]:
        slab.leave(slot)
    slab.beat(1_700_000_000_000_000_000)
    heartbeat, bodies = read_slab(slab._fd, JOURNAL)
    assert heartbeat == 1_700_000_000_000_000_000
    assert sorted(writer_of(body)[1] for body in bodies) == list(range(1, 20, 2))


def test_bodies_of_every_size_are_read_whole(slab: OpenSlab) -> None:
    bodies = [os.urandom(size) for size in range(LARGEST_BODY + 1)]
    assert all(slab.enter(body) > 0 for body in bodies)
    assert sorted(bodies_in(slab)) == sorted(bodies)
    assert slab.enter(bytes(LARGEST_BODY + 1)) == -1
    assert slab.unnoted == 1


def test_all_slots_are_used_then_spans_are_counted_only(slab: OpenSlab) -> None:
    slots = [slab.enter(make_body(1, place, 1)) for place in range(16 * FEW_SLOTS)]
    assert len(set(slots)) == 16 * FEW_SLOTS
    assert slab.unnoted == 0
    assert [slab.enter(b"x") for _ in range(3)] == [-1, -1, -1]
    assert slab.unnoted == 3
    assert len(bodies_in(slab)) == 16 * FEW_SLOTS
    for slot in [*slots, -1, *slots]:  # twice: nothing comes of it
        slab.leave(slot)
    check_free_slots(slab)
    assert bodies_in(slab) == []
    assert slab.enter(b"x") > 0


def test_somebody_is_asked_for_room_while_there_is_some(slab: OpenSlab) -> None:
    asked: list[int] = []
    slab.on_needs_room = lambda: asked.append(len(slab._reserve))
    for place in range(FEW_SLOTS - 1):
        slab.enter(make_body(1, place, 1))
    assert asked == [8], "once, with the whole reserve left"
    assert slab.grow()
    assert (slots_of(slab), len(slab._reserve)) == (2 * FEW_SLOTS, 8)
    assert slab.grow(), "nothing to do is no failure"
    assert slots_of(slab) == 2 * FEW_SLOTS


def test_a_slot_keeps_its_number_when_the_slab_grows(slab: OpenSlab) -> None:
    early = slab.enter(make_body(1, 1, 1))
    memory, words = slab.memory, slab.words
    for place in range(3 * FEW_SLOTS):
        slab.enter(make_body(2, place, 1))
    assert slab.memory is not memory
    memory[(early << 3) - 248 : (early << 3) - 240] = make_body(1, 2, 1)[:8]  # who still has the mapping before
    assert bytes(slab.memory[(early << 3) - 248 : (early << 3) - 240]) == make_body(1, 2, 1)[:8]
    words[early] = 0
    assert len(bodies_in(slab)) == 3 * FEW_SLOTS


def test_a_full_disk_is_told_to_the_keeper_and_to_nobody_else() -> None:
    with small_steps():
        fd = os.memfd_create("slab", os.MFD_ALLOW_SEALING)
        os.posix_fallocate(fd, 0, _slab.SLAB_FILE_BYTES)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
        slab = OpenSlab.create(lambda name, size: fd, JOURNAL)
        slots = [slab.enter(b"x") for _ in range(FEW_SLOTS)]
        assert min(slots) > 0
        assert slab.enter(b"x") == slab.enter(b"x") == -1
        with pytest.raises(OSError, match="permitted"):
            slab.grow()
        slab.leave(slots[0])
        assert slab.enter(b"x") == slots[0]
        slab.close()


def test_a_closed_slab_takes_nothing_and_keeps_what_was_open(slab: OpenSlab) -> None:
    fd = os.dup(slab._fd)
    slots = [slab.enter(make_body(1, place, 1)) for place in range(10)]
    slab.close()
    slab.leave(slots[0])
    assert slab.enter(b"x") == -1
    slab.beat(5)
    assert not slab.grow()
    slab.close()
    assert len(inspect_slab(fd, JOURNAL).bodies) == 10
    clear_slab(fd)
    assert inspect_slab(fd, JOURNAL).bodies == []
    os.close(fd)


def test_a_forked_child_stores_nothing_in_its_parents_slab(slab: OpenSlab) -> None:
    open_in_parent = slab.enter(make_body(1, 1, 1))
    with slab._lock:  # as if another thread of the parent was growing it at the fork
        slab._is_growing = True
        slab.forget_in_child()
    slab.leave(open_in_parent)
    assert slab.enter(b"x") == -1


def test_enter_and_leave_are_cheap_and_so_is_what_callers_may_write_out() -> None:
    """Generous: what they cost is in the benchmarks; here a lock, a system call or a checksum would show."""
    slab = OpenSlab.create(memory_file, JOURNAL)
    assert os.fstat(slab._fd).st_size == SLAB_FILE_BYTES
    body = bytes(120)
    scope = {"slab": slab, "body": body, "STATE_WORDS": STATE_WORDS}
    by_call = min(timeit.repeat("slab.leave(slab.enter(body))", globals=scope, number=2_000, repeat=50)) / 2_000
    assert by_call < 5e-6
    written_out = """
try:
    slot = slab.free.pop()
except IndexError:
    slot = slab.enter(body)
else:
    slab.memory[(at := (slot << 3) - 248) : at + len(body)] = body
    slab.words[slot] = STATE_WORDS[len(body)]
taken.append(slot)
"""
    taken: list[int] = []
    for _ in range(5_000):
        exec(written_out, {**scope, "taken": taken})
    assert inspect_slab(slab._fd, JOURNAL).bodies == [body] * 5_000
    for slot in taken:
        slab.leave(slot)
    check_free_slots(slab)
    slab.close()
