"""The journal: a span log whose segments are files, so that the next process can deliver what this one could not."""

from ._format import FORMAT_VERSION, HEADER_BYTES, JournalMeta, decode_meta, encode_meta
from ._segment_file import FileSegment
from ._segment_reader import ReadSegment, read_segment

__all__ = [
    "FORMAT_VERSION",
    "HEADER_BYTES",
    "FileSegment",
    "JournalMeta",
    "ReadSegment",
    "decode_meta",
    "encode_meta",
    "read_segment",
]
