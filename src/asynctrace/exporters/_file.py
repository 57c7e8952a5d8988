"""Traces in a file of JSON lines.

Each batch is one line, a whole OTLP/JSON export request: `{"resourceSpans":[…]}` (OpenTelemetry
specification, "OpenTelemetry Protocol File Exporter").

Promises:

- Every line is complete: what an error or a killed process left half-written is cut off before anything
  else is written. Lines that are not ours are never touched.
- The file is created readable for its owner only (0600); a symbolic link in its place is not followed.
- The event loop does not wait for the disk. The file is opened for each batch, so it can be rotated.
- A full disk means "try again"; a missing directory or permission means "blocked": nothing is lost by either.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Final

from .._contracts import Batch, ExportResult
from ._aside import run_aside
from ._slices import Slices

__all__ = ["FileExporter"]

LINE_START: Final = b'{"resourceSpans":'
"""How each of our lines begins: what tells our half line from somebody else's."""

TAIL: Final = 64 * 1024
"""Bytes read at once when searching backwards for where a line began."""

FLAGS: Final = (
    os.O_RDWR
    | os.O_CREAT
    | os.O_APPEND
    | getattr(os, "O_NONBLOCK", 0)  # opening a FIFO without a reader would hold the thread
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
)

LOCK_ATTEMPTS: Final = 200
LOCK_PAUSE: Final = 0.01
"""Seconds. Together two: a process that keeps the lock longer has stopped, and the lane should know."""

SETTINGS_ERRORS: Final = frozenset(
    {
        errno.EACCES,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENXIO,
        errno.EPERM,
        errno.EROFS,
    }
)
"""What somebody has to change before it can work."""


class FileExporter:
    """Appends to the file at `path`; its directory must exist. Several processes may write to one file."""

    def __init__(self, path: str | os.PathLike[str], *, name: str = "file") -> None:
        self._path = os.fspath(path)
        self._name = name
        self._slices = Slices()
        self._writing = threading.Lock()

    @property
    def name(self) -> str:
        """The lane's name in the receipt."""
        return self._name

    async def export(self, batch: Batch) -> ExportResult:
        """Write the batch as one line."""
        line = await self._slices.json_request(batch) + b"\n"
        try:
            await run_aside(functools.partial(self._write, line))
        except OSError as error:
            reason = f"file_{errno.errorcode.get(error.errno or 0, 'error').lower()}"
            if error.errno in SETTINGS_ERRORS:
                return ExportResult.blocked(reason)
            return ExportResult.try_again(reason=reason)
        return ExportResult.all_accepted(batch)

    def __reduce__(self) -> tuple[Callable[..., FileExporter], tuple[()]]:
        """For another process, which has its own lock."""
        return functools.partial(type(self), self._path, name=self._name), ()

    def after_fork_in_child(self) -> None:
        """A thread that was writing is not here."""
        self._writing = threading.Lock()

    async def aclose(self) -> None:
        """Nothing is open between batches."""

    def __repr__(self) -> str:
        return f"FileExporter({self._path!r}, name={self._name!r})"

    def _write(self, line: bytes) -> None:
        with self._writing, _opened(self._path) as descriptor, _locked(descriptor):
            _append(descriptor, line)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, FLAGS, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENXIO, "not a regular file", path)
        yield descriptor
    finally:
        with contextlib.suppress(OSError):  # the line is written: a late complaint would write it twice
            os.close(descriptor)


@contextlib.contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    """Other processes wait their turn, where the file system knows locks. Closing the file unlocks it."""
    try:
        import fcntl
    except ImportError:  # no locks on this system
        yield
        return
    pause = threading.Event()
    for attempt in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if attempt == LOCK_ATTEMPTS - 1:
                raise
            pause.wait(LOCK_PAUSE)
        except OSError:
            break  # a file system without locks
    yield


def _append(descriptor: int, line: bytes) -> None:
    """The whole line or nothing of it."""
    end = _repaired_end(descriptor)
    if end and os.pread(descriptor, 1, end - 1) != b"\n":
        line = b"\n" + line
    try:
        _write_all(descriptor, line)
    except OSError:
        with contextlib.suppress(OSError):  # then the next call repairs it
            os.ftruncate(descriptor, end)
        raise


def _write_all(descriptor: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _repaired_end(descriptor: int) -> int:
    """Where to go on: the size of the file, after a half line of ours was cut off."""
    size = os.fstat(descriptor).st_size
    if not size or os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    begin = _start_of_last_line(descriptor, size)
    head = os.pread(descriptor, min(len(LINE_START), size - begin), begin)
    if not LINE_START.startswith(head):
        return size
    os.ftruncate(descriptor, begin)
    return begin


def _start_of_last_line(descriptor: int, size: int) -> int:
    end = size
    while end:
        begin = max(0, end - TAIL)
        newline = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0
