"""The file form of messages that wait for the stream on this machine's disk.

    file  = "asynctrace spill 1\\n" frame*
    frame = mark (4 bytes) | length of body (u32, little-endian) | CRC-32 of length and body (u32) | body
    body  = the fields of a message, as a msgpack map of bytes to bytes

Promises:

- A frame is returned only when its checksum agrees; whatever lies between two such frames is counted as one damage.
- A frame that ends before its length is the torn end of a killed writer: nobody was told that it is kept, and it counts
  as nothing.
- At most one frame, and one piece of the file, is held in memory.
- A file has one owner, who holds its flock: the process that writes it, later the one that empties it. The lock ends
  with the process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["HEADER", "SegmentReader", "SegmentWriter", "frame_of"]

HEADER: Final = b"asynctrace spill 1\n"

MARK: Final = b"\xf5\x9cSp"
"""Begins a frame; 0xF5 is in no UTF-8 text. What looks like one inside a body is believed only with its checksum."""

_HEAD: Final = struct.Struct("<4sII")
_LENGTH: Final = struct.Struct("<I")

LONGEST_BODY: Final = 256 * 1024 * 1024
"""Bytes. No message is larger; a length above it is damage, and not worth reading that far."""

PIECE: Final = 1024 * 1024
"""Bytes read at once in search of the next frame."""

_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW


def frame_of(fields: dict[bytes, bytes]) -> bytes:
    """One message as a frame."""
    body = msgspec.msgpack.encode(fields)
    length = _LENGTH.pack(len(body))
    return b"".join((MARK, length, _LENGTH.pack(zlib.crc32(body, zlib.crc32(length))), body))


class SegmentWriter:
    """A new file, readable for its owner only. Raises `OSError`; `FileExistsError` where somebody else has the name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        self.size = 0
        # Somebody who empties the directory may have seen the file before it was locked.
        if not _take(self._descriptor) or not os.fstat(self._descriptor).st_nlink:
            raise FileExistsError(f"{self.path} was taken by another process")
        self.append(HEADER)
        _sync_directory(self.path.parent)

    def append(self, frames: bytes) -> None:
        """On the disk when this returns. After an `OSError` the file may hold some of `frames`, and should be left."""
        try:
            _write_all(self._descriptor, frames)
            os.fsync(self._descriptor)
            if not os.fstat(self._descriptor).st_nlink:
                raise FileNotFoundError(f"{self.path} was removed")
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            os.lseek(self._descriptor, self.size, os.SEEK_SET)
            raise
        self.size += len(frames)

    @property
    def is_empty(self) -> bool:
        """Whether no frame is in it."""
        return self.size <= len(HEADER)

    def close(self) -> None:
        """Let go of the file: from now on anybody may empty it."""
        os.close(self._descriptor)


class SegmentReader:
    """A file that is being emptied. Raises `OSError`; `BlockingIOError` while somebody else has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damages = 0
        """Places that could not be read, so far."""
        self._descriptor = os.open(path, os.O_RDONLY | _FLAGS)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        if not _take(self._descriptor):
            raise BlockingIOError(f"{self.path} belongs to a running process")
        status = os.fstat(self._descriptor)
        if not status.st_nlink:
            raise FileNotFoundError(f"{self.path} was emptied by another process")
        self._size = status.st_size
        head = os.pread(self._descriptor, len(HEADER), 0)
        self.is_ours = HEADER.startswith(head)
        """Whether it begins like our files, or was cut off before it could."""

    def bodies(self) -> Iterator[bytes]:
        """The fields of one message after another, as they were written."""
        position = len(HEADER)
        while position < self._size:
            body = self._body_at(position)
            if body is None:
                follower = self._next_frame(position + 1)
                self.damages += follower < self._size or not self._is_torn(position)
                position = follower
            else:
                yield body
                position += _HEAD.size + len(body)

    def remove(self) -> None:
        """Everything in it is safe elsewhere."""
        os.unlink(self.path)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _body_at(self, position: int) -> bytes | None:
        head = os.pread(self._descriptor, _HEAD.size, position)
        if len(head) < _HEAD.size or head[:4] != MARK:
            return None
        _, length, checksum = _HEAD.unpack(head)
        if length > min(LONGEST_BODY, self._size - position - _HEAD.size):
            return None
        body = _read_all(self._descriptor, length, position + _HEAD.size)
        return body if zlib.crc32(body, zlib.crc32(head[4:8])) == checksum else None

    def _next_frame(self, position: int) -> int:
        """Where the next readable frame begins, else the end of the file."""
        while position < self._size:
            piece = os.pread(self._descriptor, PIECE, position)
            found = piece.find(MARK)
            if found < 0:
                position += max(1, len(piece) - len(MARK) + 1)
            elif self._body_at(position + found) is not None:
                return position + found
            else:
                position += found + 1
        return self._size

    def _is_torn(self, position: int) -> bool:
        """Whether what begins here is the begin of a frame whose end was never written."""
        head = os.pread(self._descriptor, _HEAD.size, position)
        if len(head) < _HEAD.size:
            return head.startswith(MARK) or MARK.startswith(head)
        _, length, _ = _HEAD.unpack(head)
        return head.startswith(MARK) and self._size - position - _HEAD.size < length <= LONGEST_BODY


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_all(descriptor: int, frames: bytes) -> None:
    rest = memoryview(frames)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _read_all(descriptor: int, length: int, position: int) -> bytes:
    """One `pread` returns at most 2 GiB, and may be interrupted."""
    parts = []
    while length and (part := os.pread(descriptor, length, position)):
        parts.append(part)
        length -= len(part)
        position += len(part)
    return b"".join(parts)


def _sync_directory(path: Path) -> None:
    """The name of a new file is safe, too."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
