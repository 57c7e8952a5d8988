"""Whole programs that trace with a journal and are killed, the programs that come after them, and what they leave behind.

    python -c 'from tests.journal.whole_programs import main; main()'

is a process that starts such programs: it has imported everything and forks one for each line of JSON it reads.

    a program ──▶ its page: each span that is open, each whose end has returned      (both processes see it)
             └──▶ its sink: each batch that was taken over, with its key             (a file that only grows)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import random
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from asynctrace import DeliveryOptions, Tracer
from asynctrace._contracts import Batch, ExportResult
from asynctrace.spanlog.journal import JournalState, _slab, list_journals, service_folder
from asynctrace.wire import scan_records

WRITERS = 6
SPANS = 2500
"""That one writer may make: the log has room for those of all six, so that none is refused while the far side is away."""
STARTED = 0
FIRST = 8
"""Words of the page: from here on two for each span, its id and whether its end has returned."""
PAGE_BYTES = 8 * (FIRST + 2 * WRITERS * SPANS)
LIVES_AT_MOST = 40.0
NAME = "sink"

_FRAME = struct.Struct("<II")


# ── the far side ────────────────────────────────────────────────────────────────────────────────────────────


class FileSink:
    """Takes batches over into a file. `slow` answers late, `away` never takes anything."""

    name = NAME

    def __init__(self, path: Path, mode: str) -> None:
        self._mode = mode
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def export(self, batch: Batch) -> ExportResult:
        if self._mode == "away":
            return ExportResult.try_again()
        if self._mode == "slow":
            await asyncio.sleep(0.005)
        body = b"".join(batch.payload)
        key = batch.key.encode()
        os.write(self._fd, _FRAME.pack(len(key), len(body)) + key + body)
        if self._mode == "slow":
            await asyncio.sleep(0.02)
        return ExportResult.all_accepted(batch)

    async def aclose(self) -> None:
        os.close(self._fd)


def taken_over(path: Path) -> Iterator[tuple[str, bytes]]:
    """(key, records) of each batch; the last may have been cut off by a kill, and was not taken over then."""
    whole = path.read_bytes()
    at = 0
    while at + _FRAME.size <= len(whole):
        key_size, size = _FRAME.unpack_from(whole, at)
        begin = at + _FRAME.size + key_size
        at = begin + size
        if at <= len(whole):
            yield whole[begin - key_size : begin].decode(), whole[begin:at]


# ── programs ────────────────────────────────────────────────────────────────────────────────────────────────


def make_tracer(state: Path, service: str, sink: Path, mode: str) -> Tracer:
    options = DeliveryOptions(linger=0.005, batch_spans=50, backoff_initial=0.02, backoff_max=0.1)
    return Tracer(
        service=service, exporters=[FileSink(sink, mode)], journal=state, delivery=options, capacity_bytes=4 << 20
    )


class Writer:
    """Makes spans, and says so on the page."""

    def __init__(self, tracer: Tracer, page: memoryview, number: int, seed: int) -> None:
        self._tracer = tracer
        self._page = page
        self._at = FIRST + 2 * SPANS * number
        self._last = self._at + 2 * SPANS
        self._chance = random.Random(seed)

    @contextlib.contextmanager
    def _span(self) -> Iterator[Any]:
        at, self._at = self._at, self._at + 2
        with self._tracer.trace_component("step") as component:
            component.set_attribute("text", "t" * self._chance.randrange(200))
            self._page[at] = int(component.span_id, 16)
            self._page[STARTED] = 1
            yield component
        self._page[at + 1] = 1

    def write_in_a_thread(self) -> None:
        while self._at < self._last - 8:
            with self._span(), self._span():
                if self._chance.random() < 0.05:
                    time.sleep(0.001)
            with self._span():
                pass
        time.sleep(LIVES_AT_MOST)

    async def write_in_a_task(self) -> None:
        while self._at < self._last - 8:
            with self._span():
                await asyncio.sleep(0)
                with self._span():
                    await asyncio.sleep(0.001 if self._chance.random() < 0.05 else 0)
        await asyncio.sleep(LIVES_AT_MOST)


def trace_for_ever(
    *, state: str, service: str, sink: str, mode: str, page: str, threads: int, tasks: int, seed: int, fault: str = ""
) -> None:
    """Until killed."""
    break_by(fault)
    tracer = make_tracer(Path(state), service, Path(sink), mode)
    words = open_page(Path(page))
    writers = [Writer(tracer, words, number, seed + number) for number in range(threads + tasks)]

    async def trace() -> None:
        async with tracer:
            for writer in writers[:threads]:
                threading.Thread(target=writer.write_in_a_thread, daemon=True).start()
            words[STARTED] = max(words[STARTED], 0 if writers else 1)
            await asyncio.gather(
                *(writer.write_in_a_task() for writer in writers[threads:]), asyncio.sleep(LIVES_AT_MOST)
            )

    sys.setswitchinterval(1e-4)
    asyncio.run(trace())


def recover_all(*, state: str, services: list[str], sink: str, fault: str = "") -> None:
    """Until nobody's journal is left; ends as a program should."""
    break_by(fault)

    async def recover() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for number, service in enumerate(services):
                tracer = make_tracer(Path(state), service, Path(f"{sink}-{number}"), "fine")
                await stack.enter_async_context(tracer)
            while any(dead_journals(Path(state), service) for service in services):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    asyncio.run(recover())


