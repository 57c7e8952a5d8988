"""Notices of spans that are still open: ours, and Logfire's pending spans. They have the open span's own ids."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from asynctrace._contracts import AttributeValue, Span, SpanKind
from asynctrace.collector._rows import SpanRow
from asynctrace.collector.receiving._intake import Intake
from asynctrace.collector.receiving._scan import Scanner
from asynctrace.wire import decode_span, encode_span

from .doubles import StoreThatRemembers
from .traffic import collecting, group, protobuf, span


def row_of(sent: Span) -> SpanRow:
    intake = Intake()
    Scanner().spans([encode_span(sent)], 0, intake)
    assert intake.reason == ""
    (row,) = intake.rows
    assert intake.notices == row.facts.is_open
    return row


def ours(**attributes: AttributeValue) -> Span:
    return span(1, 2, parent=1, duration=0, attributes={"asynctrace.state": "open", **attributes})


def pending(parent: str) -> Span:
    """As logfire sends it: another id, below the span it is about, with an end."""
    attributes = {"logfire.span_type": "pending_span", "logfire.pending_parent_id": parent, "input.value": "tea"}
    return span(1, 0xBEEF, parent=2, duration=1, attributes=attributes)


def test_our_notice_is_about_its_own_span() -> None:
    row = row_of(ours())
    assert (row.span_id.hex(), row.parent_id.hex(), row.end_ns, row.facts.is_open) == (
        f"{2:016x}",
        f"{1:016x}",
        0,
        True,
    )


def test_a_span_that_ended_is_no_notice_whatever_it_says() -> None:
    assert not row_of(span(attributes={"asynctrace.state": "closed", "logfire.span_type": "span"})).facts.is_open


@pytest.mark.parametrize(
    ("parent", "wanted"), [(f"{1:016x}", f"{1:016x}"), ("0" * 16, ""), ("nonsense", ""), ("É" * 16, "")]
)
def test_a_pending_span_is_about_the_span_above_it(parent: str, wanted: str) -> None:
    row = row_of(pending(parent))
    assert (row.span_id.hex(), row.parent_id.hex(), row.end_ns, row.facts.is_open) == (f"{2:016x}", wanted, 0, True)
    message = decode_span(row.message)
    assert (message.span_id, message.parent_id, message.end_ns) == (f"{2:016x}", wanted, 0)
    assert message.attributes["input.value"] == "tea"


@pytest.mark.parametrize("kind", [SpanKind.UNSPECIFIED, SpanKind.INTERNAL])
def test_a_pending_span_of_nothing_is_rejected_alone(kind: SpanKind) -> None:
    """Of the shape that is decoded, and of the usual one."""
    nothing = msgspec.structs.replace(pending("0" * 16), parent_id="", kind=kind)
    good = msgspec.structs.replace(pending("0" * 16), kind=kind)
    intake = Intake()
    Scanner().spans([encode_span(each) for each in (good, nothing, good)], 0, intake)
    assert (len(intake.rows), intake.rejected, intake.notices) == (2, 1, 2)


@pytest.mark.anyio
async def test_a_notice_that_comes_again_is_told_again(tmp_path: Path) -> None:
    store = StoreThatRemembers(tmp_path)
    async with collecting(store) as sender:
        for _ in range(3):
            assert (await sender.post(protobuf([group(ours())])))[0] == 200
        assert len(store.given) == 3
        assert b"asynctrace_collector_notices_total 3\n" in (await sender.get("/metrics"))[1]
