"""The journals of the processes that were made from one process, and from those, and what they still hold.

    alive    its lock is held, and nobody ever claimed it    holds what has ended and some lane has not settled
    dead     all others                                      hold something until somebody has recovered them; then gone

Looking claims nothing and changes nothing. A journal whose `meta` cannot be read is nobody's descendant.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import msgspec

from ..._errors import JournalError
from ._directory import is_held, is_own_directory, journal_paths, read_meta, was_claimed
from ._format import JournalMeta, ancestors_of
from ._look import JournalLook

__all__ = ["Descendants", "Held"]


class Held(msgspec.Struct, frozen=True):
    """A journal that holds something, at the moment of looking."""

    is_dead: bool
    """It is to be recovered, or somebody is at it."""
    appended: int = 0
    """Of a living one: the number after the last record."""
    settled: int = 0
    """Of a living one: every lane is past the records below."""


class Descendants:
    """Of the process whose journal has the id `journal_id`; all journals of the service lie in `folder`."""

    def __init__(self, folder: Path, journal_id: str, *, boot_id: str) -> None:
        self._folder = folder
        self._journal_id = journal_id
        self._boot_id = boot_id
        self._others: set[Path] = set()
        """Journals that are no descendants, and never will be: what `meta` says does not change."""

    def look(self) -> Mapping[Path, Held]:
        """Those that hold something. Never raises; reads files, some milliseconds for each living one."""
        paths = journal_paths(self._folder)
        self._others.intersection_update(paths)
        found = {path: self._look_at(path) for path in paths if path not in self._others}
        return {path: held for path, held in found.items() if held is not None}

    def _look_at(self, path: Path) -> Held | None:
        try:
            if not is_own_directory(os.stat(path, follow_symlinks=False)):
                return None
            meta = read_meta(path)
            if self._journal_id not in ancestors_of(meta):
                self._others.add(path)
                return None
            is_alive = is_held(path) and not was_claimed(path)
        except (JournalError, OSError):
            return None
        held = self._look_at_living(path, meta) if is_alive else Held(is_dead=True)
        if is_alive and was_claimed(path):  # its owner was dead, and who holds the lock had yet to say so
            held = Held(is_dead=True)
        return held if os.path.lexists(path) else None  # it may have been removed while we looked

    def _look_at_living(self, path: Path, meta: JournalMeta) -> Held | None:
        try:
            with closing(JournalLook(path, meta, boot_id=self._boot_id)) as look:
                held = Held(is_dead=False, appended=look.appended, settled=look.settled)
        except (JournalError, OSError):
            return None
        return held if held.settled < held.appended else None
