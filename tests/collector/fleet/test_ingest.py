"""`asynctrace ingest`: what it answers 200 to is stored one day, whatever becomes of it or of the stream."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from asynctrace.collector.fleet._metrics import Tally
from asynctrace.collector.fleet._stream_sink import StreamSink
from asynctrace.stream import LocalSpill

from ...stream.servers import Node, Servers
from ...stream.spills import ListStream, message
from ..traffic import JSON, checkout, json_body, protobuf
from .programs import Program, body_of, eventually, running
from .senders import Senders

pytestmark = pytest.mark.anyio

ANSWERS_TOO_EARLY = """
import asyncio, sys
from asynctrace.cli import main
from asynctrace.collector.fleet._stream_sink import StreamSink

tasks = set()

async def take(self, received, sent, take=StreamSink.take):
    async def later():
        await asyncio.sleep(0.1)
        await take(self, received, sent)
    task = asyncio.get_running_loop().create_task(later())
    tasks.add(task)

StreamSink.take = take
sys.exit(main(sys.argv[1:]))
"""
"""An ingest node that says 200 before the stream has the request."""

STAYS_AWAY = """
import sys
from asynctrace.cli import main
from asynctrace.collector.fleet._stream_sink import StreamSink

def is_back(self, is_back=StreamSink._is_back):
    if not self._spill.stored_bytes:
        is_back(self)

