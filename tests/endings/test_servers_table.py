"""Each cell of the table of endings in servers, as a real server with a real far side, killed by signals."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from asynctrace.testing import Accept, Delay, FaultServer, Hang

from ..servers.sites import KINDS, Kind, Site, is_alive, wait_for
from .memory import little_memory
from .servers_table import COLUMNS, EITHER, ITSELF, NEXT, ROWS, SIBLING, Cell, ServerRow


def check_cell(row: ServerRow, kind: Kind, folder: Path, *, patience: float | None = None, **environment: str) -> None:
    """Loaded, ended as the row says, and then everything that ended is where the cell says, once."""
    cell = row.cells[kind.name]
    assert cell is not None
    is_away = cell.outcome in (SIBLING, NEXT)
    with (
        FaultServer.in_thread(default=Hang() if is_away else Delay(0.05)) as far_side,
        little_memory(row.ending == "out of memory") as group,
    ):
        times = {"SHUTDOWN_TIMEOUT": str(row.waits), "HOLDS_FOR": str(row.holds)}
        site = Site(kind, folder, far_side, *row.arguments.get(kind.name, ()), **times, **environment)
        site.patience = patience or site.patience
        with site.started():
            span = end(row, cell, site, group)
        if cell.outcome == NEXT:
            assert not site.arrived(), "the far side should have answered nothing"
        if cell.outcome in (NEXT, EITHER) or (cell.outcome == SIBLING and kind.is_celery):
            # Celery's processes ask to be killed with the thread that forked them. Those that took the place of a dead one
            # were forked by the pool's supervisor, where the broker has no event loop, and die when that thread ends.
            check_the_next_start(site)
        site.check_books()
        site.check_nothing_is_left()
        assert site.endings()[span] in cell.open


def end(row: ServerRow, cell: Cell, site: Site, group: str) -> str:
    """The span of the request that was under way when the worker ended, or, having ended it, the server."""
    with site.loaded():
        if site.kind.has_master:
            site.check_master_is_idle()
        if row.how:
            span, pid = site.ask_aside("end", how=row.how, group=group)
        else:
            span, pid = site.ask_aside("hold")
        if row.to_worker:
            os.kill(pid, row.to_worker)
        if row.signals:
            site.signal(*row.signals, everybody=row.to_all)
        if row.signals or (not site.kind.has_master and cell.outcome == NEXT):
            site.wait_for_end()
        else:
            check_while_the_server_goes_on(row, cell, site, pid)
    if cell.outcome == ITSELF:
        assert not site.recovered, f"somebody else delivered\n{site.log}"
    return span


def check_while_the_server_goes_on(row: ServerRow, cell: Cell, site: Site, pid: int) -> None:
    if cell.outcome == SIBLING:
        wait_for(lambda: not is_alive(pid), "the end of the worker", site)
        assert not site.arrived(), "the far side should have answered nothing"
        site.far_side.default = Accept()
        site.far_side.release()
    site.wait_for_all(of=pid)
    if cell.outcome == SIBLING:
        wait_for(lambda: site.recovered, "the line that says who delivered", site)
    site.stop()


def check_the_next_start(site: Site) -> None:
    site.far_side.default = Accept()
    with site.started():
        site.ask("work")  # where nothing starts a tracer, its first span does
        site.wait_for_all()
        site.stop()


# The cells ---------------------------------------------------------------------------------------------------------

IN_CI = {
    ("SIGTERM", "uvicorn --workers 4"),
    ("SIGTERM", "gunicorn --preload"),
    ("SIGTERM", "Celery prefork"),
    ("SIGTERM twice", "gunicorn"),
    ("Ctrl-C twice", "uvicorn"),
    ("SIGKILL of a worker", "gunicorn --preload"),
    ("SIGKILL of a worker", "Celery prefork"),
    ("worker timeout", "gunicorn"),
    ("os._exit", "uvicorn"),
    ("sys.exit", "gunicorn --preload"),
    ("exception", "gunicorn, WSGI"),
    ("out of memory", "uvicorn"),
    ("backend down", "uvicorn"),
}
"""Each row and each column at least once. The others are in the long form."""

CELLS = [
    pytest.param(
        row, kind, marks=() if (row.ending, kind.name) in IN_CI else pytest.mark.long, id=f"{row.ending}-{kind.name}"
    )
    for row in ROWS
    for kind in KINDS
    if row.cells[kind.name] is not None
]


@pytest.mark.parametrize(("row", "kind"), CELLS)
def test_a_server_ends_as_the_table_says(row: ServerRow, kind: Kind, tmp_path: Path) -> None:
    check_cell(row, kind, tmp_path)


def test_ci_runs_each_row_and_each_column() -> None:
    assert tuple(kind.name for kind in KINDS) == COLUMNS
    assert {ending for ending, _ in IN_CI} == {row.ending for row in ROWS}
    assert {column for _, column in IN_CI} == set(COLUMNS)


# The checks notice -------------------------------------------------------------------------------------------------

NO_WAIT = """
from asynctrace.middleware import _lifespan
async def leave(self, *exc): pass
_lifespan.Life.__aexit__ = leave
"""
NO_RECOVERY = """
from asynctrace.runtime._recovery import Recovery
Recovery.move_in = lambda self, loop: None
"""
ONE_NAME = """
from asynctrace.runtime import _parts
made, first = _parts.make_resource, []
def make_resource(*given):
    first.append(made(*given))
    return first[0]
_parts.make_resource = make_resource
"""
BUSY_MASTER = """
configure = asynctrace.configure
asynctrace.configure = lambda **options: configure(**options).start_sync()
"""

WRONG = {
    "a lifespan that does not wait": ("SIGTERM", "uvicorn", NO_WAIT, "have not arrived"),
    "nobody looks after the dead": ("SIGKILL of a worker", "gunicorn --preload", NO_RECOVERY, "every span"),
    "workers with one name": ("SIGTERM", "gunicorn --preload", ONE_NAME, "share an instance id"),
    "a master that traces": ("SIGTERM", "gunicorn --preload", BUSY_MASTER, "the master"),
}


def row_of(ending: str) -> ServerRow:
    return next(row for row in ROWS if row.ending == ending)


def kind_of(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name == name)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_server_with_a_fault_is_noticed(wrong: str, tmp_path: Path) -> None:
    ending, name, fault, why = WRONG[wrong]
    with pytest.raises(AssertionError, match=why):
        check_cell(row_of(ending), kind_of(name), tmp_path, patience=5.0, FAULT=fault)


def test_a_program_without_a_journal_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="every span"):
        check_cell(row_of("os._exit"), kind_of("uvicorn"), tmp_path, patience=5.0, JOURNAL="off")


@pytest.mark.parametrize(
    ("ending", "wrong"), [("SIGTERM", Cell(ITSELF, ("ok",))), ("os._exit", Cell(ITSELF, ("lost",)))], ids=str
)
def test_a_cell_that_says_something_else_is_noticed(ending: str, wrong: Cell, tmp_path: Path) -> None:
    row = dataclasses.replace(row_of(ending), cells={"uvicorn": wrong})
    with pytest.raises(AssertionError):
        check_cell(row, kind_of("uvicorn"), tmp_path, patience=5.0)
