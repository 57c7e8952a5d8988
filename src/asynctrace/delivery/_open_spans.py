"""Notices of spans that are still open, for far sides that asked for them.

    an export is answered with `x-asynctrace-open-spans: 1` ──▶ the exporter `takes_open_spans`
    a span is open for 200 ms ──▶ a notice          … and again every 5 s, until it ends

Promises: a notice is in no book, is sent once and never again, and is not waited for; a far side that did not ask never
sees one; there is one request at a time, beside those of the lane, and none once the lane leaves its loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from .._contracts import Batch, Exporter, OpenSpan

__all__ = ["OpenSpanSource", "Heartbeat", "Schedule"]

OpenSpanSource = Callable[[], Iterable[OpenSpan]]

FIRST_AFTER: Final = 0.2
"""Seconds. Most spans are shorter, and are never told of before they end."""
AGAIN_AFTER: Final = 5.0
"""Seconds; a far side takes a span for lost after three times as long."""
LOOK_EVERY: Final = 0.1
REST: Final = 50
"""Times as long as a look took is rested before the next: a hundred thousand open spans cost 2 % of a core."""
MOST_AT_ONCE: Final = 1 << 20
"""Bytes of one request; what does not fit comes with the next look."""
SEND_WITHIN: Final = 5.0
"""Seconds."""


class Schedule:
    """Which open spans are due, decided without waiting."""

    def __init__(self) -> None:
        self._told: dict[bytes, float] = {}

    def due(self, spans: Iterable[OpenSpan], now: float) -> list[bytes]:
        """Records for the spans that have to be told of at `now`, as many as one request holds."""
        records: list[bytes] = []
        room = MOST_AT_ONCE
        told: dict[bytes, float] = {}
        for span in spans:
            last = self._told.get(span.span_id)
            is_due = span.age >= FIRST_AFTER if last is None else now - last >= AGAIN_AFTER
            if is_due and room > 0 and (record := _record(span)):
                records.append(record)
                room -= len(record)
                last = now
            if last is not None:
                told[span.span_id] = last
        self._told = told  # what has ended is forgotten
        return records


def _record(span: OpenSpan) -> bytes:
    """Empty where it cannot be told now: its program may be changing it at this moment."""
    try:
        return span.record()
    except Exception:  # noqa: BLE001  (the next look may see more, and the others are told of)
        return b""


class Heartbeat:
    """Tells one exporter, from one loop, as long as `run()` is not cancelled."""

    def __init__(self, exporter: Exporter, source: OpenSpanSource, make_batch: Callable[[list[bytes]], Batch]) -> None:
        self._exporter: Any = exporter
        self._source = source
        self._make_batch = make_batch
        self._schedule = Schedule()

    async def run(self) -> None:
        pause = LOOK_EVERY
        while True:
            await asyncio.sleep(pause)
            if self._exporter.takes_open_spans:
                pause = await self._look()

    async def _look(self) -> float:
        """Tell of what is due; the seconds until the next look."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        with suppress(Exception):  # nothing here may matter to anybody
            records = self._schedule.due(self._source(), began)
            took = loop.time() - began
            if records:
                async with asyncio.timeout(SEND_WITHIN):
                    await self._exporter.export_open(self._make_batch(records))
            return max(LOOK_EVERY, REST * took)
        return AGAIN_AFTER
