"""Where a request goes when it was read: the writer of this process's store, or a stream to other processes.

Promises of a sink: `take()` returns when what it was given outlives the process, and raises when it does not. Then the sender
is told so, and nothing else is known of the request here.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from .._rows import Received
from ._signals import Signal

__all__ = ["Sent", "Sink"]


class Sent(NamedTuple):
    """A request as its sender sent it."""

    signal: Signal
    content_type: str
    """`application/x-protobuf` or `application/json`."""
    encoding: str
    """Of `body`: `identity`, `gzip`, `deflate` or `zstd`."""
    body: bytes


class Sink(Protocol):
    """Takes requests over."""

    async def take(self, received: Received, sent: Sent) -> None:
        """Keep what was read of a request, or the request itself. `Behind`, `Refused`, `StoreError`."""
        ...
