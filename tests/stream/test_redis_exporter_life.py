"""RedisExporter among event loops, forks, instrumentations, deaths, and at the end of a program."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog
import uvloop
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asynctrace import Tracer

from ..exporters.conftest import a_span, batch_of
from .exporting import exporter_of, names_at, program_of, run_program
from .places import Place
from .servers import Servers, eventually

# ── event loops ─────────────────────────────────────────────────────────────────────────────────────────────


def check_one_exporter_works_in_many_loops(
    place: Place, prefix: str, run: Callable[[Any], Any], name: str = ""
) -> None:
    exporter = exporter_of(place, prefix, name, timeout=60.0)

    async def export_and_leave(number: int) -> int:
        result = await exporter.export(batch_of([a_span(number)], key=f"log:{number}:1"))
        assert exporter._stream().statistics().troubled == 0, "what belongs to another loop was tried first"
        await exporter.release()
        return result.accepted

    with structlog.testing.capture_logs() as lines:
        assert [run(export_and_leave(number)) for number in range(3)] == [1, 1, 1]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda number: run(export_and_leave(number)), range(3, 15))) == [1] * 12
        asyncio.run(exporter.aclose())
    assert lines == [], "a connection did not work"
    assert sorted(asyncio.run(names_at(place, prefix))) == sorted(f"span {number}" for number in range(15))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_one_exporter_works_in_loops_one_after_another_and_at_once(
    standalone: Place, prefix: str, run: Callable[[Any], Any]
) -> None:
    check_one_exporter_works_in_many_loops(standalone, prefix, run)


IN_MANY_LOOPS = """
import asyncio, sys
from tests.stream.places import Place
from tests.stream.test_redis_exporter_life import check_one_exporter_works_in_many_loops

place = Place(sys.argv[1], 1, False, "standalone", [])
check_one_exporter_works_in_many_loops(place, sys.argv[2], asyncio.run, sys.argv[3])
"""


def test_one_stream_for_all_loops_is_caught(standalone: Place, prefix: str) -> None:
    """In a program of its own, which it leaves with open connections."""
    run_program(IN_MANY_LOOPS, standalone.url, prefix, "")
    with pytest.raises(AssertionError):
        run_program(IN_MANY_LOOPS, standalone.url, prefix, "one stream")


def test_closing_from_another_loop_closes_the_connections_of_running_ones(standalone: Place, prefix: str) -> None:
    exporter = exporter_of(standalone, prefix)
    exported, leave = threading.Event(), threading.Event()

    async def export_and_stay() -> None:
        await exporter.export(batch_of([a_span(1)]))
        exported.set()
        await asyncio.to_thread(leave.wait)

    thread = threading.Thread(target=asyncio.run, args=(export_and_stay(),))
    thread.start()
    assert exported.wait(30)
    asyncio.run(exporter.aclose())  # an unclosed connection would be a ResourceWarning, here an error
    leave.set()
    thread.join()


def test_a_loop_that_ended_without_release_does_not_disturb_the_next(standalone: Place, prefix: str) -> None:
    exporter = exporter_of(standalone, prefix)

    async def export() -> int:
        return (await exporter.export(batch_of([a_span(1)]))).accepted

    assert [asyncio.run(export()), asyncio.run(export())] == [1, 1]
    asyncio.run(exporter.aclose())


def test_a_tracer_in_two_runs_of_asyncio_delivers_in_both(standalone: Place, prefix: str) -> None:
    tracer = Tracer(service="shop", exporters=[exporter_of(standalone, prefix)])

    async def main(first: int) -> None:
        for number in range(first, first + 10):
            async with tracer.trace(f"run {number}"):
                pass

    asyncio.run(main(0))
    asyncio.run(main(10))
    receipt = tracer.shutdown_sync()
    assert (receipt.accepted, receipt.complete) == (20, True)
    assert sorted(asyncio.run(names_at(standalone, prefix))) == sorted(f"run {number}" for number in range(20))


# ── the end of a program ────────────────────────────────────────────────────────────────────────────────────

ENDS = """
import asyncio, atexit, sys
from asynctrace import Tracer
from asynctrace.exporters import RedisExporter

exporter = RedisExporter(sys.argv[1], prefix=sys.argv[2], timeout=float(sys.argv[4]))
tracer = Tracer(service="shop", exporters=[exporter], shutdown_timeout=10)

def end_spans():
    for number in range(20):
        with tracer.trace(f"run {number}"):
            pass

async def main():
    for number in range(20):
        async with tracer.trace(f"run {number}"):
            pass

def exit_after_a_word():
    end_spans()
    print(tracer.shutdown_sync().accepted)

