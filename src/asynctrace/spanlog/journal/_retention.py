"""What may stay in a folder of journals: nothing for ever, and not more bytes than were agreed.

Only what nobody holds is removed, and only after it was claimed: orphans, damaged journals, those put aside. Never a living
one, never one of a newer version, never one of another user. The oldest go first, by the last sign of life of their owner.

A journal takes its room beforehand, some MiB even for ten spans. Before any is removed for its size, the dead ones give
back what they never used: a program that dies as soon as it starts, again and again, leaves many small journals.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from ._directory import (
    QUARANTINE,
    JournalDirectory,
    JournalEntry,
    JournalState,
    claim,
    is_own_directory,
    list_journals,
    make_away_with,
    measure,
    take,
)
from ._files import dig_holes
from ._format import LOCK_FILE
from ._lock import Lock

__all__ = ["Removed", "remove_expired", "sweep"]

_REMOVABLE = frozenset({JournalState.ORPHAN, JournalState.DAMAGED, JournalState.QUARANTINED})

_SWEEP_AFTER_NS = 60 * 10**9
"""No creation takes a minute. A leftover that is held is spared however old it is."""


class Removed(NamedTuple):
    """A journal that was not delivered and is gone."""

    path: Path
    records: int | None
    """Records that went with it; None when nobody could count them."""
    size: int
    expired: bool
    """By age; else because the folder held too many bytes."""


def remove_expired(
    folder: Path,
    now_ns: int,
    max_age: float,
    max_bytes: int,
    *,
    count: Callable[[JournalDirectory], int] | None = None,
) -> list[Removed]:
    """Remove what is older than `max_age` seconds, then the oldest until `max_bytes` are kept; sweep leftovers too.

    Living journals count among the bytes. `count` tells how many undelivered records a claimed journal holds, before
    it goes. Nothing happens while another process does the same. Raises what `count` raises, and `OSError` when a
    journal cannot be deleted; each is released then.
    """
    try:
        turn = Lock(folder, write=False)
    except OSError:
        return []
    try:
        # One process at a time: what one is about to remove, another would count among the living.
        return _remove_down_to(folder, now_ns, max_age, max_bytes, count) if turn.take() else []
    finally:
        turn.release()


def _remove_down_to(
    folder: Path, now_ns: int, max_age: float, max_bytes: int, count: Callable[[JournalDirectory], int] | None
) -> list[Removed]:
    sweep(folder, now_ns)
    entries = list_journals(folder)
    excess = sum(entry.size for entry in entries) - max_bytes
    dead = sorted((entry for entry in entries if entry.state in _REMOVABLE), key=lambda entry: entry.modified_ns)
    removed: list[Removed] = []
    for index, entry in enumerate(dead):
        if excess > 0:
            smaller = _give_back_unused(entry)
            excess -= entry.size - smaller.size
            dead[index] = smaller
    for entry in dead:
        expired = now_ns - entry.modified_ns > max_age * 1e9
        if not expired and excess <= 0:
            break  # the next ones are younger still
        gone = _remove(entry, count)
        if gone is not None:
            removed.append(gone._replace(expired=expired))
        if gone is not None or not os.path.lexists(entry.path):
            excess -= entry.size
        elif not expired:
            break  # somebody has it just now; the next one is not the oldest
    return removed


def _give_back_unused(entry: JournalEntry) -> JournalEntry:
    """The entry as it is then; as it was where somebody has it, or the file system cannot do it."""
    directory = claim(entry.path)
    if directory is None:
        return entry
    try:
        for name in filter(_is_never_stored_into, directory.names()):
            descriptor = directory.existing(name, write=True)
            try:
                dig_holes(descriptor)
            finally:
                os.close(descriptor)
        return msgspec.structs.replace(entry, size=measure(entry.path)[0])
    except OSError:
        return entry
    finally:
        directory.release()


def _is_never_stored_into(name: str) -> bool:
    """Whoever recovers a journal stores into the files of its lanes, and clears slots of open spans that were taken."""
    return name.endswith((".seg", ".slab"))


def _remove(entry: JournalEntry, count: Callable[[JournalDirectory], int] | None) -> Removed | None:
    """None when somebody else has it, or removed it."""
    gone = Removed(entry.path, None, entry.size, expired=False)
    directory = claim(entry.path)
    if directory is None:
        is_broken = entry.meta is None or not os.path.lexists(entry.path / LOCK_FILE)
        return gone if is_broken and _remove_unread(entry.path) else None
    try:
        records = count(directory) if count is not None else None
        directory.remove()
    finally:
        directory.release()
    return gone._replace(records=records)


def _remove_unread(path: Path) -> bool:
    """A journal without a `meta` that can be read, perhaps without a lock."""
    lock = take(path, anew=True)
    if lock is None:
        return False
    try:
        make_away_with(path)
    finally:
        lock.release()
    return True


def sweep(folder: Path, now_ns: int) -> None:
    """Remove what processes left that died while they created or removed a journal."""
    for path in _leftovers(folder):
        _sweep_one(path, now_ns)


def _leftovers(folder: Path) -> Iterator[Path]:
    for place in (folder, folder / QUARANTINE):
        for name in _names(place):
            if name.startswith(".") and name.endswith((".new", ".gone")):
                yield place / name


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _sweep_one(path: Path, now_ns: int) -> None:
    try:
        status = os.stat(path, follow_symlinks=False)
        if not is_own_directory(status) or now_ns - status.st_mtime_ns < _SWEEP_AFTER_NS:
            return
        if os.path.lexists(path / LOCK_FILE):
            _sweep_if_free(path)
        else:
            make_away_with(path)  # renamed first: a creator that slept all the while fails, and begins anew
    except OSError:
        return  # it stays for the next sweep


def _sweep_if_free(path: Path) -> None:
    lock = take(path)
    if lock is None:
        return
    try:
        make_away_with(path)
    finally:
        lock.release()
