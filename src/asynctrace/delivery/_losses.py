"""What lanes and log lost, told each time once: refused records become dead letters, everything becomes a notice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from .._contracts import Receipt
from ._batch import Origin
from ._callbacks import Callbacks, DeliveryNotice
from ._dead_letters import DeadLetters
from ._lane import Lane

__all__ = ["Losses"]

_LOOK_AGAIN = 0.01
"""Seconds; only while a shutdown waits."""


class Losses:
    """Of the lanes of one log, which `origin` names."""

    def __init__(self, origin: Origin, dead_letters: DeadLetters | None, callbacks: Callbacks | None) -> None:
        self._origin = origin
        self._dead_letters = dead_letters
        self._callbacks = callbacks
        self._told: dict[tuple[str, str], int] = {}

    def watch(self, lanes: Iterable[Lane]) -> None:
        """Have `lanes` hand over the bytes of what is refused, if anybody keeps them."""
        for lane in lanes:
            lane.keeps_rejected = self._dead_letters is not None

    def take_rejections(self, lane: Lane) -> None:
        """Keep, and tell of, what `lane` had refused since the last call."""
        for rejection in lane.take_rejections():
            if self._dead_letters is not None:
                self._dead_letters.put(lane.name, self._origin, rejection)
            if self._callbacks is not None:
                notice = DeliveryNotice(
                    kind="reject",
                    lane=lane.name,
                    reason=rejection.reason,
                    count=rejection.count,
                    detail=rejection.detail,
                    first=rejection.first,
                    journal_id=self._origin.log_id,
                )
                self._callbacks.tell(notice)

    def tell_drops(self, receipt: Receipt, refused: Mapping[str, int]) -> None:
        """Tell of the drops in `receipt` that are new. `refused` came to no lane: it is told once, not for each."""
        if self._callbacks is None or not self._callbacks.wants("drop"):
            return
        for lane, reason, count in self._news(_dropped(receipt, refused)):
            self._callbacks.tell(
                DeliveryNotice(kind="drop", lane=lane, reason=reason, count=count, journal_id=self._origin.log_id)
            )

    def pass_over(self, receipt: Receipt, refused: Mapping[str, int]) -> None:
        """What is in `receipt` was told by another process."""
        self._news(_dropped(receipt, refused))

    def tell_spooled(self, receipt: Receipt) -> None:
        """Tell of what each lane leaves in the journal."""
        for name, lane in receipt.lanes.items():
            if self._callbacks is not None and lane.spooled:
                self._callbacks.tell(
                    DeliveryNotice(kind="spool", lane=name, count=lane.spooled, journal_id=self._origin.log_id)
                )

    async def wait_until_told(self, timeout: float) -> None:
        """Return when every letter is written and every callback was called, or after `timeout` seconds."""
        end = asyncio.get_running_loop().time() + timeout
        if self._callbacks is not None:
            await self._callbacks.drained(timeout)
        while not (self._dead_letters is None or self._dead_letters.is_idle):
            if asyncio.get_running_loop().time() >= end:
                return
            await asyncio.sleep(_LOOK_AGAIN)

    def _news(self, dropped: Mapping[tuple[str, str], int]) -> list[tuple[str, str, int]]:
        found = []
        for (lane, reason), count in dropped.items():
            more = count - self._told.get((lane, reason), 0)
            if more > 0:
                self._told[lane, reason] = count
                found.append((lane, reason, more))
        return found


def _dropped(receipt: Receipt, refused: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """By lane and reason; the lane of what came to no lane is the empty text."""
    if not receipt.lanes:
        return {("", reason): count for reason, count in receipt.dropped_by_reason.items()}
    found = {("", reason): count for reason, count in refused.items()}
    for name, lane in receipt.lanes.items():
        for reason, count in lane.dropped_by_reason.items():
            found[name, reason] = count - refused.get(reason, 0)
    return found
