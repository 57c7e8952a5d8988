"""Spans that are opened without becoming current, renamed, and ended with an ending that no exception tells of."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from asynctrace import ALWAYS_OFF, Ending, Link, ParentBased, Probability, Span, SpanKind, StatusCode, TraceIdRatio
from asynctrace._contracts import Scope
from asynctrace.propagation import RemoteSpan
from asynctrace.testing import ManualClock, assert_no_context_leaked
from asynctrace.tracing import Recorder, _apart, current_component, current_trace, suppress
from asynctrace.tracing._scope import SUPPRESSED, component_var, trace_var
from asynctrace.wire import scope_fields

from .recording import Recording

ELSEWHERE = RemoteSpan("ab" * 16, "cd" * 8, is_sampled=True, tracestate="vendor=1")


def by_name(recording: Recording) -> dict[str, Span]:
    return {span.name: span for span in recording.spans}


def test_it_stands_below_whatever_it_is_told_to() -> None:
    recording = Recording()
    tracer = recording.tracer
    with tracer.trace("run", session_id="s-1") as run, tracer.trace_component("step") as step:
        below_run = tracer._open_apart("below run", parent=run)
        below_step = tracer._open_apart("below step", parent=step)
        below_nothing = tracer._open_apart("below nothing", parent=None)
        below_another = tracer._open_apart("below another", parent=below_step)
    for component in (below_run, below_step, below_nothing, below_another):
        component._end_apart(Ending.OK)
    spans = by_name(recording)
    assert spans["below run"].parent_id == spans["run"].span_id
    assert spans["below step"].parent_id == spans["step"].span_id
    assert spans["below another"].parent_id == spans["below step"].span_id
    assert spans["below another"].attributes["session.id"] == "s-1"
    assert spans["below nothing"].parent_id == ""
    assert spans["below nothing"].trace_id != spans["run"].trace_id


def test_what_is_current_stays_current() -> None:
    recording = Recording()
    with recording.tracer.trace("run") as run, recording.tracer.trace_component("step") as step:
        opened = recording.tracer._open_apart("apart", parent=run)
        assert (current_trace(), current_component()) == (run, step)
        opened._end_apart(Ending.OK)
        assert (current_trace(), current_component()) == (run, step)
    assert_no_context_leaked()


def enters(recorder: Recorder) -> None:
    """What `_open_apart()` must not do."""
    recorder.trace_component("apart").start()


def test_a_span_that_becomes_current_is_noticed() -> None:
    recording = Recording()
    with recording.tracer.trace("run"), recording.tracer.trace_component("step") as step:
        enters(recording.tracer)
        assert current_component() is not step


def test_a_span_of_another_process_is_its_parent() -> None:
    recording = Recording()
    first = recording.tracer._open_apart("first", parent=ELSEWHERE, kind=SpanKind.SERVER)
    inner = recording.tracer._open_apart("inner", parent=first)
    first.trace.set_attribute("of", "the root")
    assert first.trace.tracestate == "vendor=1"
    assert inner.trace is first.trace
    inner._end_apart(Ending.OK)
    first._end_apart(Ending.OK)
    assert (first.trace.trace_id, first.trace.span_id) == (ELSEWHERE.trace_id, first.span_id)
    spans = by_name(recording)
    assert (spans["first"].trace_id, spans["first"].parent_id) == (ELSEWHERE.trace_id, ELSEWHERE.span_id)
    assert spans["first"].kind is SpanKind.SERVER
    assert spans["first"].attributes["of"] == "the root"
    assert spans["inner"].parent_id == spans["first"].span_id


@pytest.mark.parametrize("ending", [Ending.CANCELLED, Ending.ERROR, Ending.TIMEOUT])
def test_it_ends_as_it_is_told_to_and_only_once(ending: Ending) -> None:
    recording = Recording()
    opened = recording.tracer._open_apart("apart", parent=None)
    opened._end_apart(ending)
    opened._end_apart(Ending.OK)
    (span,) = recording.spans
    assert span.ending == ending
    assert recording.tracer._late_calls == {"end": 1}


def test_times_of_somebody_else_are_kept() -> None:
    recording = Recording(clock=ManualClock())
    opened = recording.tracer._open_apart("apart", parent=None, start_ns=1_000)
    opened._add_event("seen", {"at": 1}, time_ns=1_500)
    opened._end_apart(Ending.OK, 2_000)
    (span,) = recording.spans
    assert (span.start_ns, span.end_ns, span.events[0].time_ns) == (1_000, 2_000, 1_500)


def test_links_can_be_added_up_to_the_limit() -> None:
    recording = Recording()
    opened = recording.tracer._open_apart("apart", parent=None)
    link = Link(trace_id="ab" * 16, span_id="cd" * 8)
    for _ in range(recording.tracer._limits.links + 2):
        opened._add_link(link)
    opened._end_apart(Ending.OK)
    opened._add_link(link)
    (span,) = recording.spans
    assert (len(span.links), span.dropped_links) == (recording.tracer._limits.links, 2)
    assert span.links[0] == link
    assert recording.tracer._late_calls == {"add_link": 1}


def test_a_scope_is_written_on_the_record() -> None:
    recording = Recording()
    for version in ("2.1", ""):
        fields = scope_fields(Scope(name="library", version=version))
        recording.tracer._open_apart("apart", parent=None, scope=fields)._end_apart(Ending.OK)
    recording.tracer._open_apart("apart", parent=None)._end_apart(Ending.OK)
    scopes = [
        {key: span.attributes.get(key) for key in ("otel.scope.name", "otel.scope.version")} for span in recording.spans
    ]
    assert [tuple(scope.values()) for scope in scopes] == [("library", "2.1"), ("library", None), (None, None)]


@pytest.mark.parametrize(
    ("options", "parent"),
    [
        ({"sampler": ALWAYS_OFF}, None),
        ({"sampler": ALWAYS_OFF}, ELSEWHERE),
        ({"sampler": ParentBased()}, ELSEWHERE._replace(is_sampled=False)),
        ({}, SUPPRESSED),
    ],
)
def test_what_is_not_recorded_has_the_same_face(options: dict[str, object], parent: RemoteSpan | None) -> None:
    recording = Recording(**options)
    opened = recording.tracer._open_apart("apart", parent=parent)
    below = recording.tracer._open_apart("below", parent=opened)
    for component in (below, opened):
        component.set_name("other")
        component._add_event("seen", {})
        component._add_link(Link(trace_id="ab" * 16, span_id="cd" * 8))
        component._end_apart(Ending.OK)
        assert not component.is_recording
    assert recording.spans == ()
    assert below.trace_id == opened.trace_id
    if isinstance(parent, RemoteSpan):
        assert opened.trace_id == parent.trace_id


def check_that_what_came_along_goes_on(options: dict[str, object]) -> None:
    tracer = Recording(**options).tracer
    came = {
        "traceparent": f"00-{ELSEWHERE.trace_id}-{ELSEWHERE.span_id}-00",
        "tracestate": "vendor=1",
        "baggage": "tenant=7",
    }
    with tracer.trace("run", context=tracer.extract(came)) as run:
        apart = tracer._open_apart("apart", parent=run)
        for below in (apart, tracer._open_apart("below", parent=apart)):
            component_var.set(below)
            tracer.inject(headers := {})
            component_var.set(None)
            assert headers == came | {"traceparent": f"00-{ELSEWHERE.trace_id}-{below.span_id}-00"}


@pytest.mark.parametrize("options", [{"sampler": ALWAYS_OFF}, {"sampler": ParentBased()}])
def test_what_is_not_recorded_hands_on_what_came_along(options: dict[str, object]) -> None:
    check_that_what_came_along_goes_on(options)


def test_baggage_that_ends_where_nothing_is_recorded_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_apart, "_run_of", lambda recorder, parent: None)
    with pytest.raises(AssertionError):
        check_that_what_came_along_goes_on({"sampler": ParentBased()})


@pytest.mark.parametrize("options", [{"sampler": ALWAYS_OFF}, {"sampler": Probability(0.0)}])
def test_below_a_remote_span_that_is_not_recorded_the_tracestate_goes_on(options: dict[str, object]) -> None:
    tracer = Recording(**options).tracer
    remote = ELSEWHERE._replace(is_random=True)
    apart = tracer._open_apart("apart", parent=remote)
    assert (apart.trace.tracestate, apart.trace.is_random, apart.trace.is_sampled) == ("vendor=1", True, False)


def test_a_handle_that_is_lost_ends_abandoned() -> None:
    recording = Recording()
    recording.tracer._open_apart("apart", parent=None)
    recording.tracer._open_apart("below a remote one", parent=ELSEWHERE)
    recording.collect()
    assert [span.ending for span in recording.spans] == [Ending.ABANDONED, Ending.ABANDONED]


@pytest.mark.parametrize("opener", ["trace", "trace_component"])
def test_a_span_can_be_renamed_while_it_is_open(opener: str) -> None:
    recording = Recording()
    opened = getattr(recording.tracer, opener)("GET", kind="server")
    with opened:
        opened.set_name("GET /items/{id}")
        assert opened.name == "GET /items/{id}"
    opened.set_name("too late")
    (span,) = recording.spans
    assert (span.name, span.kind) == ("GET /items/{id}", SpanKind.SERVER)
    assert recording.tracer._late_calls == {"set_name": 1}
    with pytest.raises(TypeError, match="the name is a text"):
        opened.set_name(7)


def test_a_runs_root_has_kind_attributes_and_links() -> None:
    recording = Recording()
    link = Link(trace_id="ab" * 16, span_id="cd" * 8)
    with recording.tracer.trace("job", kind="consumer", attributes={"queue": "q"}, links=[link]) as run:
        run.set_attributes({"tries": 2})
        run.set_status("error", "half of it")
    (span,) = recording.spans
    assert (span.kind, span.links, span.status) == (SpanKind.CONSUMER, (link,), StatusCode.ERROR)
    assert (span.attributes["queue"], span.attributes["tries"]) == ("q", 2)


def leave_run(recording: Recording) -> None:
    run = recording.tracer.trace("outer")._enter()
    run._exit_as(Ending.CANCELLED)


def leave_component(recording: Recording) -> None:
    component = recording.tracer.trace_component("outer")._enter()
    component._exit_as(Ending.CANCELLED)


@pytest.mark.parametrize("leave", [leave_run, leave_component])
def test_leaving_with_an_ending_restores_what_was_current(leave: Callable[[Recording], None]) -> None:
    recording = Recording()
    with recording.tracer.trace("around") as around, recording.tracer.trace_component("step") as step:
        leave(recording)
        assert (trace_var.get(), component_var.get()) == (around, step)
    assert by_name(recording)["outer"].ending == Ending.CANCELLED


def test_after_shutdown_it_is_counted() -> None:
    recording = Recording()
    recording.tracer._is_closed = True
    assert not recording.tracer._open_apart("apart", parent=None).is_recording
    assert recording.sink.refused == ["after_shutdown"]


def test_in_a_suppressed_region_the_caller_says_so() -> None:
    recording = Recording()
    with suppress():
        opened = recording.tracer._open_apart("apart", parent=component_var.get())
    assert not opened.is_recording


class Slab:
    """Notes of open spans, as far as a span that is not recorded may ask for them."""

    def leave(self, place: int) -> None:
        assert place == -1


def test_what_is_not_recorded_has_no_note_to_forget() -> None:
    """With a journal, in a plain block."""
    recording = Recording(sampler=TraceIdRatio(0.0))
    recording.tracer._slab = Slab()  # type: ignore[assignment]
    with recording.tracer.trace_component("not recorded"):
        recording.tracer._open_apart("nor this", parent=None)._end_apart(Ending.OK)
    assert recording.spans == ()
