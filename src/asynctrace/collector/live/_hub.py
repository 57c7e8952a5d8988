"""Who wants to hear of what, and what each has not heard yet.

    changed(traces) ──▶ every listener notes ──▶ its own task takes, at most ten times a second ──▶ its connection

Promises: telling never waits and never fails; what a listener has not taken is noted once for each trace, and bounded: what
is beyond is counted, and the listener told; one that is slow delays nobody. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

__all__ = ["Hub", "Listener", "News"]

INTERVAL: Final = 0.1
"""Seconds between two messages to one listener."""
MOST_NOTED: Final = 1000
"""Traces that changed and of which a listener was not told yet."""


class News(NamedTuple):
    """What happened since the last time."""

    changed: list[str]
    removed: list[str]
    dropped: int
    """Changes of traces for which there was no room, or of which nobody said which: whoever shows a list has to read it
    anew."""


class Listener:
    """Notes what `wants` holds for, until it is taken. `follows`: the one trace it is about, if it is about one."""

    def __init__(self, wants: Callable[[str], bool], follows: str | None = None) -> None:
        self.wants = wants
        self.follows = follows
        self._changed: dict[str, None] = {}
        self._removed: dict[str, None] = {}
        self._dropped = 0
        self._event = asyncio.Event()
        self._next_at = 0.0

    def changed(self, trace_id: str) -> None:
        """Note it."""
        if not self.wants(trace_id):
            return
        if len(self._changed) < MOST_NOTED or trace_id in self._changed:
            self._changed[trace_id] = None
        else:
            self._dropped += 1
        self._event.set()

    def removed(self, trace_id: str) -> None:
        """Note it, in place of any change."""
        if not self.wants(trace_id):
            return
        self._changed.pop(trace_id, None)
        if len(self._removed) < MOST_NOTED:
            self._removed[trace_id] = None
        else:
            self._dropped += 1
        self._event.set()

    def missed(self, traces: int = 1) -> None:
        """Note that so many changed or are gone, whichever they are."""
        self._dropped += traces
        self._event.set()

    async def news(self, rest: float = 0.0) -> News:
        """Wait until there is something, and `INTERVAL` or `rest` seconds from the last time; then take it."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(self._next_at, loop.time() + rest) - loop.time())
        await self._event.wait()
        self._event.clear()
        self._next_at = loop.time() + INTERVAL
        taken = News(list(self._changed), list(self._removed), self._dropped)
        self._changed, self._removed, self._dropped = {}, {}, 0
        return taken


class Hub:
    """All listeners of one collector."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    def __len__(self) -> int:
        return len(self._listeners)

    def join(self, wants: Callable[[str], bool] = lambda trace_id: True) -> Listener:
        """A listener from now on, until `leave()`."""
        listener = Listener(wants)
        self._listeners.add(listener)
        return listener

    def follow(self, trace_id: str) -> Listener:
        """As `join()`, for one trace."""
        listener = Listener(lambda changed: changed == trace_id, trace_id)
        self._listeners.add(listener)
        return listener

    def followed(self) -> set[str]:
        """Traces that somebody follows."""
        return {listener.follows for listener in self._listeners if listener.follows is not None}

    def leave(self, listener: Listener) -> None:
        """Note nothing for it any more. Idempotent."""
        self._listeners.discard(listener)

    def changed(self, trace_ids: Iterable[str]) -> None:
        """Traces of which something new is known."""
        for trace_id in trace_ids:
            for listener in self._listeners:
                listener.changed(trace_id)

    def removed(self, trace_id: str) -> None:
        """A trace that is gone."""
        for listener in self._listeners:
            listener.removed(trace_id)

    def missed(self) -> None:
        """More changed than can be named: whoever shows a list has to read it anew."""
        for listener in self._listeners:
            if listener.follows is None:
                listener.missed()

    def swept(self, traces: int) -> None:
        """So many traces are gone."""
        for listener in self._listeners:
            listener.missed(traces)
