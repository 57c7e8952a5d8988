"""What dead processes left behind is delivered by the next one: once, under its old keys, as what it was."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from asynctrace import DeliveryNotice, ExportResult, JournalOptions, Tracer
from asynctrace.exporters import MemoryExporter
from asynctrace.runtime import _claimed, _recovery
from asynctrace.runtime._journal import boot_id
from asynctrace.spanlog.journal import (
    JournalDirectory,
    JournalState,
    claim,
    list_journals,
    read_segment,
    service_folder,
)

from ..patience import patient
from .journals import LANE, SERVICE, Away, Keys, die, leave_spooled, make_tracer, states

pytestmark = pytest.mark.anyio


async def until(condition: Any, seconds: float = 60.0) -> None:
    """Longer than two passes: of two that look at a journal at once, each may leave it to the other."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def check_what_a_killed_process_ended_arrives_once(state: Path, tracer: type[Tracer] = Tracer) -> None:
    await asyncio.to_thread(die, state, 50)
    keys = Keys()
    async with tracer(service=SERVICE, exporters=[keys], journal=state) as next_one:
        await until(lambda: next_one.receipt().recovered == 52)
        async with next_one.trace("mine"):
            pass
    found = Counter((span.name.partition("-")[0], span.ending) for span in keys.spans)
    assert found == {("ended", "ok"): 50, ("open", "lost"): 1, ("run", "lost"): 1, ("mine", "ok"): 1}
    assert len({span.span_id for span in keys.spans}) == 53
    assert len(keys.pids) == 2, "each span keeps the resource of its process"
    assert next_one.receipt().ended == 1, "what was recovered is no part of the balance"
    assert states(state) == []


async def test_what_a_killed_process_ended_arrives_once_and_what_was_open_is_lost(state_directory: Path) -> None:
    await check_what_a_killed_process_ended_arrives_once(state_directory)


async def test_a_next_process_that_looks_for_nothing_is_noticed(
    state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_recovery.Recovery, "move_in", lambda self, loop: None)
    monkeypatch.setattr(f"{__name__}.until", lambda condition: asyncio.sleep(0.2))
    with pytest.raises(AssertionError):
        await check_what_a_killed_process_ended_arrives_once(state_directory)


async def test_the_children_of_a_lost_run_stay_its_children(state_directory: Path) -> None:
    await asyncio.to_thread(die, state_directory, 3)
    memory = MemoryExporter(name=LANE)
    async with make_tracer(state_directory, memory):
        await memory.wait_for(5, timeout=10.0)
    run = next(span for span in memory.spans if span.name == "run")
    assert {span.parent_id for span in memory.spans if span is not run} == {run.span_id}
    lost = next(span for span in memory.spans if span.name == "open")
    assert lost.status == 2
    assert lost.end_ns >= lost.start_ns > 0


async def test_a_program_that_ends_at_once_recovers_before_it_is_gone(state_directory: Path) -> None:
    await leave_spooled(state_directory, 20)
    memory = MemoryExporter(name=LANE)
    async with make_tracer(state_directory, memory):
        pass
    assert len(memory.spans) == 20
    assert states(state_directory) == []


async def test_keys_are_the_old_ones_also_of_a_window_that_was_under_way(state_directory: Path) -> None:
    seen: list[str] = []

    class Hangs(Away):
        async def export(self, batch: Any) -> ExportResult:
            seen.append(batch.key)
            await asyncio.Event().wait()
            raise AssertionError("never")

    tracer = make_tracer(state_directory, Hangs())
    for i in range(30):
        async with tracer.trace(f"left-{i}"):
            pass
    with pytest.raises(TimeoutError):
        await tracer.flush(0.2)
    for i in range(10):
        async with tracer.trace(f"later-{i}"):
            pass
    await tracer.shutdown(0.05)
    keys = Keys()
    async with make_tracer(state_directory, keys):
        await keys.wait_for(40, timeout=10.0)
    assert seen
    assert seen[0] in keys.keys, "the request that was under way is repeated as it was"
    assert len({span.span_id for span in keys.spans}) == len(keys.spans) == 40


async def test_a_sibling_takes_over_within_seconds(state_directory: Path) -> None:
    memory = MemoryExporter(name=LANE)
    async with make_tracer(state_directory, memory) as survivor:
        other = make_tracer(state_directory, MemoryExporter(name="other"))  # a living sibling, with other lanes
        await other.start()
        async with survivor.trace("mine"):
            pass
        await asyncio.sleep(0)
        await until(lambda: JournalState.LIVE in states(state_directory))
        await asyncio.to_thread(die, state_directory, 10)
        began = time.monotonic()
        await until(lambda: survivor.receipt().recovered == 12, 40.0)
        assert time.monotonic() - began < 40.0
        await other.shutdown()


