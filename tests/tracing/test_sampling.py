"""Who is recorded is decided once for a trace, as OpenTelemetry would; the decision goes on in flags and `tracestate`."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.sdk.trace import sampling as theirs
from opentelemetry.sdk.trace._sampling_experimental import (
    composable_always_on,
    composable_parent_threshold,
    composable_traceid_ratio_based,
    composite_sampler,
)

from asynctrace import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ConfigurationError,
    ParentBased,
    Probability,
    RateLimit,
    Sampling,
    SamplingRequest,
    SpanKind,
    TraceIdRatio,
)
from asynctrace.propagation import RemoteSpan, parse_chances
from asynctrace.testing import ManualClock
from asynctrace.tracing import TraceContext
from asynctrace.tracing._sampling import ask

from ..propagation.values import ANY_SPEED
from .recording import Recording

TRACE_IDS = st.integers(1, 2**128 - 1)
RATIOS = st.floats(0, 1) | st.sampled_from([0.0, 1.0, 0.5, 0.1, 1 / 3, 1e-10, 2.0**-56, 2.0**-57, 1 - 2.0**-53])
SPAN_ID = "00f067aa0ba902b7"
KEPT, LEFT = "ff" * 16, "00" * 15 + "01"
"""Trace ids with the most and the least randomness."""


def caller(trace_id: str = KEPT, *, is_sampled: bool = True, tracestate: str = "") -> RemoteSpan:
    return RemoteSpan(trace_id, SPAN_ID, is_sampled, tracestate)


def they_decide(sampler: theirs.Sampler, trace_id: int, parent: RemoteSpan | None, *, is_remote: bool = True) -> Any:
    """(is sampled, tracestate)."""
    context, state = Context(), None
    if parent is not None:
        state = otel.TraceState.from_header([parent.tracestate])
        span = otel.SpanContext(trace_id, int(parent.span_id, 16), is_remote, otel.TraceFlags(parent.is_sampled), state)
        context = otel.set_span_in_context(otel.NonRecordingSpan(span), context)
    result = sampler.should_sample(context, trace_id, "name", trace_state=state)
    header = result.trace_state.to_header() if result.trace_state is not None else ""
    return result.decision is theirs.Decision.RECORD_AND_SAMPLE, header


def we_decide(sampler: Any, trace_id: int, parent: RemoteSpan | None, *, is_remote: bool = True) -> tuple[bool, str]:
    request = SamplingRequest(trace_id=trace_id.to_bytes(16, "big"), name="name", parent=parent, is_remote=is_remote)
    sampling = ask(sampler, request)
    before = "" if parent is None else parent.tracestate
    return sampling.is_sampled, before if sampling.tracestate is None else sampling.tracestate


# As the SDK of OpenTelemetry ---------------------------------------------------------------------------------------


def check_ratio(sampler: Callable[[float], Any], ratio: float, trace_id: int) -> None:
    assert (
        we_decide(sampler(ratio), trace_id, None)[0] is they_decide(theirs.TraceIdRatioBased(ratio), trace_id, None)[0]
    )


@ANY_SPEED
@given(RATIOS, TRACE_IDS)
def test_a_ratio_takes_the_same_traces(ratio: float, trace_id: int) -> None:
    check_ratio(TraceIdRatio, ratio, trace_id)


@ANY_SPEED
@given(RATIOS, st.integers(0, 2**64 - 1))
def test_a_ratio_takes_the_same_traces_at_its_border(ratio: float, high: int) -> None:
    bound = theirs.TraceIdRatioBased.get_bound_for_rate(ratio)
    for low in {max(bound - 1, 0), min(bound, 2**64 - 1)}:
        check_ratio(TraceIdRatio, ratio, high << 64 | low)


def test_a_ratio_by_the_first_bytes_is_noticed() -> None:
    class First(TraceIdRatio, frozen=True):
        def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
            return super().is_sampled(trace_id[8:] + trace_id[:8], name, remote_decision)

    with pytest.raises(AssertionError):
        check_ratio(First, 0.5, 2**128 - 2**64)


STATES = st.sampled_from(
    [
        "",
        "a=1",
        "ot=th:c",
        "a=1,ot=th:c,b=2",
        "ot=th:0",
        "ot=rv:6e6d1a75832a2f",
        "ot=th:8;rv:ee6d1a75832a2f;x:1,a=1",
        "ot=th:zz",
    ]
)
PARENTS = st.none() | st.builds(
    lambda sampled, state: caller(is_sampled=sampled, tracestate=state), st.booleans(), STATES
)


def members(header: str) -> set[str]:
    return set(header.split(","))


def check_probability(sampler: Callable[[float], Any], ratio: float, trace_id: int, parent: RemoteSpan | None) -> None:
    ours = we_decide(sampler(ratio), trace_id, parent)
    other = they_decide(composite_sampler(composable_traceid_ratio_based(ratio)), trace_id, parent)
    assert ours[0] is other[0]
    if ours[0] or (parent is not None and "rv" in parent.tracestate):
        assert members(ours[1]) == members(other[1])
    else:
        assert parse_chances(ours[1]).threshold is None  # of a member that becomes empty the SDK leaves the old one


@ANY_SPEED
@given(RATIOS, TRACE_IDS, PARENTS)
@example(0.25, int(KEPT, 16), caller(tracestate="a=1,ot=th:c,b=2"))
def test_a_probability_takes_the_same_traces_and_writes_the_same(
    ratio: float, trace_id: int, parent: RemoteSpan | None
) -> None:
    check_probability(Probability, ratio, trace_id, parent)


@ANY_SPEED
@given(RATIOS, RATIOS, TRACE_IDS)
def test_what_a_lower_ratio_takes_a_higher_one_takes_too(one: float, other: float, trace_id: int) -> None:
    low, high = sorted((one, other))
    for kind in (Probability, TraceIdRatio):
        assert we_decide(kind(low), trace_id, None)[0] <= we_decide(kind(high), trace_id, None)[0]


def test_a_probability_that_takes_no_notice_of_explicit_randomness_is_noticed() -> None:
    class Deaf(Probability, frozen=True):
        def decide(self, request: SamplingRequest) -> Sampling:
            return Sampling(is_sampled=self.is_sampled(request.trace_id, request.name, None))

    with pytest.raises(AssertionError):
        check_probability(Deaf, 0.5, int(KEPT, 16), caller(tracestate="ot=rv:00000000000001"))


def _agrees(trace_id: int, parent: RemoteSpan | None) -> bool:
    """The caller's flag is what its threshold says, or it has none."""
    if parent is None or "th:" not in parent.tracestate or "zz" in parent.tracestate:
        return True
    return we_decide(AsItsThreshold(parent), trace_id, parent)[0] is parent.is_sampled


