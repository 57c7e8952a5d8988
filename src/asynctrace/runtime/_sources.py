"""Real clocks and real randomness, behind the seams of `_contracts.py`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import repeat, starmap

__all__ = ["RandomIds", "SystemClock"]


class SystemClock:
    """The machine's clocks. Bound as they are: a method around them would double their cost."""

    time_ns: Callable[[], int] = staticmethod(time.time_ns)
    monotonic_ns: Callable[[], int] = staticmethod(time.monotonic_ns)


class RandomIds:
    """Ids from a generator seeded by the operating system. `os.urandom` for each id costs ten times as much."""

    def __init__(self) -> None:
        self._random = random.Random()
        bits = self._random.getrandbits
        # One call into C for each span id; atomic, so threads need no lock.
        numbers = filter(None, map(bits, repeat(64)))
        self.span_id: Callable[[], bytes] = starmap(int.to_bytes, zip(numbers, repeat(8), repeat("big"))).__next__

    def trace_id(self) -> bytes:
        """16 bytes, not all zero."""
        return (self._random.getrandbits(128) or 1).to_bytes(16, "big")
