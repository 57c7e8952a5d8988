"""The backward jump of a loop is where signal handlers run. CPython 3.13 leaves that jump out of the `try` or `with` that the
loop ends: what a handler raises there passes the `finally` by, and a lock stays taken. Older versions look for a handler at
what stands before the loop, which is inside."""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import CodeType

import pytest

from asynctrace import spanlog

FOLDER = Path(spanlog.__file__).parent
MODULES = sorted([*FOLDER.glob("*.py"), *FOLDER.glob("journal/*.py")])

CO_COROUTINE = 0x80

LOOKS_AT_THE_JUMP = sys.version_info >= (3, 13)

AWAY = """
def loops_inside(self):
    try:
        while self.work:
            self.step()
    finally:
        self.busy = False
"""


def unprotected_jumps(code: CodeType) -> Iterator[str]:
    """Backward jumps from inside a block to inside the same, of whose handler CPython thinks as if they were outside.

    Not in coroutines: what is raised there ends the event loop, and the locks of a log are held by no coroutine.
    """
    instructions = list(dis.Bytecode(code))
    names = {instruction.offset: instruction.opname for instruction in instructions}
    entries = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]

    def handlers(offset: int) -> set[int]:
        """What a person wrote: those that tidy up after a comprehension do not begin this way."""
        around = {entry.target for entry in entries if entry.start <= offset < entry.end}
        return {target for target in around if names[target] == "PUSH_EXC_INFO"}

    if not code.co_flags & CO_COROUTINE:
        for before, jump in pairwise(instructions):
            if "JUMP_BACKWARD" not in jump.opname or "NO_INTERRUPT" in jump.opname:
                continue
            place = jump.offset if LOOKS_AT_THE_JUMP else jump.argval - 2
            if (handlers(before.offset) & handlers(jump.argval)) - handlers(place):
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
