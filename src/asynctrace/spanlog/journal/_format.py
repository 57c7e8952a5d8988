"""What the files of a journal look like: names, constants, and the two checksums that everything hangs on.

A segment file, `NNNNNNNN.seg`; its size is a multiple of 4096:

    ┌─ header, 4096 ──────────────────────┬─ payload, `capacity` ───────────────┬─ directory ─────────────┐
    │ fields, crc │ mark 0 │ mark 1 │ 0 … │ record 0 │ record 1 │ …    (free)   │ word 0 │ word 1 │ … 0  0 │
    └─────────────────────────────────────┴─────────────────────────────────────┴─────────────────────────┘

Header, as little-endian 8-byte words:

    0  magic        1  version   2  state: 0 unfinished, FREE, or 1 << 32 | crc32 of the words 0, 1 and 3…15
    3  number       4  capacity  5  slots       6  base      7, 8  journal id     9…15  0

Each mark lies in a block of 512 bytes of its own, words:

    0  sequence     1  records   2  end         3  crc of the payload | crc of the directory << 32
    4  1 << 32 | crc32 of the words 0…3

Every crc of a mark, and each of the two in its word 3, starts from the header's crc, and no two lives of a file have the same
header: what a mark of an earlier life proved, it proves no more.

Magic, version and state keep their places, and the crc what it covers, in every later version of this format: so that
damage and a newer version can be told apart.
"""

from __future__ import annotations

import re
import zlib
from typing import Final
from urllib.parse import quote, unquote

import msgspec

from ..._errors import JournalDamaged, JournalFromNewerVersion

__all__ = [
    "FORMAT_VERSION",
    "HEADER_BYTES",
    "BLOCK_BYTES",
    "PAGE_BYTES",
    "LARGEST_SEGMENT",
    "END_MASK",
    "MAGIC",
    "FREE",
    "SEALED",
    "MAGIC_AT",
    "VERSION_AT",
    "STATE_AT",
    "NUMBER_AT",
    "CAPACITY_AT",
    "SLOTS_AT",
    "BASE_AT",
    "ID_AT",
    "FIELD_WORDS",
    "MARKS_AT",
    "MARK_WORDS",
    "LOCK_FILE",
    "META_FILE",
    "JournalMeta",
    "ancestors_of",
    "decode_meta",
    "encode_meta",
    "header_crc",
    "id_bytes",
    "lane_file",
    "lane_of",
    "line_of_descent",
    "mark_crc",
    "mark_seed",
    "segment_file",
    "segment_index",
    "slab_file",
]

FORMAT_VERSION: Final = 1
HEADER_BYTES: Final = 4096
"""One page, so that the payload begins on one."""
PAGE_BYTES: Final = 4096
BLOCK_BYTES: Final = 512
"""The smallest unit that a disk writes wholly or not at all."""
LARGEST_SEGMENT: Final = (1 << 28) - 8
"""Payload bytes that an end offset of 28 bits can address."""
END_MASK: Final = (1 << 28) - 1
"""A directory word is `end offset : 28 | kind : 4 | scope : 16 | spare : 16`; kind and scope are 0 in this version."""

MAGIC: Final = int.from_bytes(b"ATRCSEG\n", "little")
FREE: Final = int.from_bytes(b"FREE", "little")
"""State of a segment that holds nothing and may be half zeroed: a spare, or one that is being used anew."""
SEALED: Final = 1 << 32
"""Set in every word that holds a crc, so that a crc of 0 is not taken for a word that was never written."""