class AsItsThreshold:
    """Decides as the parent's own threshold says."""

    def __init__(self, parent: RemoteSpan) -> None:
        self._parent = parent

    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
        sampler = composite_sampler(composable_parent_threshold(composable_always_on()))
        return bool(they_decide(sampler, int.from_bytes(trace_id, "big"), self._parent)[0])


@ANY_SPEED
@given(RATIOS, TRACE_IDS, PARENTS)
@example(0.1, int(KEPT, 16), caller(tracestate="a=1,ot=th:c,b=2"))
@example(0.1, int(LEFT, 16), caller(is_sampled=False, tracestate="a=1,b=2"))
def test_who_follows_a_parent_agrees_with_the_sdk_where_the_parent_agrees_with_itself(
    ratio: float, trace_id: int, parent: RemoteSpan | None
) -> None:
    if not _agrees(trace_id, parent):
        return
    ours = we_decide(ParentBased(Probability(ratio)), trace_id, parent)
    sampler = composite_sampler(composable_parent_threshold(composable_traceid_ratio_based(ratio)))
    other = they_decide(sampler, trace_id, parent)
    assert ours[0] is other[0]
    if ours[0] and "zz" not in (parent.tracestate if parent else ""):
        assert members(ours[1]) == members(other[1])


def test_a_threshold_that_contradicts_the_decision_is_taken_out() -> None:
    for trace_id, is_sampled in ((LEFT, True), (KEPT, False)):
        parent = caller(trace_id, is_sampled=is_sampled, tracestate="a=1,ot=th:c;rv:" + trace_id[-14:])
        decision = we_decide(ParentBased(), int(trace_id, 16), parent)
        assert decision == (is_sampled, f"ot=rv:{trace_id[-14:]},a=1")


