"""Large values, kept once for each segment, in blocks.

What is said to a model is said again with each call, and a little more; what a step returns is what the next one gets. The
same text then lies in many spans, some hundred kilobytes apart: further than a compressor looks back, and in chunks of
several commits. Of a value of more than `LARGE` bytes the whole blocks, counted from its beginning, are therefore cut out of
the messages of their chunk and kept under their hashes; `apart` says where they belong:

    messages   ─ span ─ span ░░░░▒▒▒▒.. span ─      ░ ▒ blocks, in the table `large`, by their hashes
    body       ─ span ─ span .. span ─              the chunk's: without them
    apart      (chunk, where ░ begins in `messages`, hash), (chunk, where ▒ begins, hash)

Promises: what is put together is, byte for byte, what was taken apart; a chunk without large values costs nothing, and a
value that nothing refers to any more goes with the last trace that did.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import Final

from ..._errors import WireError
from ...wire import read_fields
from ._chunk import LOGS, SPANS, Codec, codec_of
from ._schema import CHUNK_BITS

__all__ = ["APART", "LARGE", "Piece", "delete_large", "put_together", "read_pieces", "take_apart", "write_pieces"]

LARGE: Final = 64 * 1024
"""Bytes. A compressor finds what repeats within some hundred kilobytes by itself, and smaller values than this are many."""
BLOCK: Final = 16 * 1024
"""Bytes. What twenty calls of a model say, each after all that was said before, 80 KB to 160 KB, takes a seventh of the
room (less than half where a commit has five of them); each value as one piece would save nothing. Smaller blocks save a
fifth more, and are read slower."""
APART: Final = 0x100
"""Added to the number of a chunk's codec: values of it lie apart."""

Piece = tuple[int, bytes]
"""Where a block begins in the messages of its chunk, and the block."""

READ: Final = """
SELECT first, codec, value FROM apart JOIN large ON large.digest = apart.digest WHERE chunk = ? ORDER BY first
"""
FORGET: Final = """
DELETE FROM large WHERE digest IN (SELECT digest FROM apart WHERE chunk BETWEEN :first AND :last) AND NOT EXISTS
    (SELECT 1 FROM apart WHERE apart.digest = large.digest AND NOT chunk BETWEEN :first AND :last)
"""

# ── in a message ────────────────────────────────────────────────────────────────────────────────────────────

_VALUE: Final = "value"
_OF_A_KIND: Final = {SPANS: "span", LOGS: "log"}
_INSIDE: Final[dict[str, dict[int, str]]] = {
    "span": {0x4A: "attribute", 0x5A: "event", 0x6A: "link"},
    "event": {0x1A: "attribute"},
    "link": {0x22: "attribute"},
    "log": {0x2A: "any", 0x32: "attribute"},
    "attribute": {0x12: "any"},
    "any": {0x0A: _VALUE, 0x3A: _VALUE, 0x2A: "array", 0x32: "map"},
    "array": {0x0A: "any"},
    "map": {0x0A: "attribute"},
}
"""By the kind of a message: in which fields there may be values, and what these fields are."""


def _values(buffer: bytes, first: int, last: int, kind: str) -> Iterator[tuple[int, int]]:
    """Where the large texts and bytes are."""
    inside = _INSIDE[kind]
    for tag, start, end in read_fields(buffer, first, last):
        found = inside.get(tag)
        if found is None or end - start <= LARGE:
            continue
        if found == _VALUE:
            yield start, end
        else:
            yield from _values(buffer, start, end, found)


# ── in a chunk ──────────────────────────────────────────────────────────────────────────────────────────────


def take_apart(messages: Sequence[bytes], kind: int) -> tuple[bytes, list[Piece]]:
    """The messages of a chunk of this kind end to end, without the blocks of their large values; and these."""
    rest: list[bytes] = []
    pieces: list[Piece] = []
    starts = accumulate(map(len, messages), initial=0)
    for start, message in zip(starts, messages, strict=False):
        done = 0
        for first, last in _blocks(message, kind):
            rest.append(message[done:first])
            pieces.append((start + first, message[first:last]))
            done = last
        rest.append(message[done:])
    return b"".join(rest), pieces


def _blocks(message: bytes, kind: int) -> list[tuple[int, int]]:
    """Where the whole blocks of large values are."""
    if len(message) <= LARGE:
        return []
    try:
        values = list(_values(message, 0, len(message), _OF_A_KIND[kind]))
    except WireError:  # no OTLP: it stays as it is
        return []
    return [(start, start + BLOCK) for first, last in values for start in range(first, last - BLOCK + 1, BLOCK)]


def put_together(body: bytes, pieces: Sequence[Piece]) -> bytes:
    """What `take_apart()` got, end to end."""
    parts: list[bytes] = []
    taken = position = 0
    for first, value in pieces:
        parts += body[taken : taken + first - position], value
        taken += first - position
        position = first + len(value)
    return b"".join((*parts, body[taken:]))


# ── in a segment ────────────────────────────────────────────────────────────────────────────────────────────


def write_pieces(connection: sqlite3.Connection, codec: Codec, chunk: int, pieces: Sequence[Piece]) -> None:
    """Keep the blocks that are not there yet, and where they belong."""
    for first, value in pieces:
        digest = blake2b(value, digest_size=20).digest()
        if connection.execute("SELECT 1 FROM large WHERE digest = ?", (digest,)).fetchone() is None:
            row = (digest, codec.number, codec.compress(value))
            connection.execute("INSERT INTO large VALUES (?, ?, ?)", row)
        connection.execute("INSERT INTO apart VALUES (?, ?, ?)", (chunk, first, digest))


def read_pieces(connection: sqlite3.Connection, chunk: int) -> list[Piece]:
    """The blocks of a chunk, in order."""
    codecs: dict[int, Codec] = {}
    pieces = []
    for first, number, value in connection.execute(READ, (chunk,)):
        codec = codecs.get(number) or codecs.setdefault(number, codec_of(number))
        pieces.append((first, codec.expand(value)))
    return pieces


def delete_large(connection: sqlite3.Connection, trace: int) -> None:
    """Take away what only the trace with this number refers to, and its references."""
    of_trace = {"first": trace << CHUNK_BITS, "last": ((trace + 1) << CHUNK_BITS) - 1}
    connection.execute(FORGET, of_trace)
    connection.execute("DELETE FROM apart WHERE chunk BETWEEN :first AND :last", of_trace)
