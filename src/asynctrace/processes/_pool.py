"""A pool of processes whose tasks belong to whoever asked for them."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ..runtime import Tracer, bind
from ..runtime._travel import check_travels

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

__all__ = ["ProcessPoolExecutor"]

P = ParamSpec("P")
T = TypeVar("T")


class ProcessPoolExecutor(concurrent.futures.ProcessPoolExecutor):
    """`concurrent.futures.ProcessPoolExecutor`, of which each task runs in the run and component that were current at its
    `submit()`, in whatever way the workers are started, and is done when what it traced is delivered.

    A worker goes on with the tracer of the program: its own copy after a fork, else one with the same settings, or the one
    that the worker's program made for the same service. `tracer` is used where nothing is current at a `submit()`; by default
    the default tracer. Where workers are not forked, `submit()` raises `ConfigurationError` for a setting that cannot be
    pickled, and names it.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        super().__init__(max_workers, mp_context, initializer, initargs, max_tasks_per_child=max_tasks_per_child)
        self._tracer = tracer
        context: Any = self._mp_context  # spawned where workers are replaced
        self._is_forking = context.get_start_method() == "fork"

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        """As in the standard library. Raises `ConfigurationError`, see above."""
        bound: Any = bind(fn) if self._tracer is None else self._tracer.bind(fn)
        recorder = getattr(bound, "_recorder", None)
        if not self._is_forking and recorder is not None:
            check_travels(recorder)
        return super().submit(bound, *args, **kwargs)
