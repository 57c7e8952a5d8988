"""The test kit: for asynctrace's own tests and for those of programs that trace.

    capture_spans, the fixture `spans`   a tracer for one test, and what it recorded
    assert_tree, tree_text               a trace as a picture
    assert_no_span_left_open, assert_no_context_leaked
    ManualClock, SeededIds               time and ids without chance: Tracer(clock=…, ids=…)
    FaultServer and its faults           an OTLP endpoint that misbehaves on request

Each part loads when it is first used, so the kit costs nothing that a test does not need (aiohttp, for
example).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._capture import CapturedSpans, capture_spans
    from ._checks import assert_no_context_leaked, assert_no_span_left_open
    from ._clock import ManualClock
    from ._faults import (
        Accept,
        AcceptThenReset,
        Delay,
        Exchange,
        Fault,
        FaultServer,
        Garbage,
        HalfClose,
        Hang,
        OutOfOrder,
        PartialSuccess,
        ReceivedRequest,
        Redirect,
        RejectWhen,
        ResetBeforeResponse,
        ResetMidBody,
        StallMidBody,
        Status,
        TooLargeOver,
        Truncated,
    )
    from ._ids import SeededIds
    from ._trees import assert_tree, tree_text

__all__ = [
    # recording
    "CapturedSpans",
    "capture_spans",
    # checking
    "assert_tree",
    "tree_text",
    "assert_no_context_leaked",
    "assert_no_span_left_open",
    # time and ids
    "ManualClock",
    "SeededIds",
    # the endpoint
    "FaultServer",
    "ReceivedRequest",
    "Exchange",
    "Fault",
    "Accept",
    "PartialSuccess",
    "RejectWhen",
    "TooLargeOver",
    "Status",
    "Redirect",
    "Garbage",
    "Delay",
    "Hang",
    "OutOfOrder",
    "ResetBeforeResponse",
    "AcceptThenReset",
    "HalfClose",
    "ResetMidBody",
    "StallMidBody",
    "Truncated",
]

_MODULES = {
    "CapturedSpans": "_capture",
    "capture_spans": "_capture",
    "assert_tree": "_trees",
    "tree_text": "_trees",
    "assert_no_context_leaked": "_checks",
    "assert_no_span_left_open": "_checks",
    "ManualClock": "_clock",
    "SeededIds": "_ids",
}
"""Where a name lives; every other one of `__all__` belongs to the endpoint."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES.get(name, '_faults')}")
    value: object = getattr(module, name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
