"""Journals of processes that are gone, made with the real parts, and how to read them to their end."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

from asynctrace._contracts import Resource, Scope, Span
from asynctrace.spanlog.journal._directory import JournalDirectory, claim
from asynctrace.spanlog.journal._format import JournalMeta, lane_file, segment_file
from asynctrace.spanlog.journal._lane_file import LANE_FILE_BYTES, LaneFile
from asynctrace.spanlog.journal._orphan import OrphanLog
from asynctrace.spanlog.journal._segment_file import FileSegment
from asynctrace.spanlog.journal._slab import OpenSlab
from asynctrace.wire import decode_records, encode_resource, encode_scope, encode_span, frame

BOOT, OTHER_BOOT = "boot-1", "boot-2"
JOURNAL_ID = "8c5e1f0a-54b1-4d0e-9d77-1f2e3d4c5b6a"
ID_BYTES = uuid.UUID(JOURNAL_ID).bytes
CREATED_NS = 1_700_000_000_000_000_000
TRACE = "5b8aa5a2d2c872e8321cf37308d69df2"


def meta(journal_id: str = JOURNAL_ID, service: str = "shop") -> JournalMeta:
    return JournalMeta(
        journal_id=journal_id,
        boot_id=BOOT,
        pid=4711,
        created_ns=CREATED_NS,
        service=service,
        resource=encode_resource(Resource(attributes={"service.name": service})),
        scope=encode_scope(Scope(name="asynctrace")),
    )


def span_of(number: int, *, size: int = 60, **fields: object) -> Span:
    """The span whose id is `number`."""
    start = CREATED_NS + number * 1000
    given = {"name": "n" * size, "start_ns": start, "end_ns": start + 500, "trace_id": TRACE, **fields}
    return Span(span_id=struct.pack(">Q", number).hex(), **given)  # type: ignore[arg-type]


def record_of(number: int, **fields: object) -> bytes:
    return frame(encode_span(span_of(number, **fields)))  # type: ignore[arg-type]


def open_body(number: int, **fields: object) -> bytes:
    """What the slab holds of a span that is open."""
    return encode_span(span_of(number, end_ns=0, **fields)).replace(b"\x41" + bytes(8), b"")  # type: ignore[arg-type]


class DeadJournal:
    """A journal whose process died after `die()`: what it wrote is what the calls before say."""

    def __init__(self, folder: Path, *, lanes: Iterable[str] = ("otlp",), journal_id: str = JOURNAL_ID) -> None:
        self.directory = JournalDirectory.create(folder, meta(journal_id))
        self.path = self.directory.path
        self.id_bytes = uuid.UUID(journal_id).bytes
        self.segments: list[FileSegment] = []
        self.used: list[int] = []
        self.appended = 0
        self.slab = OpenSlab.create(self.directory.open_file, self.id_bytes)
        self.lanes = {
            name: LaneFile.create(self.directory.open_file(lane_file(name), LANE_FILE_BYTES), self.id_bytes, name)
            for name in lanes
        }

    def segment(self, records: Sequence[bytes], *, capacity: int = 16384, synced: int = 0) -> FileSegment:
        """One more segment with these records; `synced` of them are proved by a mark."""
        number = len(self.segments)
        made = FileSegment.create(
            self.directory.open_file, segment_file(number), self.id_bytes, number, self.appended, capacity
        )
        end = 0
        for slot, record in enumerate(records):
            start, end = end, end + len(record)
            made.payload[start:end] = record
            made.words[slot] = end
            if slot + 1 == synced:
                made.sync(synced)
        self.segments.append(made)
        self.used.append(len(records))
        self.appended += len(records)
        return made

    def fill(self, segments: int = 3, each: int = 10, *, synced: int = 0) -> None:
        """Segments of `each` records, whose span ids are their numbers."""
        for _ in range(segments):
            numbers = range(self.appended, self.appended + each)
            self.segment([record_of(number) for number in numbers], synced=synced)

    def die(self) -> Path:
        for part in (*self.segments, self.slab, *self.lanes.values()):
            part.close()
        self.directory.release()
        return self.path


def opened(path: Path, boot_id: str = BOOT, **options: object) -> OrphanLog:
    """The journal at `path`, claimed; `let_go()` ends it."""
    directory = claim(path)
    assert directory is not None, f"{path} cannot be claimed"
    try:
        return OrphanLog.open(directory, boot_id=boot_id, **options)  # type: ignore[arg-type]
    except BaseException:
        directory.release()
        raise


def let_go(log: OrphanLog) -> None:
    log.close()
    log._directory.release()


def numbered_spans(log: OrphanLog, most: int = 7, bytes_at_once: int = 2000) -> dict[int, Span]:
    """Every record from `first` on by its number, cut as a lane cuts them."""
    found: dict[int, Span] = {}
    number = log.next_present(log.first)
    while number < log.appended:
        slices, count = log.read(number, most, bytes_at_once)
        spans = decode_records(slices)
        assert len(spans) == count >= 1, f"{count} records announced at {number}, {len(spans)} there"
        found.update(zip(range(number, number + count), spans, strict=True))
        number = log.next_present(number + count)
    return found


def ids_of(spans: dict[int, Span]) -> dict[int, int]:
    """Record number → the number that is the span's id."""
    return {number: int(span.span_id, 16) for number, span in spans.items()}
