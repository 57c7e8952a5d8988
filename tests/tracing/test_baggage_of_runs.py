"""Baggage is a run's: it goes along to every service behind, through every border, without secrets."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import asynctrace
from asynctrace import ALWAYS_OFF, MisuseError, TraceContext, Tracer
from asynctrace.exporters import MemoryExporter
from asynctrace.processes import environment

pytestmark = pytest.mark.anyio

AWS = "AKIAIOSFODNN7EXAMPLE"


def make_tracer(**options: Any) -> Tracer:
    return Tracer(service="shop", exporters=[MemoryExporter()], journal=False, **options)


def injected(tracer: Tracer) -> dict[str, str]:
    headers: dict[str, str] = {}
    tracer.inject(headers)
    return headers


def by_headers(run: TraceContext, tracer: Tracer) -> TraceContext:
    return tracer.extract(injected(tracer))


def by_carrier(run: TraceContext, tracer: Tracer) -> TraceContext:
    return TraceContext.from_carrier(json.loads(json.dumps(run.to_carrier())))


def by_pickle(run: TraceContext, tracer: Tracer) -> TraceContext:
    crossed: TraceContext = pickle.loads(pickle.dumps(run))
    return crossed


Cross = Callable[[TraceContext, Tracer], TraceContext]


def check_crossing(cross: Cross, **options: Any) -> None:
    near, far = make_tracer(**options), make_tracer()
    came = near.extract({"baggage": "tenant=t-1;ttl=3,region=eu"})
    with near, far, near.trace("job", context=came) as run:
        run.set_baggage("user", "Amélie & co")
        with near.trace_component("call"):
            crossed = cross(run, near)
        with far.trace("work", context=crossed) as work, far.trace_component("step"):
            assert work.baggage == {"tenant": "t-1", "region": "eu", "user": "Amélie & co"}
            assert injected(far)["baggage"] == "tenant=t-1;ttl=3,region=eu,user=Am%C3%A9lie%20&%20co"


@pytest.mark.parametrize("cross", [by_headers, by_carrier, by_pickle])
@pytest.mark.parametrize("options", [{}, {"sampler": ALWAYS_OFF}], ids=["recorded", "not recorded"])
def test_it_crosses_with_the_trace_also_where_nothing_is_recorded(cross: Cross, options: dict[str, Any]) -> None:
    check_crossing(cross, **options)


def with_traceparent_only(run: TraceContext, tracer: Tracer) -> TraceContext:
    return tracer.extract({"traceparent": injected(tracer)["traceparent"]})


def without_properties(run: TraceContext, tracer: Tracer) -> TraceContext:
    crossed = by_headers(run, tracer)
    for key, value in crossed.baggage.items():
        crossed.set_baggage(key, value)
    return crossed


@pytest.mark.parametrize("broken", [with_traceparent_only, without_properties])
def test_the_check_notices_a_way_across(broken: Cross) -> None:
    with pytest.raises(AssertionError):
        check_crossing(broken)


def test_it_goes_on_without_a_trace() -> None:
    tracer = make_tracer()
    with tracer, tracer.trace("run", context=tracer.extract({"baggage": "a=1"})) as run:
        assert run.baggage == {"a": "1"}
        assert len(run.trace_id) == 32
        assert tracer.statistics().ignored_contexts == {}


async def test_a_run_inside_starts_with_that_of_its_outer_run_and_keeps_what_it_sets_to_itself() -> None:
    async with make_tracer() as tracer, tracer.trace("outer") as outer:
        outer.set_baggage("a", "outer")
        outer.set_baggage("b", "outer")
        prepared = tracer.trace("inner")
        prepared.set_baggage("b", "inner")
        async with tracer.trace_component("between"), prepared as inner:
            inner.set_baggage("c", "inner")
            inner.remove_baggage("a")
            assert inner.baggage == {"b": "inner", "c": "inner"}
        assert outer.baggage == {"a": "outer", "b": "outer"}


async def test_all_tasks_of_a_run_see_it_and_runs_side_by_side_do_not() -> None:
    async with make_tracer() as tracer:
        is_set = asyncio.Event()

        async def read() -> dict[str, str]:
            await is_set.wait()
            run = tracer.current_trace()
            assert run is not None
            return dict(run.baggage)

        async def one_run(name: str) -> dict[str, str]:
            async with tracer.trace(name) as run:
                reader = asyncio.create_task(read())
                run.set_baggage("run", name)
                is_set.set()
                return await reader

        assert await asyncio.gather(one_run("a"), one_run("b")) == [{"run": "a"}, {"run": "b"}]


def test_a_trace_without_a_run_has_some_too() -> None:
    tracer = make_tracer()
    with tracer, tracer.trace_component("alone") as component:
        component.trace.set_baggage("a", "1")
        with tracer.trace_component("below"):
            assert injected(tracer)["baggage"] == "a=1"


def test_a_bound_function_finds_it() -> None:
    tracer = make_tracer()
    with tracer:
        with tracer.trace("run") as run:
            bound = tracer.bind(lambda: injected(tracer))
            run.set_baggage("a", "1")
        assert bound()["baggage"] == "a=1"


def test_nothing_goes_along_where_nothing_is_current_or_traced() -> None:
    tracer = make_tracer()
    with tracer, tracer.trace("run") as run:
        run.set_baggage("a", "1")
        with tracer.suppress():
            assert injected(tracer) == {}
    assert injected(tracer) == {}


def test_a_program_finds_it_in_its_environment() -> None:
    code = "import os, asynctrace; print(asynctrace.extract(os.environ).baggage['a'])"
    tracer = make_tracer()
    with tracer, tracer.trace("run") as run:
        run.set_baggage("a", "x, y")
        variables = environment()
        assert variables["BAGGAGE"] == "a=x%2C%20y"
        told = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, check=True, timeout=60)
    assert told.stdout == b"x, y\n"
    assert "BAGGAGE" not in environment({"BAGGAGE": "old=1", "PATH": "/"})


# Misuse and bounds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "value"), [(7, "1"), ("a", 7), ("a", None), (b"a", "1")])
def test_what_is_no_text_is_told_at_once(key: Any, value: Any) -> None:
    with make_tracer() as tracer, tracer.trace("run") as run, pytest.raises(TypeError, match="set_baggage"):
        run.set_baggage(key, value)


def test_a_key_that_no_header_may_have_is_told_at_once() -> None:
    with make_tracer() as tracer, tracer.trace("run") as run, pytest.raises(MisuseError):
        run.set_baggage("a b", "1")


def test_what_no_longer_fits_is_not_set_and_counted() -> None:
    tracer = make_tracer()
    with tracer, tracer.trace("run") as run:
        run.set_baggage("a", "1")
        run.set_baggage("b", "x" * 9000)
        assert run.baggage == {"a": "1"}
        assert tracer.statistics().ignored_contexts == {"baggage": 1}


def test_a_hostile_callers_is_cut_and_counted() -> None:
    tracer = make_tracer()
    hostile = ",".join(f"k{number}={'x' * 200}" for number in range(100_000))
    with tracer, tracer.trace("run", context=tracer.extract({"baggage": hostile})) as run:
        assert 0 < len(run.baggage) <= 64
        assert len(injected(tracer)["baggage"]) <= 8192
        assert tracer.statistics().ignored_contexts == {"baggage": 1}


def test_a_carrier_stays_small_and_leaves_it_out_before_anything_but_metadata() -> None:
    tracer = make_tracer()
    with tracer, tracer.trace("run", metadata={"k": "m" * 900}, tags=["t" * 300]) as run:
        run.set_baggage("a", "x" * 1000)
        carrier = run.to_carrier()
        assert carrier["asynctrace"]["left_out"] == ["metadata"]
        run.set_baggage("b", "x" * 600)
        carrier = run.to_carrier()
        assert carrier["asynctrace"]["left_out"] == ["metadata", "baggage"]
        assert carrier["asynctrace"]["tags"] == ["t" * 300]
        assert len(json.dumps(carrier)) < 2000


# Secrets -------------------------------------------------------------------------------------------------------------

SECRETS = {
    "a name of one": ("password", "hunter2"),
    "a value that is one": ("note", f"use {AWS}"),
    "one under a name of its own": (AWS, "1"),
}


def check_masking(place: Callable[[Tracer, str, str], str], tracer: Tracer) -> None:
    for what, (key, value) in SECRETS.items():
        text = place(tracer, key, value)
        assert AWS not in text, what
        assert "hunter2" not in text, what
    assert "t-1" in place(tracer, "tenant", "t-1")


def set_here(tracer: Tracer, key: str, value: str) -> str:
    with tracer.trace("run") as run:
        run.set_baggage(key, value)
        return f"{injected(tracer)} {run.to_carrier()} {run.baggage}"


def from_a_caller(tracer: Tracer, key: str, value: str) -> str:
    header = f"{key}={value.replace(' ', '%20')}"
    with tracer.trace("run", context=tracer.extract({"baggage": header})) as run:
        return f"{injected(tracer)} {run.to_carrier()} {run.baggage}"


@pytest.mark.parametrize("place", [set_here, from_a_caller])
def test_secrets_do_not_go_along(place: Callable[[Tracer, str, str], str]) -> None:
    with make_tracer() as tracer:
        check_masking(place, tracer)


def test_secrets_in_properties_do_not_go_along() -> None:
    context = asynctrace.extract({"baggage": f"a=1;token=hunter2;note={AWS};ttl=3"})
    with make_tracer() as tracer, tracer.trace("run", context=context):
        assert injected(tracer)["baggage"] == "a=1;ttl=3"


@pytest.mark.parametrize("place", [set_here, from_a_caller])
def test_a_tracer_that_masks_nothing_is_noticed(place: Callable[[Tracer, str, str], str]) -> None:
    with make_tracer(mask=False) as tracer, pytest.raises(AssertionError):
        check_masking(place, tracer)


def test_a_masker_that_fails_takes_the_entry_with_it_and_nothing_else() -> None:
    def fails(key: str, text: str) -> str:
        if key == "a":
            raise ValueError(text)
        return text.upper()

    with make_tracer(mask=fails) as tracer, tracer.trace("run", context=tracer.extract({"baggage": "a=x,b=y"})) as run:
        assert run.baggage == {"a": "[masked: masker failed]", "b": "Y"}
        assert tracer.statistics().internal_errors == {"ValueError": 1}


def test_a_masker_sees_each_value_once() -> None:
    seen: list[tuple[str, str]] = []

    def marks(key: str, text: str) -> str:
        seen.append((key, text))
        return f"<{text}>"

    with make_tracer(mask=marks) as tracer, tracer.trace("run", context=tracer.extract({"baggage": "a=1"})) as run:
        run.set_baggage("b", "2")
        with tracer.trace("inner") as inner:
            inner.set_baggage("c", "3")
            assert inner.baggage == {"a": "<1>", "b": "<2>", "c": "<3>"}
    assert [pair for pair in seen if pair[0] in ("a", "b", "c")] == [("a", "1"), ("b", "2"), ("c", "3")]


def test_the_module_reads_and_writes_what_the_current_tracers_propagators_say() -> None:
    tracer = make_tracer(propagators=["b3", "baggage"])
    with tracer, tracer.trace("run") as run:
        run.set_baggage("a", "1")
        headers: dict[str, str] = {}
        asynctrace.inject(headers)
        assert headers == {"b3": f"{run.trace_id}-{run.span_id}-1", "baggage": "a=1"}
        assert tracer.extract(headers).trace_id == run.trace_id
        assert asynctrace.extract(headers).trace_id == ""
