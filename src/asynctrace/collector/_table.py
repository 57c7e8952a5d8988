"""The list of traces as text: what `asynctrace ls` prints.

Promises: no line is wider than `width`, from 66 columns on, or from 74 when it takes 16 digits to tell the traces apart;
the first column names a trace of that store and is never cut; nothing that comes from a span can move the cursor or
begin a line.

    TRACE     START           NAME                   SPANS ERR DURATION SERVICE
    a3f0c1d2  11-21 06:20:45  ✕ checkout                37   1   1.20 s shop
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from .._tree import MARKS, OK_MARK, OPEN_MARK, _clip, _columns, _duration, _safe
from ._store import RunSummary

__all__ = ["render_runs"]

Row = tuple[str, str, str, str, str, str, str]

HEADER: Final[Row] = ("TRACE", "START", "NAME", "SPANS", "ERR", "DURATION", "SERVICE")
START_COLUMNS: Final = 14
NUMBER_COLUMNS: Final = (5, 3, 8)
SERVICE_COLUMNS: Final = 12
GAPS: Final = 8
NARROWEST_NAME: Final = 8


def render_runs(runs: Sequence[RunSummary], *, width: int = 80) -> str:
    """A heading and a line for each run, in local time, without a newline at the end."""
    rows = [HEADER, *map(_row, runs)]
    id_columns = max(len(row[0]) for row in rows)
    fixed = id_columns + START_COLUMNS + sum(NUMBER_COLUMNS) + SERVICE_COLUMNS + GAPS
    name_columns = max(NARROWEST_NAME, width - fixed)
    return "\n".join(_line(row, id_columns, name_columns) for row in rows)


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


def _line(row: Row, id_columns: int, name_columns: int) -> str:
    trace, start, name, *numbers, service = row
    left = (trace.ljust(id_columns), _fit(start, START_COLUMNS), _fit(name, name_columns))
    right = _padded(numbers, NUMBER_COLUMNS)
    return f"{'  '.join(left)} {right} {_fit(service, SERVICE_COLUMNS)}".rstrip()


def _padded(numbers: Iterable[str], columns: Iterable[int]) -> str:
    return " ".join(number.rjust(room) for number, room in zip(numbers, columns, strict=True))


def _fit(text: str, columns: int) -> str:
    clipped = _clip(_safe(text, columns), columns)
    return clipped + " " * (columns - _columns(clipped))
