"""The far side is away for long and comes back: everything arrives, nobody hammers it, nobody is flooded with lines, and the
application does not feel it.

Ten minutes pass in two seconds: durations are a three-hundredth of the defaults, and so is the minute of the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from asynctrace import DeliveryOptions, ExportResult, Tracer
from asynctrace.exporters import OTLPExporter
from asynctrace.testing import FaultServer
from asynctrace.testing._faults import Delay, Status

from ..patience import patient
from . import doubles
from .harness import BROKEN, MakeTracer, assert_arrived_once, assert_complete, end_spans, producing, until, within

pytestmark = pytest.mark.anyio

FASTER = 300
MINUTE = 60 / FASTER
OUTAGE = 10 * MINUTE

JITTERED = DeliveryOptions(linger=0.01, backoff_initial=2.0, backoff_max=2.0)
"""Spread so far apart that a machine that stands still for a second does not bring them together."""

SCALED = DeliveryOptions(linger=0.01, backoff_initial=1 / FASTER, backoff_max=30 / FASTER)


class FastClock:
    """Three hundred seconds in one."""

    def __init__(self, faster: int = FASTER) -> None:
        self._faster = faster

    def time_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns() * self._faster


@contextlib.asynccontextmanager
async def traced(make_tracer: MakeTracer, url: str, **options: Any) -> AsyncIterator[Tracer]:
    options = {"clock": FastClock(), "exporters": [OTLPExporter(url)], "delivery": SCALED, **options}
    async with make_tracer(service="shop", shutdown_timeout=0.2, journal=False, **options) as tracer:
        yield tracer


def requests_of(tracer: Tracer) -> int:
    (lane,) = tracer.statistics().lanes.values()
    return lane.requests


def answers_of(tracer: Tracer) -> int:
    """Those that were no success."""
    (lane,) = tracer.statistics().lanes.values()
    return sum(lane.answers.values())


# ── everything arrives, and nobody hammers ──────────────────────────────────────────────────────────────────


async def check_an_outage_costs_nothing(make_tracer: MakeTracer) -> None:
    with FaultServer.in_thread() as server:
        port = server.port
        async with traced(make_tracer, server.url) as tracer:
            before = await end_spans(tracer, 1)
            await tracer.flush()
    async with traced(make_tracer, f"http://127.0.0.1:{port}") as tracer:
        async with producing(tracer, every=0.02) as ids:
            await asyncio.sleep(OUTAGE)
            attempts = requests_of(tracer)
            assert attempts <= 2 * OUTAGE / (SCALED.backoff_max / 2) + 10, f"{attempts} attempts in ten minutes"
            with FaultServer.in_thread(default=Delay(0.05), port=port) as back:
                await back.wait_for_spans(len(ids), timeout=patient(3))
        with FaultServer.in_thread(port=port) as rest:
            assert_complete(await within(10, tracer.flush(), "flush"), len(ids))
            arrived = back.accepted_ids + rest.accepted_ids
    assert set(arrived) == ids, f"{len(ids - arrived.keys())} of {len(ids)} spans are missing"
    assert max(arrived.values()) == 1
    assert before.isdisjoint(arrived)
    first, *others = back.requests
    assert all(other.time >= first.time + 0.049 for other in others), "sent before the first answer"
    assert back.max_in_flight <= 4
    soon = [request for request in others if request.time < first.time + 0.5]
    assert len(soon) <= 40, f"{len(soon)} requests in the first half second"


async def test_after_ten_minutes_everything_arrives_and_one_request_asks_first() -> None:
    await check_an_outage_costs_nothing(Tracer)


async def check_many_come_back_apart(make_tracer: MakeTracer) -> None:
    """Twenty processes lose the same far side at the same moment."""
    with FaultServer.in_thread(default=Status(503)) as server:
        async with contextlib.AsyncExitStack() as stack:
            tracers = [
                await stack.enter_async_context(traced(make_tracer, server.url, delivery=JITTERED)) for _ in range(20)
            ]
            ids = set[str]()
            for tracer in tracers:
                ids |= await end_spans(tracer, 1)
            await until(lambda: all(answers_of(tracer) for tracer in tracers), 20)
            server.default = Delay(0.0)
            for tracer in tracers:
                await within(20, tracer.flush(), "flush")
            assert_arrived_once(server, ids)
    times = defaultdict[str, list[float]](list)
    for request in server.requests:
        times[request.key].append(request.time)
    assert len(times) == len(tracers)
    waits = sorted(after - before for of_one in times.values() for before, after in pairwise(of_one))
    window = JITTERED.backoff_max / 5
    most = max(sum(wait <= other < wait + window for other in waits) for wait in waits)
    assert most <= 0.8 * len(waits), f"{most} of {len(waits)} waits differ by less than {window} s"


async def test_twenty_that_wait_for_one_far_side_do_not_come_back_together() -> None:
    await check_many_come_back_apart(Tracer)


# ── lines and lateness ──────────────────────────────────────────────────────────────────────────────────────


async def check_a_line_a_minute(make_tracer: MakeTracer, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    began = time.monotonic()
    async with traced(make_tracer, "http://127.0.0.1:1") as tracer:
        async with producing(tracer, every=0.05, at_once=1):
            await asyncio.sleep(OUTAGE)
            await until(lambda: requests_of(tracer) >= 40, 60)
        out, err = capfd.readouterr()
    lines, minutes = (out + err).splitlines(), (time.monotonic() - began) / MINUTE
    assert 1 <= len(lines) <= minutes + 2, f"{len(lines)} lines in {minutes:.0f} minutes:\n{out}{err}"


async def test_an_outage_is_told_once_a_minute(capfd: pytest.CaptureFixture[str]) -> None:
    await check_a_line_a_minute(Tracer, capfd)


async def check_the_application_feels_nothing(make_tracer: MakeTracer) -> None:
    """Processor time of the loop's thread between two turns of a ticker: what the load of the machine does not change."""
    with FaultServer.in_thread() as server:
        port = server.port
        async with traced(make_tracer, server.url) as tracer:
            async with producing(tracer, every=0.005, at_once=5):
                healthy = await busy_times(1.0)
            await tracer.flush()
    async with traced(make_tracer, f"http://127.0.0.1:{port}") as tracer:
        async with producing(tracer, every=0.005, at_once=5):
            away = await busy_times(1.0)
        await tracer.shutdown(0.0)
    assert away[-4] <= 2 * healthy[-4] + 0.002, f"{away[-4:]} s instead of {healthy[-4:]}"


