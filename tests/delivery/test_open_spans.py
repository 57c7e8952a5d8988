"""Who asks is told of spans that are still open; nobody else is, and no book changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from asynctrace import Tracer
from asynctrace.delivery._open_spans import MOST_AT_ONCE, Schedule
from asynctrace.exporters import OTLPExporter
from asynctrace.testing import FaultServer

from .harness import BROKEN, assert_complete, until
from .watchers import NeverForgets, TellsAtOnce, TellsEverybody, TellsOnce, Watcher

pytestmark = pytest.mark.anyio

# ── what is told ────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_open_span_is_told_of_with_its_id_and_all_that_is_known() -> None:
    async with Watcher() as watcher, Tracer("shop", [OTLPExporter(watcher.url)], journal=False) as tracer:
        async with tracer.trace("warm up"):
            pass
        async with (
            tracer.trace("agent", session_id="s-1", inputs={"q": "tea"}) as run,
            tracer.trace_component("search", type="tool", attributes={"shard": 3}) as component,
        ):
            component.add_log("half way")
            await tracer.flush()
            notice = await watcher.notice_of("search")
            root = await watcher.notice_of("agent")
    assert (notice.trace_id, notice.span_id, notice.parent_id) == (run.trace_id, component.span_id, run.span_id)
    assert notice.end_ns == 0
    assert notice.start_ns > 0
    assert notice.attributes["asynctrace.state"] == "open"
    assert notice.attributes["asynctrace.seen_ns"] - notice.start_ns >= 200_000_000  # type: ignore[operator]
    assert (notice.attributes["shard"], notice.attributes["openinference.span.kind"]) == (3, "TOOL")
    assert [event.name for event in notice.events] == ["half way"]
    assert root.attributes["input.value"] == '{"q":"tea"}'
    assert root.attributes["session.id"] == "s-1"
    assert "asynctrace.ending" not in notice.attributes


async def test_the_books_know_nothing_of_notices_and_they_have_no_key() -> None:
    async with Watcher() as watcher:
        exporter = OTLPExporter(watcher.url, compression="gzip")
        async with Tracer("shop", [exporter], journal=False) as tracer:
            async with tracer.trace("warm up"):
                pass
            await tracer.flush()
            async with tracer.trace("agent"):
                await watcher.notice_of("agent")
                assert_complete(tracer.receipt(), 1)
                assert exporter.statistics().requests == 1
            receipt = await tracer.flush()
    assert_complete(receipt, 2)
    assert set(watcher.keys) == {None}
    assert sorted(span.name for span in watcher.ended) == ["agent", "warm up"]


async def test_a_program_without_a_loop_tells_too() -> None:
    async with Watcher() as watcher:

        def program() -> str:
            with Tracer("shop", [OTLPExporter(watcher.url)], journal=False) as tracer:
                with tracer.trace("warm up"):
                    pass
                tracer.flush_sync()
                with tracer.trace("agent") as run:
                    told.result(30)
                return run.span_id

        loop = asyncio.get_running_loop()
        told = asyncio.run_coroutine_threadsafe(watcher.notice_of("agent"), loop)
        span_id = await asyncio.to_thread(program)
    assert watcher.notices[0].span_id == span_id


async def test_a_span_is_masked_in_its_notice_as_in_its_record() -> None:
    async with Watcher() as watcher, Tracer("shop", [OTLPExporter(watcher.url)], journal=False) as tracer:
        async with tracer.trace("warm up"):
            pass
        async with tracer.trace("agent", inputs={"password": "hunter2"}) as run:
            run.set_attribute("input.mime_type", "text/own")
            await tracer.flush()
            notice = await watcher.notice_of("agent")
    assert "hunter2" not in str(notice.attributes)
    assert notice.attributes["input.mime_type"] == "text/own"


# ── who is not told ─────────────────────────────────────────────────────────────────────────────────────────

MakeExporter = Callable[[str], OTLPExporter]


async def check_a_foreign_backend_sees_none(make_exporter: MakeExporter) -> None:
    async with (
        FaultServer() as foreign,
        Watcher() as watcher,
        Tracer("shop", [make_exporter(foreign.url), OTLPExporter(watcher.url)], journal=False) as tracer,
    ):
        async with tracer.trace("warm up"):
            pass
        await tracer.flush()
        async with tracer.trace("agent"):
            await watcher.notice_of("agent")  # by then the other lane has had its chance, too
            async with tracer.trace_component("step"):
                await watcher.notice_of("step")
        await tracer.flush()
        assert all(span.end_ns for span in foreign.spans)
        assert len(foreign.spans) == 3


async def test_a_foreign_backend_never_sees_one() -> None:
    await check_a_foreign_backend_sees_none(lambda url: OTLPExporter(url, name="foreign"))


async def test_an_exporter_that_tells_everybody_is_caught() -> None:
    with pytest.raises(BROKEN):
        await check_a_foreign_backend_sees_none(lambda url: TellsEverybody(url, name="foreign"))


async def test_an_answer_that_refuses_a_notice_ends_them_and_delays_no_span() -> None:
    async with Watcher(notice_status=500) as watcher:
        async with Tracer("shop", [OTLPExporter(watcher.url)], journal=False) as tracer:
            async with tracer.trace("warm up"):
                pass
            await tracer.flush()
            async with tracer.trace("agent"):
                await watcher.notice_of("agent")
                async with tracer.trace_component("step"):
                    pass
                await until(lambda: tracer.receipt().accepted == 1)
            assert_complete(await tracer.flush(), 3)
        assert len(watcher.notices) == 1


async def test_nothing_is_told_after_the_tracer_has_ended() -> None:
    async with Watcher() as watcher:
        tracer = Tracer("shop", [OTLPExporter(watcher.url)], journal=False)
        async with tracer.trace("warm up"):
            pass
        await tracer.flush()
        component = tracer.trace_component("agent").start()
        await watcher.notice_of("agent")
        receipt = await tracer.shutdown(timeout=5)
        assert_complete(receipt, 2)
        left = [task.get_name() for task in asyncio.all_tasks()]
    assert not any("open spans" in name for name in left)
    assert component.is_recording is False


# ── when ────────────────────────────────────────────────────────────────────────────────────────────────────


class OpenFor(msgspec.Struct):
    """A span that has been open for `age` seconds."""

    age: float
    span_id: bytes = b"12345678"
    size: int = 100

    def record(self) -> bytes:
        return b"r" * self.size


def check_the_schedule(schedule: Schedule) -> None:
    """After 200 ms, again every 5 s, then forgotten."""
    moments = [now / 8 for now in range(130)]
    told = [now for now in moments if schedule.due([OpenFor(age=now)], now)]
    assert told == [0.25, 5.25, 10.25, 15.25]
    schedule.due([], 16.0)
    assert not schedule._told


def test_a_span_is_told_of_after_200_ms_and_then_every_5_s() -> None:
    check_the_schedule(Schedule())


@pytest.mark.parametrize("wrong", [TellsAtOnce, TellsOnce, NeverForgets])
def test_a_wrong_schedule_is_caught(wrong: type[Schedule]) -> None:
    with pytest.raises(AssertionError):
        check_the_schedule(wrong())


class Unreadable(OpenFor):
    def record(self) -> bytes:
        raise RuntimeError("dictionary changed size during iteration")


def test_a_span_that_cannot_be_told_of_keeps_no_other_from_it() -> None:
    schedule = Schedule()
    spans = [Unreadable(1.0, b"a"), OpenFor(1.0, b"b")]
    assert len(schedule.due(spans, 1.0)) == 1
    assert len(schedule.due([OpenFor(1.0, b"a"), OpenFor(1.0, b"b")], 1.1)) == 1


def test_a_request_is_bounded_and_the_rest_comes_with_the_next() -> None:
    schedule = Schedule()
    spans = [OpenFor(1.0, bytes([n]) * 8, MOST_AT_ONCE // 3) for n in range(10)]
    counts = [len(schedule.due(spans, 1.0)) for _ in range(4)]
    assert counts == [4, 4, 2, 0]
