"""A tracer writes the formats that were chosen, and reads them; B3 as Zipkin and OpenTelemetry know it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from asynctrace._errors import ConfigurationError
from asynctrace.propagation import (
    NO_BAGGAGE,
    W3C,
    Baggage,
    Extracted,
    Propagators,
    RemoteSpan,
    format_traceparent,
    parse_baggage,
)

from .hostile import Pairs, raising
from .odd import Angry
from .values import ANY_SPEED, BAGGAGE, SPANS, a_span

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SHORT = f"{'0' * 16}{TRACE[16:]}"
SAMPLED, NOT_SAMPLED = a_span(), a_span(is_sampled=False)
DEBUG = a_span(is_debug=True)
SEVERAL = {"X-B3-TraceId": TRACE, "X-B3-SpanId": SPAN}
BAGS = parse_baggage(["tenant=t-1;ttl=3"])

READ: dict[str, tuple[Any, RemoteSpan | None]] = {
    "one header": ({"b3": f"{TRACE}-{SPAN}-1"}, SAMPLED),
    "one header in another case": ({"B3": f"{TRACE}-{SPAN}-0"}, NOT_SAMPLED),
    "one header with a parent": ({"b3": f"{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90"}, SAMPLED),
    "one header that leaves the decision to us": ({"b3": f"{TRACE}-{SPAN}"}, SAMPLED),
    "one header that wants to be debugged": ({"b3": f"{TRACE}-{SPAN}-d"}, DEBUG),
    "a trace id of 64 bits": ({"b3": f"{TRACE[16:]}-{SPAN}-1"}, SAMPLED._replace(trace_id=SHORT)),
    "several headers": ({**SEVERAL, "X-B3-Sampled": "1"}, SAMPLED),
    "several headers of bytes": ([(name.lower().encode(), text.encode()) for name, text in SEVERAL.items()], SAMPLED),
    "several headers that sample nothing": ({**SEVERAL, "x-b3-sampled": "0"}, NOT_SAMPLED),
    "several headers of old": ({**SEVERAL, "x-b3-sampled": "false"}, NOT_SAMPLED),
    "several headers that leave the decision to us": (SEVERAL, SAMPLED),
    "several headers that want to be debugged": ({**SEVERAL, "X-B3-Flags": "1"}, DEBUG),
    "several headers with a parent": ({**SEVERAL, "X-B3-ParentSpanId": "05e3ac9a4f6e3b90"}, SAMPLED),
    "several headers in an environment": ({"X_B3_TRACEID": TRACE, "X_B3_SPANID": SPAN}, SAMPLED),
    "several headers with a short trace id": (
        {**SEVERAL, "X-B3-TraceId": TRACE[16:]},
        SAMPLED._replace(trace_id=SHORT),
    ),
    "several headers in upper case": ({**SEVERAL, "X-B3-TraceId": TRACE.upper()}, SAMPLED),
    "both: the one header counts": ({"b3": f"{TRACE}-{SPAN}-0", **SEVERAL, "x-b3-sampled": "1"}, NOT_SAMPLED),
    "the same twice": (CIMultiDict([("b3", f"{TRACE}-{SPAN}-1"), ("B3", f" {TRACE}-{SPAN}-1")]), SAMPLED),
    "two that differ": ([("b3", f"{TRACE}-{SPAN}-1"), ("b3", f"{TRACE}-{SPAN}-0")], None),
    "a decision about nothing": ({"b3": "0"}, None),
    "zeros": ({"b3": f"{'0' * 32}-{SPAN}-1"}, None),
    "a span of zeros": ({**SEVERAL, "X-B3-SpanId": "0" * 16}, None),
    "a short span id": ({**SEVERAL, "X-B3-SpanId": "1"}, None),
    "no span id": ({"X-B3-TraceId": TRACE}, None),
    "an unknown decision": ({"b3": f"{TRACE}-{SPAN}-2"}, None),
    "something behind": ({"b3": f"{TRACE}-{SPAN}-1-x"}, None),
    "a line behind": ({"b3": f"{TRACE}-{SPAN}-1\n"}, None),
    "nothing": ({}, None),
}
NAMES_NO_SPAN = {"nothing", "a decision about nothing"}


def check_b3(extract: Callable[[Any], Extracted]) -> None:
    for what, (carrier, span) in READ.items():
        found = extract(carrier)
        assert found.span == span, what
        assert found.is_malformed is (span is None and what not in NAMES_NO_SPAN), what


@pytest.mark.parametrize("name", ["b3", "b3multi"])
def test_b3_is_read_in_both_forms(name: str) -> None:
    check_b3(Propagators([name]).extract)


WRITTEN: dict[str, tuple[list[str], RemoteSpan, Baggage, dict[str, str]]] = {
    "w3c": (
        ["tracecontext", "baggage"],
        a_span(tracestate="a=1", is_random=True),
        BAGS,
        {"traceparent": f"00-{TRACE}-{SPAN}-03", "tracestate": "a=1", "baggage": "tenant=t-1;ttl=3"},
    ),
    "no baggage where there is none": (
        ["tracecontext", "baggage"],
        SAMPLED,
        NO_BAGGAGE,
        {"traceparent": f"00-{TRACE}-{SPAN}-01"},
    ),
    "tracecontext alone": (["tracecontext"], SAMPLED, BAGS, {"traceparent": f"00-{TRACE}-{SPAN}-01"}),
    "baggage alone": (["baggage"], SAMPLED, BAGS, {"baggage": "tenant=t-1;ttl=3"}),
    "b3": (["b3"], SAMPLED, BAGS, {"b3": f"{TRACE}-{SPAN}-1"}),
    "b3, not sampled": (["b3"], NOT_SAMPLED, BAGS, {"b3": f"{TRACE}-{SPAN}-0"}),
    "b3, to be debugged": (["b3"], DEBUG, BAGS, {"b3": f"{TRACE}-{SPAN}-d"}),
    "b3multi": (["b3multi"], NOT_SAMPLED, BAGS, {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-sampled": "0"}),
    "b3multi, to be debugged": (
        ["b3multi"],
        DEBUG,
        BAGS,
        {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-flags": "1"},
    ),
    "all": (
        ["tracecontext", "b3", "baggage", "b3"],
        SAMPLED,
        BAGS,
        {"traceparent": f"00-{TRACE}-{SPAN}-01", "b3": f"{TRACE}-{SPAN}-1", "baggage": "tenant=t-1;ttl=3"},
    ),
    "none": (["none"], SAMPLED, BAGS, {}),
    "none beside others": (["tracecontext", "none"], SAMPLED, BAGS, {}),
    "nothing": ([], SAMPLED, BAGS, {}),
}


@pytest.mark.parametrize("what", WRITTEN)
def test_written_is_what_was_chosen(what: str) -> None:
    names, span, baggage, expected = WRITTEN[what]
    headers: dict[str, str] = {"host": "a"}
    Propagators(names).inject(headers, span, baggage)
    assert headers == {"host": "a", **expected}


def test_what_was_there_before_is_replaced_in_any_case_and_form() -> None:
    headers = {"B3": "old", "X-B3-TraceId": "old", "Baggage": "old=1", "TraceState": "old=1", "host": "a"}
    Propagators(["tracecontext", "baggage", "b3"]).inject(headers, SAMPLED, NO_BAGGAGE)
    assert headers == {"host": "a", "traceparent": f"00-{TRACE}-{SPAN}-01", "b3": f"{TRACE}-{SPAN}-1"}


def test_the_last_that_names_a_span_counts() -> None:
    other = a_span(span_id="b7ad6b7169203331")
    headers = {"traceparent": format_traceparent(SAMPLED), "b3": f"{TRACE}-{other.span_id}-1"}
    assert Propagators(["tracecontext", "b3"]).extract(headers).span == other
    assert Propagators(["b3", "tracecontext"]).extract(headers).span == SAMPLED
    headers["b3"] = "broken"
    assert Propagators(["tracecontext", "b3"]).extract(headers) == Extracted(SAMPLED, NO_BAGGAGE, False)


def test_what_was_not_chosen_is_not_read() -> None:
    headers = {"traceparent": format_traceparent(SAMPLED), "baggage": "a=1", "b3": f"{TRACE}-{SPAN}-1"}
    assert Propagators(["none"]).extract(headers) == Extracted(None, NO_BAGGAGE, False)
    assert Propagators(["baggage"]).extract(headers) == Extracted(None, Baggage({}).over(parse_baggage(["a=1"])), False)
    assert Propagators(["tracecontext"]).extract(headers) == Extracted(SAMPLED, NO_BAGGAGE, False)


def test_a_carrier_that_raises_is_malformed_and_one_that_is_none_is_a_type_error() -> None:
    assert W3C.extract(Pairs(raising())) == Extracted(None, NO_BAGGAGE, True)
    assert W3C.extract(Angry()) == Extracted(None, NO_BAGGAGE, True)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        W3C.extract("traceparent")  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [["jaeger"], ["B3"], [""], [None], ["tracecontext", 7]])
def test_a_name_that_is_none_is_told_at_once(names: list[Any]) -> None:
    with pytest.raises(ConfigurationError, match="tracecontext, baggage, b3, b3multi, none"):
        Propagators(names)


@pytest.mark.parametrize("names", ["b3", None, {"b3": 1}, 7])
def test_what_are_no_names_is_told_at_once(names: Any) -> None:
    with pytest.raises(TypeError, match="propagators is a list"):
        Propagators(names)


CHOICES = st.lists(st.sampled_from(["tracecontext", "b3", "b3multi"]), min_size=1).map(
    lambda names: [*names, "baggage"]
)
HEADERS = st.dictionaries(st.text(), st.text(), max_size=5)


def check_round_trip(names: list[str], span: RemoteSpan, baggage: Baggage, carrier: dict[str, str]) -> None:
    propagators = Propagators(names)
    propagators.inject(carrier, span, baggage)
    found = propagators.extract(carrier)
    is_last_w3c = propagators.names[-2 if propagators.names[-1] == "baggage" else -1] == "tracecontext"
    assert found.span == (span if is_last_w3c else span._replace(tracestate="", is_random=False))
    assert (found.baggage, found.baggage.left_out, found.is_malformed) == (baggage, 0, False)


@ANY_SPEED
@given(CHOICES, SPANS, BAGGAGE, HEADERS)
def test_what_is_injected_is_extracted(
    names: list[str], span: RemoteSpan, baggage: Baggage, carrier: dict[str, str]
) -> None:
    check_round_trip(names, span, baggage, carrier)


ODD = st.none() | st.integers() | st.text() | st.binary() | st.lists(st.text())
NAMES = st.sampled_from(
    ["traceparent", "tracestate", "baggage", "b3", "X-B3-TraceId", b"x-b3-spanid", "x-b3-sampled", ""]
)
VALUES = ODD | st.text("0123456789abcdef-,;=% \t", max_size=80) | st.just("a=1," * 50_000) | st.just("0" * 100_000)


@ANY_SPEED
@given(CHOICES, st.lists(st.tuples(NAMES | ODD, VALUES) | ODD))
def test_whatever_comes_is_bounded_and_raises_nothing(names: list[str], pairs: list[Any]) -> None:
    span, baggage, _ = Propagators(names).extract(pairs)
    assert len(baggage.header()) <= 8192
    assert span is None or len(span.tracestate) <= 512


# The checks themselves -------------------------------------------------------------------------------------------


def knows_the_one_header_only(carrier: Any) -> Extracted:
    pairs = carrier.items() if hasattr(carrier, "items") else carrier
    return Propagators(["b3"]).extract([pair for pair in pairs if pair[0] in ("b3", "B3")])


def forgets_the_debug_flag(carrier: Any) -> Extracted:
    found = Propagators(["b3"]).extract(carrier)
    return found if found.span is None else found._replace(span=found.span._replace(is_debug=False))


def samples_nothing_that_is_left_to_it(carrier: Any) -> Extracted:
    found = Propagators(["b3"]).extract(carrier)
    if found.span is None or "b3" not in carrier or carrier["b3"].count("-") > 1:
        return found
    return found._replace(span=found.span._replace(is_sampled=False))


def takes_a_decision_for_a_broken_span(carrier: Any) -> Extracted:
    found = Propagators(["b3"]).extract(carrier)
    return found._replace(is_malformed=found.span is None and bool(carrier))


@pytest.mark.parametrize(
    "broken",
    [
        knows_the_one_header_only,
        forgets_the_debug_flag,
        samples_nothing_that_is_left_to_it,
        takes_a_decision_for_a_broken_span,
    ],
)
def test_the_check_notices_a_reader_of_b3_that(broken: Callable[[Any], Extracted]) -> None:
    with pytest.raises(AssertionError):
        check_b3(broken)