{
    "asyncio.run, and nothing else": lambda: asyncio.run(main()),
    "no loop at all": end_spans,
    "shutdown_sync": exit_after_a_word,
    "flush_sync": lambda: (end_spans(), tracer.flush_sync()),
    "shutdown_sync in atexit": lambda: (end_spans(), atexit.register(lambda: tracer.shutdown_sync())),
    "spans in atexit": lambda: atexit.register(lambda: (end_spans(), tracer.shutdown_sync())),
    "a thread": lambda: __import__("threading").Thread(target=exit_after_a_word).start(),
    "sys.exit": lambda: (end_spans(), sys.exit(0)),
}[sys.argv[3]]()
"""
ENDINGS = [
    "asyncio.run, and nothing else",
    "no loop at all",
    "shutdown_sync",
    "flush_sync",
    "shutdown_sync in atexit",
    "spans in atexit",
    "a thread",
    "sys.exit",
]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_that_ends_has_delivered(standalone: Place, prefix: str, ending: str) -> None:
    """The host is a name: it has to be looked up where no thread can be started any more."""
    url = standalone.url.replace("127.0.0.1", "localhost")
    done = run_program(ENDS, url, prefix, ending, "30")
    assert sorted(asyncio.run(names_at(standalone, prefix))) == sorted(f"run {number}" for number in range(20))
    assert done.stderr == ""


def test_what_a_program_could_not_deliver_the_next_one_does(servers: Servers, state_directory: Path) -> None:
    node = servers.standalone()
    place = Place(node.url, 1, False, "standalone", [node])
    node.kill()
    run_program(ENDS.replace("shutdown_timeout=10", "shutdown_timeout=1"), node.url, "t", ENDINGS[0], "0.5")
    node.start()

    asyncio.run(asyncio.wait_for(everything_recovered(place, state_directory), 60))
    assert sorted(asyncio.run(names_at(place, "t"))) == sorted(f"run {number}" for number in range(20))


# ── forks ───────────────────────────────────────────────────────────────────────────────────────────────────

FORKS = """
import asyncio, json, os, sys
from asynctrace import Tracer
from asynctrace.exporters import RedisExporter
from tests.stream.exporting import WRONG_EXPORTERS

exporter = WRONG_EXPORTERS.get(sys.argv[3], RedisExporter)(sys.argv[1], prefix=sys.argv[2], timeout=5)
tracer = Tracer(service="shop", exporters=[exporter], shutdown_timeout=10, journal=False)

async def spans(first):
    for number in range(first, first + 5):
        async with tracer.trace(f"run {number}"):
            pass
    return await tracer.flush(timeout=20)

def child(first):
    code = 1
    try:
        asyncio.run(spans(first))
        code = 0 if tracer.shutdown_sync(5).complete else 3
    finally:
        os._exit(code)

async def main():
    await spans(0)
    children = []
    for first in (10, 20, 30):
        if not (pid := os.fork()):
            asyncio._set_running_loop(None)
            child(first)
        children.append(pid)
    receipt = await spans(5)
    codes = [os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1]) for pid in children]
    await spans(40)
    streams = [stream.statistics() for stream in exporter._streams.values()]
    await tracer.shutdown()
    print(json.dumps({"codes": codes, "trouble": sum(each.troubled for each in streams)}))

asyncio.run(main())
"""


def check_parent_and_children_keep_to_themselves(place: Place, prefix: str, name: str = "") -> None:
    told = json.loads(run_program(FORKS, place.url, prefix, name).stdout)
    assert told == {"codes": [0, 0, 0], "trouble": 0}
    expected = [f"run {first + number}" for first in (0, 5, 10, 20, 30, 40) for number in range(5)]
    assert sorted(asyncio.run(names_at(place, prefix))) == sorted(expected)


def test_a_forked_child_has_its_own_connections_and_its_parent_keeps_its_own(standalone: Place, prefix: str) -> None:
    check_parent_and_children_keep_to_themselves(standalone, prefix)


def test_a_child_that_drops_the_connections_of_its_parent_is_caught(standalone: Place, prefix: str) -> None:
    with pytest.raises(AssertionError):
        check_parent_and_children_keep_to_themselves(standalone, prefix, "drops them")


# ── others' instruments ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def foreign_spans() -> Iterator[InMemorySpanExporter]:
    """OpenTelemetry's SDK with its Redis instrumentation switched on."""
    collected = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(collected))
    instrumentor = RedisInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield collected
    instrumentor.uninstrument()
    provider.shutdown()


def check_own_commands_are_nobodys_spans(
    place: Place, prefix: str, foreign: InMemorySpanExporter, name: str = ""
) -> None:
    async def export_amid_other_commands() -> None:
        exporter = exporter_of(place, prefix, name)
        tracer = Tracer(service="shop", exporters=[exporter], journal=False)
        for number in range(3):
            async with tracer.trace("run"):
                pass
            receipt = await tracer.flush()
            assert receipt.ended == number + 1, "an export made spans"
        await tracer.shutdown()
        assert foreign.get_finished_spans() == ()
        async with redis.asyncio.Redis.from_url(place.url) as client:
            await client.get("theirs")
        assert len(foreign.get_finished_spans()) == 1, "the application's own commands are still traced"

    asyncio.run(export_amid_other_commands())


