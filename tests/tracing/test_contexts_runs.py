"""Runs never mix: not at the same time, not inside one another, not when one component runs a thousand
times."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from .faulty import ForgetsToRestore, InnerRunIsApart, NeverRestores, OneRecordForEachName, OneScopeForAll
from .promises import promise
from .recording import Recording

pytestmark = pytest.mark.anyio

RUNS = 200
COMPONENTS = 20


@promise(OneScopeForAll)
async def test_a_run_that_starts_and_ends_while_another_sleeps_leaves_it_alone(subject: Any) -> None:
    asleep, other_is_over = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with subject.tracer.trace("first", session_id="s-1") as run:
            async with subject.tracer.trace_component("slow"):
                asleep.set()
                await other_is_over.wait()
                subject.tracer.add_log("awake")
                assert subject.tracer.current_trace() is run
            async with subject.tracer.trace_component("late"):
                subject.tracer.set_outputs("first's")

    async def second() -> None:
        await asleep.wait()
        async with subject.tracer.trace("second", session_id="s-2"), subject.tracer.trace_component("quick"):
            subject.tracer.set_outputs("second's")
        other_is_over.set()

    await asyncio.gather(first(), second())
    spans = {span.name: span for span in subject.spans}
    assert len(subject.spans) == len(spans) == 5
    assert {span.ending for span in subject.spans} == {"ok"}
    assert spans["first"].parent_id == spans["second"].parent_id == ""
    assert spans["first"].trace_id != spans["second"].trace_id
    for name, top in (("slow", "first"), ("late", "first"), ("quick", "second")):
        assert spans[name].parent_id == spans[top].span_id
        assert spans[name].trace_id == spans[top].trace_id
        assert spans[name].attributes["session.id"] == spans[top].attributes["session.id"]
    assert spans["late"].attributes["output.value"] == "first's"
    assert spans["quick"].attributes["output.value"] == "second's"
    assert [log.name for log in spans["slow"].events] == ["awake"]
    assert not spans["quick"].events


@promise(OneScopeForAll)
async def test_each_of_many_concurrent_runs_has_its_own_ids_users_sessions_and_outputs(subject: Any) -> None:
    chance = random.Random(11)

    async def run(number: int) -> None:
        ids = {"run_id": f"r-{number}", "user_id": f"u-{number}", "session_id": f"s-{number}"}
        async with subject.tracer.trace(f"run {number}", **ids) as current:
            for index in range(COMPONENTS):
                async with subject.tracer.trace_component(f"{number}/{index}", inputs=f"in {number}/{index}"):
                    await asyncio.sleep(chance.random() / 1000)
                    subject.tracer.set_outputs(f"out {number}/{index}")
                assert subject.tracer.current_trace() is current

    await asyncio.gather(*map(run, range(RUNS)))
    check_runs_kept_apart(subject.spans)


def check_runs_kept_apart(spans: list[Any]) -> None:
    assert len(spans) == RUNS * (COMPONENTS + 1)
    roots = {span.name.removeprefix("run "): span for span in spans if not span.parent_id}
    assert len(roots) == len({root.trace_id for root in roots.values()}) == RUNS
    for number, root in roots.items():
        assert root.attributes["asynctrace.run.id"] == f"r-{number}"
    for span in spans:
        number, _, index = span.name.removeprefix("run ").partition("/")
        assert span.trace_id == roots[number].trace_id
        assert span.attributes["user.id"] == f"u-{number}"
        assert span.attributes["session.id"] == f"s-{number}"
        if index:
            assert span.parent_id == roots[number].span_id
            assert span.attributes["input.value"] == f"in {number}/{index}"
            assert span.attributes["output.value"] == f"out {number}/{index}"


@promise(ForgetsToRestore, NeverRestores, InnerRunIsApart)
async def test_a_run_inside_a_run_is_a_child_of_the_current_component_and_gives_the_outer_one_back(
    subject: Any,
) -> None:
    async with subject.tracer.trace("outer", session_id="s-1", user_id="u-1") as outer:
        async with subject.tracer.trace_component("step") as step:
            async with subject.tracer.trace("inner", session_id="s-2") as inner:
                assert subject.tracer.current_trace() is inner
                assert subject.tracer.current_component() is None
                async with subject.tracer.trace_component("deep"):
                    assert subject.tracer.current_trace() is inner
            assert subject.tracer.current_trace() is outer
            assert subject.tracer.current_component() is step
        assert subject.tracer.current_trace() is outer
        async with subject.tracer.trace_component("after"):
            pass
    assert subject.tracer.current_trace() is None
    spans = {span.name: span for span in subject.spans}
    assert {span.trace_id for span in spans.values()} == {outer.trace_id}
    parents = {name: span.parent_id for name, span in spans.items()}
    assert parents == {
        "outer": "",
        "step": spans["outer"].span_id,
        "inner": spans["step"].span_id,
        "deep": spans["inner"].span_id,
        "after": spans["outer"].span_id,
    }
    sessions = {name: (span.attributes["session.id"], span.attributes["user.id"]) for name, span in spans.items()}
    assert sessions["deep"] == sessions["inner"] == ("s-2", "u-1")
    assert sessions["after"] == sessions["step"] == ("s-1", "u-1")


async def test_a_run_directly_inside_a_run_is_its_child() -> None:
    subject = Recording()
    with subject.tracer.trace("outer") as outer:
        with subject.tracer.trace("inner"):
            pass
        assert subject.tracer.current_trace() is outer
    assert subject.one("inner").parent_id == outer.span_id


@promise(OneRecordForEachName)
async def test_one_component_run_a_thousand_times_is_a_thousand_spans_with_their_own_values(subject: Any) -> None:
    given: dict[str, int] = {}
    async with subject.tracer.trace("run"):
        for number in range(1000):
            given["n"] = number
            async with subject.tracer.trace_component("step", inputs=given) as component:
                component.set_outputs(f"{number * number}")
    steps = subject.named("step")
    assert len({span.span_id for span in steps}) == 1000
    outputs = [span.attributes["output.value"] for span in steps]
    assert outputs == [str(number * number) for number in range(1000)]
    inputs = ["".join(char for char in str(span.attributes["input.value"]) if char.isdigit()) for span in steps]
    assert inputs == [str(number) for number in range(1000)]


async def test_a_component_without_a_run_starts_one_that_its_children_share() -> None:
    subject = Recording()
    async with subject.tracer.trace_component("top") as top, subject.tracer.trace_component("below") as below:
        assert below.trace is top.trace
        assert subject.tracer.current_trace() is top.trace
        assert below.trace.trace_id == top.trace_id
    assert subject.tracer.current_trace() is None
    assert subject.one("top").parent_id == ""
    assert subject.one("below").parent_id == subject.one("top").span_id


async def test_a_run_knows_what_it_was_given() -> None:
    subject = Recording()
    async with subject.tracer.trace(
        "run", run_id="r", session_id="s", user_id="u", project="p", tags=["a", "b"], metadata={"k": 1}, inputs={"q": 2}
    ) as run:
        run.set_outputs({"a": 3})
        run.set_attribute("shard", 4)
        run.add_log("hello", n=5)
    assert (run.name, run.run_id, run.session_id, run.user_id, run.project) == ("run", "r", "s", "u", "p")
    assert (list(run.tags), run.metadata) == (["a", "b"], {"k": 1})
    span = subject.one("run")
    assert (span.trace_id, span.span_id) == (run.trace_id, run.span_id)
    assert span.attributes["asynctrace.run.name"] == "run"
    assert span.attributes["asynctrace.project"] == "p"
    assert list(span.attributes["tag.tags"]) == ["a", "b"]  # type: ignore[call-overload, arg-type]
    assert span.attributes["metadata"] == '{"k":1}'
    assert span.attributes["input.value"] == '{"q":2}'
    assert span.attributes["output.value"] == '{"a":3}'
    assert span.attributes["shard"] == 4
    assert [(event.name, event.attributes) for event in span.events] == [("hello", {"n": 5})]
