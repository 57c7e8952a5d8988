"""How a worker of the programs under test ends in the middle of a request or a task."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def leave(how: str, group: str = "") -> None:
    if how == "sys.exit":
        sys.exit(7)
    if how == "os._exit":
        os._exit(7)
    if how == "exception":
        raise LookupError("nobody handles this")
    if how == "block":
        sum(range(10**12))  # lets no other thread run, and no signal handler: whoever watches the worker gives it up
    if how == "out of memory":
        Path(group).write_text(str(os.getpid()))
        eat()


def eat() -> None:
    eaten = []
    while True:
        eaten.append(b"x" * (8 << 20))
