"""The spans that were open when their process died: closed `lost`, each exactly once, whoever tries how often.

    read the slab ─▶ which are stored already? ─▶ write a segment, hidden ─▶ sync ─▶ rename ─▶ clear the slab
                                                                                       │
                                                            before: nothing happened ◀─┴─▶ after: all of it did

Promises:

1. The rename is the one step that counts. Before it there is no record; after it every span of the slab has one, so whoever
   comes next finds nothing to close, and the same numbers.
2. A span whose record is in a segment is not closed again: its process died between storing the record and leaving the slot.
3. The new segment is proved by a mark before it has its name: it lasts as long as what the slab forgets.
4. The end of a lost span is the last heartbeat of its process, and never before its start.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

import msgspec

from ..._contracts import Span, StatusCode
from ..._errors import JournalDamaged, JournalError, WireError
from ...wire import decode_records, decode_span, encode_attribute, encode_status, frame
from ._contents import HeldSegment, JournalContents, JournalFiles, existing_file, open_segment
from ._directory import JournalDirectory
from ._files import sync_folder
from ._format import id_bytes, segment_file, segment_index
from ._segment_file import FileSegment
from ._segment_reader import ReadSegment
from ._slab import SlabReading, clear_slab, inspect_slab

__all__ = [
    "OpenSpans",
    "clear_open_spans",
    "lost_record",
    "read_open_spans",
    "remove_leftovers",
    "store_lost",
    "stored_among",
]

_SLAB = re.compile(r"open-[0-9]{2,}\.slab")
_HIDDEN = ".new"
"""Ends the name of a segment that does not count yet."""

_BYTES_FOR_ONE = 128
"""Of payload for each record, at least: a segment has a directory word for each 96."""

_LATEST = (1 << 63) - 1
"""A later heartbeat (in the year 2262) is damage."""

_SPAN_ID = re.compile(rb"\x12\x08(?=(.{8}))", re.DOTALL)
"""Field 2 of a `Span`, and of a link in one."""

_TAIL = encode_attribute(b"\x4a", "asynctrace.ending", "lost") + encode_status(StatusCode.ERROR)

SpanKey = tuple[str, str]
"""(trace id, span id)"""


class OpenSpans(msgspec.Struct, frozen=True):
    """What the slab tells. `bodies` are partial `Span` messages, without an end, by the ids of the span."""

    heartbeat_ns: int = 0
    bodies: dict[SpanKey, bytes] = {}
    damaged: int = 0
    """Slots, and files, that cannot be read."""


def read_open_spans(files: JournalFiles) -> OpenSpans:
    """Raises `JournalError`; not for damage, which is counted."""
    heartbeat = damaged = 0
    bodies: dict[SpanKey, bytes] = {}
    for name in _slabs(files):
        try:
            reading = _inspect(files, name)
        except JournalDamaged:
            damaged += 1
            continue
        damaged += reading.damaged
        heartbeat = max(heartbeat, reading.heartbeat_ns if reading.heartbeat_ns <= _LATEST else 0)
        for body in reading.bodies:
            key = _key_of(body)
            if key is None:
                damaged += 1
            else:
                bodies[key] = body
    return OpenSpans(heartbeat, bodies, damaged)


def _slabs(files: JournalFiles) -> list[str]:
    try:
        return [name for name in files.names() if _SLAB.fullmatch(name)]
    except OSError as error:
        raise JournalError(f"the journal {files.path} cannot be read: {error.strerror}") from error


def _inspect(files: JournalFiles, name: str) -> SlabReading:
    fd = existing_file(files, name)
    try:
        return inspect_slab(fd, id_bytes(files.meta))
    except OSError as error:
        raise JournalDamaged(f"{name} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)


def _key_of(body: bytes) -> SpanKey | None:
    """Which span it is; None for what is none."""
    try:
        span = decode_span(body)
    except WireError:
        return None
    return (span.trace_id, span.span_id) if len(span.trace_id) == 32 and len(span.span_id) == 16 else None


# ── what is stored already ──────────────────────────────────────────────────────────────────────────────────


def stored_among(keys: Iterable[SpanKey], contents: JournalContents) -> dict[SpanKey, Span]:
    """The records of these spans that the segments hold, whether they are settled or not."""
    wanted = {bytes.fromhex(span_id): (trace_id, span_id) for trace_id, span_id in keys}
    found: dict[SpanKey, Span] = {}
    if wanted:
        for part in contents.held:
            found.update(_stored_in(part, wanted))
    return found


def _stored_in(part: HeldSegment, wanted: dict[bytes, SpanKey]) -> Iterator[tuple[SpanKey, Span]]:
    payload, words = part.segment.view(part.used)
    for match in _SPAN_ID.finditer(payload):
        key = wanted.get(match[1])
        if key is None:
            continue
        span = _decoded(part, bisect_right(words, match.start()))
        if span is not None and (span.trace_id, span.span_id) == key:  # else a link to it, or chance
            yield key, span


def _decoded(part: HeldSegment, slot: int) -> Span | None:
    record = part.segment.payload[part.segment.start_of(slot) : part.segment.start_of(slot + 1)]
    try:
        return decode_records([record])[0]
    except (WireError, IndexError):
        return None


# ── closing ─────────────────────────────────────────────────────────────────────────────────────────────────


def remove_leftovers(directory: JournalDirectory, spares: Iterable[str]) -> None:
    """Delete what holds nothing: spares, and segments of a recoverer that died before they counted. Raises `OSError`."""
    for name in [*spares, *(name for name in directory.names() if name.endswith(_HIDDEN))]:
        directory.unlink(name)


def store_lost(
    directory: JournalDirectory, contents: JournalContents, records: list[bytes], between: Callable[[], object]
) -> ReadSegment:
    """A new segment with these records, numbered after all others. Raises `OSError`, and there is none.

    `between` is called between the steps.
    """
    number = _next_number(directory, contents)
    name = segment_file(number)
    journal_id = id_bytes(directory.meta)
    capacity = max(sum(map(len, records)), _BYTES_FOR_ONE * len(records))
    segment = FileSegment.create(directory.open_file, name + _HIDDEN, journal_id, number, contents.appended, capacity)
    try:
        between()
        _fill(segment, records, between)
        segment.sync(len(records))
    finally:
        segment.close()
    between()
    return _named(directory, name)


def _fill(segment: FileSegment, records: list[bytes], between: Callable[[], object]) -> None:
    end = 0
    for slot, record in enumerate(records):
        start, end = end, end + len(record)
        segment.payload[start:end] = record
        segment.words[slot] = end
        between()


def _named(directory: JournalDirectory, name: str) -> ReadSegment:
    """Let the hidden segment count. It is read before: after the rename nothing can fail any more."""
    segment = open_segment(directory, name + _HIDDEN, "marks")
    if segment is None:
        raise JournalDamaged(f"{name} does not hold what was written to it")
    os.rename(directory.path / (name + _HIDDEN), directory.path / name)
    segment.name = name
    return segment


def _next_number(directory: JournalDirectory, contents: JournalContents) -> int:
    """The number of a segment that comes after all others, whose file has a name of its own."""
    numbers = [part.segment.number for part in contents.held]
    numbers += [index for name in directory.names() if (index := segment_index(name)) is not None]
    return max(numbers, default=-1) + 1


def lost_record(body: bytes, heartbeat_ns: int) -> bytes:
    """The record of a span that its process did not end. Fields that come again count as they stand last."""
    end = max(decode_span(body).start_ns, heartbeat_ns)
    return frame(b"".join((body, b"\x41", end.to_bytes(8, "little"), _TAIL)))


def clear_open_spans(directory: JournalDirectory) -> None:
    """Forget them: each has a record. Raises `OSError`, `JournalDamaged`."""
    sync_folder(directory.path)  # the name of the segment with those records must outlast them
    for name in _slabs(directory):
        fd = existing_file(directory, name, write=True)
        try:
            clear_slab(fd)
            os.fdatasync(fd)
        finally:
            os.close(fd)