def test_a_decision_of_unknown_probability_takes_a_threshold_out() -> None:
    parent = caller(tracestate="ot=th:c,a=1")
    assert we_decide(TraceIdRatio(1), int(KEPT, 16), parent) == (True, "a=1")
    assert we_decide(ALWAYS_ON, int(KEPT, 16), parent) == (True, "ot=th:0,a=1")
    assert we_decide(ALWAYS_ON, int(KEPT, 16), caller(tracestate="a=1")) == (True, "a=1")


# The four parents --------------------------------------------------------------------------------------------------

CASES = ("remote_parent_sampled", "remote_parent_not_sampled", "local_parent_sampled", "local_parent_not_sampled")


def check_four_parents(make: Callable[..., Any]) -> None:
    samplers = {True: ALWAYS_ON, False: ALWAYS_OFF}
    other = {True: theirs.ALWAYS_ON, False: theirs.ALWAYS_OFF}
    for name in CASES:
        for answer in (True, False):
            for root in (True, False):
                sampler = make(samplers[root], **{name: samplers[answer]})
                model = theirs.ParentBased(other[root], **{name: other[answer]})
                for parent in (None, caller(is_sampled=True), caller(is_sampled=False)):
                    for remote in (True, False):
                        ours = we_decide(sampler, 7, parent, is_remote=remote)[0]
                        assert ours is they_decide(model, 7, parent, is_remote=remote)[0], (
                            name,
                            answer,
                            parent,
                            remote,
                        )


def test_each_of_the_four_parents_has_a_sampler_of_its_own() -> None:
    check_four_parents(ParentBased)


@pytest.mark.parametrize("forgotten", CASES)
def test_a_parent_that_has_none_is_noticed(forgotten: str) -> None:
    def make(root: Any, **others: Any) -> Any:
        others.pop(forgotten, None)
        return ParentBased(root, **others)

    with pytest.raises(AssertionError):
        check_four_parents(make)


def test_a_run_inside_a_run_is_asked_about_where_local_parents_are_not_simply_followed() -> None:
    recording = Recording(sampler=ParentBased(local_parent_sampled=ALWAYS_OFF))
    with (
        recording.tracer.trace("outer") as outer,
        recording.tracer.trace("inner") as inner,
        recording.tracer.trace_component("step"),
    ):
        assert (inner.trace_id, inner.is_sampled, outer.is_sampled) == (outer.trace_id, False, True)
    assert [span.name for span in recording.spans] == ["outer"]


def test_a_run_inside_one_that_is_not_recorded_may_be_recorded() -> None:
    recording = Recording(sampler=ParentBased(ALWAYS_OFF, local_parent_not_sampled=ALWAYS_ON))
    with (
        recording.tracer.trace("outer") as outer,
        recording.tracer.trace_component("lost"),
        recording.tracer.trace("inner") as inner,
        recording.tracer.trace_component("step"),
    ):
        pass
    assert [span.name for span in recording.spans] == ["step", "inner"]
    assert (recording.one("inner").trace_id, recording.one("inner").parent_id) == (outer.trace_id, outer.span_id)
    assert recording.one("step").parent_id == inner.span_id


# A rate --------------------------------------------------------------------------------------------------------------


def starts(sampler: Any, clock: ManualClock, times: list[float]) -> list[bool]:
    """What a sampler says to traces that start at these seconds."""
    decides, now, answers = sampler.for_tracer(clock.monotonic_ns), 0.0, []
    for at in times:
        clock.advance(at - now)
        now = at
        answers.append(bool(decides.is_sampled(b"\1" * 16, "name", None)))
    return answers


TIMES = st.lists(st.integers(0, 30_000), max_size=60).map(lambda times: [time / 10_000 for time in sorted(times)])


