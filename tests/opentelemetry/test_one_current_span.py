"""There is one current span, whichever of the two APIs made it and whichever asks."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider as SDKProvider
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, TraceFlags

import asynctrace
from asynctrace import ALWAYS_OFF, ParentBased, Span
from asynctrace.opentelemetry import TracerProvider, _context
from asynctrace.tracing import current_component, current_trace
from asynctrace.tracing._scope import component_var, trace_var

from ..tracing.recording import Recording

REMOTE = SpanContext(0xAB << 100, 0xCD << 40, is_remote=True, trace_flags=TraceFlags(1))


class Both(Recording):
    """A recording, and a tracer of OpenTelemetry's kind on it."""

    def __init__(self, *, foreign_parents: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.provider = TracerProvider(self.tracer, foreign_parents=foreign_parents)  # type: ignore[arg-type]
        self.otel = self.provider.get_tracer("tests")

    def parents(self) -> dict[str, str]:
        """For each span the name of its parent; "" for a root, "?" for one that is not here."""
        names = {span.span_id: span.name for span in self.spans}
        return {span.name: names.get(span.parent_id, "?") if span.parent_id else "" for span in self.spans}

    def named(self, name: str) -> Span:
        (span,) = (span for span in self.spans if span.name == name)
        return span


@pytest.fixture(autouse=True)
def nothing_left_and_nothing_said(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.WARNING):
        yield
    assert [record.getMessage() for record in caplog.records] == []
    assert (component_var.get(), trace_var.get(), trace.get_current_span()) == (None, None, INVALID_SPAN)


def shown() -> str:
    """The id of the span that OpenTelemetry takes for current."""
    return trace.format_span_id(trace.get_current_span().get_span_context().span_id)


# In both directions ------------------------------------------------------------------------------------------------


def check_nesting(both: Both) -> None:
    """Each kind of span in each other one."""
    with both.tracer.trace("run") as run:
        assert shown() == run.span_id
        with both.otel.start_as_current_span("entered") as entered:
            assert trace.get_current_span() is entered
            with both.tracer.trace_component("component") as component:
                assert shown() == component.span_id
                used = both.otel.start_span("used")
                assert shown() == component.span_id, "a span that is started is not current"
                with trace.use_span(used, end_on_exit=True):
                    assert trace.get_current_span() is used
                    with both.tracer.trace_component("inner") as inner:
                        token = context.attach(trace.set_span_in_context(both.otel.start_span("attached")))
                        attached = trace.get_current_span()
                        with both.tracer.trace("run inside"), both.otel.start_as_current_span("innermost"):
                            pass
                        assert trace.get_current_span() is attached
                        attached.end()
                        context.detach(token)
                        assert shown() == inner.span_id
                assert shown() == component.span_id
            assert trace.get_current_span() is entered
        assert shown() == run.span_id
    assert both.parents() == {
        "run": "",
        "entered": "run",
        "component": "entered",
        "used": "component",
        "inner": "used",
        "attached": "inner",
        "run inside": "attached",
        "innermost": "run inside",
    }


def test_each_is_the_parent_of_the_other() -> None:
    check_nesting(Both())


def test_the_same_span_and_context_are_shown_for_as_long_as_the_same_is_current() -> None:
    both = Both()
    with both.tracer.trace_component("component"):
        assert trace.get_current_span() is trace.get_current_span()
        assert context.get_current() is context.get_current()


def test_what_is_set_on_the_current_span_is_set_on_the_component() -> None:
    both = Both()
    with both.tracer.trace("run"):
        trace.get_current_span().set_attribute("of the run", 1)
        with both.tracer.trace_component("component"):
            span = trace.get_current_span()
            span.set_attribute("mine", 1)
            span.add_event("told")
            span.set_status(trace.StatusCode.ERROR, "bad")
    assert both.named("run").attributes["of the run"] == 1
    recorded = both.named("component")
    assert (recorded.attributes["mine"], recorded.events[0].name, recorded.status_message) == (1, "told", "bad")


def test_a_component_is_what_an_opentelemetry_span_is() -> None:
    both = Both()
    with both.otel.start_as_current_span("span"):
        component = current_component()
        assert component is not None
        component.add_log("told", n=1)
        assert component.trace.trace_id == current_trace().trace_id  # type: ignore[union-attr]
    assert both.named("span").events[0].name == "told"


def test_nothing_current_is_an_invalid_span() -> None:
    """Instrumentations of servers ask `get_current_span() is INVALID_SPAN` before they read headers."""
    both = Both()
    assert trace.get_current_span() is INVALID_SPAN
    with both.tracer.trace_component("component"):
        token = context.attach(context.Context())
        assert trace.get_current_span() is INVALID_SPAN
        both.otel.start_span("apart").end()
        with both.tracer.trace_component("apart too"):
            pass
        context.detach(token)
    assert both.parents() == {"apart": "", "apart too": "", "component": ""}


def test_a_context_that_is_given_counts_and_not_the_current_one() -> None:
    both = Both()
    with both.tracer.trace("run"), both.tracer.trace_component("component"):
        kept = context.get_current()
        with both.tracer.trace_component("current"):
            both.otel.start_span("below", context=kept).end()
            both.otel.start_span("root", context=context.Context()).end()
        captured = both.otel.start_span("handed on")
    both.otel.start_span("late", context=trace.set_span_in_context(captured)).end()
    captured.end()
    parents = both.parents()
    assert (parents["below"], parents["root"], parents["late"]) == ("component", "", "handed on")


def test_baggage_and_other_values_pass_through() -> None:
    both = Both()
    token = context.attach(baggage.set_baggage("user", "u-1"))
    with both.tracer.trace_component("component"), both.otel.start_as_current_span("span"):
        assert baggage.get_baggage("user") == "u-1"
        inner = context.attach(context.set_value("mine", 1))
        with both.tracer.trace_component("inner"):
            assert (baggage.get_baggage("user"), context.get_value("mine")) == ("u-1", 1)
        context.detach(inner)
        assert context.get_value("mine") is None
    context.detach(token)
    assert baggage.get_baggage("user") is None
    assert both.parents() == {"inner": "span", "span": "component", "component": ""}


def test_a_region_in_which_nothing_is_traced() -> None:
    both = Both()
    with both.tracer.trace_component("component"), asynctrace.suppress():
        kept = context.get_current()
        with both.otel.start_as_current_span("not") as span:
            assert not span.is_recording()
            with trace.use_span(span), both.tracer.trace_component("not"):
                pass
        in_thread(lambda: both.otel.start_span("not", context=kept).end())
        in_thread(lambda: attached(kept, lambda: both.otel.start_span("not").end()))
    assert both.parents() == {"component": ""}


def test_what_is_below_a_span_that_is_not_sampled_is_not_recorded() -> None:
    both = Both(sampler=ALWAYS_OFF)
    with both.otel.start_as_current_span("not") as span:
        assert not span.is_recording()
        assert span.get_span_context().is_valid
        with both.tracer.trace_component("not"), trace.use_span(both.otel.start_span("not")):
            pass
    assert both.spans == ()


# Threads, tasks, generators ----------------------------------------------------------------------------------------


def in_thread(function: Callable[[], Any]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert not errors
    assert not thread.is_alive()


def attached(given: context.Context, function: Callable[[], Any]) -> None:
    token = context.attach(given)
    try:
        function()
    finally:
        context.detach(token)


def test_a_context_carries_the_current_component_into_a_thread() -> None:
    """As OpenTelemetry's instrumentation of threads does."""
    both = Both()

    def work() -> None:
        with both.tracer.trace_component("component there"):
            both.otel.start_span("span there").end()

    with both.tracer.trace("run", session_id="s-1") as run:
        of_run = context.get_current()
        with both.tracer.trace_component("component"):
            of_component = context.get_current()
            in_thread(lambda: attached(of_component, work))
        in_thread(lambda: attached(of_run, lambda: both.otel.start_span("below the run").end()))
        assert current_trace() is run
    assert both.parents() == {
        "span there": "component there",
        "component there": "component",
        "component": "run",
        "below the run": "run",
        "run": "",
    }
    assert both.named("below the run").attributes["session.id"] == "s-1"


def test_what_is_bound_shows_its_place() -> None:
    both = Both()
    with both.otel.start_as_current_span("span") as span:
        bound = both.tracer.bind(lambda: (shown(), both.otel.start_span("there").end()))
    with both.otel.start_as_current_span("other"):
        seen, _ = bound()
    assert seen == trace.format_span_id(span.get_span_context().span_id)
    assert both.parents()["there"] == "span"


def test_a_bound_function_leaves_everything_as_it_found_it() -> None:
    both = Both()
    with both.tracer.trace_component("component"):
        bound = both.tracer.bind(lambda: attached(context.get_current(), both.otel.start_span("there").end))
    attached_to = baggage.set_baggage("user", "u-1", trace.set_span_in_context(both.otel.start_span("span")))
    token = context.attach(attached_to)
    bound()
    assert context.get_current() is attached_to
    trace.get_current_span().end()
    context.detach(token)
    assert both.parents() == {"there": "component", "component": "", "span": ""}


def test_tasks_keep_what_was_current_when_they_began() -> None:
    both = Both()

    async def child(name: str, begun: asyncio.Event) -> None:
        await begun.wait()
        with both.otel.start_as_current_span(name):
            await asyncio.sleep(0)
            async with both.tracer.trace_component(f"in {name}"):
                pass

    async def main() -> None:
        begun = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            with both.otel.start_as_current_span("a"):
                group.create_task(child("b", begun))
            with trace.use_span(both.otel.start_span("c"), end_on_exit=True):
                group.create_task(child("d", begun))
            begun.set()

    asyncio.run(main())
    parents = both.parents()
    assert (parents["b"], parents["d"], parents["in b"], parents["in d"]) == ("a", "c", "b", "d")


def test_detaching_in_another_task_changes_nothing_and_says_nothing() -> None:
    both = Both()

    async def main() -> None:
        with both.tracer.trace_component("component") as component:
            token = context.attach(trace.set_span_in_context(both.otel.start_span("span")))
            await asyncio.create_task(detach_there(token))
            inside = current_component()
            assert inside is not None
            assert inside is not component
            context.detach(token)
            assert current_component() is component
            context.detach(token)
            assert current_component() is component

    async def detach_there(token: Any) -> None:
        context.detach(token)
        await asyncio.get_running_loop().run_in_executor(None, context.detach, token)

    asyncio.run(main())


def test_a_generator_that_is_dropped_elsewhere_disturbs_nobody() -> None:
    """OpenTelemetry logs "Failed to detach context" here."""
    both = Both()

    async def numbers() -> AsyncIterator[int]:
        with both.otel.start_as_current_span("generator"), trace.use_span(both.otel.start_span("used")):
            yield 1
            yield 2

    async def first() -> None:
        generator = numbers()
        async for _ in generator:
            break
        await asyncio.create_task(generator.aclose())  # type: ignore[attr-defined]
        async for _ in numbers():
            break

    async def main() -> None:
        with both.tracer.trace_component("component") as component:
            await asyncio.create_task(first())
            gc.collect()
            await asyncio.sleep(0)
            assert current_component() is component

    asyncio.run(main())


def test_out_of_order_the_outermost_wins() -> None:
    both = Both()
    outer = context.attach(trace.set_span_in_context(both.otel.start_span("outer")))
    inner = context.attach(trace.set_span_in_context(both.otel.start_span("inner")))
    context.detach(outer)
    assert trace.get_current_span() is INVALID_SPAN
    context.detach(inner)
    assert trace.get_current_span() is INVALID_SPAN
    component = both.tracer.trace_component("component").start()
    token = context.attach(trace.set_span_in_context(both.otel.start_span("span")))
    component.end()
    context.detach(token)


OPENERS: dict[str, Callable[[Both, str], tuple[str, Callable[[], None]]]] = {}


def opener(function: Callable[[Both, str], tuple[str, Callable[[], None]]]) -> None:
    OPENERS[function.__name__] = function


@opener
def component(both: Both, name: str) -> tuple[str, Callable[[], None]]:
    opened = both.tracer.trace_component(name).start()
    return opened.span_id, opened.end


@opener
def entered(both: Both, name: str) -> tuple[str, Callable[[], None]]:
    block = both.otel.start_as_current_span(name)
    span = block.__enter__()
    return trace.format_span_id(span.get_span_context().span_id), lambda: block.__exit__(None, None, None)


@opener
def used(both: Both, name: str) -> tuple[str, Callable[[], None]]:
    span = both.otel.start_span(name)
    token = context.attach(trace.set_span_in_context(span))
    return trace.format_span_id(span.get_span_context().span_id), lambda: (context.detach(token), span.end())[1]


@given(st.lists(st.sampled_from(sorted(OPENERS)) | st.integers(0, 5), max_size=14))
@settings(deadline=None, max_examples=200)
def test_opened_and_left_in_any_order_the_innermost_that_is_left_stands(script: list[str | int]) -> None:
    """A number leaves what was opened so many steps ago; what was opened inside it is left with it."""
    contextvars.copy_context().run(check_script, script)


def check_script(script: list[str | int]) -> None:
    both = Both()
    stack: list[tuple[str, Callable[[], None]]] = []
    open_ones: list[tuple[str, Callable[[], None]]] = []
    for step in [*script, *[0] * len(script)]:
        if isinstance(step, str):
            opened = OPENERS[step](both, step)
            stack.append(opened)
            open_ones.append(opened)
        elif open_ones:
            left = open_ones.pop(-1 - min(step, len(open_ones) - 1))
            left[1]()
            if left in stack:
                del stack[stack.index(left) :]
        current = current_component()
        assert (current.span_id if current is not None else "") == (stack[-1][0] if stack else "")
        assert shown() == (stack[-1][0] if stack else "0" * 16)


def check_what_was_left() -> None:
    both = Both()
    component = both.tracer.trace_component("component").start()
    token = context.attach(context.Context())
    component.end()
    context.detach(token)
    assert current_component() is None


def test_detaching_brings_nothing_back_that_was_left() -> None:
    check_what_was_left()


def test_a_span_attached_in_what_stands_below_it_makes_no_circle() -> None:
    both, other = Both(), Both()
    span = both.otel.start_span("span")
    with (
        trace.use_span(span),
        both.tracer.trace_component("component"),
        trace.use_span(span),
        other.tracer.trace_component("root of another"),  # walks through all of it
    ):
        pass
    span.end()
    assert other.parents() == {"root of another": ""}


def test_tokens_from_before_the_first_provider_still_work() -> None:
    inner = _context._shared._inner  # type: ignore[union-attr]
    token = inner.attach(context.Context({"k": "v"}))
    assert context.get_value("k") == "v"
    both = Both()
    with both.tracer.trace_component("component"):
        assert context.get_value("k") == "v"
    context.detach(token)
    assert context.get_value("k") is None


# Others ------------------------------------------------------------------------------------------------------------


def test_a_remote_caller_that_is_attached_is_the_parent_of_components_and_runs() -> None:
    both = Both()
    attached_to = trace.set_span_in_context(NonRecordingSpan(REMOTE), context.Context())
    token = context.attach(attached_to)
    assert context.get_current() is attached_to
    with both.tracer.trace_component("component"):
        both.otel.start_span("span").end()
    with both.tracer.trace("run"):
        pass
    both.otel.start_span("first").end()
    context.detach(token)
    both.otel.start_span("by context", context=attached_to).end()
    assert {span.trace_id for span in both.spans} == {trace.format_trace_id(REMOTE.trace_id)}
    remote = trace.format_span_id(REMOTE.span_id)
    assert [both.named(name).parent_id for name in ("component", "run", "first", "by context")] == [remote] * 4
    assert both.parents()["span"] == "component"


def test_a_remote_caller_decides_if_the_sampler_says_so() -> None:
    both = Both(sampler=ParentBased())
    unsampled = NonRecordingSpan(SpanContext(1, 2, is_remote=True))
    token = context.attach(trace.set_span_in_context(unsampled))
    with both.tracer.trace_component("not"), both.otel.start_as_current_span("not") as span:
        assert span.get_span_context().trace_id == 1 or not span.is_recording()
    context.detach(token)
    both.otel.start_span("not", context=trace.set_span_in_context(unsampled)).end()
    assert both.spans == ()


def test_the_tracestate_of_a_remote_caller_is_handed_on() -> None:
    both = Both()
    state = trace.TraceState([("vendor", "1")])
    remote = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1), trace_state=state)
    with trace.use_span(NonRecordingSpan(remote)), both.otel.start_as_current_span("span") as span:
        assert span.get_span_context().trace_state.to_header() == "vendor=1"
        carrier: dict[str, str] = {}
        both.tracer.inject(carrier)
        assert carrier["tracestate"] == "vendor=1"
    below = both.otel.start_span("below", context=trace.set_span_in_context(NonRecordingSpan(remote)))
    assert below.get_span_context().trace_state.to_header() == "vendor=1"
    below.end()


