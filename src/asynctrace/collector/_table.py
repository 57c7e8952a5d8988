"""The list of traces as text: what `asynctrace ls` prints.

Promises: columns stand below each other; no line is wider than `width`, from 53 columns on, or from 77 when it takes all 32
digits to tell the traces apart (more where numbers are longer than their heading); the first column names a trace of that
store and is never cut, the last one goes where there is no room for it; nothing that comes from a span can move the cursor
or begin a line.

    TRACE     START           NAME                   SPANS ERR DURATION SERVICE
    a3f0c1d2  11-21 06:20:45  ✕ checkout                37   1   1.20 s shop
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from .._tree import MARKS, OK_MARK, OPEN_MARK, _clip, _columns, _duration, _safe
from .store import RunSummary

__all__ = ["render_runs"]

Row = tuple[str, str, str, str, str, str, str]

HEADER: Final[Row] = ("TRACE", "START", "NAME", "SPANS", "ERR", "DURATION", "SERVICE")
START_COLUMNS: Final = 14
NUMBER_COLUMNS: Final = (5, 3, 8)
SERVICE_COLUMNS: Final = 12
GAPS: Final = 7
NARROWEST_NAME: Final = 8


def render_runs(runs: Sequence[RunSummary], *, width: int = 80) -> str:
    """A heading and a line for each run, in local time, without a newline at the end."""
    rows = [HEADER, *map(_row, runs)]
    id_columns = max(len(row[0]) for row in rows)
    numbers = [max(room, *(len(row[at]) for row in rows)) for at, room in enumerate(NUMBER_COLUMNS, 3)]
    left = width - (id_columns + START_COLUMNS + sum(numbers) + GAPS)
    has_service = left >= NARROWEST_NAME + 1 + SERVICE_COLUMNS
    name_columns = left - 1 - SERVICE_COLUMNS if has_service else max(NARROWEST_NAME, left)
    lines = [_line(row, id_columns, name_columns, numbers) for row in rows]
    if not has_service:
        return "\n".join(line.rstrip() for line in lines)
    return "\n".join(f"{line} {_fit(row[-1], SERVICE_COLUMNS)}".rstrip() for line, row in zip(lines, rows, strict=True))


def _row(run: RunSummary) -> Row:
    duration = "open" if run.duration is None else _duration(round(run.duration * 1e9))
    numbers = (str(run.spans), str(run.errors), duration)
    return (run.short_id, _start(run.start_ns), f"{_mark(run)} {run.name or '(no name)'}", *numbers, run.service)


def _mark(run: RunSummary) -> str:
    return OPEN_MARK if run.open else MARKS.get(run.ending, OK_MARK)


def _start(time_ns: int) -> str:
    try:
        return f"{datetime.fromtimestamp(time_ns // 10**9):%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):  # a time of the far future, or none
        return "?"


def _line(row: Row, id_columns: int, name_columns: int, number_columns: Iterable[int]) -> str:
    trace, start, name, *numbers, _ = row
    left = (trace.ljust(id_columns), _fit(start, START_COLUMNS), _fit(name, name_columns))
    right = _padded(numbers, number_columns)
    return f"{'  '.join(left)} {right}"


def _padded(numbers: Iterable[str], columns: Iterable[int]) -> str:
    return " ".join(number.rjust(room) for number, room in zip(numbers, columns, strict=True))


def _fit(text: str, columns: int) -> str:
    clipped = _clip(_safe(text, columns), columns)
    return clipped + " " * (columns - _columns(clipped))
