"""A trace as text: what is drawn, and what no span can do to a terminal."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrace._contracts import Event, Span, StatusCode
from asynctrace._tree import render_tree

from .patience import patient

TRACE = "0af7651916cd43dd8448eb211c80319c"
MS = 1_000_000


def make(number: int, parent: int = 0, *, trace: str = TRACE, **fields: object) -> Span:
    fields.setdefault("name", f"n{number}")
    fields.setdefault("start_ns", number * MS)
    fields.setdefault("end_ns", 500 * MS)
    parent_id = f"{parent:016x}" if parent else ""
    return Span(trace_id=trace, span_id=f"{number:016x}", parent_id=parent_id, **fields)  # type: ignore[arg-type]


def columns(line: str) -> int:
    """Counted here anew: wide and full-width characters take two columns, combining ones none."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in line
    )


def test_a_trace_is_drawn_with_types_durations_endings_and_details() -> None:
    error = Event(
        time_ns=9 * MS,
        name="exception",
        attributes={"exception.type": "ConnectionError", "exception.message": "refused"},
    )
    spans = [
        make(1, name="checkout", start_ns=0, end_ns=1_200 * MS, status=StatusCode.OK),
        make(
            2,
            1,
            name="retrieve",
            start_ns=1 * MS,
            end_ns=13 * MS,
            attributes={
                "openinference.span.kind": "RETRIEVER",
                "input.value": '{"q":"tea"}',
                "output.value": '{"documents":3}',
            },
            events=(Event(time_ns=3 * MS, name="cache miss", attributes={"shard": 3}),),
        ),
        make(3, 1, name="pay", start_ns=2 * MS, end_ns=814 * MS, status=StatusCode.ERROR, events=(error,)),
        make(4, 3, name="wait", start_ns=3 * MS, end_ns=0),
    ]
    assert render_tree(reversed(spans), width=60).splitlines() == [
        "● checkout                                            1.20 s",
        "├─ ● retrieve [retriever]                            12.0 ms",
        '│      input  {"q":"tea"}',
        '│      output {"documents":3}',
        "│      +2.00 ms cache miss shard=3",
        "└─ ✕ pay                                      error   812 ms",
        "   │   error  ConnectionError: refused",
        "   └─ ◌ wait                                            open",
    ]


@pytest.mark.parametrize(
    ("ending", "mark"),
    [
        ("error", "✕"),
        ("timeout", "✕"),
        ("cancelled", "⊘"),
        ("abandoned", "⊘"),
        ("incomplete", "⊘"),
        ("lost", "⊘"),
    ],
)
def test_an_ending_that_is_not_ok_has_a_mark_and_is_named(ending: str, mark: str) -> None:
    line = render_tree([make(1, attributes={"asynctrace.ending": ending})])
    assert line.startswith(f"{mark} n1")
    assert f" {ending} " in line


def test_details_can_be_left_out() -> None:
    span = make(1, attributes={"input.value": "secret"}, events=(Event(time_ns=1, name="log"),))
    assert "secret" in render_tree([span])
    assert render_tree([span], details=False).count("\n") == 0


def test_several_traces_are_kept_apart_under_their_ids() -> None:
    text = render_tree([make(1), make(1, trace="f" * 32), make(2, 1)])
    assert [line for line in text.splitlines() if line.startswith("trace")] == [
        f"trace {TRACE}  2 spans",
        f"trace {'f' * 32}  1 span",
    ]


def test_siblings_stand_in_the_order_of_their_start() -> None:
    text = render_tree([make(1), make(5, 1), make(3, 1), make(4, 1)])
    assert re.findall(r"n\d", text) == ["n1", "n3", "n4", "n5"]


def test_a_span_sent_twice_is_shown_once_and_ended_beats_open() -> None:
    text = render_tree([make(1, name="done"), make(1, name="open", end_ns=0)])
    assert "done" in text
    assert "open" not in text


def test_a_child_without_its_parent_stands_under_missing_parent() -> None:
    lines = render_tree([make(1), make(3, 2), make(4, 3)]).splitlines()
    assert lines[1] == "◌ missing parent"
    assert lines[2].startswith("└─ ● n3")
    assert lines[3].startswith("   └─ ● n4")


