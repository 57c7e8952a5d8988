"""Interrupt the span log at every single instant, one after the other, instead of hoping for a lucky signal.

`every_instant(scenario, action, …)` runs `scenario` again and again; in run k the k-th instant inside the span log calls
`action`. Two kinds of instants:

- `"opcode"`: before each bytecode. A finaliser can run at (nearly) all of them, and another thread may have run.
- `"signal"`: only where CPython looks for signals: on entry to a function, after a call of a C function, and at the
  backward jump of a loop. What a signal handler raises comes out there, and nowhere else.
"""

from __future__ import annotations

import dis
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Literal

from asynctrace.spanlog import _log, _segment

Kind = Literal["opcode", "signal"]

_FILES = {_log.__file__, _segment.__file__, str(Path(__file__).with_name("faulty.py"))}
_CHECKS_FOR_SIGNALS = {dis.opmap[name] for name in dis.opmap if name.startswith(("CALL", "JUMP_BACKWARD"))}
_names: dict[CodeType, bytes] = {}


class _Tracer:
    def __init__(self, kind: Kind, wanted: int, action: Callable[[], object], files: set[str]) -> None:
        self._is_signal = kind == "signal"
        self._wanted = wanted
        self._action = action
        self._files = files
        self._after_call: dict[FrameType, bool] = {}
        self.seen = 0
        self.where = ""

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        back = frame.f_back
        if back in self._after_call:
            self._after_call[back] = False  # what was called is Python code, which checks on its own entry
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        self._after_call[frame] = False
        if self._is_signal:
            self._instant(frame)
        return self._local

    def _local(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "return":
            self._after_call.pop(frame, None)
        elif event == "opcode":
            if not self._is_signal or self._after_call[frame]:
                self._instant(frame)
            code = _names.get(frame.f_code)
            if code is None:
                code = _names[frame.f_code] = frame.f_code.co_code
            self._after_call[frame] = code[frame.f_lasti] in _CHECKS_FOR_SIGNALS
        return self._local

    def _instant(self, frame: FrameType) -> None:
        self.seen += 1
        if self.seen == self._wanted:
            self.where = f"{frame.f_code.co_name}:{frame.f_lineno} (instant {self._wanted})"
            sys.settrace(None)
            self._action()


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
        tracer = _Tracer(kind, wanted, action, files)
        raised: BaseException | None = None
        gc.disable()
        before = sys.gettrace()
        sys.settrace(tracer)
        try:
            run()
        except BaseException as error:
            raised = error
        finally:
            sys.settrace(before)
            gc.enable()
        if tracer.seen < wanted:
            return
        yield tracer.where, raised
        wanted += step
