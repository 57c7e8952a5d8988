"""Group commit: the one thread that adds to the store.

Promises:

- A future that `submit()` gave is done only after the commit that holds its spans (or with the error that
  prevented it).
- The first body after a pause is committed at once; under load there is at most one commit each `gather`
  seconds, or each 4,096 spans if they come sooner.
- A request that comes again under its key is not added again; its future is done like that of any other.
- What waits is bounded by `Admission`, which counts bytes of bodies from their first read to their commit.
- `close()` commits everything that was submitted before it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

import msgspec

from ._store import Store, StoreError

if TYPE_CHECKING:
    from ..wire import ResourceSpans
    from ._keys import RequestKey

__all__ = ["Admission", "Behind", "Ticket", "Writer"]

GATHER_SECONDS = 0.03
GATHER_SPANS = 4096
"""Both from measurement: larger groups did not raise the rate, and memory grows with them."""


class Behind(Exception):
    """The collector cannot take more at the moment; the sender should come again."""


class Admission:
    """Bounds the bytes that are read, decoded or waiting for their commit. Belongs to one event loop.

    One body may pass the bound when no other is there, else a large one could never enter.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0

    def ticket(self) -> Ticket:
        """A share of the room, empty at first; leave its `with` block to give it back."""
        return Ticket(self)


class Ticket:
    """The share of one body."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.size = 0

    def grow(self, size: int) -> None:
        """Take `size` more bytes; `Behind` when there is no room."""
        admission = self._admission
        if admission.used + size > admission.capacity and admission.used > self.size:
            raise Behind
        admission.used += size
        self.size += size

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *exc: object) -> None:
        self._admission.used -= self.size
        self.size = 0


class _Submission(msgspec.Struct, frozen=True):
    groups: Sequence[ResourceSpans]
    spans: int
    key: RequestKey | None
    committed: Future[None]


class Writer:
    """Owns the thread; `store` is only written by it."""

    def __init__(self, store: Store, *, gather: float = GATHER_SECONDS, gather_spans: int = GATHER_SPANS) -> None:
        self._store = store
        self._gather = gather
        self._gather_spans = gather_spans
        self._waiting: queue.SimpleQueue[_Submission | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="asynctrace-collector-writer")
        self._thread.start()

    def submit(self, groups: Sequence[ResourceSpans], key: RequestKey | None = None) -> Future[None]:
        """Have `groups` committed, which came under `key`. `Behind` after `close()`."""
        committed: Future[None] = Future()
        committed.set_running_or_notify_cancel()  # a sender that goes away must not cancel a commit
        spans = sum(len(group.spans) for group in groups)
        with self._closing:
            if self._closed:
                raise Behind
            self._waiting.put(_Submission(groups, spans, key, committed))
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
        spans = first.spans
        while spans < self._gather_spans:
            try:
                following = self._waiting.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if following is None:
                return group, True
            group.append(following)
            spans += following.spans
        return group, False

    def _commit(self, group: list[_Submission]) -> None:
        try:
            self._add([submission for submission in group if not self._is_known(submission.key)])
        except StoreError as error:
            _fail(group, error)
        except Exception as error:  # noqa: BLE001  (one bad body must not take its neighbors along)
            if len(group) == 1:
                _fail(group, error)
            else:
                for submission in group:
                    self._commit([submission])
        else:
            for submission in group:
                submission.committed.set_result(None)

    def _is_known(self, key: RequestKey | None) -> bool:
        return key is not None and self._store.has(key)

    def _add(self, group: list[_Submission]) -> None:
        if group:
            keys = [submission.key for submission in group if submission.key is not None]
            self._store.add([part for submission in group for part in submission.groups], keys)


def _fail(group: list[_Submission], error: Exception) -> None:
    for submission in group:
        submission.committed.set_exception(error)
