"""Messages on this machine's disk while the stream is away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import stat
import subprocess
import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrace._errors import ConfigurationError, MessageTooLarge, StreamAway, StreamError, StreamFull
from asynctrace.stream import LocalSpill, Message

from .spills import WRONG_SPILLS, ListStream, appending, away_after, draining, message

pytestmark = pytest.mark.anyio

KINDS = {"": LocalSpill, **WRONG_SPILLS}


@contextlib.asynccontextmanager
async def opened(directory: Path, name: str = "", **options: Any) -> AsyncIterator[LocalSpill]:
    spill = KINDS[name](directory, **options)
    try:
        yield spill
    finally:
        await spill.aclose()


async def fill(spill: LocalSpill, numbers: range, size: int = 100) -> None:
    for number in numbers:
        assert await spill.append(message(number, size))


async def drained(directory: Path, name: str = "") -> list[int]:
    """What a process that comes later hands over."""
    stream = ListStream()
    async with opened(directory, name) as spill:
        await spill.drain(stream)
    return stream.numbers


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def statuses(directory: Path) -> list[os.stat_result]:
    return [path.stat() for path in directory.iterdir()]


# ── in and out ──────────────────────────────────────────────────────────────────────────────────────────────


async def check_the_oldest_goes_first(directory: Path, name: str = "") -> None:
    async with opened(directory, name, segment_bytes=1000) as spill:
        await fill(spill, range(50))
        assert len(files(directory)) > 5
    assert await drained(directory, name) == list(range(50))
    assert files(directory) == []


async def test_what_was_kept_is_handed_over_oldest_first_and_the_files_go(tmp_path: Path) -> None:
    await check_the_oldest_goes_first(tmp_path)


async def test_newest_first_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        await check_the_oldest_goes_first(tmp_path, "newest first")


@settings(max_examples=30)
@given(
    st.lists(
        st.builds(
            Message,
            signal=st.sampled_from(["traces", "logs"]),
            key=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
            records=st.integers(0, 10**17),
            codec=st.sampled_from(["identity", "gzip", "zstd"]),
            body=st.binary(max_size=200),
            extra=st.dictionaries(st.binary(min_size=8, max_size=9), st.binary(max_size=9), max_size=2),
        ),
        max_size=20,
    )
)
async def test_every_message_comes_back_as_it_was(messages: list[Message]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        stream = ListStream()
        async with opened(Path(directory), segment_bytes=500) as spill:
            for one in messages:
                assert await spill.append(one)
            assert await spill.drain(stream) == len(messages)
        assert stream.messages == messages


async def test_messages_that_come_while_it_drains_are_drained_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as spill:
        await fill(spill, range(10))

        class Adding(ListStream):
            async def append(self, message: Message) -> None:
                if not self.messages:
                    self.messages.append(message)
                    await fill(spill, range(100, 110))
                else:
                    await super().append(message)

        stream = Adding()
        assert await spill.drain(stream) == 20
        assert stream.numbers == [*range(10), *range(100, 110)]
        assert spill.stored_bytes == 0


async def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "below" / "spill"
    async with opened(directory) as spill:
        await fill(spill, range(1))
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert {stat.S_IMODE(status.st_mode) for status in statuses(directory)} == {0o600}


# ── safe before it is told ──────────────────────────────────────────────────────────────────────────────────


class Disk:
    """What `os.write` and `os.fsync` were asked, in order."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.dirty: set[int] = set()
        self.syncs = 0
        write, fsync = os.write, os.fsync

        def writing(descriptor: int, content: Any) -> int:
            self.dirty.add(os.fstat(descriptor).st_ino)
            return write(descriptor, content)

        def syncing(descriptor: int) -> None:
            fsync(descriptor)
            self.dirty.discard(os.fstat(descriptor).st_ino)
            self.syncs += 1

        patch.setattr(os, "write", writing)
        patch.setattr(os, "fsync", syncing)


async def check_it_is_synced(directory: Path, patch: pytest.MonkeyPatch, name: str = "") -> None:
    async with opened(directory, name, segment_bytes=1000) as spill:
        with patch.context() as patched:
            disk = Disk(patched)
            for number in range(20):
                assert await spill.append(message(number))
                assert not disk.dirty & {status.st_ino for status in statuses(directory)}


async def test_a_message_is_synced_before_it_is_told_to_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await check_it_is_synced(tmp_path, monkeypatch)


async def test_a_missing_sync_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        await check_it_is_synced(tmp_path, monkeypatch, "not synced")


