"""Spans that were open when their process died get a record that says `lost`: each once, with the same number for whoever
reads the journal, wherever a recoverer is killed."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from asynctrace._contracts import Ending, StatusCode
from asynctrace.spanlog.journal._directory import JournalDirectory, claim
from asynctrace.spanlog.journal._orphan import OrphanLog

from .closing_crashes import OPEN, RECORDS, journal_with_open_spans, run
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
    record_of,
    span_of,
)
from .wrong_orphans import WRONG_AT_CLOSING

BEAT = CREATED_NS + 10**9
EXPECTED = [[number, number] for number in range(RECORDS)] + [
    [RECORDS + place, span] for place, span in enumerate(OPEN)
]


def test_an_open_span_becomes_a_record_with_the_last_heartbeat_as_its_end(tmp_path: Path) -> None:
    journal = DeadJournal(tmp_path)
    journal.fill(1)
    journal.slab.beat(BEAT)
    journal.slab.enter(open_body(100, attributes={"session.id": "s"}))
    log = opened(journal.die())
    span = numbered_spans(log)[10]
    let_go(log)
    assert (span.span_id, span.name, span.start_ns) == (span_of(100).span_id, "n" * 60, span_of(100).start_ns)
    assert (span.end_ns, span.ending, span.status) == (BEAT, Ending.LOST, StatusCode.ERROR)
    assert span.attributes == {"session.id": "s", "asynctrace.ending": "lost"}
    assert log.lost == 1


@pytest.mark.parametrize("beat", [0, 1, CREATED_NS, (1 << 63) + 5])
def test_no_span_ends_before_its_start_whatever_the_heartbeat_says(tmp_path: Path, beat: int) -> None:
    journal = DeadJournal(tmp_path)
    journal.slab.beat(beat)
    journal.slab.enter(open_body(7))
    log = opened(journal.die())
    span = numbered_spans(log)[0]
    let_go(log)
    assert span.end_ns == span.start_ns == CREATED_NS + 7000


def problems(found: list[list[dict[str, Any]]]) -> list[str]:
    """What is wrong after a crash at each step."""
    right = {"spans": EXPECTED, "corrupt": 0, "unclosed": 0}
    return [
        f"killed at step {step}, recoverer {place}: {reading}"
        for step, readings in enumerate(found, start=1)
        for place, reading in enumerate(readings, start=2)
        if reading != right
    ]


@pytest.mark.parametrize("boot_id", [BOOT, OTHER_BOOT])
def test_each_is_closed_once_under_one_number_wherever_a_recoverer_is_killed(tmp_path: Path, boot_id: str) -> None:
    found = run("OrphanLog", tmp_path, boot_id)
    assert len(found) >= 9  # leftovers, file, each record, mark, name, slab: and one that lives
    assert problems(found) == []


@pytest.mark.parametrize("name", WRONG_AT_CLOSING)
def test_a_reader_that_closes_wrongly_is_caught(tmp_path: Path, name: str) -> None:
    assert problems(run(name, tmp_path))


class FullDirectory(JournalDirectory):
    """No file can be made."""

    def open_file(self, name: str, size: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_on_a_full_disk_the_records_are_read_and_the_open_spans_wait(tmp_path: Path) -> None:
    path = journal_with_open_spans(tmp_path)
    directory = claim(path)
    assert directory is not None
    full = FullDirectory(path, directory.meta, directory._lock)
    log = OrphanLog.open(full, boot_id=BOOT)
    lane = log.lane_file("otlp")
    lane.open_window(0, RECORDS)
    lane.move_cursor(RECORDS)
    log.release(RECORDS)
    assert (log.unclosed, log.lost, log.appended) == (4, 0, RECORDS)
    assert "00000000.seg" in log._directory.names()  # it tells that one of the four has ended
    log._directory = directory
    assert log.close_open_spans() == 0
    assert [span for _, span in ids_of(numbered_spans(log)).items()][-3:] == list(OPEN)
    log.release(RECORDS)
    assert "00000000.seg" not in log._directory.names()
    let_go(log)


def test_room_for_them_is_made_of_segments_that_hold_nothing(tmp_path: Path) -> None:
    journal = DeadJournal(tmp_path)
    journal.fill(1)
    spare = journal.segment([])
    spare.prepare()
    journal.slab.enter(open_body(50))
    path = journal.die()
    assert (path / "00000001.seg").exists()
    log = opened(path)
    assert sorted(name for name in log._directory.names() if name.endswith(".seg")) == ["00000000.seg", "00000001.seg"]
    assert ids_of(numbered_spans(log))[10] == 50
    let_go(log)


def test_slots_that_are_no_spans_are_counted(tmp_path: Path) -> None:
    journal = DeadJournal(tmp_path)
    journal.segment([record_of(0)])
    journal.slab.enter(b"\xff" * 40)
    journal.slab.enter(b"")
    journal.slab.enter(open_body(9))
    log = opened(journal.die())
    assert (log.damaged_slots, log.lost) == (2, 1)
    assert ids_of(numbered_spans(log)) == {0: 0, 1: 9}
    let_go(log)
