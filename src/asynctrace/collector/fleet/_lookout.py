"""What is new in a store that other processes write: looked for once a second, told to those who listen.

Promises:

- What one look costs is bounded: the `NEWEST` traces, and the summaries of at most `FOLLOWED` that somebody looks at.
- A trace among the newest that is new, or another than at the look before, is told; one that is gone, too. When so much came
  that nobody can say what, listeners are told that, and read their list anew.
- Where nobody listens it looks every `IDLE` seconds only. A store that cannot be read is looked at again.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from ..._diagnostics import Diagnostics
from ..live import Hub
from ..store import RunSummary, StoreError, StoreReader
from ._metrics import Tally

__all__ = ["Lookout"]

EVERY: Final = 1.0
"""Seconds between two looks; three times as long as a look took, where that is longer."""
IDLE: Final = 15.0
NEWEST: Final = 200
"""Traces; four times what the list shows at first."""
FOLLOWED: Final = 50


class Lookout:
    """Tells `hub` about `store`. `trouble` says why it cannot be read, while it cannot."""

    def __init__(self, store: StoreReader, hub: Hub, tally: Tally, *, every: float = EVERY) -> None:
        self._store, self._hub, self._tally, self._every = store, hub, tally, every
        self._diagnostics = Diagnostics(time.monotonic_ns)
        self._newest: dict[str, RunSummary] | None = None
        self._followed: dict[str, RunSummary | None] = {}
        self.trouble = ""

    async def run(self) -> None:
        """Look, for ever."""
        looked = float("-inf")
        while True:
            began = time.monotonic()
            if len(self._hub) or began - looked >= IDLE:
                looked = began
                await self.look()
            await asyncio.sleep(max(self._every, 3 * (time.monotonic() - began)))

    async def look(self) -> None:
        """Once."""
        self._tally.add("looks")
        try:
            await self._look_at_the_newest()
            await self._look_at_followed()
        except StoreError as error:
            self.trouble = str(error)
            self._tally.add("failed_looks")
            self._diagnostics.error("collector.store_unreadable", reason=self.trouble)
        else:
            self.trouble = ""

    async def _look_at_the_newest(self) -> None:
        page = await asyncio.to_thread(self._store.runs, NEWEST)
        before, now = self._newest, {each.trace_id: each for each in page.traces}
        self._newest = now
        if before is None:
            return
        self._hub.changed(trace_id for trace_id, line in now.items() if before.get(trace_id) != line)
        if before and page.cursor is not None and not before.keys() & now.keys():
            self._tally.add("overtaken_looks")
            self._hub.missed()
            return
        oldest = page.traces[-1].start_ns if page.cursor is not None else -1
        for trace_id, line in before.items():
            if trace_id not in now and line.start_ns > oldest:
                self._hub.removed(trace_id)

    async def _look_at_followed(self) -> None:
        before, self._followed = self._followed, {}
        for trace_id in sorted(self._hub.followed())[:FOLLOWED]:
            line = await asyncio.to_thread(self._store.summary, trace_id)
            self._followed[trace_id] = line
            if trace_id not in before or before[trace_id] != line:
                self._hub.changed([trace_id])
