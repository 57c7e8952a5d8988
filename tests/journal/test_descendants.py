"""Which journals are those of a process's children, and whether they hold something, told without claiming them."""

from __future__ import annotations

import os
import uuid
import zlib
from pathlib import Path

import msgspec
import pytest

from asynctrace import Tracer
from asynctrace._errors import JournalDamaged
from asynctrace.runtime._journal import boot_id
from asynctrace.spanlog.journal import JournalMeta, claim, decode_meta, encode_meta, line_of_descent, service_path
from asynctrace.spanlog.journal import _descendants as descendants_module
from asynctrace.spanlog.journal._descendants import Descendants, Held
from asynctrace.spanlog.journal._directory import take
from asynctrace.spanlog.journal._format import FORMAT_VERSION, ancestors_of

from ..runtime.journals import SERVICE, Away, make_tracer
from .directories import everything_below, leave_orphan, make_meta

pytestmark = pytest.mark.anyio

PARENT = str(uuid.uuid4())


def look(folder: Path, journal_id: str = PARENT) -> dict[str, bool]:
    """Whether the owner is dead, for each journal that holds something."""
    found = Descendants(folder, journal_id, boot_id=boot_id()).look()
    return {path.stem: held.is_dead for path, held in found.items()}


def test_a_line_of_descent_names_all_ancestors_oldest_first() -> None:
    line = line_of_descent(line_of_descent(line_of_descent("", "a"), "b"), "c")
    assert ancestors_of(make_meta(parent=line)) == ["a", "b", "c"]
    assert ancestors_of(make_meta()) == []


def test_a_line_of_descent_is_bounded_and_keeps_the_nearest() -> None:
    line = ""
    for number in range(1000):
        line = line_of_descent(line, str(number))
    assert len(ancestors_of(make_meta(parent=line))) == 32
    assert ancestors_of(make_meta(parent=line))[-1] == "999"


def test_a_journal_that_names_no_parent_still_reads() -> None:
    """As it was written before there were parents."""
    fields = msgspec.to_builtins(make_meta())
    del fields["parent"]
    assert "parent" not in fields
    content = encode_meta(msgspec.convert(fields, JournalMeta))
    line = msgspec.json.encode(fields)
    assert decode_meta(b"%s\n%08x\n" % (line, zlib.crc32(line))) == decode_meta(content)
    with pytest.raises(JournalDamaged):
        decode_meta(b"%s\n%08x\n" % (line + b" ", zlib.crc32(line)))


def test_the_dead_and_those_of_their_children_are_found_and_nobody_else(tmp_path: Path) -> None:
    child = leave_orphan(tmp_path, parent=PARENT)
    grandchild = leave_orphan(tmp_path, parent=f"{PARENT}/{uuid.uuid4()}")
    leave_orphan(tmp_path)
    leave_orphan(tmp_path, parent=str(uuid.uuid4()))
    leave_orphan(tmp_path, parent=PARENT, version=FORMAT_VERSION + 1)
    damaged = leave_orphan(tmp_path, parent=PARENT)
    (damaged / "meta").write_bytes(b"?")
    (tmp_path / "no-journal.j").touch()
    before = everything_below(tmp_path)
    assert look(tmp_path) == {child.stem: True, grandchild.stem: True}
    assert everything_below(tmp_path) == before


def test_one_that_is_gone_is_not_there_and_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    child = leave_orphan(tmp_path, parent=PARENT)
    seen = Descendants(tmp_path, PARENT, boot_id=boot_id())
    assert list(seen.look()) == [child]
    directory = claim(child)
    assert directory is not None
    directory.remove()
    assert list(seen.look()) == []
    assert look(tmp_path / "nowhere") == {}


def check_one_that_is_recovered(folder: Path) -> None:
    """Its lock is held, as if its owner lived, and nothing in it is unsettled: what was open has no record yet."""
    path = leave_orphan(folder, parent=PARENT)
    directory = claim(path)
    assert directory is not None
    try:
        assert look(folder) == {path.stem: True}
    finally:
        directory.release()


def test_one_that_somebody_recovers_is_dead(tmp_path: Path) -> None:
    check_one_that_is_recovered(tmp_path)


def test_a_claim_that_cannot_be_told_from_a_life_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descendants_module, "was_claimed", lambda path: False)
    with pytest.raises(AssertionError):
        check_one_that_is_recovered(tmp_path)


class SeesItClaimedMeanwhile(Descendants):
    """Somebody has its lock, and says that it is claimed while it is looked at as one that lives."""

    half_gone = False

    def _look_at_living(self, path: Path, meta: JournalMeta) -> Held | None:
        if self.half_gone:
            for file in path.iterdir():
                file.unlink()
        held = super()._look_at_living(path, meta)
        (path / "deaths").write_bytes(b"0c")
        return held


def check_one_that_is_claimed_meanwhile(folder: Path, *, half_gone: bool) -> None:
    path = leave_orphan(folder, parent=PARENT)
    lock = take(path)
    assert lock is not None
    seen = SeesItClaimedMeanwhile(folder, PARENT, boot_id=boot_id())
    seen.half_gone = half_gone
    try:
        assert seen.look() == {path: Held(is_dead=True)}
    finally:
        lock.release()


@pytest.mark.parametrize("half_gone", [False, True])
def test_one_that_is_claimed_while_it_is_looked_at_is_dead(half_gone: bool, tmp_path: Path) -> None:
    check_one_that_is_claimed_meanwhile(tmp_path, half_gone=half_gone)


@pytest.mark.parametrize("half_gone", [False, True])
def test_a_look_that_takes_it_for_alive_is_noticed(
    half_gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descendants_module, "was_claimed", lambda path: False)
    with pytest.raises(AssertionError):
        check_one_that_is_claimed_meanwhile(tmp_path, half_gone=half_gone)


async def test_a_living_one_holds_what_ended_and_is_not_settled(state_directory: Path) -> None:
    folder = service_path(state_directory, SERVICE)
    tracer: Tracer = make_tracer(state_directory, Away(), shutdown_timeout=0.1)
    tracer._parent_log = PARENT
    async with tracer.trace("open"):
        assert look(folder) == {}, "what is open has not ended"
        async with tracer.trace_component("ended"):
            pass
        assert look(folder) == {tracer._log_id: False}
        (held,) = Descendants(folder, PARENT, boot_id=boot_id()).look().values()
        assert (held.appended, held.settled) == (1, 0)
    await tracer.shutdown(0.05)
    assert look(folder) == {tracer._log_id: True}


def test_a_link_in_place_of_a_journal_is_nobodys(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    elsewhere.mkdir()
    folder.mkdir()
    child = leave_orphan(elsewhere, parent=PARENT)
    os.symlink(child, folder / child.name)
    assert look(folder) == {}
