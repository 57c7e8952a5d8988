"""A lane that may not send rests: it costs no CPU, and what it left on another loop is not forgotten."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from asynctrace import DeliveryOptions, ExportResult, Tracer


class Away:
    """Asks for a minute's rest, or hangs for as long."""

    name = "away"

    def __init__(self, *, hangs: bool) -> None:
        self._hangs = hangs

    async def export(self, batch: Any) -> ExportResult:
        if self._hangs:
            await asyncio.sleep(60)
        return ExportResult.try_again(after=60.0)

    async def aclose(self) -> None:
        return


@pytest.mark.parametrize("hangs", [False, True])
def test_a_lane_with_a_backlog_that_may_not_send_costs_no_cpu(hangs: bool) -> None:
    async def main() -> float:
        async with Tracer(service="rests", exporters=[Away(hangs=hangs)], shutdown_timeout=0.05) as tracer:
            for _ in range(6_000):
                async with tracer.trace("span"):
                    pass
            await asyncio.sleep(0.3)
            before = time.process_time()
            await asyncio.sleep(0.5)
            return time.process_time() - before

    assert asyncio.run(main()) < 0.25


class HangsOnce:
    name = "hangs once"

    def __init__(self) -> None:
        self.requests = 0

    async def export(self, batch: Any) -> ExportResult:
        self.requests += 1
        if self.requests == 1:
            await asyncio.sleep(60)
        return ExportResult.all_accepted(batch)

    async def aclose(self) -> None:
        return


def test_a_request_on_a_loop_that_stopped_is_sent_again_by_the_next_loop() -> None:
    options = DeliveryOptions(linger=0.0)
    tracer = Tracer(service="rests", exporters=[HangsOnce()], delivery=options, shutdown_timeout=0.1)
    loop = asyncio.new_event_loop()

    async def trace() -> None:
        async with tracer.trace("span"):
            pass
        await asyncio.sleep(0.05)

    try:
        loop.run_until_complete(trace())
        assert asyncio.run(tracer.flush(timeout=1.0)).complete
    finally:
        tracer.shutdown_sync()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks))
        loop.close()
