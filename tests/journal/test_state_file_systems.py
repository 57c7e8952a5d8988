"""Files are mapped only where a store into a map cannot fail; a distant file system gets no files at all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from asynctrace.spanlog.journal import _state
from asynctrace.spanlog.journal._state import Mode, choose

ROOT = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n"
TABLE = (
    ROOT
    + r"""23 22 0:21 / /proc rw,nosuid shared:12 - proc proc rw
24 22 0:5 / /dev rw - devtmpfs udev rw,size=1000k
25 24 0:23 / /dev/shm rw,nosuid,nodev master:3 - tmpfs tmpfs rw
30 22 8:1 / /srv rw,relatime - xfs /dev/sda1 rw,attr2
31 30 0:44 /@home /srv/copies rw shared:2 master:1 propagate_from:9 unbindable - btrfs /dev/sdb rw,subvol=/@home
32 31 8:2 / /srv/copies/deep/er rw - ext3 /dev/sdb2 rw
33 22 0:50 / /mnt/two\040words rw - nfs4 server:/export rw,vers=4.2
34 22 0:51 / /mnt/back\134slash rw - cifs //server/share rw
35 22 0:52 / /mnt/tab\011and\012line rw - fuse.sshfs me@there:/ rw
36 22 0:53 / /merged rw - overlay overlay rw,lowerdir=/a:/b
37 22 0:54 / /mnt/odd rw - somethingnew none rw
38 22 0:55 / /mnt/plain-fuse rw - fuse portal rw
39 22 0:56 / /mnt/block-fuse rw - fuseblk /dev/sdc1 rw
40 22 0:57 / /mnt/nine rw - 9p host rw
41 22 8:3 / /old rw - ext2 /dev/sdd rw
42 41 0:58 / /old rw - nfs server:/old rw
43 22 0:59 / /pool rw - zfs pool rw
"""
)


@pytest.mark.parametrize(
    ("path", "mode", "file_system"),
    [
        ("/", "map", "ext4"),
        ("/var/lib/state", "map", "ext4"),
        ("/dev/shm", "map", "tmpfs"),
        ("/dev/shm/x", "map", "tmpfs"),
        ("/dev/shmx", "write_behind", "devtmpfs"),
        ("/srv/journals", "map", "xfs"),
        ("/srv/copies", "write_behind", "btrfs"),
        ("/srv/copies/deep", "write_behind", "btrfs"),
        ("/srv/copies/deep/er/x", "map", "ext3"),
        ("/srv/copiesandmore", "map", "xfs"),
        ("/mnt/two words/x", "memory", "nfs4"),
        ("/mnt/two", "map", "ext4"),
        ("/mnt/back\\slash", "memory", "cifs"),
        ("/mnt/tab\tand\nline", "memory", "fuse.sshfs"),
        ("/merged/app", "write_behind", "overlay"),
        ("/mnt/odd/x", "write_behind", "somethingnew"),
        ("/mnt/plain-fuse/x", "memory", "fuse"),
        ("/mnt/block-fuse/x", "memory", "fuseblk"),
        ("/mnt/nine", "memory", "9p"),
        ("/old/x", "memory", "nfs"),  # mounted over the ext2
        ("/pool/x", "write_behind", "zfs"),
    ],
)
def test_the_deepest_mount_decides(path: str, mode: str, file_system: str) -> None:
    choice = choose(Path(path), TABLE)
    assert (choice.mode, choice.file_system) == (mode, file_system)
    assert file_system in choice.why


def first_mount(mounts: list[_state._Mount], path: str) -> _state._Mount | None:
    """A double: the first that fits."""
    return next((mount for mount in mounts if path.startswith(mount.point)), None)


def test_the_first_mount_that_fits_is_not_enough() -> None:
    mounts = _state._parse(TABLE)
    for path in ("/srv/copies/deep/er/x", "/mnt/two words/x", "/old/x"):
        assert first_mount(mounts, path) != _state._longest(mounts, path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "nonsense",
        "22 1 254:0 / / rw,relatime shared:1 ext4 /dev/vda rw",
        "22 1 254 / / rw - ext4 /dev/vda rw",
        "22 1 a:b / / rw - ext4 /dev/vda rw",
        "22 1 254:0 / / rw - ",
        " - ext4",
        ROOT.replace(" / /", " / /elsewhere"),
    ],
)
def test_without_a_mount_nothing_is_mapped(text: str) -> None:
    choice = choose(Path("/var/lib/state"), text)
    assert (choice.mode, choice.file_system) == (Mode.WRITE_BEHIND, "")
    assert "not known" in choice.why


def test_a_broken_line_hides_no_other() -> None:
    assert choose(Path("/x"), "broken\n" + ROOT + "22 1 broken\n").file_system == "ext4"


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (r"/a\040b", "/a b"),
        (r"/a\134040b", r"/a\040b"),
        (r"/\043x", "/#x"),
        (r"/a\9b", r"/a\9b"),
        (r"/a\04", r"/a\04"),
        ("/ü", "/ü"),
    ],
)
def test_escapes_are_read_once(field: str, text: str) -> None:
    assert _state._unescaped(field) == text


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no mount table")
def test_what_has_no_device_in_the_table_is_not_mapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A table that says ext4 where the directory's device is another one: not believed. Of btrfs it is believed."""
    table = tmp_path / "mountinfo"
    monkeypatch.setattr(_state, "_MOUNTINFO", str(table))
    table.write_text("22 1 1:1 / / rw - ext4 /dev/other rw\n")
    assert choose(tmp_path).mode is Mode.WRITE_BEHIND
    table.write_text("22 1 1:1 / / rw - btrfs /dev/other rw\n")
    assert choose(tmp_path).file_system == "btrfs"
    table.write_text("22 1 1:1 / / rw - nfs4 server:/ rw\n")
    assert choose(tmp_path).mode is Mode.MEMORY
    table.unlink()
    assert choose(tmp_path).mode is Mode.WRITE_BEHIND


def test_elsewhere_than_linux_nothing_is_mapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    choice = choose(tmp_path)
    assert choice.mode is Mode.WRITE_BEHIND
    assert "darwin" in choice.why


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no mount table")
def test_links_are_followed_to_where_the_files_will_be(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    assert choose(tmp_path / "link").file_system == "proc"
