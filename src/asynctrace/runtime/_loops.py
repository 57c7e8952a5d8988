"""Running a coroutine from code without a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .._errors import MisuseError
from ..delivery import OwnExecutor

__all__ = ["run_privately", "when_closed"]

T = TypeVar("T")

when_closed: list[Callable[[asyncio.AbstractEventLoop], None]] = []
"""Called, each with the loop, when a loop of `run_privately()` is closed."""


def run_privately(
    make: Callable[[], Coroutine[Any, Any, T]],
    *,
    instead: str,
    before_close: Callable[[asyncio.AbstractEventLoop], Coroutine[Any, Any, None]],
) -> T:
    """Run `make()` to its end on a loop of its own, in this thread, and leave the thread as it was.

    Unlike `asyncio.run()` it does not touch the thread's current event loop or signal handlers, so it also works in
    `atexit`, and between two `run_until_complete()` of the program. Raises `MisuseError` where a loop is running: waiting
    there would stop the very loop that is waited for.
    """
    if asyncio._get_running_loop() is not None:
        raise MisuseError(f"an event loop is running in this thread: {instead}")
    loop = asyncio.new_event_loop()
    executor = OwnExecutor()
    loop.set_default_executor(executor)
    try:
        try:
            return loop.run_until_complete(make())
        finally:
            loop.run_until_complete(before_close(loop))
            loop.run_until_complete(loop.shutdown_asyncgens())
            executor.shutdown()  # not by the loop, which wants a thread for that
    finally:
        loop.close()
        for callback in when_closed:
            callback(loop)
