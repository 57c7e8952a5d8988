"""How a component ended: from an exception to an `Ending`, and from an `Ending` to the last bytes of its span.

    return, SystemExit(0)              ok           status OK
    asyncio.CancelledError,
    KeyboardInterrupt                  cancelled    status unset
    TimeoutError                       timeout      status ERROR, exception event
    GeneratorExit                      abandoned    status unset
    any other exception                error        status ERROR, exception event

An exception group ends `cancelled` or `timeout` when all its leaves do. A component *inside* `asyncio.timeout()` is
cancelled by it; one *around* it meets the `TimeoutError`.
"""

from __future__ import annotations

from .._contracts import Ending, StatusCode
from ..wire import encode_attribute, encode_status

__all__ = ["ENDING_ATTRIBUTE", "STATUS_OF", "TAILS", "classify", "ending_attribute"]

ENDING_ATTRIBUTE = "asynctrace.ending"

STATUS_OF: dict[Ending, StatusCode] = {
    Ending.OK: StatusCode.OK,
    Ending.ERROR: StatusCode.ERROR,
    Ending.CANCELLED: StatusCode.UNSET,
    Ending.TIMEOUT: StatusCode.ERROR,
    Ending.ABANDONED: StatusCode.UNSET,
    Ending.INCOMPLETE: StatusCode.UNSET,
    Ending.LOST: StatusCode.ERROR,
}


def ending_attribute(ending: Ending) -> bytes:
    """The encoded attribute `asynctrace.ending`."""
    return encode_attribute(b"\x4a", ENDING_ATTRIBUTE, ending.value)


TAILS: dict[Ending, bytes] = {
    ending: ending_attribute(ending) + encode_status(STATUS_OF[ending], "") for ending in Ending
}
"""For each ending, the last bytes of a span that has nothing more to say."""


def classify(exc: BaseException, cancelled_types: tuple[type[BaseException], ...]) -> Ending:
    """The ending of a component left by `exc`. `cancelled_types` is what the event loop cancels with."""
    if isinstance(exc, BaseExceptionGroup):
        return _classify_group(exc, cancelled_types)
    if isinstance(exc, (*cancelled_types, KeyboardInterrupt)):
        return Ending.CANCELLED
    if isinstance(exc, TimeoutError):
        return Ending.TIMEOUT
    if isinstance(exc, GeneratorExit):
        return Ending.ABANDONED
    if isinstance(exc, SystemExit) and not exc.code:
        return Ending.OK
    return Ending.ERROR


def _classify_group(
    group: BaseExceptionGroup[BaseException], cancelled_types: tuple[type[BaseException], ...]
) -> Ending:
    endings = set()
    waiting: list[BaseException] = [group]
    while waiting:
        exc = waiting.pop()
        if isinstance(exc, BaseExceptionGroup):
            waiting.extend(exc.exceptions)
        else:
            endings.add(classify(exc, cancelled_types))
    return endings.pop() if len(endings) == 1 else Ending.ERROR
