"""What the tests of the span log share: records that carry their number, and readers that check as they read."""

from __future__ import annotations

import contextlib
import faulthandler
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

from asynctrace.spanlog import SpanLog
from asynctrace.wire import encode_varint, scan_records

from ..patience import patient

NEVER = 1 << 62

TRACE = b"\x01" * 16


def make_record(number: int, size: int = 200, trace_id: bytes = TRACE) -> bytes:
    """A record of about `size` bytes (at least 40) whose span id is `number`."""
    ids = b"\x0a\x10" + trace_id + b"\x12\x08" + struct.pack(">Q", number)
    name = b"n" * max(1, size - len(ids) - 7)
    message = ids + b"\x2a" + encode_varint(len(name)) + name
    return b"\x12" + encode_varint(len(message)) + message


def number_of(record: bytes | memoryview) -> int:
    """The number that `make_record()` put in."""
    record = bytes(record)
    at = record.index(b"\x12\x08", 18) + 2
    return int(struct.unpack(">Q", record[at : at + 8])[0])


def split(slices: list[memoryview]) -> list[bytes]:
    """The records of a run."""
    whole = b"".join(slices)
    return [whole[start:end] for start, end in scan_records(whole)]


def read_all(log: SpanLog, start: int | None = None, most: int = 100, bytes_at_once: int = 10_000) -> list[bytes]:
    """Every record from `start` (by default the oldest that is held) to the last."""
    found: list[bytes] = []
    log.totals()  # stores what is staged, which may evict
    number = log.first if start is None else start
    while number < log.appended:
        slices, count = log.read(number, most, bytes_at_once)
        records = split(slices)
        assert len(records) == count >= 1, f"{count} announced, {len(records)} there"
        found += records
        number += count
    return found


def make_log(
    capacity_bytes: int = 1 << 20,
    *,
    make: Callable[..., SpanLog] = SpanLog,
    **options: Any,
) -> SpanLog:
    """A log that stages as much as it may: nobody is waiting for records."""

    def on_ready() -> None:
        log.wake_at = NEVER

    log = make(capacity_bytes=capacity_bytes, on_ready=on_ready, **options)
    log.wake_at = NEVER
    return log


def ended(log: SpanLog) -> int:
    """Every record that the log knows of."""
    appended, refused = log.totals()
    return appended + sum(refused.values())


def in_thread(function: Callable[[], object], seconds: float = 10.0) -> None:
    """Run `function` in a thread; a thread that does not end is a dead-lock, an error in it is raised here."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(patient(seconds))
    assert not thread.is_alive(), f"a dead-lock: {function} did not end within {patient(seconds)} s"
    if errors:
        raise errors[0]


@contextlib.contextmanager
def watchdog(seconds: float = 60.0) -> Iterator[None]:
    """A dead-lock of the main thread ends the run with every stack on stderr, instead of hanging it."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
