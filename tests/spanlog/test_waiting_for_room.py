"""`WaitForRoom`: an ending waits for room, at most for its timeout, and only where waiting can help."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable

import pytest

from asynctrace.spanlog import SpanLog, WaitForRoom

from ..patience import no_patience, patient
from . import faulty
from .records import ended, in_thread, make_log, make_record, number_of, read_all

pytestmark = pytest.mark.anyio

MakeLog = Callable[..., SpanLog]


def full_log(timeout: float, make: MakeLog = SpanLog, spans: int = 10) -> SpanLog:
    log = make_log(when_full=WaitForRoom(timeout=timeout), capacity_spans=spans, make=make)
    for i in range(spans):
        assert log.append_nowait(make_record(i))
    return log


async def check_an_async_ending_waits_for_room(make: MakeLog) -> None:
    log = full_log(5.0, make)
    waiting = asyncio.create_task(log.append(make_record(10)))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert log.totals() == (10, {})
    log.release(5)
    done, _ = await asyncio.wait([waiting], timeout=patient(1.0))
    waiting.cancel()
    await asyncio.wait([waiting])
    assert done, "nobody told it of the room"
    assert log.totals() == (11, {})


async def test_an_async_ending_waits_for_room() -> None:
    await check_an_async_ending_waits_for_room(SpanLog)


async def test_the_check_of_waiting_notices() -> None:
    with no_patience(), pytest.raises(AssertionError):
        await check_an_async_ending_waits_for_room(faulty.NobodyIsToldOfRoom)


def test_nothing_is_counted_when_a_nowait_ending_is_asked_to_wait() -> None:
    log = full_log(5.0)
    assert not log.append_nowait(make_record(10))
    assert log.totals() == (10, {})


async def check_after_the_timeout_it_is_refused(make: MakeLog) -> None:
    log = full_log(0.05, make)
    async with asyncio.timeout(patient(2.0)):
        await log.append(make_record(10))
    assert log.totals() == (10, {"refused": 1})


async def test_after_the_timeout_it_is_refused() -> None:
    await check_after_the_timeout_it_is_refused(SpanLog)
    with no_patience(), pytest.raises((AssertionError, TimeoutError)):
        await check_after_the_timeout_it_is_refused(faulty.WaitsForEver)


async def test_a_cancelled_wait_is_counted_and_the_cancellation_goes_on() -> None:
    log = full_log(5.0)
    waiting = asyncio.create_task(log.append(make_record(10)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert log.totals() == (10, {"refused": 1})


async def test_a_wait_cancelled_when_room_has_just_come_stores_its_record_once() -> None:
    log = full_log(5.0)
    waiting = asyncio.create_task(log.append(make_record(10)))
    await asyncio.sleep(0)
    log.release(5)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert log.totals() == (11, {})


async def test_a_deadline_of_the_caller_is_the_callers() -> None:
    log = full_log(5.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await log.append(make_record(10))
    assert log.totals() == (10, {"refused": 1})


async def test_close_ends_every_wait() -> None:
    log = full_log(5.0)
    waiting = [asyncio.create_task(log.append(make_record(10 + i))) for i in range(5)]
    thread = asyncio.create_task(asyncio.to_thread(log.append_sync, make_record(20)))
    await asyncio.sleep(0.05)
    log.close("after_shutdown")
    async with asyncio.timeout(patient(2.0)):
        await asyncio.gather(*waiting, thread)
    assert log.totals() == (10, {"after_shutdown": 6})


async def test_inside_a_running_loop_a_synchronous_ending_never_waits() -> None:
    log = full_log(5.0)
    before = time.monotonic()
    log.append_sync(make_record(10))
    assert time.monotonic() - before < patient(0.5)
    assert log.totals() == (10, {"refused": 1})


def test_a_thread_waits_for_room() -> None:
    log = full_log(5.0)
    asked = threading.Event()

    def end() -> None:
        assert not log.append_nowait(make_record(10))
        asked.set()
        log.append_sync(make_record(10))

    def make_room() -> None:
        asked.wait(5.0)
        log.release(5)

    releaser = threading.Thread(target=make_room)
    releaser.start()
    in_thread(end, 3.0)
    releaser.join()
    assert log.totals() == (11, {})


def test_a_thread_that_waited_in_vain_is_refused() -> None:
    log = full_log(0.05)
    in_thread(lambda: log.append_sync(make_record(10)), 3.0)
    assert log.totals() == (10, {"refused": 1})


async def test_waiting_loses_nothing_while_the_reader_keeps_up() -> None:
    log = make_log(when_full=WaitForRoom(timeout=10.0), capacity_spans=20)
    found: list[int] = []

    async def end(start: int) -> None:
        for i in range(start, start + 100):
            record = make_record(i)
            if not log.append_nowait(record):
                await log.append(record)

    async def read() -> None:
        while len(found) < 1_000:
            found.extend(number_of(record) for record in read_all(log, len(found)))
            log.release(len(found))
            await asyncio.sleep(0)

    async with asyncio.timeout(10.0):
        await asyncio.gather(read(), *(end(start) for start in range(0, 1_000, 100)))
    assert sorted(found) == list(range(1_000))
    assert log.totals() == (1_000, {})


async def test_two_loops_wait_each_in_its_own() -> None:
    log = full_log(5.0)
    other = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(log.append(make_record(10)))))
    waiting = asyncio.create_task(log.append(make_record(11)))
    while len(log._waiters) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    log.release(5)
    async with asyncio.timeout(patient(2.0)):
        await asyncio.gather(other, waiting)
    assert log.totals() == (12, {})


async def test_a_loop_that_ended_while_waiting_disturbs_nobody() -> None:
    log = full_log(5.0)

    def leave_a_waiter() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(log.append(make_record(10)))
        loop.run_until_complete(asyncio.sleep(0))
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
        loop.close()

    await asyncio.to_thread(leave_a_waiter)
    waiting = asyncio.create_task(log.append(make_record(11)))
    await asyncio.sleep(0)
    log.release(5)
    async with asyncio.timeout(patient(2.0)):
        await waiting
    assert log.totals() == (11, {"refused": 1})


# ── found while writing these ───────────────────────────────────────────────────────────────────────────────

_LARGE = """
import asyncio
from asynctrace.spanlog import SpanLog, WaitForRoom