def check_rate(make: Callable[[float], Any], per_second: float, times: list[float]) -> None:
    """In no second more than are allowed, and nobody is refused while there is room."""
    period = max(1.0, 1 / per_second)
    most = max(1, int(per_second))
    taken: list[float] = []
    for at, is_taken in zip(times, starts(make(per_second), ManualClock(), times), strict=True):
        lately = [time for time in taken if at - time < period - 1e-9]
        assert is_taken is (len(lately) < most), (at, lately)
        if is_taken:
            taken.append(at)


@ANY_SPEED
@given(st.sampled_from([1, 2, 7, 0.5]), TIMES)
@example(2, [0.0, 0.0, 0.0, 0.9, 1.0, 1.0, 1.0, 2.5])
@example(0.5, [0.0, 1.0, 1.9999, 2.0, 3.0])
def test_a_limit_lets_so_many_traces_start_in_any_second_and_no_fewer(per_second: float, times: list[float]) -> None:
    check_rate(RateLimit, per_second, times)


def test_a_limit_that_is_no_whole_number_holds_on_average() -> None:
    answers = starts(RateLimit(2.5), ManualClock(), [number / 100 for number in range(1200)])
    assert sum(answers) == 30


def test_many_threads_at_once_get_no_more_than_the_limit() -> None:
    decides = RateLimit(1000).for_tracer(ManualClock().monotonic_ns)
    barrier, taken = threading.Barrier(8), []

    def start_many() -> None:
        barrier.wait()
        taken.append(sum(bool(decides.is_sampled(b"\1" * 16, "name", None)) for _ in range(500)))

    threads = [threading.Thread(target=start_many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 1000


def test_a_limit_inside_a_limit_of_its_own_does_not_wait() -> None:
    """As where a finalizer starts a trace while a trace is being started."""
    inner: list[bool] = []

    def monotonic_ns() -> int:
        if len(inner) < 3:
            inner.append(False)
            inner[-1] = bool(decides.is_sampled(b"\1" * 16, "name", None))
        return 10**9

    decides = RateLimit(2).for_tracer(lambda: 0)
    decides._monotonic_ns = monotonic_ns  # type: ignore[attr-defined]
    outer = bool(decides.is_sampled(b"\1" * 16, "name", None))
    assert [outer, *inner].count(True) == 2


class FillsUpAtOnce:
    """A bucket that is full again at the end of each second."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second

    def for_tracer(self, monotonic_ns: Callable[[], int]) -> Any:
        self.monotonic_ns, self.second, self.count = monotonic_ns, -1, 0
        return self

    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
        second = self.monotonic_ns() // 10**9
        self.second, self.count = second, self.count + 1 if second == self.second else 1
        return self.count <= self.per_second


class NeverFillsUp(FillsUpAtOnce):
    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
        self.count += 1
        return self.count <= self.per_second


@pytest.mark.parametrize("broken", [FillsUpAtOnce, NeverFillsUp])
def test_the_check_notices_a_bucket_that(broken: Callable[[float], Any]) -> None:
    with pytest.raises(AssertionError):
        check_rate(broken, 2, [0.0, 0.9, 0.9, 1.0, 1.1, 1.95])


def test_a_tracer_counts_by_its_clock_and_each_for_itself() -> None:
    clock, sampler = ManualClock(), RateLimit(2)
    one, other = Recording(sampler=ParentBased(sampler), clock=clock), Recording(sampler=sampler, clock=clock)
    for recording in (one, other):
        for _ in range(5):
            with recording.tracer.trace("run"), recording.tracer.trace_component("step"):
                pass
        assert len(recording.named("run")) == len(recording.named("step")) == 2
    clock.advance(1)
    with one.tracer.trace_component("alone"):
        pass
    assert len(one.named("alone")) == 1


def test_who_follows_callers_counts_only_what_starts_here() -> None:
    recording = Recording(sampler=ParentBased(RateLimit(1)), clock=ManualClock())
    for number in range(4):
        context = TraceContext(trace_id=f"{number + 1:032x}", span_id=SPAN_ID)
        with recording.tracer.trace("called", context=context):
            pass
    for _ in range(4):
        with recording.tracer.trace("own"):
            pass
    assert (len(recording.named("called")), len(recording.named("own"))) == (4, 1)


# What goes on ------------------------------------------------------------------------------------------------------


def injected(recording: Recording) -> dict[str, str]:
    headers: dict[str, str] = {}
    recording.tracer.inject(headers)
    return headers


def test_a_probability_is_written_into_every_span_and_handed_on() -> None:
    recording = Recording(sampler=Probability(1))
    with recording.tracer.trace("run", session_id="s-1"), recording.tracer.trace_component("step"):
        assert injected(recording)["tracestate"] == "ot=th:0"
    with recording.tracer.trace_component("alone"), recording.tracer.trace_component("below"):
        assert injected(recording)["tracestate"] == "ot=th:0"
    assert {span.name: span.trace_state for span in recording.spans} == dict.fromkeys(
        ("step", "run", "below", "alone"), "ot=th:0"
    )
    assert recording.one("step").attributes["session.id"] == "s-1"


def test_a_callers_tracestate_is_in_every_span_and_goes_on() -> None:
    recording = Recording()
    context = TraceContext(trace_id=KEPT, span_id=SPAN_ID, tracestate="a=1,ot=rv:6e6d1a75832a2f", is_random=True)
    with (
        recording.tracer.trace("run", context=context),
        recording.tracer.trace_component("step"),
        recording.tracer.trace("inner") as inner,
        recording.tracer.trace_component("below"),
    ):
        headers = injected(recording)
        assert inner.tracestate == "a=1,ot=rv:6e6d1a75832a2f"
    assert (headers["tracestate"], headers["traceparent"][-2:]) == ("a=1,ot=rv:6e6d1a75832a2f", "03")
    assert {span.trace_state for span in recording.spans} == {"a=1,ot=rv:6e6d1a75832a2f"}
    assert {span.flags & 0xFF for span in recording.spans} == {3}
    assert [span.flags >> 8 for span in recording.spans] == [1, 1, 1, 3]


@pytest.mark.parametrize("is_random", [True, False])
def test_flags_say_whether_ids_are_random(is_random: bool) -> None:
    recording = Recording()
    recording.tracer._random_ids = is_random
    with recording.tracer.trace("run"), recording.tracer.trace_component("step"):
        assert injected(recording)["traceparent"][-2:] == ("03" if is_random else "01")
    with (
        recording.tracer.trace_component("alone"),
        recording.tracer.trace_component("below"),
        recording.tracer.trace_component("deep"),
    ):
        assert injected(recording)["traceparent"][-2:] == ("03" if is_random else "01")
    flags = {span.name: span.flags for span in recording.spans if span.name != "alone"}
    assert flags == dict.fromkeys(("step", "run", "below", "deep"), 0x103 if is_random else 0x101)


def test_a_tracestate_of_a_context_made_by_hand_breaks_nothing() -> None:
    recording = Recording()
    with recording.tracer.trace("run", context=TraceContext(trace_id=KEPT, span_id=SPAN_ID, tracestate="a=\ud800")):
        assert "tracestate" not in injected(recording)
    assert recording.one("run").trace_state == "a=?"


def test_a_trace_that_is_not_recorded_goes_on_with_its_id_and_says_so() -> None:
    asked: list[bytes] = []

    class No:
        def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
            asked.append(trace_id)
            return False

    recording = Recording(sampler=No())
    with recording.tracer.trace("run") as run, recording.tracer.trace("inner") as inner:
        assert {run.trace_id, inner.trace_id} == {asked[-1].hex()}
        assert run.span_id != inner.span_id
        assert injected(recording)["traceparent"] == f"00-{run.trace_id}-{inner.span_id}-00"
    with recording.tracer.trace_component("alone") as alone:
        assert alone.trace_id == asked[-1].hex()
    assert len(asked) == 2
    assert recording.spans == ()


def test_who_is_recorded_although_the_caller_is_not_says_so() -> None:
    recording = Recording()
    with recording.tracer.trace("run", context=TraceContext(trace_id=KEPT, span_id=SPAN_ID, is_sampled=False)) as run:
        assert run.is_sampled
        assert injected(recording)["traceparent"].endswith("-01")


# Samplers of a program ---------------------------------------------------------------------------------------------


class Asks:
    """Keeps what it is asked, and answers."""

    def __init__(self, answer: Any, *, asks_inside: bool = False) -> None:
        self.answer, self.asks_inside = answer, asks_inside
        self.requests: list[SamplingRequest] = []

    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
        raise AssertionError("decide() is asked instead")

    def decide(self, request: SamplingRequest) -> Any:
        self.requests.append(request)
        return self.answer


def test_a_sampler_is_told_of_name_kind_and_parent_and_may_add_attributes() -> None:
    sampler = Asks(Sampling(is_sampled=True, tracestate="mine=1", attributes={"rule": "vip"}), asks_inside=True)
    recording = Recording(sampler=sampler)
    context = TraceContext(trace_id=KEPT, span_id=SPAN_ID, tracestate="a=1")
    with recording.tracer.trace("run", kind="server", context=context) as run, recording.tracer.trace("inner"):
        pass
    with recording.tracer.trace_component("alone", kind="client"):
        pass
    first, inner, alone = sampler.requests
    assert (first.name, first.kind, first.trace_id.hex(), first.is_remote) == ("run", SpanKind.SERVER, KEPT, True)
    assert first.parent == RemoteSpan(KEPT, SPAN_ID, True, "a=1")
    assert (inner.is_remote, inner.parent) == (False, RemoteSpan(KEPT, run.span_id, True, "mine=1"))
    assert (alone.kind, alone.parent) == (SpanKind.CLIENT, None)
    for name in ("run", "inner", "alone"):
        assert (recording.one(name).trace_state, recording.one(name).attributes["rule"]) == ("mine=1", "vip")


def test_a_sampler_with_three_arguments_may_answer_with_more_than_yes() -> None:
    class Old:
        def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> Sampling | bool:
            return Sampling(is_sampled=True, attributes={"rule": name}) if name == "vip" else False

    recording = Recording(sampler=Old())
    for name in ("vip", "other"):
        with recording.tracer.trace(name):
            pass
    assert [span.attributes["rule"] for span in recording.spans] == ["vip"]


ANSWERS: dict[str, Any] = {
    "an invalid tracestate": Sampling(is_sampled=True, tracestate="no"),
    "a tracestate that is no text": Sampling(is_sampled=True, tracestate=7),  # type: ignore[arg-type]
    "attributes that are none": Sampling(is_sampled=True, attributes=7),  # type: ignore[arg-type]
    "keys that are no text": Sampling(is_sampled=True, attributes={7: 8}),  # type: ignore[dict-item]
    "half a character": Sampling(is_sampled=True, tracestate="a=\ud800"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_a_sampler_that_answers_nonsense_breaks_nothing(what: str) -> None:
    recording = Recording(sampler=Asks(ANSWERS[what]))
    with recording.tracer.trace("run"), recording.tracer.trace_component("step"):
        pass
    with recording.tracer.trace_component("alone"):
        pass
    assert [span.name for span in recording.spans] == ["step", "run", "alone"]
    assert {span.trace_state for span in recording.spans} == {""}


@pytest.mark.parametrize(
    "make",
    [
        lambda: TraceIdRatio(1.1),
        lambda: Probability(-0.1),
        lambda: Probability(True),
        lambda: Probability(float("nan")),
        lambda: RateLimit(0),
        lambda: RateLimit(10**6),
        lambda: RateLimit(True),
        lambda: RateLimit(float("nan")),
        lambda: ParentBased(0.5),
        lambda: ParentBased(remote_parent_sampled=None),
    ],
)
def test_settings_that_cannot_work_are_told_at_once(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigurationError):
        make()


def test_a_limit_that_no_tracer_has_made_its_own_says_so() -> None:
    with pytest.raises(TypeError, match="for_tracer"):
        RateLimit(1).is_sampled(b"\1" * 16, "name", None)


SAMPLERS: list[Any] = [ALWAYS_ON, ALWAYS_OFF, TraceIdRatio(0.1), Probability(0.1), RateLimit(5)]
SAMPLERS.append(ParentBased(RateLimit(5), local_parent_sampled=Probability(0.5)))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_a_sampler_is_a_value_that_can_be_pickled(sampler: Any) -> None:
    Recording(sampler=sampler)
    assert pickle.loads(pickle.dumps(sampler)) == sampler
