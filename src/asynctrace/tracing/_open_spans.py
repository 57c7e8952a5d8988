"""Which components are open: for `shutdown()`, `end_tracers()` and `statistics()`.

    enter ──▶ recent (held) ── every 64 entries: still open? ──▶ older (weak) ── ended or collected ──▶ forgotten
                                               ended ──▶ forgotten

Nearly every component ends before the next 64 have begun; then noting it was one `list.append`. A weak reference and a
place in a dictionary for each cost four times as much, which is a twentieth of the whole span.

Promises: an open component is found until it ends; an open component whose handle is lost is held for at most 64 entries
more, and not beyond a `flush()` or a full garbage collection; what is kept for ended ones is bounded.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from weakref import ref

from ._component import OPEN

if TYPE_CHECKING:
    from ._component import ComponentTraceContext

__all__ = ["MOST_RECENT", "OpenSpans"]

MOST_RECENT: Final = 64


class OpenSpans:
    """`recent` belongs to the hot path, which appends to it and calls `sift()` when it holds `MOST_RECENT`."""

    __slots__ = ("_is_sifting", "_lock", "_older", "_prune_at", "recent")

    def __init__(self) -> None:
        self.recent: list[ComponentTraceContext] = []
        self._older: list[ref[ComponentTraceContext]] = []
        self._prune_at = MOST_RECENT
        # Re-entrant, with a flag: a finaliser that runs in the middle may enter components of its own.
        self._lock = threading.RLock()
        self._is_sifting = False

    def sift(self) -> None:
        """Hold no component: keep weak references to those that are open."""
        with self._lock:
            if self._is_sifting:
                return
            self._is_sifting = True
            try:
                count = len(self.recent)
                self._older += [ref(component) for component in self.recent[:count] if component._state == OPEN]
                del self.recent[:count]
                if len(self._older) >= self._prune_at:
                    self._prune()
            finally:
                self._is_sifting = False

    def _prune(self) -> None:
        self._older = [older for older in self._older if (found := older()) is not None and found._state == OPEN]
        self._prune_at = 2 * len(self._older) + MOST_RECENT

    def abandon(self) -> list[ComponentTraceContext]:
        """Every open component, without the lock: for a forked child, where its holder may be a thread that is gone."""
        known = [*self.recent[:], *(component for older in self._older[:] if (component := older()) is not None)]
        return [component for component in known if component._state == OPEN]

    def __iter__(self) -> Iterator[ComponentTraceContext]:
        self.sift()
        with self._lock:
            older = list(self._older)
        for reference in older:
            component = reference()
            if component is not None and component._state == OPEN:
                yield component

    def __len__(self) -> int:
        return sum(1 for _ in self)
