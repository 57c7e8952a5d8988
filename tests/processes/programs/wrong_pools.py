"""`pools.py` with one thing broken, named by the variable FAULT, here and in its workers."""

from __future__ import annotations

import os

import pools

from asynctrace import Tracer
from asynctrace.propagation import Carried
from asynctrace.tracing import TraceContext, _bind

_carried = TraceContext._carried


def without_a_session(self: TraceContext, span: object) -> Carried:
    self.session_id = None
    return _carried(self, span)  # type: ignore[arg-type]


def break_by(fault: str) -> None:
    if fault == "does not wait for delivery":
        Tracer._task_ended = lambda self: None  # type: ignore[method-assign]
    elif fault == "forgets the place":
        _bind.continue_from = lambda recorder, carrier: None  # type: ignore[assignment]
    elif fault == "forgets the session":
        TraceContext._carried = without_a_session  # type: ignore[method-assign]


break_by(os.environ["FAULT"])

if __name__ == "__main__":
    pools.main()
