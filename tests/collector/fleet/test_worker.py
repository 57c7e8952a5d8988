"""`asynctrace worker`: each message is stored once, or is a dead letter, whatever becomes of the worker or of the store."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from asynctrace.stream import Message

from ...clickhouse_server import ClickHouse
from ...stream.servers import Node, Servers
from .programs import Program, body_of, eventually, name_of, running
from .senders import SPANS, append

pytestmark = pytest.mark.anyio

Stream = tuple[str, ...]

PATCHED = """
import asyncio, sys
from asynctrace.cli import main
from asynctrace.collector.fleet._settling import Settling

async def add(self, batch, token, add=Settling._add):
    {steps}

Settling._add = add
sys.exit(main(sys.argv[1:]))
"""
LONG = "await asyncio.sleep(600)"
STOPS_BEFORE_STORING = PATCHED.format(steps=f"{LONG}; await add(self, batch, token)")
STOPS_AFTER_STORING = PATCHED.format(steps=f"await add(self, batch, token); {LONG}")
"""Workers that are certainly in the middle of a claim when they are killed."""
ACKNOWLEDGES_FIRST = PATCHED.format(steps=f"await self._stream.acknowledge(self._claim); {LONG}")
"""A worker that acknowledges what it has not stored yet."""

LEASE = ("--lease", "3")
"""Short, for those that are killed: what they held is another's soon."""


def messages(first: int, count: int) -> list[Message]:
    """Traces from number `first` on, each in a message of its own."""
    return [
        Message(records=SPANS, key=f"log-{trace}:0:{SPANS}", body=body_of(trace, SPANS))
        for trace in range(first, first + count)
    ]


def is_empty(program: Program) -> bool:
    return program.count("asynctrace_stream_up") == 1 and program.count("asynctrace_stream_entries") == 0


def emptied(program: Program) -> None:
    eventually(lambda: is_empty(program), "the stream is empty")


def expected(first: int, count: int) -> dict[str, int]:
    return {name_of(trace): SPANS for trace in range(first, first + count)}


def shown(tmp_path: Path, place: str) -> dict[str, int]:
    """What a view shows of the store."""
    with running(tmp_path, "view", "--store", place) as view:
        return view.traces()


def has_claimed(worker: Program) -> bool:
    return worker.count("asynctrace_worker_claims_total") > 0


async def killed_again_and_again(
    tmp_path: Path, redis: Node, prefix: str, stream: Stream, place: str, *programs: tuple[str, ...]
) -> dict[str, int]:
    """What is shown after workers were killed with claims in their hands."""
    for number, program in enumerate(programs):
        await append(redis.url, prefix, messages(1 + 40 * number, 40))
        with running(tmp_path, "worker", *stream, "--store", place, *LEASE, program=program) as worker:
            eventually(lambda worker=worker: has_claimed(worker), "it claims")
            worker.kill()
    with running(tmp_path, "worker", *stream, "--store", place) as worker:
        emptied(worker)
        assert worker.count("asynctrace_stream_dead ") == 0
        assert worker.end() == 0
    return shown(tmp_path, place)


async def test_workers_that_are_killed_leave_each_span_stored_once(
    tmp_path: Path, redis: Node, prefix: str, stream: Stream, place: str
) -> None:
    programs = ((), ("-c", STOPS_BEFORE_STORING), ("-c", STOPS_AFTER_STORING))
    found = await killed_again_and_again(tmp_path, redis, prefix, stream, place, *programs)
    assert found == expected(1, 120)


async def test_a_worker_that_acknowledges_first_is_caught(
    tmp_path: Path, redis: Node, prefix: str, stream: Stream
) -> None:
    place = str(tmp_path / "store")
    found = await killed_again_and_again(tmp_path, redis, prefix, stream, place, ("-c", ACKNOWLEDGES_FIRST))
    assert found != expected(1, 40)


async def test_what_cannot_be_read_is_a_dead_letter_and_everything_else_is_stored(
    tmp_path: Path, redis: Node, prefix: str, stream: Stream, place: str
) -> None:
    damaged = [
        Message(records=1, body=b"\x0a\xff", key="log-x:0:1"),
        Message(records=1, body=b"this is no gzip", codec="gzip", key="log-y:0:1"),
    ]
    await append(redis.url, prefix, [*messages(1, 10), *damaged, *messages(11, 10)])
    for shard in range(8):  # and what is no message at all
        redis.ask("XADD", f"{prefix}:{{{shard:02d}}}:in", "*", "v", "99", "r", "99")
    with running(tmp_path, "worker", *stream, "--store", place) as worker:
        emptied(worker)
        assert worker.count("asynctrace_stream_dead ") == 10
        assert worker.count("asynctrace_worker_dead_lettered_total", "unreadable") == 10
        assert "update the workers" in worker.said()
        assert worker.get("/readyz")[0] == 200
    assert shown(tmp_path, place) == expected(1, 20)
    letters = [
        letter for shard in range(8) for letter in redis.ask("XRANGE", f"{prefix}:{{{shard:02d}}}:dlq", "-", "+")
    ]
    assert len(letters) == 10
    assert all(b"dead-reason" in fields for _, fields in letters)


