"""OpenTelemetry's member of a `tracestate` is read and written as its SDK does, and harms no other member.

Source: OpenTelemetry specification, "TraceState Handling".
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.trace._sampling_experimental._trace_state import OtelTraceState
from opentelemetry.trace import TraceState

from asynctrace.propagation import LARGEST_THRESHOLD, Chances, parse_chances, parse_tracestate, with_threshold

from .values import ANY_SPEED, TRACESTATES

READ: dict[str, Chances] = {
    "": Chances(),
    "foo=1": Chances(),
    "ot=th:c": Chances(0xC0000000000000),
    "ot=th:0": Chances(0),
    "ot=th:fd70a4": Chances(0xFD70A400000000),
    "ot=rv:6e6d1a75832a2f": Chances(None, 0x6E6D1A75832A2F),
    "foo=1,ot=x:1;th:8;rv:00000000000001;y:2,bar=2": Chances(1 << 55, 1, ("x:1", "y:2")),
    "ot=th:": Chances(),
    "ot=th:C": Chances(),
    "ot=th:0x1": Chances(),
    "ot=th:123456789abcdef": Chances(),
    "ot=rv:6e6d1a75832a2": Chances(),
    "ot=rv:6e6d1a75832a2f0": Chances(),
    f"ot=th:8;x:{'1' * 253}": Chances(),
}
CHANGED: dict[tuple[str, int | None], str] = {
    ("", 0): "ot=th:0",
    ("", None): "",
    ("foo=1", 0xFD70A400000000): "ot=th:fd70a4,foo=1",
    ("foo=1,ot=th:c", 0xC0000000000000): "foo=1,ot=th:c",
    ("foo=1,ot=th:c", None): "foo=1",
    ("foo=1,ot=th:c;rv:00000000000001;x:1", 0): "ot=th:0;rv:00000000000001;x:1,foo=1",
    ("foo=1,ot=th:c;rv:00000000000001", None): "ot=rv:00000000000001,foo=1",
    (",".join(f"k{number}=1" for number in range(32)), 0): ",".join(["ot=th:0", *(f"k{n}=1" for n in range(31))]),
    (f"ot=x:{'1' * 250}", 1): "ot=th:00000000000001",
}


def check_read(parse: Callable[[str], Chances]) -> None:
    for text, chances in READ.items():
        assert parse(text) == chances, text


def check_changed(change: Callable[[str, int | None], str]) -> None:
    for (text, threshold), expected in CHANGED.items():
        assert change(text, threshold) == expected, text


def test_what_it_says_is_read_and_what_is_invalid_says_nothing() -> None:
    check_read(parse_chances)


def test_a_threshold_is_written_in_front_and_nothing_else_changes() -> None:
    check_changed(with_threshold)


FIELDS = st.sampled_from(["th:c", "th:0", "th:fd70a4", "rv:6e6d1a75832a2f", "x:1", "p:8", "th:12345678901234"])
OURS = st.lists(FIELDS, min_size=1, max_size=4, unique_by=lambda field: field[:2]).map(
    lambda some: f"ot={';'.join(some)}"
)
THRESHOLDS = st.integers(0, LARGEST_THRESHOLD - 1)


@ANY_SPEED
@given(OURS, THRESHOLDS)
@example("ot=th:c", 0)
def test_the_sdk_of_opentelemetry_reads_and_writes_the_same(text: str, threshold: int) -> None:
    theirs = OtelTraceState.parse(TraceState.from_header([text]))
    chances = parse_chances(text)
    assert (theirs.threshold, theirs.random_value) == tuple(
        -1 if value is None else value for value in (chances.threshold, chances.randomness)
    )
    theirs.threshold = threshold
    assert with_threshold(text, threshold).split(";") == (
        f"ot={theirs.serialize()}".split(";") if threshold != chances.threshold else text.split(";")
    )


@ANY_SPEED
@given(TRACESTATES, st.none() | THRESHOLDS)
def test_what_is_written_is_valid_and_says_so(tracestate: str, threshold: int | None) -> None:
    changed = with_threshold(tracestate, threshold)
    assert parse_tracestate([changed]) == changed
    assert parse_chances(changed).threshold == threshold


# The checks themselves -------------------------------------------------------------------------------------------


def takes_digits_from_the_right(text: str) -> Chances:
    chances = parse_chances(text)
    field = text.partition("th:")[2].partition(";")[0].partition(",")[0]
    return chances if chances.threshold is None else chances._replace(threshold=int(field, 16))


def forgets_the_rest(text: str) -> Chances:
    return parse_chances(text)._replace(rest=())


def takes_short_randomness(text: str) -> Chances:
    return parse_chances(text.replace("rv:6e6d1a75832a2,", "")) if "rv" not in text else Chances(None, 1)


@pytest.mark.parametrize("broken", [takes_digits_from_the_right, forgets_the_rest, takes_short_randomness])
def test_the_check_notices_a_reader_that(broken: Callable[[str], Chances]) -> None:
    with pytest.raises(AssertionError):
        check_read(broken)


def writes_at_the_end(text: str, threshold: int | None) -> str:
    changed = with_threshold(text, threshold)
    first, _, rest = changed.partition(",")
    return f"{rest},{first}" if first.startswith("ot=") and rest and changed != text else changed


def loses_randomness(text: str, threshold: int | None) -> str:
    return with_threshold(text.replace(";rv:00000000000001", ""), threshold)


def writes_all_digits(text: str, threshold: int | None) -> str:
    return with_threshold(text, threshold).replace("th:fd70a4", "th:fd70a400000000")


@pytest.mark.parametrize("broken", [writes_at_the_end, loses_randomness, writes_all_digits])
def test_the_check_notices_a_writer_that(broken: Callable[[str, int | None], str]) -> None:
    with pytest.raises(AssertionError):
        check_changed(broken)
