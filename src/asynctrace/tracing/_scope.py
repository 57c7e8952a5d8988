"""The two context variables: the current run and the current component.

Isolation is by construction: every task has its own copy of the context it was created in, so two runs can only meet
in a task that entered both, and there the inner one wins until it is left. Leaving restores *by value* what was current
on entry; no token is kept, so leaving in another task, or out of order, cannot raise.

`SUPPRESSED` in the component variable marks a region in which nothing is traced.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._component import ComponentTraceContext
    from ._run import TraceContext

__all__ = ["SUPPRESSED", "Suppressed", "component_var", "current_component", "current_trace", "suppress", "trace_var"]


class Suppressed:
    """The type of `SUPPRESSED`. It belongs to no recorder, so no component takes it for its parent."""

    __slots__ = ()
    _recorder: Final = None
    _restore: Final = None


SUPPRESSED: Final = Suppressed()

trace_var: ContextVar[TraceContext | None] = ContextVar("asynctrace.trace", default=None)
component_var: ContextVar[ComponentTraceContext | Suppressed | None] = ContextVar("asynctrace.component", default=None)


def current_trace() -> TraceContext | None:
    """The run that this code belongs to, or None."""
    component = component_var.get()
    if component is None:
        return trace_var.get()
    return None if isinstance(component, Suppressed) else component.trace


def current_component() -> ComponentTraceContext | None:
    """The innermost component that this code runs in, or None."""
    component = component_var.get()
    return None if isinstance(component, Suppressed) else component


class suppress:
    """A region in which nothing is traced: `with suppress(): …`, also `async with`. May be entered again inside."""

    __slots__ = ("_restore",)

    def __init__(self) -> None:
        self._restore: list[ComponentTraceContext | Suppressed | None] = []

    def __enter__(self) -> None:
        self._restore.append(component_var.get())
        component_var.set(SUPPRESSED)

    def __exit__(self, *exc_info: object) -> None:
        component_var.set(self._restore.pop())

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *exc_info: object) -> None:
        self.__exit__()
