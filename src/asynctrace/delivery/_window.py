"""A window: a run of records that a lane sends as one batch, repeated unchanged until it is settled.

    WAITING ── sent ──▶ FLYING ── settled ──▶ SETTLED ── cursor passes ──▶ gone
       ▲                  │ try again, blocked
       └──────────────────┘
    WAITING ── refused, too large ──▶ two halves, WAITING

Only a definite refusal splits a window: after an ambiguous failure the same records travel again under the same key.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from ..wire import scan_records

__all__ = ["Window", "WindowState"]


class WindowState(enum.Enum):
    """Where a window stands."""

    WAITING = "waiting"
    FLYING = "flying"
    SETTLED = "settled"


class Window:
    """Records `first` to `first + count - 1` and their bytes; once settled, what became of those not accepted."""

    __slots__ = ("attempts", "count", "dropped", "first", "payload", "rejected", "state")

    def __init__(self, first: int, count: int, payload: Sequence[bytes | memoryview]) -> None:
        self.first = first
        self.count = count
        self.payload = payload
        self.state = WindowState.WAITING
        self.attempts = 0
        self.rejected: dict[str, int] = {}
        self.dropped: dict[str, int] = {}

    @property
    def end(self) -> int:
        """The number after its last record."""
        return self.first + self.count

    @property
    def size(self) -> int:
        """Bytes of its records."""
        return sum(map(len, self.payload))

    def settle(self, *, rejected: dict[str, int] | None = None, dropped: dict[str, int] | None = None) -> None:
        """Nothing of it will be sent again; what is neither rejected nor dropped was accepted."""
        self.state = WindowState.SETTLED
        self.payload = ()
        self.rejected = {reason: n for reason, n in (rejected or {}).items() if n}
        self.dropped = {reason: n for reason, n in (dropped or {}).items() if n}

    def halves(self) -> tuple[Window, Window]:
        """Two windows for the records of this one, which has at least two."""
        middle = self.count // 2
        contiguous = memoryview(b"".join(self.payload))
        cut = [end for _, end in scan_records(contiguous)][middle - 1]
        return (
            Window(self.first, middle, (contiguous[:cut],)),
            Window(self.first + middle, self.count - middle, (contiguous[cut:],)),
        )

    @classmethod
    def lost(cls, first: int, count: int, reason: str) -> Window:
        """A settled window for records that were dropped before they could be sent."""
        window = cls(first, count, ())
        window.settle(dropped={reason: count})
        return window
