"""A service that is traced does what W3C Trace Context asks, at level 2, over real sockets."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession, web

from asynctrace import TraceContext, Tracer
from asynctrace.exporters import MemoryExporter
from asynctrace.propagation import parse_traceparent

from .conformance import FACTS, Neighbor, ask_over, facts_that_fail, neighbor, served

pytestmark = pytest.mark.anyio

Extract = Callable[[Tracer, Any], TraceContext]
Inject = Callable[[Tracer, dict[str, str]], None]


def a_tracer() -> Tracer:
    return Tracer(service="shop", exporters=[MemoryExporter()], journal=False)


@asynccontextmanager
async def by_hand(extract: Extract = Tracer.extract, inject: Inject = Tracer.inject) -> AsyncIterator[int]:
    """A service of aiohttp that reads and writes headers itself. Gives its port."""
    async with a_tracer() as tracer, ClientSession() as session:

        async def handle(request: web.Request) -> web.Response:
            async with tracer.trace("handle", context=extract(tracer, request.headers)):
                for action in await request.json():
                    async with tracer.trace_component("call", kind="client"):
                        headers: dict[str, str] = {}
                        inject(tracer, headers)
                        async with session.post(action["url"], json=action["arguments"], headers=headers) as response:
                            await response.read()
            return web.json_response(None)

        app = web.Application()
        app.router.add_post("/test", handle)
        async with served(app) as port:
            yield port


async def failing(service: AbstractAsyncContextManager[int]) -> dict[str, str]:
    called: Neighbor
    async with neighbor() as called, service as port:
        return await facts_that_fail(ask_over(port, called))


def test_there_are_as_many_facts_as_the_w3c_tests() -> None:
    assert len(FACTS) == 41


async def test_a_service_that_reads_and_writes_headers_itself_conforms() -> None:
    assert await failing(by_hand()) == {}


# The facts themselves ----------------------------------------------------------------------------------------------


def _pairs(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items()]


def takes_the_first_of_two_parents(tracer: Tracer, headers: Mapping[str, str]) -> TraceContext:
    parents = [pair for pair in _pairs(headers) if pair[0].lower() == "traceparent"]
    return tracer.extract([*parents[:1], *(pair for pair in _pairs(headers) if pair not in parents)])


def forgets_that_ids_are_random(tracer: Tracer, headers: Mapping[str, str]) -> TraceContext:
    context = tracer.extract(headers)
    context.is_random = False
    return context


def _dropping_states(is_bad: Callable[[list[str]], Any]) -> Extract:
    def extract(tracer: Tracer, headers: Mapping[str, str]) -> TraceContext:
        context = tracer.extract(headers)
        values = ",".join(value for name, value in headers.items() if name.lower() == "tracestate")
        if is_bad([member.strip() for member in values.split(",")]):
            context.tracestate = ""
        return context

    return extract


def _keys(members: Iterable[str]) -> list[str]:
    return [member.partition("=")[0] for member in members if member]


refuses_keys_that_come_twice = _dropping_states(lambda members: len(set(_keys(members))) < len(_keys(members)))
refuses_keys_that_level_1_refused = _dropping_states(
    lambda members: any(not re.fullmatch(r"[a-z][^@]*|[a-z0-9][^@]{0,240}@[a-z].{0,13}", key) for key in _keys(members))
)
refuses_empty_members = _dropping_states(lambda members: "" in members)


def passes_on_what_it_got(tracer: Tracer, headers: dict[str, str]) -> None:
    tracer.inject(headers)
    run = tracer.current_trace()
    assert run is not None
    headers["traceparent"] = headers["traceparent"].replace(
        parse_traceparent(headers["traceparent"]).span_id,  # type: ignore[union-attr]  # it was just written
        run.span_id,
    )


BROKEN: dict[str, tuple[Callable[[], AbstractAsyncContextManager[int]], set[str]]] = {
    "takes the first of two parents": (lambda: by_hand(takes_the_first_of_two_parents), {"two traceparents are none"}),
    "forgets that ids are random": (
        lambda: by_hand(forgets_that_ids_are_random),
        {"that a trace id is random is handed on"},
    ),
    "refuses keys that come twice": (
        lambda: by_hand(refuses_keys_that_come_twice),
        {"a key that comes twice harms nothing"},
    ),
    "refuses keys that level 1 refused": (
        lambda: by_hand(refuses_keys_that_level_1_refused),
        {"a key may have @ anywhere but in front", "a key has 256 characters and no more"},
    ),
    "refuses empty members": (
        lambda: by_hand(refuses_empty_members),
        {"an empty tracestate is none, and does not harm others"},
    ),
    "is one parent for all calls": (
        lambda: by_hand(inject=passes_on_what_it_got),
        {
            "all calls of a request continue its trace",
            "each call has a parent of its own",
            "so has each behind an invalid traceparent",
        },
    ),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_the_facts_notice_a_service_that(what: str) -> None:
    make, expected = BROKEN[what]
    failed = await failing(make())
    assert set(failed) == expected
