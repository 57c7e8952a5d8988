"""The table of endings in servers: what becomes of spans for each way in which a worker can end, in each server.

The page docs/explanation/how-a-process-ends.md says the same to people; a test compares the two.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

__all__ = ["COLUMNS", "EITHER", "ITSELF", "NEXT", "ROWS", "SIBLING", "Cell", "ServerRow"]

ITSELF = "itself"
"""Delivered by the worker that made the spans, before it ends."""
SIBLING = "sibling"
"""Delivered within seconds by another worker, or by the one that is started in its place."""
NEXT = "next start"
"""Delivered by the next start of the server on the same state directory."""
EITHER = "itself or next start"
"""As far as it got: the server ends its worker in the middle of that."""

COLUMNS = ("uvicorn", "uvicorn --workers 4", "gunicorn", "gunicorn --preload", "gunicorn, WSGI", "Celery prefork")

TERM, INT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGKILL


@dataclass(frozen=True)
class Cell:
    """Who delivers, and the ending of the span of the request, or task, that was under way; or one of several."""

    outcome: str
    open: tuple[str, ...]

    def __str__(self) -> str:
        endings = " or ".join(f"`{ending}`" for ending in self.open)
        return f"{self.outcome}, {endings}"


@dataclass(frozen=True)
class ServerRow:
    """`signals` go to the process that was started, or, `to_all`, to each process of the server, as a terminal sends them;
    `to_worker` goes to the worker that has a request; `how` is what the request itself does; `arguments` are the server's.
    `waits` seconds for the far side, which is away, and `holds` the request that is under way, where no loop can cut it.
    A cell that is None: this server does not do that."""

    ending: str
    cells: dict[str, Cell | None]
    signals: tuple[int, ...] = ()
    to_all: bool = False
    to_worker: int = 0
    how: str = ""
    arguments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    waits: float = 10.0
    holds: float = 60.0

    def __str__(self) -> str:
        return self.ending


def _cells(*cells: Cell | None) -> dict[str, Cell | None]:
    return dict(zip(COLUMNS, cells, strict=True))


def _of_asgi(cell: Cell) -> tuple[Cell, ...]:
    return (cell,) * 4


_KILLED = _cells(Cell(NEXT, ("lost",)), *(Cell(SIBLING, ("lost",)) for _ in COLUMNS[1:]))
_TIMEOUTS = {
    "uvicorn --workers 4": ("--timeout-worker-healthcheck=5",),
    "gunicorn": ("--timeout=4",),
    "gunicorn --preload": ("--timeout=4",),
    "gunicorn, WSGI": ("--timeout=4",),
    "Celery prefork": ("--time-limit=2",),
}

ROWS = [
    ServerRow(
        "SIGTERM",
        _cells(*_of_asgi(Cell(ITSELF, ("cancelled",))), Cell(ITSELF, ("ok",)), Cell(ITSELF, ("ok",))),
        signals=(TERM,),
        holds=2.0,
    ),
    ServerRow(
        "SIGTERM twice",
        _cells(*_of_asgi(Cell(ITSELF, ("cancelled",))), Cell(ITSELF, ("ok",)), Cell(ITSELF, ("ok",))),
        signals=(TERM, TERM),
        holds=2.0,
    ),
    ServerRow(
        "Ctrl-C twice",
        _cells(
            Cell(ITSELF, ("cancelled",)),
            Cell(EITHER, ("cancelled", "lost")),
            Cell(EITHER, ("cancelled", "lost")),
            Cell(EITHER, ("cancelled", "lost")),
            Cell(EITHER, ("ok", "abandoned", "incomplete", "lost")),
            Cell(ITSELF, ("ok", "error")),
        ),
        signals=(INT, INT),
        to_all=True,
        holds=4.0,
    ),
    ServerRow("SIGKILL of a worker", _KILLED, to_worker=KILL),
    ServerRow("worker timeout", _KILLED | {"uvicorn": None}, how="block", arguments=_TIMEOUTS),
    ServerRow("os._exit", _KILLED, how="os._exit"),
    ServerRow("sys.exit", _cells(*(Cell(ITSELF, ("error",)) for _ in COLUMNS)), how="sys.exit"),
    ServerRow("exception", _cells(*(Cell(ITSELF, ("error",)) for _ in COLUMNS)), how="exception"),
    ServerRow("out of memory", _KILLED, how="out of memory"),
    ServerRow(
        "backend down",
        _cells(*_of_asgi(Cell(NEXT, ("cancelled",))), Cell(NEXT, ("ok",)), Cell(NEXT, ("ok",))),
        signals=(TERM,),
        waits=1.0,
        holds=2.0,
    ),
]
