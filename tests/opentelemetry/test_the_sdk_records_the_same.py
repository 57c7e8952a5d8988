"""Whatever a program does with OpenTelemetry's API, asynctrace records what opentelemetry-sdk records."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given, settings
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceState

from asynctrace._contracts import Ending, Scope
from asynctrace.opentelemetry import Span, Tracer, TracerProvider

from .programs import Block, Failure, Provider, Step, blocks, run_on_ours, run_on_the_sdk


@pytest.fixture(autouse=True)
def no_complaints() -> None:
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # the SDK complains of late calls


def check(block: Block, make_provider: Provider = TracerProvider) -> None:
    assert run_on_ours(block, make_provider) == run_on_the_sdk(block)


@given(blocks)
@settings(deadline=None, max_examples=200)
def test_a_random_program_is_recorded_as_by_the_sdk(block: Block) -> None:
    check(block)


@pytest.mark.long
@given(blocks)
@settings(deadline=None, max_examples=10_000)
def test_ten_thousand_random_programs_are(block: Block) -> None:
    check(block)


ELSEWHERE = SpanContext(5, 6, is_remote=True, trace_state=TraceState([("k", "v")]))
INSIDE = Block(
    "use_span",
    "inside",
    {"kind": SpanKind.CLIENT, "attributes": {"a": 1}, "links": [Link(ELSEWHERE, {"l": True})], "start_time": 5},
    [
        Step("add_event", ("event", {"b": [1, 2]}, 7)),
        Step("add_link", (ELSEWHERE, {"m": 2})),
        Step("update_name", ("renamed",)),
    ],
    Failure("no"),
    None,
)
APART = Block(
    "left open by its block",
    "apart",
    {"record_exception": False, "set_status_on_exception": False},
    [
        Step("set_status", (StatusCode.ERROR, "bad")),
        Step("set_status", (StatusCode.OK,)),
        Step("set_status", (StatusCode.ERROR,)),
    ],
    Failure("no"),
    99,
)
EVERYTHING = Block(
    "start_as_current_span",
    "around",
    {},
    [INSIDE, APART, Step("set_attribute", ("", 1)), Step("record_exception", (Failure("it"), {"x": 1}, 8, True))],
    None,
    None,
)


def test_a_program_with_everything_is() -> None:
    check(EVERYTHING)


class _Wrong(TracerProvider):
    """Its tracers give spans of another class."""

    span: type[Span] = Span

    def get_tracer(self, *given: Any, **options: Any) -> Tracer:
        wrong = self.span

        class WrongTracer(Tracer):
            def start_span(self, *given: Any, **options: Any) -> Span:
                span = super().start_span(*given, **options)
                return wrong(span._component, None, span._records_exceptions, span._sets_status)

        return WrongTracer(self, Scope(name="tests"))


class TimesOfEventsAreLost(_Wrong):
    class span(Span):
        def add_event(self, name: str, attributes: Any = None, timestamp: Any = None) -> None:
            super().add_event(name, attributes)


class LinksLoseTheirTracestate(_Wrong):
    class span(Span):
        def add_link(self, context: SpanContext, attributes: Any = None) -> None:
            super().add_link(SpanContext(context.trace_id, context.span_id, context.is_remote), attributes)


class TheLastStatusWins(_Wrong):
    class span(Span):
        def set_status(self, status: Any, description: Any = None) -> None:
            if self._component._extras is not None:
                self._component._extras.status = None
            super().set_status(status, description)


class EndsAreNow(_Wrong):
    class span(Span):
        def end(self, end_time: int | None = None) -> None:
            super().end()


class WhatEndsWellIsOk(_Wrong):
    class span(Span):
        def _end_as(self, ending: Ending, end_ns: int | None) -> None:
            if self._status()[0].value == 0:
                self._component.set_status("ok")
            super()._end_as(ending, end_ns)


class EmptyKeysAreKept(_Wrong):
    class span(Span):
        def set_attribute(self, key: str, value: Any) -> None:
            self._component.set_attribute(key, value)


class FlagsAreForgotten(_Wrong):
    class span(Span):
        def __init__(self, component: Any, run: Any, records_exceptions: bool, sets_status: bool) -> None:
            super().__init__(component, run)


class NamesStay(_Wrong):
    class span(Span):
        def update_name(self, name: str) -> None:
            return None


@pytest.mark.parametrize(
    "wrong",
    [
        TimesOfEventsAreLost,
        LinksLoseTheirTracestate,
        TheLastStatusWins,
        EndsAreNow,
        WhatEndsWellIsOk,
        EmptyKeysAreKept,
        FlagsAreForgotten,
        NamesStay,
    ],
)
def test_the_comparison_notices(wrong: Provider) -> None:
    with pytest.raises(AssertionError):
        check(EVERYTHING, wrong)
