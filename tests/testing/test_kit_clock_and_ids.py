"""The clock stands still until it is moved, and ids repeat from run to run: tests without chance."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from asynctrace._contracts import Clock, IdSource
from asynctrace.testing import ManualClock, SeededIds

THREADS = 8
IDS_PER_THREAD = 2_000


def as_clock(clock: Clock) -> Clock:
    """Lets the type checker say whether the kit follows the protocol."""
    return clock


def as_ids(ids: IdSource) -> IdSource:
    return ids


def test_a_clock_stands_still_until_it_is_moved() -> None:
    clock = as_clock(ManualClock(wall_ns=5, monotonic_ns=7))
    assert [(clock.time_ns(), clock.monotonic_ns()) for _ in range(3)] == [(5, 7)] * 3


def test_advance_moves_both_clocks() -> None:
    clock = ManualClock(wall_ns=0, monotonic_ns=0)
    clock.advance(1.5)
    assert (clock.time_ns(), clock.monotonic_ns()) == (1_500_000_000, 1_500_000_000)


def test_jump_moves_the_wall_clock_alone_and_also_back() -> None:
    clock = ManualClock(wall_ns=10_000_000_000, monotonic_ns=3)
    clock.jump(-4)
    assert (clock.time_ns(), clock.monotonic_ns()) == (6_000_000_000, 3)


def test_advance_monotonic_leaves_the_wall_clock() -> None:
    clock = ManualClock(wall_ns=1, monotonic_ns=0)
    clock.advance_monotonic(2)
    assert (clock.time_ns(), clock.monotonic_ns()) == (1, 2_000_000_000)


@pytest.mark.parametrize("move", [ManualClock.advance, ManualClock.advance_monotonic])
def test_the_monotonic_clock_refuses_to_go_back(move: object) -> None:
    clock = ManualClock()
    before = repr(clock)
    with pytest.raises(ValueError, match="cannot go back"):
        move(clock, -0.1)  # type: ignore[operator]
    assert repr(clock) == before


def test_no_advance_is_lost_between_threads() -> None:
    clock = ManualClock(wall_ns=0, monotonic_ns=0)
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(THREADS):
            pool.submit(lambda: [clock.advance(1e-9) for _ in range(1000)])
    assert clock.monotonic_ns() == clock.time_ns() == THREADS * 1000


def test_equal_seeds_give_equal_ids_and_others_do_not() -> None:
    first, second, other = as_ids(SeededIds(4)), SeededIds(4), SeededIds(5)
    taken = [(source.trace_id(), source.span_id()) for source in (first, second, other)]
    assert taken[0] == taken[1] != taken[2]
    assert [len(part) for part in taken[0]] == [16, 8]


def test_an_id_is_never_zero_and_never_given_twice() -> None:
    ids = SeededIds()
    ids._random = StutteringRandom()
    assert ids.span_id() == b"\x01" * 8
    assert ids.span_id() == b"\x02" * 8


class StutteringRandom(random.Random):
    """Gives zeros, then every number twice."""

    def __init__(self) -> None:
        self._numbers = iter([0, 0, 1, 1, 0, 2])

    def randbytes(self, n: int) -> bytes:
        return bytes([next(self._numbers)]) * n


def test_threads_that_share_a_source_get_different_ids() -> None:
    ids = SeededIds()
    ready = threading.Barrier(THREADS)

    def take() -> list[bytes]:
        ready.wait()
        return [ids.span_id() for _ in range(IDS_PER_THREAD)]

    with ThreadPoolExecutor(THREADS) as pool:
        taken = [future.result() for future in [pool.submit(take) for _ in range(THREADS)]]
    assert len({one for batch in taken for one in batch}) == THREADS * IDS_PER_THREAD
