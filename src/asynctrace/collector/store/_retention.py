"""What goes: whole segments by the bounds, single traces by hand. What stays: pinned traces.

    oldest segment ─▶ pinned traces are copied to segment 0 ─▶ traces that go on in later segments
                   are counted anew there ─▶ the file is unlinked

Each step can be repeated: a process that dies in between leaves a store that is whole, and the next sweep goes on.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from .._rows import Origin, Received, SpanRow
from ._chunk import best_codec
from ._large import delete_large
from ._roll import Roll
from ._schema import CHUNK_BITS, clear_errors, open_writing, transaction
from ._segments import PINNED, Gathered, Line, Segment, Segments, gather_places, places_of, segment_path
from ._store import Bounds, StoreError, Swept
from ._tally import Tally
from ._writing import UPDATE_TRACE, SegmentWriter

__all__ = ["Retention", "together"]

DELETE_CHUNKS: Final = "DELETE FROM chunk WHERE id BETWEEN ? AND ?"
SUBTRACT: Final = "UPDATE total SET traces = max(0, traces - ?), spans = max(0, spans - ?), open = max(0, open - ?)"


class Retention:
    """Used by the process that writes, between two commits; `current` and `connection` are the segment it writes to."""

    def __init__(
        self, directory: Path, segments: Segments, current: int, connection: sqlite3.Connection, busy_timeout: float
    ) -> None:
        self._directory = directory
        self._segments = segments
        self._current = current
        self._connection = connection
        self._busy_timeout = busy_timeout

    def sweep(self, pinned: set[bytes], bounds: Bounds, now_ns: int, room: float) -> Swept:
        """Take away the oldest segments until all that is left, and `room` bytes, are within the bounds."""
        swept = self._unpinned(pinned)
        for segment in self._segments.oldest_first():
            if segment.problem or not PINNED < segment.number < self._current:
                continue  # what cannot be read may be saved by hand
            if not self._is_beyond(segment, bounds, now_ns, room):
                break
            with self._segments.passing_over(segment):
                swept = together(swept, self._take_away(segment, pinned, now_ns))
        return swept

    def delete(self, trace_id: bytes) -> bool:
        """Take a trace away. False when it is unknown."""
        gathered = Gathered(trace_id)
        with self._segments.readings() as readings:
            places = places_of(self._segments, readings, trace_id)
            shares = []
            for segment, reading, line in reversed(places):
                before = len(gathered.rows)
                reading.gather(line[0], gathered, messages=False)
                shares.append((segment, line, len(gathered.rows) - before))
        for position, (segment, line, spans) in enumerate(shares):
            with self._writing(segment) as connection:
                is_newest = position == len(shares) - 1
                still_open = sum(not row.end_ns for row in gathered.rows) if is_newest else 0
                with transaction(connection):
                    _delete_line(connection, line, (int(position == 0), spans, still_open))
                    if is_newest:
                        _take_out(connection, gathered.rows, gathered.origins)
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return bool(shares)

    def _is_beyond(self, segment: Segment, bounds: Bounds, now_ns: int, room: float) -> bool:
        if bounds.size is not None:
            size = sum(each.size for each in self._segments.newest_first() if not each.problem)
            if size + room > bounds.size:
                return True
        return bounds.age is not None and now_ns - self._last_received(segment) > bounds.age * 1e9

    def _last_received(self, segment: Segment) -> int:
        with self._segments.passing_over(segment), segment.reading() as reading:
            (latest,) = reading.connection.execute("SELECT max(received_ns) FROM trace").fetchone()
            return latest or 0
        return 0

    def _take_away(self, segment: Segment, pinned: set[bytes], now_ns: int) -> Swept:
        size = segment.size
        with segment.reading() as reading:
            traces, spans = reading.connection.execute("SELECT traces, spans FROM total").fetchone()
            ids = {trace_id for (trace_id,) in reading.connection.execute("SELECT trace_id FROM trace")}
        self._copy(segment, ids & pinned, now_ns)
        self._recount(segment, ids - pinned)
        segment.close()
        _unlink(segment.path)
        return Swept(segments=1, traces=traces, spans=spans, size=size)

    # ── pinned traces ───────────────────────────────────────────────────────────────────────────────────────

    def _copy(self, segment: Segment, wanted: set[bytes], now_ns: int) -> None:
        """Copying what is there already changes nothing: spans are known by their ids."""
        if not wanted:
            return
        path = segment_path(self._directory, PINNED)
        with clear_errors(path), contextlib.closing(open_writing(path, self._busy_timeout)) as connection:
            writer = SegmentWriter(connection, best_codec(), lambda *_: None)
            for trace_id in sorted(wanted):
                with segment.reading() as reading:
                    line = reading.line(trace_id)
                    gathered = Gathered(trace_id)
                    if line is not None:
                        reading.gather(line[0], gathered)
                        writer.copy(_as_received(gathered), line, now_ns)

    def _unpinned(self, pinned: set[bytes]) -> Swept:
        """Traces of segment 0 that are not pinned any more were beyond the bounds when they came there."""
        found = next((each for each in self._segments.newest_first() if each.number == PINNED), None)
        if found is not None and not found.problem:
            with self._segments.passing_over(found):
                return self._take_out_of(found, pinned)
        return Swept()

    def _take_out_of(self, segment: Segment, pinned: set[bytes]) -> Swept:
        with segment.reading() as reading:
            ids = reading.connection.execute("SELECT trace_id FROM trace").fetchall()
            lines = [reading.line(trace_id) for (trace_id,) in ids if trace_id not in pinned]
            gone = [(line, Gathered(line[1])) for line in lines if line is not None]
            for line, gathered in gone:
                reading.gather(line[0], gathered, messages=False)
        if not gone:
            return Swept()
        self._recount(segment, {line[1] for line, _ in gone})
        spans = 0
        size = segment.size
        with self._writing(segment) as connection:
            for line, gathered in gone:
                here = Tally.of_row(line[0], line[1:])
                spans += here.spans
                with transaction(connection):
                    _delete_line(connection, line, (1, here.spans, here.open))
                    _take_out(connection, gathered.rows, gathered.origins)
            connection.execute("PRAGMA incremental_vacuum")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return Swept(traces=len(gone), spans=spans, size=max(0, size - segment.size))

    # ── traces that go on ───────────────────────────────────────────────────────────────────────────────────

    def _recount(self, gone: Segment, ids: set[bytes]) -> None:
        """Make the lines of these traces in later segments say what is left without `gone`."""
        left = [each for each in self._segments.newest_first() if each.number != gone.number]
        for position, segment in enumerate(left):
            if segment.number <= gone.number:
                continue
            with self._segments.passing_over(segment), segment.reading() as reading:
                rows = reading.connection.execute("SELECT trace_id FROM trace WHERE continues").fetchall()
                wanted = [trace_id for (trace_id,) in rows if trace_id in ids]
            for trace_id in wanted:
                self._recount_one(segment, left[position:], trace_id)

    def _recount_one(self, segment: Segment, left: list[Segment], trace_id: bytes) -> None:
        gathered = Gathered(trace_id)
        with self._segments.readings(left) as readings:
            places = places_of(self._segments, readings, trace_id)
            gather_places(self._segments, places, gathered, messages=False)
        line = places[0][2]
        tally = Tally.of_row(line[0], line[1:])
        tally.recount(gathered.rows, gathered.origins)
        tally.late = min(tally.late, tally.spans)
        tally.continues = int(len(places) > 1)
        with self._writing(segment) as connection, transaction(connection):
            connection.execute(UPDATE_TRACE, (*tally.row(), tally.no))

    @contextlib.contextmanager
    def _writing(self, segment: Segment) -> Iterator[sqlite3.Connection]:
        with clear_errors(segment.path):
            if segment.number == self._current:
                yield self._connection
                return
            with contextlib.closing(open_writing(segment.path, self._busy_timeout)) as connection:
                yield connection


def _as_received(gathered: Gathered) -> Received:
    return Received(origins=gathered.origins, rows=gathered.rows, logs=list(gathered.logs))


def _delete_line(connection: sqlite3.Connection, line: Line, less: tuple[int, int, int]) -> None:
    number = line[0]
    connection.execute("PRAGMA secure_delete = ON")
    delete_large(connection, number)
    connection.execute(DELETE_CHUNKS, (number << CHUNK_BITS, ((number + 1) << CHUNK_BITS) - 1))
    connection.execute("DELETE FROM trace WHERE no = ?", (number,))
    connection.execute(SUBTRACT, less)


def _take_out(connection: sqlite3.Connection, rows: list[SpanRow], origins: list[Origin]) -> None:
    """Of the percentiles."""
    writer = SegmentWriter(connection, best_codec(), lambda *_: None)
    roll = Roll()
    for row in rows:
        service = origins[row.origin].service
        roll.count(row, writer.name((row.name, service, row.facts.type, row.facts.model)), -1)
    roll.write(connection)


def _unlink(path: Path) -> None:
    """The log first: without the file it would be nobody's."""
    try:
        for suffix in ("-wal", "-shm", ""):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"the segment {path} cannot be removed: {error.strerror}") from error


def together(one: Swept, other: Swept) -> Swept:
    """What two sweeps took away."""
    fields: Any = Swept.__struct_fields__
    return Swept(**{field: getattr(one, field) + getattr(other, field) for field in fields})
