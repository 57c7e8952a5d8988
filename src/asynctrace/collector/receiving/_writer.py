"""Group commit: the one thread that adds to the store.

Promises:

- A future that `submit()` gave is done only after the commit that holds its spans (or with the error that
  prevented it).
- The first body after a pause is committed at once; under load there is at most one commit each `gather`
  seconds, or each 4,096 spans if they come sooner.
- A request that comes again under its key is not added again; its future is done like that of any other.
- What waits is bounded by the `Admission` of who submits.
- `close()` commits everything that was submitted before it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from .._keys import RequestKey
from .._rows import Received
from ..store import Store, StoreError
from ._admission import Behind
from ._counters import Counters
from ._sink import Sent

__all__ = ["Writer"]

GATHER_SECONDS = 0.03
GATHER_SPANS = 4096
"""Both from measurement: larger groups did not raise the rate, and memory grows with them."""


class _Submission(NamedTuple):
    received: Received
    records: int
    committed: Future[None]


class Writer:
    """Owns the thread; `store` is only written by it. `committed` is told, in that thread, what each commit held."""

    def __init__(
        self,
        store: Store,
        counters: Counters | None = None,
        *,
        committed: Callable[[Sequence[Received]], None] = lambda received: None,
        gather: float = GATHER_SECONDS,
        gather_spans: int = GATHER_SPANS,
    ) -> None:
        self._store = store
        self._counters = counters if counters is not None else Counters()
        self._committed = committed
        self._gather = gather
        self._gather_spans = gather_spans
        self._waiting: queue.SimpleQueue[_Submission | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="asynctrace-collector-writer")
        self._thread.start()

    async def take(self, received: Received, sent: Sent) -> None:
        """Have it committed, and wait for that: the writer as a `Sink`."""
        await asyncio.wrap_future(self.submit(received))

    def submit(self, received: Received) -> Future[None]:
        """Have it committed. `Behind` after `close()`."""
        committed: Future[None] = Future()
        committed.set_running_or_notify_cancel()  # a sender that goes away must not cancel a commit
        records = len(received.rows) + len(received.logs)
        with self._closing:
            if self._closed:
                raise Behind
            self._counters.waiting += records
            self._waiting.put(_Submission(received, records, committed))
        return committed

    def close(self) -> None:
        """Commit what was submitted and end the thread. Idempotent; blocks."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether spans can still be committed."""
        return self._thread.is_alive() and not self._closed

    def _run(self) -> None:
        last_commit = -self._gather
        while (first := self._waiting.get()) is not None:
            group, is_last = self._gathered(first, until=last_commit + self._gather)
            self._commit(group)
            last_commit = time.monotonic()
            if is_last:
                return

    def _gathered(self, first: _Submission, *, until: float) -> tuple[list[_Submission], bool]:
        """`first` and what follows it before `until`; true when the end of the queue was among it."""
        group = [first]
        records = first.records
        while records < self._gather_spans:
            try:
                following = self._waiting.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if following is None:
                return group, True
            group.append(following)
            records += following.records
        return group, False

    def _commit(self, group: list[_Submission]) -> None:
        try:
            self._add(self._unknown(group))
        except StoreError as error:
            self._answer(group, error)
        except Exception as error:  # noqa: BLE001  (one bad body must not take its neighbors along)
            if len(group) == 1:
                self._answer(group, error)
            else:
                for submission in group:
                    self._commit([submission])
        else:
            self._answer(group, None)

    def _answer(self, group: list[_Submission], error: Exception | None) -> None:
        """Whoever hears of it finds that it is not waiting any more."""
        with self._closing:
            self._counters.waiting -= sum(submission.records for submission in group)
        for submission in group:
            if error is None:
                submission.committed.set_result(None)
            else:
                submission.committed.set_exception(error)

    def _unknown(self, group: list[_Submission]) -> list[Received]:
        """Those that are not in the store, each once."""
        unknown: list[Received] = []
        keys: set[RequestKey] = set()
        for submission in group:
            key = submission.received.key
            if key is None or (key not in keys and not self._store.has(key)):
                unknown.append(submission.received)
            if key is not None:
                keys.add(key)
        return unknown

    def _add(self, group: list[Received]) -> None:
        if group:
            self._store.add(group)
            self._counters.commits += 1
            self._committed(group)
