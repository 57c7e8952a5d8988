"""The executor of our own loops, where exporters look names up: in threads while there are any to be had, else in place.

At exit none can be started (CPython 3.12 and later), nor by an executor (all versions); inside `in_place()` none may be. A
loop would then find no host by its name, and deliver nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final, ParamSpec, TypeVar

__all__ = ["OwnExecutor", "in_place"]

P = ParamSpec("P")
T = TypeVar("T")

THREADS: Final = 4

_places = 0
"""How many `in_place()` blocks are entered."""


@contextmanager
def in_place() -> Iterator[None]:
    """A block in which no executor of ours starts a thread."""
    global _places
    _places += 1
    try:
        yield
    finally:
        _places -= 1


class OwnExecutor(ThreadPoolExecutor):
    """To be given to a loop with `set_default_executor()`, and shut down after it."""

    def __init__(self) -> None:
        super().__init__(THREADS, thread_name_prefix="asynctrace-executor")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """In a thread where one can be had. Done when it returns, where none can."""
        if not _places:
            with suppress(RuntimeError):
                return super().submit(fn, *args, **kwargs)
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  (raised where the work was asked for)
            done.set_exception(error)
        return done
