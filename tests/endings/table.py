"""The table of endings: one row for each way in which a process can end, and what is promised about its spans.

The page docs/explanation/how-a-process-ends.md says the same to people; a test compares the two.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

__all__ = ["COUNTED", "DELIVERED", "LOST", "ROWS", "Row"]

DELIVERED = "delivered"
"""All of them, by the process itself."""
COUNTED = "counted"
"""What is not delivered is counted as dropped, in one warning that has the receipt. With a journal: the next start."""
LOST = "lost"
"""Without a journal nobody is left who could deliver or count them. With one: the next start."""

TERM, INT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGKILL


@dataclass(frozen=True)
class Row:
    """`code` and `child_code`: how a parent sees a script, and a child of multiprocessing, end. `open`: the ending of the
    span that was open, where the process could still say it; `signals`: what is sent from outside; `is_away`: the far side
    does not answer; `most_seconds` from the last signal to the end."""

    ending: str
    outcome: str
    code: int
    child_code: int | None = None
    open: str | None = None
    signals: tuple[int, ...] = ()
    is_away: bool = False
    has_traceback: bool = False
    timeout: float = 10.0
    most_seconds: float = 20.0
    in_spawned: bool = True

    def code_in(self, where: str) -> int:
        return self.code if where == "script" or self.child_code is None else self.child_code


ROWS = [
    Row("return", DELIVERED, 0),
    Row("sys.exit", DELIVERED, 3, open="error"),
    Row("sys.exit, loop never started", DELIVERED, 3, open="error", in_spawned=False),
    Row("exception", DELIVERED, 1, open="error", has_traceback=True, in_spawned=False),
    Row("exception, loop never started", DELIVERED, 1, open="error", has_traceback=True, in_spawned=False),
    Row("KeyboardInterrupt", DELIVERED, -2, 1, open="cancelled", signals=(INT,), has_traceback=True),
    Row(
        "KeyboardInterrupt, loop never started",
        DELIVERED,
        -2,
        1,
        open="cancelled",
        signals=(INT,),
        has_traceback=True,
        in_spawned=False,
    ),
    Row(
        "KeyboardInterrupt twice",
        COUNTED,
        -2,
        1,
        open="cancelled",
        signals=(INT, INT),
        is_away=True,
        has_traceback=True,
        timeout=30.0,
        most_seconds=15.0,
    ),
    Row(
        "KeyboardInterrupt twice, loop never started",
        COUNTED,
        -2,
        1,
        open="cancelled",
        signals=(INT, INT),
        is_away=True,
        has_traceback=True,
        timeout=30.0,
        most_seconds=15.0,
        in_spawned=False,
    ),
    Row("SIGTERM", LOST, -15, signals=(TERM,), is_away=True),
    Row("SIGTERM, handler", DELIVERED, -15, open="incomplete", signals=(TERM,)),
    Row("SIGTERM, handler, loop never started", DELIVERED, -15, open="incomplete", signals=(TERM,), in_spawned=False),
    Row("SIGINT, handler", DELIVERED, -2, 1, open="incomplete", signals=(INT,), has_traceback=True, in_spawned=False),
    Row(
        "SIGTERM twice, handler",
        COUNTED,
        -15,
        open="incomplete",
        signals=(TERM, TERM),
        is_away=True,
        timeout=30.0,
        most_seconds=15.0,
        in_spawned=False,
    ),
    Row(
        "SIGINT twice, handler",
        COUNTED,
        -2,
        1,
        open="incomplete",
        signals=(INT, INT),
        is_away=True,
        has_traceback=True,
        timeout=30.0,
        most_seconds=15.0,
        in_spawned=False,
    ),
    Row(
        "SIGTERM then SIGQUIT, handler, loop never started",
        COUNTED,
        -15,
        open="incomplete",
        signals=(TERM, signal.SIGQUIT),
        is_away=True,
        timeout=30.0,
        most_seconds=15.0,
        in_spawned=False,
    ),
    Row("SIGKILL", LOST, -9, signals=(KILL,), is_away=True, in_spawned=False),
    Row("os._exit", LOST, 7, is_away=True),
    Row("out of memory", LOST, -9, is_away=True, in_spawned=False),
    Row("daemon thread", DELIVERED, 0, open="incomplete", in_spawned=False),
    Row("loop never started", DELIVERED, 0),
    Row("backend down", COUNTED, 0, is_away=True, timeout=0.5, in_spawned=False),
]