async def check_syncs_are_shared(directory: Path, patch: pytest.MonkeyPatch, name: str = "") -> None:
    async with opened(directory, name) as spill:
        await fill(spill, range(1))
        with patch.context() as patched:
            disk = Disk(patched)
            assert all(await asyncio.gather(*(spill.append(message(number)) for number in range(200))))
        assert disk.syncs <= 5


async def test_messages_that_come_at_once_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await check_syncs_are_shared(tmp_path, monkeypatch)


async def test_a_sync_for_each_message_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        await check_syncs_are_shared(tmp_path, monkeypatch, "one sync each")


async def test_a_caller_that_goes_away_takes_nobody_along(tmp_path: Path) -> None:
    async with opened(tmp_path) as spill:
        callers = [asyncio.create_task(spill.append(message(number))) for number in range(10)]
        await asyncio.sleep(0)
        callers[0].cancel()
        callers[5].cancel()
        kept = await asyncio.gather(*callers, return_exceptions=True)
        assert [kept[number] for number in (1, 2, 3, 4, 6, 7, 8, 9)] == [True] * 8


# ── killed ──────────────────────────────────────────────────────────────────────────────────────────────────


def told(process: subprocess.Popen[str], lines: int) -> list[int]:
    """The first numbers that the process says, and then, after it was killed, all the others."""
    assert process.stdout is not None
    numbers = []
    for line in process.stdout:
        if not line.endswith("\n"):
            break  # it was killed while it said that
        numbers.append(int(line))
        if len(numbers) == lines:
            process.send_signal(signal.SIGKILL)
    return numbers


async def check_nothing_kept_is_lost(directory: Path, name: str = "") -> None:
    kept = set()
    for death in range(3):
        with appending(directory, name, first=death * 10_000) as process:
            kept |= set(await asyncio.to_thread(told, process, 20 + 130 * death))
    numbers = await drained(directory, name)
    assert kept <= set(numbers)
    assert len(numbers) == len(set(numbers))
    assert files(directory) == []


async def test_nothing_that_was_kept_is_lost_when_its_process_is_killed(tmp_path: Path) -> None:
    await check_nothing_kept_is_lost(tmp_path)


async def test_a_spill_that_keeps_messages_in_memory_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        await check_nothing_kept_is_lost(tmp_path, "kept in memory")


async def check_draining_may_be_killed(directory: Path, name: str = "") -> None:
    async with opened(directory, segment_bytes=4000) as spill:
        await fill(spill, range(200))
    handed_over = []
    for _ in range(3):
        with draining(directory, name) as process:
            handed_over += await asyncio.to_thread(told, process, 30)
    handed_over += await drained(directory, name)
    assert set(handed_over) == set(range(200))
    assert len(handed_over) < 200 + 3 * 60  # of a file at most


async def test_a_process_that_is_killed_while_it_drains_loses_nothing(tmp_path: Path) -> None:
    await check_draining_may_be_killed(tmp_path)


async def test_a_spill_that_removes_files_too_early_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        await check_draining_may_be_killed(tmp_path, "removes first")


# ── several processes ───────────────────────────────────────────────────────────────────────────────────────


async def check_each_drains_its_own(directory: Path, name: str = "") -> None:
    stream = ListStream()
    with appending(directory, first=10_000, segment_bytes=10**9) as other:  # it begins no second file
        assert other.stdout is not None
        async with opened(directory, name) as spill:
            await fill(spill, range(20))
            kept = [int(await asyncio.to_thread(other.stdout.readline)) for _ in range(10)]
            await spill.drain(stream)
            assert stream.numbers == list(range(20))
            kept += [int(await asyncio.to_thread(other.stdout.readline)) for _ in range(100)]
            other.kill()
            other.wait()
            await spill.drain(stream)
    assert set(kept) <= set(stream.numbers)
    assert len(stream.numbers) == len(set(stream.numbers))


async def test_a_living_process_keeps_its_files_and_a_dead_one_leaves_them(tmp_path: Path) -> None:
    await check_each_drains_its_own(tmp_path)


async def test_a_spill_that_takes_the_files_of_others_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        await check_each_drains_its_own(tmp_path, "unlocked")


# ── bounds ──────────────────────────────────────────────────────────────────────────────────────────────────


async def check_it_is_bounded(directory: Path, name: str = "") -> None:
    async with opened(directory, name, max_bytes=10_000, segment_bytes=1500) as spill:
        with structlog.testing.capture_logs() as lines:
            kept = [number for number in range(100) if await spill.append(message(number))]
        assert sum(status.st_size for status in statuses(directory)) <= 10_000
        assert 40 < len(kept) < 70
        assert kept == list(range(len(kept)))
        assert spill.statistics().full == 100 - len(kept)
        assert [line["event"] for line in lines] == ["stream.spill_full"]
        stream = ListStream()
        await spill.drain(stream)
        assert stream.numbers == kept
        assert await spill.append(message(1))


