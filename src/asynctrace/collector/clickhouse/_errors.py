"""What ClickHouse's errors mean: one line that names the server and says what to do.

A `ServerAway` may be gone in a while: the same call is worth repeating. Any other `StoreError` needs a person.
"""

from __future__ import annotations

import re
from typing import Final

from ..store import StoreError

__all__ = ["ServerAway", "ServerRefused", "refused"]


class ServerAway(StoreError):
    """ClickHouse cannot be reached, does not answer in time, or is busy: what was asked may have been done or not."""


class ServerRefused(StoreError):
    """ClickHouse answered with an error. `code` is ClickHouse's."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


WRONG_USER: Final = "refuses the user: check user name and password in the store's URL"
RIGHTS: Final = "SELECT, INSERT, ALTER DELETE, CREATE TABLE, CREATE VIEW, DROP TABLE"
NO_RIGHT: Final = f"does not let this user do that: GRANT {RIGHTS} on its database"
FULL: Final = "cannot write, its disk is full: free some space, or keep less (a smaller bound of size or age)"
BUSY: Final = "has too much to do"

WAYS_OUT: Final = {
    **dict.fromkeys((192, 193, 194, 516), WRONG_USER),
    497: NO_RIGHT,
    164: "takes nothing from this user, who is read-only: give one with the right to write",
    81: "has no such database: create it, or correct the name in the store's URL",
    60: "has not the tables of a store here: start a worker on this database first, or correct the store's URL",
    243: FULL,
}
"""By ClickHouse's number (src/Common/ErrorCodes.cpp)."""

PASSING: Final = {
    159: "took longer than it may",
    202: f"{BUSY}: too many queries at once",
    209: "waited too long for the network",
    210: "has trouble with its network",
    241: f"{BUSY}: not enough memory",
    242: "cannot write this table for the moment",
    252: f"{BUSY}: more parts than it can merge; fewer and larger inserts help",
    394: "gave the query up",
    425: "has trouble with its disk",
    999: "has trouble with its Keeper",
}

_CODE: Final = re.compile(r"Code: (\d+)")
LONGEST_REASON: Final = 300
"""Characters of the server's own words that are passed on."""


def refused(place: str, text: str, status: int, code: str = "") -> StoreError:
    """For an answer with an error in it. `code` is that of the header, where there is one."""
    found = int(code) if code.isdigit() else _code_in(text)
    reason = " ".join(text.split())[:LONGEST_REASON]
    if not found:
        return _not_clickhouse(place, status, reason)
    if "No space left on device" in text:
        found = 243
    if found in PASSING:
        return ServerAway(f"ClickHouse at {place} {PASSING[found]} ({reason})")
    return ServerRefused(f"ClickHouse at {place} {WAYS_OUT.get(found, 'refuses')} ({reason})", found)


def _code_in(text: str) -> int:
    match = _CODE.search(text)
    return int(match[1]) if match is not None else 0


def _not_clickhouse(place: str, status: int, reason: str) -> StoreError:
    if status in (429, 502, 503, 504):  # of a proxy before it
        return ServerAway(f"ClickHouse at {place} is away (HTTP {status} {reason})")
    return StoreError(
        f"{place} answers, but not as ClickHouse does: its HTTP interface has port 8123, not 9000 (HTTP {status} {reason})"
    )
