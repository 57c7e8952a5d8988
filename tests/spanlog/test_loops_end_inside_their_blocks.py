"""CPython 3.13 leaves the backward jump of a loop out of the `try` or `with` that the loop ends, and that jump is where
signal handlers run: what a handler raises there passes the `finally` by, and a lock stays taken."""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import CodeType

import pytest

from asynctrace import spanlog

MODULES = sorted(Path(spanlog.__file__).parent.glob("*.py"))

CO_COROUTINE = 0x80

AWAY = """
def loops_inside(self):
    try:
        while self.work:
            self.step()
    finally:
        self.busy = False
"""


def unprotected_jumps(code: CodeType) -> Iterator[str]:
    """Backward jumps that no handler covers, although it covers the instruction before and the one jumped to.

    Not in coroutines: what is raised there ends the event loop, and the locks of a log are held by no coroutine.
    """
    entries = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]

    def covered(offset: int) -> bool:
        return any(entry.start <= offset < entry.end for entry in entries)

    if not code.co_flags & CO_COROUTINE:
        for before, jump in pairwise(dis.Bytecode(code)):
            loses = covered(before.offset) and not covered(jump.offset)
            if loses and jump.opname.startswith("JUMP_BACKWARD") and covered(jump.argval):
                yield f"{code.co_qualname}, line {before.positions.lineno if before.positions else '?'}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from unprotected_jumps(constant)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_signal_at_the_jump_of_a_loop_passes_no_finally_by(path: Path) -> None:
    assert list(unprotected_jumps(compile(path.read_text(), str(path), "exec"))) == []


@pytest.mark.skipif(sys.version_info[:3] != (3, 13, 0), reason="CPython 3.13.0 is known to compile loops this way")
def test_the_check_notices() -> None:
    assert list(unprotected_jumps(compile(AWAY, "away.py", "exec")))
