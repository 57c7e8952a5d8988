"""The segment files of a directory, and connections to read them.

Promises

- Each call reads over connections that are its own until it ends, each a snapshot: it never waits for the writer.
- A file that is damaged is passed over, and remembered with the reason; one that was taken away meanwhile is passed over.
  Every other failure is a `StoreError`.
- Segment 0 holds what was pinned when its segment went; the others are numbered in order of time.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from .._rows import Facts, LogRow, Origin, SpanRow
from ._chunk import LOGS, SPANS, Codec, Columns, Name, codec_of, decode_logs, decode_skeleton, rows_of
from ._large import APART, put_together, read_pieces
from ._schema import CHUNK_BITS, NotBegun, clear_errors, is_damage, open_reading
from ._store import LARGEST, StoreError
from ._tally import COLUMNS, weight

__all__ = [
    "CONTINUES",
    "LINE",
    "PINNED",
    "Gathered",
    "Line",
    "Place",
    "Reading",
    "Segment",
    "Segments",
    "gather_places",
    "places_of",
    "segment_path",
]

PINNED: Final = 0
_FILE: Final = re.compile(r"seg-(\d{6,})\.db")
MOST_REMEMBERED: Final = 10_000
"""Names, or origins, of a segment that a connection keeps."""
AT_ONCE: Final = 500
"""Ids in one statement; SQLite's own limit was 999 for long."""

LINE: Final = f"SELECT no, {', '.join(COLUMNS)} FROM trace"  # noqa: S608  (our own names)
ALL: Final = (0, LARGEST)
CONTINUES: Final = 1 + COLUMNS.index("continues")
CHUNKS: Final = 1 + COLUMNS.index("chunks")
VERSION: Final = 1 + COLUMNS.index("version")
Line: TypeAlias = tuple[Any, ...]
"""A row of the table `trace`: the number, then `COLUMNS`."""
Item = TypeVar("Item")


def segment_path(directory: Path, number: int) -> Path:
    """Where segment `number` lies."""
    return directory / f"seg-{number:06}.db"


class Gathered:
    """What was read of one trace, from one segment after the other, the oldest first."""

    def __init__(self, trace_id: bytes) -> None:
        self.trace_id = trace_id
        self.origins: list[Origin] = []
        self.logs: dict[LogRow, None] = {}
        self._rows: dict[bytes, SpanRow] = {}
        self._indices: dict[tuple[bytes, bytes, str, str], int] = {}

    @property
    def rows(self) -> list[SpanRow]:
        """The version of each span that holds, in order of first arrival."""
        return list(self._rows.values())

    def add(self, rows: Iterable[SpanRow]) -> None:
        """Later versions; a span that is known keeps its place."""
        known = self._rows
        for row in rows:
            before = known.get(row.span_id)
            if before is None or weight(row) >= weight(before):
                known[row.span_id] = row

    def get(self, span_id: bytes) -> SpanRow | None:
        """The version of a span that holds."""
        return self._rows.get(span_id)

    def index_of(self, origin: Origin) -> int:
        """Where the origin stands in `origins`; put there if need be."""
        index = self._indices.setdefault(origin.key, len(self.origins))
        if index == len(self.origins):
            self.origins.append(origin)
        return index


