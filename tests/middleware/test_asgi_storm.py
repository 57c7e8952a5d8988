"""Many streaming responses at once, most of whose clients leave early: each is one trace, and nothing is left."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from asynctrace import Span, Tracer
from asynctrace.middleware import ASGIMiddleware, _exchange

from .asgi import PATIENCE, InThread, Server, http_scope, until, watched

pytestmark = pytest.mark.anyio

NEVER = 1e6
CHUNKS = 6


def application(tracer: Tracer) -> Any:
    """Streams until its client has had enough; each chunk has a component, and each component a log of whose it is."""
    from starlette.applications import Starlette
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    async def stream(request: Any) -> StreamingResponse:
        client = request.query_params["client"]

        async def chunks() -> Any:
            for _ in range(CHUNKS):
                async with tracer.trace_component("chunk") as component:
                    component.set_attribute("client", client)
                    await asyncio.sleep(0)
                yield b"tea\n"
            if "all" not in request.query_params:
                async with tracer.trace_component("wait"):
                    await asyncio.sleep(600)

        return StreamingResponse(chunks())

    return Starlette(routes=[Route("/stream", stream)])


def check_traces(spans: tuple[Span, ...], clients: int, complete: set[int]) -> None:
    """One trace for each client; its spans are its own, below its request, which ended as its client left."""
    requests = {span.trace_id: span for span in spans if not span.parent_id}
    assert len(requests) == clients
    assert {span.name for span in requests.values()} == {"GET /stream"}
    below: dict[str, list[Span]] = {trace_id: [] for trace_id in requests}
    for span in spans:
        if span.parent_id:
            assert span.parent_id == requests[span.trace_id].span_id
            below[span.trace_id].append(span)
    endings = Counter()
    for trace_id, request in requests.items():
        client = str(request.attributes["url.query"]).partition("client=")[2].partition("&")[0]
        assert {span.attributes["client"] for span in below[trace_id] if span.name == "chunk"} <= {client}
        assert request.ending == ("ok" if int(client) in complete else "cancelled")
        if int(client) in complete:
            assert Counter(span.name for span in below[trace_id]) == {"chunk": CHUNKS}
        endings[request.ending] += 1
    assert endings == {"ok": len(complete), "cancelled": clients - len(complete)}


async def storm_in_process(tracer: Tracer, clients: int, complete: set[int]) -> None:
    """Every client is there at once; those who leave do so after a chunk of their own choice."""
    app = ASGIMiddleware(application(tracer), tracer, background_after=NEVER)
    chance = random.Random(7)

    async def ask(client: int) -> None:
        query = f"client={client}" + ("&all=1" if client in complete else "")
        server = Server(app, http_scope("/stream", query_string=query.encode()))
        async with asyncio.TaskGroup() as group:
            group.create_task(server.run())
            if client not in complete:
                enough = chance.randrange(1, CHUNKS)
                await until(lambda: len(server.sent) > enough, "its chunks")
                server.leave()

    async with asyncio.timeout(8 * PATIENCE), asyncio.TaskGroup() as group:
        for client in range(clients):
            group.create_task(ask(client))


async def storm_of_sockets(tracer: Tracer, clients: int, complete: set[int]) -> None:
    with InThread(ASGIMiddleware(application(tracer), tracer, background_after=NEVER), backlog=clients) as server:

        async def ask(client: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            query = f"client={client}" + ("&all=1" if client in complete else "")
            writer.write(f"GET /stream?{query} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n".encode())
            if client in complete:
                assert (await reader.read(-1)).count(b"tea") == CHUNKS
            else:
                await reader.readuntil(b"tea")
            writer.close()

        async with asyncio.timeout(4 * PATIENCE):
            await asyncio.gather(*(ask(client) for client in range(clients)))
        await until(lambda: tracer.statistics().open == 0, "no open span")


async def check_storm(storm: Callable[..., Any], clients: int, log: pytest.LogCaptureFixture) -> None:
    complete = set(range(0, clients, 5))
    with log.at_level(logging.ERROR):
        async with watched() as captured:
            await storm(captured.tracer, clients, complete)
            await captured.flush()
            check_traces(captured.spans, clients, complete)
    assert [record for record in log.records if record.levelno >= logging.ERROR] == []
    assert captured.tracer.statistics().late_calls == {}


@pytest.mark.parametrize("storm", [storm_in_process, storm_of_sockets])
async def test_two_hundred_streams_are_each_one_trace(storm: Any, caplog: pytest.LogCaptureFixture) -> None:
    await check_storm(storm, 200, caplog)


@pytest.mark.long
@pytest.mark.parametrize("storm", [storm_in_process, storm_of_sockets])
async def test_a_thousand_streams_are_each_one_trace(storm: Any, caplog: pytest.LogCaptureFixture) -> None:
    await check_storm(storm, 1000, caplog)


async def test_a_door_that_does_not_hear_clients_leave_is_noticed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def deaf(self: Any) -> Any:
        return await self._receive()

    monkeypatch.setattr(_exchange.HTTPExchange, "receive", deaf)
    with pytest.raises(AssertionError):
        await check_storm(storm_in_process, 20, caplog)


async def test_a_door_that_keeps_one_run_for_all_is_noticed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shared: list[Any] = []
    run_of = ASGIMiddleware._run

    def one_for_all(self: Any, tracer: Any, scope: Any) -> Any:
        shared.append(run_of(self, tracer, scope))
        return shared[0]

    monkeypatch.setattr(ASGIMiddleware, "_run", one_for_all)
    with pytest.raises((AssertionError, KeyError)):
        await check_storm(storm_in_process, 20, caplog)
