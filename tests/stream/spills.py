"""Streams on the other side of a spill, processes that use one, and spills that break a promise."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from asynctrace._errors import StreamAway
from asynctrace.stream import LocalSpill, Message, _spill, _spill_file

from .exporting import program_of

__all__ = ["WRONG_SPILLS", "ListStream", "appending", "draining", "message", "number_of"]


def message(number: int, size: int = 100) -> Message:
    return Message(key=f"log:{number}:1", records=1, body=number.to_bytes(8, "big") + b"x" * size)


def number_of(one: Message) -> int:
    return int.from_bytes(one.body[:8], "big")


class ListStream:
    """Keeps what it is given; raises what `trouble` says for a message, when it says something."""

    def __init__(self, trouble: Callable[[Message], BaseException | None] = lambda message: None) -> None:
        self.messages: list[Message] = []
        self._trouble = trouble

    @property
    def numbers(self) -> list[int]:
        return [number_of(one) for one in self.messages]

    async def append(self, message: Message) -> None:
        await asyncio.sleep(0)
        if (error := self._trouble(message)) is not None:
            raise error
        self.messages.append(message)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"draining needs append() only, not {name}")


def away_after(messages: int) -> Callable[[Message], BaseException | None]:
    """Trouble for all but the first messages."""
    left = iter(range(messages))
    return lambda message: None if next(left, None) is not None else StreamAway("gone")


# ── processes ───────────────────────────────────────────────────────────────────────────────────────────────

_APPENDS = """
import asyncio, sys
from pathlib import Path
from tests.stream.spills import WRONG_SPILLS, message
from asynctrace.stream import LocalSpill

directory, name, first, segment_bytes, tasks = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), 4

async def append(spill, number):
    while True:
        if await spill.append(message(number, number % 3000)):
            print(number, flush=True)
        number += tasks

async def main():
    spill = WRONG_SPILLS.get(name, LocalSpill)(directory, segment_bytes=segment_bytes)
    await asyncio.gather(*(append(spill, first + task) for task in range(tasks)))

asyncio.run(main())
"""

_DRAINS = """
import asyncio, sys
from tests.stream.spills import WRONG_SPILLS, number_of
from asynctrace.stream import LocalSpill

class Printing:
    async def append(self, message):
        await asyncio.sleep(0.002)
        print(number_of(message), flush=True)

async def main():
    spill = WRONG_SPILLS.get(sys.argv[2], LocalSpill)(sys.argv[1])
    await spill.drain(Printing())
    print("empty", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


@contextlib.contextmanager
def appending(
    directory: Path, name: str = "", *, first: int = 0, segment_bytes: int = 20_000
) -> Iterator[subprocess.Popen[str]]:
    """A process that appends for ever, and prints the number of each message that is kept; killed at the end."""
    with program_of(_APPENDS, str(directory), name, str(first), str(segment_bytes)) as process:
        yield process


@contextlib.contextmanager
def draining(directory: Path, name: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that drains once, printing the number of each message; killed at the end."""
    with program_of(_DRAINS, str(directory), name) as process:
        yield process


# ── spills that break a promise ─────────────────────────────────────────────────────────────────────────────


class _KeptInMemory(_spill_file.SegmentWriter):
    """Writes when 64 KB have come together."""

    _held = b""

    def append(self, frames: bytes) -> None:
        self._held += frames
        if len(self._held) > 65536 or frames == _spill_file.HEADER:
            super().append(self._held)
            self._held = b""
        self.size = max(self.size, len(frames))


class _NotSynced(_spill_file.SegmentWriter):
    def append(self, frames: bytes) -> None:
        _spill_file._write_all(self._descriptor, frames)
        self.size += len(frames)


class _Unlocked(_spill_file.SegmentReader):
    """Asks nobody whose file it is."""

    def _begin(self) -> None:
        self._size = os.fstat(self._descriptor).st_size
        self.is_ours = True


class _BelievesEverything(_spill_file.SegmentReader):
    """Looks at lengths only."""

    def _body_at(self, position: int) -> bytes | None:
        head = os.pread(self._descriptor, 12, position)
        length = int.from_bytes(head[4:8], "little")
        return os.pread(self._descriptor, length, position + 12) if head[:4] == _spill_file.MARK else None


class _StopsAtDamage(_spill_file.SegmentReader):
    def _next_frame(self, position: int) -> int:
        return self._size


def _with(**parts: type) -> type[LocalSpill]:
    """A spill whose files are of another kind."""

    class Wrong(LocalSpill):
        def _new_file(self) -> _spill_file.SegmentWriter:
            with _replaced(parts):
                return super()._new_file()

        def _opened(self, path: Path) -> _spill_file.SegmentReader | None:
            with _replaced(parts):
                return super()._opened(path)

    return Wrong


@contextlib.contextmanager
def _replaced(parts: dict[str, type]) -> Iterator[None]:
    before = {name: getattr(_spill, name) for name in parts}
    vars(_spill).update(parts)
    try:
        yield
    finally:
        vars(_spill).update(before)


class _NewestFirst(LocalSpill):
    def _paths(self, suffix: str = _spill.SUFFIX) -> list[Path]:
        names = sorted(super()._paths(suffix))
        return [_Backwards(path) for path in names]


class _Backwards(type(Path())):  # type: ignore[misc]
    def __lt__(self, other: Any) -> bool:
        return str(self) > str(other)


class _RemovesFirst(LocalSpill):
    """Takes the file away before its messages are acknowledged."""

    def _opened(self, path: Path) -> _spill_file.SegmentReader | None:
        reader = super()._opened(path)
        if reader is not None:
            reader.remove()
            reader.remove = lambda: None  # type: ignore[method-assign]
        return reader


class _ForgetsTheRest(LocalSpill):
    """Takes the file as drained when the stream goes away in the middle of it."""

    def _settle(self, emptied: _spill._Emptied, outcomes: Sequence[BaseException | None]) -> None:
        try:
            super()._settle(emptied, outcomes)
        except BaseException:
            self._finish(emptied)
            raise


class _BeginsAnew(LocalSpill):
    """Hands over the whole file again when the stream comes back."""

    def _settle(self, emptied: _spill._Emptied, outcomes: Sequence[BaseException | None]) -> None:
        try:
            super()._settle(emptied, outcomes)
        except BaseException:
            self._emptied = None
            emptied.reader.close()
            raise


class _Boundless(LocalSpill):
    def _used(self) -> int:
        return 0


class _OneSyncEach(LocalSpill):
    def _write(self, frames: Sequence[bytes]) -> list[bool]:
        return [super(_OneSyncEach, self)._write([frame])[0] for frame in frames]


class _NamesGivenTwice(LocalSpill):
    def _paths(self, suffix: str = _spill.SUFFIX) -> list[Path]:
        return super()._paths(suffix) if suffix == _spill.SUFFIX else []


WRONG_SPILLS: dict[str, type[LocalSpill]] = {
    "kept in memory": _with(SegmentWriter=_KeptInMemory),
    "not synced": _with(SegmentWriter=_NotSynced),
    "unlocked": _with(SegmentReader=_Unlocked),
    "believes everything": _with(SegmentReader=_BelievesEverything),
    "stops at damage": _with(SegmentReader=_StopsAtDamage),
    "newest first": _NewestFirst,
    "removes first": _RemovesFirst,
    "forgets the rest": _ForgetsTheRest,
    "begins anew": _BeginsAnew,
    "boundless": _Boundless,
    "one sync each": _OneSyncEach,
    "names given twice": _NamesGivenTwice,
}
