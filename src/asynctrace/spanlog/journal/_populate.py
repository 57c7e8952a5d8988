"""Pages made present before somebody waits for them, and without holding the GIL.

Promises: the bytes of the mapping do not change; the calling thread does not hold the GIL meanwhile, or gives it away every
64 KiB; what cannot be populated is left for the first store to fault in, no exception is raised.

Why: the first store into a page of a file asks the file system for leave. On a busy ext4 that took up to 125 ms, and the
thread that stores holds the GIL meanwhile.
"""

from __future__ import annotations

import mmap
import select
import sys
from collections.abc import Callable
from functools import cache

# Here and not where it is used: threads come there, and a fork in the middle of an import leaves it half done in the child.
try:
    import ctypes
except ImportError:  # an interpreter that was built without libffi
    ctypes = None  # type: ignore[assignment]

__all__ = ["populate"]

_STEP = 64 * 1024
_PAGE = 4096
_MADV_POPULATE_WRITE = 23


def populate(memory: mmap.mmap, start: int, stop: int, *, in_use: bool = False) -> bool:
    """Make the pages of `memory` from byte `start` to `stop` present and writable; False where the kernel cannot.

    Where it cannot, the pages are touched instead, unless others store into them meanwhile (`in_use`): to touch is to read
    a byte and to store it again, which would undo a store in between.
    """
    start -= start % _PAGE
    stop = min(stop, len(memory))
    if start >= stop:
        return True
    done = _ask_kernel(memory, start, stop)
    if not done and not in_use:
        _touch(memory, start, stop)
    return done


def _ask_kernel(memory: mmap.mmap, start: int, stop: int) -> bool:
    madvise = _madvise()
    if madvise is None or ctypes is None:
        return False
    first = ctypes.c_char.from_buffer(memory, start)
    address = ctypes.addressof(first)
    try:
        # One call for all: each one more has to wait for the GIL, and in a busy program interrupts another thread for it.
        return madvise(address, stop - start, _MADV_POPULATE_WRITE) == 0
    finally:
        del first


@cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """`madvise(2)`, called without the GIL; `mmap.madvise` holds it, which stalled other threads for 90 to 800 ms."""
    if sys.platform != "linux" or ctypes is None:
        return None
    try:
        function = ctypes.CDLL(None).madvise
        function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        function.restype = ctypes.c_int
    except (OSError, AttributeError):
        return None
    return function


def _touch(memory: mmap.mmap, start: int, stop: int) -> None:
    for step in range(start, stop, _STEP):
        for at in range(step, min(step + _STEP, stop), _PAGE):
            memory[at] = memory[at]
        select.select((), (), (), 0)  # gives the GIL away
