"""What W3C Trace Context asks of a service: requests that come in, and what the requests that it makes then have to say.

A service is asked over a real socket, by bytes, to call a neighbor several times; the neighbor keeps the headers of each
call. The facts are those that the recommendation's own tests at level 2 look at, 41 of them.

Source: https://www.w3.org/TR/trace-context-2/; the test suite beside it in the W3C's repository.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiohttp import web

from asynctrace.propagation import RemoteSpan, parse_traceparent

__all__ = ["FACTS", "Ask", "Fact", "Headers", "Neighbor", "ask_over", "facts_that_fail", "neighbor"]

Headers = list[tuple[str, str]]
Ask = Callable[[Headers, int], Awaitable[list[Headers]]]
"""Sends these headers to a service that then makes so many calls; gives the headers of each."""

DEADLINE = 30.0
TRACE = "12345678901234567890123456789012"
SPAN = "1234567890123456"
ZEROS = "0" * 32


def parent(
    trace_id: str = TRACE, span_id: str = SPAN, flags: str = "01", version: str = "00", more: str = ""
) -> Headers:
    return [("traceparent", f"{version}-{trace_id}-{span_id}-{flags}{more}")]


def state(*values: str) -> Headers:
    """A caller that samples nothing, with these headers `tracestate`."""
    return [*parent(flags="00"), *(("tracestate", value) for value in values)]


class Call(NamedTuple):
    """A call that the service made."""

    span: RemoteSpan
    members: list[str]
    """Of its `tracestate`."""

    def has(self, *members: str) -> None:
        """In this order, among others."""
        places = [self.members.index(member) for member in members if member in self.members]
        assert len(places) == len(members), f"{members} are not in {self.members}"
        assert places == sorted(places), f"{members} are in another order in {self.members}"

    def lacks(self, *keys: str) -> None:
        there = {member.partition("=")[0] for member in self.members}
        assert there.isdisjoint(keys), f"{keys} are in {self.members}"


def read(headers: Headers) -> Call:
    parents = [value for name, value in headers if name.lower() == "traceparent"]
    assert len(parents) == 1, f"there is one traceparent in a call, not {parents}"
    span = parse_traceparent(parents[0])
    assert span is not None, f"a call has a valid traceparent, not {parents[0]!r}"
    states = ",".join(value for name, value in headers if name.lower() == "tracestate")
    return Call(span, [member.strip() for member in states.split(",") if member.strip()])


Check = Callable[[Call], None]


class Fact(NamedTuple):
    """Requests, each with what its calls have to say, one by one; and what they have to say together."""

    requests: list[tuple[Headers, Check]]
    calls: int = 1
    together: Callable[[list[Call]], None] = lambda calls: None


def is_valid(call: Call) -> None:
    """Which `read()` has seen."""


def goes_on(call: Call) -> None:
    assert call.span.trace_id == TRACE, f"the caller's trace goes on, not {call.span.trace_id}"
    assert call.span.span_id != SPAN, "a span of the service is the parent of its calls"


def starts_anew(*not_these: str) -> Check:
    def check(call: Call) -> None:
        assert call.span.trace_id not in (TRACE, ZEROS, *not_these), f"a trace of its own, not {call.span.trace_id}"

    return check


def is_random(call: Call) -> None:
    goes_on(call)
    assert call.span.is_random, "the flag that says so is set"


def with_state(*members: str) -> Check:
    def check(call: Call) -> None:
        goes_on(call)
        call.has(*members)

    return check


def without_state(*keys: str) -> Check:
    def check(call: Call) -> None:
        goes_on(call)
        call.lacks(*keys)

    return check


def one_of(*members: str) -> Check:
    def check(call: Call) -> None:
        goes_on(call)
        assert set(members) & set(call.members), f"one of {members} is in {call.members}"

    return check


def are_siblings(calls: list[Call]) -> None:
    assert len({call.span.trace_id for call in calls}) == 1


def are_different(calls: list[Call]) -> None:
    assert len({call.span.span_id for call in calls}) == len(calls), "each call has a parent of its own"


def both(calls: list[Call]) -> None:
    are_siblings(calls)
    are_different(calls)


def invalid(*requests: Headers, not_these: tuple[str, ...] = ()) -> Fact:
    return Fact([(headers, starts_anew(*not_these)) for headers in requests])


def valid(*requests: Headers) -> Fact:
    return Fact([(headers, goes_on) for headers in requests])


_KEY = "abcdefghijklmnopqrstuvwxyz0123456789_-*/"
_VALUE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")
_NUMBERED = [f"bar{number:02}={number:02}" for number in range(1, 34)]
_THREE = ("foo=1", "bar=2", "baz=3")

FACTS: dict[str, Fact] = {
    # traceparent
    "without headers a trace begins": Fact([([], is_valid)]),
    "a traceparent alone is continued": valid(parent()),
    "two traceparents are none": invalid([*parent(TRACE[:-1] + "1"), *parent()], not_these=(TRACE[:-1] + "1",)),
    "headers of other names are not it": invalid(
        [("trace-parent", parent()[0][1])], [("trace.parent", parent()[0][1])]
    ),
    "its name is known in any case": valid(
        *([(name, parent()[0][1])] for name in ("TraceParent", "TrAcEpArEnT", "TRACEPARENT"))
    ),
    "in version 00 nothing follows the flags": invalid(parent(more="."), parent(more="-what-the-future-brings")),
    "in a later version something may follow a dash": Fact(
        [
            (parent(version="cc"), goes_on),
            (parent(version="cc", more="-what-the-future-brings"), goes_on),
            (parent(version="cc", more=".what-the-future-brings"), starts_anew()),
        ]
    ),
    "there is no version ff": invalid(parent(version="ff")),
    "a version is hex": invalid(parent(version=".0"), parent(version="0.")),
    "a version has no more than two digits": invalid(parent(version="000"), parent(version="0000")),
    "a version has no less than two digits": invalid(parent(version="0")),
    "a trace id is not all zero": invalid(parent(ZEROS)),
    "a trace id is hex": invalid(
        parent(f".{TRACE[1:]}"), parent(f"{TRACE[:-1]}."), not_these=(f".{TRACE[1:]}", f"{TRACE[:-1]}.")
    ),
    "a trace id has no more than 32 digits": invalid(parent(f"{TRACE}3"), not_these=(f"{TRACE[1:]}3",)),
    "a trace id has no less than 32 digits": invalid(parent(TRACE[:-1])),
    "a span id is not all zero": invalid(parent(span_id="0" * 16)),
    "a span id is hex": invalid(parent(span_id=f".{SPAN[1:]}"), parent(span_id=f"{SPAN[:-1]}.")),
    "a span id has no more than 16 digits": invalid(parent(span_id=f"{SPAN}7")),
    "a span id has no less than 16 digits": invalid(parent(span_id=SPAN[:-1])),
    "flags are hex": invalid(parent(flags=".0"), parent(flags="0.")),
    "flags have no more than two digits": invalid(parent(flags="001")),
    "flags have no less than two digits": invalid(parent(flags="1")),
    "white space around a traceparent is no part of it": valid(
        *(
            [("traceparent", f"{before}{parent()[0][1]}{behind}")]
            for before, behind in ((" ", ""), ("\t", ""), ("", " "), ("", "\t"), ("\t ", " \t"))
        )
    ),
    # tracestate
    "a tracestate without a traceparent is dropped": Fact(
        [
            ([("tracestate", "foo=1")], lambda call: call.lacks("foo")),
            ([("tracestate", "foo=1,bar=2")], lambda call: call.lacks("foo", "bar")),
        ]
    ),
    "a tracestate beside a traceparent goes on": Fact([(state("foo=1,bar=2"), with_state("foo=1", "bar=2"))]),
    "headers of other names are no tracestate": Fact(
        [([*parent(), (name, "foo=1")], without_state("foo")) for name in ("trace-state", "trace.state")]
    ),
    "a tracestate's name is known in any case": Fact(
        [([*parent(), (name, "foo=1")], with_state("foo=1")) for name in ("TraceState", "TrAcEsTaTe", "TRACESTATE")]
    ),
    "an empty tracestate is none, and does not harm others": Fact(
        [(state(""), goes_on), (state("foo=1", ""), with_state("foo=1")), (state("", "foo=1"), with_state("foo=1"))]
    ),
    "several headers are one, in their order": Fact(
        [(state("foo=1,bar=2", "rojo=1,congo=2", "baz=3"), with_state("foo=1", "bar=2", "rojo=1", "congo=2", "baz=3"))]
    ),
    "a key that comes twice harms nothing": Fact(
        [
            (state("foo=1,foo=1"), with_state("foo=1")),
            (state("foo=1,foo=2"), one_of("foo=1", "foo=2")),
            (state("foo=1", "foo=1"), with_state("foo=1")),
            (state("foo=1", "foo=2"), one_of("foo=1", "foo=2")),
        ]
    ),
    "every allowed character is allowed": Fact(
        [(state(f"{key}={_VALUE}"), with_state(f"{key}={_VALUE}")) for key in (_KEY, f"{_KEY}@a-z0-9_-*/")]
    ),
    "white space around members is no part of them": Fact(
        [
            (state("foo=1 \t , \t bar=2, \t baz=3"), with_state(*_THREE)),
            (state("foo=1\t \t,\t \tbar=2,\t \tbaz=3"), with_state(*_THREE)),
            *((state(text), with_state("foo=1")) for text in (" foo=1", "\tfoo=1", "foo=1 ", "foo=1\t", "\t foo=1 \t")),
        ]
    ),
    "a key with other characters spoils a tracestate": Fact(
        [(state(text), without_state(text[:-2], text[:-2].strip())) for text in ("foo =1", "FOO=1", "foo.bar=1")]
    ),
    "a key may have @ anywhere but in front": Fact(
        [
            (state("foo@=1,bar=2"), with_state("foo@=1", "bar=2")),
            (state("@foo=1,bar=2"), without_state("@foo", "bar")),
            (state("foo@@bar=1,bar=2"), with_state("foo@@bar=1", "bar=2")),
            (state("foo@bar@baz=1,bar=2"), with_state("foo@bar@baz=1", "bar=2")),
        ]
    ),
    "there are 32 members and no more": Fact(
        [
            (state(",".join(_NUMBERED[:20]), ",".join(_NUMBERED[20:32])), with_state(*_NUMBERED[:32])),
            (state(",".join(_NUMBERED[:20]), ",".join(_NUMBERED[20:33])), without_state("bar01", "bar33")),
        ]
    ),
    "a key has 256 characters and no more": Fact(
        [
            *(
                (state("foo=1", f"{key}=1"), with_state("foo=1", f"{key}=1"))
                for key in ("z" * 256, f"{'t' * 241}@{'v' * 14}", f"{'t' * 242}@v", f"t@{'v' * 15}")
            ),
            (state("foo=1", f"{'z' * 257}=1"), without_state("foo", "z" * 257)),
        ]
    ),
    "a value has no = and is not empty": Fact(
        [(state("foo=bar=baz"), without_state("foo")), (state("foo=,bar=3"), without_state("foo", "bar"))]
    ),
    # several calls
    "all calls of a request continue its trace": Fact([(parent(), goes_on)], calls=3, together=both),
    "each call has a parent of its own": Fact([([], is_valid)], calls=3, together=are_different),
    "so has each behind an invalid traceparent": Fact(
        [(parent(ZEROS), starts_anew())], calls=3, together=are_different
    ),
    # level 2
    "that a trace id is random is handed on": Fact([(parent(flags="02"), is_random)]),
}


async def facts_that_fail(ask: Ask) -> dict[str, str]:
    """What each of them says."""
    failed = {}
    for name, fact in FACTS.items():
        try:
            for headers, check in fact.requests:
                calls = [read(found) for found in await ask(headers, fact.calls)]
                for call in calls:
                    check(call)
                fact.together(calls)
        except AssertionError as error:
            failed[name] = str(error).partition("\n")[0]
    return failed


# The sockets -------------------------------------------------------------------------------------------------------


class Neighbor:
    """Whom the service calls. Keeps the headers of the calls."""

    def __init__(self) -> None:
        self.calls: list[Headers] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.calls.append(list(request.headers.items()))
        return web.json_response(None)


@asynccontextmanager
async def neighbor() -> AsyncIterator[Neighbor]:
    called = Neighbor()
    app = web.Application()
    app.router.add_post("/called", called.answer)
    async with served(app) as port:
        called.url = f"http://127.0.0.1:{port}/called"
        yield called


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[int]:
    """An application of aiohttp on a port that the system chose."""
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def ask_over(port: int, called: Neighbor) -> Ask:
    """Asks the service on this port by bytes: no client says anything of its own, or puts headers together."""

    async def ask(headers: Headers, calls: int) -> list[Headers]:
        called.calls.clear()
        async with asyncio.timeout(DEADLINE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"".join(_request(headers, [{"url": called.url, "arguments": []}] * calls)))
                answer = await reader.read()
            finally:
                writer.close()
                await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
        assert len(called.calls) == calls
        return list(called.calls)

    return ask


def _request(headers: Headers, actions: list[dict[str, object]]) -> Iterator[bytes]:
    body = json.dumps(actions).encode()
    own = [("Host", "service"), ("Connection", "close"), ("Content-Type", "application/json")]
    yield b"POST /test HTTP/1.1\r\n"
    for name, value in [*own, ("Content-Length", str(len(body))), *headers]:
        yield f"{name}: {value}\r\n".encode()
    yield b"\r\n" + body
