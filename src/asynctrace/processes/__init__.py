"""Doors for processes and threads: pools whose tasks know where they were asked for, the environment of a program.

asynctrace.bind(function)   for everything that calls a function somewhere else: threads, executors, pools, processes
ProcessPoolExecutor         that of the standard library, which binds by itself
environment()               for `subprocess`: what the program may continue the trace with
"""

from __future__ import annotations

from ._environment import environment
from ._pool import ProcessPoolExecutor

__all__ = ["ProcessPoolExecutor", "environment"]
