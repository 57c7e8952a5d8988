"""What a fleet is made of, as a simulation sees it: places where work waits its turn, and the books of what waits where.

Times are seconds, sizes bytes; nothing here knows chance.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable

__all__ = ["Clock", "Cores", "Entry", "Ingest", "Master", "Shard"]


class Clock:
    """Runs what was put off, in the order of its time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._later: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._number = 0

    def at(self, when: float, run: Callable[..., None], *arguments: object) -> None:
        self._number += 1
        heapq.heappush(self._later, (when, self._number, run, arguments))

    def run_until(self, end: float) -> None:
        while self._later and self._later[0][0] <= end:
            self.now, _, run, arguments = heapq.heappop(self._later)
            run(*arguments)
        self.now = end


class Cores:
    """Work is done in the order it comes, by whichever core is free first."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.busy = 0.0
        self._free = [0.0] * count

    def take(self, now: float, work: float) -> float:
        """When a piece of work that comes now is done."""
        done = max(now, self._free[0]) + work
        heapq.heapreplace(self._free, done)
        self.busy += work
        return done

    def burden(self, now: float, work: float, slice: float) -> None:
        """Work that nobody waits for, in slices, before what comes later."""
        while work > 0:
            self.take(now, min(work, slice))
            work -= slice


class Entry:
    """One request on its way."""

    __slots__ = ("born", "since", "size", "spans", "tries")

    def __init__(self, born: float, spans: int, size: int) -> None:
        self.born = born
        self.spans = spans
        self.size = size
        self.tries = 0
        self.since = 0.0
        """When it came into the stream."""


class Ingest:
    """A process that receives."""

    def __init__(self) -> None:
        self.cpu = Cores(1)
        self.used = 0
        """Bytes of requests that are not answered yet."""
        self.spilled: deque[Entry] = deque()
        self.try_again_at = 0.0
        """Before that the stream is not asked, because it did not answer."""


class Shard:
    """One stream of entries, leased to one hand of a worker at a time."""

    def __init__(self, master: Master) -> None:
        self.master = master
        self.entries: deque[Entry] = deque()
        self.size = 0
        """Bytes of these entries."""
        self.leased_until = 0.0
        self.holder = -1
        """The worker that leased it last."""
        self.claimed: list[Entry] | None = None
        """The claim manifest: what a dead worker had comes again as it was."""


class Master:
    """A Redis master: one thread. What it holds is bounded."""

    def __init__(self, capacity: int) -> None:
        self.cpu = Cores(1)
        self.link = Cores(1)
        self.capacity = capacity
        self.size = 0
        self.is_away = False
        self.waiting: list[tuple[float, Callable[..., None], tuple[object, ...]]] = []
        """What clients repeat until it is back."""

    def back(self) -> list[tuple[float, Callable[..., None], tuple[object, ...]]]:
        self.is_away = False
        waiting, self.waiting = self.waiting, []
        return waiting
