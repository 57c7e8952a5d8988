"""Between those who end spans and the lanes nothing is lost and nothing is doubled."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from asynctrace import ExportResult, Tracer, WaitForRoom
from asynctrace.exporters import MemoryExporter, OTLPExporter

from . import doubles
from .harness import (
    BROKEN,
    QUICK,
    MakeTracer,
    assert_balanced,
    assert_complete,
    end_spans,
    end_spans_sync,
    until,
    within,
)

pytestmark = pytest.mark.anyio


class Sink:
    """A far side for very many spans, on a loop of its own thread; the official classes read what it gets."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.url = ""
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def ids(self) -> Counter[bytes]:
        found: Counter[bytes] = Counter()
        for body in self.bodies:
            for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope_spans in resource_spans.scope_spans:
                    found.update(span.span_id for span in scope_spans.spans)
        return found

    @classmethod
    @contextlib.contextmanager
    def in_thread(cls) -> Iterator[Sink]:
        sink, ready = cls(), threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(sink._serve(ready)))
        thread.start()
        ready.wait(5)
        try:
            yield sink
        finally:
            assert sink._loop is not None
            assert sink._stop is not None
            sink._loop.call_soon_threadsafe(sink._stop.set)
            thread.join(10)

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/v1/traces", self._take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        return web.Response()


async def check_everything_is_handed_over_once(
    make_tracer: MakeTracer, total: int = 20_000, threads: int = 16, tasks: int = 200
) -> None:
    """`total` spans of `threads` threads and `tasks` tasks, with flushes at random moments from all of them."""
    each = total // (threads + tasks)
    ids: list[set[str]] = []
    errors: list[BaseException] = []
    with Sink.in_thread() as sink:
        async with make_tracer(
            service="shop",
            exporters=[OTLPExporter(sink.url)],
            when_full=WaitForRoom(timeout=120.0),
            shutdown_timeout=120.0,
        ) as tracer:

            def work_in_thread(seed: int) -> None:
                try:
                    chance = random.Random(seed)
                    mine: set[str] = set()
                    while len(mine) < each:
                        mine |= end_spans_sync(tracer, min(each - len(mine), chance.randrange(1, 400)))
                        if chance.random() < 0.05:
                            assert_balanced(tracer.flush_sync(60.0))
                        assert_balanced(tracer.receipt())
                    ids.append(mine)
                except BaseException as error:
                    errors.append(error)

            async def work_in_task(seed: int) -> None:
                chance = random.Random(seed)
                mine: set[str] = set()
                while len(mine) < each:
                    mine |= await end_spans(tracer, min(each - len(mine), chance.randrange(1, 400)))
                    if chance.random() < 0.05:
                        assert_balanced(await tracer.flush(60.0))
                    await asyncio.sleep(chance.random() * 0.01)
                ids.append(mine)

            started = [threading.Thread(target=work_in_thread, args=(seed,)) for seed in range(threads)]
            for thread in started:
                thread.start()
            await asyncio.gather(*(work_in_task(1000 + seed) for seed in range(tasks)))
            await until(lambda: not any(thread.is_alive() for thread in started), 300)
            assert not errors, errors
            receipt = await within(120, tracer.flush(), "flush")
        ended = set().union(*ids)
        assert len(ended) == each * (threads + tasks), "an id was given twice"
        assert_complete(receipt, len(ended))
        arrived = sink.ids()
        assert arrived.keys() == {bytes.fromhex(span_id) for span_id in ended}
        assert arrived.total() == len(arrived), "sent twice"


async def test_100000_spans_of_16_threads_and_200_tasks_arrive_exactly_once() -> None:
    await check_everything_is_handed_over_once(Tracer, 100_000)


@pytest.mark.long
async def test_a_million_spans_of_16_threads_and_200_tasks_arrive_exactly_once() -> None:
    await check_everything_is_handed_over_once(Tracer, 1_000_000)