async def test_two_at_once_deliver_each_span_once(state_directory: Path) -> None:
    for _ in range(4):
        await leave_spooled(state_directory, 25)
    one, two = MemoryExporter(name=LANE), MemoryExporter(name=LANE)
    async with make_tracer(state_directory, one), make_tracer(state_directory, two):
        await until(lambda: len(one.spans) + len(two.spans) >= 100)
    ids = [span.span_id for span in (*one.spans, *two.spans)]
    assert len(ids) == len(set(ids)) == 100


async def test_a_journal_whose_lane_nobody_has_is_kept(state_directory: Path) -> None:
    await leave_spooled(state_directory, 5)
    other = MemoryExporter(name="somebody else")
    async with make_tracer(state_directory, other) as tracer, tracer.trace("mine"):
        pass
    assert [span.name for span in other.spans] == ["mine"]
    assert states(state_directory) == [JournalState.ORPHAN]


async def test_what_cannot_be_delivered_stays_whole_for_the_next(state_directory: Path) -> None:
    await leave_spooled(state_directory, 5)
    async with make_tracer(state_directory, Away(), shutdown_timeout=0.2):
        await asyncio.sleep(0.1)
    assert states(state_directory) == [JournalState.ORPHAN]
    memory = MemoryExporter(name=LANE)
    async with make_tracer(state_directory, memory) as tracer:
        await until(lambda: tracer.receipt().recovered == 5)
    assert states(state_directory) == []


async def test_what_was_refused_stays_in_the_books_of_the_dead_and_is_not_sent_again(state_directory: Path) -> None:
    class RefusesOdd(Keys):
        async def export(self, batch: Any) -> ExportResult:
            names = [span.name for span in batch.spans()]
            if any(int(name.rpartition("-")[2]) % 2 for name in names):
                return ExportResult.refused("odd")
            await asyncio.sleep(0)
            return await super().export(batch)

    first = RefusesOdd()
    await leave_spooled(state_directory, 8)
    async with make_tracer(state_directory, first):
        await until(lambda: len(first.spans) == 4)
    assert states(state_directory) == []
    again = MemoryExporter(name=LANE)
    async with make_tracer(state_directory, again):
        await asyncio.sleep(0.05)
    assert not again.spans


async def test_a_journal_over_which_three_processes_died_is_put_aside(state_directory: Path) -> None:
    await leave_spooled(state_directory, 5)
    path = list_journals(service_folder(state_directory, SERVICE))[0].path
    for _ in range(3):
        directory = claim(path)
        assert directory is not None
        directory.note_death_begins()
        directory.release()
    memory = MemoryExporter(name=LANE)
    async with make_tracer(state_directory, memory):
        await until(lambda: states(state_directory).count(JournalState.QUARANTINED) == 1)
    assert not memory.spans
    assert states(state_directory) == [JournalState.QUARANTINED]


class Gate:
    """Holds up the thread that reads a journal, between the note that this may be its death and the first byte."""

    def __init__(self) -> None:
        self.came, self.opens = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.came.set()
        assert self.opens.wait(patient(30))
        return boot_id()


def the_orphan(state: Path) -> Path:
    (entry,) = list_journals(service_folder(state, SERVICE))
    return entry.path


