"""What a far side refused for good is kept, with its answer, in files that only their owner can read.

A promise is a function `check_…(make_letters, …)`; the test gives it `DeadLetters`, the last tests a faulty double.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asynctrace import ExportResult, Tracer
from asynctrace._contracts import Resource, Scope
from asynctrace._diagnostics import Diagnostics
from asynctrace.delivery import DeadLetters, Origin
from asynctrace.delivery import _dead_letters as module
from asynctrace.delivery._dead_letters import DeadLetterError, find_letters, letter_name, read_letter
from asynctrace.delivery._rejection import Rejection
from asynctrace.exporters import MemoryExporter, OTLPExporter
from asynctrace.runtime import _parts
from asynctrace.testing import FaultServer
from asynctrace.testing._faults import PartialSuccess, RejectWhen, TooLargeOver
from asynctrace.wire import decode_records

from ..patience import patient
from ..spanlog.records import make_record
from .harness import BROKEN, QUICK, end_spans

ORIGIN = Origin.of(
    "3f0c1d2a-9b8e-4f60-8a5c-0123456789ab", Resource(attributes={"service.name": "shop"}), Scope(name="t")
)
NOW = 1_700_000_000_000_000_000

Make = Callable[..., DeadLetters]


class Told(Diagnostics):
    def __init__(self) -> None:
        super().__init__(time.monotonic_ns)
        self.events: list[str] = []

    def warning(self, event: str, **fields: object) -> None:
        self.events.append(event)


class Clock:
    """Wall clock in nanoseconds."""

    now = NOW

    def __call__(self) -> int:
        return self.now


def make(make_letters: Make, folder: Path, **options: Any) -> DeadLetters:
    options = {"service": "shop", "time_ns": Clock(), "diagnostics": Told()} | options
    return make_letters(lambda: folder, **options)


def rejection(first: int = 0, size: int = 100, records: int = 1) -> Rejection:
    payload = b"".join(make_record(first + number, size) for number in range(records))
    return Rejection(
        first=first, records=records, count=1, reason="backend_rejected", detail="400 Bad Request", payload=payload
    )


def written(letters: DeadLetters, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not letters.is_idle:
        assert time.monotonic() < end, "the letters are not written"
        time.sleep(0.002)


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────


def check_a_letter_says_what_it_is(make_letters: Make, folder: Path) -> None:
    letters = make(make_letters, folder)
    letters.put("otlp", ORIGIN, rejection(7, records=3))
    written(letters)
    (path,) = find_letters(folder)
    letter = read_letter(path)
    assert letter.payload == rejection(7, records=3).payload
    header = letter.header
    assert (header.lane, header.key, header.records, header.count) == ("otlp", f"{ORIGIN.log_id}:7:3", 3, 1)
    assert (header.reason, header.detail, header.time_ns) == ("backend_rejected", "400 Bad Request", NOW)
    assert (header.service, header.resource, header.scope) == ("shop", ORIGIN.resource_bytes, ORIGIN.scope_bytes)
    assert path.name == letter_name("otlp", header.key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600, "others can read it"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700, "others can look into the folder"
    assert [entry.name for entry in folder.iterdir()] == [path.name], "something else is left"


def test_a_letter_says_what_it_is(tmp_path: Path) -> None:
    check_a_letter_says_what_it_is(DeadLetters, tmp_path / "dead-letters")


def test_the_same_records_refused_again_take_the_place_of_their_letter(tmp_path: Path) -> None:
    letters = make(DeadLetters, tmp_path / "d")
    for _ in range(3):
        letters.put("otlp", ORIGIN, rejection(1))
    letters.put("other", ORIGIN, rejection(1))
    written(letters)
    assert len(find_letters(tmp_path / "d")) == 2


@pytest.mark.parametrize("place", range(0, 700, 13))
def test_any_damaged_byte_is_noticed(tmp_path: Path, place: int) -> None:
    letters = make(DeadLetters, tmp_path)
    letters.put("otlp", ORIGIN, rejection(0, size=300))
    written(letters)
    (path,) = find_letters(tmp_path)
    body = bytearray(path.read_bytes())
    body[place % len(body)] ^= 0x20
    path.write_bytes(body)
    with pytest.raises(DeadLetterError):
        read_letter(path)
    path.write_bytes(body[: place % len(body)])
    with pytest.raises(DeadLetterError):
        read_letter(path)


def test_a_newer_letter_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.letter"
    path.write_bytes(b'{"format": "asynctrace dead letter", "version": 2, "new": {}}\n')
    with pytest.raises(DeadLetterError, match="format 2"):
        read_letter(path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.letter").symlink_to("/etc/passwd")
    assert find_letters(tmp_path) == []
    with pytest.raises(OSError, match="symbolic"):
        read_letter(tmp_path / "a.letter")


# ── bounds ──────────────────────────────────────────────────────────────────────────────────────────────────


def check_the_disk_is_bounded(make_letters: Make, folder: Path) -> None:
    clock = Clock()
    letters = make(make_letters, folder, most_bytes=20 * 4096, time_ns=clock)
    for number in range(60):
        clock.now += 1_000_000_000
        letters.put("otlp", ORIGIN, rejection(number, size=1000))
        written(letters)
    paths = find_letters(folder)
    assert 15 <= len(paths) <= 20, f"{len(paths)} letters of a block each"
    firsts = [int(read_letter(path).header.key.split(":")[1]) for path in paths]
    assert firsts == list(range(60 - len(paths), 60)), "the oldest did not go first"
    assert letters.statistics().removed == 60 - len(paths), "not counted"
    assert letters.statistics().written == 60


def test_the_oldest_letters_make_room(tmp_path: Path) -> None:
    check_the_disk_is_bounded(DeadLetters, tmp_path)


def check_old_letters_go(make_letters: Make, folder: Path) -> None:
    clock = Clock()
    letters = make(make_letters, folder, time_ns=clock, longest=3600.0)
    (folder / ".torn.letter.1.new").write_bytes(b"killed in the middle")
    os.utime(folder / ".torn.letter.1.new", ns=(NOW, NOW))
    letters.put("otlp", ORIGIN, rejection(1))
    written(letters)
    clock.now += 3601 * 10**9
    for number in range(64):
        letters.put("otlp", ORIGIN, rejection(10 + number))
        written(letters)
    names = {path.name for path in folder.iterdir()}
    assert letter_name("otlp", ORIGIN.key(1, 1)) not in names, "too old"
    assert ".torn.letter.1.new" not in names, "the torn one stays for ever"
    assert len(names) == 64


def test_letters_go_with_their_age(tmp_path: Path) -> None:
    check_old_letters_go(DeadLetters, tmp_path)


# ── the hand-over ───────────────────────────────────────────────────────────────────────────────────────────


class HungDisk(DeadLetters):
    """Writes nothing before `release`."""

    release: threading.Event

    def _write(self, header: Any, payload: bytes) -> None:
        self.release.wait(patient(0.03))
        super()._write(header, payload)


def check_a_hung_disk_holds_nobody(make_letters: Make, folder: Path) -> None:
    class Hung(HungDisk, make_letters):  # type: ignore[misc, valid-type]
        release = threading.Event()

    letters = make(Hung, folder)
    began = time.perf_counter()
    for number in range(100):
        letters.put("otlp", ORIGIN, rejection(number, size=200_000))
    assert time.perf_counter() - began < patient(1.5), "put() waits for the disk"
    assert letters._put_bytes - letters._taken_bytes <= module.MOST_WAITING + 200_100, "what waits is not bounded"
    assert letters.statistics().lost > 40, "what does not fit is not counted"
    Hung.release.set()
    written(letters)
    counted = letters.statistics()
    assert counted.written + counted.lost == 100


def test_a_hung_disk_holds_nobody_and_what_waits_is_bounded(tmp_path: Path) -> None:
    check_a_hung_disk_holds_nobody(DeadLetters, tmp_path)


def failing(error: int) -> Callable[..., None]:
    def write_file(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    return write_file


def check_a_failing_disk_costs_letters_only(make_letters: Make, folder: Path, patch: pytest.MonkeyPatch) -> None:
    told = Told()
    letters = make(make_letters, folder, diagnostics=told)
    with patch.context() as broken:
        broken.setattr(module, "_write_file", failing(errno.ENOSPC))
        for number in range(5):
            letters.put("otlp", ORIGIN, rejection(number))
            written(letters)
        assert letters.statistics().lost == 5, "not counted"
        assert told.events == ["delivery.dead_letter_lost"], "not told, or not once"
        assert list(folder.iterdir()) == []
    letters.put("otlp", ORIGIN, rejection(9))
    written(letters)
    assert letters.statistics().written == 1, "does not come back"
    with patch.context() as broken:
        broken.setattr(module, "_write_file", failing(errno.EROFS))
        letters.put("otlp", ORIGIN, rejection(10))
        written(letters)
    assert len(told.events) == 2


def test_a_full_disk_costs_letters_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_a_failing_disk_costs_letters_only(DeadLetters, tmp_path, monkeypatch)


@pytest.mark.parametrize("case", ["writable by others", "a file", "a link", "no such parent can be made", "raises"])
def test_a_folder_that_cannot_be_used_costs_letters_only(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "d"
    if case == "writable by others":
        folder.mkdir()
        folder.chmod(0o777)
    elif case == "a file":
        folder.write_text("x")
    elif case == "a link":
        (tmp_path / "real").mkdir(0o700)
        folder.symlink_to(tmp_path / "real")
    elif case == "no such parent can be made":
        (tmp_path / "f").write_text("x")
        folder = tmp_path / "f" / "d"

    def find() -> Path:
        if case == "raises":
            raise ValueError("no folder")
        return folder

    letters = DeadLetters(find, service="shop", time_ns=Clock(), diagnostics=Told())
    letters.put("otlp", ORIGIN, rejection())
    written(letters)
    assert (letters.statistics().written, letters.statistics().lost) == (0, 1)


def test_a_folder_that_is_deleted_is_made_again(tmp_path: Path) -> None:
    letters = make(DeadLetters, tmp_path / "d")
    for number in range(2):
        letters.put("otlp", ORIGIN, rejection(number))
        written(letters)
        (path,) = find_letters(tmp_path / "d")
        path.unlink()
        (tmp_path / "d").rmdir()
    assert letters.statistics().written == 2


def check_no_thread_is_needed(make_letters: Make, folder: Path, patch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def refuse(*_: object) -> None:
        threads.append("started")
        raise RuntimeError("can't create new thread at interpreter shutdown")

    patch.setattr("asynctrace.delivery._dead_letters._thread.start_new_thread", refuse)
    letters = make(make_letters, folder)
    letters.put("otlp", ORIGIN, rejection(1))
    assert letters.is_idle
    assert len(find_letters(folder)) == 1, "nothing was written"
    with DeadLetters.in_place():
        letters.put("otlp", ORIGIN, rejection(2))
    assert (len(find_letters(folder)), threads) == (2, ["started"]), "a thread was asked for"


def test_where_no_thread_can_be_started_letters_are_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_no_thread_is_needed(DeadLetters, tmp_path, monkeypatch)


def test_many_threads_put_and_nothing_is_lost(tmp_path: Path) -> None:
    letters = make(DeadLetters, tmp_path)

    def put(number: int) -> None:
        for record in range(25):
            letters.put(f"lane-{number}", ORIGIN, rejection(record))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written(letters)
    assert len(find_letters(tmp_path)) == letters.statistics().written == 200


# ── a tracer's ──────────────────────────────────────────────────────────────────────────────────────────────


async def check_each_culprit_is_kept(make_tracer: Callable[..., Tracer], state: Path) -> None:
    secret = "k-1234567890"
    async with FaultServer(default=RejectWhen(lambda span: span.name.endswith(("-3", "-7")))) as server:
        exporter = OTLPExporter(server.url, headers={"x-api-key": secret})
        async with make_tracer(service="a shop", exporters=[exporter], delivery=QUICK, journal=state) as tracer:
            await end_spans(tracer, 10)
            await tracer.flush()
    paths = find_letters(state)
    assert {path.parent.name for path in paths} <= {"dead-letters"}
    letters = [read_letter(path) for path in paths]
    names = sorted(span.name for letter in letters for span in decode_records([letter.payload]))
    assert names == ["span-3", "span-7"]
    assert {letter.header.detail for letter in letters} == {"400 Bad Request: a span is not acceptable"}
    assert {letter.header.reason for letter in letters} == {"backend_rejected"}
    assert not [path for path in paths if secret.encode() in path.read_bytes() or b"127.0.0.1" in path.read_bytes()]


@pytest.mark.anyio
async def test_each_culprit_that_halving_finds_is_kept(tmp_path: Path) -> None:
    await check_each_culprit_is_kept(Tracer, tmp_path / "state")


@pytest.mark.anyio
async def test_a_partial_success_keeps_the_whole_batch_with_the_count_of_the_refused(tmp_path: Path) -> None:
    async with FaultServer(default=PartialSuccess(rejected=2, message="two too many")) as server:
        tracer = Tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK, journal=tmp_path / "s")
        async with tracer:
            await end_spans(tracer, 5)
            await tracer.flush()
    (path,) = find_letters(tmp_path / "s")
    header = read_letter(path).header
    assert (header.records, header.count, header.detail) == (5, 2, "200 OK: two too many")


@pytest.mark.anyio
async def test_a_span_that_is_too_large_however_it_is_cut_is_kept_as_it_was_sent_last(tmp_path: Path) -> None:
    async with FaultServer(default=TooLargeOver(500)) as server:
        tracer = Tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK, journal=tmp_path / "s")
        async with tracer:
            with tracer.trace("large", inputs="tea " * 10_000):
                pass
            receipt = await tracer.flush()
    assert receipt.rejected_by_reason == {"oversize": 1}
    (path,) = find_letters(tmp_path / "s")
    header = read_letter(path).header
    assert (header.reason, header.detail.partition(" ")[0], header.size < 10_000) == ("oversize", "413", True)


@pytest.mark.anyio
async def test_in_memory_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "state"))

    class Refusing(MemoryExporter):
        async def export(self, batch: Any) -> ExportResult:
            return ExportResult.refused("no")

    tracer = Tracer(service="shop", exporters=[Refusing()], delivery=QUICK, journal=False)
    async with tracer:
        await end_spans(tracer, 2)
    assert tracer.receipt().rejected == 2
    assert not (tmp_path / "state").exists()


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


class WritesInPlace(DeadLetters):
    def _start(self) -> None:
        self.write_waiting()


class HasNoBound(DeadLetters):
    def _make_room(self, folder: int, size: int) -> None:
        pass


class TellsEachTime(DeadLetters):
    def _tell(self, error: Exception) -> None:
        self._is_told = False
        super()._tell(error)


class NeedsAThread(DeadLetters):
    def _start(self) -> None:
        try:
            super_start = module._thread.start_new_thread
            super_start(self.write_waiting, ())
        except RuntimeError:
            return


class WaitsWithoutABound(DeadLetters):
    def put(self, lane: str, origin: Origin, rejection: Rejection) -> None:
        self._taken_bytes = self._put_bytes
        super().put(lane, origin, rejection)
        self._taken_bytes = 0


class ReadableByAll(DeadLetters):
    def _write(self, header: Any, payload: bytes) -> None:
        super()._write(header, payload)
        folder = self._find_folder()
        for path in folder.iterdir():
            path.chmod(0o644)


def test_letters_that_others_can_read_are_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="others can read"):
        check_a_letter_says_what_it_is(ReadableByAll, tmp_path / "d")


@pytest.mark.parametrize("check", [check_the_disk_is_bounded, check_old_letters_go])
def test_letters_without_a_bound_are_caught(tmp_path: Path, check: Callable[[Make, Path], None]) -> None:
    with pytest.raises(AssertionError):
        check(HasNoBound, tmp_path)


@pytest.mark.parametrize("wrong", [WritesInPlace, WaitsWithoutABound])
def test_a_hand_over_that_waits_or_has_no_bound_is_caught(tmp_path: Path, wrong: Make) -> None:
    with pytest.raises(AssertionError):
        check_a_hung_disk_holds_nobody(wrong, tmp_path)


def test_a_line_for_each_letter_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="not once"):
        check_a_failing_disk_costs_letters_only(TellsEachTime, tmp_path, monkeypatch)


def test_a_writer_that_needs_its_thread_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        check_no_thread_is_needed(NeedsAThread, tmp_path, monkeypatch)


@pytest.mark.anyio
async def test_a_tracer_without_dead_letters_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parts, "_make_dead_letters", lambda settings: None)
    with pytest.raises(BROKEN):
        await check_each_culprit_is_kept(Tracer, tmp_path / "state")
