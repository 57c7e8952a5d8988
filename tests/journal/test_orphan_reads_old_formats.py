"""A journal of each released format is kept here for ever, and reads the same for ever.

`python -m tests.journal.test_orphan_reads_old_formats` in the project's folder made the file of the current version, once: a
file that has been released is never made again.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

import pytest

from asynctrace._contracts import Ending
from asynctrace.spanlog.journal import FORMAT_VERSION
from asynctrace.wire import decode_request, encode_request

from .orphans import (
    BOOT,
    CREATED_NS,
    OTHER_BOOT,
    DeadJournal,
    ids_of,
    let_go,
    numbered_spans,
    open_body,
    opened,
    span_of,
)

FORMATS = Path(__file__).parent / "formats"
OPEN = 77


def make(folder: Path) -> Path:
    """Twelve records in two segments, six proved in each; three accepted, two rejected, four under way; one span open."""
    journal = DeadJournal(folder, lanes=("otlp", "audit log"))
    journal.fill(2, 6, synced=6)
    lane = journal.lanes["otlp"]
    lane.open_window(0, 5)
    lane.add_run(3, 2, "rejected", "backend_rejected")
    lane.move_cursor(5)
    lane.open_window(5, 4)
    journal.slab.beat(CREATED_NS + 10**9)
    journal.slab.enter(open_body(OPEN))
    return journal.die()


@pytest.fixture(params=sorted(path.name for path in FORMATS.glob("*.tar.gz")))
def old_journal(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with tarfile.open(FORMATS / request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    (path,) = tmp_path.glob("*.j")
    return path


def test_the_current_format_is_among_them() -> None:
    assert (FORMATS / f"v{FORMAT_VERSION}.j.tar.gz").exists()


@pytest.mark.parametrize("boot_id", [BOOT, OTHER_BOOT])
def test_a_journal_of_any_version_reads_the_same_for_ever(old_journal: Path, boot_id: str) -> None:
    log = opened(old_journal, boot_id)
    assert (log.first, log.appended, log.corrupt, log.lost) == (0, 13, 0, 1)
    assert log.lane_names() == ["audit log", "otlp"]
    lane = log.lane_file("otlp")
    assert (lane.cursor, lane.windows(), lane.accepted) == (5, [(5, 4)], 3)
    assert lane.books() == ({"backend_rejected": 2}, {})
    assert (log.lane_file("audit log").cursor, log.lane_file("audit log").windows()) == (0, [])
    spans = numbered_spans(log)
    assert ids_of(spans) == {number: number for number in range(12)} | {12: OPEN}
    assert all(spans[number] == span_of(number) for number in range(12))
    assert (spans[12].ending, spans[12].end_ns, spans[12].start_ns) == (
        Ending.LOST,
        CREATED_NS + 10**9,
        CREATED_NS + OPEN * 1000,
    )
    (group,) = decode_request(b"".join(encode_request(log.resource_bytes, log.scope_bytes, log.read(0, 1, 1)[0])))
    assert (group.resource.attributes, group.scope.name) == ({"service.name": "shop"}, "asynctrace")
    let_go(log)


@pytest.mark.parametrize("old_journal", [f"v{FORMAT_VERSION}.j.tar.gz"], indirect=True)
def test_this_version_writes_what_is_kept_of_it(old_journal: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir(mode=0o700)
    made = make(tmp_path / "new")
    names = sorted(path.name for path in made.iterdir())
    assert names == sorted(path.name for path in old_journal.iterdir())
    assert [name for name in names if (made / name).read_bytes() != (old_journal / name).read_bytes()] == []


def main() -> None:
    target = FORMATS / f"v{FORMAT_VERSION}.j.tar.gz"
    with tempfile.TemporaryDirectory() as folder, tarfile.open(target, "x:gz") as archive:
        path = make(Path(folder))
        for file in [path, *sorted(path.iterdir())]:
            described = archive.gettarinfo(file, arcname=str(file.relative_to(folder)))
            described.uid = described.gid = described.mtime = 0
            described.uname = described.gname = ""
            archive.addfile(described, io.BytesIO(file.read_bytes()) if file.is_file() else None)


if __name__ == "__main__":
    main()
