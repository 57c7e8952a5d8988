"""OTLPExporter among event loops, threads, environments, instrumentations and at the end of a program."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest
import uvloop
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asynctrace._contracts import ExportResult
from asynctrace.exporters import OTLPExporter
from asynctrace.testing._faults import Delay, FaultServer


@pytest.fixture
def server():
    with FaultServer.in_thread() as running:
        yield running


# event loops


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_one_exporter_works_in_loops_one_after_another(make_batch, server, run) -> None:
    exporter = OTLPExporter(server.url)

    async def export_and_leave() -> int:
        result = await exporter.export(make_batch())
        await exporter.release()
        return result.accepted

    assert [run(export_and_leave()) for _ in range(3)] == [3, 3, 3]
    asyncio.run(exporter.aclose())


def test_one_exporter_works_in_loops_of_several_threads_at_once(make_batch, server) -> None:
    exporter = OTLPExporter(server.url)

    async def export_some() -> int:
        results = [await exporter.export(make_batch()) for _ in range(10)]
        await exporter.release()
        return sum(result.accepted for result in results)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: asyncio.run(export_some()), range(4))) == [30] * 4
    asyncio.run(exporter.aclose())


def test_closing_from_another_loop_closes_the_sessions_of_running_ones(make_batch, server) -> None:
    exporter = OTLPExporter(server.url)
    exported, leave = threading.Event(), threading.Event()

    async def export_and_stay() -> None:
        await exporter.export(make_batch())
        exported.set()
        await asyncio.to_thread(leave.wait)

    thread = threading.Thread(target=asyncio.run, args=(export_and_stay(),))
    thread.start()
    assert exported.wait(10)
    asyncio.run(exporter.aclose())  # an unclosed session or socket would be a ResourceWarning, here an error
    leave.set()
    thread.join()


def test_a_loop_that_ended_without_release_does_not_disturb_the_next(make_batch, server) -> None:
    exporter = OTLPExporter(server.url)

    async def export() -> ExportResult:
        return await exporter.export(make_batch())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # asyncio's own, about the socket that was left open
        assert asyncio.run(export()).accepted == 3
        assert asyncio.run(export()).accepted == 3
        asyncio.run(exporter.aclose())
        import gc

        gc.collect()


def test_closing_twice_and_closing_unused_is_nothing(make_batch, server) -> None:
    exporter = OTLPExporter(server.url)

    async def close_around_an_export() -> int:
        await exporter.aclose()
        await exporter.release()
        result = await exporter.export(make_batch())
        await asyncio.gather(exporter.aclose(), exporter.aclose())
        await exporter.release()
        return result.accepted

    assert asyncio.run(close_around_an_export()) == 3


def test_it_can_be_used_again_after_closing(make_batch, server) -> None:
    exporter = OTLPExporter(server.url)

    async def export_and_close() -> int:
        result = await exporter.export(make_batch())
        await exporter.aclose()
        return result.accepted

    assert [asyncio.run(export_and_close()) for _ in range(2)] == [3, 3]


def test_two_exporters_share_no_connection(make_batch, server) -> None:
    async def close_one_use_the_other() -> int:
        one, other = OTLPExporter(server.url), OTLPExporter(server.url)
        await asyncio.gather(one.export(make_batch()), other.export(make_batch()))
        await one.aclose()
        result = await other.export(make_batch())
        await other.aclose()
        return result.accepted

    assert asyncio.run(close_one_use_the_other()) == 3


def test_the_loop_is_not_held_while_large_bodies_are_compressed(make_batch, server) -> None:
    """Were they compressed on the loop, it would tick once."""

    async def ticks_meanwhile() -> int:
        exporter = OTLPExporter(server.url, compression="gzip", timeout=60)
        await exporter.start()
        batch = make_batch(50, size=1_000_000)
        exporting = asyncio.create_task(exporter._body(batch))
        ticks = 0
        while not exporting.done():
            await asyncio.sleep(0.001)
            ticks += 1
        await exporter.aclose()
        return ticks

    assert asyncio.run(ticks_meanwhile()) > 2


# where threads and executors are gone


def test_bodies_and_names_need_no_thread(make_batch, server, monkeypatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    async def export() -> int:
        exporter = OTLPExporter(server.url.replace("127.0.0.1", "localhost"), compression="gzip")
        asyncio.get_running_loop().set_default_executor(_executor_that_is_shut_down())
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            result = await exporter.export(make_batch(100, size=1_000))
        await exporter.aclose()
        return result.accepted

    assert asyncio.run(export()) == 100


def _executor_that_is_shut_down() -> ThreadPoolExecutor:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    return executor


LAST_WORDS = """
import asyncio, atexit, sys
from asynctrace import wire
from asynctrace._contracts import Resource, Scope, Span
from asynctrace.exporters import OTLPExporter

class One:
    payload = [wire.frame(wire.encode_span(Span(trace_id="ab" * 16, span_id="cd" * 8, name="last words")))]
    count, size, key, resource, is_scoped = 1, len(payload[0]), "k", Resource(), False
    resource_bytes, scope_bytes = wire.encode_resource(resource), wire.encode_scope(Scope())

async def export():
    exporter = OTLPExporter(sys.argv[1])
    print(await exporter.export(One()))
    await exporter.aclose()

atexit.register(lambda: asyncio.run(export()))
"""


def test_a_name_is_resolved_while_the_interpreter_exits(server) -> None:
    url = server.url.replace("127.0.0.1", "localhost")
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", LAST_WORDS, url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "accepted=1" in done.stdout, done.stderr
    # asyncio's debug mode reports steps that took long, as they do on a busy machine.
    assert [line for line in done.stderr.splitlines() if not line.startswith("Executing <")] == []
    assert server.spans[0].name == "last words"


# the environment and others' instruments


def test_proxies_and_netrc_of_the_environment_are_not_used(make_batch, server, monkeypatch, tmp_path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")

    async def export() -> int:
        exporter = OTLPExporter(server.url)
        result = await exporter.export(make_batch())
        await exporter.aclose()
        return result.accepted

    assert asyncio.run(export()) == 3
    assert "authorization" not in server.requests[0].headers


@pytest.fixture
def foreign_spans():
    """OpenTelemetry's SDK with its aiohttp client instrumentation switched on."""
    collected = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(collected))
    instrumentor = AioHttpClientInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield collected
    instrumentor.uninstrument()
    provider.shutdown()


def test_own_requests_make_no_spans_where_aiohttp_is_instrumented(make_batch, server, foreign_spans) -> None:
    async def export_amid_other_requests() -> None:
        exporter = OTLPExporter(server.url)
        await exporter.export(make_batch())
        assert foreign_spans.get_finished_spans() == ()
        async with aiohttp.ClientSession() as session, session.get(server.url):
            pass
        assert len(foreign_spans.get_finished_spans()) == 1, "the application's own requests are still traced"
        await exporter.export(make_batch())
        await exporter.aclose()

    asyncio.run(export_amid_other_requests())
    assert len(foreign_spans.get_finished_spans()) == 1
    assert "traceparent" not in server.requests[0].headers


def test_a_request_that_fails_leaves_the_suppression_behind(make_batch, server, foreign_spans) -> None:
    async def fail_then_ask() -> None:
        exporter = OTLPExporter(server.url, timeout=0.05)
        server.plan(Delay(30))
        await exporter.export(make_batch())
        await exporter.aclose()
        async with aiohttp.ClientSession() as session, session.get(server.url):
            pass

    asyncio.run(fail_then_ask())
    assert len(foreign_spans.get_finished_spans()) == 1