async def check_that_nobody_dies_by_being_told_to_end(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await leave_spooled(state, 5)
    for _ in range(4):
        gate = Gate()
        monkeypatch.setattr(_claimed, "boot_id", gate)
        try:
            async with make_tracer(state, MemoryExporter(name=LANE), shutdown_timeout=0.1):
                assert await asyncio.to_thread(gate.came.wait, patient(10))
            assert states(state) == [JournalState.LIVE], "it is read: nobody else may claim it"
            assert (the_orphan(state) / "deaths").read_bytes()[:1] == b"0", "the process may end before it is read"
        finally:
            gate.opens.set()
        await until(lambda: states(state) == [JournalState.ORPHAN])
    monkeypatch.setattr(_claimed, "boot_id", boot_id)
    memory = MemoryExporter(name=LANE)
    async with make_tracer(state, memory) as tracer:
        await until(lambda: tracer.receipt().recovered == 5)
    assert states(state) == []


async def test_nobody_dies_over_a_journal_by_being_told_to_end_while_it_is_read(
    state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await check_that_nobody_dies_by_being_told_to_end(state_directory, monkeypatch)


@pytest.mark.parametrize(("of", "method"), [(JournalDirectory, "note_nobody_died"), (_claimed.Claimed, "let_go")])
async def test_who_counts_a_death_or_keeps_the_lock_is_noticed(
    of: type, method: str, state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of, method, lambda self: None)
    monkeypatch.setattr(f"{__name__}.until", lambda condition, whole=until: whole(condition, 0.5))
    with pytest.raises((AssertionError, TimeoutError)):
        await check_that_nobody_dies_by_being_told_to_end(state_directory, monkeypatch)


async def test_an_error_while_a_journal_is_read_is_no_death(
    state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> str:
        failed.append(1)
        raise OSError(errno.EMFILE, "too many open files")

    failed: list[int] = []
    await leave_spooled(state_directory, 5)
    monkeypatch.setattr(_claimed, "boot_id", fails)
    for times in range(1, 5):
        async with make_tracer(state_directory, MemoryExporter(name=LANE)):
            await until(lambda times=times: len(failed) == times)
        assert states(state_directory) == [JournalState.ORPHAN]
    monkeypatch.setattr(_claimed, "boot_id", boot_id)
    memory = MemoryExporter(name=LANE)
    async with make_tracer(state_directory, memory):
        await memory.wait_for(5, timeout=patient(10))


async def test_a_journal_that_is_damaged_beyond_its_meta_is_put_aside(state_directory: Path) -> None:
    await leave_spooled(state_directory, 5)
    path = list_journals(service_folder(state_directory, SERVICE))[0].path
    (path / "meta").write_bytes(b"nothing of ours")
    async with make_tracer(state_directory, MemoryExporter(name=LANE)):
        await until(lambda: JournalState.QUARANTINED in states(state_directory))


async def test_a_damaged_segment_costs_itself_and_is_counted(state_directory: Path) -> None:
    await leave_spooled(state_directory, 300, capacity_bytes=64 * 1024)
    path = list_journals(service_folder(state_directory, SERVICE))[0].path
    damage_a_segment_in_the_middle(path)
    told: list[DeliveryNotice] = []
    memory = MemoryExporter(name=LANE)
    async with make_tracer(state_directory, memory, on_drop=told.append) as tracer:
        await until(lambda: tracer.receipt().recovered and not states(state_directory).count(JournalState.ORPHAN))
    corrupt = sum(notice.count for notice in told if notice.reason == "corrupt")
    assert corrupt > 0
    assert len(memory.spans) + corrupt == 300


def damage_a_segment_in_the_middle(path: Path) -> None:
    for segment in sorted(path.glob("*.seg")):
        descriptor = os.open(segment, os.O_RDWR)
        try:
            journal_id = bytes.fromhex(path.stem.replace("-", ""))
            read = read_segment(descriptor, segment.name, journal_id=journal_id, trust="words")
            if read is not None and read.used and read.base:
                read.close()
                os.pwrite(descriptor, os.urandom(64), 0)
                return
        finally:
            os.close(descriptor)
    raise AssertionError("no segment in the middle")


async def test_callbacks_hear_of_what_is_spooled_and_recovered(state_directory: Path) -> None:
    told: list[DeliveryNotice] = []
    await leave_spooled(state_directory, 7, on_spool=told.append)
    async with make_tracer(state_directory, MemoryExporter(name=LANE), on_recover=told.append) as tracer:
        await until(lambda: tracer.receipt().recovered == 7)
    assert [(notice.kind, notice.count) for notice in told] == [("spool", 7), ("recover", 7)]
    assert len({notice.journal_id for notice in told}) == 1


async def test_what_is_older_than_a_journal_may_be_goes(state_directory: Path) -> None:
    told: list[DeliveryNotice] = []
    await leave_spooled(state_directory, 4)
    await asyncio.sleep(0.05)
    options = JournalOptions(path=state_directory, max_age=0.01)
    memory = MemoryExporter(name=LANE)
    async with Tracer(service=SERVICE, exporters=[memory], journal=options, on_drop=told.append):
        await until(lambda: JournalState.ORPHAN not in states(state_directory))
    assert not memory.spans
    assert [(notice.reason, notice.count) for notice in told] == [("expired", 4)]
