"""What can be wrong with a state directory: the program runs on, its spans arrive, one line and a counter tell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from asynctrace import Tracer
from asynctrace.exporters import MemoryExporter
from asynctrace.runtime import _journal
from asynctrace.spanlog._segment import Segment
from asynctrace.spanlog.journal import Choice, FileSegment, Journal, JournalState, Mode

from .journals import LANE, Away, die, leave_spooled, make_tracer, states

pytestmark = pytest.mark.anyio


def a_file(path: Path) -> None:
    path.write_text("not a directory")


def writable_by_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def a_link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir()
    path.symlink_to(path.parent / "elsewhere")


def of_somebody_else(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a directory away")
    path.mkdir(mode=0o700)
    os.chown(path, 12345, 12345)


def below_a_file(path: Path) -> None:
    path.parent.joinpath("file").write_text("")
    path.symlink_to(path.parent / "file" / "below")


UNFIT: list[Callable[[Path], None]] = [a_file, writable_by_all, a_link, of_somebody_else, below_a_file]


async def check_it_is_survived(state: Path, tracer: type[Tracer] = Tracer, **options: Any) -> list[dict[str, Any]]:
    """Ten spans arrive; returns what was logged."""
    memory = MemoryExporter(name=LANE)
    with structlog.testing.capture_logs() as logs:
        async with tracer(service="shop", exporters=[memory], **{"journal": state, **options}) as subject:
            for i in range(10):
                async with subject.trace(f"run-{i}"):
                    pass
            receipt = await subject.flush()
            assert receipt.complete, f"{receipt!r}"
            assert subject.statistics().journal.startswith("memory: ")
            assert subject.statistics().internal_errors == {}
    assert len(memory.spans) == 10
    return [dict(line) for line in logs]


@pytest.mark.parametrize("unfit", UNFIT)
async def test_a_directory_that_is_not_fit_means_memory_and_one_line(
    tmp_path: Path, unfit: Callable[[Path], None]
) -> None:
    state = tmp_path / "state"
    unfit(state)
    lines = await check_it_is_survived(state)
    told = [line for line in lines if line["event"] == "spanlog.no_journal"]
    assert [line["log_level"] for line in told] == ["error"], "it was asked for by name"
    assert str(state) in told[0]["why"] or "link" in told[0]["why"]


async def test_auto_says_quietly_why_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_file(tmp_path / "state")
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "state"))
    lines = await check_it_is_survived(tmp_path, journal="auto")
    assert [line["log_level"] for line in lines if line["event"] == "spanlog.no_journal"] == ["info"]


async def test_a_network_file_system_means_memory(state_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from asynctrace.spanlog import journal

    monkeypatch.setattr(journal, "choose", lambda path: Choice(Mode.MEMORY, "nfs4", "locks on nfs4 may hang"))
    lines = await check_it_is_survived(state_directory, journal="auto")
    assert any("nfs4" in str(line) for line in lines)


async def test_what_was_chosen_is_one_line(state_directory: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with make_tracer(state_directory, MemoryExporter(name=LANE)) as tracer:
            chosen = tracer.statistics().journal
    told = [line for line in logs if line["event"] == "spanlog.journal"]
    assert len(told) == 1
    assert chosen == f"{told[0]['mode']}: {told[0]['why']}"


async def test_the_first_span_opens_the_journal_also_without_a_start(state_directory: Path) -> None:
    tracer = make_tracer(state_directory, Away())
    assert states(state_directory) == [], "a tracer that traces nothing leaves nothing"
    with tracer.trace_component("first"):
        assert states(state_directory) == [JournalState.LIVE]
    await tracer.shutdown(0.05)


async def test_files_are_the_owners_only_and_hold_no_secret(state_directory: Path) -> None:
    umask = os.umask(0)
    try:
        tracer = make_tracer(state_directory, Away(), resource={"team": "tea"})
        await tracer.start()
    finally:
        os.umask(umask)
    async with tracer.trace("run", inputs={"password": "hunter2", "q": "tea"}) as run:
        run.set_attribute("authorization", "Bearer abcdefghijklmnop")
    files = files_below(state_directory)
    assert len(files) >= 5
    assert open_to_others(state_directory) == []
    content = b"".join(path.read_bytes() for path in files)
    assert b"tea" in content
    assert b"hunter2" not in content
    assert b"abcdefghijklmnop" not in content
    await tracer.shutdown(0.05)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def open_to_others(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if stat.S_IMODE(path.stat().st_mode) & 0o077]


def delete(folder: Path) -> None:
    """Again, where a file was made in it meanwhile."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