async def test_a_full_spill_says_no_and_counts_until_there_is_room(tmp_path: Path) -> None:
    await check_it_is_bounded(tmp_path)


async def test_a_spill_without_bound_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        await check_it_is_bounded(tmp_path, "boundless")


async def test_what_others_left_counts_against_the_bound(tmp_path: Path) -> None:
    async with opened(tmp_path) as spill:
        await fill(spill, range(5), size=1000)
    async with opened(tmp_path, max_bytes=5500) as spill:
        assert spill.stored_bytes > 5000
        assert not await spill.append(message(6, 1000))


@contextlib.contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process grows past `size`: the nearest to a full disk that needs no privilege."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_disk_that_is_full_costs_the_message_and_nothing_before_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as spill:
        await fill(spill, range(3), size=1000)
        with structlog.testing.capture_logs() as lines, files_end_at(3500):
            assert not await spill.append(message(3, 4000))
            assert not await spill.append(message(4, 4000))
        assert [line["event"] for line in lines] == ["stream.spill_failed"]
        assert spill.statistics().failed == 2
        assert await spill.append(message(5))
        stream = ListStream()
        await spill.drain(stream)
        assert stream.numbers == [0, 1, 2, 5]
        assert spill.statistics().damaged == 0


async def test_a_directory_that_vanishes_costs_messages_not_the_program(tmp_path: Path) -> None:
    directory = tmp_path / "spill"
    async with opened(directory) as spill:
        await fill(spill, range(1))
        shutil.rmtree(directory)
        assert not await spill.append(message(1))
        assert not await spill.append(message(2))
        assert await spill.drain(ListStream()) == 0
        directory.mkdir()
        assert await spill.append(message(3))
        assert await drained(directory) == []  # it is open
        assert await spill.drain(ListStream()) == 1


async def test_draining_needs_memory_for_a_few_messages_only(tmp_path: Path) -> None:
    size = 1024 * 1024

    class Dry(ListStream):
        async def append(self, message: Message) -> None:
            await asyncio.sleep(0)

    async with opened(tmp_path) as spill:
        await fill(spill, range(40), size=size)
        tracemalloc.start()
        try:
            assert await spill.drain(Dry()) == 40
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 16 * size


# ── a stream that is away, full, or strict ──────────────────────────────────────────────────────────────────


async def check_it_goes_on(directory: Path, name: str = "") -> None:
    async with opened(directory, name, segment_bytes=2000) as spill:
        await fill(spill, range(60))
        seen = []
        for _ in range(2):
            stream = ListStream(away_after(23))
            with pytest.raises(StreamAway):
                await spill.drain(stream)
            seen += stream.numbers
        stream = ListStream()
        await spill.drain(stream)
        assert seen + stream.numbers == list(range(60))
        assert spill.statistics().drained == 60


async def test_draining_goes_on_where_the_stream_went_away(tmp_path: Path) -> None:
    await check_it_goes_on(tmp_path)


@pytest.mark.parametrize("name", ["forgets the rest", "begins anew"])
async def test_draining_that_does_not_go_on_there_is_caught(tmp_path: Path, name: str) -> None:
    with pytest.raises(AssertionError):
        await check_it_goes_on(tmp_path, name)


@pytest.mark.parametrize("error", [StreamFull("full", 3.0), StreamAway("away"), StreamError("wrong password")])
async def test_what_the_stream_says_is_told_to_the_caller(tmp_path: Path, error: StreamError) -> None:
    async with opened(tmp_path) as spill:
        await fill(spill, range(3))
        with pytest.raises(type(error)) as raised:
            await spill.drain(ListStream(lambda message: error))
        assert raised.value is error
    assert await drained(tmp_path) == [0, 1, 2]


async def test_a_message_the_stream_never_takes_is_set_aside_and_the_others_go_on(tmp_path: Path) -> None:
    def too_large(one: Message) -> BaseException | None:
        return MessageTooLarge("too large") if len(one.body) > 1000 else None

    async with opened(tmp_path) as spill:
        await fill(spill, range(3))
        await fill(spill, range(3, 4), size=2000)
        await fill(spill, range(4, 6))
        stream = ListStream(too_large)
        with structlog.testing.capture_logs() as lines:
            await spill.drain(stream)
        assert stream.numbers == [0, 1, 2, 4, 5]
        assert spill.statistics().refused == 1
        assert [line["event"] for line in lines] == ["stream.spill_refused"]
        assert files(tmp_path) == ["00000000000000000001.refused"]
        assert await spill.drain(ListStream()) == 0


