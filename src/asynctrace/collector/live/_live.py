"""The part of the collector that lives in memory.

Promises: `committed()` is called in the writer's thread, after the commit, in the order of the commits, and never waits for
a listener; what was committed can be read before its sender is answered. Everything else belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from .._rows import Received
from ._hub import Hub
from ._open_spans import OpenSpans
from ._snapshot import read_snapshot, write_snapshot

__all__ = ["Live"]

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at who is lost, and two snapshots."""
SAVE_EVERY: Final = 5.0
"""Seconds after which a snapshot is made anew for the times alone."""


class Live:
    """Entered when the collector starts, left when it ends. `snapshot` is the file for the next one, None for none;
    `known_spans` gives the ids of the spans of a trace that are stored."""

    def __init__(
        self,
        known_spans: Callable[[bytes], Iterable[bytes]] = lambda trace_id: (),
        *,
        snapshot: Path | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        time_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.hub = Hub()
        self.open = OpenSpans(known_spans, monotonic=monotonic, time_ns=time_ns)
        self.now_ns = time_ns
        self._snapshot = snapshot
        self._monotonic = monotonic
        self._saved = (0, 0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Live:
        self._loop = asyncio.get_running_loop()
        if self._snapshot is not None:
            self.open.restore(await asyncio.to_thread(read_snapshot, self._snapshot))
            self._saved = (self.open.changes, 0)
        self._looking = asyncio.create_task(self._look(), name="asynctrace collector live")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        await self._save()
        self._loop = None

    def committed(self, received: Sequence[Received]) -> None:
        """Notices, and what the last commit holds."""
        changed: set[bytes] = set()
        for each in received:
            notices = [row for row in each.rows if row.facts.is_open]
            for row in notices:
                self.open.heard(row, each.origins[row.origin])
            self.open.ended(each.rows if not notices else [row for row in each.rows if not row.facts.is_open])
            changed.update([row.trace_id for row in each.rows], [log.trace_id for log in each.logs])
        loop = self._loop
        if changed and loop is not None:
            with contextlib.suppress(RuntimeError):  # it is ending
                loop.call_soon_threadsafe(self.hub.changed, [trace_id.hex() for trace_id in changed])

    def changed(self, trace_id: str) -> None:
        """It was pinned, or the like."""
        self.hub.changed([trace_id])

    def removed(self, trace_id: str) -> None:
        """It was deleted."""
        self.open.forget_trace(bytes.fromhex(trace_id))
        self.hub.removed(trace_id)

    def swept(self, traces: int) -> None:
        """So many of the oldest were taken away."""
        self.hub.swept(traces)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self.hub.changed(trace_id.hex() for trace_id in self.open.newly_lost())
            await self._save()

    async def _save(self) -> None:
        changes = (self.open.changes, int(self._monotonic() / SAVE_EVERY) if len(self.open) else 0)
        if self._snapshot is not None and changes != self._saved:
            self._saved = changes
            with contextlib.suppress(OSError):  # a full disk: a restart will then know less
                await asyncio.to_thread(write_snapshot, self._snapshot, self.open.everything())