async def test_a_directory_that_is_deleted_while_it_is_used_costs_no_span(state_directory: Path) -> None:
    memory = MemoryExporter(name=LANE)
    async with make_tracer(state_directory, memory, capacity_bytes=512 * 1024) as tracer:
        async with tracer.trace("before"):
            pass
        delete(state_directory / "v1")
        for i in range(3000):
            async with tracer.trace(f"after-{i}"):
                pass
            if not i % 200:
                await tracer.flush()
        receipt = await tracer.flush()
        assert receipt.complete, f"{receipt!r}"
        async with asyncio.timeout(10.0):  # it is looked for once a second
            while "deleted" not in tracer.statistics().journal_troubles:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert len(memory.spans) == 3001


async def test_two_processes_share_a_directory(state_directory: Path) -> None:
    far_side = Away()
    far_side.name = "another lane"
    mine = make_tracer(state_directory, far_side)
    async with mine.trace("held"):
        pass
    die(state_directory, 5)
    memory = MemoryExporter(name=LANE)
    async with make_tracer(state_directory, memory):
        await memory.wait_for(7, timeout=10.0)
    assert "held" not in {span.name for span in memory.spans}, "the living are not robbed"
    assert (await mine.shutdown(0.05)).spooled == 1


async def test_spans_on_the_disk_may_outgrow_the_memory(state_directory: Path) -> None:
    small = {"capacity_bytes": 256 * 1024, "when_full": "journal"}
    tracer = make_tracer(state_directory, Away(), **small)
    for i in range(6000):
        async with tracer.trace(f"run-{i}"):
            pass
    receipt = await tracer.shutdown(0.05)
    assert (receipt.spooled, receipt.dropped) == (6000, 0)
    memory = MemoryExporter(name=LANE)
    async with make_tracer(state_directory, memory):
        await memory.wait_for(6000, timeout=20.0)


# A disk that is full -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    if os.geteuid():
        pytest.skip("only root can mount a file system")
    path = tmp_path / "disk"
    path.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m,mode=0700", "tmpfs", str(path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr!r}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


async def end_many(tracer: Tracer, n: int) -> set[type[Segment]]:
    """End `n` spans without giving the lanes a turn; returns what kinds of segments took them."""
    kinds: set[type[Segment]] = set()
    for i in range(n):
        async with tracer.trace(f"run-{i}"):
            pass
        kinds.add(type(tracer._log._segments[-1]))
    return kinds


async def check_a_full_disk_is_survived(disk: Path, make: Callable[..., Tracer]) -> None:
    memory = MemoryExporter(name=LANE)
    ballast = disk / "ballast"
    async with make(disk, memory) as tracer:
        assert await end_many(tracer, 1) == {FileSegment}
        fill(ballast)
        assert Segment in await end_many(tracer, 30_000), "kept in memory, where no file can be had"
        assert (await tracer.flush()).complete, f"{tracer.receipt()!r}"
        assert tracer.statistics().journal_troubles.get("disk_full", 0) > 0
        ballast.unlink()
        await end_many(tracer, 20_000)
        assert type(tracer._log._segments[-1]) is FileSegment, "and in files again once there is room"
        assert (await tracer.flush()).complete, f"{tracer.receipt()!r}"
    assert len(memory.spans) == 50_001


async def test_a_full_disk_costs_no_span_and_is_told_and_works_again(small_disk: Path) -> None:
    await check_a_full_disk_is_survived(small_disk, make_tracer)


async def test_a_journal_that_gives_up_for_good_is_noticed(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take = Journal.take

    def take_until_it_fails(journal: Journal, size: int, base: int) -> FileSegment | None:
        return None if journal.troubles else take(journal, size, base)

    monkeypatch.setattr(Journal, "take", take_until_it_fails)
    with pytest.raises(AssertionError, match="files again"):
        await check_a_full_disk_is_survived(small_disk, make_tracer)


def fill(ballast: Path) -> None:
    with contextlib.suppress(OSError):
        ballast.write_bytes(bytes(16 << 20))


async def test_a_disk_that_is_full_from_the_start_means_memory(small_disk: Path) -> None:
    fill(small_disk / "ballast")
    await check_it_is_survived(small_disk)


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


async def test_a_disk_that_is_read_only_means_memory(small_disk: Path) -> None:
    make_read_only(small_disk)
    await check_it_is_survived(small_disk)


async def test_a_tracer_that_raises_for_a_bad_directory_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*given: Any, **more: Any) -> Any:
        raise OSError("no journal")

    a_file(tmp_path / "state")
    monkeypatch.setattr(_journal.Journaling, "open", raises)
    with pytest.raises((AssertionError, OSError)):
        await check_it_is_survived(tmp_path / "state")


async def test_what_was_spooled_by_a_service_of_another_name_is_not_ours(state_directory: Path) -> None:
    await leave_spooled(state_directory, 3)
    memory = MemoryExporter(name=LANE)
    async with Tracer(service="another", exporters=[memory], journal=state_directory):
        pass
    assert not memory.spans
    assert states(state_directory) == [JournalState.ORPHAN]
