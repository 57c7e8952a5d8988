"""A traced program that is killed at any moment, and notes of each span that it was ended, where no kill takes it away.

    python worker.py '{"url": …, "oracle": …, "slot": 0, "life": 0, "spans": 1000, …}'

The oracle page is one byte for each span of each life, set once `end()` has returned. The id of a span says which.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import sys
from typing import Any

from kill_doubles import KILL_DOUBLES
from numbering import number_of, place_of

from asynctrace import DeliveryOptions, Tracer
from asynctrace.exporters import OTLPExporter

IN_A_BURST = 20


class Numbers:
    """Ids that name slot, life and the number of the span in it."""

    def __init__(self, slot: int, life: int) -> None:
        self._first = number_of(slot, life, 0)
        self._last = -1

    def trace_id(self) -> bytes:
        return (self._first + self._last + 1 | 1 << 64).to_bytes(16, "big")

    def span_id(self) -> bytes:
        self._last += 1
        return (self._first + self._last).to_bytes(8, "big")


async def burst(tracer: Tracer, page: mmap.mmap, settings: dict[str, Any]) -> None:
    async with tracer.trace("burst") as run:
        for _ in range(IN_A_BURST - 1):
            async with tracer.trace_component("work", type="tool") as component:
                component.set_attribute("shop", "tea")
            page[place_of(int(component.span_id, 16), settings["most"])] = 1
    page[place_of(int(run.span_id, 16), settings["most"])] = 1


def oracle_page(path: str) -> mmap.mmap:
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), 0)


async def main(settings: dict[str, Any]) -> None:
    page = oracle_page(settings["oracle"])
    async with KILL_DOUBLES[settings["double"]](
        service="kills",
        exporters=[OTLPExporter(settings["url"], timeout=1.0)],
        delivery=DeliveryOptions(**settings["delivery"]),
        journal=settings["journal"],
        ids=Numbers(settings["slot"], settings["life"]),
        shutdown_timeout=60.0,
    ) as tracer:
        print("begins", flush=True)
        for _ in range(settings["spans"] // IN_A_BURST):
            await burst(tracer, page, settings)
            await asyncio.sleep(settings["pause"])


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
