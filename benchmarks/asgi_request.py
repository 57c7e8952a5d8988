"""How much CPU does tracing add to a request of an ASGI application?

One process serves requests with the application alone, one through `ASGIMiddleware`, one through
`opentelemetry-instrumentation-asgi` with its SDK and batch processor. The application reads the body, leaves its route in the
scope as Starlette does and answers in two messages; the scope is what uvicorn makes of a browser's request that names a
parent. No socket and no framework: they cost the same with and without tracing, and more than both.

Counted: `time.process_time()` from the first request until the far side has acknowledged every span, less what the same
requests cost without tracing, in the same round. The peer is measured twice: as its manual shows it, with spans for messages
too, which is what the bound is about; and told to make one span a request.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from _common import Benchmark, Figure, Scale, Task, main, open_sink, run_child
from _contenders import Contender, make_contender

App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]

BARE, OURS, PEER, PEER_OF_ONE_SPAN = "bare", "asynctrace", "opentelemetry", "opentelemetry, one span"
SPANS = {BARE: 0, OURS: 1, PEER: 4, PEER_OF_ONE_SPAN: 1}
"""For each request. By default the peer has one for each message, too."""
PACKAGE = "opentelemetry-instrumentation-asgi"
MUST, AIM = 1 / 5, 1 / 7
WARM_UP = 200
BETWEEN_TURNS = 50
"""Requests between two turns of the event loop, so that lanes and threads can work."""

HEADERS = [
    (b"host", b"shop.example.com"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"accept-language", b"en-US,en;q=0.5"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"connection", b"keep-alive"),
    (b"cookie", b"theme=dark; consent=yes"),
    (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
]


class Route:
    path_format = "/items/{id}"


ROUTE = Route()


async def application(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    await receive()
    scope["route"] = ROUTE
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"tea"})


def traced(app: str, contender: Contender) -> App:
    if app == BARE:
        return application
    if app == OURS:
        from asynctrace.middleware import ASGIMiddleware

        return ASGIMiddleware(application, contender.tracer, background_after=60)  # type: ignore[attr-defined]
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    options: dict[str, Any] = {"exclude_spans": ["receive", "send"]} if app == PEER_OF_ONE_SPAN else {}
    provider = contender._provider  # type: ignore[attr-defined]
    return OpenTelemetryMiddleware(application, tracer_provider=provider, **options)


async def serve(app: App, requests: int) -> None:
    for number in range(requests):
        await app(_scope(number), _receive, _send)
        if not number % BETWEEN_TURNS:
            await asyncio.sleep(0)


def _scope(number: int) -> MutableMapping[str, Any]:
    path = f"/items/{number}"
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50123),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"page=2&sort=price",
        "headers": HEADERS,
        "state": {},
    }


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: MutableMapping[str, Any]) -> None:
    return None


async def child(task: Task) -> dict[str, Any]:
    contender = make_contender(task.contender)
    await contender.start(task.origin, roomy=True)
    app, requests = traced(task.options["app"], contender), task.options["requests"]
    await serve(app, WARM_UP)
    await contender.settle()
    begin = time.process_time_ns()
    await serve(app, requests)
    await contender.settle()
    seconds = (time.process_time_ns() - begin) / 1e9
    await contender.stop()
    return {"cpu_microseconds": seconds / requests * 1e6}


def one_round(app: str, requests: int) -> float:
    """CPU microseconds for each request, once all of its spans are at the sink."""
    contender = "opentelemetry-sdk" if app.startswith(PEER) else "asynctrace"
    with open_sink() as sink:
        task = Task(contender=contender, origin=sink.origin, options={"app": app, "requests": requests})
        measured: float = run_child(__file__, task)["cpu_microseconds"]
        sink.expect((requests + WARM_UP) * SPANS[app])
    return measured


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    requests, rounds = scale.pick((10_000, 7), (5_000, 3), (100, 1))
    measured = [{app: one_round(app, requests) for app in SPANS} for _ in range(rounds)]
    quickest = {app: min(one[app] for one in measured) for app in SPANS}
    added = {app: max(0.01, quickest[app] - quickest[BARE]) for app in SPANS if app != BARE}
    figures = [
        Figure(
            name=f"CPU that asynctrace adds to a request / that {PACKAGE} adds",
            measured=added[OURS] / added[PEER],
            unit="ratio",
            must=MUST,
            aim=AIM,
            note=f"{added[PEER]:.1f} µs, in {SPANS[PEER]} spans a request",
        ),
        Figure(
            name="the same, where that one makes one span a request, too",
            measured=added[OURS] / added[PEER_OF_ONE_SPAN],
            unit="ratio",
            note=f"{added[PEER_OF_ONE_SPAN]:.1f} µs",
        ),
        Figure(
            name="CPU that asynctrace adds to a request",
            measured=added[OURS],
            unit="µs",
            note=f"without tracing {quickest[BARE]:.1f} µs",
        ),
    ]
    details = {"requests": requests, "rounds_microseconds": measured, PACKAGE: importlib.metadata.version(PACKAGE)}
    return figures, details


if __name__ == "__main__":
    main(
        Benchmark(question="How much CPU does tracing add to a request?", measure=measure, child=child),
        __file__,
    )
