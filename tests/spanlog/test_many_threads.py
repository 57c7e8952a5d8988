"""Sixteen threads append, one reads and releases, one looks at everything: every record comes out exactly once."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from asynctrace.spanlog import SpanLog

from . import faulty
from .records import TRACE, make_record, number_of, split, watchdog

MakeLog = Callable[..., SpanLog]

THREADS = 16


def check_many_threads(make: MakeLog, n: int, held_in_the_end: int = 0) -> None:
    told = threading.Event()

    def on_ready() -> None:
        log.wake_at = 1 << 62
        told.set()

    log = make(capacity_bytes=256 << 20, on_ready=on_ready)
    found: list[int] = []
    stop = threading.Event()
    errors: list[BaseException] = []

    def append(first: int) -> None:
        try:
            for number in range(first, n, THREADS):
                log.append_nowait(make_record(number, 60))
        except BaseException as error:
            errors.append(error)

    def read() -> None:
        try:
            number = 0
            deadline = time.monotonic() + 60.0
            while number < n and time.monotonic() < deadline:
                told.clear()
                while number < log.appended:
                    slices, count = log.read(number, 700, 100_000)
                    records = split(slices)
                    assert len(records) == count
                    found.extend(map(number_of, records))
                    number += count
                    log.release(number)
                log.wake_at = number + 200
                if log.appended < number + 200:
                    told.wait(0.01)
        except BaseException as error:
            errors.append(error)

    def look() -> None:
        last = 0
        try:
            while not stop.wait(0.0005):
                appended, refused = log.totals()
                assert appended >= last, "appended went back"
                assert refused == {}
                last = appended
                log.last_number_of(TRACE, max(0, appended - 1))
                assert 0 <= log.held_bytes <= log.peak_bytes <= 256 << 20
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=append, args=(i,)) for i in range(THREADS)]
    reader, looker = threading.Thread(target=read), threading.Thread(target=look)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        for thread in [*threads, reader, looker]:
            thread.start()
        for thread in threads:
            thread.join()
        if log.appended < n:  # a fault: let the reader end
            errors.append(AssertionError(f"{log.totals()} of {n}"))
            n = 0
        reader.join()
    finally:
        stop.set()
        looker.join()
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]
    assert Counter(found) == Counter(range(n))
    assert log.totals() == (n, {})
    assert log.held_bytes <= held_in_the_end


def test_two_hundred_thousand_records_from_sixteen_threads_come_out_exactly_once() -> None:
    with watchdog(120.0):
        check_many_threads(SpanLog, 200_000)


@pytest.mark.parametrize("fault", [faulty.LosesARecordToARace, faulty.DropsWhatComesInBetween])
def test_the_check_notices(fault: MakeLog) -> None:
    def check_often() -> None:
        for _ in range(20):
            check_many_threads(fault, 20_000)

    with watchdog(120.0), pytest.raises((AssertionError, ValueError, IndexError)):
        check_often()