def test_spans_of_another_provider_and_ours_are_each_others_parents() -> None:
    both = Both()
    sdk = SDKProvider().get_tracer("sdk")
    with sdk.start_as_current_span("theirs") as theirs:
        component = both.tracer.trace_component("component")
        with component, sdk.start_as_current_span("inner theirs") as inner:
            assert inner.parent.span_id == int(component.span_id, 16)  # type: ignore[attr-defined]
            assert trace.get_current_span() is inner
            both.otel.start_span("innermost").end()
        assert trace.get_current_span() is theirs
    assert {int(span.trace_id, 16) for span in both.spans} == {theirs.get_span_context().trace_id}
    assert int(both.named("component").parent_id, 16) == theirs.get_span_context().span_id
    assert int(both.named("innermost").parent_id, 16) == inner.get_span_context().span_id


def test_spans_of_another_provider_can_be_looked_through() -> None:
    both = Both(foreign_parents=False)
    sdk = SDKProvider().get_tracer("sdk")
    theirs, inner = sdk.start_as_current_span("theirs"), sdk.start_as_current_span("inner theirs")
    with theirs as outermost, both.tracer.trace_component("component"), inner:
        with both.tracer.trace_component("inner"):
            pass
        both.otel.start_span("innermost").end()
        both.otel.start_span("by context", context=context.get_current()).end()
    assert both.parents() == {
        "inner": "component",
        "innermost": "component",
        "by context": "component",
        "component": "",
    }
    assert int(both.named("component").trace_id, 16) != outermost.get_span_context().trace_id


