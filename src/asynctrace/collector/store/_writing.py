"""One segment while it is written: what a commit of new spans does to its tables.

    rows ─▶ by trace ─▶ which ids are known? ─▶ none: count them into the trace's line, one chunk more
                                             └▶ some: read the trace back, keep what is heavier, count anew

Everything that is remembered between commits (numbers of names and origins, lines of traces, their span ids) is a copy of
what is committed; after an error it is forgotten.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from .._rows import Origin, Received, token
from ._chunk import LOGS, SPANS, Arrived, Codec, Line, LogLine, columns_of, encode_logs, encode_skeleton, portions
from ._large import APART, LARGE, Piece, take_apart, write_pieces
from ._roll import Roll
from ._schema import CHUNK_BITS, transaction
from ._segments import Gathered, Reading
from ._tally import COLUMNS, Tally, weight

__all__ = ["FIELDS", "SegmentWriter", "field_token"]

KNOWN_SPANS: Final = 200_000
"""Span ids that are remembered, of the traces that were written last: 16 MB."""
KNOWN_NAMES: Final = 10_000
"""Names and origins are few; a sender that varies them must not grow us."""

INSERT_TRACE: Final = f"INSERT INTO trace (no, {', '.join(COLUMNS)}) VALUES ({', '.join('?' * (len(COLUMNS) + 1))})"  # noqa: S608
UPDATE_TRACE: Final = f"UPDATE trace SET ({', '.join(COLUMNS)}) = ({', '.join('?' * len(COLUMNS))}) WHERE no = ?"  # noqa: S608
UPDATE_TOTAL: Final = "UPDATE total SET traces = traces + ?, spans = spans + ?, open = open + ?"

CARRIED: Final = ("root_received_ns", "received_ns", "late", "model", "session", "user", "input", "output")
"""Columns that cannot be had from chunks."""

FIELDS: Final = ("name", "service", "type", "model")
"""Of the table `name`, in its order. Fields of spans have tokens as attributes have; no attribute has such a key."""

Before = Callable[[bytes, Gathered], "Tally | None"]
"""Reads a trace from the earlier segments; None when it is in none of them."""


def field_token(field: str, value: str) -> bytes:
    """The search token of what is no attribute: name, service, type, model, status, kind, ending."""
    return token(f"\0{field}", value)


class SegmentWriter:
    """Writes to `connection`, which it does not own."""

    def __init__(self, connection: sqlite3.Connection, codec: Codec, before: Before) -> None:
        self._connection = connection
        self._reading = Reading(connection)
        self._codec = codec
        self._before = before
        self._tallies: OrderedDict[bytes, Tally] = OrderedDict()
        self._known_spans = 0
        self._names: dict[tuple[str, str, str, str], int] = {}
        self._name_tokens: dict[int, tuple[bytes, ...]] = {}
        self._origins: dict[Origin, int] = {}
        self._has_fts5 = connection.execute("SELECT value FROM note WHERE key = 'index'").fetchone() == ("fts5",)
        self._next_no = 0
        self._there = {trace_id for (trace_id,) in connection.execute("SELECT trace_id FROM trace")}

    def forget(self) -> None:
        """What was remembered may have been rolled back, or changed by others."""
        self._reading.forget()
        self._tallies.clear()
        self._known_spans = 0
        self._names.clear()
        self._name_tokens.clear()
        self._origins.clear()
        self._next_no = 0
        self._there = {trace_id for (trace_id,) in self._connection.execute("SELECT trace_id FROM trace")}

    def add(self, received: Iterable[Received], now_ns: int) -> None:
        """Everything in one transaction."""
        try:
            with transaction(self._connection):
                _Commit(self, now_ns).add(received)
        except BaseException:
            self.forget()
            raise
        self._forget_some()

    def copy(self, received: Received, line: Sequence[Any], now_ns: int) -> None:
        """Take over (a part of) one trace from another segment, where it has the row `line`, in one transaction."""
        try:
            with transaction(self._connection):
                _Commit(self, now_ns).add([received])
                update = (
                    f"UPDATE trace SET ({', '.join(CARRIED)}, version) = ({', '.join('?' * len(CARRIED))}, version + ?) "  # noqa: S608
                    "WHERE trace_id = ?"
                )
                carried = [line[1 + COLUMNS.index(column)] for column in CARRIED]
                self._connection.execute(update, (*carried, line[1 + COLUMNS.index("version")], line[1]))
        finally:
            self.forget()

    def _forget_some(self) -> None:
        while self._known_spans > KNOWN_SPANS and len(self._tallies) > 1:
            self._known_spans -= len(self._tallies.popitem(last=False)[1].known)
        if len(self._names) > KNOWN_NAMES or len(self._origins) > KNOWN_NAMES:
            self._names.clear()
            self._name_tokens.clear()
            self._origins.clear()

    # ── numbers ─────────────────────────────────────────────────────────────────────────────────────────────

    def name(self, key: tuple[str, str, str, str]) -> int:
        """The number of (name, service, type, model)."""
        known = self._names.get(key)
        if known is not None:
            return known
        stored = tuple(map(_storable, key))
        find = "SELECT id FROM name WHERE (name, service, type, model) = (?, ?, ?, ?)"
        row = self._connection.execute(find, stored).fetchone()
        if row is None:
            insert = "INSERT INTO name (name, service, type, model) VALUES (?, ?, ?, ?) RETURNING id"
            row = self._connection.execute(insert, stored).fetchone()
        number: int = row[0]
        self._names[key] = number
        self._name_tokens[number] = tuple(
            field_token(field, value) for field, value in zip(FIELDS, stored, strict=True) if value
        )
        return number

    def origin(self, origin: Origin) -> int:
        """The number of (resource, scope, their schemas)."""
        known = self._origins.get(origin)
        if known is not None:
            return known
        size = len(origin.resource).to_bytes(8, "big")
        schemas = (_storable(origin.resource_schema), _storable(origin.scope_schema))
        named = "\0".join(("", *schemas)).encode() if any(schemas) else b""
        digest = hashlib.sha256(size + origin.resource + origin.scope + named).digest()
        row = self._connection.execute("SELECT id FROM res WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            insert = "INSERT INTO res VALUES (NULL, ?, ?, ?, ?, ?, ?) RETURNING id"
            values = (digest, origin.resource, origin.scope, _storable(origin.service), *schemas)
            row = self._connection.execute(insert, values).fetchone()
        number: int = row[0]
        self._origins[origin] = number
        return number

    def name_tokens(self, number: int) -> tuple[bytes, ...]:
        """The search tokens of a name that was asked for before."""
        return self._name_tokens[number]

    # ── traces ──────────────────────────────────────────────────────────────────────────────────────────────

    def tally(self, trace_id: bytes) -> Tally:
        """The line of a trace, as it was last written; a new one when it is unknown."""
        tally = self._tallies.get(trace_id)
        if tally is None:
            tally = self._read_tally(trace_id) or self._continued(trace_id)
            self._tallies[trace_id] = tally
            self._known_spans += len(tally.known)
        else:
            self._tallies.move_to_end(trace_id)
        return tally

    def remember(self, tally: Tally, ids: Iterable[bytes]) -> None:
        """These spans are there."""
        before = len(tally.known)
        tally.known.update(ids)
        self._known_spans += len(tally.known) - before

    def gathered(self, tally: Tally) -> Gathered:
        """What is committed of a trace, in all segments."""
        gathered = Gathered(tally.trace_id)
        if tally.continues:
            self._before(tally.trace_id, gathered)
        if tally.chunks:
            self._reading.gather(tally.no, gathered, messages=False)
        return gathered

    def _read_tally(self, trace_id: bytes) -> Tally | None:
        line = self._reading.line(trace_id) if trace_id in self._there else None
        if line is None:
            return None
        tally = Tally.of_row(line[0], line[1:])
        tally.is_written = True
        tally.known = {row.span_id for row in self.gathered(tally).rows}
        return tally

    def _continued(self, trace_id: bytes) -> Tally:
        gathered = Gathered(trace_id)
        tally = self._before(trace_id, gathered) or Tally(0, trace_id)
        tally.no, tally.chunks = self._number(), 0
        tally.continues = int(bool(tally.version))
        tally.is_written = False
        tally.known = {row.span_id for row in gathered.rows}
        return tally

    def _number(self) -> int:
        """For a trace that is new here."""
        if not self._next_no:
            self._next_no = 1 + (self._connection.execute("SELECT max(no) FROM trace").fetchone()[0] or 0)
        self._next_no += 1
        return self._next_no - 1

    # ── rows ────────────────────────────────────────────────────────────────────────────────────────────────

    def write_tallies(self, tallies: Iterable[tuple[Tally, bool]]) -> None:
        """Lines of traces, each with whether it is new in this segment."""
        new, known = [], []
        for tally, is_new in tallies:
            if is_new:
                new.append((tally.no, *tally.row()))
                tally.is_written = True
                self._there.add(tally.trace_id)
            else:
                known.append((*tally.row(), tally.no))
        self._connection.executemany(INSERT_TRACE, new)
        self._connection.executemany(UPDATE_TRACE, known)

    def write_chunks(self, chunks: list[tuple[int, int, int, int, bytes, bytes]]) -> None:
        """(id, kind, codec, received_ns, skeleton, body), in order."""
        self._connection.executemany("INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?)", chunks)

    def write_pieces(self, chunk: int, pieces: Sequence[Piece]) -> None:
        """Large values of a chunk."""
        write_pieces(self._connection, self._codec, chunk, pieces)

    def write_tokens(self, tokens: Sequence[tuple[int, set[bytes]]]) -> None:
        """Search tokens of chunks, in order: FTS5 writes ascending ids at once, others each for itself."""
        if self._has_fts5:
            texts = [(chunk, b"".join(some).hex(" ", 8)) for chunk, some in tokens]
            self._connection.executemany("INSERT INTO kv (rowid, tokens) VALUES (?, ?)", texts)
        else:
            pairs = [(each, chunk) for chunk, some in tokens for each in some]
            self._connection.executemany("INSERT OR IGNORE INTO kv VALUES (?, ?)", pairs)

    def write_total(self, traces: int, spans: int, still_open: int) -> None:
        self._connection.execute(UPDATE_TOTAL, (traces, spans, still_open))

    def write_roll(self, roll: Roll) -> None:
        roll.write(self._connection)

    def compress(self, raw: bytes) -> bytes:
        return self._codec.compress(raw)

    @property
    def codec(self) -> int:
        return self._codec.number


class _Commit:
    """What one transaction writes."""

    def __init__(self, writer: SegmentWriter, now_ns: int) -> None:
        self._writer = writer
        self._now_ns = now_ns
        self._roll = Roll()
        self._spans: dict[bytes, list[Line]] = {}
        self._logs: dict[bytes, list[LogLine]] = {}
        self._origins: list[Origin] = []
        self._services: dict[int, Origin] = {}
        self._touched: dict[bytes, tuple[Tally, bool]] = {}
        self._chunks: list[tuple[int, int, int, int, bytes, bytes]] = []
        self._pieces: list[tuple[int, list[Piece]]] = []
        self._tokens: list[tuple[int, set[bytes]]] = []
        self._traces = self._span_count = self._open = 0

    def add(self, received: Iterable[Received]) -> None:
        for each in received:
            numbers = [self._writer.origin(origin) for origin in each.origins]
            self._services.update(zip(numbers, each.origins, strict=True))
            self._sort_spans(each, numbers)
            for log in each.logs:
                self._logs.setdefault(log.trace_id, []).append((log, numbers[log.origin]))
        for trace_id, lines in self._spans.items():
            self._take_spans(trace_id, lines)
        for trace_id, logs in self._logs.items():
            self._take_logs(trace_id, logs)
        self._write()

    def _sort_spans(self, received: Received, numbers: list[int]) -> None:
        name, spans = self._writer.name, self._spans
        services = [origin.service for origin in received.origins]
        for row in received.rows:
            facts = row.facts
            if facts.is_open:
                continue
            line = (row, numbers[row.origin], name((row.name, services[row.origin], facts.type, facts.model)))
            lines = spans.get(row.trace_id)
            if lines is None:
                spans[row.trace_id] = [line]
            else:
                lines.append(line)

    def _take_spans(self, trace_id: bytes, lines: list[Line]) -> None:
        tally = self._touch(trace_id)
        arrived = columns_of(lines)
        ids = set(arrived.ids)
        spans, still_open = tally.spans, tally.open
        if len(ids) == len(lines) and tally.known.isdisjoint(ids):
            self._count(tally, arrived)
        else:
            lines = self._merge(tally, lines)
            arrived = columns_of(lines) if lines else arrived
        self._writer.remember(tally, ids)
        self._traces += not spans
        self._span_count += tally.spans - spans
        self._open += tally.open - still_open
        if lines:
            self._chunk(tally, arrived)

    def _count(self, tally: Tally, arrived: Arrived) -> None:
        had_root = tally.depth == 0
        if tally.arrived(self._now_ns):
            tally.late += len(arrived.ids)
        tally.count(arrived, self._services)
        self._roll.count_all(arrived)
        if tally.depth == 0 and not had_root:
            tally.root_received_ns = self._now_ns

    def _merge(self, tally: Tally, lines: list[Line]) -> list[Line]:
        """Spans of which other versions are there. Returns what is to be kept."""
        gathered = self._writer.gathered(tally)
        had_root = tally.depth == 0
        is_late = tally.arrived(self._now_ns)
        late = tally.late
        kept = []
        for row, origin, name in lines:
            before = gathered.get(row.span_id)
            if before is not None and weight(row) < weight(before):
                continue
            if before is None:
                late += is_late
            else:
                facts = before.facts
                service = gathered.origins[before.origin].service
                self._roll.count(before, self._writer.name((before.name, service, facts.type, facts.model)), -1)
            self._roll.count(row, name)
            gathered.add([row._replace(origin=gathered.index_of(self._services[origin]))])
            kept.append((row, origin, name))
        tally.recount(gathered.rows, gathered.origins)
        tally.late = late
        if tally.depth == 0 and not had_root:
            tally.root_received_ns = self._now_ns
        return kept

    def _take_logs(self, trace_id: bytes, logs: list[LogLine]) -> None:
        tally = self._touch(trace_id)
        tally.arrived(self._now_ns)
        self._add_chunk(tally, LOGS, encode_logs(logs), [log.message for log, _ in logs])

    def _touch(self, trace_id: bytes) -> Tally:
        known = self._touched.get(trace_id)
        if known is None:
            tally = self._writer.tally(trace_id)
            known = self._touched[trace_id] = (tally, not tally.is_written)
        return known[0]

    def _chunk(self, tally: Tally, arrived: Arrived) -> None:
        for portion in portions(arrived):
            chunk = self._add_chunk(tally, SPANS, encode_skeleton(portion), portion.messages)
            self._tokens.append((chunk, self._tokens_of(portion)))
            tally.stored += len(portion.ids)

    def _add_chunk(self, tally: Tally, kind: int, skeleton: bytes, messages: Sequence[bytes]) -> int:
        chunk = (tally.no << CHUNK_BITS) + tally.chunks
        tally.chunks += 1
        tally.version += 1
        compress = self._writer.compress
        codec = self._writer.codec
        if max(map(len, messages)) > LARGE:
            body, pieces = take_apart(messages, kind)
            if pieces:
                self._pieces.append((chunk, pieces))
                codec |= APART
        else:
            body = b"".join(messages)
        self._chunks.append((chunk, kind, codec, self._now_ns, compress(skeleton), compress(body)))
        return chunk

    def _tokens_of(self, portion: Arrived) -> set[bytes]:
        tokens: set[bytes] = set().union(*[facts[0] for facts in portion.facts])
        tokens.update([_coded("ending", ending) for ending in {facts[1] for facts in portion.facts} if ending])
        tokens.update([_coded("status", str(status)) for status in set(portion.statuses)])
        tokens.update([_coded("kind", str(kind)) for kind in set(portion.kinds)])
        tokens.update(*map(self._writer.name_tokens, set(portion.names)))
        tokens.update(*[self._services[origin].tokens for origin in set(portion.origins)])
        return tokens

    def _write(self) -> None:
        writer = self._writer
        writer.write_tallies(self._touched.values())
        writer.write_chunks(sorted(self._chunks, key=_first))
        for chunk, pieces in self._pieces:
            writer.write_pieces(chunk, pieces)
        writer.write_tokens(sorted(self._tokens, key=_first))
        writer.write_total(self._traces, self._span_count, self._open)
        writer.write_roll(self._roll)


_CODED: dict[tuple[str, str], bytes] = {}
MOST_CODED: Final = 1000


def _coded(field: str, value: str) -> bytes:
    """`field_token()` of one of few values."""
    known = _CODED.get((field, value))
    if known is None:
        if len(_CODED) >= MOST_CODED:
            _CODED.clear()
        known = _CODED[field, value] = field_token(field, value)
    return known


def _first(row: tuple[Any, ...]) -> int:
    number: int = row[0]
    return number


def _storable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