class Reading:
    """A connection to one segment, in the hands of one call."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._codecs: dict[int, Codec] = {}
        self._names: dict[int, Name] = {}
        self._origins: dict[int, Origin] = {}

    def line(self, trace_id: bytes) -> Line | None:
        """The row of a trace, its number first."""
        found: Line | None = self.connection.execute(f"{LINE} WHERE trace_id = ?", (trace_id,)).fetchone()
        return found

    def gather(
        self, no: int, into: Gathered, *, messages: bool = True, only: bytes | None = None, first: int = 0
    ) -> None:
        """Read the chunks of trace `no`, from the `first` on; with `only`, those spans and logs that have this span id."""
        chunks = self.connection.execute(
            "SELECT id, kind, codec, skeleton FROM chunk WHERE id BETWEEN ? AND ? ORDER BY id",
            ((no << CHUNK_BITS) + first, ((no + 1) << CHUNK_BITS) - 1),
        )
        for chunk, kind, number, skeleton in chunks:
            encoded = self.codec(number).expand(skeleton)
            if kind == SPANS:
                columns = decode_skeleton(encoded)
                if only is None or only in columns.ids:
                    self.gather_spans(columns, self.body(chunk, number) if messages else b"", into, only)
            elif kind == LOGS:
                self._gather_logs(encoded, self.body(chunk, number) if messages else b"", into, only)

    def body(self, chunk: int, codec: int) -> bytes:
        """The messages of a chunk, laid end to end."""
        (stored,) = self.connection.execute("SELECT body FROM chunk WHERE id = ?", (chunk,)).fetchone()
        body = self.codec(codec).expand(stored)
        return put_together(body, read_pieces(self.connection, chunk)) if codec & APART else body

    def gather_spans(self, columns: Columns, body: bytes, into: Gathered, only: bytes | None = None) -> None:
        """Read the spans of one chunk."""
        names = self.names(set(columns.names))
        origins = self._indices(set(columns.origins), into)
        rows = rows_of(columns, into.trace_id, body, names, origins)
        into.add(rows if only is None else (row for row in rows if row.span_id == only))

    def _gather_logs(self, encoded: bytes, body: bytes, into: Gathered, only: bytes | None) -> None:
        logs = list(decode_logs(encoded, into.trace_id, body))
        origins = self._indices({log.origin for log in logs}, into)
        for log in logs:
            if only is None or log.span_id == only:
                into.logs[log._replace(origin=origins[log.origin])] = None

    def names(self, numbers: set[int]) -> dict[int, Name]:
        """Rows of the table `name`, and perhaps others."""
        missing = numbers - self._names.keys()
        if missing:
            if len(self._names) > MOST_REMEMBERED:
                self._names, missing = {}, numbers
            for number, name, service, kind, model in self._by_number("SELECT * FROM name", missing):
                self._names[number] = Name(name, service, Facts(type=kind, model=model))
        return self._names

    def origins(self, numbers: set[int]) -> dict[int, Origin]:
        """Rows of the table `res`."""
        missing = numbers - self._origins.keys()
        if missing:
            if len(self._origins) > MOST_REMEMBERED:
                self._origins, missing = {}, numbers
            for number, _, resource, scope, service, *schemas in self._by_number("SELECT * FROM res", missing):
                self._origins[number] = Origin(resource, scope, service, (), *schemas)
        return {number: self._origins[number] for number in numbers}

    def forget(self) -> None:
        """The numbers of names and origins may have been rolled back."""
        self._names, self._origins = {}, {}

    @cached_property
    def _has_fts5(self) -> bool:
        return bool(self.connection.execute("SELECT value FROM note WHERE key = 'index'").fetchone() == ("fts5",))

    def continued(self) -> Iterator[bytes]:
        """The ids of the traces that began in an earlier segment: their lines here take the place of those there."""
        return (trace_id for (trace_id,) in self.rows("SELECT trace_id FROM trace WHERE continues"))

    def rows(self, query: str, values: Sequence[Any] | dict[str, Any] = ()) -> Iterator[Any]:
        """What a query finds. It begins when the first row is asked for, so that an error comes then."""
        yield from self.connection.execute(query, values)

    def chunks_with(self, groups: list[list[bytes]], between: tuple[int, int] = ALL) -> Iterator[int]:
        """The ids of chunks that have of each group one token at least, the newest first."""
        if not all(groups):
            return iter(())
        if self._has_fts5:
            expression = " AND ".join(f"({' OR '.join(token.hex() for token in group)})" for group in groups)
            query = "SELECT rowid FROM kv WHERE kv MATCH ? AND rowid BETWEEN ? AND ? ORDER BY rowid DESC"
            rows = self.rows(query, (expression, *between))
        else:
            each = "SELECT chunk FROM kv WHERE token IN ({}) AND chunk BETWEEN ? AND ?"
            query = " INTERSECT ".join(each.format(", ".join("?" * len(group))) for group in groups)
            values = [value for group in groups for value in (*group, *between)]
            rows = self.rows(f"{query} ORDER BY chunk DESC", values)
        return (chunk for (chunk,) in rows)

    def skeleton(self, chunk: int, codec: int) -> bytes:
        """The skeleton of a chunk."""
        (stored,) = self.connection.execute("SELECT skeleton FROM chunk WHERE id = ?", (chunk,)).fetchone()
        return self.codec(codec).expand(stored)

    def codec(self, number: int) -> Codec:
        """The codec of a chunk."""
        number &= ~APART
        if number not in self._codecs:
            self._codecs[number] = codec_of(number)
        return self._codecs[number]

    def _indices(self, numbers: set[int], into: Gathered) -> dict[int, int]:
        return {number: into.index_of(origin) for number, origin in sorted(self.origins(numbers).items())}

    def _by_number(self, query: str, numbers: set[int]) -> Iterator[tuple[Any, ...]]:
        wanted = sorted(numbers)
        for first in range(0, len(wanted), AT_ONCE):
            some = wanted[first : first + AT_ONCE]
            yield from self.connection.execute(f"{query} WHERE id IN ({', '.join('?' * len(some))})", some)


class Segment:
    """A file, and idle connections to it."""

    def __init__(self, number: int, path: Path, busy_timeout: float, most_idle: int) -> None:
        self.number = number
        self.path = path
        self.problem = ""
        """Why it cannot be read; empty while it can."""
        self._busy_timeout = busy_timeout
        self._most_idle = most_idle
        self._idle: list[Reading] = []

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reading]:
        """A snapshot for one call."""
        with clear_errors(self.path):
            try:
                reading = self._idle.pop()
            except IndexError:
                reading = Reading(open_reading(self.path, self._busy_timeout))
            is_whole = False
            try:
                reading.connection.execute("BEGIN")
                yield reading
                is_whole = _ended(reading.connection)
            finally:
                if is_whole and len(self._idle) < self._most_idle:
                    self._idle.append(reading)
                else:
                    reading.connection.close()

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().connection.close()

    @property
    def is_there(self) -> bool:
        return self.path.exists()

    @property
    def size(self) -> int:
        """Bytes on disk, SQLite's log included."""
        return sum(_size(f"{self.path}{suffix}") for suffix in ("", "-wal"))


