"""An `IdSource` that gives the same ids in every run.

Ids are never zero (W3C Trace Context, sections 3.2.2.3 and 3.2.2.4) and one source gives none twice, from any
number of threads. The order in which threads ask is theirs, so only the *set* of ids is the same there.
"""

from __future__ import annotations

import random
import threading

__all__ = ["SeededIds"]

_TRACE_ID_BYTES = 16
_SPAN_ID_BYTES = 8


class SeededIds:
    """Implements `asynctrace.IdSource`. Equal seeds give equal sequences."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._given: set[bytes] = set()

    def trace_id(self) -> bytes:
        """16 bytes, not all zero."""
        return self._next(_TRACE_ID_BYTES)

    def span_id(self) -> bytes:
        """8 bytes, not all zero."""
        return self._next(_SPAN_ID_BYTES)

    def _next(self, size: int) -> bytes:
        with self._lock:
            candidate = self._random.randbytes(size)
            while candidate in self._given or not any(candidate):
                candidate = self._random.randbytes(size)
            self._given.add(candidate)
            return candidate

    def __repr__(self) -> str:
        return f"SeededIds(seed={self._seed})"
