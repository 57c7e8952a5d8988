"""Interrupt the span log at every single instant, one after the other, instead of hoping for a lucky signal.

`every_instant(scenario, action, …)` runs `scenario` again and again; in run k the k-th instant inside the span log calls
`action`. Three kinds of instants:

- `"opcode"`: before each bytecode. More than CPython promises to any code, and what a log with a lock can bear.
- `"signal"`: only where CPython looks for signals: on entry to a function, after a call of a C function, and at the
  backward jump of a loop. What a signal handler raises comes out there, and nowhere else. Other threads come in there, too.
- `"collection"`: the same, and wherever the collector may run a finaliser. From 3.12 on that is where it looks for signals;
  on 3.11 it is also where an object is made that can be part of a cycle.

Up to 3.11 bytecodes are seen by `sys.settrace`. From 3.12 on that leaves out functions which were never traced before, so
there it is `sys.monitoring`; `test_instants_see_everything.py` counts.
"""

from __future__ import annotations

import contextlib
import dis
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Literal

from asynctrace.spanlog import _log, _segment

Kind = Literal["opcode", "signal", "collection"]

_FILES = {_log.__file__, _segment.__file__, str(Path(__file__).with_name("faulty.py"))}


def _opcodes(*beginnings: str) -> set[int]:
    return {number for name, number in dis.opmap.items() if name.startswith(beginnings)}


_CHECKS_FOR_SIGNALS = _opcodes("CALL", "JUMP_BACKWARD") - _opcodes("JUMP_BACKWARD_NO_INTERRUPT")
_MAKES_OBJECTS = _opcodes("BUILD", "BINARY_SUBSCR", "STORE_SUBSCR", "DELETE_SUBSCR", "MAKE", "LIST", "GET", "FOR_ITER")
_COLLECTS_AT_ONCE = sys.version_info < (3, 12)
_TOOL = 4
"""One that neither debuggers nor coverage take."""

_names: dict[CodeType, bytes] = {}


class _Watch:
    """Counts instants of one thread, and calls `action` at that with the number `wanted`."""

    def __init__(self, kind: Kind, wanted: int, action: Callable[[], object], files: set[str]) -> None:
        self._sees_all = kind == "opcode"
        self._sees_objects = kind == "collection" and _COLLECTS_AT_ONCE
        self._wanted = wanted
        self._action = action
        self._files = files
        self._thread = threading.get_ident()
        self._after_call: dict[FrameType, bool] = {}
        self.seen = 0
        self.where = ""

    def is_ours(self, code: CodeType) -> bool:
        return code.co_filename in self._files and threading.get_ident() == self._thread

    def called_from(self, back: FrameType | None) -> None:
        """What `back` has called is Python code, which looks for signals on its own entry."""
        if back in self._after_call:
            self._after_call[back] = False

    def enter(self, frame: FrameType) -> None:
        self._after_call[frame] = False
        if not self._sees_all:
            self._instant(frame, frame.f_lasti)

    def leave(self, frame: FrameType) -> None:
        self._after_call.pop(frame, None)

    def bytecode(self, frame: FrameType, at: int) -> None:
        code = _names.get(frame.f_code)
        if code is None:
            code = _names[frame.f_code] = frame.f_code.co_code
        opcode = code[at]
        if self._sees_all or self._after_call.get(frame) or (self._sees_objects and opcode in _MAKES_OBJECTS):
            self._instant(frame, at)
        self._after_call[frame] = opcode in _CHECKS_FOR_SIGNALS

    def _instant(self, frame: FrameType, at: int) -> None:
        self.seen += 1
        if self.seen == self._wanted:
            self.where = f"{frame.f_code.co_name}:{frame.f_lineno} (instant {self._wanted}, byte {at})"
            _see_no_more()
            self._action()


class _Tracing:
    """Up to 3.11."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        self._watch.called_from(frame.f_back)
        if not self._watch.is_ours(frame.f_code):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        self._watch.enter(frame)
        return self._local

    def _local(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "return":
            self._watch.leave(frame)
        elif event == "opcode":
            self._watch.bytecode(frame, frame.f_lasti)
        return self._local


class _Monitoring:
    """From 3.12 on."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch

    def callbacks(self) -> dict[int, Callable[..., object]]:
        events = sys.monitoring.events
        return {
            events.PY_START: self._enter,
            events.PY_RESUME: self._enter,
            events.INSTRUCTION: self._bytecode,
            events.PY_RETURN: self._leave,
            events.PY_YIELD: self._leave,
            events.PY_UNWIND: self._leave,
        }

    def _enter(self, code: CodeType, at: int) -> None:
        frame = sys._getframe(1)
        self._watch.called_from(frame.f_back)
        if self._watch.is_ours(code):
            self._watch.enter(frame)

    def _leave(self, code: CodeType, at: int, *more: object) -> None:
        if self._watch.is_ours(code):
            self._watch.leave(sys._getframe(1))

    def _bytecode(self, code: CodeType, at: int) -> None:
        if self._watch.is_ours(code):
            self._watch.bytecode(sys._getframe(1), at)


def _see_no_more() -> None:
    if sys.version_info < (3, 12):
        sys.settrace(None)
    else:
        sys.monitoring.set_events(_TOOL, 0)


@contextlib.contextmanager
def _watched(watch: _Watch) -> Iterator[None]:
    if sys.version_info < (3, 12):
        before = sys.gettrace()
        sys.settrace(_Tracing(watch))
        try:
            yield
        finally:
            sys.settrace(before)
        return
    monitoring = sys.monitoring
    monitoring.use_tool_id(_TOOL, "asynctrace instants")
    callbacks = _Monitoring(watch).callbacks()
    try:
        for event, callback in callbacks.items():
            monitoring.register_callback(_TOOL, event, callback)
        monitoring.set_events(_TOOL, sum(callbacks))
        yield
    finally:
        monitoring.set_events(_TOOL, 0)
        for event in callbacks:
            monitoring.register_callback(_TOOL, event, None)
        monitoring.free_tool_id(_TOOL)


def every_instant(
    scenario: Callable[[], Callable[[], object]],
    action: Callable[[], object],
    kind: Kind,
    files: set[str] = _FILES,
    step: int = 1,
) -> Iterator[tuple[str, BaseException | None]]:
    """`scenario()` prepares and returns what is to be interrupted. Yields, after each run, where it was interrupted
    and what came out of it."""
    wanted = 1
    while True:
        run = scenario()
        watch = _Watch(kind, wanted, action, files)
        raised: BaseException | None = None
        gc.disable()
        try:
            with _watched(watch):
                run()
        except BaseException as error:
            raised = error
        finally:
            gc.enable()
        if watch.seen < wanted:
            return
        yield watch.where, raised
        wanted += step
