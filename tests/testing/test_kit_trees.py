"""A trace as a picture: every span once, nothing that changes from run to run, and a difference one can
read."""

from __future__ import annotations

import random
from typing import Any

import pytest

from asynctrace._contracts import Span
from asynctrace.testing import assert_tree, tree_text


def span(span_id: str, parent: str = "", name: str = "", start: int = 1, **more: Any) -> Span:
    attributes = dict(more.pop("attributes", {}))
    if "type" in more:
        attributes["openinference.span.kind"] = more.pop("type")
    if "ending" in more:
        attributes["asynctrace.ending"] = more.pop("ending")
    return Span(
        trace_id=more.pop("trace_id", "t"),
        span_id=span_id,
        parent_id=parent,
        name=name or span_id,
        start_ns=start,
        end_ns=more.pop("end", start + 2_000_000),
        attributes=attributes,
        **more,
    )


SHOP = [
    span("d", "b", "rank", 4, type="CHAIN"),
    span("b", "a", "retrieve", 2, type="RETRIEVER"),
    span("c", "a", "answer", 3, type="LLM", ending="timeout"),
    span("a", "", "checkout", 1, attributes={"session.id": "s-1"}),
]
PICTURE = """
    checkout ok
      retrieve [retriever] ok
        rank [chain] ok
      answer [llm] timeout
"""


def test_a_trace_is_drawn_with_name_type_ending_and_indentation() -> None:
    assert_tree(SHOP, PICTURE)


def test_the_order_of_arrival_does_not_matter() -> None:
    shuffled = list(SHOP)
    for seed in range(20):
        random.Random(seed).shuffle(shuffled)
        assert_tree(shuffled, PICTURE)


def test_siblings_stand_in_order_of_start_then_name() -> None:
    siblings = [span("a"), span("1", "a", "b", 5), span("2", "a", "a", 5), span("3", "a", "z", 2)]
    assert tree_text(siblings) == "a ok\n  z ok\n  a ok\n  b ok"


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(SHOP[1:], id="a span is missing"),
        pytest.param([*SHOP, SHOP[0]], id="a span came twice"),
        pytest.param([span("d", "c", "rank", 4, type="CHAIN"), *SHOP[1:]], id="a wrong parent"),
        pytest.param([*SHOP[:2], span("c", "a", "answer", 3, type="LLM"), SHOP[3]], id="a wrong ending"),
        pytest.param([*SHOP[:2], span("c", "a", "answer", 3, ending="timeout"), SHOP[3]], id="a missing type"),
        pytest.param([span("d", "b", "Rank", 4, type="CHAIN"), *SHOP[1:]], id="a wrong name"),
        pytest.param([], id="nothing"),
    ],
)
def test_any_difference_fails_and_shows_both_pictures(wrong: list[Span]) -> None:
    with pytest.raises(AssertionError, match=r"'-' expected, '\+' recorded") as failed:
        assert_tree(wrong, PICTURE)
    assert "\n- " in str(failed.value) or "\n+ " in str(failed.value)


def test_a_span_without_its_parent_says_so() -> None:
    assert tree_text([span("b", "a"), span("c", "b")]) == "b ok (parent not here)\n  c ok"


def test_a_span_that_came_twice_is_drawn_twice_and_its_children_once() -> None:
    assert tree_text([span("a"), span("a"), span("b", "a")]) == "a ok\n  b ok\na ok"


def test_spans_that_are_their_own_ancestors_are_drawn_too() -> None:
    drawn = tree_text([span("a", "b", start=1), span("b", "a", start=2), span("c", "c", start=3)])
    assert sorted(drawn.splitlines()) == [
        "a ok (parents form a cycle)",
        "b ok (parents form a cycle)",
        "c ok (parents form a cycle)",
    ]


def test_equal_span_ids_of_two_traces_do_not_meet() -> None:
    assert tree_text([span("a", trace_id="1"), span("b", "a", trace_id="2", start=2)]) == "a ok\nb ok (parent not here)"


def test_an_open_span_and_an_error_are_told_apart() -> None:
    assert tree_text([span("a", end=0), span("b", start=2, ending="error")]) == "a open\nb error"


def test_attributes_and_durations_are_shown_on_request() -> None:
    text = tree_text(SHOP[-1:], attributes=("session.id", "user.id"), durations=True)
    assert text == "checkout ok session.id='s-1' 2.000ms"


def test_a_name_with_a_line_break_cannot_draw_a_second_span() -> None:
    assert tree_text([span("a", name="x ok\n  y")]) == r"'x ok\n  y' ok"


def test_depth_is_not_bound_by_the_stack() -> None:
    chain = [span(str(depth), str(depth - 1) if depth else "", start=depth + 1) for depth in range(5_000)]
    lines = tree_text(chain).splitlines()
    assert lines[-1] == "  " * 4_999 + "4999 ok"
