"""What OpenTelemetry's propagator writes we read, what it reads we write, and it refuses what we refuse.

Left out are four cases in which the two differ by intent: a line break after a `traceparent` (we refuse it), keys of a
`tracestate` that only level 2 allows, and those that come twice (we take them), and a `tracestate` of more than 512
characters (we pass on less).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from asynctrace.propagation import RemoteSpan, extract_headers, inject_headers, parse_traceparent

from .values import ANY_SPEED, SPANS

THEIRS = TraceContextTextMapPropagator()
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def they_extract(headers: Mapping[str, Any]) -> RemoteSpan | None:
    found = trace.get_current_span(THEIRS.extract(headers, Context())).get_span_context()
    if not found.is_valid:
        return None
    flags = int(found.trace_flags)
    state = found.trace_state.to_header()
    return RemoteSpan(f"{found.trace_id:032x}", f"{found.span_id:016x}", bool(flags & 1), state, bool(flags & 2))


def they_inject(span: RemoteSpan) -> dict[str, str]:
    context = trace.SpanContext(
        int(span.trace_id, 16),
        int(span.span_id, 16),
        is_remote=False,
        trace_flags=trace.TraceFlags(span.is_sampled | span.is_random << 1),
        trace_state=trace.TraceState.from_header([span.tracestate]),
    )
    headers: dict[str, str] = {}
    THEIRS.inject(headers, trace.set_span_in_context(trace.NonRecordingSpan(context), Context()))
    return headers


KEYS = st.from_regex(r"[a-z][a-z0-9_\-*/]{0,13}", fullmatch=True)
MEMBERS = st.builds("{}={}".format, KEYS, st.from_regex(r"[!-+\--<>-~]{1,20}", fullmatch=True))
"""Of level 1 and level 2. Ten of them have at most 512 characters."""
MANGLED = MEMBERS | st.sampled_from(["", " ", "\t", "A=1", "a", "=", "a=", "a=b=c", "é=1", "a=1", "a =1"])
OWS = st.sampled_from(["", " ", "\t", " \t "])
MANY = st.lists(MANGLED, max_size=10, unique_by=lambda member: member.partition("=")[0] or object())
STATES = MANY.flatmap(lambda members: OWS.map(lambda space: f"{space},{space}".join(members)))
VALID_SPANS = st.builds(
    lambda span, members: span._replace(
        tracestate=",".join({member.partition("=")[0]: member for member in members}.values())
    ),
    SPANS,
    st.lists(MEMBERS, max_size=10),
)

HEX = "0123456789abcdef"
FIELDS = st.tuples(
    st.sampled_from(["00", "01", "cc", "fe", "ff", "0", "000", "0A", ".0"]),
    st.sampled_from([TRACE, "0" * 32, TRACE.upper(), TRACE[1:], f"{TRACE}0", f".{TRACE[1:]}"])
    | st.text(HEX, min_size=32, max_size=32),
    st.sampled_from([SPAN, "0" * 16, SPAN.upper(), SPAN[1:], f"{SPAN}0"]) | st.text(HEX, min_size=16, max_size=16),
    st.sampled_from(["00", "01", "02", "03", "ff", "0", "001", "0F", "01-", "01-more", "01.more", "01 ", "01\t-"]),
)
TEXTS = (
    FIELDS.map("-".join) | st.tuples(OWS, FIELDS.map("-".join), OWS).map("".join) | st.text(HEX + "- \t", max_size=60)
)


def check_extract(extract: Callable[[Mapping[str, Any]], RemoteSpan | None], headers: Mapping[str, Any]) -> None:
    assert extract(headers) == they_extract(headers)


@ANY_SPEED
@given(TEXTS)
@example(f"00-{TRACE}-{SPAN}-01")
@example(f"01-{TRACE}-{SPAN}-03-more")
@example(f"00-{TRACE}-{SPAN}-01-more")
def test_both_read_the_same_traceparents(text: str) -> None:
    check_extract(extract_headers, {"traceparent": text})


@ANY_SPEED
@given(st.lists(STATES, min_size=1, max_size=1) | MANY)
@example([f"k{number}=v" for number in range(32)])
@example([f"k{number}=v" for number in range(33)])
@example(["a=1", "", " , "])
def test_both_read_the_same_tracestates(values: list[str]) -> None:
    check_extract(extract_headers, {"traceparent": [f"00-{TRACE}-{SPAN}-01"], "tracestate": values})


@ANY_SPEED
@given(VALID_SPANS)
def test_each_reads_what_the_other_writes_and_both_write_the_same(span: RemoteSpan) -> None:
    ours: dict[str, str] = {}
    inject_headers(ours, span)
    assert they_extract(ours) == span
    assert extract_headers(they_inject(span)) == span
    assert they_inject(span) == ours


def reads_version_00_only(headers: Mapping[str, Any]) -> RemoteSpan | None:
    return extract_headers(headers) if str(headers["traceparent"]).startswith("00") else None


def reads_upper_case(headers: Mapping[str, Any]) -> RemoteSpan | None:
    return parse_traceparent(headers["traceparent"].lower())


@pytest.mark.parametrize(
    ("broken", "text"),
    [(reads_version_00_only, f"01-{TRACE}-{SPAN}-01"), (reads_upper_case, f"00-{TRACE.upper()}-{SPAN}-01")],
)
def test_the_comparison_notices_a_reader_that(
    broken: Callable[[Mapping[str, Any]], RemoteSpan | None], text: str
) -> None:
    with pytest.raises(AssertionError):
        check_extract(broken, {"traceparent": text})