log = SpanLog(capacity_bytes=80_000, when_full=WaitForRoom(timeout=0.2), on_ready=lambda: None)
while log.held_bytes < 60_000:
    log.append_nowait(b"x" * 1000)
assert not log.append_nowait(b"y" * 30_000)
asyncio.run(log.append(b"y" * 30_000))
assert log.refused() == {"refused": 1}
"""


def test_waiting_with_a_record_larger_than_a_segment_lets_the_loop_go_on() -> None:
    subprocess.run([sys.executable, "-c", textwrap.dedent(_LARGE)], check=True, timeout=3.0)


def test_a_thread_with_a_record_larger_than_a_segment_waits_too() -> None:
    log = make_log(80_000, when_full=WaitForRoom(timeout=5.0))
    while log.held_bytes < 60_000:
        log.append_nowait(make_record(log.appended, 1_000))
    large = make_record(1_000, 30_000)
    assert not log.append_nowait(large)
    before = log.appended
    started = threading.Event()

    def end() -> None:
        started.set()
        log.append_sync(large)

    thread = threading.Thread(target=end)
    thread.start()
    started.wait()
    thread.join(0.1)
    log.release(before)
    thread.join(5.0)
    assert log.totals() == (before + 1, {})


async def test_waits_that_ended_leave_nothing_behind() -> None:
    log = full_log(0.001)
    for i in range(50):
        await log.append(make_record(i))
    assert log.totals() == (10, {"refused": 50})
    assert len(log._waiters) <= 1


def test_many_threads_that_wait_at_once_lose_nothing() -> None:
    log = make_log(when_full=WaitForRoom(timeout=20.0), capacity_spans=3)
    n, each = 8, 250
    sys.setswitchinterval(1e-5)

    def end(start: int) -> None:
        for i in range(start, start + each):
            record = make_record(i, 60)
            if not log.append_nowait(record):
                log.append_sync(record)

    threads = [threading.Thread(target=end, args=(i * each,), daemon=True) for i in range(n)]
    try:
        for thread in threads:
            thread.start()
        settled = 0
        deadline = time.monotonic() + 20.0
        while ended(log) < n * each and time.monotonic() < deadline:
            settled = log.appended
            log.release(settled)
        for thread in threads:
            thread.join(5.0)
    finally:
        sys.setswitchinterval(0.005)
    assert log.totals() == (n * each, {})