StreamSink._is_back = is_back
sys.exit(main(sys.argv[1:]))
"""
"""An ingest node for which the stream is away until everything that was spilled is in it."""


def at(node: Node, prefix: str) -> tuple[str, ...]:
    """The flags that lead to a stream there, which is soon taken for away."""
    return ("--stream", node.url, "--stream-prefix", prefix, "--stream-shards", "8", "--stream-timeout", "2")


def missing(view: Program, senders: Senders) -> dict[str, int]:
    """Traces that were acknowledged and are not on the list whole."""
    shown = view.traces()
    return {trace: shown.get(trace, 0) for trace, spans in senders.expected.items() if shown.get(trace) != spans}


def test_it_receives_as_the_collector_does_and_asks_for_no_open_spans(tmp_path: Path, stream: tuple[str, ...]) -> None:
    with running(tmp_path, "ingest", *stream) as ingest:
        status, _, headers = ingest.post(protobuf([checkout()]))
        assert status == 200
        assert "x-asynctrace-open-spans" not in {name.lower() for name in headers}
        assert ingest.post(json_body([checkout(2)]), **{"Content-Type": JSON})[0] == 200
        assert ingest.post(b"\x0a\xff")[0] == 400
        assert ingest.get("/readyz") == (200, b"ready\n")
        assert ingest.get("/healthz")[0] == 200
        status, body = ingest.get("/api/v1/traces")
        assert (status, b"asynctrace view" in body) == (404, True)
        assert ingest.count("asynctrace_stream_entries") == 2
        assert ingest.count("asynctrace_stream_appended_records_total") == 6
        assert ingest.count("asynctrace_collector_spans_total") == 6
        assert ingest.end() == 0


async def test_a_stream_without_room_tells_senders_to_wait(tmp_path: Path, stream: tuple[str, ...]) -> None:
    with running(tmp_path, "ingest", *stream, "--stream-size", "8KB", "--spill", str(tmp_path / "spill")) as ingest:
        answers = [ingest.post(body_of(trace)) for trace in range(1, 60)]
        status, _, headers = answers[-1]
        assert status == 429
        assert int(headers["Retry-After"]) >= 1
        assert answers[0][0] == 200
        accepted = sum(status == 200 for status, _, _ in answers)
        assert ingest.count("asynctrace_stream_entries") == accepted
        assert ingest.count("asynctrace_ingest_refused_total", "full") == len(answers) - accepted
        # what is full is not away: nothing is spilled
        assert ingest.count("asynctrace_ingest_spilled_total") == 0
        # and it takes again what there is room for, when a worker has been there
        with running(tmp_path, "worker", *stream, "--store", str(tmp_path / "store")) as worker:
            eventually(lambda: worker.count("asynctrace_stream_entries") == 0, "the worker empties the stream")
        assert ingest.post(body_of(99))[0] == 200


async def died(tmp_path: Path, stream: tuple[str, ...], program: tuple[str, ...] = ()) -> Senders:
    """What was acknowledged by nodes that were killed under load."""
    senders = Senders()
    for kill_after in (15, 60):
        with running(tmp_path, "ingest", *stream, program=program) as ingest:
            await senders.send_and(ingest, kill_after, ingest.kill)
    return senders


async def stored(tmp_path: Path, stream: tuple[str, ...], senders: Senders) -> dict[str, int]:
    """What is missing when a worker has stored everything."""
    place = str(tmp_path / "store")
    with running(tmp_path, "worker", *stream, "--store", place) as worker:
        await asyncio.to_thread(
            eventually, lambda: worker.count("asynctrace_stream_entries") == 0, "the worker empties the stream"
        )
        with running(tmp_path, "view", "--store", place) as view:
            return missing(view, senders)


async def test_a_node_that_is_killed_loses_nothing_it_acknowledged(tmp_path: Path, stream: tuple[str, ...]) -> None:
    senders = await died(tmp_path, stream)
    assert await stored(tmp_path, stream, senders) == {}
    assert len(senders.acknowledged) >= 75


async def test_a_node_that_answers_too_early_is_caught(tmp_path: Path, stream: tuple[str, ...]) -> None:
    senders = await died(tmp_path, stream, ("-c", ANSWERS_TOO_EARLY))
    assert await stored(tmp_path, stream, senders) != {}


async def test_while_redis_is_away_requests_wait_on_the_disk_and_come_back_by_themselves(
    tmp_path: Path, servers: Servers, prefix: str
) -> None:
    node = servers.standalone("--maxmemory-policy", "noeviction", "--appendonly", "yes", "--appendfsync", "always")
    stream = at(node, prefix)
    spill = ("--spill", str(tmp_path / "spill"))
    senders = Senders()
    with running(tmp_path, "ingest", *stream, *spill) as ingest:
        await senders.send(ingest.url, 10)
        node.kill()
        await senders.send(ingest.url, 30)
        assert senders.statuses == {200}
        assert ingest.count("asynctrace_ingest_spilled_total") >= 30
        assert ingest.get("/readyz")[0] == 200
        # who comes after one that was killed brings what that one had spilled
        ingest.kill()
    with running(tmp_path, "ingest", *stream, *spill) as ingest:
        assert "cannot be used" in ingest.said()
        await senders.send(ingest.url, 5)
        assert ingest.count("asynctrace_stream_up") == 0
        node.start()
        await asyncio.to_thread(
            eventually,
            lambda: ingest.count("asynctrace_spill_bytes") == 0 and ingest.count("asynctrace_stream_up") == 1,
            "the spill is brought back",
        )
        await senders.send(ingest.url, 5)
        assert ingest.end() == 0
    assert await stored(tmp_path, stream, senders) == {}
    assert len(senders.acknowledged) == 50


async def test_a_full_spill_refuses_and_says_so(tmp_path: Path, servers: Servers, prefix: str) -> None:
    node = servers.standalone()
    stream = at(node, prefix)
    with running(tmp_path, "ingest", *stream, "--spill", str(tmp_path / "spill"), "--spill-size", "10KB") as ingest:
        node.kill()
        answers = [ingest.post(body_of(trace)) for trace in range(1, 40)]
        assert answers[0][0] == 200
        status, body, headers = answers[-1]
        assert (status, b"stream is away" in body) == (503, True)
        assert int(headers["Retry-After"]) >= 1
        assert ingest.get("/readyz")[0] == 503
        assert ingest.count("asynctrace_ingest_refused_total", "spill_full") > 0
        node.start()
        eventually(lambda: ingest.get("/readyz")[0] == 200, "it takes requests again")
        taken = sum(status == 200 for status, _, _ in answers)
        eventually(lambda: ingest.count("asynctrace_stream_entries") == taken, "what was taken is in the stream")


def answers_of_one_that_is_back_and_full(
    tmp_path: Path, servers: Servers, prefix: str, program: tuple[str, ...] = ()
) -> set[int]:
    """What senders are told while more is spilled than the stream has room for."""
    node = servers.standalone()
    flags = (*at(node, prefix), "--stream-size", "8KB", "--spill", str(tmp_path / "spill"))
    with running(tmp_path, "ingest", *flags, program=program) as ingest:
        node.kill()
        assert {ingest.post(body_of(trace))[0] for trace in range(1, 60)} == {200}
        node.start()
        # at most eight are under way to it at once: what refused more has been asked twice
        eventually(lambda: ingest.count("asynctrace_stream_refused_full_total") > 8, "the stream is full")
        # a shard that nobody met by chance may have room for some
        return {ingest.post(body_of(trace))[0] for trace in range(100, 130)}


async def test_a_stream_that_is_back_and_full_tells_senders_to_wait(
    tmp_path: Path, servers: Servers, prefix: str
) -> None:
    assert 429 in answers_of_one_that_is_back_and_full(tmp_path, servers, prefix)


async def test_a_node_that_spills_on_beside_a_full_stream_is_caught(
    tmp_path: Path, servers: Servers, prefix: str
) -> None:
    assert answers_of_one_that_is_back_and_full(tmp_path, servers, prefix, ("-c", STAYS_AWAY)) == {200}


async def test_what_nobody_foresaw_does_not_keep_the_spill_from_coming_back(tmp_path: Path) -> None:
    troubles = iter([OSError("unforeseen")])
    stream = ListStream(lambda message: next(troubles, None))
    spill = LocalSpill(tmp_path)
    await spill.append(message(7))
    looking = asyncio.create_task(StreamSink(stream, spill, Tally("test")).look_after())  # type: ignore[arg-type]
    async with asyncio.timeout(30):
        while not stream.numbers:
            assert not looking.done()
            await asyncio.sleep(0.05)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    await spill.aclose()
    assert stream.numbers == [7]


async def test_without_a_spill_senders_are_told_to_come_again(tmp_path: Path, servers: Servers, prefix: str) -> None:
    node = servers.standalone()
    with running(tmp_path, "ingest", *at(node, prefix)) as ingest:
        node.kill()
        status, _, headers = ingest.post(body_of(1))
        assert (status, "Retry-After" in headers) == (503, True)
        assert ingest.get("/readyz")[0] == 503
        node.start()
        # nobody has to send for it to notice
        eventually(lambda: ingest.get("/readyz")[0] == 200, "it takes requests again")
        assert ingest.post(body_of(1))[0] == 200


async def test_what_it_accepted_before_sigterm_it_answers(tmp_path: Path, stream: tuple[str, ...]) -> None:
    senders = Senders()
    with running(tmp_path, "ingest", *stream) as ingest:
        await senders.send_and(ingest, 20, ingest.end)
        assert ingest.process.returncode == 0
    assert senders.statuses == {200}
    assert await stored(tmp_path, stream, senders) == {}
