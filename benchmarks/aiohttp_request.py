"""How much CPU does tracing add to a request that aiohttp serves, and to one that it makes?

One process serves (or makes) requests with aiohttp alone, one with our middleware (or trace config), one with
`opentelemetry-instrumentation-aiohttp-server` (or `-client`) with its SDK and batch processor. All of aiohttp runs, parser
and writer too, on connections that are objects in memory: the kernel costs the same with and without tracing, and more than
both. A served request is a browser's and names a parent; a request that is made is answered at once.

Counted: `time.process_time()` from the first request until the far side has acknowledged every span, less what the same
requests cost without tracing. Of all rounds the quickest counts.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from _common import Benchmark, Figure, Scale, Task, main, open_sink, run_child
from _contenders import Contender, make_contender
from aiohttp import web

BARE, OURS, PEER = "bare", "asynctrace", "opentelemetry"
PACKAGES = {
    "served": "opentelemetry-instrumentation-aiohttp-server",
    "made": "opentelemetry-instrumentation-aiohttp-client",
}
MUST, AIM = 2 / 3, 1 / 5
WARM_UP = 200

REQUEST = b"""GET /items/%d?page=2&sort=price HTTP/1.1
Host: shop.example.com
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8
Accept-Language: en-US,en;q=0.5
Accept-Encoding: gzip, deflate, br, zstd
Connection: keep-alive
Cookie: theme=dark; consent=yes
Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01

""".replace(b"\n", b"\r\n")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\ntea"

Ask = Callable[[int], Awaitable[None]]


class InMemory(asyncio.Transport):
    """A connection without a far side: what is written is handed to a function."""

    def __init__(self, written: Callable[[bytes], None]) -> None:
        super().__init__({"peername": ("127.0.0.1", 50123), "sockname": ("127.0.0.1", 8000)})
        self.write = written  # type: ignore[assignment,method-assign]

    def is_closing(self) -> bool:
        return False

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def close(self) -> None:
        return None

    pause_reading = resume_reading = abort = close


# Serving -----------------------------------------------------------------------------------------------------------


async def answer(request: web.Request) -> web.Response:
    return web.Response(text="tea")


def application(app: str, contender: Contender) -> web.Application:
    if app == OURS:
        from asynctrace.middleware import aiohttp_middleware

        return web.Application(middlewares=[aiohttp_middleware(contender.tracer)])  # type: ignore[attr-defined]
    if app == PEER:
        from opentelemetry import trace
        from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor

        trace.set_tracer_provider(contender._provider)  # type: ignore[attr-defined]
        AioHttpServerInstrumentor().instrument()
    return web.Application()


async def serving(app: str, contender: Contender) -> Ask:
    application_ = application(app, contender)
    application_.router.add_get("/items/{id}", answer)
    runner = web.AppRunner(application_, access_log=None)
    await runner.setup()
    assert runner.server is not None
    connection: Any = runner.server()
    loop = asyncio.get_running_loop()
    is_answered = loop.create_future()

    def written(part: bytes) -> None:
        if part.endswith(b"tea"):
            is_answered.set_result(None)

    connection.connection_made(InMemory(written))

    async def ask(number: int) -> None:
        nonlocal is_answered
        is_answered = loop.create_future()
        connection.data_received(REQUEST % number)
        await is_answered

    return ask


# Making ------------------------------------------------------------------------------------------------------------


class AnswersAtOnce(aiohttp.BaseConnector):
    async def _create_connection(self, *request: Any) -> Any:
        connection = self._factory()
        loop = asyncio.get_running_loop()

        def written(part: bytes) -> None:
            loop.call_soon(connection.data_received, ANSWER)

        connection.connection_made(InMemory(written))
        return connection


def trace_configs(app: str, contender: Contender) -> list[aiohttp.TraceConfig]:
    if app == OURS:
        from asynctrace.middleware import trace_config

        return [trace_config(contender.tracer)]  # type: ignore[attr-defined]
    if app == PEER:
        from opentelemetry.instrumentation.aiohttp_client import create_trace_config

        return [create_trace_config(tracer_provider=contender._provider)]  # type: ignore[attr-defined]
    return []


async def making(app: str, contender: Contender) -> Ask:
    session = aiohttp.ClientSession(connector=AnswersAtOnce(), trace_configs=trace_configs(app, contender))

    async def ask(number: int) -> None:
        async with session.get(f"http://shop.example.com/items/{number}?page=2&sort=price") as answered:
            await answered.read()

    return ask


# Measuring -----------------------------------------------------------------------------------------------------------


async def child(task: Task) -> dict[str, Any]:
    contender = make_contender(task.contender)
    await contender.start(task.origin, roomy=True)
    start = {"served": serving, "made": making}[task.options["side"]]
    ask, requests = await start(task.options["app"], contender), task.options["requests"]
    for number in range(WARM_UP):
        await ask(number)
    await contender.settle()
    begin = time.process_time_ns()
    for number in range(requests):
        await ask(number)
    await contender.settle()
    seconds = (time.process_time_ns() - begin) / 1e9
    await contender.stop()
    return {"cpu_microseconds": seconds / requests * 1e6}


def one_round(side: str, app: str, requests: int) -> float:
    """CPU microseconds for each request, once all of its spans are at the sink."""
    contender = "opentelemetry-sdk" if app == PEER else "asynctrace"
    with open_sink() as sink:
        task = Task(contender=contender, origin=sink.origin, options={"side": side, "app": app, "requests": requests})
        measured: float = run_child(__file__, task)["cpu_microseconds"]
        sink.expect(0 if app == BARE else requests + WARM_UP)
    return measured


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    requests, rounds = scale.pick((10_000, 7), (5_000, 3), (100, 1))
    sides = {side: [_round(side, requests) for _ in range(rounds)] for side in PACKAGES}
    versions = {package: importlib.metadata.version(package) for package in PACKAGES.values()}
    details = {"requests": requests, "rounds_microseconds": sides, **versions}
    return [_figure(side, measured) for side, measured in sides.items()], details


def _round(side: str, requests: int) -> dict[str, float]:
    return {app: one_round(side, app, requests) for app in (BARE, OURS, PEER)}


def _figure(side: str, measured: list[dict[str, float]]) -> Figure:
    quickest = {app: min(one[app] for one in measured) for app in (BARE, OURS, PEER)}
    ours, peer = (max(0.01, quickest[app] - quickest[BARE]) for app in (OURS, PEER))
    return Figure(
        name=f"CPU that asynctrace adds to a request that aiohttp has {side} / that {PACKAGES[side]} adds",
        measured=ours / peer,
        unit="ratio",
        must=MUST,
        aim=AIM,
        note=f"{ours:.1f} µs against {peer:.1f} µs; without tracing {quickest[BARE]:.1f} µs",
    )


if __name__ == "__main__":
    main(
        Benchmark(
            question="How much CPU does tracing add to a request of aiohttp's server and client?",
            measure=measure,
            child=child,
        ),
        __file__,
    )
