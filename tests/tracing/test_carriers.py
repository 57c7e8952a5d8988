"""A run goes on elsewhere: from a carrier, from headers, from a pickled context. What cannot be used starts a trace of its
own, is counted, and is told of once."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import asynctrace
from asynctrace import ALWAYS_OFF, MisuseError, TraceContext, Tracer
from asynctrace.exporters import MemoryExporter

pytestmark = pytest.mark.anyio


def make_tracer(**options: Any) -> tuple[Tracer, MemoryExporter]:
    memory = MemoryExporter()
    return Tracer(service="shop", exporters=[memory], journal=False, **options), memory


Cross = Callable[[TraceContext], TraceContext]


def by_carrier(context: TraceContext) -> TraceContext:
    return TraceContext.from_carrier(json.loads(json.dumps(context.to_carrier())))


def by_pickle(context: TraceContext) -> TraceContext:
    crossed: TraceContext = pickle.loads(pickle.dumps(context))
    return crossed


def by_headers(context: TraceContext) -> TraceContext:
    headers: dict[str, str] = {}
    asynctrace.inject(headers)
    return asynctrace.extract({name.title(): value for name, value in headers.items()})


def check_crossing(cross: Cross) -> None:
    """Below the component that was current when the place was written down, with session and user."""
    near, near_memory = make_tracer()
    far, far_memory = make_tracer()
    with near, far:
        with near.trace("job", session_id="s-1", user_id="u-7", run_id="r-1", tags=["a"], metadata={"k": 1}) as run:
            at_root = cross(run) if cross is not by_headers else None
            with near.trace_component("ask") as ask:
                crossed = cross(run)
        with far.trace("work", context=crossed) as work, far.trace_component("step"):
            pass
        near.flush_sync()
        far.flush_sync()
        root, step = sorted(far_memory.spans, key=lambda span: span.name, reverse=True)
        assert (root.trace_id, root.parent_id) == (run.trace_id, ask.span_id)
        assert (step.trace_id, step.parent_id) == (run.trace_id, work.span_id)
        if at_root is not None:
            assert at_root.span_id == run.span_id
            assert (crossed.run_id, crossed.name, crossed.tags, crossed.metadata) == ("r-1", "job", ("a",), {"k": 1})
            assert step.attributes["session.id"] == "s-1"
            assert step.attributes["user.id"] == "u-7"
        assert far.statistics().ignored_contexts == {}
        assert len(near_memory.spans) == 2


@pytest.mark.parametrize("cross", [by_carrier, by_pickle, by_headers])
def test_a_run_goes_on_where_it_was_left(cross: Cross) -> None:
    check_crossing(cross)


def to_the_root(context: TraceContext) -> TraceContext:
    carrier = context.to_carrier()
    *ids, _, flags = carrier["traceparent"].split("-")
    return TraceContext.from_carrier({**carrier, "traceparent": "-".join((*ids, context.span_id, flags))})


def without_what_is_ours(context: TraceContext) -> TraceContext:
    return TraceContext.from_carrier({"traceparent": context.to_carrier()["traceparent"]})


@pytest.mark.parametrize("cross", [to_the_root, without_what_is_ours, lambda context: TraceContext()])
def test_a_crossing_that_loses_something_is_noticed(cross: Cross) -> None:
    with pytest.raises((AssertionError, KeyError)):
        check_crossing(cross)


GOOD = {"traceparent": f"00-{'a1' * 16}-{'b2' * 8}-01"}
BAD: dict[str, tuple[object, str]] = {
    "nothing": ({}, "malformed"),
    "a number": (7, "malformed"),
    "zero ids": ({"traceparent": f"00-{'0' * 32}-{'0' * 16}-01"}, "malformed"),
    "a wrong version": ({"traceparent": GOOD["traceparent"].replace("00-", "ff-", 1)}, "malformed"),
    "a list for ids": ({"traceparent": [1]}, "malformed"),
    "ours is no mapping": ({**GOOD, "asynctrace": 3}, "malformed"),
    "a newer version": ({**GOOD, "asynctrace": {"version": 2}}, "newer_version"),
    "huge": ({**GOOD, "asynctrace": {"version": 1, "name": "x" * 100_000}}, "too_large"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_carrier_that_cannot_be_used_starts_a_fresh_trace_and_is_counted(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    carrier, reason = BAD[name]
    tracer, memory = make_tracer()
    with tracer:
        for _ in range(3):
            context = TraceContext.from_carrier(carrier)
            assert (context.trace_id, context.span_id) == ("", "")
            with tracer.trace("work", context=context):
                pass
        tracer.flush_sync()
        assert tracer.statistics().ignored_contexts == {reason: 3}
    assert len({span.trace_id for span in memory.spans}) == 3
    assert [span.parent_id for span in memory.spans] == [""] * 3
    _, err = capfd.readouterr()
    assert err.count("tracing.ignored_context") == 1, err


def test_headers_without_a_caller_are_no_trouble_and_malformed_ones_are() -> None:
    tracer, _ = make_tracer()
    with tracer:
        for headers in ({}, {"Accept": "*/*"}, [(b"host", b"shop")]):
            with tracer.trace("work", context=tracer.extract(headers)):  # type: ignore[arg-type]
                pass
        assert tracer.statistics().ignored_contexts == {}
        for headers in ({"TraceParent": "nonsense"}, [(b"traceparent", b"00-1-2-3")]):
            with tracer.trace("work", context=tracer.extract(headers)):
                pass
        assert tracer.statistics().ignored_contexts == {"malformed": 2}


class Lying(dict[str, Any]):
    def __contains__(self, key: object) -> bool:
        raise RuntimeError("no")


def test_a_mapping_that_raises_is_malformed() -> None:
    context = asynctrace.extract(Lying())
    assert context.trace_id == ""
    tracer, _ = make_tracer()
    with tracer, tracer.trace("work", context=context):
        assert tracer.statistics().ignored_contexts == {"malformed": 1}


def test_a_run_that_was_not_entered_has_no_place_yet() -> None:
    tracer, _ = make_tracer()
    with tracer, pytest.raises(MisuseError, match="async with"):
        tracer.trace("job").to_carrier()


def test_what_is_not_sampled_says_so_to_the_far_side() -> None:
    tracer, _ = make_tracer(sampler=ALWAYS_OFF)
    with tracer, tracer.trace("job") as run:
        assert run.to_carrier()["traceparent"].endswith("-02")


def test_nothing_is_injected_where_nothing_is_current_or_traced() -> None:
    tracer, _ = make_tracer()
    with tracer:
        headers: dict[str, str] = {}
        tracer.inject(headers)
        with tracer.suppress():
            tracer.inject(headers)
        assert headers == {}


def test_a_hundred_messages_that_are_mixed_up_keep_their_parents() -> None:
    near, _ = make_tracer()
    far, far_memory = make_tracer()
    with near, far:
        messages = []
        for number in range(100):
            with near.trace("produce") as run, near.trace_component("put") as put:
                messages.append((number, put.span_id, pickle.dumps({"context": run, "number": number})))
        messages.sort(key=lambda message: message[0] * 37 % 100)
        expected = {}
        for number, put_by, message in messages:
            context = pickle.loads(message)["context"]
            with far.trace(f"consume-{number}", context=context), far.trace_component("step"):
                expected[f"consume-{number}"] = put_by
        far.flush_sync()
        found = {span.name: span.parent_id for span in far_memory.spans if span.name != "step"}
    assert found == expected
