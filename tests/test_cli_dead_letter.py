"""The commands `asynctrace dead-letter …`, as their users meet them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asynctrace._contracts import Resource, Scope
from asynctrace._diagnostics import Diagnostics
from asynctrace.delivery import DeadLetters, Origin
from asynctrace.delivery._dead_letters import find_letters
from asynctrace.delivery._rejection import Rejection
from asynctrace.testing import FaultServer
from asynctrace.testing._faults import Accept, PartialSuccess, RejectWhen, Status
from asynctrace.wire import encode_span, frame

from .collector.processes import ENVIRONMENT
from .collector.traffic import span

NOW = 1_700_000_000_000_000_000
LOG = "3f0c1d2a-9b8e-4f60-8a5c-0123456789ab"
ORIGIN = Origin.of(LOG, Resource(attributes={"service.name": "shop"}), Scope(name="asynctrace"))


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "asynctrace.cli", "dead-letter", *arguments],
        capture_output=True, text=True, timeout=30, check=False,
        env=ENVIRONMENT | {"TZ": "UTC", "PYTHONIOENCODING": "utf-8"} | environment,
    )  # fmt: skip


def write_letter(state: Path, first: int, *names: str, count: int | None = None, lane: str = "otlp") -> None:
    records = [frame(encode_span(span(first + 1, number + 1, name=name))) for number, name in enumerate(names)]
    folder = state / "v1" / "shop" / "dead-letters"
    letters = DeadLetters(
        lambda: folder, service="shop", time_ns=lambda: NOW + first * 10**9, diagnostics=Diagnostics(time.monotonic_ns)
    )
    rejection = Rejection(
        first=first,
        records=len(names),
        count=len(names) if count is None else count,
        reason="backend_rejected",
        detail="400 Bad Request: \x1b[31mno such field",
        payload=b"".join(records),
    )
    with DeadLetters.in_place():
        letters.put(lane, ORIGIN, rejection)
    assert letters.statistics().written == 1


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A letter of one span, one of a partial success, one of another lane."""
    write_letter(tmp_path, 0, "salt")
    write_letter(tmp_path, 7, "sugar", "pepper", count=1)
    write_letter(tmp_path, 60, "tea", lane="other")
    return tmp_path


def test_ls_prints_one_line_a_letter_oldest_first(state: Path) -> None:
    result = run("ls", "--state", str(state))
    assert (result.returncode, result.stderr) == (0, "")
    head, *lines = result.stdout.splitlines()
    assert head.split() == ["LETTER", "TIME", "SPANS", "LANE", "SERVICE", "ANSWER"]
    assert [line.split()[3:5] for line in lines] == [["1", "otlp"], ["1", "of"], ["1", "other"]]
    assert [line.split()[1:3] for line in lines][2] == ["11-14", "22:14:20"]
    assert "400 Bad Request" in lines[0]
    assert all(len(line) <= 80 and "\x1b" not in line for line in lines)


def test_ls_finds_letters_by_folder_file_and_beginning_and_in_the_environments_directory(state: Path) -> None:
    paths = find_letters(state)
    for place in (state, state / "v1", state / "v1" / "shop", paths[0].parent):
        assert len(run("ls", str(place)).stdout.splitlines()) == 4
    assert len(run("ls", str(paths[0])).stdout.splitlines()) == 2
    assert len(run("ls", paths[0].name[:6], "--state", str(state)).stdout.splitlines()) == 2
    assert len(run("ls", ASYNCTRACE_STATE_DIR=str(state)).stdout.splitlines()) == 4
    result = run("ls", "zzzz", "--state", str(state))
    assert (result.returncode, result.stdout) == (1, "")
    assert "no letter begins with zzzz" in result.stderr


def test_ls_as_json_has_the_header_and_the_path(state: Path) -> None:
    first, *_ = [json.loads(line) for line in run("ls", "--json", "--state", str(state)).stdout.splitlines()]
    assert (first["version"], first["key"], first["count"], first["time_ns"]) == (1, f"{LOG}:0:1", 1, NOW)
    assert first["path"] == str(find_letters(state)[0])


