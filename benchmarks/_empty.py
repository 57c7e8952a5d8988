"""The yardstick: what CPython charges for `async with` alone, and how other blocks compare with it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

__all__ = ["Block", "Empty", "compare_with_empty", "enter_empty"]

Block: TypeAlias = Callable[[int], Awaitable[None]]
"""Does one thing so many times, without giving way to the event loop."""


class Empty:
    """An asynchronous context manager that does nothing."""

    __slots__ = ()

    async def __aenter__(self) -> Empty:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None


async def enter_empty(count: int) -> None:
    """Enter and leave an `Empty` `count` times."""
    for _ in range(count):
        async with Empty():
            pass


async def compare_with_empty(
    blocks: Mapping[str, Block], *, count: int, rounds: int, settle: Callable[[], Awaitable[object]]
) -> dict[str, dict[str, float]]:
    """For each block the medians of `ratio` (to an empty `async with`), `microseconds` and `empty_microseconds`.

    In each round every block is measured directly after the empty one; `settle()` follows unmeasured. The first
    round warms up and does not count.
    """
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in blocks}
    for number in range(rounds + 1):
        for name, block in blocks.items():
            pair = (await _seconds(block, count), await _seconds(enter_empty, count))
            await settle()
            if number:
                pairs[name].append(pair)
    return {name: _medians(measured) for name, measured in pairs.items()}


async def _seconds(block: Block, count: int) -> float:
    """This thread's CPU seconds for one repetition: neither a busy neighbour nor another thread is counted."""
    begin = time.thread_time_ns()
    await block(count)
    return (time.thread_time_ns() - begin) / count / 1e9


def _medians(pairs: list[tuple[float, float]]) -> dict[str, float]:
    return {
        "ratio": statistics.median(cost / empty for cost, empty in pairs),
        "microseconds": statistics.median(cost for cost, _ in pairs) * 1e6,
        "empty_microseconds": statistics.median(empty for _, empty in pairs) * 1e6,
    }
