"""What is going on at this moment as text: what `asynctrace top` prints.

Promises: no line is wider than `width`, from 66 columns on, and there are at most `height` lines, from 9 on; nothing that
comes from a span can move the cursor or begin a line.

    last 15 min · 1,204 spans a minute · 2.1 % errors · 1 open

    TRACE     OPEN FOR NAME                                          SPANS SERVICE
    a3f0c1d2    12.3 s ◌ checkout                                       37 shop

    NAME                             COUNT   ERR      p50      p95   TOKENS     COST
    chat gpt-x                       1,203    12   1.20 s   4.00 s    1.2 M    $1.20
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from .._tree import OPEN_MARK, _clip, _columns, _duration, _safe
from .store import Group, RunSummary, SpanStatistics

__all__ = ["Top", "render_top"]

ID_COLUMNS: Final = 9
NUMBER_COLUMNS: Final = (9, 5, 8, 8, 8, 8)
SERVICE_COLUMNS: Final = 12
NARROWEST_NAME: Final = 12
FRAME: Final = 5
"""Lines that are no rows: the sums, two headings, the empty lines before them."""


class Top(msgspec.Struct, frozen=True, kw_only=True):
    """One look."""

    now_ns: int
    seconds: int
    """How far back `statistics` look."""
    by: str
    open: tuple[RunSummary, ...]
    """Traces in which a span is open, the one that began first at the top."""
    statistics: SpanStatistics


def render_top(top: Top, *, width: int = 80, height: int = 24) -> str:
    """A screen, without a newline at the end."""
    rows = top.statistics.rows
    opened = min(len(top.open), max((height - FRAME) // 2, height - FRAME - len(rows)))
    busiest = height - FRAME - opened
    lines = [_sums(top), "", *_opened(top, opened, width), "", *_busiest(top.by, rows[: max(1, busiest)], width)]
    return "\n".join(_clip(line.rstrip(), width) for line in lines[:height])


def _sums(top: Top) -> str:
    count = sum(point.count for point in top.statistics.series)
    errors = sum(point.errors for point in top.statistics.series)
    minutes = top.seconds / 60
    share = f"{100 * errors / count:.1f} % errors" if count else "no spans"
    rate = f"{_short(count / minutes)} spans a minute"
    return f"last {top.seconds // 60} min · {rate} · {share} · {len(top.open)} open"


def _opened(top: Top, limit: int, width: int) -> Iterable[str]:
    name_columns = max(NARROWEST_NAME, width - ID_COLUMNS - 9 - 6 - SERVICE_COLUMNS - 4)
    yield f"{'TRACE':{ID_COLUMNS}} {'OPEN FOR':>9} {'NAME':{name_columns}} {'SPANS':>6} SERVICE"
    for run in top.open[:limit]:
        lasts = _duration(max(0, top.now_ns - run.start_ns))
        name = _fit(f"{OPEN_MARK} {run.name or '(no name)'}", name_columns)
        yield f"{run.short_id:{ID_COLUMNS}} {lasts:>9} {name} {_short(run.spans):>6} {_fit(run.service, SERVICE_COLUMNS)}"


def _busiest(by: str, rows: Sequence[Group], width: int) -> Iterable[str]:
    name_columns = max(NARROWEST_NAME, width - sum(NUMBER_COLUMNS) - len(NUMBER_COLUMNS))
    yield _line(by.upper(), ("COUNT", "ERR", "p50", "p95", "TOKENS", "COST"), name_columns)
    for row in rows:
        tokens = row.input_tokens + row.output_tokens
        numbers = (_short(row.count), _short(row.errors), _seconds(row.p50), _seconds(row.p95))
        spent = (_short(tokens) if tokens else "", f"${row.cost:.2f}" if row.cost else "")
        yield _line(row.key or "(none)", (*numbers, *spent), name_columns)


def _line(name: str, numbers: Iterable[str], name_columns: int) -> str:
    right = (number.rjust(columns) for number, columns in zip(numbers, NUMBER_COLUMNS, strict=True))
    return " ".join((_fit(name, name_columns), *right))


def _seconds(seconds: float) -> str:
    return _duration(round(seconds * 1e9))


def _short(number: float) -> str:
    """At most six characters up to a billion."""
    for size, letter in ((10**9, "G"), (10**6, "M")):
        if number >= size:
            return f"{number / size:.1f} {letter}"
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"


def _fit(text: str, columns: int) -> str:
    clipped = _clip(_safe(text, columns), columns)
    return clipped + " " * (columns - _columns(clipped))
