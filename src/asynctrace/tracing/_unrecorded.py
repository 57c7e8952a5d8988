"""Components that are not recorded: the same face, no bytes, next to no cost.

`Unrecorded` is the root of a trace that was sampled out (or a component in a suppressed region): it is current while it
is entered, so that what happens inside is not recorded either. `Nothing` is one object for each shape, handed out
where everything around is known not to be recorded; it touches no context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from .._contracts import Ending, Link, StatusCode
from ._component import ENDED, ComponentTraceContext

if TYPE_CHECKING:
    from ._run import TraceContext

__all__ = ["Nothing", "Unrecorded"]


S = TypeVar("S")


class Unrecorded(ComponentTraceContext):
    """A component becomes one on entry, by a change of class, when its trace is not recorded."""

    __slots__ = ()

    def _leave(self, exc: BaseException | None) -> bytes | None:
        self._step_out()
        self._state = ENDED
        return None

    def _not_open(self) -> None:
        """`async with` looks `__aexit__` up before the class changes, so the recorded one's ends here."""
        self._state = ENDED

    @property
    def is_recording(self) -> bool:
        return False

    def _end(self, ending: Ending, end_ns: int | None = None) -> bytes | None:
        self._state = ENDED
        return None

    def set_name(self, name: str) -> None:
        return None

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

    def _is_late(self, call: str) -> bool:
        return True  # and nothing to count

    def _add_event(self, name: str, fields: Mapping[str, object], time_ns: int | None = None) -> None:
        return None

    def stream(self, source: S, *, text: Callable[[Any], str | None] | None = None) -> S:
        return source

    def _took(self, chunk: object, text: Callable[[Any], str | None] | None = None) -> None:
        return None

    def _add_link(self, link: TraceContext | ComponentTraceContext | Link) -> None:
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

    def _exit_as(self, ending: Ending) -> None:
        return None

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
