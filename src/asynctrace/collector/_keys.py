"""The key of a request: which records of which log it carries.

    x-asynctrace-key: <log id>:<number of the first record>:<how many>

A sender repeats a request that was not answered, and the process that comes after a dead one repeats what that had under
way, always under the same key; after a refusal it repeats parts of it. So a request whose records were all stored is
known by its key, whatever became of the answer.

Promises: a key that is none is ignored, never an error, and costs time in proportion to at most 128 characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

__all__ = ["KEY_HEADER", "RequestKey", "parse_key"]

KEY_HEADER: Final = "x-asynctrace-key"

LONGEST_KEY: Final = 128
"""Characters. A log id is a UUID of 36; the numbers have at most 18 digits each."""

_KEY: Final = re.compile(r"([0-9A-Za-z._-]{1,64}):(0|[1-9][0-9]{0,17}):([1-9][0-9]{0,17})", re.ASCII)


class RequestKey(msgspec.Struct, frozen=True):
    """Records `first` to `first + count - 1` of the log that is called `log_id` for ever."""

    log_id: str
    first: int
    count: int

    @property
    def end(self) -> int:
        """The number after the last record; fits SQLite's integers."""
        return self.first + self.count


def parse_key(values: Sequence[str], spans: int) -> RequestKey | None:
    """The key among the header's `values`, if there is one that can be believed for a body of `spans` spans.

    None for no key, several, a malformed one, and one that counts other spans than there are: somebody on the way
    put requests together, or took them apart, and kept the header.
    """
    if len(values) != 1 or len(values[0]) > LONGEST_KEY:
        return None
    found = _KEY.fullmatch(values[0])
    if found is None or int(found[3]) != spans:
        return None
    return RequestKey(found[1], int(found[2]), int(found[3]))
