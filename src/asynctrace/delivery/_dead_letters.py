"""Records that a far side refused for good, kept with the answer that refused them.

A dead letter is one file, `<16 hex digits>.letter`, which says by itself what it is:

    {"format": "asynctrace dead letter", "version": 1, …}\\n     a JSON line: `Header`
    <header.size bytes>                                         records, as they were sent
    <8 hex digits>\\n                                            CRC-32 of everything before

The name is made of lane and key: the same records refused once more take the place of their letter.

Promises

1. Files 0600, in a folder of the owner's alone (0700); no header of a request, no token, no endpoint is ever in one.
2. A letter is written under a hidden name and renamed: what has its name is whole.
3. At most `most_bytes` of disk and `longest` seconds; the oldest go first, and are counted.
4. `put()` never waits, never raises and never writes in an event loop: a thread does, which ends when there is nothing
   to write. What waits for it is bounded. Where no thread can be started (the interpreter ends; inside `in_place()`)
   the letter is written at once.
5. A disk that cannot take a letter costs that letter, counted, and one warning until a letter is written again.
"""

from __future__ import annotations

import _thread
import os
import stat
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from .._diagnostics import Diagnostics
from .._errors import AsynctraceError
from ._batch import Origin
from ._rejection import Rejection

__all__ = [
    "DeadLetter",
    "DeadLetterError",
    "DeadLetterStatistics",
    "DeadLetters",
    "FOLDER",
    "Header",
    "encode_letter",
    "find_letters",
    "letter_name",
    "read_letter",
]

FOLDER: Final = "dead-letters"
"""Below `<state directory>/v1/<service>/`."""
SUFFIX: Final = ".letter"
FORMAT: Final = "asynctrace dead letter"
FORMAT_VERSION: Final = 1

MOST_BYTES: Final = 64 * 1024 * 1024
LONGEST: Final = 30 * 24 * 3600.0
"""Seconds."""
MOST_WAITING: Final = 8 * 1024 * 1024
"""Bytes that may wait for the thread: sixteen batches."""
BLOCK: Final = 4096
"""Bytes; what the smallest file takes of a disk."""
LARGEST: Final = 64 * 1024 * 1024
"""Bytes of a file that a reader looks at."""
_TRAILER: Final = 9


class DeadLetterError(AsynctraceError):
    """A file that is no dead letter, is damaged, or was written by a newer asynctrace. It is left as it is."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a letter."""

    format: str = FORMAT
    version: int = FORMAT_VERSION
    lane: str
    key: str
    """`<log id>:<first>:<records>`: under it the records were sent, and are sent again."""
    records: int
    count: int
    """How many of the records were refused: fewer than there are where the far side did not say which."""
    reason: str
    detail: str
    time_ns: int
    service: str
    resource: bytes
    """An OTLP `Resource` message; base64 in the file, like `scope`, an `InstrumentationScope`."""
    scope: bytes
    size: int


class DeadLetter(msgspec.Struct, frozen=True):
    """A letter as it was read."""

    path: Path
    header: Header
    payload: bytes


class DeadLetterStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the letters of one process."""

    written: int = 0
    lost: int = 0
    """Could not be written, or found too many waiting."""
    removed: int = 0
    """Too old, or over the bound."""


_places = 0


class DeadLetters:
    """Writes letters into the folder that `find_folder()` names, asked in the thread that writes, where it may raise.
    The folder is made when the first letter comes. `time_ns` is the wall clock."""

    def __init__(
        self,
        find_folder: Callable[[], Path],
        *,
        service: str,
        time_ns: Callable[[], int],
        diagnostics: Diagnostics,
        most_bytes: int = MOST_BYTES,
        longest: float = LONGEST,
    ) -> None:
        self._find_folder = find_folder
        self._service = service
        self._time_ns = time_ns
        self._diagnostics = diagnostics
        self._most_bytes = most_bytes
        self._longest = longest
        self._written = self._lost = self._removed = 0
        self._is_told = False
        self._held = 0
        self._until_sweep = 0
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """Forget the parent's thread and what waits for it: the parent writes that."""
        self._waiting: deque[tuple[Header, bytes]] = deque()
        self._turn = threading.Lock()
        """Held by whoever writes. Only ever tried, never waited for: a signal handler may have interrupted the holder."""
        self._put_bytes = self._taken_bytes = 0

    def put(self, lane: str, origin: Origin, rejection: Rejection) -> None:
        """Keep the records of `rejection`, which `lane` had sent. From any thread; never waits, never raises."""
        size = len(rejection.payload)
        if not size or self._put_bytes - self._taken_bytes + size > max(MOST_WAITING, size):
            self._lost += 1
            return
        self._put_bytes += size
        self._waiting.append((self._header(lane, origin, rejection), rejection.payload))
        if not self._turn.locked():  # else the writer looks once more before it ends
            self._start()

    def statistics(self) -> DeadLetterStatistics:
        """The counters at this moment."""
        return DeadLetterStatistics(written=self._written, lost=self._lost, removed=self._removed)

    @property
    def is_idle(self) -> bool:
        """Whether every letter is on the disk, or lost."""
        return not self._waiting and not self._turn.locked()

    def write_waiting(self) -> None:
        """Write what waits, in this thread. Blocks; never raises."""
        while self._waiting and self._turn.acquire(blocking=False):
            try:
                self._write_all()
            finally:
                self._turn.release()

    @staticmethod
    @contextmanager
    def in_place() -> Iterator[None]:
        """Inside the block no thread is started, by no `DeadLetters` of this process."""
        global _places
        _places += 1
        try:
            yield
        finally:
            _places -= 1

    def _header(self, lane: str, origin: Origin, rejection: Rejection) -> Header:
        return Header(
            lane=lane,
            key=origin.key(rejection.first, rejection.records),
            records=rejection.records,
            count=rejection.count,
            reason=rejection.reason,
            detail=rejection.detail,
            time_ns=self._time_ns(),
            service=self._service,
            resource=origin.resource_bytes,
            scope=origin.scope_bytes,
            size=len(rejection.payload),
        )

    def _start(self) -> None:
        if not _places:
            with suppress(RuntimeError):  # the interpreter is shutting down
                _thread.start_new_thread(self.write_waiting, ())
                return
        self.write_waiting()

    # In the thread that writes -----------------------------------------------------------------------------------

    def _write_all(self) -> None:
        while self._waiting:
            header, payload = self._waiting.popleft()
            self._taken_bytes += len(payload)
            try:
                self._write(header, payload)
            except Exception as error:  # noqa: BLE001  (a full disk, a folder that is gone: a letter, not a program)
                self._lost += 1
                self._tell(error)

    def _write(self, header: Header, payload: bytes) -> None:
        body = encode_letter(header, payload)
        with _opened(self._find_folder()) as folder:
            self._make_room(folder, len(body))
            name = letter_name(header.lane, header.key)
            hidden = f".{name}.{os.getpid()}.new"
            try:
                _write_file(folder, hidden, body, header.time_ns)
                os.rename(hidden, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(hidden, dir_fd=folder)
                raise
        self._held += _blocks(len(body))
        self._written += 1
        self._is_told = False

    def _make_room(self, folder: int, size: int) -> None:
        """The folder is looked through when it may be full, and now and then: others write there too."""
        self._until_sweep -= 1
        if self._until_sweep > 0 and self._held + _blocks(size) <= self._most_bytes:
            return
        self._until_sweep = 64
        files = sorted(_letters_in(folder), key=lambda each: each[1])
        self._held = sum(blocks for _, _, blocks in files)
        oldest = self._time_ns() - int(self._longest * 1e9)
        for name, time_ns, blocks in files:
            if time_ns >= oldest and self._held + _blocks(size) <= self._most_bytes:
                break
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
                self._removed += not name.startswith(".")
            self._held -= blocks

    def _tell(self, error: Exception) -> None:
        if not self._is_told:
            self._is_told = True
            self._diagnostics.warning("delivery.dead_letter_lost", error=repr(error))


# Files -----------------------------------------------------------------------------------------------------------


def letter_name(lane: str, key: str) -> str:
    """The file of what `lane` sent under `key`."""
    from hashlib import blake2b

    return blake2b(f"{lane}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest() + SUFFIX


def encode_letter(header: Header, payload: bytes) -> bytes:
    """The whole file."""
    body = msgspec.json.encode(header) + b"\n" + payload
    return body + b"%08x\n" % zlib.crc32(body)


def read_letter(path: Path) -> DeadLetter:
    """Raises `DeadLetterError`, which says what is wrong, or `OSError`."""
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
        body = file.read(LARGEST + 1)
    line, _, rest = body.partition(b"\n")
    try:
        kind = msgspec.json.decode(line, type=_Kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise DeadLetterError(f"{path} is no dead letter") from None
    if kind.format != FORMAT:
        raise DeadLetterError(f"{path} is no dead letter")
    if kind.version > FORMAT_VERSION:
        raise DeadLetterError(f"{path} has format {kind.version}; this asynctrace reads up to {FORMAT_VERSION}")
    try:
        header = msgspec.json.decode(line, type=Header)
    except msgspec.DecodeError as error:
        raise DeadLetterError(f"{path} is damaged: {error}") from None
    if len(rest) != header.size + _TRAILER or rest[header.size :] != b"%08x\n" % zlib.crc32(body[:-_TRAILER]):
        raise DeadLetterError(f"{path} is damaged: it is not what was written")
    return DeadLetter(path, header, rest[: header.size])


class _Kind(msgspec.Struct):
    """What the header of every version has."""

    format: str
    version: int


def find_letters(place: Path) -> list[Path]:
    """The letters at `place`, oldest first: one file; those in a folder; those of all services of a state directory."""
    if place.is_file():
        return [place]
    found: dict[Path, int] = {}
    for pattern in (f"*{SUFFIX}", f"{FOLDER}/*{SUFFIX}", f"*/{FOLDER}/*{SUFFIX}", f"v1/*/{FOLDER}/*{SUFFIX}"):
        for path in place.glob(pattern):
            with suppress(OSError):
                status = path.lstat()
                if not path.name.startswith(".") and stat.S_ISREG(status.st_mode):
                    found[path] = status.st_mtime_ns
    return sorted(found, key=lambda path: (found[path], path))


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """A descriptor of the folder, which is made if it is missing. Raises `OSError` for one that others can write in."""
    with suppress(FileExistsError):
        os.makedirs(folder, mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise PermissionError(f"{folder} belongs to another user, or others can write in it")
        yield descriptor
    finally:
        os.close(descriptor)


def _write_file(folder: int, name: str, body: bytes, time_ns: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)  # left by a process of the same number, killed in the middle
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        view = memoryview(body)
        while view:
            view = view[os.write(descriptor, view) :]
        os.utime(descriptor, ns=(time_ns, time_ns))
    finally:
        os.close(descriptor)


def _letters_in(folder: int) -> Iterable[tuple[str, int, int]]:
    """(name, time, bytes on disk); hidden ones too, so that what a killed process left goes with its age."""
    for name in os.listdir(folder):
        if name.endswith((SUFFIX, ".new")):
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                yield name, status.st_mtime_ns, _blocks(status.st_size)


def _blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
