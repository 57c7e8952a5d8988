"""Where the caller chose to wait for room, leaving waits no longer than that, and a deadline around it still holds."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from asynctrace import Batch, ExportResult, Tracer, WaitForRoom
from asynctrace.testing import FaultServer, assert_tree

from ..patience import patient

pytestmark = pytest.mark.anyio

TEXT = "x" * 5_000
SLACK = 0.5
"""Seconds a busy machine may add."""


class NeverAnswers:
    name = "never"

    async def export(self, batch: Batch) -> ExportResult:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets that event")

    async def aclose(self) -> None: ...


@asynccontextmanager
async def full_tracer(when_full: WaitForRoom) -> AsyncIterator[Tracer]:
    """A tracer whose span log has no room, and gets none."""
    tracer = Tracer(
        service="test", exporters=[NeverAnswers()], capacity_bytes=64 * 1024, when_full=when_full, journal=False
    )
    await tracer.start()
    for number in range(100):
        # A plain block inside a running loop never waits: the lanes that make room run on that loop.
        with tracer.trace_component(f"fill {number}", attributes={"text": TEXT}):
            pass
    assert tracer.receipt().dropped_by_reason["refused"] > 0
    try:
        yield tracer
    finally:
        await tracer.shutdown(timeout=0.05)


async def seconds_to_leave(tracer: Tracer) -> float:
    component = tracer.trace_component("step", attributes={"text": TEXT})
    await component.__aenter__()
    began = time.perf_counter()
    await component.__aexit__(None, None, None)
    return time.perf_counter() - began


async def check_bound(policy: WaitForRoom, bound: float) -> None:
    async with full_tracer(policy) as tracer:
        before = tracer.receipt()
        assert await seconds_to_leave(tracer) < bound + patient(SLACK)
        after = tracer.receipt()
        assert (after.ended - before.ended, after.dropped - before.dropped) == (1, 1)


async def test_leaving_waits_no_longer_than_the_policy_says_and_the_loss_is_counted() -> None:
    await check_bound(WaitForRoom(timeout=0.2), 0.2)


async def test_waiting_longer_is_noticed() -> None:
    with pytest.raises(AssertionError):
        await check_bound(WaitForRoom(timeout=1.0), 0.2)


async def test_a_deadline_cuts_the_waiting_and_the_span_is_counted_once() -> None:
    async with full_tracer(WaitForRoom(timeout=60)) as tracer:
        before = tracer.receipt()
        began = time.perf_counter()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await seconds_to_leave(tracer)
        assert time.perf_counter() - began < patient(0.1 + SLACK)
        after = tracer.receipt()
        assert after.ended - before.ended == 1
        assert after.ended == after.accepted + after.rejected + after.dropped + after.spooled + after.pending


async def test_a_plain_block_inside_a_running_loop_never_waits() -> None:
    async with full_tracer(WaitForRoom(timeout=60)) as tracer:
        began = time.perf_counter()
        with tracer.trace_component("step", attributes={"text": TEXT}):
            pass
        assert time.perf_counter() - began < patient(SLACK)


# The program is interrupted

INTERRUPTED = """
import asyncio, sys
import asynctrace

async def main():
    async with asynctrace.configure(service="interrupted") as tracer:
        async with tracer.trace("run"), tracer.trace_component("step"):
            print("ready", flush=True)
            await asyncio.sleep(60)

asyncio.run(main())
"""
PLAIN_INTERRUPTED = """
import time
import asynctrace

with asynctrace.configure(service="interrupted") as tracer:
    with tracer.trace("run"), tracer.trace_component("step"):
        print("ready", flush=True)
        for _ in range(1200):
            time.sleep(0.05)  # a signal that comes just before a sleep begins is looked at when it ends
"""


@pytest.mark.parametrize("program", [INTERRUPTED, PLAIN_INTERRUPTED], ids=["async", "plain"])
def test_ctrl_c_ends_every_component_cancelled_and_they_arrive(program: str) -> None:
    with FaultServer.in_thread() as server:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": server.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        rescue = threading.Timer(60, process.kill)
        rescue.start()
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            _, err = process.communicate()
        finally:
            rescue.cancel()
        assert "KeyboardInterrupt" in err
        assert process.returncode == -signal.SIGINT
        assert_tree(server.spans, "run cancelled\n  step cancelled")
