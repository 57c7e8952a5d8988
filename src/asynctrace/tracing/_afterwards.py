"""What goes on in a run after its root span has ended: work behind a response whose span ended with its last byte.

    root OPEN ── end ──▶ ENDED
                 └──▶ Afterwards, WAITING ── its first child, log, … ──▶ OPEN ── close() ──▶ ENDED
                                          └── nothing happened ──────▶ gone, without a record

A run knows its root span, and every task that it is current in asks the run. So what takes the root's place there is the
parent of all that comes, and no task's context is touched. A task that goes on when even this is over finds the root again:
its spans are children of a span that has ended, and keep that parent.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from .._contracts import Ending, SpanKind
from ._component import ENDED, OPEN, ComponentTraceContext

if TYPE_CHECKING:
    from ._extras import Extras
    from ._run import TraceContext

__all__ = ["AFTERWARDS", "Afterwards", "go_on_without_root"]

AFTERWARDS = "background"
"""The name of such a span."""

WAITING: Final = 4
"""A state of its own: it has begun, and nothing has happened in it."""

_opening = threading.Lock()


class Afterwards(ComponentTraceContext):
    """Stands at the root of its run. Nothing of it is noted, counted or stored unless something happens in it."""

    __slots__ = ()

    def _happen(self) -> None:
        """Open it, from when the root ended."""
        with _opening:  # two threads may have its first child at once
            if self._state != WAITING:
                return
            recorder, root = self._recorder, self._parent
            self._head = b"" if root is None else root._child_head or root._make_child_head()
            recorder._open_span(self)
            if recorder._slab is not None:
                self._note_open()

    def _make_child_head(self) -> bytes:
        self._happen()
        return super()._make_child_head()

    def _extend(self) -> Extras:
        self._happen()
        return super()._extend()

    @property
    def span_id(self) -> str:
        """The root's, as long as nothing has happened."""
        return self._parent.span_id if self._state == WAITING and self._parent is not None else super().span_id

    @property
    def _trace_id(self) -> bytes:
        return b"" if self._parent is None else self._parent._trace_id

    def close(self, error: BaseException | None, least_ns: int) -> bytes | None:
        """End it, by `error` where there was one; its record. None where nothing happened and it took less than `least_ns`.
        The run has its root back."""
        run, root = self._run, self._parent
        if run is not None and root is not None:
            run._root = root
        if self._state == WAITING:
            if error is None and not self._attributes and self._recorder._monotonic_ns() - self._start < least_ns:
                self._state = ENDED
                return None
            self._happen()
        if self._state != OPEN:  # cut by a shutdown
            return None
        record = self._end(Ending.OK) if error is None else self._end_by(error)
        self._run = None
        return record


def go_on_without_root(run: TraceContext, root: ComponentTraceContext) -> Afterwards:
    """The root's span ends here, or has ended: from now on what comes in `run` is something else."""
    recorder = root._recorder
    after: Afterwards = recorder._blank(Afterwards, recorder._shape_of(AFTERWARDS, None, SpanKind.INTERNAL))
    after._parent, after._run, after._restore = root, run, None
    after._offset = root._offset
    after._start = recorder._monotonic_ns()
    after._place = -1
    after._state = WAITING
    run._root = after
    return after
