"""Hard cases: what a tracer must survive although nobody does it on purpose."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from asynctrace import DeliveryOptions, DeliveryTimeout, ExportResult, Tracer
from asynctrace.exporters import MemoryExporter, OTLPExporter
from asynctrace.testing import Accept, Delay, FaultServer, Hang

from .harness import (
    QUICK,
    assert_arrived_once,
    assert_balanced,
    assert_complete,
    end_spans,
    within,
)

pytestmark = pytest.mark.anyio


class NeverAnswers:
    name = "never answers"

    async def export(self, batch: Any) -> ExportResult:
        await asyncio.Event().wait()
        raise AssertionError

    async def aclose(self) -> None:
        pass


# ── lanes beside one another ────────────────────────────────────────────────────────────────────────────────


async def test_a_lane_that_hangs_costs_the_others_no_span() -> None:
    memory = MemoryExporter()
    async with Tracer(
        service="shop",
        exporters=[memory, NeverAnswers()],
        delivery=QUICK,
        capacity_bytes=1 << 20,
        when_full="drop_oldest",
        shutdown_timeout=0.1,
    ) as tracer:
        for _ in range(100):
            await end_spans(tracer, 200)
            await asyncio.sleep(0.001)
        await memory.wait_for(20_000, timeout=5.0)
        receipt = tracer.receipt()
        assert_balanced(receipt)
        assert receipt.lanes["memory"].accepted == 20_000


async def test_an_anyio_scope_that_ends_before_the_shutdown_loses_nothing() -> None:
    async with FaultServer(default=Delay(0.2)) as server:
        with anyio.move_on_after(0.05):
            async with Tracer(service="shop", exporters=[OTLPExporter(server.url)]) as tracer:
                ids = await end_spans(tracer, 20)
                await anyio.sleep(10)
        assert_complete(await within(5, tracer.shutdown(), "shutdown"), 20)
        assert_arrived_once(server, ids)


# ── defects ─────────────────────────────────────────────────────────────────────────────────────────────────


class RaisesOnce:
    name = "raises once"

    def __init__(self, error: BaseException) -> None:
        self._errors = [error]

    async def export(self, batch: Any) -> ExportResult:
        if self._errors:
            raise self._errors.pop()
        return ExportResult.all_accepted(batch)

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        StopIteration(),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_an_exporter_raises_means_try_again(error: BaseException) -> None:
    async with Tracer(service="shop", exporters=[RaisesOnce(error)], delivery=QUICK, shutdown_timeout=0.2) as tracer:
        await end_spans(tracer, 3)
        assert_complete(await within(2, tracer.flush(), "flush"), 3)


async def test_a_slow_lane_does_not_hold_back_what_a_flush_of_the_others_says() -> None:
    hold = asyncio.Event()
    async with FaultServer(default=Hang(hold)) as slow, FaultServer(default=Accept()) as quick:
        exporters = [OTLPExporter(slow.url, name="slow"), OTLPExporter(quick.url, name="quick")]
        async with Tracer(service="shop", exporters=exporters, delivery=DeliveryOptions()) as tracer:
            await end_spans(tracer, 5)
            with pytest.raises(DeliveryTimeout) as caught:
                await tracer.flush(timeout=0.3)
            lanes = caught.value.receipt.lanes
            assert (lanes["slow"].pending, lanes["quick"].accepted) == (5, 5)
            hold.set()
            assert_complete(await within(5, tracer.flush(), "flush"), 5)
