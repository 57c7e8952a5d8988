"""The names of the keys, and which of a cluster's 16,384 slots a name lies in.

    at:{07}:in     stream   one entry for each message           at:{07}:infl   claim manifest: the batch somebody works on
    at:{07}:bytes  counter  bytes of the entries                 at:{07}:lease  who works on it, and until when
    at:{07}:lost   counter  entries that vanished                at:{07}:dlq    messages that nobody can store

    at:{shards}:count       how many shards there have ever been

Promises: every key of a shard has the same tag and therefore the same slot, whatever the prefix; two prefixes never share
a key; a name holds neither a brace outside its tag nor a character that means something in a glob, so that a name is
also its own pattern in an ACL.

Source: Redis cluster specification, "Hash tags" and appendix A (CRC16, XMODEM).
"""

from __future__ import annotations

from binascii import crc_hqx
from typing import Final
from urllib.parse import quote

import msgspec

from .._errors import ConfigurationError

__all__ = ["MOST_SHARDS", "SLOTS", "ShardKeys", "count_key", "escape_prefix", "shard_keys", "slot_of"]

SLOTS: Final = 16384
MOST_SHARDS: Final = 1024
"""More would only be polled; a master holds hundreds."""

_PLAIN: Final = "-._~:"
"""Characters of a prefix that stand as they are, beside letters and digits; all others become `%XX` of their UTF-8."""


class ShardKeys(msgspec.Struct, frozen=True):
    """The keys of one shard, all in `slot`."""

    shard: int
    slot: int
    entries: str
    bytes: str
    lost: str
    manifest: str
    lease: str
    dead: str


def shard_keys(prefix: str, shard: int) -> ShardKeys:
    """The keys of shard number `shard`. The tag is the number, with at least two digits."""
    root = f"{escape_prefix(prefix)}:{{{shard:02d}}}"
    names = (f"{root}:{name}" for name in ("in", "bytes", "lost", "infl", "lease", "dlq"))
    return ShardKeys(shard, slot_of(root), *names)


def count_key(prefix: str) -> str:
    """The key that remembers the largest number of shards."""
    return f"{escape_prefix(prefix)}:{{shards}}:count"


def escape_prefix(prefix: str) -> str:
    """The prefix as it stands in names. `ConfigurationError` for an empty one."""
    if not prefix:
        raise ConfigurationError('prefix must have at least one character, as in prefix="at"')
    return quote(prefix.encode("utf-8", "surrogatepass"), safe=_PLAIN)


def slot_of(key: str | bytes) -> int:
    """The slot of a key: of what stands between its first `{` and the next `}`, if anything does, else of all of it."""
    name = key.encode() if isinstance(key, str) else key
    start = name.find(b"{")
    end = name.find(b"}", start + 1)
    if start >= 0 and end > start + 1:
        name = name[start + 1 : end]
    return crc_hqx(name, 0) % SLOTS