def dead_journals(state: Path, service: str) -> int:
    """How many journals there are beside that of one living process."""
    entries = list_journals(service_folder(state, service))
    return sum(entry.state is not JournalState.QUARANTINED for entry in entries) - 1


def open_page(path: Path) -> memoryview:
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), PAGE_BYTES)).cast("Q")


# ── faults ──────────────────────────────────────────────────────────────────────────────────────────────────


def break_by(fault: str) -> None:
    """Let this process have the fault of that name."""
    if fault:
        FAULTS[fault]()


def _word_first() -> None:
    """A word vouches for bytes that are not there yet."""
    from asynctrace.spanlog.journal._log import JournalLog

    def append(self: JournalLog, record: bytes) -> bool:
        with self._lock:
            start, number = self._end, self._stored
            end = start + len(record)
            if end > self._capacity or number >= self._stop_at:
                self._staged.append(record)
                self._store_staged()
                return True
            self._words[number - self._base] = end
            time.sleep(0)
            self._payload[start:end] = record
            self._end, self._stored = end, number + 1
        if number + 1 >= self._wake_at:
            self._tell_reader()
        return True

    JournalLog._append_through = append  # type: ignore[method-assign]


def _stages() -> None:
    """What has ended is only in memory for a while."""
    from asynctrace.spanlog import SpanLog
    from asynctrace.spanlog.journal._log import JournalLog

    JournalLog._append_through = SpanLog.append_nowait  # type: ignore[method-assign]


def _no_slab() -> None:
    """What is open is known to nobody else."""
    from asynctrace.spanlog.journal._journal import Journal

    new = Journal.__init__

    def without(self: Journal, *given: Any, **options: Any) -> None:
        new(self, *given, **options)
        elsewhere = bytearray(len(self.slab.memory))
        self.slab.memory = memoryview(elsewhere)
        self.slab.words = self.slab.memory.cast("Q")

    Journal.__init__ = without  # type: ignore[method-assign]


def _no_window() -> None:
    """What is being sent is not written down: it may be cut anew."""
    from asynctrace.spanlog.journal._lane_file import LaneFile

    LaneFile.open_window = lambda self, first, count: True  # type: ignore[method-assign]


def _cursor_first() -> None:
    """The cursor passes what is being sent before it was taken over, and so before a run could say that it was not."""
    from asynctrace.spanlog.journal._lane_file import LaneFile

    opens = LaneFile.open_window

    def open_window(self: LaneFile, first: int, count: int) -> bool:
        is_open = opens(self, first, count)
        if is_open and first + count > self.cursor:
            LaneFile.move_cursor(self, first + count)
        return is_open

    def move_cursor(self: LaneFile, number: int) -> None:
        if number > self.cursor:
            moves(self, number)

    moves = LaneFile.move_cursor
    LaneFile.open_window = open_window  # type: ignore[method-assign]
    LaneFile.move_cursor = move_cursor  # type: ignore[method-assign]


def _removes_what_is_not_drained() -> None:
    """A recoverer takes what it has looked at for delivered."""
    from asynctrace.runtime._recovery import Recovery

    async def deliver(self: Recovery, *given: Any) -> bool:
        return True

    Recovery._deliver = deliver  # type: ignore[method-assign]


def _numbers_anew() -> None:
    """Spans that were open are closed again by whoever comes next, and under other numbers."""
    from asynctrace.spanlog.journal import _orphan

    module: Any = _orphan
    module.stored_among = lambda keys, contents: {}
    module.clear_open_spans = lambda directory: None


def _slab_is_not_cleared() -> None:
    """A span that has ended stays among those that are open, and its record is not looked for."""
    from asynctrace.spanlog.journal import _orphan

    module: Any = _orphan
    module.stored_among = lambda keys, contents: {}
    _slab.OpenSlab.leave = lambda self, slot: None  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[], None]] = {
    "word first": _word_first,
    "stages": _stages,
    "no slab": _no_slab,
    "no window": _no_window,
    "cursor first": _cursor_first,
    "removes what is not drained": _removes_what_is_not_drained,
    "numbers anew": _numbers_anew,
    "slab is not cleared": _slab_is_not_cleared,
}


# ── starting and killing them ───────────────────────────────────────────────────────────────────────────────

