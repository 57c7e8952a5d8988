"""How long a test waits for what happens at once on a quiet machine.

A deadline that ends a hanging test says nothing about speed, so it is long: the machine has other work. A test that shows
that a check notices waits for a deadline to pass, so there it is short.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["no_patience", "patient"]

_factor = 8.0


def patient(seconds: float) -> float:
    """The deadline for something that takes a part of `seconds` on a quiet machine."""
    return _factor * seconds


@contextmanager
def no_patience() -> Iterator[None]:
    """For what is expected not to happen."""
    global _factor
    before, _factor = _factor, 1.0
    try:
        yield
    finally:
        _factor = before
