"""FileExporter writes whole lines, for its owner, and never holds the loop."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from asynctrace import wire
from asynctrace._contracts import Exporter, Outcome
from asynctrace.exporters import FileExporter

pytestmark = pytest.mark.anyio


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk that is full after `size` bytes: the kernel writes what fits, then refuses (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def names_in(path: Path) -> list[list[str]]:
    """Span names of each line; fails on a line that is not whole."""
    return [
        [span["name"] for each in json.loads(line)["resourceSpans"] for span in each["scopeSpans"][0]["spans"]]
        for line in path.read_bytes().splitlines()
    ]


async def test_each_batch_is_one_line_that_opentelemetry_reads(make_batch, tmp_path) -> None:
    exporter = FileExporter(tmp_path / "traces.jsonl")
    assert isinstance(exporter, Exporter)
    assert (await exporter.export(make_batch(2))).accepted == 2
    await exporter.export(make_batch(1, first=3))
    await exporter.aclose()
    lines = (tmp_path / "traces.jsonl").read_bytes().splitlines()
    groups = [wire.parse_json_request(line) for line in lines]
    assert [[span.name for span in group.spans] for (group,) in groups] == [["span 1", "span 2"], ["span 3"]]
    assert groups[0][0].resource.attributes["service.name"] == "shop"
    assert [len(json.loads(line)["resourceSpans"]) for line in lines] == [1, 1]


async def test_the_lines_follow_the_json_mapping(make_batch, tmp_path) -> None:
    path = tmp_path / "traces.jsonl"
    await FileExporter(path).export(make_batch(1))
    line = json.loads(path.read_bytes())
    span = line["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert span["traceId"] == f"{0xAB:032x}"
    assert span["startTimeUnixNano"] == "1000000001"
    del span["traceId"], span["spanId"]  # OTLP writes ids in hex where protobuf's own mapping has base64
    Parse(json.dumps(line), ExportTraceServiceRequest())


async def test_the_file_is_for_its_owner_only_even_with_a_generous_umask(make_batch, tmp_path) -> None:
    before = os.umask(0)
    try:
        await FileExporter(tmp_path / "t").export(make_batch(1))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o600


async def test_a_symbolic_link_is_not_followed(make_batch, tmp_path) -> None:
    target = tmp_path / "precious"
    target.write_text("keep me")
    (tmp_path / "t").symlink_to(target)
    result = await FileExporter(tmp_path / "t").export(make_batch(1))
    assert (result.outcome, result.reason) == (Outcome.BLOCKED, "file_eloop")
    assert target.read_text() == "keep me"


@pytest.mark.parametrize("kind", ["directory", "missing", "fifo"])
async def test_a_path_that_cannot_work_blocks_and_works_once_it_can(make_batch, tmp_path, kind) -> None:
    path = tmp_path / "folder" / "t"
    if kind != "missing":
        path.parent.mkdir()
    if kind == "directory":
        path.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    exporter = FileExporter(path)
    assert (await exporter.export(make_batch(1))).outcome is Outcome.BLOCKED
    if kind == "directory":
        path.rmdir()
    if kind == "fifo":
        path.unlink()
    path.parent.mkdir(exist_ok=True)
    assert (await exporter.export(make_batch(1))).accepted == 1


async def test_a_full_disk_means_try_again_and_leaves_no_half_line(make_batch, tmp_path) -> None:
    path = tmp_path / "t"
    exporter = FileExporter(path)
    await exporter.export(make_batch(1))
    before = path.read_bytes()
    with largest_file(len(before) + 100):
        result = await exporter.export(make_batch(5, first=2))
    assert (result.outcome, result.reason) == (Outcome.TRY_AGAIN, "file_efbig")
    assert path.read_bytes() == before
    assert (await exporter.export(make_batch(1, first=2))).accepted == 1
    assert names_in(path) == [["span 1"], ["span 2"]]


@pytest.mark.parametrize("left", [b"{", b'{"resourceSpans":[{"scope', b'{"resourceSpans":[' + b"x" * 200_000])
async def test_what_a_killed_process_left_half_written_is_cut_off(make_batch, tmp_path, left) -> None:
    path = tmp_path / "t"
    exporter = FileExporter(path)
    await exporter.export(make_batch(1))
    with path.open("ab") as file:
        file.write(left)
    await exporter.export(make_batch(1, first=2))
    assert names_in(path) == [["span 1"], ["span 2"]]


async def test_lines_of_somebody_else_are_left_alone(make_batch, tmp_path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"a note\nwithout an end")
    await FileExporter(path).export(make_batch(1))
    assert path.read_bytes().startswith(b'a note\nwithout an end\n{"resourceSpans":')


async def test_a_rotated_file_is_begun_again(make_batch, tmp_path) -> None:
    path = tmp_path / "t"
    exporter = FileExporter(path)
    await exporter.export(make_batch(1))
    path.rename(tmp_path / "t.1")
    await exporter.export(make_batch(1, first=2))
    assert (names_in(tmp_path / "t.1"), names_in(path)) == ([["span 1"]], [["span 2"]])


async def test_batches_at_the_same_time_from_two_exporters_do_not_mix(make_batch, tmp_path) -> None:
    path = tmp_path / "t"
    exporters = [FileExporter(path), FileExporter(path)]
    batches = [make_batch(20, first=number * 100, size=2_000) for number in range(1, 21)]
    await asyncio.gather(*(exporters[n % 2].export(batch) for n, batch in enumerate(batches)))
    assert sorted(names[0] for names in names_in(path)) == sorted(f"span {n * 100}" for n in range(1, 21))


async def test_the_loop_runs_on_while_the_disk_is_slow(make_batch, tmp_path) -> None:
    """Another process holds the file's lock: the write waits, the loop does not."""
    path = tmp_path / "t"
    path.touch()
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD_THE_LOCK, str(path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    await holder.stdout.readline()
    writing = asyncio.create_task(FileExporter(path).export(make_batch(1)))
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert not writing.done()
    await holder.communicate(b"")
    assert (await asyncio.wait_for(writing, 10)).accepted == 1


async def test_a_lock_that_is_never_given_back_means_try_again(make_batch, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("asynctrace.exporters._file.LOCK_ATTEMPTS", 3)
    path = tmp_path / "t"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = await FileExporter(path).export(make_batch(1))
    assert (result.outcome, result.reason) == (Outcome.TRY_AGAIN, "file_eagain")


HOLD_THE_LOCK = """
import fcntl, sys
with open(sys.argv[1]) as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


async def test_it_writes_in_place_when_no_thread_can_be_started(make_batch, tmp_path, monkeypatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert (await FileExporter(tmp_path / "t").export(make_batch(1))).accepted == 1
    assert names_in(tmp_path / "t") == [["span 1"]]


async def test_a_cancelled_export_leaves_whole_lines(make_batch, tmp_path) -> None:
    path = tmp_path / "t"
    exporter = FileExporter(path)
    for number in range(10):
        writing = asyncio.create_task(exporter.export(make_batch(50, first=100 * number + 1, size=5_000)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    for thread in threading.enumerate():  # what was begun goes on beside the loop
        if thread.name == "asynctrace-aside":
            thread.join(10)
    await exporter.export(make_batch(1))
    assert names_in(path)[-1] == ["span 1"]
