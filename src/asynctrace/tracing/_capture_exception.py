"""An exception as three texts: class, message, stack trace.

Frames and source lines come from the `traceback` module, without local variables. Causes, contexts and
groups are followed here and not by `traceback.TracebackException`: from Python 3.12 on that one looks for
similar names with `dir()` and `hasattr()` on the objects involved, which runs their code, and it follows
chains without bound.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from types import FrameType, TracebackType
from typing import Any

from ._capture_types import instance_dict, type_name

__all__ = ["exception_message", "exception_type", "stack_trace"]

_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"

_MOST_LINKED = 32
_MOST_IN_GROUP = 15
_MOST_FRAMES = 64
_MOST_WALKED = 20_000
_LONGEST_MESSAGE = 4096

_cause: Callable[[BaseException], BaseException | None] = BaseException.__dict__["__cause__"].__get__
_context: Callable[[BaseException], BaseException | None] = BaseException.__dict__["__context__"].__get__
_silent: Callable[[BaseException], bool] = BaseException.__dict__["__suppress_context__"].__get__
_traceback: Callable[[BaseException], TracebackType | None] = BaseException.__dict__["__traceback__"].__get__
_members: Callable[[Any], tuple[BaseException, ...]] = BaseExceptionGroup.__dict__["exceptions"].__get__


def exception_type(error: BaseException) -> str:
    """`module.QualName`, without the module for builtins (OTel semantic conventions, `exception.type`)."""
    return type_name(type(error)).removeprefix("builtins.")


def exception_message(error: BaseException) -> str:
    """`str(error)` as an exact str; a marker when its `__str__` fails or returns something else."""
    try:
        return str.__str__(str(error))
    except Exception as failure:  # noqa: BLE001 - the exception's own code
        return f"[asynctrace: __str__ failed: {type_name(type(failure))}]"


def stack_trace(error: BaseException) -> str:
    """The text a terminal would show: oldest cause first, groups indented."""
    return "".join(_chain(error, set()))


def _chain(error: BaseException, seen: set[int]) -> Iterator[str]:
    linked = [(error, "")]
    seen.add(id(error))
    while len(seen) < _MOST_LINKED:
        previous, joint = _previous(linked[-1][0])
        if previous is None or id(previous) in seen:
            break
        seen.add(id(previous))
        linked[-1] = (linked[-1][0], joint)
        linked.append((previous, ""))
    else:
        yield "[asynctrace: further linked exceptions left out]\n"
    for one, joint in reversed(linked):
        yield joint
        yield from _one(one, seen)


def _previous(error: BaseException) -> tuple[BaseException | None, str]:
    cause = _cause(error)
    if cause is not None:
        return cause, _CAUSE
    return (None, "") if _silent(error) else (_context(error), _CONTEXT)


def _one(error: BaseException, seen: set[int]) -> Iterator[str]:
    frames = _traceback(error)
    if frames is not None:
        yield "Traceback (most recent call last):\n"
        yield from _frames(frames)
    message = exception_message(error)[:_LONGEST_MESSAGE]
    yield f"{exception_type(error)}: {message}\n" if message else f"{exception_type(error)}\n"
    yield from _notes(error)
    if issubclass(type(error), BaseExceptionGroup):
        yield from _group(_members(error), seen)


def _frames(start: TracebackType) -> Iterator[str]:
    total = 0

    def walked() -> Iterator[tuple[FrameType, int]]:
        nonlocal total
        for pair in islice(traceback.walk_tb(start), _MOST_WALKED):
            total += 1
            yield pair

    innermost = deque(walked(), _MOST_FRAMES)
    if total > _MOST_FRAMES:
        yield f"  [asynctrace: {total - _MOST_FRAMES} outer frames left out]\n"
    yield from traceback.StackSummary.extract(iter(innermost)).format()


def _notes(error: BaseException) -> Iterator[str]:
    notes = (instance_dict(error) or {}).get("__notes__")
    if type(notes) is list:
        for note in islice(notes, _MOST_IN_GROUP):
            if type(note) is str:
                yield f"{note[:_LONGEST_MESSAGE]}\n"


def _group(members: tuple[BaseException, ...], seen: set[int]) -> Iterator[str]:
    for number, member in enumerate(members[:_MOST_IN_GROUP], 1):
        if id(member) in seen or len(seen) >= _MOST_LINKED:
            continue
        yield f"  +---------------- {number} ----------------\n"
        for text in _chain(member, seen):
            yield "".join(f"  | {line}" for line in text.splitlines(keepends=True))
    if len(members) > _MOST_IN_GROUP:
        yield f"  [asynctrace: {len(members) - _MOST_IN_GROUP} further members left out]\n"
