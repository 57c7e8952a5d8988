"""Doors for processes and threads: pools whose tasks know where they were asked for, the environment of a program.

    asynctrace.bind(function)   for everything that calls a function somewhere else: threads, executors, pools, processes
    ProcessPoolExecutor         that of the standard library, which binds by itself
    environment()               for `subprocess`: what the program may continue the trace with
    patch_threads()             opt-in: threads and pools of threads that bind by themselves
    collect_children()          until everything that child processes ended is delivered

Each name loads its home when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._children import collect_children, collect_children_sync
    from ._environment import environment
    from ._pool import ProcessPoolExecutor
    from ._threads import ThreadPatch, patch_threads

__all__ = [
    "ProcessPoolExecutor",
    "ThreadPatch",
    "collect_children",
    "collect_children_sync",
    "environment",
    "patch_threads",
]

_HOMES = {
    "ProcessPoolExecutor": "_pool",
    "ThreadPatch": "_threads",
    "collect_children": "_children",
    "collect_children_sync": "_children",
    "environment": "_environment",
    "patch_threads": "_threads",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
