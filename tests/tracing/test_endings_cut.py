"""Ending one thing ends nothing else; what is cut by an end or a shutdown is marked, counted and never crashes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asynctrace import Batch, ExportResult
from asynctrace.testing import assert_tree, capture_spans

from .faulty import EndsEverybody
from .promises import promise
from .recording import Recording

pytestmark = pytest.mark.anyio


@promise(EndsEverybody)
async def test_ending_a_trace_touches_no_other_whether_inside_beside_or_of_the_same_name(subject: Any) -> None:
    tracer = subject.tracer
    outer = tracer.trace("run").__enter__()
    beside: list[Any] = []

    async def another() -> None:
        beside.append(tracer.trace("run").__enter__())
        beside.append(tracer.trace_component("step").__enter__())

    await asyncio.create_task(another())
    inner = tracer.trace("run").__enter__()
    inner_step = tracer.trace_component("step").__enter__()
    inner_step.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    assert [span.span_id for span in subject.spans] == [inner_step.span_id, inner.span_id]
    beside[1].__exit__(None, None, None)
    beside[0].__exit__(None, None, None)
    assert subject.spans[-1].span_id == beside[0].span_id
    outer.__exit__(None, None, None)
    assert [span.ending for span in subject.spans] == ["ok"] * 5


async def test_end_tracers_ends_the_current_run_only_and_cuts_what_is_open_in_it() -> None:
    subject = Recording()
    tracer = subject.tracer
    other_open, finish = asyncio.Event(), asyncio.Event()

    async def other() -> None:
        tracer.start_tracers("r-2", "same name", session_id="s-2")
        with tracer.trace_component("other step"):
            other_open.set()
            await finish.wait()
        tracer.end_tracers("other's")

    task = asyncio.create_task(other())
    await other_open.wait()
    run = tracer.start_tracers("r-1", "same name", user_id="u-1", session_id="s-1", project_name="p-1")
    outer = tracer.trace_component("outer", inputs={"q": 1}).start()
    inner = tracer.trace_component("inner").start()
    tracer.end_tracers({"answer": 42})
    assert [(span.name, span.ending) for span in subject.spans] == [
        ("inner", "incomplete"),
        ("outer", "incomplete"),
        ("same name", "ok"),
    ]
    assert tracer.current_trace() is None
    assert tracer.current_component() is None
    root = subject.spans[-1]
    assert root.attributes["asynctrace.run.id"] == "r-1"
    assert root.attributes["asynctrace.project"] == "p-1"
    assert root.attributes["output.value"] == '{"answer":42}'
    assert subject.one("outer").attributes["input.value"] == '{"q":1}'
    assert subject.one("outer").attributes["user.id"] == "u-1"
    inner.set_outputs("late")
    outer.end()
    assert tracer._late_calls == {"set_outputs": 1, "end": 1}
    finish.set()
    await task
    assert [(span.name, span.ending) for span in subject.spans[3:]] == [("other step", "ok"), ("same name", "ok")]
    assert run.run_id == "r-1"


async def test_end_tracers_with_an_error_ends_the_run_with_it() -> None:
    subject = Recording()
    subject.tracer.start_tracers(None, "run")
    subject.tracer.end_tracers(error=ValueError("why"))
    root = subject.one("run")
    assert (root.ending, root.status_message) == ("error", "why")


async def test_a_run_started_in_one_callback_is_ended_in_another_by_its_handle() -> None:
    subject = Recording()
    handles: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.call_soon(lambda: handles.append(subject.tracer.start_tracers("r", "run")))
    await asyncio.sleep(0)
    assert subject.tracer.current_trace() is None
    loop.call_soon(lambda: subject.tracer.end_tracers("done", run=handles[0]))
    await asyncio.sleep(0)
    assert subject.one("run").attributes["output.value"] == "done"


async def test_a_run_started_inside_another_gives_it_back_when_it_ends() -> None:
    subject = Recording()
    async with subject.tracer.trace("outer") as outer, subject.tracer.trace_component("step") as step:
        subject.tracer.start_tracers("r-2", "inner")
        subject.tracer.end_tracers()
        assert subject.tracer.current_trace() is outer
        assert subject.tracer.current_component() is step
    assert subject.one("inner").parent_id == step.span_id


async def test_end_tracers_without_a_run_is_counted_and_ends_nothing() -> None:
    subject = Recording()
    with subject.tracer.trace_component("step"):
        subject.tracer.end_tracers("whose?")
    subject.tracer.end_tracers()
    assert [(span.name, span.ending) for span in subject.spans] == [("step", "ok")]
    assert subject.tracer._late_calls == {"end_tracers": 2}


# Shutdown while components run


class OrderExporter:
    """Keeps the names in the order of arrival, and whether it was closed after the last."""

    name = "order"

    def __init__(self) -> None:
        self.events: list[str] = []

    async def export(self, batch: Batch) -> ExportResult:
        self.events += [f"{span.name} {span.ending}" for span in batch.spans()]
        return ExportResult.all_accepted(batch)

    async def aclose(self) -> None:
        self.events.append("closed")


async def test_shutdown_waits_for_open_components_and_records_how_they_end() -> None:
    entered = asyncio.Event()
    async with capture_spans() as captured:
        tracer = captured.tracer

        async def work() -> None:
            async with tracer.trace("run"), tracer.trace_component("step") as step:
                entered.set()
                await asyncio.sleep(0.05)
                step.set_outputs("in time")

        task = asyncio.create_task(work())
        await entered.wait()
        receipt = await tracer.shutdown(timeout=10)
        await task
    assert_tree(captured.spans, "run ok\n  step ok")
    assert captured.find("step").attributes["output.value"] == "in time"
    assert (receipt.ended, receipt.accepted) == (2, 2)


async def test_at_the_deadline_shutdown_cuts_the_deepest_first_then_drains_then_closes() -> None:
    from asynctrace import Tracer

    order = OrderExporter()
    tracer = Tracer(service="test", exporters=[order], journal=False)
    components = [tracer.trace("run").__enter__()]
    components += [tracer.trace_component(f"level {n}", inputs={"n": n}).start() for n in range(3)]
    receipt = await tracer.shutdown(timeout=0.05)
    assert order.events == [
        "level 2 incomplete",
        "level 1 incomplete",
        "level 0 incomplete",
        "run incomplete",
        "closed",
    ]
    assert receipt.complete
    assert receipt.accepted == 4
    components[-1].set_outputs("late")
    components[-1].end()
    components[0].__exit__(None, None, None)
    assert tracer.statistics().late_calls["set_outputs"] == 1
    assert await tracer.shutdown() == receipt


async def test_after_shutdown_nothing_is_recorded_and_that_is_counted() -> None:
    from asynctrace import Tracer

    tracer = Tracer(service="test", exporters=[OrderExporter()], journal=False)
    await tracer.shutdown()
    async with tracer.trace_component("late") as component:
        component.set_outputs("late")
    assert tracer.receipt().dropped_by_reason == {"after_shutdown": 1}