class Segments:
    """Those of one directory, as they come and go. Safe from any thread.

    Each keeps up to `most_idle` connections open between calls, for `close()`.
    """

    def __init__(self, directory: Path, busy_timeout: float, *, most_idle: int = 0) -> None:
        self._directory = directory
        self._most_idle = most_idle
        self._busy_timeout = busy_timeout
        self._known: dict[tuple[int, int], Segment] = {}
        self._refreshing = threading.Lock()

    def newest_first(self) -> list[Segment]:
        """What is there now."""
        with self._refreshing:
            there = dict(self._listed())
            for gone in self._known.keys() - there.keys():
                self._known.pop(gone).close()
            for key in there.keys() - self._known.keys():
                self._known[key] = Segment(key[0], there[key], self._busy_timeout, self._most_idle)
            return [self._known[key] for key in sorted(self._known, reverse=True)]

    def oldest_first(self) -> list[Segment]:
        """What is there now."""
        return self.newest_first()[::-1]

    def _listed(self) -> Iterator[tuple[tuple[int, int], Path]]:
        """Number and inode, so that a file in the place of another is not taken for it."""
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    found = _FILE.fullmatch(entry.name)
                    if found:
                        yield (int(found[1]), entry.inode()), Path(entry.path)
        except OSError as error:
            raise StoreError(f"the directory {self._directory} cannot be read: {error.strerror}") from error

    @contextlib.contextmanager
    def readings(self, segments: Iterable[Segment] | None = None) -> Iterator[list[tuple[Segment, Reading]]]:
        """All of them (else those of the directory, the newest first) that can be read, at once."""
        with contextlib.ExitStack() as stack:
            found = []
            for segment in self.newest_first() if segments is None else segments:
                with self.passing_over(segment):
                    found.append((segment, stack.enter_context(segment.reading())))
            yield found

    @contextlib.contextmanager
    def passing_over(self, segment: Segment) -> Iterator[None]:
        """Damage ends the block, is remembered, and goes no further."""
        try:
            yield
            segment.problem = ""
        except StoreError as error:
            if not self._is_passed_over(segment, error):
                raise
        except sqlite3.Error as error:
            try:
                with clear_errors(segment.path):
                    raise
            except StoreError as clear:
                if not self._is_passed_over(segment, clear):
                    raise clear from error

    def tolerant(self, segment: Segment, rows: Iterable[Item]) -> Iterator[Item]:
        """The rows, as far as they can be read."""
        with self.passing_over(segment):
            yield from rows

    def _is_passed_over(self, segment: Segment, error: StoreError) -> bool:
        if not segment.is_there or isinstance(error, NotBegun):
            return True
        segment.problem = str(error)
        return is_damage(error.__cause__)

    def close(self) -> None:
        """Close the idle connections."""
        with self._refreshing:
            while self._known:
                self._known.popitem()[1].close()


Place: TypeAlias = tuple[Segment, Reading, Line]


def places_of(segments: Segments, readings: Iterable[tuple[Segment, Reading]], trace_id: bytes) -> list[Place]:
    """Where a trace lies, the newest segment first, with its line there."""
    found = []
    for segment, reading in readings:
        line = None
        with segments.passing_over(segment):
            line = reading.line(trace_id)
        if line is not None:
            found.append((segment, reading, line))
            if not line[CONTINUES]:
                break
    return found


def gather_places(
    segments: Segments,
    places: Sequence[Place],
    into: Gathered,
    *,
    messages: bool = True,
    only: bytes | None = None,
    since: int = 0,
) -> None:
    """Read a trace from all places where it lies; of those, the chunks that came after the version `since`."""
    for segment, reading, line in reversed(places):
        chunks, version = line[CHUNKS], line[VERSION]  # each chunk is a version: the first one here follows `before`
        before = version - chunks
        if since < version:
            with segments.passing_over(segment):
                reading.gather(line[0], into, messages=messages, only=only, first=max(0, since - before))


def _ended(connection: sqlite3.Connection) -> bool:
    """End the snapshot. False when that fails, as it may after damage that was passed over."""
    try:
        connection.execute("COMMIT")
    except sqlite3.Error:
        return False
    return True


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