def test_two_tracers_share_nothing() -> None:
    one, two = Both(), Both()
    with (
        one.otel.start_as_current_span("one"),
        two.otel.start_as_current_span("two"),
        trace.use_span(one.otel.start_span("one inside"), end_on_exit=True),
        two.tracer.trace_component("two inside"),
        one.tracer.trace_component("one innermost"),
    ):
        two.otel.start_span("two innermost", context=context.get_current()).end()
    assert one.parents() == {"one innermost": "one inside", "one inside": "one", "one": ""}
    assert two.parents() == {"two innermost": "two inside", "two inside": "two", "two": ""}


def test_a_provider_makes_nothing_global() -> None:
    before = trace._TRACER_PROVIDER
    TracerProvider(Recording().tracer)  # type: ignore[arg-type]
    assert trace._TRACER_PROVIDER is before
    assert not isinstance(trace.get_tracer_provider(), TracerProvider)


# Where OpenTelemetry is made otherwise -------------------------------------------------------------------------------


@pytest.fixture
def of_other_internals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of opentelemetry-api that keeps its context where nobody knows."""
    hidden = _context._shared._inner  # type: ignore[union-attr]
    monkeypatch.setattr(_context, "_shared", None)
    monkeypatch.setattr(_context, "_is_in_place", False)
    monkeypatch.delattr(context, "_RUNTIME_CONTEXT")
    for name in ("attach", "detach", "get_current"):
        monkeypatch.setattr(context, name, getattr(hidden, name))
        monkeypatch.setattr(_context._Functions, name, staticmethod(getattr(hidden, name)))


def test_where_the_context_cannot_be_shared_it_says_so_and_our_own_spans_still_are(of_other_internals: None) -> None:
    with pytest.warns(RuntimeWarning, match="does not know how this version"):
        both = Both()
    Both()  # once
    with both.otel.start_as_current_span("span") as span:
        assert trace.get_current_span() is span
        with both.tracer.trace_component("component"), both.otel.start_as_current_span("inner") as inner:
            assert trace.get_current_span() is inner
        assert trace.get_current_span() is span
    assert both.parents() == {"inner": "component", "component": "span", "span": ""}


# What the checks notice ----------------------------------------------------------------------------------------------


def attaching_leaves_the_component(monkeypatch: pytest.MonkeyPatch) -> None:
    def attach(self: Any, given: context.Context) -> Any:
        return self._inner.attach(given)

    monkeypatch.setattr(_context.SharedContext, "attach", attach)


def components_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_context.SharedContext, "get_current", lambda self: self._inner.get_current())


def detaching_leaves_the_component(monkeypatch: pytest.MonkeyPatch) -> None:
    def detach(self: Any, token: Any) -> None:
        self._inner_attach(token.before)
        _context._attachment_var.set(token.outer)

    monkeypatch.setattr(_context.SharedContext, "detach", detach)


def faces_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown_anew(self: Any, given: context.Context, component: Any, run: Any) -> context.Context:
        _context._face_var.set(None)
        return _context._showing(given, component, run)

    monkeypatch.setattr(_context.SharedContext, "_shown", shown_anew)


IN_ODD_ORDER: list[str | int] = ["component", "used", 1, "used", 1]


def what_was_left_is_brought_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_context, "_was_left", lambda component: False)


def everything_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_context, "_is_inside", lambda component, run, at: True)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (what_was_left_is_brought_back, check_what_was_left),
        (everything_is_inside, lambda: check_script(IN_ODD_ORDER)),
    ],
)
def test_odd_orders_notice(broken: Callable[[pytest.MonkeyPatch], None], check: Callable[[], None]) -> None:
    def run() -> None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            broken(monkeypatch)
            with pytest.raises(AssertionError):
                check()

    contextvars.copy_context().run(run)


@pytest.mark.parametrize(
    "broken",
    [
        attaching_leaves_the_component,
        components_are_not_shown,
        detaching_leaves_the_component,
        faces_are_made_anew,
    ],
)
def test_the_nesting_notices(broken: Callable[[pytest.MonkeyPatch], None]) -> None:
    def run() -> None:
        both = Both()
        with pytest.MonkeyPatch.context() as monkeypatch:
            broken(monkeypatch)
            with pytest.raises((AssertionError, ValueError, AttributeError)):
                check_nesting(both)

    contextvars.copy_context().run(run)
