"""A journal of a dead process, from its claim to the moment in which it is let go of."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ._journal import boot_id

if TYPE_CHECKING:
    from ..spanlog.journal import JournalDirectory, OrphanLog

__all__ = ["Claimed"]

MOST_DEATHS: Final = 3


class Claimed:
    """A journal that is claimed and read in a thread. When nobody waits for that any more, the thread lets go of it.

    Only the end of the process while it reads is a death over the journal: an error is none, and to be left is none.
    """

    def __init__(self, path: Path) -> None:
        self.orphan: OrphanLog | None = None
        """None where another process has it, and where it `is_deadly`."""
        self._path = path
        self._directory: JournalDirectory | None = None
        self._turn = threading.Lock()
        self._is_over = self._is_left = False

    def read(self) -> None:
        """Blocks. Raises what `OrphanLog.open()` raises, and `OSError`."""
        from ..spanlog.journal import claim

        try:
            self._directory = directory = claim(self._path)
            if directory is not None and not self.is_deadly:
                self._open(directory)
        finally:
            with self._turn:
                self._is_over = True
                if self._is_left:
                    self._release()

    def _open(self, directory: JournalDirectory) -> None:
        from ..spanlog.journal import OrphanLog

        with self._turn:
            if self._is_left:
                return
            directory.note_death_begins()
        try:
            self.orphan = OrphanLog.open(directory, boot_id=boot_id())
        except BaseException:
            directory.note_nobody_died()
            raise
        directory.note_survived()

    @property
    def is_deadly(self) -> bool:
        """It was claimed, and too many died over it."""
        return self._directory is not None and self._directory.deaths >= MOST_DEATHS

    def quarantine(self) -> Path | None:
        """Put it aside, if it was claimed. Returns where it is now. Raises `OSError`."""
        from ..spanlog.journal import quarantine

        directory = self._directory
        return None if directory is None else quarantine(directory, f"{directory.deaths} processes died over it")

    def remove(self) -> None:
        """It is delivered, if it was claimed. Raises `OSError`."""
        self._close()
        if self._directory is not None:
            self._directory.remove()

    def let_go(self) -> None:
        """Leave it to whoever claims it next; while it is read, once that is over. Idempotent."""
        with self._turn:
            self._is_left = True
            if self._is_over:
                self._release()
            elif self._directory is not None:
                with suppress(OSError):  # what cannot be written counts as a death
                    self._directory.note_nobody_died()

    def _release(self) -> None:
        self._close()
        if self._directory is not None:
            self._directory.release()

    def _close(self) -> None:
        orphan, self.orphan = self.orphan, None
        if orphan is not None:
            orphan.close()
