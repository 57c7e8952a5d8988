"""Components that are not recorded: the same face, no bytes, next to no cost.

`Unrecorded` is the root of a trace that was sampled out (or a component in a suppressed region): it is current while it
is entered, so that what happens inside is not recorded either. `Nothing` is one object for each shape, handed out
where everything around is known not to be recorded; it touches no context.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._contracts import StatusCode
from ._component import ENDED, ComponentTraceContext
from ._scope import component_var

if TYPE_CHECKING:
    from ._run import TraceContext

__all__ = ["Nothing", "Unrecorded"]


class Unrecorded(ComponentTraceContext):
    """A component becomes one on entry, by a change of class, when its trace is not recorded."""

    __slots__ = ()

    def _leave(self, exc: BaseException | None) -> bytes | None:
        if component_var.get() is self:
            component_var.set(self._restore)
        else:
            self._restore_from_afar()
        self._state = ENDED
        return None

    def _not_open(self) -> None:
        """`async with` looks `__aexit__` up before the class changes, so the recorded one's ends here."""
        self._state = ENDED

    @property
    def is_recording(self) -> bool:
        return False

    def set_attribute(self, key: str, value: object) -> None:
        return None

    def set_attributes(self, attributes: Mapping[str, object]) -> None:
        return None

    def add_log(self, message: str, /, **fields: object) -> None:
        return None

    def set_outputs(self, outputs: object, metadata: Mapping[str, object] | None = None) -> None:
        return None

    def record_exception(self, exc: BaseException) -> None:
        return None

    def set_status(self, status: StatusCode | str, message: str = "") -> None:
        return None

    def __del__(self) -> None:
        return None


class Nothing(Unrecorded):
    """Shared by all components of one shape; may be entered any number of times at once."""

    __slots__ = ("_given",)

    _given: dict[str, Any] | None  # the arguments of `trace_component()`, for a decorated function

    async def __aenter__(self) -> ComponentTraceContext:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def __enter__(self) -> ComponentTraceContext:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def _enter(self) -> ComponentTraceContext:
        return self

    def end(self) -> None:
        return None

    @property
    def trace(self) -> TraceContext:
        return self._recorder._unrecorded_run()

    @property
    def span_id(self) -> str:
        return ""

    @property
    def parent_id(self) -> str:
        return ""

    @property
    def trace_id(self) -> str:
        return ""
