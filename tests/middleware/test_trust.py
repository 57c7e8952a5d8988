"""A door believes its callers as far as it was told to: continue, link, ignore."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from starlette.datastructures import Headers

from asynctrace import ConfigurationError, Link, TraceContext, Tracer
from asynctrace.exporters import MemoryExporter
from asynctrace.middleware._trust import Trust, parse_trust, place_request

from ..propagation.values import ANY_SPEED

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PAIRS = [("traceparent", f"00-{TRACE}-{SPAN}-03"), ("tracestate", "a=1"), ("tracestate", "b=2"), ("baggage", "t=1")]
RAW = [(name.encode(), value.encode()) for name, value in PAIRS]
FORMS: dict[str, Callable[[], Any]] = {
    "pairs of bytes, as ASGI has them": lambda: RAW,
    "an iterator of them": lambda: iter(RAW),
    "pairs of text": lambda: PAIRS,
    "headers of aiohttp": lambda: CIMultiDictProxy(CIMultiDict([(name.title(), value) for name, value in PAIRS])),
    "headers of Starlette": lambda: Headers(raw=RAW),
    "beside a header that is called like our carriers": lambda: CIMultiDict([*PAIRS, ("asynctrace", "{}")]),
}
LINK = Link(trace_id=TRACE, span_id=SPAN, trace_state="a=1,b=2", flags=0x303)

Place = Callable[[Any, Trust], tuple[TraceContext | None, tuple[Link, ...]]]


def check(place: Place) -> None:
    for what, make in FORMS.items():
        context, links = place(make(), Trust.CONTINUE)
        assert context is not None, what
        assert (context.trace_id, context.span_id, context.tracestate) == (TRACE, SPAN, "a=1,b=2"), what
        assert (context.is_sampled, context.is_random, context.baggage, links) == (True, True, {"t": "1"}, ()), what
        assert place(make(), Trust.LINK) == (None, (LINK,)), what
        assert place(make(), Trust.IGNORE) == (None, ()), what


def test_a_callers_trace_is_continued_linked_or_not_even_read() -> None:
    check(place_request)


@pytest.mark.parametrize("trust", Trust)
def test_without_a_caller_a_trace_begins(trust: Trust) -> None:
    context, links = place_request([(b"host", b"a")], trust)
    assert (context is None or not context.trace_id, links) == (True, ())


def test_a_tracers_propagators_read_the_headers() -> None:
    headers = {"b3": f"{TRACE}-{SPAN}-0", "traceparent": PAIRS[0][1]}
    with Tracer(service="shop", exporters=[MemoryExporter()], journal=False, propagators=["b3"]) as tracer:
        _, links = place_request(headers, Trust.LINK, tracer)
        assert links == (Link(trace_id=TRACE, span_id=SPAN, flags=0x300),)


@pytest.mark.parametrize("trust", [Trust.CONTINUE, Trust.LINK])
def test_a_caller_that_is_malformed_is_counted_and_not_linked(trust: Trust) -> None:
    memory = MemoryExporter()
    with Tracer(service="shop", exporters=[memory], journal=False) as tracer:
        context, links = place_request([(b"traceparent", b"00-no"), (b"baggage", b"t=1")], trust, tracer)
        with tracer.trace("request", context=context, links=links) as run:
            assert run.baggage == ({"t": "1"} if trust is Trust.CONTINUE else {})
        assert tracer.statistics().ignored_contexts == {"malformed": 1}
        tracer.flush_sync()
    assert memory.spans[0].links == ()
    assert memory.spans[0].parent_id == ""


def test_a_request_at_a_public_edge_has_a_trace_of_its_own_that_links_to_the_callers() -> None:
    memory = MemoryExporter()
    with Tracer(service="shop", exporters=[memory], journal=False) as tracer:
        context, links = place_request(RAW, Trust.LINK, tracer)
        with tracer.trace("request", context=context, links=links) as run:
            assert (run.baggage, run.tracestate) == ({}, "")
            assert run.trace_id != TRACE
        tracer.flush_sync()
    assert memory.spans[0].links == (LINK,)


@pytest.mark.parametrize("trust", [*Trust, "continue", "link", "ignore"])
def test_it_is_said_by_member_or_text(trust: Any) -> None:
    assert parse_trust(trust) is Trust(trust)


@pytest.mark.parametrize("trust", ["", "CONTINUE", True, None, 7, [Trust.LINK]])
def test_anything_else_is_told_at_once(trust: Any) -> None:
    with pytest.raises(ConfigurationError, match='"continue", "link" or "ignore"'):
        parse_trust(trust)


NAMES = st.sampled_from([b"traceparent", b"tracestate", b"baggage", b"b3", b"", "Traceparent"])


@ANY_SPEED
@given(st.lists(st.tuples(NAMES, st.binary() | st.text())), st.sampled_from(Trust))
def test_no_headers_make_it_raise(pairs: list[Any], trust: Trust) -> None:
    place_request(pairs, trust)


# The check itself ------------------------------------------------------------------------------------------------


def takes_baggage_from_anybody(headers: Any, trust: Trust) -> tuple[TraceContext | None, tuple[Link, ...]]:
    context, _ = place_request(headers, Trust.CONTINUE)
    return context if trust is Trust.LINK else None, ()


def links_and_continues(headers: Any, trust: Trust) -> tuple[TraceContext | None, tuple[Link, ...]]:
    pairs = list(headers.items() if hasattr(headers, "items") else headers)
    return place_request(pairs, Trust.CONTINUE)[0], place_request(pairs, trust)[1]


def reads_one_value_of_a_name(headers: Any, trust: Trust) -> tuple[TraceContext | None, tuple[Link, ...]]:
    return place_request(dict(headers.items() if hasattr(headers, "items") else headers), trust)


@pytest.mark.parametrize("broken", [takes_baggage_from_anybody, links_and_continues, reads_one_value_of_a_name])
def test_the_check_notices_a_door_that(broken: Place) -> None:
    with pytest.raises(AssertionError):
        check(broken)
