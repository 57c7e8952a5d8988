"""What a far side refused for good, as a value: a lane collects them, its driver's home takes them away."""

from __future__ import annotations

import msgspec

__all__ = ["Rejection"]


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """Of the records `first` to `first + records - 1` of a log `count` were refused."""

    first: int
    records: int
    count: int
    """Less than `records` where the far side did not say which: a partial success."""
    reason: str
    detail: str = ""
    payload: bytes = b""
    """All `records`, as they were refused; empty where nobody keeps them."""
