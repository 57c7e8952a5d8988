"""ConsoleExporter prints what a batch holds."""

from __future__ import annotations

import io

import pytest

from asynctrace._contracts import Exporter, Outcome
from asynctrace.exporters import ConsoleExporter

pytestmark = pytest.mark.anyio


class Terminal(io.StringIO):
    """Says it is one."""

    def isatty(self) -> bool:
        return True


async def test_it_prints_a_tree_for_each_trace(make_batch) -> None:
    stream = io.StringIO()
    exporter = ConsoleExporter(stream)
    assert isinstance(exporter, Exporter)
    result = await exporter.export(make_batch(2))
    await exporter.export(make_batch(1, trace=0xCD))
    await exporter.aclose()
    assert result.accepted == 2
    assert [line.split()[:3] for line in stream.getvalue().splitlines()] == [
        ["●", "span", "1"],
        ["●", "span", "2"],
        ["●", "span", "1"],
    ]


async def test_standard_output_of_the_moment_is_the_default(make_batch, capsys) -> None:
    exporter = ConsoleExporter()
    await exporter.export(make_batch(1))
    assert "span 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("color", "stream", "colored"),
    [
        (None, Terminal(), True),
        (None, io.StringIO(), False),
        (False, Terminal(), False),
        (True, io.StringIO(), True),
    ],
)
async def test_color_is_for_terminals_unless_said_otherwise(make_batch, color, stream, colored) -> None:
    await ConsoleExporter(stream, color=color).export(make_batch(1))
    assert ("\x1b[" in stream.getvalue()) is colored


async def test_a_default_for_color_fills_in_only_what_was_left_open(make_batch) -> None:
    unsaid, said = Terminal(), Terminal()
    await ConsoleExporter(unsaid).with_defaults(color=False).export(make_batch(1))
    await ConsoleExporter(said, color=True).with_defaults(color=False).export(make_batch(1))
    assert "\x1b[" not in unsaid.getvalue()
    assert "\x1b[" in said.getvalue()


async def test_inputs_can_be_left_out(make_batch) -> None:
    stream = io.StringIO()
    await ConsoleExporter(stream, details=False).export(make_batch(1, size=10))
    assert "input" not in stream.getvalue()


async def test_an_ascii_stream_gets_what_it_can_hold(make_batch) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    result = await ConsoleExporter(stream).export(make_batch(1))
    assert result.accepted == 1
    assert b"? span 1" in raw.getvalue()


async def test_a_closed_stream_means_try_again_not_an_error(make_batch) -> None:
    stream = io.StringIO()
    stream.close()
    result = await ConsoleExporter(stream).export(make_batch(1))
    assert result.outcome is Outcome.TRY_AGAIN
    assert result.reason == "console_ValueError"
