"""A program closes a descriptor that is not its own: what is settled goes all the same, and the rest is left to the next."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from asynctrace.spanlog.journal import _lane_file, _mirror_files, _segment_file, _slab
from asynctrace.spanlog.journal._directory import JournalDirectory, JournalState, claim, list_journals
from asynctrace.spanlog.journal._journal import Journal
from asynctrace.spanlog.journal._log import JournalLog

from ..patience import patient
from .directories import make_meta
from .logs import fail
from .slabs import small_steps


def kept_open(journal: Journal, name: str) -> list[int]:
    """The descriptors of this process by which files of the journal with such a name are open: of each the oldest, the
    others are copies that mappings have."""
    found: dict[str, int] = {}
    for link in Path("/proc/self/fd").iterdir():
        where = os.readlink(link) if os.path.lexists(link) else ""
        if where.startswith(f"{journal.directory.path}/") and re.search(name, where):
            found[where] = min(int(link.name), found.get(where, 1 << 30))
    return sorted(found.values())


def may_tell(what: str, error: Exception) -> None:
    """What copies into a file, or holds a lock, may notice that it cannot any more, and say so."""


def begin(folder: Path, on_trouble: Callable[[str, Exception], None] = fail, *, is_mapped: bool = True) -> Journal:
    """A journal with three records."""
    log = JournalLog(capacity_bytes=1 << 22, on_ready=lambda: None)
    directory = JournalDirectory.create(folder, make_meta())
    journal = Journal(
        directory,
        ("otlp",),
        segment_bytes=log.segment_bytes,
        time_ns=time.time_ns,
        sync=None,
        is_mapped=is_mapped,
        on_trouble=on_trouble,
    )
    log.attach(journal)
    for number in range(3):
        log.append_nowait(b"\x0a\x03abc%d" % number)
    journal.slab.enter(b"a span that is open")
    until_it_rests(journal)
    return journal


def until_it_rests(journal: Journal) -> None:
    """The keeper has made what it was asked for: a file that it opened now would get the number of one that was closed."""
    rests = threading.Event()
    journal._keeper._jobs.put(rests.set)
    assert rests.wait(patient(10))


def check_it_ends(folder: Path, name: str, *, is_mapped: bool = True) -> None:
    with small_steps():
        journal = begin(folder, fail if is_mapped else may_tell, is_mapped=is_mapped)
        descriptors = kept_open(journal, name)
        assert descriptors, f"no {name} is open: nothing is tried"
        for descriptor in descriptors:
            os.close(descriptor)
        journal.finish(is_drained=True)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("is_mapped", [True, False], ids=["mapped", "mirrored"])
@pytest.mark.parametrize("name", [r"\.seg$", r"\.lane$", r"slab"])
def test_what_is_settled_is_removed(name: str, is_mapped: bool, tmp_path: Path) -> None:
    check_it_ends(tmp_path, name, is_mapped=is_mapped)


def test_a_lock_that_was_lost_leaves_the_journal_to_others(tmp_path: Path) -> None:
    with small_steps():
        journal = begin(tmp_path, may_tell)
        (lock,) = kept_open(journal, "lock$")
        os.close(lock)
        assert not journal.directory.is_ours()
        journal.finish(is_drained=False)
    (entry,) = list_journals(tmp_path)
    assert entry.state is JournalState.ORPHAN
    directory = claim(entry.path)
    assert directory is not None
    directory.remove()


@pytest.mark.parametrize(
    ("module", "name", "is_mapped"),
    [
        (_segment_file, r"\.seg$", True),
        (_lane_file, r"\.lane$", True),
        (_slab, "slab", True),
        (_mirror_files, r"\.seg$", False),
    ],
)
def test_a_close_that_raises_is_noticed(
    module: ModuleType, name: str, is_mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: Callable[[int], None] = os.close
    monkeypatch.setattr(module, "give_back", broken)
    with pytest.raises(OSError, match="Bad file descriptor"):
        check_it_ends(tmp_path, name, is_mapped=is_mapped)


def test_a_file_that_lost_its_descriptor_while_it_was_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed_meanwhile(descriptor: int, size: int) -> None:
        os.close(descriptor)
        os.posix_fallocate(descriptor, 0, size)

    directory = JournalDirectory.create(tmp_path, make_meta())
    monkeypatch.setattr("asynctrace.spanlog.journal._directory.allocate", closed_meanwhile)
    with pytest.raises(OSError, match="Bad file descriptor"):
        directory.open_file("00000000.seg", 4096)
    assert directory.names() == []
    directory.remove()
