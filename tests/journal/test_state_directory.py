"""The state directory is made for its owner alone, and refused with a sentence when others could tamper with it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from asynctrace._errors import JournalError
from asynctrace.spanlog.journal._directory import JournalDirectory, service_folder
from asynctrace.spanlog.journal._state import check_state

from .directories import in_child, make_meta, mounted, needs_root

NOBODY = 65534


def test_it_is_made_with_its_parents_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "state"
    check_state(path)
    check_state(path)
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (path, path.parent, tmp_path / "a")] == [0o700] * 3


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o750, 0o711])
def test_it_may_be_readable_by_others(tmp_path: Path, mode: int) -> None:
    (tmp_path / "state").mkdir(mode=mode)
    (tmp_path / "state").chmod(mode)
    check_state(tmp_path / "state")


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_writable_by_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(JournalError, match=rf"writable by others \(mode {mode:04o}\); run: chmod go-w {path}$"):
        check_state(path)


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "state").symlink_to("real")
    with pytest.raises(JournalError, match=f"is a symbolic link; give the directory it leads to: {tmp_path / 'real'}$"):
        check_state(tmp_path / "state")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(JournalError, match="is a symbolic link"):
        check_state(tmp_path / "dangling")


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(JournalError, match=r"is not a directory$"):
        check_state(tmp_path / "state")
    with pytest.raises(JournalError, match=r"cannot be made: Not a directory$"):
        check_state(tmp_path / "state" / "below")


@needs_root
def test_of_another_user_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(
        JournalError, match=f"belongs to user {NOBODY}, and this process runs as user 0; give each user"
    ):
        check_state(path)


@needs_root
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_on_a_full_disk_it_cannot_be_made(tmp_path: Path, kind: str) -> None:
    from .directories import use_up_inodes

    with mounted(kind, tmp_path / "disk") as disk:
        use_up_inodes(disk)
        with pytest.raises(JournalError, match=r"cannot be made: No space left on device$"):
            check_state(disk / "state")


@pytest.fixture
def open_place(tmp_path: Path) -> Iterator[Path]:
    """A folder that another user can reach, which `tmp_path` is not."""
    import shutil
    import tempfile

    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@needs_root
def test_another_user_is_told_what_is_wrong(open_place: Path) -> None:
    """As somebody who is not root: of root, not writable, and at last a directory of their own."""
    check_state(open_place / "of root")
    (open_place / "closed").mkdir(mode=0o500)
    os.chown(open_place / "closed", NOBODY, NOBODY)
    (open_place / "own").mkdir(mode=0o700)
    os.chown(open_place / "own", NOBODY, NOBODY)

    def as_nobody() -> None:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        with pytest.raises(JournalError, match=f"belongs to user 0, and this process runs as user {NOBODY}"):
            check_state(open_place / "of root")
        with pytest.raises(JournalError, match="cannot be made: Permission denied"):
            check_state(open_place / "new")
        with pytest.raises(JournalError, match="cannot be read and written by its owner; run: chmod u"):
            check_state(open_place / "closed")
        with pytest.raises(JournalError, match="cannot be made: Permission denied"):
            check_state(open_place / "closed" / "below")
        JournalDirectory.create(service_folder(open_place / "own", "shop"), make_meta()).remove()

    assert in_child(as_nobody) == 0


# ---------------------------------------------------------------------------------------------- a service's folder


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("shop", "shop"),
        ("shop.eu-1_x", "shop.eu-1_x"),
        ("", "%"),
        (".", "%2E"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("../../etc", "%2E.%2F..%2Fetc"),
        ("a b/c%", "a%20b%2Fc%25"),
        ("Bücher", "B%C3%BCcher"),
        ("nul\0", "nul%00"),
        ("\udc80", "%ED%B2%80"),
    ],
)
def test_a_service_has_a_folder_of_its_own(tmp_path: Path, service: str, name: str) -> None:
    folder = service_folder(tmp_path / "state", service)
    assert folder == tmp_path / "state" / "v1" / name
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_long_names_are_cut_and_stay_different(tmp_path: Path) -> None:
    names = {service_folder(tmp_path, "ü" * 1000 + end).name for end in "abc"}
    assert len(names) == 3
    assert max(map(len, names)) < 150


@pytest.mark.parametrize("name", ["v1", "v1/shop"])
def test_a_folder_that_others_could_write_is_refused(tmp_path: Path, name: str) -> None:
    service_folder(tmp_path, "shop")
    (tmp_path / name).chmod(0o777)
    with pytest.raises(JournalError, match=f"{tmp_path / name} is writable by others"):
        service_folder(tmp_path, "shop")
