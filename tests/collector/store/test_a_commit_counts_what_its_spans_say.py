"""A commit asks columns: the sums are those of its spans one by one, and of what was kept nothing else is read back.

A promise is a function `check_…()`; the last tests give it sums and columns with a fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from asynctrace._contracts import StatusCode
from asynctrace.collector._rows import EMPTY, Facts, Origin, SpanRow
from asynctrace.collector.store import _chunk as chunk
from asynctrace.collector.store import _tally
from asynctrace.collector.store._chunk import Arrived, Line, columns_of, decode_skeleton, encode_skeleton
from asynctrace.collector.store._roll import OPEN, Roll
from asynctrace.collector.store._tally import COLUMNS, Tally

from ..traffic import group, received, span
from .stores import some_traces

LATEST = 2**64 - 1
ORIGINS = [Origin(b"", b"", "shop"), Origin(b"", b"", "bank")]
SHOWN = ("input", "output")
"""Previews: those of the head of a commit, however many heads came before it."""


def lines(seed: int) -> list[Line]:
    """Spans of a trace, some of which began at the same instant, did not end, or ended before they began."""
    rows = received(group(*(each for _, each in some_traces(seed, traces=1, most_spans=20)))).rows
    odd = [
        row._replace(span_id=number.to_bytes(8, "big"), start_ns=start, end_ns=end, status=status, facts=facts)
        for number, (row, start, end, status, facts) in enumerate(
            [
                (rows[0], LATEST, LATEST, 0, EMPTY),
                (rows[-1], 0, LATEST, 2, EMPTY),
                (rows[0], 60, 53, 1, Facts(input_tokens=2**53, cost=0.5)),
                (rows[-1], 60, 0, 2, Facts(output_tokens=1, session="s")),
                (rows[0], 60, 60, 300, Facts(events=1)),
                (rows[-1], 60, 68, 0, Facts(ending="lost", dropped=3)),
            ],
            1000,
        )
    ]
    made = rows + odd if seed % 2 else rows
    return [(row, number % 2, number % 3) for number, row in enumerate(made)]


SEEDS = range(40)


# ── percentiles ─────────────────────────────────────────────────────────────────────────────────────────────


def counted(roll: Roll) -> tuple[Any, Any]:
    return roll._buckets, {key: sums for key, sums in roll._sums.items() if any(sums)}


def check_percentiles_are_those_of_each_span(made: type[Roll]) -> None:
    for seed in SEEDS:
        some = lines(seed)
        together, alone = made(), Roll()
        for part in filter(None, (some[: len(some) // 2], some[len(some) // 2 :])):
            together.count_all(columns_of(part))
        for row, _, name in some:
            alone.count(row, name)
        assert counted(together) == counted(alone)


def test_percentiles_are_those_of_each_span() -> None:
    check_percentiles_are_those_of_each_span(Roll)


class ForgetsWhatIsOpen(Roll):
    def count_all(self, arrived: Arrived) -> None:
        super().count_all(arrived)
        for buckets in self._buckets.values():
            buckets.pop(OPEN, None)


class CountsEachBucketOnce(Roll):
    def count_all(self, arrived: Arrived) -> None:
        super().count_all(arrived)
        self._buckets = {key: dict(Counter(list(buckets))) for key, buckets in self._buckets.items()}


@pytest.mark.parametrize("broken", [ForgetsWhatIsOpen, CountsEachBucketOnce])
def test_percentiles_with_a_fault_are_caught(broken: type[Roll]) -> None:
    with pytest.raises(AssertionError):
        check_percentiles_are_those_of_each_span(broken)


# ── the line of a trace ─────────────────────────────────────────────────────────────────────────────────────


def told(tally: Tally) -> dict[str, Any]:
    return {column: getattr(tally, column) for column in COLUMNS if column not in SHOWN}


def check_a_line_is_that_of_each_span(made: type[Tally]) -> None:
    for seed in SEEDS:
        some = lines(seed)
        together, alone = made(1, bytes(16)), Tally(1, bytes(16))
        together.count(columns_of(some), ORIGINS)
        for each in some:
            alone.count(columns_of([each]), ORIGINS)
        assert told(together) == told(alone)
        head = min(some, key=lambda line: (bool(line[0].parent_id), line[0].start_ns))[0]
        same = [row for row, _, _ in some if (row.start_ns, not row.parent_id) == (head.start_ns, not head.parent_id)]
        assert together.name == same[-1].name, "of those that began at the same instant the last one leads"
        assert together.end_ns == max(row.end_ns for row, _, _ in some)


def test_a_line_is_that_of_each_span() -> None:
    check_a_line_is_that_of_each_span(Tally)


class LedByTheFirst(Tally):
    def count(self, arrived: Arrived, origins: Any) -> None:
        backwards = sorted(range(len(arrived.ids)), reverse=True)
        super().count(Arrived._make(tuple(column[i] for i in backwards) for column in arrived), origins)


class LedByWhateverIsEarliest(Tally):
    def _lead(self, arrived: Arrived, origins: Any) -> Facts:
        return super()._lead(arrived._replace(parents=(b"",) * len(arrived.ids)), origins)


@pytest.mark.parametrize("broken", [LedByTheFirst, LedByWhateverIsEarliest])
def test_a_line_with_a_fault_is_caught(broken: type[Tally]) -> None:
    with pytest.raises(AssertionError):
        check_a_line_is_that_of_each_span(broken)


def previews(*rows: SpanRow) -> tuple[str, str]:
    tally = Tally(1, bytes(16))
    tally.count(columns_of([(row, 0, 0) for row in rows]), ORIGINS)
    return tally.input, tally.output


def asks(number: int, parent: int, text: str) -> SpanRow:
    """The higher the number, the later it began."""
    attributes: dict[str, Any] = {"input.value": text, "output.value": text} if text else {}
    made = span(1, number, parent=parent, start=number, attributes=attributes, status=StatusCode.OK)
    return received(group(made)).rows[0]


def check_previews_are_those_of_the_head_else_the_first() -> None:
    inner, outer = asks(3, 2, "inner"), asks(2, 1, "outer")
    assert previews(inner, outer, asks(1, 0, "root")) == ("root", "root")
    assert previews(asks(1, 0, "root"), inner, outer) == ("root", "root")
    assert previews(inner, outer, asks(1, 0, "")) == ("inner", "inner")  # that `outer` led for a moment is no matter
    assert previews(asks(1, 0, ""), outer, inner) == ("outer", "outer")


def test_previews_are_those_of_the_head_else_the_first_that_there_are() -> None:
    check_previews_are_those_of_the_head_else_the_first()


def last(texts: Iterable[str]) -> str:
    return next(filter(None, reversed(list(texts))), "")


def test_previews_of_whoever_came_last_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tally, "_first", last)
    with pytest.raises(AssertionError):
        check_previews_are_those_of_the_head_else_the_first()


# ── columns ─────────────────────────────────────────────────────────────────────────────────────────────────


def check_what_is_no_kind_spoils_nothing() -> None:
    (row,) = received(group(span())).rows
    kept = decode_skeleton(
        encode_skeleton(columns_of([(row._replace(kind=kind, status=kind), 1, 2) for kind in (3, 255, 256, 2**31)]))
    )
    assert (list(kept.kinds), list(kept.statuses)) == ([3, 255, 255, 255],) * 2


def test_what_is_no_kind_spoils_nothing() -> None:
    check_what_is_no_kind_spoils_nothing()


def test_a_skeleton_that_cuts_a_number_to_its_lowest_byte_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "_small", lambda numbers: bytes(number & 255 for number in numbers))
    with pytest.raises(AssertionError):
        check_what_is_no_kind_spoils_nothing()