def test_spans_that_are_their_own_ancestors_are_all_shown_once() -> None:
    spans = [make(1), make(2, 3), make(3, 2), make(4, 3), make(5, 5), make(6, 4)]
    text = render_tree(spans)
    assert sorted(re.findall(r"n\d", text)) == ["n1", "n2", "n3", "n4", "n5", "n6"]
    assert "parents form a cycle" in text


def test_a_trace_50_000_deep_is_drawn_in_bounded_width_and_time() -> None:
    spans = [make(number, number - 1) for number in range(1, 50_001)]
    began = time.perf_counter()
    lines = render_tree(spans).splitlines()
    assert time.perf_counter() - began < patient(10)
    assert len(lines) == 50_000
    assert max(map(columns, lines)) <= 80
    assert "n50000" in lines[-1]


def test_color_changes_no_text_and_is_off_by_default() -> None:
    spans = [make(1), make(2, 1, status=StatusCode.ERROR)]
    plain, colored = render_tree(spans), render_tree(spans, color=True)
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[\d*m", "", colored) == plain
    assert "\x1b[31m✕" in colored


def test_an_empty_trace_is_an_empty_text() -> None:
    assert render_tree([]) == ""


def test_a_width_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="width"):
        render_tree([make(1)], width=0)


# nothing in a span may act on the terminal

HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\n● forged line\x9b31m\u202egnp.exe\u2028x\u0000\ud800"


def hostile_span(text: str) -> Span:
    return make(
        1,
        name=text,
        status=StatusCode.ERROR,
        status_message=text,
        attributes={
            "asynctrace.ending": text,
            "openinference.span.kind": text,
            "input.value": text,
            "output.value": {text: [text]},
        },
        events=(
            Event(time_ns=2, name=text, attributes={text: text}),
            Event(time_ns=3, name="exception", attributes={"exception.type": text, "exception.message": text}),
        ),
    )


def render_without_escaping(spans: Iterable[Span], *, width: int = 80) -> str:
    """The mutant: names go to the terminal as they are."""
    return "\n".join(f"● {span.name}" for span in spans)


def check_that_nothing_breaks_out(render: Callable[..., str]) -> None:
    text = render([hostile_span(HOSTILE)], width=400)
    text.encode()
    for line in text.splitlines():
        assert line.isprintable(), line
    assert not any(line.startswith("● forged") for line in text.splitlines())


def test_control_characters_newlines_and_direction_marks_are_shown_not_obeyed() -> None:
    check_that_nothing_breaks_out(render_tree)
    assert r"\x1b[2J" in render_tree([hostile_span(HOSTILE)], width=400)


def test_the_check_for_escapes_catches_a_renderer_without_them() -> None:
    with pytest.raises((AssertionError, UnicodeEncodeError)):
        check_that_nothing_breaks_out(render_without_escaping)


@given(text=st.text(max_size=60), width=st.integers(1, 120))
def test_no_line_is_wider_than_asked_whatever_the_text(text: str, width: int) -> None:
    rendered = render_tree([hostile_span(text), make(2, 1, name=text), make(3, 9)], width=width)
    for line in rendered.split("\n"):
        assert columns(line) <= width
        assert line.replace("\u200d", "").isprintable()


@pytest.mark.parametrize("name", ["界" * 60, "e\u0301" * 200, "👩\u200d💻" * 50, "a\u0301" + "\u0301" * 5_000])
def test_wide_and_combining_characters_keep_the_right_edge(name: str) -> None:
    line = render_tree([make(1, name=name)], width=40)
    assert columns(line) <= 40
    assert line.endswith("499 ms")
    assert len(line) < 5 * 40, "combining marks without end"


def test_a_value_that_is_nested_without_end_or_huge_costs_one_line() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    text = render_tree([make(1, attributes={"input.value": deep, "output.value": "x" * 10_000_000})])
    assert len(text.splitlines()) == 3
    assert max(map(columns, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (1, "1 ns"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (12_345, "12.3 µs"),
        (999_999, "1.00 ms"),
        (59_990_000_000, "60.0 s"),
        (60_000_000_000, "1 m 00 s"),
        (3_723_000_000_000, "1 h 02 m"),
    ],
)
def test_durations_are_read_at_a_glance(nanoseconds: int, text: str) -> None:
    assert render_tree([make(1, start_ns=10, end_ns=10 + nanoseconds)]).endswith(f" {text}")
