"""A traced program that runs for long: so many spans a second, and at the end one line of JSON about itself.

    python subject.py '{"url": …, "rate": 1000, "seconds": 20, …}'

Its spans are numbered from 1 in the order in which they end; the number is the span id.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from typing import Any

from doubles import DOUBLES

from asynctrace import DeliveryOptions, Tracer
from asynctrace.exporters import OTLPExporter


class Numbers:
    """Ids of spans count up; each span is a run of its own."""

    def __init__(self) -> None:
        self.last = 0

    def trace_id(self) -> bytes:
        return (self.last + 1).to_bytes(16, "big")

    def span_id(self) -> bytes:
        self.last += 1
        return self.last.to_bytes(8, "big")


class Samples:
    """The memory of this process, and how late its loop runs, by the second."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self.resident: list[tuple[float, int]] = []
        self.lags: list[float] = []

    async def run(self) -> None:
        began = time.monotonic()
        while True:
            due = time.monotonic() + self._interval
            await asyncio.sleep(self._interval)
            now = time.monotonic()
            self.lags.append(now - due)
            self.resident.append((now - began, _resident()))


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


async def make_spans(tracer: Tracer, rate: int, seconds: float) -> int:
    """Every 10 ms what is due by the clock; how many spans were ended."""
    began, made = time.monotonic(), 0
    while (passed := time.monotonic() - began) < seconds:
        while made < passed * rate:
            await make_span(tracer, made)
            made += 1
        await asyncio.sleep(0.01)
    return made


async def make_span(tracer: Tracer, number: int) -> None:
    async with tracer.trace("work") as run:
        run.set_attribute("shop", "tea")
        run.set_attribute("number", number)


async def main(settings: dict[str, Any]) -> None:
    double = DOUBLES[settings["double"]]
    exporter = double.exporter(OTLPExporter(settings["url"], timeout=settings["timeout"]))
    samples = Samples(settings["seconds"] / 80)
    async with double.tracer(
        service="soak",
        exporters=[exporter],
        delivery=DeliveryOptions(**settings["delivery"]),
        journal=settings["journal"] or False,
        ids=Numbers(),
        shutdown_timeout=settings["shutdown_timeout"],
    ) as tracer:
        await make_span(tracer, 0)
        await tracer.flush()  # everything is loaded that a request needs
        sampling = asyncio.create_task(samples.run())
        made = 1 + await make_spans(tracer, settings["rate"], settings["seconds"])
        sampling.cancel()
        receipt = await tracer.shutdown()
    print(
        json.dumps(
            {
                "made": made,
                "receipt": {
                    field: getattr(receipt, field)
                    for field in ("ended", "accepted", "rejected", "dropped", "spooled", "pending")
                },
                "reasons": {**receipt.dropped_by_reason, **receipt.rejected_by_reason},
                "resident": samples.resident,
                "lags": samples.lags,
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