MAGIC_AT, VERSION_AT, STATE_AT, NUMBER_AT, CAPACITY_AT, SLOTS_AT, BASE_AT, ID_AT = range(8)
FIELD_WORDS: Final = 16
MARK_WORDS: Final = 5
MARKS_AT: Final = (1024 // 8, 1536 // 8)
"""The words at which the two marks begin: blocks of their own, which nothing else is written to."""

LOCK_FILE: Final = "lock"
META_FILE: Final = "meta"

_ID_BYTES = 16
_LONGEST_LINE = 32
"""Ancestors that are written down: a program that goes on in its forked child again and again has no end of them."""
_LONGEST_LANE = 200
"""Characters of a quoted lane name in a file name, which most file systems bound at 255 bytes."""


def header_crc(header: memoryview) -> int:
    """The crc32 of the fields of a header, its state left out. `header` are its words."""
    return zlib.crc32(header[STATE_AT + 1 : FIELD_WORDS], zlib.crc32(header[:STATE_AT]))


def mark_seed(header: memoryview) -> int:
    """What every crc of a mark starts from, so that it proves nothing below another header."""
    return header_crc(header)


def mark_crc(mark: memoryview, seed: int) -> int:
    """The crc32 of a mark, of its words."""
    return zlib.crc32(mark[: MARK_WORDS - 1], seed)


class JournalMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What one process says of itself and its journal, written once, before its first span."""

    version: int = FORMAT_VERSION
    journal_id: str
    """A UUID as text; also the first part of the key of every request: `<journal_id>:<first>:<count>`."""
    boot_id: str
    """Of the kernel that ran it: under another one, memory that was not synced is gone."""
    pid: int
    created_ns: int
    service: str
    resource: bytes
    """An encoded OTLP Resource message."""
    scope: bytes
    """An encoded OTLP InstrumentationScope message."""
    parent: str = ""
    """The id of the journal of the process that this one was made from, for the same tracer; before it, each with a `/`
    behind it, those of the processes that that one came from, the oldest first. Empty for a process that was started by
    itself. Their journals may be gone, or never have been."""


class _Version(msgspec.Struct):
    version: int


def encode_meta(meta: JournalMeta) -> bytes:
    """The file `meta`: one line of JSON, and one with the crc32 of it as eight hexadecimal digits."""
    line = msgspec.json.encode(meta)
    return b"%s\n%08x\n" % (line, zlib.crc32(line))


def decode_meta(content: bytes) -> JournalMeta:
    """Raises `JournalDamaged`, or `JournalFromNewerVersion` when a newer version wrote it."""
    line, _, rest = content.partition(b"\n")
    if rest != b"%08x\n" % zlib.crc32(line):
        raise JournalDamaged("the file `meta` is damaged: its checksum is wrong")
    try:
        version = msgspec.json.decode(line, type=_Version).version
        if version > FORMAT_VERSION:
            raise JournalFromNewerVersion(f"the journal has format version {version}, this is {FORMAT_VERSION}")
        return msgspec.json.decode(line, type=JournalMeta)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JournalDamaged(f"the file `meta` is damaged: {error}") from error


def line_of_descent(parent: str, journal_id: str) -> str:
    """`JournalMeta.parent` for the children of the process that has this `parent` and this journal itself."""
    line = [*filter(None, parent.split("/")), journal_id]
    return "/".join(line[-_LONGEST_LINE:])


def ancestors_of(meta: JournalMeta) -> list[str]:
    """The ids of the journals of the processes that this one came from, the oldest first."""
    return [*filter(None, meta.parent.split("/"))]


def id_bytes(meta: JournalMeta) -> bytes:
    """The journal's id as the headers of its files hold it. Raises `JournalDamaged` for what is no UUID."""
    try:
        found = bytes.fromhex(meta.journal_id.replace("-", ""))
    except ValueError:
        found = b""
    if len(found) != _ID_BYTES:
        raise JournalDamaged(f"{meta.journal_id!r:.80} is no journal id")
    return found


def segment_file(index: int) -> str:
    """The name of the segment file made as number `index`. A file that is used anew keeps its name."""
    return f"{index:08}.seg"


def segment_index(name: str) -> int | None:
    """The number in the name of a segment file; None for other names."""
    return int(name[:-4]) if re.fullmatch(r"[0-9]{8,}\.seg", name) else None


def slab_file(index: int) -> str:
    """The name of the file of open spans number `index`."""
    return f"open-{index:02}.slab"


def lane_file(lane: str) -> str:
    """The name of a lane's file. The name of a lane that is too long is cut, and told from others by its crc32."""
    quoted = quote(lane, safe="", errors="surrogatepass")
    if len(quoted) > _LONGEST_LANE:
        quoted = f"{quoted[:_LONGEST_LANE]}~{zlib.crc32(quoted.encode()):08x}"
    return f"{quoted}.lane"


def lane_of(name: str) -> str | None:
    """The lane whose file has this name, up to what was cut; None for names of other files."""
    return unquote(name[:-5], errors="surrogatepass") if name.endswith(".lane") else None
