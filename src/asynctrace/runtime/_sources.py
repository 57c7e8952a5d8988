"""Real clocks and real randomness, behind the seams of `_contracts.py`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from struct import Struct

__all__ = ["RandomIds", "SystemClock"]


_IDS_AT_ONCE = 1024


class SystemClock:
    """The machine's clocks. Bound as they are: a method around them would double their cost."""

    def __init__(self) -> None:
        self.time_ns = time.time_ns
        self.monotonic_ns = time.monotonic_ns


class RandomIds:
    """Ids from a generator seeded by the operating system. `os.urandom` for each id costs ten times as much."""

    is_random = True
    """All bits of a trace id are (W3C Trace Context Level 2, "Random Trace ID Flag")."""

    def __init__(self) -> None:
        self._random = random.Random()
        # A thousand ids are cut from one large random number. The chain is C from end to end, so it is atomic and takes
        # 30 ns an id, where getrandbits(64).to_bytes(8, "big") takes 70. All zero: once in 2**64, and harmless.
        numbers = map(self._random.getrandbits, repeat(64 * _IDS_AT_ONCE))
        chunks: Iterator[bytes] = map(int.to_bytes, numbers, repeat(8 * _IDS_AT_ONCE), repeat("big"))  # type: ignore[arg-type]
        self.span_id: Callable[[], bytes] = chain.from_iterable(
            map(Struct("8s" * _IDS_AT_ONCE).unpack, chunks)
        ).__next__

    def trace_id(self) -> bytes:
        """16 bytes, not all zero."""
        return (self._random.getrandbits(128) or 1).to_bytes(16, "big")