async def test_spans_that_end_in_signal_handlers_arrive_once() -> None:
    """They interrupt an append of their own thread between any two instructions."""
    memory = MemoryExporter()
    async with Tracer(service="shop", exporters=[memory], delivery=QUICK) as tracer:
        interrupted = 0

        def on_signal(*_: object) -> None:
            nonlocal interrupted
            interrupted += 1
            # A context of its own: in that of a lane, which it may interrupt too, nothing is traced.
            contextvars.Context().run(end_spans_sync, tracer, 1, "signal")

        before = signal.signal(signal.SIGALRM, on_signal)
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        try:
            for _ in range(100):
                end_spans_sync(tracer, 100, "plain")
                await asyncio.sleep(0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert_complete(await within(10, tracer.flush(), "flush"), 10_000 + interrupted)
        assert interrupted > 0
        names = Counter(span.name.partition("-")[0] for span in memory.spans)
        assert names == {"plain": 10_000, "signal": interrupted}
        assert len({span.span_id for span in memory.spans}) == len(memory.spans)


async def test_spans_that_end_in_finalizers_arrive_once() -> None:
    memory = MemoryExporter()
    async with Tracer(service="shop", exporters=[memory], delivery=QUICK) as tracer:

        class Cyclic:
            def __init__(self) -> None:
                self.me = self

            def __del__(self) -> None:
                # A context of its own: a collection may run in a lane, and (before 3.12) inside ContextVar.set().
                contextvars.Context().run(end_spans_sync, tracer, 1, "finalizer")

        thresholds = gc.get_threshold()
        gc.set_threshold(20)
        try:
            for _ in range(40):
                for _ in range(50):
                    Cyclic()
                    end_spans_sync(tracer, 1, "plain")
                await asyncio.sleep(0)
        finally:
            gc.set_threshold(*thresholds)
        gc.collect()
        assert_complete(await within(10, tracer.flush(), "flush"), 4000)
        names = Counter(span.name.partition("-")[0] for span in memory.spans)
        assert names == {"plain": 2000, "finalizer": 2000}


async def test_abandoned_components_are_recorded_while_others_end() -> None:
    """Handles that die in a collection end in the middle of whatever runs."""
    memory = MemoryExporter()
    async with Tracer(service="shop", exporters=[memory], delivery=QUICK) as tracer:

        def forget() -> None:
            component = tracer.trace_component("forgotten")
            contextvars.copy_context().run(component.start)
            cycle: list[object] = [component]
            cycle.append(cycle)

        thresholds = gc.get_threshold()
        gc.set_threshold(20)
        try:
            for _ in range(40):
                for _ in range(50):
                    forget()
                    end_spans_sync(tracer, 1, "plain")
                await asyncio.sleep(0)
        finally:
            gc.set_threshold(*thresholds)
        gc.collect()
        assert_complete(await within(10, tracer.flush(), "flush"), 4000)
        endings = Counter((span.name.partition("-")[0], span.ending) for span in memory.spans)
        assert endings == {("plain", "ok"): 2000, ("forgotten", "abandoned"): 2000}


# ── lanes beside one another ────────────────────────────────────────────────────────────────────────────────


class KeepsIds:
    """Takes everything after `delay` seconds; fails every `fails`-th time."""

    def __init__(self, name: str, delay: float = 0.0, fails: int = 0) -> None:
        self.name = name
        self.ids: list[str] = []
        self._delay = delay
        self._fails = fails
        self._times = 0

    async def export(self, batch: Any) -> ExportResult:
        ids = [span.span_id for span in batch.spans()]
        await asyncio.sleep(self._delay)
        self._times += 1
        if self._fails and self._times % self._fails == 0:
            return ExportResult.try_again(after=0.0)
        self.ids += ids
        return ExportResult.all_accepted(batch)

    async def aclose(self) -> None:
        pass


async def check_each_lane_gets_everything_once(make_tracer: MakeTracer) -> None:
    lanes = [KeepsIds("quick"), KeepsIds("slow", delay=0.02), KeepsIds("unsteady", fails=3)]
    options = msgspec.structs.replace(QUICK, batch_spans=50)
    async with make_tracer(service="shop", exporters=lanes, delivery=options) as tracer:
        ids: set[str] = set()
        for _ in range(20):
            ids |= await end_spans(tracer, 100)
            await asyncio.sleep(0.005)
        assert_complete(await within(20, tracer.flush(), "flush"), 2000)
        for lane in lanes:
            assert sorted(lane.ids) == sorted(ids), lane.name


async def test_each_lane_gets_every_span_exactly_once_at_its_own_pace() -> None:
    await check_each_lane_gets_everything_once(Tracer)


async def test_two_exporters_of_one_name_are_two_lanes() -> None:
    first, second = KeepsIds("same"), KeepsIds("same")
    async with Tracer(service="shop", exporters=[first, second], delivery=QUICK) as tracer:
        ids = await end_spans(tracer, 10)
        receipt = await within(5, tracer.flush(), "flush")
        assert len(receipt.lanes) == 2
        assert_complete(receipt, 10)
        assert set(first.ids) == set(second.ids) == ids


# ── the checks notice ───────────────────────────────────────────────────────────────────────────────────────


class LosesOneOfAThousand(Tracer):
    """A hand-over with a hole."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        append, times = self._append_nowait, iter(range(1 << 62))

        def append_most(record: bytes) -> bool:
            return next(times) % 1000 == 999 or append(record)

        self._append_nowait = append_most


class DoublesOneOfAThousand(Tracer):
    """A hand-over that repeats itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        append, times = self._append_nowait, iter(range(1 << 62))

        def append_more(record: bytes) -> bool:
            if next(times) % 1000 == 999:
                append(record)
            return append(record)

        self._append_nowait = append_more


@pytest.mark.parametrize(
    ("check", "make_tracer"),
    [
        (check_everything_is_handed_over_once, LosesOneOfAThousand),
        (check_everything_is_handed_over_once, DoublesOneOfAThousand),
        (check_everything_is_handed_over_once, doubles.lying("sends twice")),
        (check_each_lane_gets_everything_once, LosesOneOfAThousand),
        (check_each_lane_gets_everything_once, doubles.FlushReturnsAtOnce),
    ],
)
async def test_each_check_notices_a_double_that_breaks_its_promise(check: Any, make_tracer: MakeTracer) -> None:
    with pytest.raises(BROKEN):
        await check(make_tracer)