async def test_a_store_that_is_away_costs_nothing(
    tmp_path: Path, redis: Node, prefix: str, stream: Stream, clickhouse: ClickHouse
) -> None:
    place = clickhouse.database()
    with running(tmp_path, "worker", *stream, "--store", place) as worker:
        await append(redis.url, prefix, messages(1, 10))
        emptied(worker)
        clickhouse.kill()
        try:
            await append(redis.url, prefix, messages(11, 20))
            eventually(lambda: worker.count("asynctrace_worker_retries_total", "store") > 0, "it tries again")
            status, reason = worker.get("/readyz")
            assert (status, b"ClickHouse" in reason) == (503, True)
            assert worker.get("/healthz")[0] == 200
            # told to end meanwhile, it gives back what it holds
            assert worker.end() == 0
            assert "p@ss" not in worker.said()
        finally:
            clickhouse.start()
    with running(tmp_path, "worker", *stream, "--store", place) as worker:
        emptied(worker)
        assert worker.count("asynctrace_stream_dead ") == 0
    assert shown(tmp_path, place) == expected(1, 30)


async def test_workers_come_and_go_while_messages_flow(
    tmp_path: Path, redis: Node, prefix: str, stream: Stream, clickhouse: ClickHouse
) -> None:
    place = clickhouse.database()
    workers = [running(tmp_path / str(number), "worker", *stream, "--store", place) for number in range(3)]
    with workers[0] as first:
        await append(redis.url, prefix, messages(1, 40))
        with workers[1] as second:
            await append(redis.url, prefix, messages(41, 40))
            assert first.end() == 0
            with workers[2] as third:
                await append(redis.url, prefix, messages(81, 40))
                assert second.end() == 0
                emptied(third)
                assert third.count("asynctrace_worker_leases_lost_total") == 0
    assert shown(tmp_path, place) == expected(1, 120)


async def test_told_to_end_it_stores_what_it_has_claimed(
    tmp_path: Path, redis: Node, prefix: str, stream: Stream
) -> None:
    place = str(tmp_path / "store")
    with running(tmp_path, "worker", *stream, "--store", place) as worker:
        await append(redis.url, prefix, messages(1, 60))
        eventually(lambda: has_claimed(worker), "it claims")
        assert worker.end() == 0
    # no lease is left behind: whoever comes next need not wait for one
    assert not [key for shard in range(8) if (key := redis.ask("GET", f"{prefix}:{{{shard:02d}}}:lease"))]
    with running(tmp_path, "worker", *stream, "--store", place) as worker:
        emptied(worker)
    assert shown(tmp_path, place) == expected(1, 60)


async def test_what_comes_twice_is_stored_once(
    tmp_path: Path, redis: Node, prefix: str, stream: Stream, place: str
) -> None:
    with running(tmp_path, "worker", *stream, "--store", place) as worker:
        await append(redis.url, prefix, [*messages(1, 5), *messages(1, 5)])
        emptied(worker)
        await append(redis.url, prefix, messages(1, 5))
        emptied(worker)
    assert shown(tmp_path, place) == expected(1, 5)


async def test_two_workers_of_one_directory_are_one_too_many(tmp_path: Path, stream: Stream) -> None:
    place = str(tmp_path / "store")
    with running(tmp_path, "worker", *stream, "--store", place):
        command = (sys.executable, "-m", "asynctrace.cli", "worker", *stream, "--store", place)
        ran = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        _, said = await ran.communicate()
        assert (ran.returncode, b"another collector" in said) == (2, True)


async def test_on_a_cluster_with_a_password_that_changes_while_they_run(tmp_path: Path, servers: Servers) -> None:
    """The whole way, over three masters; then another password, in the file that the programs were given."""
    cluster = servers.cluster(3)
    secret = tmp_path / "secret"

    def change(word: str) -> None:
        secret.write_text(f"{word}\n")
        for node in cluster.nodes:
            node.ask("ACL", "SETUSER", "fleet", "reset", "on", f">{word}", "~at:*", "+@all")
            node.ask("CLIENT", "KILL", "USER", "fleet")

    change("first")
    host = cluster.url.removeprefix("redis://")
    flags = ("--stream", f"redis://fleet@{host}", "--stream-password-file", str(secret))
    place = str(tmp_path / "store")
    with running(tmp_path, "ingest", *flags) as ingest, running(tmp_path, "worker", *flags, "--store", place) as worker:
        assert [ingest.post(body_of(trace))[0] for trace in range(1, 11)] == [200] * 10
        await asyncio.to_thread(change, "second")
        assert [ingest.post(body_of(trace))[0] for trace in range(11, 21)] == [200] * 10
        emptied(worker)
        assert not {"first", "second"} & set((ingest.said() + worker.said()).split())
    assert shown(tmp_path, place) == expected(1, 20)


async def test_a_viewer_may_be_a_user_who_only_reads(
    tmp_path: Path, redis: Node, prefix: str, stream: Stream, clickhouse: ClickHouse
) -> None:
    place = clickhouse.database()
    with running(tmp_path, "worker", *stream, "--store", place) as worker:
        await append(redis.url, prefix, messages(1, 2))
        emptied(worker)
    reader = clickhouse.url(place.rpartition("/")[2], user="reader")
    assert shown(tmp_path, reader) == expected(1, 2)


async def test_it_says_what_the_administrator_of_the_store_should_look_at(
    tmp_path: Path, stream: Stream, clickhouse: ClickHouse
) -> None:
    place = clickhouse.database()
    with running(tmp_path, "worker", *stream, "--store", place) as worker:
        assert "its own logs" not in worker.said()
    clickhouse.ask("CREATE TABLE system.text_log (d Date) ENGINE = MergeTree ORDER BY d")
    try:
        with running(tmp_path, "worker", *stream, "--store", place) as worker:
            assert "keeps its own logs for ever (text_log)" in worker.said()
    finally:
        clickhouse.ask("DROP TABLE system.text_log")