def test_own_commands_make_no_spans_where_redis_is_instrumented(
    standalone: Place, prefix: str, foreign_spans: InMemorySpanExporter
) -> None:
    check_own_commands_are_nobodys_spans(standalone, prefix, foreign_spans)


def test_commands_that_are_seen_by_others_are_caught(
    standalone: Place, prefix: str, foreign_spans: InMemorySpanExporter
) -> None:
    with pytest.raises(AssertionError):
        check_own_commands_are_nobodys_spans(standalone, prefix, foreign_spans, "is seen")


# ── deaths and absences ─────────────────────────────────────────────────────────────────────────────────────

KILLED = """
import asyncio, sys
from asynctrace import Tracer
from asynctrace.exporters import RedisExporter

async def main():
    tracer = Tracer(service="shop", exporters=[RedisExporter(sys.argv[1], prefix=sys.argv[2])], journal=True)
    number = int(sys.argv[3])
    while True:
        for _ in range(20):
            async with tracer.trace(f"run {number}"):
                pass
            number += 1
        print(number, flush=True)
        await asyncio.sleep(0.005)

asyncio.run(main())
"""


def test_what_ended_before_a_kill_is_in_the_stream_after_the_next_start(
    servers: Servers, state_directory: Path
) -> None:
    node = servers.standalone()
    place = Place(node.url, 1, False, "standalone", [node])
    ended: set[str] = set()
    for death in range(3):
        first = death * 100_000
        with program_of(KILLED, node.url, "t", str(first)) as process:
            assert process.stdout is not None
            last = [int(process.stdout.readline()) for _ in range(30)][-1]
            process.send_signal(signal.SIGKILL)
            process.wait()
        ended |= {f"run {number}" for number in range(first, last)}

    asyncio.run(asyncio.wait_for(everything_recovered(place, state_directory), 120))
    names = asyncio.run(names_at(place, "t"))
    assert ended <= set(names)


async def everything_recovered(place: Place, state: Path) -> None:
    """A process of the same service comes, and stays until no dead one's journal is left."""
    async with Tracer(service="shop", exporters=[exporter_of(place, "t")]):
        while len(_journals(state)) > 1:  # noqa: ASYNC110  (other processes left them)
            await asyncio.sleep(0.05)


def _journals(state: Path) -> list[Path]:
    return [path.parent for path in state.rglob("lock")]


AWAY = """
import asyncio, json, re, sys
from asynctrace import Tracer
from asynctrace.exporters import RedisExporter

def megabytes():
    # what is not in files: the journal's pages are the kernel's to give away
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1000

async def main():
    exporter = RedisExporter(sys.argv[1], prefix="t", timeout=1.0)
    tracer = Tracer(service="shop", exporters=[exporter], capacity_bytes=8_000_000, when_full="journal", shutdown_timeout=60)
    async def some(count):
        for number in range(count):
            async with tracer.trace("run") as run:
                run.set_attribute("text", "x" * 1000)
            if number % 100 == 0:
                await asyncio.sleep(0)
    await some(2_000)
    before = megabytes()
    await some(40_000)
    after = megabytes()
    print(json.dumps({"before": before, "after": after}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    receipt = await tracer.flush()
    await tracer.shutdown()
    print(json.dumps({"accepted": receipt.accepted, "complete": receipt.complete}), flush=True)

asyncio.run(main())
"""


def test_while_redis_is_away_memory_is_flat_and_afterwards_everything_arrives(servers: Servers) -> None:
    node = servers.standalone()
    node.kill()
    with program_of(AWAY, node.url) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        memory = json.loads(process.stdout.readline())
        assert memory["after"] < memory["before"] + 30, memory  # 40 MB of spans, 8 of which may be in memory
        node.start()
        process.stdin.write("back\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"accepted": 42_000, "complete": True}
    place = Place(node.url, 1, False, "standalone", [node])
    assert len(asyncio.run(names_at(place, "t"))) == 42_000


def test_a_master_that_dies_takes_no_accepted_span_with_it(servers: Servers) -> None:
    cluster = servers.cluster(6)
    victim, *others = cluster.nodes
    place = Place(f"{cluster.url},{others[0].address}", 3, True, "cluster", cluster.nodes)

    async def trace_through_it() -> int:
        async with Tracer(service="shop", exporters=[exporter_of(place, "t")]) as tracer:
            ended = 0
            while ended < 3_000 or len(cluster.masters()) < 3:
                async with tracer.trace(f"run {ended}"):
                    pass
                ended += 1
                if ended == 1_000:
                    victim.kill()
                if ended % 20 == 0:
                    await asyncio.sleep(0.01)
            assert (await tracer.flush(timeout=60)).complete
            return ended

    ended = asyncio.run(trace_through_it())
    eventually(lambda: len(cluster.masters()) == 3, "a replica has taken its place")
    assert set(asyncio.run(names_at(place, "t"))) == {f"run {number}" for number in range(ended)}