async def what_is_set_aside_stays(directory: Path, kind: type[LocalSpill] = LocalSpill) -> None:
    for round_ in (1, 2):
        spill = kind(directory)
        await fill(spill, range(1))
        await spill.drain(ListStream(lambda message: MessageTooLarge("too large")))
        await spill.aclose()
        assert len(files(directory)) == round_


async def test_what_is_set_aside_later_does_not_take_the_place_of_what_was_before(tmp_path: Path) -> None:
    await what_is_set_aside_stays(tmp_path)


async def test_a_name_that_is_given_twice_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        await what_is_set_aside_stays(tmp_path, WRONG_SPILLS["names given twice"])


async def test_a_message_this_version_may_not_read_is_set_aside(tmp_path: Path) -> None:
    async with opened(tmp_path) as spill:
        assert await spill.append(Message(records=1, body=b"", version=9, readable_by=9))
        await fill(spill, range(1))
        stream = ListStream()
        await spill.drain(stream)
        assert stream.numbers == [0]
        assert spill.statistics().refused == 1


# ── damage ──────────────────────────────────────────────────────────────────────────────────────────────────


async def one_file(directory: Path, messages: int = 10) -> Path:
    async with opened(directory) as spill:
        await fill(spill, range(messages), size=40)
    (name,) = files(directory)
    return directory / name


async def read_back(directory: Path, name: str = "") -> tuple[list[int], int, list[str]]:
    """(numbers, places that were damaged, what was told)."""
    stream = ListStream()
    with structlog.testing.capture_logs() as lines:
        async with opened(directory, name) as spill:
            await spill.drain(stream)
            return stream.numbers, spill.statistics().damaged, [line["event"] for line in lines]


async def check_damage_costs_one(directory: Path, name: str = "") -> None:
    path = await one_file(directory)
    whole = path.read_bytes()
    frame = (len(whole) - 19) // 10
    for position in range(19, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0x15
        path.write_bytes(damaged)
        lost = (position - 19) // frame
        numbers, places, lines = await read_back(directory, name)
        assert numbers == [number for number in range(10) if number != lost]
        if lost < 9:  # the last frame may look torn
            assert (places, lines) == (1, ["stream.spill_damaged"])


async def test_damage_costs_the_damaged_message_and_is_told_once(tmp_path: Path) -> None:
    await check_damage_costs_one(tmp_path)


@pytest.mark.parametrize("name", ["believes everything", "stops at damage"])
async def test_wrong_reading_of_damaged_files_is_noticed(tmp_path: Path, name: str) -> None:
    with pytest.raises((AssertionError, StreamError)):
        await check_damage_costs_one(tmp_path, name)


async def test_a_torn_end_is_no_damage(tmp_path: Path) -> None:
    path = await one_file(tmp_path, 3)
    whole = path.read_bytes()
    frame = (len(whole) - 19) // 3
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert await read_back(tmp_path) == (list(range(max(0, end - 19) // frame)), 0, []), end


async def test_a_hole_of_zeros_costs_what_lies_in_it(tmp_path: Path) -> None:
    path = await one_file(tmp_path)
    whole = bytearray(path.read_bytes())
    frame = (len(whole) - 19) // 10
    whole[19 + 2 * frame + 5 : 19 + 5 * frame + 5] = bytes(3 * frame)
    path.write_bytes(whole)
    assert await read_back(tmp_path) == ([0, 1, 6, 7, 8, 9], 1, ["stream.spill_damaged"])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("a letter to my aunt"),
        lambda path: path.write_bytes(b"asynctrace spill 2\n" + path.read_bytes()[19:]),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to("/etc/hostname")),
    ],
    ids=["foreign", "newer", "directory", "link"],
)
async def test_files_that_are_not_ours_are_left_alone_and_told_once(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    path = await one_file(tmp_path)
    spoil(path)
    stream = ListStream()
    async with opened(tmp_path) as spill:
        await fill(spill, range(3))
        with structlog.testing.capture_logs() as lines:
            assert await spill.drain(stream) == 3
            assert await spill.drain(stream) == 0
    assert [line["event"] for line in lines] == ["stream.spill_unreadable"]
    assert files(tmp_path) == [path.name]


@pytest.mark.parametrize("spoil", [Path.touch, lambda path: path.symlink_to("/nowhere/at/all")], ids=["file", "link"])
def test_a_directory_that_cannot_be_used_is_one_line_at_the_start(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    spoil(tmp_path / "spill")
    with pytest.raises(ConfigurationError, match="spill directory") as raised:
        LocalSpill(tmp_path / "spill" / "below")
    assert "\n" not in str(raised.value)
