"""What `os.fork()` may not take along: registered at import, before gunicorn, Celery or multiprocessing fork.

    before   take the locks that the child will meet: no thread is half-way through a record, an import, the registry
    parent   release them, in the other order
    child    replace what other threads may hold; every tracer begins anew: log, lanes, connections, instance id, randomness

A child of multiprocessing ends in `os._exit()`, which runs nothing of `atexit`; before it does, it runs the finalizers of
`multiprocessing.util`. Its tracers are shut down by one of those. A worker of Celery's prefork pool does not run those
either; it sends the signal `worker_process_shutdown`, whether it was recycled, told to stop or terminated.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import _diagnostics
from ..tracing import _placement
from . import _registry

if TYPE_CHECKING:
    from ._options import Settings
    from ._tracer import Tracer

__all__ = ["deliver_at_the_end_of_a_child", "line_of_descent"]

_LOADING_WAIT = 5.0
"""Seconds that a fork waits for a thread which imports a library. aiohttp takes a fifth of one."""

_AFTER_ALL_OTHERS = -100
"""The priority of our finalizer: queues have been joined by then, and whatever traces in a finalizer has run."""

_held: list[Callable[[], object]] = []
"""What the parent does after the fork, newest last."""

_tracers: list[Tracer] = []
"""Those that were alive before the fork; the registry may not be looked at without its lock."""


_lines: dict[object, str] = {}
"""In a forked child, where its journals come from: `JournalMeta.parent`, by the folder that they are in."""


def _before() -> None:
    for loading in _locks_of_imports():
        if loading.acquire(timeout=_LOADING_WAIT):
            _held.append(loading.release)
    _registry._lock.acquire()
    _held.append(_registry._lock.release)
    journal = _journal_locks()
    if journal is not None:
        journal.before_fork()
        _held.append(journal.after_fork_in_parent)
    _tracers[:] = _registry._alive.values()
    for tracer in _tracers:
        tracer._log.before_fork()
        _held.append(tracer._log.after_fork_in_parent)


def _in_parent() -> None:
    for tracer in _tracers:
        tracer._has_children = True
    _tracers.clear()
    held, _held[:] = list(_held), []  # with the last lock released, another thread may begin to fork
    for release in reversed(held):
        release()


def _in_child() -> None:
    _held.clear()
    locks: list[Any] = [*_locks_of_imports(), _registry._lock, _placement._extras_lock]
    for lock in locks:
        lock._at_fork_reinit()  # as `threading` and `logging` do with theirs
    journal = _journal_locks()
    if journal is not None:
        journal.after_fork_in_child()
    signals: Any = sys.modules.get("asynctrace.runtime._signals")
    if signals is not None:
        signals.after_fork_in_child()
    tracers, _tracers[:] = list(_tracers), []
    _lines.clear()
    for tracer in tracers:
        _renew(tracer)
        _lines[_folder(tracer._settings)] = tracer._parent_log
    deliver_at_the_end_of_a_child()


def line_of_descent(settings: Settings) -> str:
    """Of a tracer made now: in a forked child it is a child of the tracer that kept its journal in the same folder."""
    return _lines.get(_folder(settings), "")


def _folder(settings: Settings) -> object:
    return settings.service, settings.journal and settings.journal.state


def _renew(tracer: Tracer) -> None:
    try:
        tracer._begin_anew()
    except Exception as error:  # noqa: BLE001  (tracing never breaks the traced program)
        tracer._failed(error)


def _locks_of_imports() -> list[Any]:
    """Of the modules whose threads import libraries when they need them, as far as those modules are loaded."""
    aside: Any = sys.modules.get("asynctrace.exporters._aside")
    return [_diagnostics.loading] if aside is None else [aside.loading, _diagnostics.loading]


def _journal_locks() -> Any:
    return sys.modules.get("asynctrace.spanlog.journal._lock")


# The end of a child of multiprocessing --------------------------------------------------------------------------------


class _Anchor:
    """`multiprocessing.util` remembers callbacks by a weak reference to an object."""


_anchor = _Anchor()
_has_told: list[object] = []
"""The module `multiprocessing.util` that knows of us; its children inherit that."""


def deliver_at_the_end_of_a_child() -> None:
    """Have multiprocessing, and Celery, shut the tracers down at the end of their children, where they are loaded. Cheap to
    repeat.

    A child throws away the finalizers that it inherited when it begins, so ours is made after that, by a callback that
    runs there.
    """
    _deliver_at_the_end_of_celerys()
    finalizing = sys.modules.get("multiprocessing.util")
    if finalizing is None or finalizing in _has_told:
        return
    _has_told.append(finalizing)
    finalizing.register_after_fork(_anchor, _finalize)
    process: Any = sys.modules["multiprocessing.process"]
    if process.parent_process() is not None or hasattr(process.current_process(), "_inheriting"):
        _finalize(_anchor)  # the child has begun; a spawned one, which imports its program now, throws nothing away


def _finalize(_: object) -> None:
    finalizing: Any = sys.modules["multiprocessing.util"]
    finalizing.Finalize(None, _registry.deliver_at_exit, exitpriority=_AFTER_ALL_OTHERS)


def _deliver_at_the_end_of_celerys() -> None:
    signals: Any = sys.modules.get("celery.signals")
    if signals is not None:
        signals.worker_process_shutdown.disconnect(
            _worker_process_shutdown
        )  # to come after the program's own receivers
        signals.worker_process_shutdown.connect(_worker_process_shutdown, weak=False)


def _worker_process_shutdown(**_: object) -> None:
    _registry.deliver_at_exit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
