"""The commands `asynctrace journal …`: they tell what is there, change nothing unless they deliver, and deliver each span
once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from asynctrace.collector import SQLiteReader
from asynctrace.spanlog.journal import JournalDirectory, service_folder
from asynctrace.wire import parse_json_request

from .collector.processes import serving
from .journal.orphans import CREATED_NS, TRACE, DeadJournal, open_body, span_of
from .test_cli import complaint, run

RECORDS = 10
OTHER_ID = "11111111-0000-4000-8000-000000000001"


def dead(state: Path, *, lanes: tuple[str, ...] = ("otlp",), journal_id: str = "", settled: int = 2) -> Path:
    """Ten records, of which the lane `otlp` is past `settled`; one span open. Every record is proved by a mark."""
    journal = DeadJournal(
        service_folder(state, "shop"), lanes=lanes, **({"journal_id": journal_id} if journal_id else {})
    )
    journal.fill(2, RECORDS // 2, synced=RECORDS // 2)
    if "otlp" in lanes and settled:
        journal.lanes["otlp"].open_window(0, settled)
        journal.lanes["otlp"].move_cursor(settled)
    journal.slab.beat(CREATED_NS + 10**9)
    journal.slab.enter(open_body(77))
    return journal.die()


def contents_of(path: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(path.iterdir())}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path / "state"


# ── ls ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ls_tells_what_waits_in_each_lane(state: Path) -> None:
    path = dead(state, lanes=("otlp", "file"))
    before = contents_of(path)
    result = run("journal", "ls", "--state", str(state))
    head, line = result.stdout.splitlines()
    assert head.split() == ["JOURNAL", "STATE", "PID", "AGE", "OPEN", "SIZE", "SERVICE", "WAITING"]
    assert line.split()[:3] == [path.name[:8], "orphan", "4711"]
    assert line.endswith("shop     file 10, otlp 8")
    assert (result.stderr, result.returncode) == ("", 0)
    assert contents_of(path) == before


@pytest.mark.parametrize("place", ["", "v1/shop", "v1/shop/8c5e1f0a-54b1-4d0e-9d77-1f2e3d4c5b6a.j"])
def test_ls_takes_a_state_directory_a_service_or_a_journal(state: Path, place: str) -> None:
    dead(state)
    assert "orphan" in run("journal", "ls", str(state / place)).stdout


def test_ls_finds_the_state_directory_where_the_environment_says(state: Path, tmp_path: Path) -> None:
    dead(state)
    assert "orphan" in run("journal", "ls", ASYNCTRACE_STATE_DIR=str(state)).stdout
    (tmp_path / "xdg").mkdir()
    state.rename(tmp_path / "xdg" / "asynctrace")
    assert "orphan" in run("journal", "ls", XDG_STATE_HOME=str(tmp_path / "xdg"), ASYNCTRACE_STATE_DIR="").stdout


def test_ls_shows_what_is_held_and_what_is_damaged(state: Path) -> None:
    held = DeadJournal(service_folder(state, "shop"), journal_id=OTHER_ID)
    (dead(state) / "meta").write_bytes(b"nothing")
    lines = run("journal", "ls", "--state", str(state)).stdout.splitlines()[1:]
    assert sorted(line.split()[1] for line in lines) == ["damaged", "live"]
    held.die()


def test_ls_of_nothing_says_so(tmp_path: Path) -> None:
    result = run("journal", "ls", "--state", str(tmp_path))
    assert f"no journals in {tmp_path}" in complaint(result)
    assert result.returncode == 0


# ── show, export ────────────────────────────────────────────────────────────────────────────────────────────


def test_show_prints_what_waits_as_trees(state: Path) -> None:
    path = dead(state)
    before = contents_of(path)
    result = run("journal", "show", "8c5e", "--state", str(state))
    assert (len(result.stdout.splitlines()), result.stderr, result.returncode) == (9, "", 0)
    assert result.stdout.count("●") == 8
    assert result.stdout.count("◌") == 1
    assert contents_of(path) == before


def spans_in(lines: bytes | str) -> list[str]:
    text = lines.encode() if isinstance(lines, str) else lines
    groups = [group for line in text.splitlines() for group in parse_json_request(line)]
    assert all(group.resource.attributes == {"service.name": "shop"} for group in groups)
    return [span.span_id for group in groups for span in group.spans]


def test_export_writes_lines_of_otlp_json_and_changes_nothing(state: Path, tmp_path: Path) -> None:
    path = dead(state)
    before = contents_of(path)
    result = run("journal", "export", str(path))
    assert spans_in(result.stdout) == [span_of(number).span_id for number in range(2, RECORDS)]
    assert result.stderr == "asynctrace: 1 open spans are left out\n"
    file = tmp_path / "spans.jsonl"
    assert run("journal", "export", str(path), "--output", str(file)).stdout == ""
    assert (file.read_text(), file.stat().st_mode & 0o777) == (result.stdout, 0o600)
    assert contents_of(path) == before
    result = run("journal", "export", str(path), "--output", str(file))
    assert (result.returncode, "cannot be made" in result.stderr) == (2, True)


def test_a_living_journal_can_be_exported(state: Path) -> None:
    journal = DeadJournal(service_folder(state, "shop"))
    journal.fill(1, 5, synced=5)
    assert isinstance(journal.directory, JournalDirectory)
    assert len(spans_in(run("journal", "export", str(journal.path)).stdout)) == 5
    assert journal.directory.is_ours()
    journal.die()


def test_damaged_spans_are_told_of_and_the_others_exported(state: Path) -> None:
    path = dead(state)
    with (path / "00000000.seg").open("r+b") as file:
        file.seek(40)
        file.write(b"\xff" * 8)
    result = run("journal", "export", str(path))
    assert spans_in(result.stdout) == [span_of(number).span_id for number in range(5, RECORDS)]
    assert "3 spans of this journal are damaged or gone" in result.stderr


@pytest.mark.parametrize(("name", "message"), [("ffff", "no journal begins with ffff"), ("", "names several journals")])
def test_what_names_no_journal_or_several_is_an_error(state: Path, name: str, message: str) -> None:
    dead(state)
    dead(state, journal_id=OTHER_ID)
    result = run("journal", "show", f"{name}", "--state", str(state)) if name else run("journal", "show", str(state))
    assert message in complaint(result)
    assert result.returncode == 1


def test_a_journal_of_a_newer_version_cannot_be_shown(state: Path) -> None:
    import zlib

    path = dead(state)
    line = json.dumps({"version": 99}).encode()
    (path / "meta").write_bytes(line + b"\n%08x\n" % zlib.crc32(line))
    assert "is newer" in complaint(run("journal", "show", "8c5e", "--state", str(state)))
    assert "newer" in run("journal", "ls", "--state", str(state)).stdout


# ── recover ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_recover_delivers_what_waits_and_removes_the_journal(state: Path, tmp_path: Path) -> None:
    path = dead(state)
    with serving(tmp_path / "store") as served:
        result = run("journal", "recover", "--state", str(state), "--endpoint", served.url)
        assert (result.stdout, result.stderr) == ("8c5e1f0a  9 accepted, 0 rejected, 0 dropped, 0 left\n", "")
        assert result.returncode == 0
        assert not path.exists()
        (group,) = SQLiteReader(served.directory).trace(TRACE)
    assert sorted(span.span_id for span in group.spans) == sorted(
        span_of(number).span_id for number in [*range(2, RECORDS), 77]
    )
    assert {span.span_id: span.ending for span in group.spans}[span_of(77).span_id] == "lost"


def test_recover_leaves_what_it_cannot_deliver(state: Path) -> None:
    path = dead(state)
    arguments = ("journal", "recover", "--state", str(state), "--endpoint", "http://127.0.0.1:9", "--timeout", "0.3")
    result = run(*arguments)
    assert result.stdout == "8c5e1f0a  0 accepted, 0 rejected, 0 dropped, 9 left\n"
    assert "did not take everything within 0.3 s" in result.stderr
    assert result.returncode == 1
    assert path.exists()
    assert "otlp 9" in run("journal", "ls", "--state", str(state)).stdout  # with the one that was open


def test_recover_keeps_what_other_lanes_wait_for(state: Path, tmp_path: Path) -> None:
    path = dead(state, lanes=("otlp", "file"))
    with serving(tmp_path / "store") as served:
        result = run("journal", "recover", str(path), "--endpoint", served.url)
        assert "is kept: spans wait for file" in result.stderr
        assert "no lane x, but file, otlp" in run("journal", "recover", str(path), "--lane", "x").stderr
        assert run("journal", "recover", str(path), "--lane", "file", "--endpoint", served.url).returncode == 0
    assert not path.exists()


def test_recover_leaves_living_journals_alone(state: Path) -> None:
    journal = DeadJournal(service_folder(state, "shop"))
    journal.fill(1)
    result = run("journal", "recover", "--state", str(state))
    assert "is live: left alone" in complaint(result)
    assert (result.returncode, os.path.exists(journal.path)) == (0, True)
    journal.die()