PROGRAMS: dict[str, Callable[..., None]] = {made.__name__: made for made in (trace_for_ever, recover_all)}


def main() -> None:
    """Fork a program for each line of standard input; end those that are left with it."""
    running: set[int] = set()
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "start":
            pid = _fork(asked["program"], asked["options"])
            running.add(pid)
            answer = pid
        elif asked["do"] == "kill":
            os.kill(asked["pid"], signal.SIGKILL)
            answer = _waited(asked["pid"])
            running.discard(asked["pid"])
        else:
            answer = _waited(asked["pid"])
            running.discard(asked["pid"])
        print(answer, flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _fork(program: str, options: dict[str, Any]) -> int:
    pid = os.fork()
    if not pid:
        status = 4
        try:
            signal.alarm(int(LIVES_AT_MOST))
            devnull = os.open(os.devnull, os.O_RDWR)
            os.dup2(devnull, 0)
            os.dup2(devnull, 1)
            PROGRAMS[program](**options)
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def _waited(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Starter:
    """The process that forks programs, seen from outside."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tests.journal.whole_programs import main; main()"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, program: str, **options: Any) -> int:
        return self._ask(do="start", program=program, options=options)

    def kill(self, pid: int) -> None:
        assert self._ask(do="kill", pid=pid) == -signal.SIGKILL, "it had ended before"

    def wait(self, pid: int) -> int:
        """Its exit status."""
        return self._ask(do="wait", pid=pid)

    def _ask(self, **asked: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], 2 * LIVES_AT_MOST)
        assert ready, "no answer"
        return int(self._process.stdout.readline())

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait(LIVES_AT_MOST)


# ── what became of the spans ────────────────────────────────────────────────────────────────────────────────

_TRACE_ID, _SPAN_ID = b"\x0a\x10", b"\x12\x08"
"""Tags and lengths of the fields that come first in a span, as our encoder writes it; between them may stand its parent's id
and its flags."""
_PASSED_BY = {b"\x22\x08": 10, b"\x85\x01": 6}
_ENDING = b"asynctrace.ending"


def span_of(record: bytes) -> tuple[bytes, int, bool]:
    """(trace id, span id, whether it was closed by a later process)."""
    at = 2
    while record[at - 1] >= 0x80:
        at += 1
    assert record[at : at + 2] == _TRACE_ID
    trace_id = record[at + 2 : at + 18]
    at += 18
    while size := _PASSED_BY.get(record[at : at + 2]):
        at += size
    assert record[at : at + 2] == _SPAN_ID
    span_id = int.from_bytes(record[at + 2 : at + 10], "big")
    after = record.rfind(_ENDING) + len(_ENDING)
    return trace_id, span_id, b"lost" in record[after : after + 12]


class Books:
    """Everything that was taken over, by anybody, de-duplicated as a collector does it."""

    def __init__(self) -> None:
        self.key_of: dict[tuple[bytes, int], str] = {}
        """The batch in which a span came."""
        self.lost: set[int] = set()
        self.ended: set[int] = set()
        self.repeated = 0
        self._batches: dict[str, bytes] = {}

    def add(self, key: str, body: bytes) -> None:
        before = self._batches.setdefault(key, body)
        if before is not body:
            self.repeated += 1
            assert before == body, f"the batch {key} was repeated with other records"
            return
        spans = [body[start:end] for start, end in scan_records(body)]
        assert len(spans) == int(key.rpartition(":")[2]), "the key counts other records"
        for record in spans:
            trace_id, span_id, is_lost = span_of(record)
            first = self.key_of.setdefault((trace_id, span_id), key)
            assert first == key, f"a span came in two batches, {first} and {key}"
            (self.lost if is_lost else self.ended).add(span_id)

    def check_numbers(self) -> None:
        """Of each journal everything from its first record to its last was taken over once."""
        windows: dict[str, list[tuple[int, int]]] = {}
        for key in self._batches:
            journal, first, count = key.split(":")
            windows.setdefault(journal, []).append((int(first), int(count)))
        for journal, found in windows.items():
            following = 0
            for first, count in sorted(found):
                assert first == following, f"records {following} to {first} of {journal}: missing, or there twice"
                following = first + count


def check_page(page: memoryview, books: Books) -> tuple[int, int]:
    """0 lost, none for ever open, none closed twice; (spans whose end had returned, spans that were open)."""
    words = page[FIRST:].tolist()
    ids, returned = words[0::2], words[1::2]
    ended = {span for span, end in zip(ids, returned, strict=True) if span and end}
    opened = {span for span, end in zip(ids, returned, strict=True) if span and not end}
    assert ended <= books.ended, f"{len(ended - books.ended)} of {len(ended)} ended spans are lost"
    found = books.lost | books.ended
    assert opened <= found, f"{len(opened - found)} of {len(opened)} open spans are open for ever"
    return len(ended), len(opened)
