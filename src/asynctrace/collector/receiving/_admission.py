"""How much may be under way at once, and what is said to whom comes then.

Promises: the bytes that are read, decoded or waiting are bounded; whoever leaves gives its share back, however it leaves.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["Admission", "Behind", "Ticket"]


class Behind(Exception):
    """The collector cannot take more at the moment; the sender should come again, after `retry_after` seconds.

    `status` is the HTTP status: 503, or 429 where what is behind the collector has no room for more.
    """

    def __init__(
        self,
        reason: str = "the collector is behind, send this again",
        *,
        retry_after: float = 1.0,
        status: Literal[429, 503] = 503,
    ) -> None:
        super().__init__(reason)
        self.reason, self.retry_after, self.status = reason, retry_after, status


class Admission:
    """Bounds the bytes that are read, decoded or waiting for their commit. Belongs to one event loop.

    One body may pass the bound when no other is there, else a large one could never enter.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0

    def ticket(self) -> Ticket:
        """A share of the room, empty at first; leave its `with` block to give it back."""
        return Ticket(self)


class Ticket:
    """The share of one body."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.size = 0

    def grow(self, size: int) -> None:
        """Take `size` more bytes; `Behind` when there is no room."""
        admission = self._admission
        if admission.used + size > admission.capacity and admission.used > self.size:
            raise Behind
        admission.used += size
        self.size += size

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *exc: object) -> None:
        self._admission.used -= self.size
        self.size = 0
