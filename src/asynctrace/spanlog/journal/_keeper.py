"""The keeper: the thread that does for a journal what an append must not wait for.

    an append rolls ─▶ ask_for_spare() ─┐
    a segment is settled ─▶ retire() ───┼─▶ (queue) ─▶ keeper: makes files ready, deletes them, tells of trouble
    the slab is nearly full ────────────┘             once a second: the heartbeat; is the directory still ours?
                                                      every `sync` seconds: marks and fdatasync; every 20 ms: the mirror

It is asked through a `SimpleQueue`, whose `put()` may be called anywhere, also in a signal handler that interrupts
another `put()`. Where no thread can be started any more (the interpreter is ending) nobody is asked: files are made in
need, and none is deleted before the end.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from ..._errors import JournalError
from ._segment_file import FileSegment

if TYPE_CHECKING:
    from ._journal import Journal
    from ._log import JournalLog
    from ._mirror import Mirror

__all__ = ["Keeper"]

_BEAT = 1.0
_MIRROR = 0.02
"""Seconds between two copies: what a kill may cost where files are not mapped."""
_STOP_TIMEOUT = 5.0
"""Seconds for the keeper to end: it may be waiting for a disk."""

Job = Callable[[], object]


class Keeper:
    """Looks after `journal`, on a thread that `begin()` starts."""

    def __init__(
        self,
        journal: Journal,
        mirror: Mirror | None,
        *,
        time_ns: Callable[[], int],
        sync: float | None,
        on_trouble: Callable[[str, Exception], None],
    ) -> None:
        self._journal = journal
        self._mirror = mirror
        self._time_ns = time_ns
        self._sync = sync
        self._on_trouble = on_trouble
        self._log: JournalLog | None = None
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._retired: deque[FileSegment] = deque()
        self._thread: threading.Thread | None = None
        self._is_deleted = False
        self._beat_at = self._sync_at = 0

    def begin(self, log: JournalLog) -> None:
        self._log = log
        thread = threading.Thread(target=self._run, name="asynctrace journal", daemon=True)
        with suppress(RuntimeError):  # the interpreter is ending
            Context().run(thread.start)  # the run of whoever made the first span would live as long as the thread
            self._thread = thread
            self.ask_for_spare()

    def stop(self) -> None:
        """End the thread, after what it was asked for."""
        self._jobs.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_STOP_TIMEOUT)
        if self._mirror is not None:
            self._attempt(self._mirror.copy)

    # From any thread ---------------------------------------------------------------------------------------------

    def ask_for_spare(self) -> None:
        self._jobs.put(self._journal.make_ready)

    def ask_for_room(self) -> None:
        self._jobs.put(self._journal.slab.grow)

    def retire(self, segment: FileSegment) -> None:
        self._retired.append(segment)
        self._jobs.put(self._look_at_retired)

    def tell(self, error: Exception) -> None:
        self._jobs.put(lambda: self._told(error))

    # In the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._step():
            self._attempt(self._look_after)

    def _step(self) -> bool:
        try:
            job = self._jobs.get(timeout=self._patience())
        except Empty:
            return True
        if job is None:
            return False
        self._attempt(job)
        return True

    def _patience(self) -> float:
        if self._mirror is not None:
            return _MIRROR
        return _BEAT if self._sync is None else min(_BEAT, self._sync)

    def _attempt(self, job: Job) -> None:
        try:
            job()
        except Exception as error:  # noqa: BLE001  (the thread must outlive what it meets)
            self._told(error)

    def _told(self, error: Exception) -> None:
        what = _kind_of(error)
        self._journal.troubles[what] += 1
        self._on_trouble(what, error)

    def _look_after(self) -> None:
        if self._mirror is not None:
            self._attempt(self._mirror.copy)  # a disk that is full does not stop the rest
        now = self._time_ns()
        if abs(now - self._beat_at) >= _BEAT * 1e9:
            self._beat_at = now
            self._beat(now)
        if self._sync is not None and abs(now - self._sync_at) >= self._sync * 1e9:
            self._sync_at = now
            self._sync_files()

    def _beat(self, now: int) -> None:
        self._journal.slab.beat(now)
        self._look_at_retired()
        if self._journal.directory.is_ours():
            self._journal.directory.touch(now)
        elif not self._is_deleted:
            self._is_deleted = True
            self._told(JournalError(f"the journal {self._journal.directory.path} was deleted or replaced"))

    def _look_at_retired(self) -> None:
        """A segment that a request still holds a view of is looked at again later."""
        if self._sync is not None and self._retired:
            self._sync_lanes()  # the cursors that passed it must not be older on the disk than what comes in its place
        for _ in range(len(self._retired)):
            segment = self._retired.popleft()
            if not self._journal.use_anew(segment):
                self._retired.append(segment)

    def _sync_files(self) -> None:
        if self._log is None:
            return
        for segment, used in self._log.segments():
            if isinstance(segment, FileSegment):
                segment.sync(used)
        self._sync_lanes()

    def _sync_lanes(self) -> None:
        for lane in self._journal.lanes.values():
            lane.sync()
        if self._mirror is not None:
            self._mirror.sync()


def _kind_of(error: Exception) -> str:
    if isinstance(error, OSError):
        return {errno.ENOSPC: "disk_full", errno.EDQUOT: "disk_full", errno.EROFS: "read_only"}.get(
            error.errno or 0, "io_error"
        )
    return "deleted" if isinstance(error, JournalError) else "internal_error"
