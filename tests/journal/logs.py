"""Span logs whose segments are files, made like any other log, and such logs with one fault each."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from asynctrace.spanlog import _log as memory_log
from asynctrace.spanlog import _segment
from asynctrace.spanlog.journal import _journal, _log, _segment_file
from asynctrace.spanlog.journal._contents import read_contents
from asynctrace.spanlog.journal._directory import JournalDirectory
from asynctrace.spanlog.journal._journal import Journal
from asynctrace.spanlog.journal._log import JournalLog

from .orphans import meta
from .slabs import small_steps

FILES = {module.__file__ for module in (memory_log, _segment, _log, _journal, _segment_file)} | {__file__}
"""What is the log: where its tests interrupt it."""


class Unattended(Journal):
    """Nobody makes files ready: the keeper's thread does not run."""

    def begin(self, log: JournalLog) -> None:
        self._keeper._log = log


def fail(what: str, error: Exception) -> None:
    raise AssertionError(f"{what}: {error!r}")


class Attached:
    """Makes logs that append to files in `folder`. Without a keeper only the last one stays; `close()` must be called."""

    def __init__(
        self, folder: Path, kind: type[JournalLog] = JournalLog, *, has_keeper: bool = True, lanes: tuple[str, ...] = ()
    ) -> None:
        self._folder = folder
        self._kind = kind
        self._has_keeper = has_keeper
        self._lanes = lanes
        self._made: list[Journal] = []
        self._clock = itertools.count(time.time_ns())

    def __call__(self, **options: Any) -> JournalLog:
        if not self._has_keeper:
            self.close()
        log = self._kind(**options)
        journal = (Journal if self._has_keeper else Unattended)(
            JournalDirectory.create(self._folder, meta(str(uuid4()))),
            self._lanes,
            segment_bytes=log.segment_bytes,
            time_ns=time.time_ns,
            sync=None,
            is_mapped=True,
            on_trouble=fail,
        )
        self._made.append(journal)
        log.attach(journal)
        return log

    @property
    def journal(self) -> Journal:
        """Of the last log."""
        return self._made[-1]

    def close(self) -> None:
        while self._made:
            journal = self._made.pop()
            troubles = dict(journal.troubles)
            journal.finish(is_drained=True)
            assert troubles == {}


@contextmanager
def attached(folder: Path, kind: type[JournalLog] = JournalLog, **options: Any) -> Iterator[Attached]:
    """Logs in files, closed at the end."""
    with small_steps():
        made = Attached(folder, kind, **options)
        try:
            yield made
        finally:
            made.close()


def in_the_files(journal: Journal) -> dict[int, bytes]:
    """Each record that the segment files hold, by its number, as the next process would read it."""
    contents = read_contents(journal.directory, "words")
    found: dict[int, bytes] = {}
    try:
        for part in contents.held:
            for slot in range(part.used):
                start, end = part.segment.start_of(slot), part.segment.start_of(slot + 1)
                found[part.base + slot] = bytes(part.segment.payload[start:end])
    finally:
        contents.close()
    return found


# Doubles ---------------------------------------------------------------------------------------------------------------


class _Slower(JournalLog):
    """An append that is written as a method; each double below has a wrong way of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if not self._waits:
            self.append_nowait = self._append_wrongly  # type: ignore[method-assign]

    def _append_wrongly(self, record: bytes) -> bool:
        raise NotImplementedError(f"{type(self).__name__} is no double yet: it has no way to append")


def _a_call() -> None:
    """Where other code may come in."""


class StoresUnmarked(_Slower):
    """Does not say that it is storing: what comes in between stores over it."""

    def _append_wrongly(self, record: bytes) -> bool:
        start, number = self._end, self._stored
        end = start + len(record)
        if self._storing or end > self._capacity or number >= self._stop_at:
            self._staged.append(record)
            self._store_staged()
            return True
        _a_call()
        self._payload[start:end] = record
        self._words[number - self._base] = end
        self._end = end
        self._stored = number + 1
        return True


class MarksTooLate(_Slower):
    """Looks, lets others come in, and then says that it is storing."""

    def _append_wrongly(self, record: bytes) -> bool:
        start, number = self._end, self._stored
        if self._storing or start + len(record) > self._capacity or number >= self._stop_at:
            self._staged.append(record)
            self._store_staged()
            return True
        end = start + len(record)
        self._storing = True
        self._payload[start:end] = record
        self._words[number - self._base] = end
        self._end = end
        self._stored = number + 1
        self._storing = False
        return True


class ForgetsWhatCameInBetween(_Slower):
    """Leaves what others staged meanwhile to the next append, which may never come."""

    def _append_wrongly(self, record: bytes) -> bool:
        number, start = self._stored, self._end
        end = start + len(record)
        if self._storing or end > self._capacity or number >= self._stop_at:
            self._staged.append(record)
            self._store_staged()
            return True
        self._storing = True
        try:
            _a_call()
            self._payload[start:end] = record
            self._words[number - self._base] = end
            self._end = end
            self._stored = number + 1
        finally:
            self._storing = False
            self._staged.clear()
        return True


class StaysMarked(_Slower):
    """What a signal handler raises leaves it storing for ever: nobody else stores any more."""

    def _append_wrongly(self, record: bytes) -> bool:
        if self._storing or self._end + len(record) > self._capacity or self._stored >= self._stop_at:
            self._staged.append(record)
            self._store_staged()
            return True
        self._storing = True
        _a_call()
        number, start = self._stored, self._end
        end = start + len(record)
        self._payload[start:end] = record
        self._words[number - self._base] = end
        self._end = end
        self._stored = number + 1
        self._storing = False
        return True


class NeedsASpare(JournalLog):
    """A roll that finds no file ready refuses the record."""

    def _new_segment(self, size: int) -> Any:
        if self._journal is not None and not self._journal._ready:
            return None
        return super()._new_segment(size)


class UsesAnewAtOnce(JournalLog):
    """A segment that is settled is used anew although a request still holds a view of it."""

    def _retire(self, segment: Any) -> None:
        journal = self._journal
        if journal is None:
            return
        for at in range(len(segment.words)):
            segment.words[at] = 0
        journal._ready.append(segment)


class KeepsTheLastSegment(JournalLog):
    """Does not tell the journal what it has freed: its files pile up."""

    def _retire(self, segment: Any) -> None:
        pass


Make = Callable[..., JournalLog]
