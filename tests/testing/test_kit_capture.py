"""A test sees all its spans and nothing but its spans, in async and in plain code."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import asynctrace
from asynctrace import MisuseError
from asynctrace.testing import (
    CapturedSpans,
    ManualClock,
    SeededIds,
    assert_no_context_leaked,
    assert_no_span_left_open,
    assert_tree,
    capture_spans,
)

pytestmark = pytest.mark.anyio

PICTURE = """
    checkout ok
      retrieve [retriever] ok
"""


async def checkout(tracer: asynctrace.Tracer) -> None:
    async with tracer.trace("checkout"), tracer.trace_component("retrieve", type="retriever"):
        await asyncio.sleep(0)


async def test_an_async_block_captures_what_its_tracer_records() -> None:
    async with capture_spans() as captured:
        await checkout(captured.tracer)
        await captured.flush()
        assert_tree(captured.spans, PICTURE)
        assert captured.tree() == "checkout ok\n  retrieve [retriever] ok"
        assert captured.find("retrieve").parent_id == captured.find("checkout").span_id
        assert {name: len(spans) for name, spans in captured.by_name.items()} == {"retrieve": 1, "checkout": 1}


async def test_reading_before_everything_has_arrived_is_refused_and_says_what_to_do() -> None:
    async with capture_spans() as captured:
        with captured.tracer.trace_component("step"):
            pass
        with pytest.raises(MisuseError, match=r"await captured\.flush\(\)"):
            assert captured.spans


async def test_after_the_block_everything_has_arrived() -> None:
    async with capture_spans() as captured:
        await checkout(captured.tracer)
    assert_tree(captured.spans, PICTURE)


async def test_a_span_left_open_does_not_hold_the_test_and_shows() -> None:
    began = asyncio.get_running_loop().time()
    async with capture_spans() as captured:
        handle = captured.tracer.trace_component("forgotten").start()
    assert captured.tree() == "forgotten incomplete"
    assert asyncio.get_running_loop().time() - began < 5
    handle.end()


def test_a_plain_block_flushes_by_itself() -> None:
    with capture_spans() as captured:
        with captured.tracer.trace("script"), captured.tracer.trace_component("step"):
            pass
        assert captured.tree() == "script ok\n  step ok"
        with captured.tracer.trace("again"):
            pass
        assert len(captured.spans) == 3


async def test_captures_at_the_same_time_share_nothing() -> None:
    async with capture_spans() as one, capture_spans() as two:
        with one.tracer.trace("one"), two.tracer.trace("two"):
            pass
        await asyncio.gather(one.flush(), two.flush())
        assert (one.tree(), two.tree()) == ("one ok", "two ok")


def test_captures_in_threads_share_nothing() -> None:
    together = threading.Barrier(4)

    def work(number: int) -> str:
        with capture_spans() as captured:
            together.wait()
            with captured.tracer.trace(f"run {number}"):
                together.wait()
            return captured.tree()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [f"run {number} ok" for number in range(4)]


async def test_nothing_global_changes_unless_it_is_asked_for() -> None:
    before = asynctrace.configure(service="global", exporters=[])
    try:
        async with capture_spans() as captured:
            assert asynctrace.default_tracer() is before
            async with capture_spans(default=True) as asked:
                assert asynctrace.default_tracer() is asked.tracer
                async with asynctrace.trace("through the module"):
                    pass
            assert asynctrace.default_tracer() is before
        assert captured.spans == ()
        assert asked.tree() == "through the module ok"
    finally:
        await before.shutdown()


async def test_find_wants_exactly_one_and_shows_what_is_there() -> None:
    async with capture_spans() as captured:
        for name in ("twice", "twice", "once"):
            with captured.tracer.trace_component(name):
                pass
    for name, count in (("twice", 2), ("missing", 0)):
        with pytest.raises(LookupError, match=rf"{count} spans are named '{name}'[\s\S]*once ok"):
            captured.find(name)


async def test_with_a_manual_clock_and_seeded_ids_a_trace_is_the_same_in_every_run() -> None:
    pictures = []
    for _ in range(2):
        clock = ManualClock()
        async with capture_spans(clock=clock, ids=SeededIds(1)) as captured, captured.tracer.trace("run"):
            clock.advance(0.25)
        pictures.append((captured.tree(durations=True), captured.find("run").span_id))
    assert pictures[0] == pictures[1]
    assert pictures[0][0] == "run ok 250.000ms"


# The fixture -----------------------------------------------------------------------------------------------


async def test_the_fixture_captures_in_async_tests(spans: CapturedSpans) -> None:
    await checkout(spans.tracer)
    await spans.flush()
    assert_tree(spans.spans, PICTURE)


def test_the_fixture_captures_in_plain_tests(spans: CapturedSpans) -> None:
    with spans.tracer.trace("script"):
        pass
    assert spans.tree() == "script ok"


@pytest.mark.parametrize("number", range(3))
def test_each_test_has_spans_of_its_own(spans: CapturedSpans, number: int) -> None:
    with spans.tracer.trace(f"test {number}"):
        pass
    assert spans.tree() == f"test {number} ok"


# Checks ----------------------------------------------------------------------------------------------------


async def test_a_span_left_open_is_named() -> None:
    async with capture_spans() as captured:
        assert_no_span_left_open(captured.tracer)
        component = captured.tracer.trace_component("forgotten").start()
        with pytest.raises(AssertionError, match=r"1 spans are still open.*forgotten"):
            assert_no_span_left_open(captured.tracer)
        component.end()
        assert_no_span_left_open(captured.tracer)


async def test_a_leaked_component_or_run_is_noticed() -> None:
    async with capture_spans() as captured:
        for leak in (captured.tracer.trace_component("leak"), captured.tracer.trace("leak")):
            with pytest.raises(AssertionError, match="the context leaked"), assert_no_context_leaked():
                leak.__enter__()
            leak.__exit__(None, None, None)
        async with assert_no_context_leaked(), captured.tracer.trace("left"):
            pass


async def test_a_suppressed_region_that_is_never_left_is_noticed() -> None:
    region = asynctrace.suppress()
    with pytest.raises(AssertionError, match="the context leaked"), assert_no_context_leaked():
        region.__enter__()
    region.__exit__(None, None, None)


async def test_an_error_of_the_block_is_not_replaced_by_the_check() -> None:
    async with capture_spans() as captured:
        component = captured.tracer.trace_component("leak")

        def leaks_and_fails() -> None:
            with assert_no_context_leaked():
                component.__enter__()
                raise KeyError

        with pytest.raises(KeyError):
            leaks_and_fails()
        component.end()


# Loading ---------------------------------------------------------------------------------------------------


def test_parts_that_a_test_does_not_need_are_not_loaded() -> None:
    program = (
        "import sys, asynctrace.testing as kit\n"
        "kit.ManualClock, kit.SeededIds, kit.assert_tree\n"
        "assert 'aiohttp' not in sys.modules and 'pytest' not in sys.modules\n"
        "with kit.capture_spans() as captured: pass\n"
        "assert 'aiohttp' not in sys.modules\n"
        "kit.FaultServer\n"
        "assert 'aiohttp' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


def test_every_public_name_of_the_kit_can_be_had() -> None:
    import asynctrace.testing as kit

    assert all(getattr(kit, name) is not None for name in kit.__all__)
    assert set(kit.__all__) <= set(dir(kit))
    with pytest.raises(AttributeError, match="no_such_part"):
        kit.no_such_part  # noqa: B018
