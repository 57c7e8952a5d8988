"""The lock of a journal: an exclusive flock on the file `lock` of its directory, for as long as its owner lives.

- The kernel drops an flock when the last descriptor of the *open file description* is closed: at once when the owner is
  killed, but not while a forked child keeps its copy. So every descriptor is known here, and a child closes them all.
- Unlocking is for the whole description, a child's copies included. So an owner that is done unlocks before it closes,
  and a child only closes: unlocking there would lay the parent's journal open.
- Two opens of one file are two descriptions, also in one process: two tracers never hold the same journal.
- What was locked may not be what the path leads to by now: whoever takes a lock asks `leads_here()` after that.
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import suppress
from pathlib import Path

from ._files import NO_DESCRIPTOR, give_back

__all__ = ["Lock", "after_fork_in_child", "after_fork_in_parent", "before_fork"]

_guard = threading.RLock()  # reentrant: a signal handler may fork
_held: set[Lock] = set()


class Lock:
    """One open description of a `lock` file. A process may have several of the same file; they exclude each other."""

    __slots__ = ("_descriptor",)

    def __init__(self, path: Path, *, create: bool = False, write: bool = True) -> None:
        """Raises `OSError`. Only opens: nothing is locked yet."""
        flags = os.O_RDWR if write else os.O_RDONLY
        flags |= os.O_CREAT | os.O_EXCL if create else 0
        self._descriptor = NO_DESCRIPTOR
        try:
            with _guard:  # no fork between the descriptor and its place in the list
                _held.add(self)
                self._descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except BaseException:
            self.forget()
            raise

    @property
    def is_open(self) -> bool:
        return self._descriptor != NO_DESCRIPTOR

    def take(self) -> bool:
        """Lock for this description alone; False when another one has it in whatever way."""
        return self._flock(fcntl.LOCK_EX)

    def look(self) -> bool:
        """Lock beside others that only look; False when somebody has taken it. Lookers do not disturb each other."""
        return self._flock(fcntl.LOCK_SH)

    def _flock(self, kind: int) -> bool:
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def status(self) -> os.stat_result:
        return os.fstat(self._descriptor)

    def leads_here(self, path: Path) -> bool:
        """Whether `path` is, at this moment, the file that is open here."""
        if not self.is_open:
            return False
        try:
            return os.path.samestat(os.stat(path, follow_symlinks=False), self.status())
        except OSError:  # nothing is there, or other code closed our descriptor, and the lock is lost with it
            return False

    def touch(self, now_ns: int) -> None:
        os.utime(self._descriptor, ns=(now_ns, now_ns))

    def release(self) -> None:
        """Unlock and close. A copy of the descriptor in a forked child locks nothing any more."""
        with _guard:
            descriptor = self._give_up()
            if descriptor != NO_DESCRIPTOR:
                with suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
                give_back(descriptor)

    def forget(self) -> None:
        """Close this process's descriptor and leave the lock to those who have a copy of it."""
        give_back(self._give_up())

    def _give_up(self) -> int:
        descriptor, self._descriptor = self._descriptor, NO_DESCRIPTOR
        _held.discard(self)
        return descriptor


def before_fork() -> None:
    """To be called before each fork, after every other lock was taken: no lock is half open while the process is copied."""
    _guard.acquire()


def after_fork_in_parent() -> None:
    """The counterpart of `before_fork()`."""
    _guard.release()


def after_fork_in_child() -> None:
    """Close the child's copies of all locks of the parent, also of those that another thread was looking at."""
    global _guard
    _guard = threading.RLock()
    for lock in list(_held):
        lock.forget()
