"""Spans of one trace that came together, as two blobs: a skeleton, and the messages.

    skeleton   MessagePack: ids, parents, kinds, statuses, starts, ends, names, origins, sizes; and what few spans have.
               Columns, because a column of a thousand numbers is read in one step
    body       the OTLP messages laid end to end

Both are compressed with the codec that is noted in the chunk: zstd where it is installed, else zlib. Reading a chunk
needs the codec it was written with.

A chunk has at most `CHUNK_SPANS` spans and about `CHUNK_BYTES` bytes of messages: who wants one span reads no more.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, repeat
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from .._rows import EMPTY, Facts, LogRow, SpanRow
from ._store import StoreError

__all__ = [
    "LOGS",
    "SPANS",
    "Arrived",
    "Codec",
    "Columns",
    "Line",
    "LogLine",
    "Name",
    "best_codec",
    "codec_of",
    "columns_of",
    "decode_logs",
    "decode_skeleton",
    "encode_logs",
    "encode_skeleton",
    "portions",
    "rows_of",
]

SPANS: Final = 0
LOGS: Final = 1
"""What a chunk holds."""

CHUNK_SPANS: Final = 1024
CHUNK_BYTES: Final = 512 * 1024
NO_PARENT: Final = bytes(8)

FEW: Final = ("ending", "session", "user", "input_tokens", "output_tokens", "cost", "events", "links", "dropped")
"""Facts that not every span of one name shares, in the order in which a skeleton has them."""
_few: Final[Callable[[Facts], tuple[Any, ...]]] = attrgetter(*FEW)
NO_FEW: Final = _few(EMPTY)

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder().decode


class Codec:
    """A way to compress. `number` stands in the chunk. One object for each thread that uses it."""

    number = 0

    def compress(self, raw: bytes) -> bytes:
        """The bytes to store."""
        return raw

    def expand(self, stored: bytes) -> bytes:
        """The bytes that were given."""
        return stored


class _Zlib(Codec):
    number = 1

    def compress(self, raw: bytes) -> bytes:
        return zlib.compress(raw, 1)

    def expand(self, stored: bytes) -> bytes:
        return zlib.decompress(stored)


class _Zstd(Codec):
    number = 2

    def __init__(self) -> None:
        import zstandard

        self._compressor = zstandard.ZstdCompressor(level=1)
        self._expander = zstandard.ZstdDecompressor()

    def compress(self, raw: bytes) -> bytes:
        return self._compressor.compress(raw)

    def expand(self, stored: bytes) -> bytes:
        return self._expander.decompress(stored)


def best_codec() -> Codec:
    """zstd where it can be imported, else zlib."""
    try:
        return _Zstd()
    except ImportError:
        return _Zlib()


def codec_of(number: int) -> Codec:
    """The codec with this number. `StoreError` when it is not installed."""
    if number == _Zstd.number:
        try:
            return _Zstd()
        except ImportError:
            raise StoreError(
                "the store was written with zstd, which is not installed: pip install 'asynctrace[zstd]'"
            ) from None
    if number == _Zlib.number:
        return _Zlib()
    if number == Codec.number:
        return Codec()
    raise StoreError(f"the store has chunks of the unknown codec {number}: use the newer asynctrace that wrote it")


Line: TypeAlias = tuple[SpanRow, int, int]
"""A row as it enters a segment: with the numbers that stand for its origin and its name there."""
LogLine: TypeAlias = tuple[LogRow, int]


class Arrived(NamedTuple):
    """Lines of one trace, a column for each of their parts: what is asked of a thousand lines is asked in one step."""

    ids: tuple[bytes, ...]
    parents: tuple[bytes, ...]
    titles: tuple[str, ...]
    """Names of spans, as they came."""
    kinds: tuple[int, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    statuses: tuple[int, ...]
    messages: tuple[bytes, ...]
    facts: tuple[Facts, ...]
    origins: tuple[int, ...]
    names: tuple[int, ...]
    """Numbers of names, and of origins, in the segment."""


class Name(NamedTuple):
    """A row of the table `name`: what many spans share."""

    name: str
    service: str
    facts: Facts
    """Type and model only."""


class Columns(NamedTuple):
    """The skeleton of a chunk. Each has one entry for each span, in order of arrival, but `few`, which has some."""

    ids: list[bytes]
    parents: list[bytes]
    kinds: bytes
    statuses: bytes
    starts: Sequence[int]
    ends: Sequence[int]
    names: list[int]
    origins: list[int]
    sizes: list[int]
    few: dict[int, list[Any]]


def columns_of(lines: Iterable[Line]) -> Arrived:
    """Of one line or more."""
    rows, origins, names = zip(*lines, strict=True)
    _, ids, parents, titles, kinds, starts, ends, statuses, _, messages, facts = zip(*rows, strict=True)
    return Arrived(ids, parents, titles, kinds, starts, ends, statuses, messages, facts, origins, names)


def portions(arrived: Arrived) -> Iterator[Arrived]:
    """The lines, as many at a time as make a chunk."""
    sizes = list(map(len, arrived.messages))
    if len(sizes) <= CHUNK_SPANS and sum(sizes) <= CHUNK_BYTES:
        yield arrived
        return
    first = size = 0
    for position, each in enumerate(sizes, 1):
        size += each
        if size >= CHUNK_BYTES or position - first >= CHUNK_SPANS or position == len(sizes):
            yield Arrived._make(column[first:position] for column in arrived)
            first, size = position, 0


def encode_skeleton(portion: Arrived) -> bytes:
    """The columns of a chunk, not compressed."""
    few = {
        position: some
        for position, each in enumerate(portion.facts)
        if each is not EMPTY and (some := _few(each)) != NO_FEW
    }
    return _encode(
        (
            b"".join(portion.ids),
            b"".join([parent or NO_PARENT for parent in portion.parents]),
            _small(portion.kinds),
            _small(portion.statuses),
            array("Q", portion.starts).tobytes(),
            array("Q", portion.ends).tobytes(),
            portion.names,
            portion.origins,
            list(map(len, portion.messages)),
            few,
        )
    )


def _small(numbers: tuple[int, ...]) -> bytes:
    """A byte for each; what is larger is no kind and no status that OTLP knows."""
    return bytes(numbers if max(numbers) <= 255 else [min(number, 255) for number in numbers])


def decode_skeleton(encoded: bytes) -> Columns:
    """The columns of an expanded skeleton."""
    ids, parents, kinds, statuses, starts, ends, names, origins, sizes, few = _decode(encoded)
    return Columns(
        _eights(ids),
        [b"" if parent == NO_PARENT else parent for parent in _eights(parents)],
        kinds,
        statuses,
        array("Q", starts),
        array("Q", ends),
        names,
        origins,
        sizes,
        few,
    )


def rows_of(
    columns: Columns, trace_id: bytes, body: bytes, names: Mapping[int, Name], origins: Mapping[int, int]
) -> Iterator[SpanRow]:
    """The spans of a chunk; without messages when the body is empty. `origins` says the index of each origin."""
    lasts = list(accumulate(columns.sizes))
    facts = [names[number].facts for number in columns.names]
    for position, some in columns.few.items():
        facts[position] = _facts(facts[position], *some)
    return map(
        SpanRow._make,
        zip(
            repeat(trace_id),
            columns.ids,
            columns.parents,
            [names[number].name for number in columns.names],
            columns.kinds,
            columns.starts,
            columns.ends,
            columns.statuses,
            [origins[number] for number in columns.origins],
            [body[first:last] for first, last in zip([0, *lasts], lasts, strict=False)],
            facts,
            strict=False,
        ),
    )


def encode_logs(lines: Sequence[LogLine]) -> bytes:
    """The columns of a chunk of logs, not compressed."""
    return _encode([(log.span_id, log.time_ns, log.severity, origin, len(log.message)) for log, origin in lines])


def decode_logs(encoded: bytes, trace_id: bytes, body: bytes) -> Iterator[LogRow]:
    """The logs of a chunk; `origin` as in the segment. Without messages when the body is empty."""
    last = 0
    for span_id, time_ns, severity, origin, size in _decode(encoded):
        first, last = last, last + size
        yield LogRow(trace_id, span_id, time_ns, severity, origin, body[first:last])


def _eights(joined: bytes) -> list[bytes]:
    return [joined[first : first + 8] for first in range(0, len(joined), 8)]


def _facts(facts: Facts, *few: Any) -> Facts:
    return facts._replace(**dict(zip(FEW, few, strict=True)))
