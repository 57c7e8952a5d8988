"""A reader on one thread, an eviction or a release on another, at every instant of the read: what is read is what was
asked for, or nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from asynctrace.spanlog import DropOldest, SpanLog, WhenFull
from asynctrace.spanlog._segment import find_last

from .instants import every_instant
from .records import make_log, make_record, number_of, split

OURS, OTHER = b"\x07" * 16, b"\x09" * 16


def breaches(
    read: Callable[[SpanLog, int], object],
    meanwhile: Callable[[SpanLog], object],
    when_full: WhenFull | None,
    allowed: Callable[[object, int], bool],
    make: type[SpanLog] = SpanLog,
) -> list[str]:
    """Where `meanwhile()`, called by another thread at that instant of `read()`, makes it answer wrongly or fail."""
    state: dict[str, Any] = {}
    found: list[str] = []

    def scenario() -> Callable[[], object]:
        log = make_log(64_000, make=make, when_full=when_full)
        for i in range(300):
            log.append_nowait(make_record(i, 200, OURS))
        log.totals()
        state.update(log=log, first=log.first, answer=None)
        return lambda: state.update(answer=read(log, state["first"]))

    def act() -> None:
        state["thread"] = threading.Thread(target=meanwhile, args=(state["log"],))
        state["thread"].start()
        state["thread"].join(0.005)  # it may have to wait for the lock that the interrupted read holds

    for where, raised in every_instant(scenario, act, "opcode"):
        state["thread"].join(5.0)
        if raised is not None:
            found.append(f"{where}: {raised!r}")
        elif not allowed(state["answer"], state["first"]):
            found.append(f"{where}: {state['answer']!r}")
    return found


def release_all_and_append(log: SpanLog) -> None:
    log.release(log.appended)
    append_much(log, 100)


def append_much(log: SpanLog, n: int = 400) -> None:
    for i in range(n):
        log.append_nowait(make_record(2_000 + i, 200, OTHER))
    log.totals()


def numbers(log: SpanLog, number: int) -> list[int]:
    slices, _ = log.read(number, 5, 1 << 20)
    return [number_of(record) for record in split(slices)]


def run_from(answer: object, first: int) -> bool:
    return answer == [] or answer == list(range(first, first + 5))


def search(log: SpanLog, number: int) -> int | None:
    return log.last_number_of(OURS, number)


def newest(answer: object, first: int) -> bool:
    return answer in (299, None)


def test_an_eviction_during_a_read_never_gives_it_other_records() -> None:
    assert breaches(numbers, append_much, DropOldest(), run_from) == []


def test_a_release_during_a_search_neither_fails_nor_finds_what_is_not_there() -> None:
    assert breaches(search, release_all_and_append, None, newest) == []


class ReadsWithoutTheLock(SpanLog):
    """Looks the segments up, then cuts them, as if nobody could use their memory anew in between."""

    def read(self, number: int, max_records: int, max_bytes: int) -> tuple[list[memoryview], int]:
        self._store_staged()
        segment, used = self._segments_from(number)[0]
        self._patience()  # code of the log's, in which the other thread may come in
        piece, count = segment.cut(number - segment.base, used, max_records, max_bytes)
        return [piece], count

    def last_number_of(self, trace_id: bytes, above: int) -> int | None:
        self._store_staged()
        for segment, used in reversed(self._segments_from(above)):
            self._patience()
            slot = find_last(b"\x0a\x10" + trace_id, *segment.view(used))
            if slot is not None:
                return segment.base + slot
        return None


def test_a_read_without_the_lock_is_caught() -> None:
    assert breaches(numbers, append_much, DropOldest(), run_from, ReadsWithoutTheLock)


def test_a_search_without_the_lock_is_caught() -> None:
    assert breaches(search, release_all_and_append, None, newest, ReadsWithoutTheLock)
