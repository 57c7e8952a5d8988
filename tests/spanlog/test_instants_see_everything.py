"""The tool that interrupts at every instant does see every instant, on every version and at the first run."""

from __future__ import annotations

import dis
from collections.abc import Callable
from typing import Any

import pytest

from . import instants
from .instants import Kind, every_instant

SOURCE = """
def called():
    return 1

def straight(a, b):
    c = a + b
    d = c * a - b
    e = [a, b, c, d]
    e[0] = d
    return e

def calls(a):
    called()
    len(a)
    len(a)
    return called()

def loops(n):
    for i in range(n):
        pass

def slices(memory, a, b, record):
    memory[a:b] = record
"""


def functions() -> dict[str, Any]:
    """Made anew: no version has seen them run."""
    made: dict[str, Any] = {}
    exec(compile(SOURCE, "watched.py", "exec"), made)
    return made


def count(function: Callable[..., object], kind: Kind, *arguments: object) -> int:
    seen = 0
    for _where, raised in every_instant(lambda: lambda: function(*arguments), lambda: None, kind, {"watched.py"}):
        assert raised is None
        seen += 1
    return seen


def check_every_bytecode_of_a_first_run_is_seen() -> None:
    straight = functions()["straight"]
    bytecodes = len(list(dis.get_instructions(straight)))
    assert bytecodes > 15
    assert bytecodes - 1 <= count(straight, "opcode", 1, 2) <= bytecodes


def check_calls_and_loops_are_where_signals_come() -> None:
    assert count(functions()["calls"], "signal", "a") == 3 + 2, "three functions begin, two calls of C functions end"
    assert count(functions()["loops"], "signal", 7) == 1 + 1 + 7, "it begins, a call ends, and it jumps back"
    assert count(functions()["straight"], "signal", 1, 2) == 1


def test_every_bytecode_of_a_first_run_is_seen() -> None:
    check_every_bytecode_of_a_first_run_is_seen()


def test_calls_and_loops_are_where_signals_come() -> None:
    check_calls_and_loops_are_where_signals_come()


def test_a_collection_comes_where_a_slice_is_made_if_the_version_collects_at_once() -> None:
    found = count(functions()["slices"], "collection", bytearray(9), 2, 4, b"ab")
    assert found >= (2 if instants._COLLECTS_AT_ONCE else 1)


@pytest.mark.parametrize(
    "check", [check_every_bytecode_of_a_first_run_is_seen, check_calls_and_loops_are_where_signals_come]
)
def test_the_checks_notice(check: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    see = instants._Watch.bytecode

    def sees_every_other(self: instants._Watch, frame: Any, at: int) -> None:
        if at % 4:
            see(self, frame, at)

    monkeypatch.setattr(instants._Watch, "bytecode", sees_every_other)
    with pytest.raises(AssertionError):
        check()