async def busy_times(seconds: float) -> list[float]:
    """Seconds that the thread worked in each millisecond, sorted."""
    await asyncio.sleep(0.3)  # libraries are loaded, the first request was sent
    found, until, before = [], time.monotonic() + seconds, time.thread_time()
    while time.monotonic() < until:
        await asyncio.sleep(0.001)
        now = time.thread_time()
        found.append(now - before)
        before = now
    return sorted(found)


async def test_an_outage_makes_the_loop_of_the_application_no_later() -> None:
    await check_the_application_feels_nothing(Tracer)


# ── the checks notice ───────────────────────────────────────────────────────────────────────────────────────


class WithoutJitter(Tracer):
    """Everybody waits for as long as everybody else."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for lane, _ in self._delivery._lanes:
            lane._random = lambda: 1.0


class HoldsTheLoop(OTLPExporter):
    async def export(self, batch: Any) -> ExportResult:
        result = await super().export(batch)
        if not result.accepted:
            until = time.thread_time() + 0.02
            while time.thread_time() < until:
                pass
        return result


def holding_the_loop(*, exporters: list[Any], **options: Any) -> Tracer:
    """It tries often: chance may let fewer attempts fall into a second than the check looks at."""
    (exporter,) = exporters
    options["delivery"] = msgspec.structs.replace(SCALED, backoff_initial=0.01, backoff_max=0.02)
    return Tracer(exporters=[HoldsTheLoop(exporter.endpoint)], **options)


@pytest.mark.parametrize(
    ("check", "make_tracer"),
    [
        (check_an_outage_costs_nothing, doubles.with_delivery(backoff_initial=0.001, backoff_max=0.001)),
        (check_an_outage_costs_nothing, doubles.with_options(capacity_spans=500)),
        (check_many_come_back_apart, WithoutJitter),
        (check_the_application_feels_nothing, holding_the_loop),
    ],
)
async def test_each_check_notices_a_double_that_breaks_its_promise(check: Any, make_tracer: MakeTracer) -> None:
    with pytest.raises(BROKEN):
        await check(make_tracer)


async def test_the_check_notices_a_line_for_each_attempt(capfd: pytest.CaptureFixture[str]) -> None:
    often = DeliveryOptions(linger=0.01, backoff_initial=1 / FASTER, backoff_max=2 / FASTER)
    with pytest.raises(BROKEN):
        await check_a_line_a_minute(doubles.with_options(clock=FastClock(100_000), delivery=often), capfd)
