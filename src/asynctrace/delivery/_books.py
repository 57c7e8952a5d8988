"""A lane's books: what became of the records below its cursor, and of those that were lost above it."""

from __future__ import annotations

import msgspec

from .._contracts import LaneReceipt

__all__ = ["Books", "add"]


class Books(msgspec.Struct, frozen=True):
    """Replaced as a whole, so that a receipt taken by another thread balances."""

    cursor: int = 0
    cut: int = 0
    """Records below it are in a window, or settled."""
    rejected: dict[str, int] = {}
    dropped: dict[str, int] = {}
    ahead: dict[str, int] = {}
    """Dropped above the cursor: nobody waits for them, although the cursor cannot pass them yet."""

    def receipt(self, appended: int, refused: dict[str, int], held_from: int, *, is_kept: bool) -> LaneReceipt:
        """The balance, given how many records the log took and refused, and from which number on it holds them; `is_kept`:
        what waits does so in the journal, for another process."""
        rejected = self.rejected
        ahead = dict(self.ahead)
        if evicted := max(0, held_from - self.cut):  # the lane will notice when it runs again
            add(ahead, {"evicted": evicted})
        lost_ahead = sum(ahead.values())
        appended = max(appended, self.cursor + lost_ahead)
        waiting = appended - self.cursor - lost_ahead
        dropped: dict[str, int] = {}
        for part in (self.dropped, ahead, refused):
            add(dropped, part)
        return LaneReceipt(
            ended=appended + sum(refused.values()),
            accepted=self.cursor - sum(rejected.values()) - sum(self.dropped.values()),
            rejected=sum(rejected.values()),
            dropped=sum(dropped.values()),
            spooled=waiting if is_kept else 0,
            pending=0 if is_kept else waiting,
            rejected_by_reason=dict(rejected),
            dropped_by_reason=dropped,
        )


def add(total: dict[str, int], more: dict[str, int]) -> None:
    """Sum up by reason, in `total`."""
    for reason, count in more.items():
        total[reason] = total.get(reason, 0) + count