def test_show_prints_the_answer_and_the_spans(state: Path) -> None:
    result = run("show", "--state", str(state))
    assert (result.returncode, result.stderr) == (0, "")
    assert "1 of 2 refused: backend_rejected" in result.stdout
    assert "400 Bad Request: ?[31mno such field" in result.stdout
    assert [name for name in ("salt", "sugar", "pepper", "tea") if name not in result.stdout] == []


def test_no_letters_is_no_failure(tmp_path: Path) -> None:
    for command in ("ls", "show", "retry"):
        result = run(command, "--state", str(tmp_path))
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "asynctrace: no dead letters\n")


def test_a_damaged_letter_and_a_newer_one_are_told_of_and_left(state: Path) -> None:
    damaged, *_ = find_letters(state)
    damaged.write_bytes(damaged.read_bytes()[:-3])
    newer = damaged.with_name("ffff.letter")
    newer.write_bytes(b'{"format": "asynctrace dead letter", "version": 9}\n')
    for command in ("ls", "show"):
        result = run(command, "--state", str(state))
        assert result.returncode == 1
        assert "is damaged" in result.stderr
        assert "has format 9" in result.stderr
        assert "tea" in result.stdout or "other" in result.stdout
    assert damaged.exists()
    assert newer.exists()


async def retry(state: Path, server: FaultServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    import anyio.to_thread

    return await anyio.to_thread.run_sync(
        lambda: run("retry", "--state", str(state), "--endpoint", server.url, *arguments)
    )


@pytest.mark.anyio
async def test_retry_sends_letters_under_their_old_keys_and_removes_those_that_are_accepted(state: Path) -> None:
    async with FaultServer(default=RejectWhen(lambda each: each.name == "salt")) as server:
        result = await retry(state, server)
        keys = [request.headers["x-asynctrace-key"] for request in server.requests]
        names = sorted(each.name for each in server.spans)
    assert (result.returncode, result.stdout) == (1, "2 accepted and removed, 1 kept\n")
    assert "is kept: 400 Bad Request" in result.stderr
    assert keys == [f"{LOG}:0:1", f"{LOG}:7:2", f"{LOG}:60:1"]
    assert names == ["pepper", "sugar", "tea"]
    assert len(find_letters(state)) == 1
    async with FaultServer(default=Accept()) as server:
        result = await retry(state, server)
    assert (result.returncode, result.stdout, result.stderr) == (0, "1 accepted and removed, 0 kept\n", "")
    assert find_letters(state) == []


@pytest.mark.anyio
@pytest.mark.parametrize("answer", [Status(503), Status(401), PartialSuccess(rejected=1)], ids=str)
async def test_retry_removes_nothing_that_was_not_accepted_whole(state: Path, answer: Status | PartialSuccess) -> None:
    async with FaultServer(default=answer) as server:
        result = await retry(state, server)
        sent = len(server.requests)
    assert (result.returncode, result.stdout) == (1, "0 accepted and removed, 3 kept\n")
    assert len(find_letters(state)) == 3
    assert sent == (3 if isinstance(answer, PartialSuccess) else 1), "a far side that is away is asked once"


@pytest.mark.anyio
async def test_retry_can_be_for_one_lane(state: Path) -> None:
    async with FaultServer() as server:
        result = await retry(state, server, "--lane", "other")
        assert [each.name for each in server.spans] == ["tea"]
    assert (result.returncode, result.stdout) == (0, "1 accepted and removed, 0 kept\n")
    assert len(find_letters(state)) == 2


def test_an_endpoint_that_cannot_work_is_wrong_usage(state: Path) -> None:
    result = run("retry", "--state", str(state), "--endpoint", "ftp://x")
    assert (result.returncode, result.stdout) == (2, "")
    assert len(find_letters(state)) == 3
