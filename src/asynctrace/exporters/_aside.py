"""Work that would hold the event loop, done beside it.

Each piece of work gets a thread of its own that ends with it, not one of the loop's default executor: that
one is shut down when `asyncio.run()` ends, may be full of the application's jobs, and is joined at exit.
Where no thread can be started (CPython 3.12 and later at interpreter exit; a limit of the system), or none may be (inside
`in_place()`), the work is done in place.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import TypeVar

__all__ = ["in_place", "loading", "run_aside"]

T = TypeVar("T")

loading = threading.RLock()
"""Held while a thread imports a library. A fork waits for it: in the child the import would stay half done for ever, and
everybody who needs the library would wait for a thread that is not there."""

_places = 0
"""How many `in_place()` blocks are entered."""


@contextlib.contextmanager
def in_place() -> Iterator[None]:
    """A block in which no thread is started, by whichever thread: for the exit, and for a signal handler, which may have
    interrupted `threading` while it held its locks."""
    global _places
    _places += 1
    try:
        yield
    finally:
        _places -= 1


async def run_aside(work: Callable[[], T]) -> T:
    """The result of `work()`, run in a thread; its exception is raised here.

    A thread cannot be cancelled: when the caller is, the work goes on alone. So it works on copies.
    """
    if _places:
        return work()
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()
    thread = threading.Thread(target=_work_and_tell, args=(work, loop, answer), name="asynctrace-aside", daemon=True)
    try:
        Context().run(thread.start)
    except RuntimeError:
        return work()
    return await answer


def _work_and_tell(work: Callable[[], T], loop: asyncio.AbstractEventLoop, answer: asyncio.Future[T]) -> None:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  # raised where the work was asked for
        _tell(loop, _set_exception, answer, error)
    else:
        _tell(loop, _set_result, answer, result)


def _tell(loop: asyncio.AbstractEventLoop, how: Callable[..., None], *arguments: object) -> None:
    try:
        loop.call_soon_threadsafe(how, *arguments)
    except RuntimeError:
        return  # the loop was closed: nobody waits any more


def _set_result(answer: asyncio.Future[T], result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _set_exception(answer: asyncio.Future[T], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)
