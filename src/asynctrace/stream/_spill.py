"""Messages on this machine's disk, for as long as the stream is away.

    append(message) ─▶ 00000000000000000007.spill ─▶ … ─▶ drain(stream) ─▶ stream.append() ─▶ the file is removed

Promises:

- `append()` returns True only after the message is synced to the disk: a killed process loses none of these, and the
  next one drains them. It returns False, and counts why, when there is no room or the disk refuses.
- Requests that come at once share one sync; the event loop waits for neither.
- All files of the directory together stay within `max_bytes`. Processes that write at the same moment may pass it by
  what each of them writes then.
- `drain()` hands the messages over oldest first, a few at once, and removes a file only when the stream has
  acknowledged everything in it. What it hands over a second time, after a kill, has the same key as the first time.
- Several processes may share the directory: whoever writes a file, or empties it, has it alone. Full files, and those of
  a dead process, are there for anybody.
- Damage costs what is damaged. It is counted and told once for each file; everything else goes on.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from .._diagnostics import Diagnostics
from .._errors import ConfigurationError, MessageError, MessageTooLarge
from ._message import Message
from ._spill_file import HEADER, SegmentReader, SegmentWriter, frame_of
from ._stream import Stream

__all__ = ["LocalSpill", "SpillStatistics"]

MAX_BYTES: Final = 1024 * 1024 * 1024

SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""After how many bytes the next file begins: what is drained frees the disk in steps of this size."""

AT_ONCE: Final = 8
AT_ONCE_BYTES: Final = 4 * 1024 * 1024
"""Messages under way to the stream: the answers of that many, or of fewer with that many bytes, are waited for together."""

SUFFIX: Final = ".spill"
SET_ASIDE: Final = ".refused"
"""A file with messages that the stream will never take is kept under this name, for people to look at."""


class SpillStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What one `LocalSpill` did so far. Numbers only grow."""

    appended: int = 0
    """Messages synced to the disk."""
    full: int = 0
    """Messages refused because there was no room."""
    failed: int = 0
    """Messages refused because the disk did not take them."""
    drained: int = 0
    """Messages the stream has taken over."""
    refused: int = 0
    """Messages in files that were set aside: too large for the stream, or nothing this version can read."""
    damaged: int = 0
    """Places in files, and whole files, that could not be read."""


class _Waiting(msgspec.Struct, frozen=True, eq=False):
    frame: bytes
    is_kept: asyncio.Future[bool]


class LocalSpill:
    """Belongs to one event loop at a time. `directory` is made when it is missing, for its owner only.

    `max_bytes` bounds all files together. Raises `ConfigurationError` when the directory cannot be used.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_bytes: int = MAX_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        diagnostics: Diagnostics | None = None,
    ) -> None:
        if max_bytes <= 0:
            raise ConfigurationError(f"max_bytes of a spill is a number of bytes above 0, not {max_bytes}")
        self._directory = _usable(Path(directory))
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._diagnostics = diagnostics or Diagnostics(time.monotonic_ns)
        self._files = threading.Lock()  # held by whichever thread has to do with the open file
        self._open: SegmentWriter | None = None
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None
        self._draining = asyncio.Lock()
        self._emptied: _Emptied | None = None
        self._left_alone: set[Path] = set()
        self._bytes = self._used()
        self._appended = self._full = self._failed = self._drained = self._refused = self._damaged = 0

    @property
    def stored_bytes(self) -> int:
        """Of all files in the directory, when it was last looked at; 0: nothing waits here."""
        return self._bytes

    def statistics(self) -> SpillStatistics:
        """The counters at this moment."""
        return SpillStatistics(
            appended=self._appended,
            full=self._full,
            failed=self._failed,
            drained=self._drained,
            refused=self._refused,
            damaged=self._damaged,
        )

    # in

    async def append(self, message: Message) -> bool:
        """Keep the message. True: it is on the disk. False: it is not, and the caller has to refuse it."""
        waiting = _Waiting(frame_of(message.to_fields()), asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_waiting())
        return await waiting.is_kept

    async def _write_waiting(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                await self._write_group(group)
        finally:
            self._writing = None

    async def _write_group(self, group: Sequence[_Waiting]) -> None:
        try:
            kept = await asyncio.to_thread(self._write, [waiting.frame for waiting in group])
        except BaseException as error:
            for waiting in _still(group):
                waiting.is_kept.set_exception(error)
            raise
        for waiting, is_kept in zip(group, kept, strict=True):
            if not waiting.is_kept.done():  # its caller may have gone
                waiting.is_kept.set_result(is_kept)

    def _write(self, frames: Sequence[bytes]) -> list[bool]:
        with self._files:
            fits = self._fitting(frames)
            try:
                self._write_to_open(b"".join(frame for frame, it_fits in zip(frames, fits, strict=True) if it_fits))
            except OSError as error:
                self._leave_open_file()
                self._failed += sum(fits)
                self._diagnostics.error("stream.spill_failed", directory=str(self._directory), reason=str(error))
                return [False] * len(frames)
            self._appended += sum(fits)
        return fits

    def _fitting(self, frames: Sequence[bytes]) -> list[bool]:
        """Which of the frames have room, the first ones first. They may need a new file."""
        self._bytes = self._used()
        room = self._max_bytes - self._bytes - len(HEADER)
        fits = []
        for frame in frames:
            fits.append(len(frame) <= room)
            room -= len(frame) if fits[-1] else 0
        if not all(fits):
            self._full += fits.count(False)
            self._diagnostics.warning("stream.spill_full", directory=str(self._directory), max_bytes=self._max_bytes)
        return fits

    def _write_to_open(self, frames: bytes) -> None:
        if not frames:
            return
        if self._open is not None and self._open.size >= self._segment_bytes:
            self._leave_open_file()
        if self._open is None:
            self._open = self._new_file()
        self._open.append(frames)
        self._bytes = self._used()

    def _new_file(self) -> SegmentWriter:
        """Numbered after all that are there, so that names sort by age, and what is set aside keeps its name."""
        number = max((_number(path) for path in (*self._paths(), *self._paths(SET_ASIDE))), default=0)
        while True:
            number += 1
            try:
                return SegmentWriter(self._directory / f"{number:020d}{SUFFIX}")
            except FileExistsError:
                continue

    def _leave_open_file(self) -> None:
        segment, self._open = self._open, None
        if segment is not None:
            segment.close()

    # out

    async def drain(self, stream: Stream, *, on_taken: Callable[[], None] = lambda: None) -> int:
        """Hand over everything that was kept, also by processes that are dead. How many messages the stream has taken;
        `on_taken` is called each time that it took some.

        Raises what `stream.append()` raises, `StreamFull` and `StreamAway` among it: what was not acknowledged stays,
        and the next call goes on there.
        """
        before = self._drained
        async with self._draining:
            while await asyncio.to_thread(self._take_oldest):
                await self._hand_over(stream, on_taken)
        return self._drained - before

    def _take_oldest(self) -> bool:
        """Whether there is a file to empty; it is in `self._emptied` then."""
        if self._emptied is None:
            with self._files:
                self._leave_open_file()
                self._emptied = next(self._ours(), None)
        return self._emptied is not None

    def _ours(self) -> Iterator[_Emptied]:
        for path in sorted(self._paths()):
            if path not in self._left_alone and (reader := self._opened(path)) is not None:
                yield _Emptied(reader)

    def _opened(self, path: Path) -> SegmentReader | None:
        try:
            reader = SegmentReader(path)
        except (BlockingIOError, FileNotFoundError):
            return None  # somebody else's, who lives
        except OSError as error:
            self._leave_alone(path, str(error))
            return None
        if reader.is_ours:
            return reader
        reader.close()
        self._leave_alone(path, "not written by this version of asynctrace")
        return None

    def _leave_alone(self, path: Path, reason: str) -> None:
        self._left_alone.add(path)
        self._damaged += 1
        self._diagnostics.error("stream.spill_unreadable", file=str(path), reason=reason)

    async def _hand_over(self, stream: Stream, on_taken: Callable[[], None]) -> None:
        """Empty the file that was taken."""
        emptied = self._emptied
        while emptied is not None and await asyncio.to_thread(self._read, emptied):
            outcomes = await asyncio.gather(*map(stream.append, emptied.group), return_exceptions=True)
            if None in outcomes:
                on_taken()
            self._settle(emptied, outcomes)
        if emptied is not None:
            await asyncio.to_thread(self._finish, emptied)

    def _read(self, emptied: _Emptied) -> bool:
        try:
            return emptied.read()
        except OSError as error:  # the disk fails: what was handed over will come again, under its keys
            self._leave_alone(emptied.reader.path, str(error))
            emptied.is_failed = True
            return False

    def _settle(self, emptied: _Emptied, outcomes: Sequence[BaseException | None]) -> None:
        """Raises the first reason why a message has to come again."""
        again = []
        for message, outcome in zip(emptied.group, outcomes, strict=True):
            if isinstance(outcome, MessageTooLarge):
                emptied.refused += 1
            elif outcome is None:
                self._drained += 1
            else:
                again.append((message, outcome))
        emptied.group = [message for message, _ in again]
        if again:
            raise again[0][1]

    def _finish(self, emptied: _Emptied) -> None:
        self._emptied = None
        reader = emptied.reader
        try:
            if emptied.refused and not emptied.is_failed:
                reader.path.rename(reader.path.with_suffix(SET_ASIDE))
            elif not emptied.is_failed:
                reader.remove()
        except OSError as error:
            self._leave_alone(reader.path, str(error))
        finally:
            reader.close()
        self._tell_of(emptied)
        self._bytes = self._used()

    def _tell_of(self, emptied: _Emptied) -> None:
        reader = emptied.reader
        self._refused += emptied.refused
        self._damaged += reader.damages
        if reader.damages:
            self._diagnostics.error("stream.spill_damaged", reason=reader.path.name, places=reader.damages)
        if emptied.refused:
            kept = str(reader.path.with_suffix(SET_ASIDE))
            self._diagnostics.error("stream.spill_refused", reason=kept, messages=emptied.refused)

    # the end

    async def aclose(self) -> None:
        """Wait for what is being written, and let go of the files. What they hold stays for the next process."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        with self._files:
            self._leave_open_file()
        emptied, self._emptied = self._emptied, None
        if emptied is not None:
            emptied.reader.close()

    def _paths(self, suffix: str = SUFFIX) -> list[Path]:
        return [path for path in self._directory.glob(f"*{suffix}") if path.stem.isdecimal()]

    def _used(self) -> int:
        """Bytes of all files in the directory."""
        try:
            with os.scandir(self._directory) as entries:
                return sum(_size(entry) for entry in entries if entry.name.endswith((SUFFIX, SET_ASIDE)))
        except OSError:  # then nothing can be written either, and that is told
            return 0


class _Emptied:
    """A file that is being drained, and how far that has come."""

    def __init__(self, reader: SegmentReader) -> None:
        self.reader = reader
        self.group: list[Message] = []
        """Read and not acknowledged."""
        self.refused = 0
        self.is_failed = False
        self._messages = self._decoded(reader.bodies())

    def read(self) -> bool:
        """Fill the group when it is empty. False: there is nothing left."""
        size = 0 if not self.group else AT_ONCE_BYTES
        while (
            len(self.group) < AT_ONCE and size < AT_ONCE_BYTES and (message := next(self._messages, None)) is not None
        ):
            self.group.append(message)
            size += len(message.body)
        return bool(self.group)

    def _decoded(self, bodies: Iterator[bytes]) -> Iterator[Message]:
        for body in bodies:
            try:
                yield Message.from_fields(_decode(body))
            except (MessageError, msgspec.MsgspecError):
                self.refused += 1


_decode: Callable[[bytes], dict[bytes, bytes]] = msgspec.msgpack.Decoder(dict[bytes, bytes]).decode


def _still(group: Sequence[_Waiting]) -> list[_Waiting]:
    """Those whose callers have not gone."""
    return [waiting for waiting in group if not waiting.is_kept.done()]


def _usable(directory: Path) -> Path:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"the spill directory {str(directory)!r} cannot be made: {error}") from None
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigurationError(f"the spill directory {str(directory)!r} cannot be written by this user")
    return directory


def _number(path: Path) -> int:
    return int(path.stem)


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:  # removed at this moment
        return 0
