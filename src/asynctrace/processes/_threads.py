"""Threads that carry the current run and component by themselves. Opt-in: nothing is patched until the program asks for it.

    ThreadPoolExecutor.submit()   the work is bound where it is submitted; so is that of map() and loop.run_in_executor()
    Thread.start()                run() is bound where the thread is started; so is that of a Timer

Promises:

1. Only the run and the component are carried. Other context variables stay as Python has them.
2. A pool's thread belongs to nobody: what it runs next finds nothing of what it ran before.
3. A thread keeps nothing of the run it was started in once its `run()` has returned.
4. What others patched over us stays; then ours, below it, does nothing more after `restore()`.
5. Threads that serve everybody (`_SERVANTS`) are not bound to whoever happened to need them first.

A patched method does nothing where neither a run nor a component is current.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from ..tracing._scope import component_var, trace_var

if TYPE_CHECKING:
    from ..tracing import ComponentTraceContext, TraceContext
    from ..tracing._scope import Suppressed

__all__ = ["ThreadPatch", "patch_threads"]

_SERVANTS: Final = frozenset(
    {
        "anyio._backends._asyncio",  # worker threads: each call brings a context of its own
        "anyio.from_thread",  # portals: so does each of theirs
        "concurrent.futures.process",
        "concurrent.futures.thread",  # the workers: submit() binds each piece of work
        "multiprocessing.pool",
        "multiprocessing.queues",
    }
)
"""The modules of pools and queues, whose threads outlive by far the run in which they were started. They call the callbacks
of everybody who uses them."""

_held: Final[set[ThreadPatch]] = set()
"""Those that were not restored: while there are some, patched methods carry."""

_lock: Final[Any] = threading.RLock()
"""Held while methods are replaced; no patched method takes it."""


class ThreadPatch:
    """What `patch_threads()` returns: `restore()` takes it back, also as the end of a `with`."""

    def restore(self) -> None:
        """Threads and pools are as they were, once whoever else asked for the patch has restored it too. Idempotent."""
        with _lock:
            _held.discard(self)
            if not _held:
                for method in _METHODS:
                    method.take_out()

    def __enter__(self) -> ThreadPatch:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore()

    def __repr__(self) -> str:
        return f"<ThreadPatch {'in place' if self in _held else 'restored'}>"


def patch_threads() -> ThreadPatch:
    """From now on `ThreadPoolExecutor.submit()` and `threading.Thread.start()` carry the run and the component that are
    current at the call into the thread, so that what is traced there has its parent. Nothing else is carried.

    It may be asked for any number of times, and holds until each has been restored. Pools of other kinds
    (`multiprocessing.pool.ThreadPool`) are not patched: give them `asynctrace.bind(function)`.
    """
    patch = ThreadPatch()
    with _lock:
        _held.add(patch)
        for method in _METHODS:
            method.put_in()
    return patch


# What is carried ---------------------------------------------------------------------------------------------------------


class _Carried:
    """A function, and the run and component to call it in. It has the attributes of the function."""

    __slots__ = ("_component", "_function", "_run")

    def __init__(
        self,
        function: Callable[..., Any],
        run: TraceContext | None,
        component: ComponentTraceContext | Suppressed | None,
    ) -> None:
        self._function = function
        self._run = run
        self._component = component

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        outer_run, outer_component = trace_var.get(), component_var.get()
        trace_var.set(self._run)
        component_var.set(self._component)
        try:
            return self._function(*args, **kwargs)
        finally:
            trace_var.set(outer_run)
            component_var.set(outer_component)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)

    def __reduce__(self) -> Any:
        """Some subclasses of pools take what they are given to another interpreter, where this run is not."""
        return _itself, (self._function,)


def _itself(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def _carried(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` in the run and component of here; itself where there is nothing to carry, or it serves everybody."""
    run, component = trace_var.get(), component_var.get()
    if not _held or (run is None and component is None) or _serves_everybody(function):
        return function
    return _Carried(function, run, component)


def _serves_everybody(work: Any) -> bool:
    module = getattr(work, "__module__", None)
    return isinstance(module, str) and module in _SERVANTS


# The two methods ---------------------------------------------------------------------------------------------------------


def _carrying_submit(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def submit(pool: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return original(pool, _carried(fn), *args, **kwargs)

    return submit


def _carrying_start(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def start(self: threading.Thread) -> None:
        take_back = _carry_into(self)
        try:
            original(self)
        except Exception:  # it did not start, or not again
            take_back()
            raise

    return start


def _carry_into(thread: threading.Thread) -> Callable[[], object]:
    """Have `thread` run in the run and component of here. Returns what undoes it.

    It is the thread's own attribute `run` that does it, since subclasses override the method; and that is gone before the
    work begins, or the thread would keep the run for as long as somebody keeps the thread.
    """
    try:
        if thread.ident is not None or _has_a_context_of_its_own(thread):
            return _nothing
        work, own = thread.run, vars(thread)
        carried = _carried(work)
        if carried is work or _serves_everybody(getattr(thread, "_target", None)):
            return _nothing
    except Exception:  # noqa: BLE001  (whatever is wrong with the thread, its own start() says it)
        return _nothing
    before = own.get("run")

    def take_back() -> None:
        own.pop("run", None)
        if before is not None:
            own["run"] = before

    def run() -> None:
        take_back()
        carried()

    own["run"] = run
    return take_back


def _nothing() -> None:
    return None


_CAN_HAVE_A_CONTEXT: Final = "context" in inspect.signature(threading.Thread).parameters
"""`Thread(context=…)` came with Python 3.14."""


def _has_a_context_of_its_own(thread: Any) -> bool:
    """Whoever gives a thread a context has said what is current in it."""
    return _CAN_HAVE_A_CONTEXT and getattr(thread, "_context", None) is not None


class _Method:
    """A method that can be replaced, and put back as far as nobody replaced it since."""

    def __init__(self, owner: type, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._owner = owner
        self._name = name
        self._around = around

    def put_in(self) -> None:
        """Once: not where it is there already, inherited or below what others put over it."""
        original = getattr(self._owner, self._name)
        if not any(_is_ours(layer) for layer in _layers(original)):
            ours = self._around(original)
            _ours.append(ours)
            setattr(self._owner, self._name, ours)

    def take_out(self) -> None:
        top: Any
        while _is_ours(top := vars(self._owner).get(self._name)):
            setattr(self._owner, self._name, top.__wrapped__)
            _ours[:] = [ours for ours in _ours if ours is not top]


_ours: Final[list[Any]] = []
"""The methods that were put in and not taken out."""


def _is_ours(layer: Any) -> bool:
    return any(layer is ours for ours in _ours)  # a proxy around one is equal to it


def _layers(method: Any) -> Iterator[Any]:
    """A method, what it wraps, what that wraps, …, as far as those who wrapped it say so."""
    while method is not None:
        yield method
        method = getattr(method, "__wrapped__", None)


_METHODS: Final = (
    _Method(ThreadPoolExecutor, "submit", _carrying_submit),
    _Method(threading.Thread, "start", _carrying_start),
    _Method(threading.Timer, "start", _carrying_start),  # inherited, unless others have given it one of its own
)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # its holder may be a thread that is gone
