"""A `traceparent` is what W3C Trace Context Level 2 says it is.

The tables follow the sections "traceparent Header", "Versioning of traceparent" and "Random Trace ID Flag" of
https://www.w3.org/TR/trace-context-2/, and the cases that the working group's own test suite sends to services.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asynctrace._errors import MisuseError
from asynctrace.propagation import RemoteSpan, format_traceparent, parse_traceparent

from .values import ANY_SPEED, SPANS

Parse = Callable[[str], RemoteSpan | None]

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
IDS = f"{TRACE}-{SPAN}"

VALID = {
    "sampled": (f"00-{IDS}-01", (True, False)),
    "not sampled": (f"00-{IDS}-00", (False, False)),
    "random, not sampled": (f"00-{IDS}-02", (False, True)),
    "random, sampled": (f"00-{IDS}-03", (True, True)),
    "flags of later versions beside sampled": (f"00-{IDS}-09", (True, False)),
    "every flag": (f"00-{IDS}-ff", (True, True)),
    "every flag but ours": (f"00-{IDS}-fc", (False, False)),
    "digits only": ("00-12345678901234567890123456789012-1234567890123456-01", (True, False)),
    "the smallest ids": (f"00-{'0' * 31}1-{'0' * 15}1-01", (True, False)),
    "a later version": (f"01-{IDS}-01", (True, False)),
    "a much later version": (f"cc-{IDS}-01", (True, False)),
    "the last version": (f"fe-{IDS}-03", (True, True)),
    "a later version with more": (f"cc-{IDS}-01-what-the-future-will-be-like", (True, False)),
    "a later version with an empty more": (f"cc-{IDS}-01-", (True, False)),
    "a later version with much more": (f"cc-{IDS}-01-{'x' * 10_000}", (True, False)),
    "a later version with odd more": (f"01-{IDS}-00-É -- ,=", (False, False)),
    "a space before": (f" 00-{IDS}-01", (True, False)),
    "a tab after": (f"00-{IDS}-01\t", (True, False)),
    "space all around": (f"\t 00-{IDS}-01 \t", (True, False)),
}

INVALID = {
    "nothing": "",
    "only space": " \t ",
    "no header at all": "GET / HTTP/1.1",
    "version ff": f"ff-{IDS}-01",
    "version ff with more": f"ff-{IDS}-01-more",
    "a version in upper case": f"CC-{IDS}-01",
    "a version with a dot": f".0-{IDS}-01",
    "a version with a dot behind": f"0.-{IDS}-01",
    "a version of one digit": f"0-{IDS}-01",
    "a version of three digits": f"000-{IDS}-01",
    "a version of four digits": f"0000-{IDS}-01",
    "no version": f"{IDS}-01",
    "a trace id of zeros": f"00-{'0' * 32}-{SPAN}-01",
    "a trace id of zeros in a later version": f"cc-{'0' * 32}-{SPAN}-01",
    "a trace id in upper case": f"00-{TRACE.upper()}-{SPAN}-01",
    "a trace id with one letter in upper case": f"00-{TRACE[:-3]}F36-{SPAN}-01",
    "a trace id with a dot": f"00-.{TRACE[1:]}-{SPAN}-01",
    "a trace id that is no hex": f"00-{TRACE[:-1]}g-{SPAN}-01",
    "a trace id of other digits": f"00-{'٣' * 32}-{SPAN}-01",
    "a trace id that is too long": f"00-{TRACE}0-{SPAN}-01",
    "a trace id that is too short": f"00-{TRACE[1:]}-{SPAN}-01",
    "a span id of zeros": f"00-{TRACE}-{'0' * 16}-01",
    "a span id in upper case": f"00-{TRACE}-{SPAN.upper()}-01",
    "a span id with a dot": f"00-{TRACE}-{SPAN[:-1]}.-01",
    "a span id that is too long": f"00-{TRACE}-{SPAN}0-01",
    "a span id that is too short": f"00-{TRACE}-{SPAN[1:]}-01",
    "flags in upper case": f"00-{IDS}-0A",
    "flags that are no hex": f"00-{IDS}-.0",
    "flags of one digit": f"00-{IDS}-1",
    "flags of three digits": f"00-{IDS}-001",
    "flags of three digits in a later version": f"cc-{IDS}-001",
    "no flags": f"00-{IDS}",
    "no flags in a later version": f"cc-{IDS}-",
    "more in version 00": f"00-{IDS}-01-what-the-future-will-be-like",
    "an empty more in version 00": f"00-{IDS}-01-",
    "a dot after version 00": f"00-{IDS}-01.",
    "more after a dot in a later version": f"cc-{IDS}-01.what-the-future-will-be-like",
    "a space inside": f"00-{TRACE} -{SPAN}-01",
    "another space around": f"\u00a000-{IDS}-01",
    "a line after it": f"00-{IDS}-01\n",
    "a line in what is more": f"cc-{IDS}-01-a\nb",
    "two in one": f"00-{IDS}-01,00-{IDS}-01",
    "underscores": f"00_{TRACE}_{SPAN}_01",
}


def check_valid(parse: Parse) -> None:
    for what, (text, (is_sampled, is_random)) in VALID.items():
        trace_id, span_id = re.split("-", text.strip())[1:3]
        assert parse(text) == RemoteSpan(trace_id, span_id, is_sampled, is_random=is_random), what


def check_invalid(parse: Parse) -> None:
    for what, text in INVALID.items():
        assert parse(text) is None, what


def check(parse: Parse) -> None:
    check_valid(parse)
    check_invalid(parse)


def test_what_is_valid_is_read_and_what_is_not_is_refused() -> None:
    check(parse_traceparent)


LONG = " " * 1_000_000


@pytest.mark.timeout(120)
@pytest.mark.parametrize("text", [LONG, f"cc-{IDS}-01{LONG}\n", f"cc-{IDS}-01-{LONG}\n"], ids=["none", "after", "more"])
def test_a_text_made_to_take_long_does_not(text: str) -> None:
    assert parse_traceparent(text) is None  # milliseconds; a pattern that tries every way to cut it takes an hour


@ANY_SPEED
@given(st.text())
def test_no_text_makes_it_raise(text: str) -> None:
    assert parse_traceparent(text) is None


@ANY_SPEED
@given(SPANS)
@example(RemoteSpan(TRACE, SPAN, is_sampled=True))
def test_what_is_formatted_is_version_00_and_parses_to_the_same_span(span: RemoteSpan) -> None:
    text = format_traceparent(span)
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]", text)
    assert parse_traceparent(text) == span._replace(tracestate="")


def test_a_later_version_goes_on_as_version_00_without_flags_and_parts_it_does_not_know() -> None:
    span = parse_traceparent(f"cc-{IDS}-ff-more")
    assert span is not None
    assert format_traceparent(span) == f"00-{IDS}-03"


@pytest.mark.parametrize(
    ("trace_id", "span_id"),
    [
        ("", ""),
        ("0" * 32, SPAN),
        (TRACE, "0" * 16),
        (TRACE.upper(), SPAN),
        (TRACE, f"{SPAN}\r\nX: y"),
        (TRACE[1:], SPAN),
    ],
)
def test_ids_that_no_header_may_have_are_refused_with_the_right_call(trace_id: str, span_id: str) -> None:
    with pytest.raises(MisuseError, match=r"run\.to_carrier"):
        format_traceparent(RemoteSpan(trace_id, span_id, is_sampled=True))


# The checks themselves -------------------------------------------------------------------------------------------


def takes_upper_case(text: str) -> RemoteSpan | None:
    return parse_traceparent(text.lower())


def takes_zeros(text: str) -> RemoteSpan | None:
    found = re.fullmatch(r"[ \t]*00-(0{32})-(\w{16})-01[ \t]*", text)
    return RemoteSpan(found[1], found[2], is_sampled=True) if found else parse_traceparent(text)


def takes_a_span_of_zeros(text: str) -> RemoteSpan | None:
    found = re.fullmatch(r"00-(\w{32})-(0{16})-01", text)
    return RemoteSpan(found[1], found[2], is_sampled=True) if found else parse_traceparent(text)


def takes_version_ff(text: str) -> RemoteSpan | None:
    return parse_traceparent("fe" + text[2:] if text.startswith("ff-") else text)


def lets_version_00_be_longer(text: str) -> RemoteSpan | None:
    return parse_traceparent("01" + text[2:] if text.startswith("00-") else text)


def refuses_later_versions(text: str) -> RemoteSpan | None:
    return parse_traceparent(text) if text.strip(" \t").startswith("00") else None


def looks_at_55_characters(text: str) -> RemoteSpan | None:
    return parse_traceparent(text.strip(" \t")[:55])


def compares_flags_as_a_number(text: str) -> RemoteSpan | None:
    span = parse_traceparent(text)
    return span and span._replace(is_sampled=text.split("-")[3].strip() == "01")


def forgets_that_ids_are_random(text: str) -> RemoteSpan | None:
    span = parse_traceparent(text)
    return span and span._replace(is_random=False)


def keeps_space(text: str) -> RemoteSpan | None:
    return parse_traceparent(text) if text == text.strip() else None


def strips_lines(text: str) -> RemoteSpan | None:
    return parse_traceparent(text.strip())


@pytest.mark.parametrize(
    "broken",
    [
        takes_upper_case,
        takes_zeros,
        takes_a_span_of_zeros,
        takes_version_ff,
        lets_version_00_be_longer,
        refuses_later_versions,
        looks_at_55_characters,
        compares_flags_as_a_number,
        forgets_that_ids_are_random,
        keeps_space,
        strips_lines,
    ],
)
def test_the_check_notices_a_parser_that(broken: Parse) -> None:
    with pytest.raises(AssertionError):
        check(broken)
