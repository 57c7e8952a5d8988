"""What was given is what is recorded: snapshots, times of the call site, no lost update, nothing where
nothing is on."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
import structlog

from asynctrace._contracts import SpanKind, StatusCode
from asynctrace.testing import ManualClock, assert_no_context_leaked
from asynctrace.tracing import ALWAYS_OFF, Limits, TraceIdRatio

from .faulty import KeepsReferences, LosesUpdates, NaiveTracer, NeverRestores
from .promises import promise
from .recording import Recording

pytestmark = pytest.mark.anyio


# Snapshots -------------------------------------------------------------------------------------------------


@promise(KeepsReferences)
async def test_changing_a_value_after_it_was_given_does_not_change_the_record(subject: Any) -> None:
    inputs = {"query": ["tea"], "secret": None}
    outputs = [{"found": 3}]
    async with subject.tracer.trace_component("step", inputs=inputs) as component:
        inputs["query"].append("coffee")  # type: ignore[union-attr]
        component.set_outputs(outputs)
        outputs[0]["found"] = 99
        outputs.clear()
    attributes = subject.one("step").attributes
    assert "tea" in str(attributes["input.value"])
    assert "coffee" not in str(attributes["input.value"])
    assert "3" in str(attributes["output.value"])
    assert "99" not in str(attributes["output.value"])


async def test_logs_attributes_and_metadata_are_snapshots_too() -> None:
    subject = Recording()
    shared: dict[str, Any] = {"shards": [1]}
    async with subject.tracer.trace_component("step", metadata=shared, attributes=shared) as component:
        component.add_log("hit", **shared)
        component.set_attribute("later", shared["shards"])
        shared["shards"].append(2)
    span = subject.one("step")
    assert span.attributes["metadata"] == '{"shards":[1]}'
    for value in (span.attributes["shards"], span.attributes["later"], span.events[0].attributes["shards"]):
        assert list(value) == [1]  # type: ignore[arg-type]


async def check_that_a_snapshot_is_cheap(limits: Limits, attempts: int = 10) -> None:
    """Beside what the whole value would take: this may be a slow machine."""
    subject = Recording(limits=limits)
    huge = {f"key {number}": [{"nested": list(range(10))}] * 10 for number in range(20_000)}
    best = float("inf")  # seconds of this thread alone: the machine is shared
    for _ in range(attempts):
        began = time.thread_time()
        async with subject.tracer.trace_component("step", inputs=huge):
            pass
        best = min(best, time.thread_time() - began)
    began = time.thread_time()
    repr(huge)
    bound = 2 * 0.002 + (time.thread_time() - began) / 40
    assert best < bound, f"the loop was held for {best * 1000:.1f} ms"
    assert len(str(subject.spans[-1].attributes["input.value"])) > 100


async def test_the_cost_of_a_snapshot_is_bounded() -> None:
    await check_that_a_snapshot_is_cheap(Limits(capture_seconds=0.002))


async def test_a_snapshot_of_everything_is_noticed() -> None:
    everything = Limits(capture_seconds=60.0, nodes=10_000_000, value_bytes=100_000_000, span_bytes=200_000_000)
    with pytest.raises(AssertionError, match="the loop was held"):
        await check_that_a_snapshot_is_cheap(everything, attempts=1)


async def test_the_last_outputs_given_stay() -> None:
    subject = Recording()
    async with subject.tracer.trace_component("step") as component:
        component.set_outputs({"try": 1})
        component.set_outputs({"try": 2}, metadata={"model": "m"})
    assert subject.one("step").attributes["output.value"] == '{"try":2}'
    assert subject.one("step").attributes["metadata"] == '{"model":"m"}'


async def test_what_a_component_is_given_reaches_the_span() -> None:
    subject = Recording()
    async with subject.tracer.trace_component("a") as other:
        pass
    async with subject.tracer.trace_component(
        "step", type="llm", kind=SpanKind.CLIENT, inputs="plain", attributes={"n": 1}, links=[other]
    ) as step:
        step.set_attributes({"x": 1.5, "b": True})
        step.set_status("error", "half of it")
    span = subject.one("step")
    assert (step.type, span.attributes["openinference.span.kind"], span.kind) == ("llm", "LLM", SpanKind.CLIENT)
    assert (span.attributes["input.value"], span.attributes["input.mime_type"]) == ("plain", "text/plain")
    assert [span.attributes[key] for key in ("n", "x", "b")] == [1, 1.5, True]
    assert (span.status, span.status_message, span.ending) == (StatusCode.ERROR, "half of it", "ok")
    assert [(link.trace_id, link.span_id) for link in span.links] == [(other.trace_id, other.span_id)]


# Times -----------------------------------------------------------------------------------------------------


class WallClockOnly(ManualClock):
    """Takes durations from the wall clock."""

    def monotonic_ns(self) -> int:
        return self.time_ns()


class WorkerTimes(NaiveTracer):
    """Takes times when a span is read, by the worker."""

    def record(self, span: Any, ending: str) -> None:
        super().record(span, ending)
        late = self.spans.pop()
        now = time.time_ns() + 10_000_000_000
        self.spans.append(
            type(late)(**{**{f: getattr(late, f) for f in late.__struct_fields__}, "start_ns": now, "end_ns": now})
        )


@promise(WorkerTimes)
async def test_times_are_those_of_the_call_site(subject: Any) -> None:
    before = time.time_ns()
    async with subject.tracer.trace_component("step"):
        await asyncio.sleep(0.02)
    after = time.time_ns()
    span = subject.one("step")
    assert before - 1_000_000 <= span.start_ns <= span.end_ns <= after + 1_000_000
    assert span.duration_ns >= 19_000_000


def check_jumps(clock: Any) -> None:
    subject = Recording(clock=clock)
    first_wall = clock.time_ns()
    with subject.tracer.trace_component("outer"):
        clock.advance(1)
        clock.jump(-3600)
        with subject.tracer.trace_component("inner"):
            clock.advance(2)
            clock.jump(7200)
        clock.advance(1)
    outer, inner = subject.one("outer"), subject.one("inner")
    assert (outer.start_ns, outer.duration_ns, inner.duration_ns) == (first_wall, 4_000_000_000, 2_000_000_000)
    assert outer.start_ns <= inner.start_ns <= inner.end_ns <= outer.end_ns


def test_jumps_of_the_wall_clock_change_no_duration_and_move_no_child_out_of_its_parent() -> None:
    check_jumps(ManualClock())


def test_durations_by_the_wall_clock_are_noticed() -> None:
    with pytest.raises(AssertionError):
        check_jumps(WallClockOnly())


def test_a_jump_moves_no_inner_run_out_of_the_one_around_it() -> None:
    clock = ManualClock()
    subject = Recording(clock=clock)
    with subject.tracer.trace("outer"):
        clock.advance(1)
        clock.jump(-3600)
        with subject.tracer.trace("inner"):
            clock.advance(1)
        clock.advance(1)
    outer, inner = subject.one("outer"), subject.one("inner")
    assert (inner.start_ns - outer.start_ns, outer.end_ns - inner.end_ns) == (1_000_000_000, 1_000_000_000)


def test_a_new_trace_after_a_jump_starts_at_the_new_time() -> None:
    clock = ManualClock()
    subject = Recording(clock=clock)
    clock.jump(100)
    with subject.tracer.trace_component("step"):
        pass
    assert subject.one("step").start_ns == clock.time_ns()


def test_a_log_has_the_time_of_its_call() -> None:
    clock = ManualClock()
    subject = Recording(clock=clock)
    with subject.tracer.trace_component("step") as component:
        clock.advance(0.25)
        component.add_log("now")
        clock.advance(1)
    span = subject.one("step")
    assert span.events[0].time_ns - span.start_ns == 250_000_000


# From everywhere -------------------------------------------------------------------------------------------


@promise(NeverRestores)
async def test_add_log_and_set_outputs_act_on_the_current_component(subject: Any) -> None:
    async with subject.tracer.trace_component("outer"):
        async with subject.tracer.trace_component("inner"):
            subject.tracer.add_log("in inner")
            subject.tracer.set_outputs("inner's")
        subject.tracer.add_log("in outer")
        subject.tracer.set_outputs("outer's")
    for name in ("inner", "outer"):
        assert [log.name for log in subject.one(name).events] == [f"in {name}"]
        assert subject.one(name).attributes["output.value"] == f"{name}'s"


async def test_a_child_task_and_a_thread_write_to_the_component_they_were_started_in() -> None:
    subject = Recording()

    async def child() -> None:
        subject.tracer.add_log("from a task")

    async with subject.tracer.trace_component("step"):
        await asyncio.create_task(child())
        await asyncio.to_thread(subject.tracer.add_log, "from a thread")
    assert [log.name for log in subject.one("step").events] == ["from a task", "from a thread"]


@promise(LosesUpdates)
async def test_no_update_is_lost_when_threads_and_tasks_write_at_once(subject: Any) -> None:
    together = threading.Barrier(4)

    def write(component: Any, writer: int) -> None:
        together.wait()
        for number in range(20):
            component.add_log(f"{writer}/{number}")

    async with subject.tracer.trace_component("step") as component:
        await asyncio.gather(*(asyncio.to_thread(write, component, writer) for writer in range(4)))
    logs = {log.name for log in subject.one("step").events}
    assert len(logs) == 80


async def test_writing_after_the_end_is_counted_and_changes_nothing() -> None:
    subject = Recording()
    async with subject.tracer.trace_component("step") as component:
        component.set_outputs("in time")
    before = list(subject.sink.records)
    component.add_log("late")
    component.set_outputs("late")
    component.set_attribute("late", 1)
    component.set_attributes({"late": 2})
    component.record_exception(ValueError("late"))
    component.set_status("error")
    component.end()
    assert subject.sink.records == before
    assert sum(subject.tracer._late_calls.values()) == 7


async def test_outside_any_component_nothing_happens_but_a_debug_line() -> None:
    subject = Recording()
    lines: list[Any] = []

    def keep(logger: Any, method: str, event: dict[str, Any]) -> dict[str, Any]:
        lines.append((method, event["event"]))
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    try:
        subject.tracer.add_log("nowhere")
        subject.tracer.set_outputs("nowhere")
    finally:
        structlog.reset_defaults()
    assert subject.spans == ()
    assert lines == [("debug", "tracing.outside_any_component")] * 2


# Nothing recorded ------------------------------------------------------------------------------------------


async def use_everything(tracer: Any) -> None:
    @tracer.trace_component("decorated")
    async def decorated() -> int:
        return 1

    with assert_no_context_leaked():
        async with tracer.trace("run", session_id="s", inputs={"a": 1}) as run:
            run.add_log("hi")
            run.set_outputs(1)
            run.set_attribute("k", 1)
            async with tracer.trace_component("step", type="llm", inputs=2, attributes={"n": 1}) as component:
                component.add_log("hi", n=1)
                component.set_outputs({}, metadata={"n": 1})
                component.set_attribute("k", "v")
                component.set_attributes({"k": "v"})
                component.record_exception(ValueError())
                component.set_status("error", "m")
                assert component.is_recording is False
                assert component.trace is not None
                assert await decorated() == 1
            with tracer.trace_component("plain"):
                tracer.add_log("current")
                tracer.set_outputs(3)
        started = tracer.trace_component("manual").start()
        started.end()
        started.end()
        with pytest.raises(KeyError):
            async with tracer.trace_component("failing"):
                raise KeyError("the program's own")


@pytest.mark.parametrize("options", [{"sampler": ALWAYS_OFF}, {"sampler": TraceIdRatio(0)}], ids=["off", "sampled out"])
async def test_a_tracer_that_records_nothing_has_the_same_face(options: dict[str, Any]) -> None:
    subject = Recording(**options)
    await use_everything(subject.tracer)
    assert subject.spans == ()


async def test_what_is_not_recorded_is_no_loss_either() -> None:
    subject = Recording(sampler=TraceIdRatio(0))
    async with subject.tracer.trace_component("root"), subject.tracer.trace_component("below", inputs=1):
        pass
    with subject.tracer.trace_component("plain root"):
        pass
    async with subject.tracer.trace("run"):
        pass
    assert (subject.sink.records, subject.sink.refused) == ([], [])
    assert subject.tracer._errors == {}
    assert subject.tracer._late_calls == {}


async def test_a_region_under_suppress_has_the_same_face_and_records_nothing() -> None:
    subject = Recording()
    with assert_no_context_leaked(), subject.tracer.suppress():
        await use_everything(subject.tracer)
    assert subject.spans == ()


async def test_suppress_ends_with_its_block_and_covers_the_tasks_started_in_it() -> None:
    subject = Recording()

    async def work() -> None:
        async with subject.tracer.trace_component("quiet"):
            await asyncio.sleep(0)

    async with subject.tracer.trace_component("outer") as outer:
        async with subject.tracer.suppress():
            assert subject.tracer.current_component() is None
            task = asyncio.create_task(work())
            async with subject.tracer.trace("quiet run"):
                pass
        await task
        assert subject.tracer.current_component() is outer
        async with subject.tracer.trace_component("inner"):
            pass
    assert sorted(span.name for span in subject.spans) == ["inner", "outer"]
    assert subject.one("inner").parent_id == outer.span_id


async def test_children_follow_the_decision_made_at_the_root() -> None:
    subject = Recording(sampler=TraceIdRatio(0.5))
    for _ in range(200):
        make = subject.tracer.trace_component
        async with subject.tracer.trace("run"), make("a"), make("b"):
            pass
    by_trace: dict[str, set[str]] = {}
    for span in subject.spans:
        by_trace.setdefault(span.trace_id, set()).add(span.name)
    assert 50 < len(by_trace) < 150
    assert all(names == {"run", "a", "b"} for names in by_trace.values())
