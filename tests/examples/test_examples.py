"""Every example is run as its reader would run it: a process, real requests, a signal, and the spans that arrived."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from asynctrace.testing import FaultServer, Status, assert_tree

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parents[2] / "examples"
START_SECONDS = 30.0
STOP_SECONDS = 30.0


@contextlib.asynccontextmanager
async def running(example: str, *arguments: str, endpoint: str, port: int = 0) -> AsyncIterator[Process]:
    """The example as a process, which is killed if the test leaves it running."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    environment |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "PORT": str(port),
        "PYTHONWARNINGS": "error::ResourceWarning",
    }
    program = [sys.executable, str(EXAMPLES / example), *arguments]
    process = await asyncio.create_subprocess_exec(*program, env=environment, stdout=PIPE, stderr=PIPE)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def output_of(process: Process) -> tuple[str, str]:
    async with asyncio.timeout(STOP_SECONDS):
        out, err = await process.communicate()
    return out.decode(), err.decode()


def free_port() -> int:
    """A port below those that the system gives out by itself, or another socket could have it before the example binds it."""
    while True:
        port = random.randrange(10_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


async def answers(port: int, process: Process) -> None:
    """Return when the service accepts connections."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            assert process.returncode is None, (await process.communicate())[1].decode()
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return await writer.wait_closed()
            await asyncio.sleep(0.02)


def receipt_in(output: str) -> dict[str, int]:
    line = next(line for line in output.splitlines() if line.startswith("Receipt("))
    return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line)}


def check_receipt(output: str, spans: int) -> None:
    expected = {"ended": spans, "accepted": spans, "rejected": 0, "dropped": 0, "spooled": 0, "pending": 0}
    assert receipt_in(output) == expected


AGENT = """
    agent ok
      plan [llm] ok
      search [tool] ok
        index lookup [retriever] ok
      weather [tool] timeout
      write [llm] ok
"""


async def test_the_agent_shows_its_plan_its_tools_and_the_deadline() -> None:
    async with FaultServer() as server, running("agent.py", "What now?", endpoint=server.url) as process:
        out, err = await output_of(process)
        assert (process.returncode, err) == (0, "")
        assert out.startswith("Try rice crackers.\n")
        check_receipt(out, 6)
        assert_tree(server.spans, AGENT)
        (root,) = [span for span in server.spans if not span.parent_id]
        assert root.attributes["input.value"] == "What now?"
        assert root.attributes["output.value"] == "Try rice crackers."
        assert {span.attributes["session.id"] for span in server.spans} == {"s-1"}


async def test_the_agent_with_a_backend_that_refuses_says_so_and_still_ends_well() -> None:
    refusing = FaultServer(default=Status(400))
    async with refusing as server, running("agent.py", endpoint=server.url) as process:
        out, _ = await output_of(process)
        assert process.returncode == 0
        receipt = receipt_in(out)
        assert (receipt["ended"], receipt["accepted"], receipt["rejected"]) == (6, 0, 6)


async def test_the_agents_trace_can_be_read_from_our_collector(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "asynctrace.cli", "serve", "--port", "0", "--no-open", "--data", str(tmp_path)]
    serve = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    try:
        assert serve.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            first = (await serve.stdout.readline()).decode()
        found = re.search(r"http://[\w.:]+", first)
        assert found, f"serve began with {first!r}"
        url = found.group()
        async with running("agent.py", endpoint=url) as process:
            out, err = await output_of(process)
        assert err == ""
        check_receipt(out, 6)
        async with aiohttp.ClientSession() as session, session.get(f"{url}/api/v1/traces") as response:
            body: dict[str, Any] = json.loads(await response.text())
        (trace,) = body["traces"]
        assert "agent" in json.dumps(trace)
    finally:
        serve.terminate()
        async with asyncio.timeout(STOP_SECONDS):
            await serve.communicate()


async def test_the_plain_script_traces_its_threads_below_the_run() -> None:
    async with FaultServer() as server, running("plain_script.py", "3", "x", "5", endpoint=server.url) as process:
        out, err = await output_of(process)
        assert (process.returncode, err) == (0, "")
        assert out.startswith("[9, None, 25]\n")
        check_receipt(out, 4)
        endings = sorted((span.name, span.ending, bool(span.parent_id)) for span in server.spans)
        assert endings == [
            ("square", "error", True),
            ("square", "ok", True),
            ("square", "ok", True),
            ("squares", "ok", False),
        ]
        (root,) = [span for span in server.spans if not span.parent_id]
        assert {span.parent_id for span in server.spans if span is not root} == {root.span_id}
        assert root.attributes["output.value"] == "[9,null,25]"


async def test_the_instrumented_library_is_traced_below_the_run_that_uses_it() -> None:
    async with FaultServer() as server:
        example = running("opentelemetry_instrumentation.py", f"{server.url}/", endpoint=server.url)
        async with example as process:
            out, err = await output_of(process)
    assert (process.returncode, err) == (0, "")
    check_receipt(out, 3)
    spans = {span.name: span for span in server.spans}
    assert spans["fetch"].parent_id == spans["look"].span_id
    assert spans["GET"].parent_id == spans["fetch"].span_id
    assert "bytes" in spans["fetch"].attributes


async def test_the_pool_of_processes_traces_its_workers_below_the_run() -> None:
    async with FaultServer() as server, running("process_pool.py", "10", "x", "12", endpoint=server.url) as process:
        out, err = await output_of(process)
        assert (process.returncode, err) == (0, "")
        assert out.startswith("4\ninvalid literal for int() with base 10: 'x'\n5\n")
        check_receipt(out, 1)
        endings = sorted((span.name, span.ending) for span in server.spans)
        assert endings == [("count primes", "error"), ("count primes", "ok"), ("count primes", "ok"), ("primes", "ok")]
        (root,) = [span for span in server.spans if not span.parent_id]
        assert {span.parent_id for span in server.spans if span is not root} == {root.span_id}


FASTAPI_REQUEST = """
    POST /ask ok
      advice ok
        retrieve [retriever] ok
        answer [llm] ok
"""
FASTAPI_STREAM = """
    GET /stream/{count} ok
      token [llm] ok
      token [llm] ok
      token [llm] ok
"""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
async def test_the_fastapi_service_delivers_every_span_before_it_ends(sent: signal.Signals) -> None:
    port = free_port()
    async with (
        FaultServer() as server,
        running("fastapi_service.py", endpoint=server.url, port=port) as process,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        await answers(port, process)

        async def ask(number: int) -> None:
            question = {"question": f"q-{number}", "session": f"s-{number}"}
            async with session.post("/ask", json=question) as response:
                assert (response.status, await response.json()) == (
                    200,
                    {"answer": "Of 2, the first: Sencha is green."},
                )

        await asyncio.gather(*map(ask, range(20)))
        async with session.get("/stream/3") as response:
            assert await response.text() == "word 0\nword 1\nword 2\n"
        await session.close()
        process.send_signal(sent)
        out, err = await output_of(process)
        assert process.returncode in (0, -sent), err
        check_receipt(out, 20 * 4 + 4)
        traces = by_trace(server.spans)
        assert len(traces) == 21
        for spans in traces.values():
            roots = [span for span in spans if not span.parent_id]
            if roots[0].name == "GET /stream/{count}":
                assert_tree(spans, FASTAPI_STREAM)
                continue
            assert_tree(spans, FASTAPI_REQUEST)
            of_session = [span.attributes["session.id"] for span in spans if span.parent_id]
            assert len(set(of_session)) == 1
            number = str(of_session[0]).removeprefix("s-")
            (retrieve,) = [span for span in spans if span.name == "retrieve"]
            assert retrieve.events[0].attributes["question"] == f"q-{number}"


async def test_a_service_that_forgets_its_lifespan_is_noticed(tmp_path: Path) -> None:
    source = (EXAMPLES / "fastapi_service.py").read_text()
    forgetful = tmp_path / "forgetful_service.py"
    forgetful.write_text(source.replace("async with asynctrace.lifespan()(app):", "if True:"))
    assert forgetful.read_text() != source
    port = free_port()
    async with FaultServer() as server, running(str(forgetful), endpoint=server.url, port=port) as process:
        await answers(port, process)
        async with aiohttp.request("GET", f"http://127.0.0.1:{port}/stream/3") as response:
            await response.text()
        process.send_signal(signal.SIGTERM)
        out, _ = await output_of(process)
        with pytest.raises(AssertionError):
            check_receipt(out, 4)


async def test_a_client_that_leaves_a_stream_early_ends_it_and_its_spans() -> None:
    port = free_port()
    async with FaultServer() as server, running("fastapi_service.py", endpoint=server.url, port=port) as process:
        await answers(port, process)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /stream/100000 HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"word 3")
        writer.close()
        spans = await eventually_root(server, "GET /stream/{count}")
        process.send_signal(signal.SIGTERM)
        await output_of(process)
        (root,) = [span for span in spans if span.name == "GET /stream/{count}"]
        assert root.ending == "cancelled"
        children = [span for span in server.spans if span.parent_id]
        assert len(children) >= 4
        assert {span.parent_id for span in children} == {root.span_id}


async def eventually_root(server: FaultServer, name: str) -> list[Any]:
    number = 1
    while True:
        spans = await server.wait_for_spans(number, timeout=20)
        if any(span.name == name for span in spans):
            return spans
        number = len(spans) + 1


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
async def test_the_aiohttp_service_keeps_concurrent_requests_apart_and_delivers_before_it_ends(
    sent: signal.Signals,
) -> None:
    port = free_port()
    async with (
        FaultServer() as server,
        running("aiohttp_service.py", endpoint=server.url, port=port) as process,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        await answers(port, process)

        async def quote(number: int) -> None:
            symbols = "A" * (number + 1)
            async with session.get(
                "/quote", params={"symbols": f"{symbols},B"}, headers={"x-user": f"u-{number}"}
            ) as response:
                assert await response.json() == {symbols: 100 * (number + 1), "B": 100}

        await asyncio.gather(*map(quote, range(1, 20)))
        async with session.get("/quote", params={"symbols": "TEA,CRASH"}, headers={"x-user": "u-crash"}) as response:
            assert response.status == 500
        await session.close()
        process.send_signal(sent)
        out, _ = await output_of(process)
        assert process.returncode == 0
        check_receipt(out, 20 * 4)
        for spans in by_trace(server.spans).values():
            (user,) = {span.attributes["user.id"] for span in spans if span.name != "GET /quote"}
            if user == "u-crash":
                endings = sorted((span.name, span.ending) for span in spans)
                assert endings == [("GET /quote", "error"), ("price", "error"), ("price", "ok"), ("quote", "error")]
            else:
                assert_tree(spans, "GET /quote ok\n  quote ok\n    price [tool] ok\n    price [tool] ok")


def by_trace(spans: list[Any]) -> dict[str, list[Any]]:
    traces: dict[str, list[Any]] = {}
    for span in spans:
        traces.setdefault(span.trace_id, []).append(span)
    return traces


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_fits_on_one_page(example: str) -> None:
    assert len((EXAMPLES / example).read_text().splitlines()) <= 80
