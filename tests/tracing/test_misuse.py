"""A wrong call raises at once, where it was made, and says what the right one looks like; it records nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import asynctrace
from asynctrace import ComponentTraceContext, ConfigurationError, MisuseError, TraceContext, Tracer
from asynctrace.exporters import MemoryExporter
from asynctrace.testing import assert_no_context_leaked

from .recording import Recording

pytestmark = pytest.mark.anyio


def function() -> None:
    """Something to decorate by mistake."""


WRONG_TYPES: dict[str, tuple[Callable[[Any], object], str]] = {
    "a component's name": (lambda t: t.trace_component(7), "the name is a text"),
    "a decorator without its name": (lambda t: t.trace_component(function), r"trace_component\('name'\)"),
    "a run's name": (lambda t: t.trace(None), "the name is a text"),
    "a type": (lambda t: t.trace_component("x", type=3), "type is a text"),
    "an unhashable type": (lambda t: t.trace_component("x", type=["llm"]), "type is a text"),
    "an unhashable name": (lambda t: t.trace_component(["x"]), "the name is a text"),
    "a kind": (lambda t: t.trace_component("x", kind="sideways"), "SpanKind"),
    "a component's metadata": (lambda t: t.trace_component("x", metadata=["a"]), "metadata is a mapping"),
    "attributes": (lambda t: t.trace_component("x", attributes=[("a", 1)]), "a mapping of attributes"),
    "an attribute's key": (lambda t: t.trace_component("x", attributes={1: "a"}), "key is a text"),
    "a link": (lambda t: t.trace_component("x", links=["abc"]), "a link is"),
    "a link that was never entered": (lambda t: t.trace_component("x", links=[t.trace_component("y")]), "entered"),
    "a session": (lambda t: t.trace("x", session_id=5), "session_id is a text"),
    "a user": (lambda t: t.trace("x", user_id=b"u"), "user_id is a text"),
    "a run id": (lambda t: t.trace("x", run_id=1), "run_id is a text"),
    "a project": (lambda t: t.trace("x", project=1), "project is a text"),
    "one tag for a list": (lambda t: t.trace("x", tags="nightly"), "tags is a list"),
    "tags that are no texts": (lambda t: t.trace("x", tags=[1]), "tags is a list"),
    "a run's metadata": (lambda t: t.trace("x", metadata="a=1"), "metadata is a mapping"),
    "a remote context": (lambda t: t.trace("x", context={"traceparent": "…"}), "context is a TraceContext"),
    "a function to bind": (lambda t: t.bind(None), "bind"),
    "a function to decorate": (lambda t: t.trace_component("x")(3), "decorates functions"),
    "a class to decorate": (lambda t: t.trace_component("x")(Recording), "decorates functions"),
    "headers as a list": (lambda t: t.inject([("accept", "*/*")]), r"inject\(headers\), not list"),
    "no headers": (lambda t: t.inject(None), r"inject\(headers\), not NoneType"),
    "the error of a run": (lambda t: t.end_tracers(error="failed"), "error is an exception"),
}

WRONG_CALLS_ON_A_COMPONENT: dict[str, tuple[Callable[[Any], object], str]] = {
    "a log without a message": (lambda c: c.add_log({"a": 1}), "add_log"),
    "an attribute's key": (lambda c: c.set_attribute(1, "a"), "key is a text"),
    "an unhashable key": (lambda c: c.set_attribute(["a"], "a"), "key is a text"),
    "attributes": (lambda c: c.set_attributes("a=1"), "a mapping of attributes"),
    "an exception": (lambda c: c.record_exception("failed"), "takes an exception"),
    "an exception's class": (lambda c: c.record_exception(ValueError), "takes an exception"),
    "a status": (lambda c: c.set_status("bad"), "set_status"),
    "a status as a number": (lambda c: c.set_status(2), "set_status"),
    "a status message": (lambda c: c.set_status("error", 404), "message text"),
    "metadata": (lambda c: c.set_outputs(1, metadata=[1]), "metadata is a mapping"),
}


@pytest.mark.parametrize("mistake", WRONG_TYPES)
def test_a_wrong_type_raises_a_type_error_at_the_call_that_made_it(mistake: str) -> None:
    call, hint = WRONG_TYPES[mistake]
    subject = Recording()
    with assert_no_context_leaked(), pytest.raises(TypeError, match=hint):
        call(subject.tracer)
    assert subject.spans == ()
    assert not subject.tracer._open


@pytest.mark.parametrize("mistake", WRONG_CALLS_ON_A_COMPONENT)
def test_a_wrong_call_on_a_component_raises_and_the_component_goes_on(mistake: str) -> None:
    call, hint = WRONG_CALLS_ON_A_COMPONENT[mistake]
    subject = Recording()
    with subject.tracer.trace_component("step") as component:
        with pytest.raises(TypeError, match=hint):
            call(component)
        component.add_log("still here")
    assert subject.one("step").ending == "ok"
    assert [event.name for event in subject.one("step").events] == ["still here"]


def check_reentry(handle: Any) -> None:
    with handle, pytest.raises(MisuseError, match="entered once"):
        handle.__enter__()
    with pytest.raises(MisuseError, match="entered once"):
        handle.__enter__()


@pytest.mark.parametrize("kind", ["trace", "trace_component"])
def test_a_handle_is_entered_once(kind: str) -> None:
    subject = Recording()
    with assert_no_context_leaked():
        check_reentry(getattr(subject.tracer, kind)("once"))
    assert [(span.name, span.ending) for span in subject.spans] == [("once", "ok")]


def test_a_handle_that_may_be_entered_twice_is_noticed() -> None:
    from .faulty import NaiveTracer

    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_reentry(NaiveTracer().trace_component("twice"))


def test_end_before_entry_says_how_it_is_done() -> None:
    with pytest.raises(MisuseError, match=r"start\(\)"):
        Recording().tracer.trace_component("step").end()


def test_components_are_made_by_a_tracer() -> None:
    with pytest.raises(MisuseError, match="trace_component"):
        ComponentTraceContext()


def test_a_component_has_no_trace_before_it_is_entered() -> None:
    component = Recording().tracer.trace_component("step")
    with pytest.raises(MisuseError, match="once it is entered"):
        assert component.trace
    assert (component.span_id, component.parent_id, component.trace_id) == ("", "", "")


def test_a_remote_context_is_no_handle() -> None:
    remote = TraceContext(trace_id="1" * 32, span_id="2" * 16)
    with pytest.raises(MisuseError, match="context=context"):
        remote.__enter__()
    with pytest.raises(MisuseError, match="context=context"):
        remote.add_log("nowhere")


WRONG_OPTIONS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "one exporter for a list": ({"exporters": MemoryExporter()}, TypeError, "exporters is a list"),
    "an exporter's class": ({"exporters": [MemoryExporter]}, TypeError, "an exporter has name"),
    "an address for an exporter": ({"exporters": "http://127.0.0.1:4318"}, TypeError, "exporters is a list"),
    "a service": ({"service": 3}, TypeError, "service is a str"),
    "limits": ({"limits": {"depth": 3}}, TypeError, "limits is a Limits"),
    "a timeout as a text": ({"shutdown_timeout": "10s"}, TypeError, "number of seconds"),
    "a negative timeout": ({"shutdown_timeout": -1}, ConfigurationError, "zero or more seconds"),
    "a capacity as a text": ({"capacity_bytes": "64 MiB"}, TypeError, "whole number"),
    "a capacity for nothing": ({"capacity_bytes": 10}, ConfigurationError, "at least"),
    "a policy": ({"when_full": "panic"}, ConfigurationError, "when_full"),
    "a masker": ({"mask": "password"}, (TypeError, ConfigurationError), "mask"),  # type: ignore[dict-item]
    "an option that does not exist": ({"sevice": "x"}, TypeError, "sevice"),
}


@pytest.mark.parametrize("mistake", WRONG_OPTIONS)
def test_a_wrong_option_raises_when_the_tracer_is_made(mistake: str) -> None:
    options, error, hint = WRONG_OPTIONS[mistake]
    with pytest.raises(error, match=hint):
        Tracer(**options)


async def test_a_synchronous_call_inside_a_running_loop_raises_rather_than_dead_locks() -> None:
    async with Tracer(service="test", exporters=[MemoryExporter()], journal=False) as tracer:
        for call, hint in (
            (tracer.flush_sync, r"await tracer\.flush\(\)"),
            (tracer.shutdown_sync, r"await tracer\.shutdown\(\)"),
            (tracer.start_sync, r"await tracer\.start\(\)"),
            (asynctrace.shutdown_sync, r"await asynctrace\.shutdown\(\)"),
        ):
            with pytest.raises(MisuseError, match=hint):
                call()
        with pytest.raises(MisuseError, match="async with"):
            tracer.__enter__()
        for wrong in ("soon", True, b"1"):
            with pytest.raises(TypeError, match="number of seconds"):
                await tracer.flush(timeout=wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="32 hex digits"):
            await tracer.flush(trace_id="abc")
        with tracer.trace_component("still works"):
            pass
        assert (await tracer.flush()).accepted == 1
