"""The segments before the one that is written: has a trace begun in one of them?

Each trace that comes for the first time is asked for in each of them, and nearly never there, so a filter answers first:
sixteen bits for each trace, four of them set (B. H. Bloom, "Space/time trade-offs in hash coding with allowable errors",
1970). It says "no" for sure; of its "may" one in five hundred is wrong. A segment that is sealed has it as a note.
"""

from __future__ import annotations

import sqlite3
from hashlib import blake2b
from typing import Final

from ._schema import transaction
from ._segments import Gathered, Reading, Segment, Segments, gather_places, places_of
from ._tally import Tally

__all__ = ["Earlier", "is_sealed", "seal"]

BITS_FOR_EACH: Final = 16
PROBES: Final = 4


class _Filter:
    """Of the trace ids of one segment."""

    def __init__(self, bits: bytes) -> None:
        self._bits = bits
        self._mask = len(bits) * 8 - 1

    @classmethod
    def of(cls, connection: sqlite3.Connection) -> _Filter:
        """Made from the traces that are there. The number of bits is a power of two."""
        (traces,) = connection.execute("SELECT count(*) FROM trace").fetchone()
        bits = bytearray(1 << max(3, (traces * BITS_FOR_EACH - 1).bit_length() - 3))
        mask = len(bits) * 8 - 1
        for (trace_id,) in connection.execute("SELECT trace_id FROM trace"):
            first, step = _hashes(trace_id)
            for probe in range(PROBES):
                position = (first + probe * step) & mask
                bits[position >> 3] |= 1 << (position & 7)
        return cls(bytes(bits))

    def may_have(self, first: int, step: int) -> bool:
        """Whether the id with these hashes may be there."""
        bits, mask = self._bits, self._mask
        for probe in range(PROBES):
            position = (first + probe * step) & mask
            if not bits[position >> 3] >> (position & 7) & 1:
                return False
        return True

    def __bytes__(self) -> bytes:
        return self._bits


class Earlier:
    """Those of `segments` below number `current`."""

    def __init__(self, segments: Segments, current: int) -> None:
        self._segments = segments
        self._filters: list[tuple[Segment, _Filter]] = []
        for segment in segments.newest_first():
            if segment.number < current:
                with segments.passing_over(segment), segment.reading() as reading:
                    self._filters.append((segment, _stored(reading) or _Filter.of(reading.connection)))

    def __call__(self, trace_id: bytes, gathered: Gathered) -> Tally | None:
        """Read what is there of a trace, and its newest line; None when it is in none of them."""
        first, step = _hashes(trace_id)
        candidates = [segment for segment, each in self._filters if each.may_have(first, step)]
        if not candidates:
            return None
        with self._segments.readings(candidates) as readings:
            places = places_of(self._segments, readings, trace_id)
            if not places:
                return None
            gather_places(self._segments, places, gathered, messages=False)
            line = places[0][2]
            return Tally.of_row(line[0], line[1:])


def seal(connection: sqlite3.Connection) -> None:
    """Nothing will be added to this segment any more."""
    made = bytes(_Filter.of(connection))
    with transaction(connection):
        connection.execute("INSERT OR REPLACE INTO note VALUES ('filter', ?)", (made,))


def is_sealed(connection: sqlite3.Connection) -> bool:
    """Whether `seal()` was called."""
    return bool(connection.execute("SELECT count(*) FROM note WHERE key = 'filter'").fetchone() == (1,))


def _stored(reading: Reading) -> _Filter | None:
    row = reading.connection.execute("SELECT value FROM note WHERE key = 'filter'").fetchone()
    return _Filter(row[0]) if row else None


def _hashes(trace_id: bytes) -> tuple[int, int]:
    digest = blake2b(trace_id, digest_size=8).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big") | 1
