"""Trace context is found in whatever headers come in, and written so that whoever reads it finds one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from email.message import Message
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy, MultiDict
from starlette.datastructures import Headers, MutableHeaders

from asynctrace._errors import MisuseError
from asynctrace.propagation import RemoteSpan, extract_headers, format_traceparent, inject_headers, parse_traceparent

from .odd import Angry
from .values import ANY_SPEED, SPANS, a_span

Extract = Callable[[Any], RemoteSpan | None]
Inject = Callable[[MutableMapping[str, str], RemoteSpan], None]

SPAN = a_span()
WITH_STATE = a_span(tracestate="foo=1,bar=2")
TEXT = format_traceparent(SPAN)
OTHER = format_traceparent(a_span(span_id="b7ad6b7169203331"))


class Message2(Message):
    """As `http.client` and `email` give them: names in any case, `items()`, and no mapping by its class."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        super().__init__()
        for name, value in pairs:
            self[name] = value


FOUND: dict[str, tuple[Any, RemoteSpan]] = {
    "a mapping": ({"traceparent": TEXT}, SPAN),
    "a mapping with more": ({"host": "a", "traceparent": TEXT, "tracestate": "foo=1,bar=2"}, WITH_STATE),
    "names in another case": ({"TraceParent": TEXT, "TRACESTATE": "foo=1,bar=2"}, WITH_STATE),
    "an environment": ({"HOME": "/", "TRACEPARENT": TEXT, "PATH": ":"}, SPAN),
    "bytes": ({b"traceparent": TEXT.encode(), b"TraceState": b"foo=1,bar=2"}, WITH_STATE),
    "pairs of bytes, as ASGI has them": (
        [(b"host", b"a"), (b"traceparent", TEXT.encode()), (b"tracestate", b"foo=1"), (b"tracestate", b"bar=2")],
        WITH_STATE,
    ),
    "pairs as lists, as JSON has them": ([["traceparent", TEXT]], SPAN),
    "an iterable of pairs": (dict.fromkeys([("traceparent", TEXT)]).keys(), SPAN),
    "bytes that are no UTF-8 beside it": ([(b"\xff", b"\xff"), (b"traceparent", TEXT.encode())], SPAN),
    "lists of values": ({"traceparent": [TEXT], "tracestate": ["foo=1", "bar=2"]}, WITH_STATE),
    "tuples of bytes": ({"traceparent": (TEXT.encode(),), "tracestate": (b"foo=1,bar=2",)}, WITH_STATE),
    "the same twice": ([("traceparent", TEXT), ("Traceparent", f" {TEXT}\t")], SPAN),
    "headers of Starlette": (
        Headers(raw=[(b"traceparent", TEXT.encode()), (b"tracestate", b"foo=1"), (b"tracestate", b"bar=2")]),
        WITH_STATE,
    ),
    "headers of aiohttp": (
        CIMultiDictProxy(CIMultiDict([("Traceparent", TEXT), ("Tracestate", "foo=1"), ("tracestate", "bar=2")])),
        WITH_STATE,
    ),
    "a multi-mapping that keeps case": (MultiDict([("Tracestate", "foo=1,bar=2"), ("traceparent", TEXT)]), WITH_STATE),
    "headers of httpx": (
        httpx.Headers([("traceparent", TEXT), ("tracestate", "foo=1"), ("tracestate", "bar=2")]),
        WITH_STATE,
    ),
    "headers of http.client": (
        Message2(("Traceparent", TEXT), ("tracestate", "foo=1"), ("tracestate", "bar=2")),
        WITH_STATE,
    ),
    "an invalid tracestate": ({"traceparent": TEXT, "tracestate": "foo=1,foo=,bar=2"}, SPAN),
    "a tracestate that is no text": ({"traceparent": TEXT, "tracestate": 7}, SPAN),
    "odd things beside it": ([("traceparent", TEXT), (7, 8), None, "ab", ("traceparent",), (None, TEXT)], SPAN),
}

NOT_FOUND: dict[str, Any] = {
    "nothing": {},
    "no pairs": [],
    "other headers": {"host": "a"},
    "other names": {"trace-parent": TEXT, "trace.parent": TEXT, "traceparent ": TEXT, "traceparents": TEXT},
    "a tracestate alone": {"tracestate": "foo=1"},
    "an invalid one": {"traceparent": TEXT.upper()},
    "two": [("traceparent", TEXT), ("traceparent", OTHER)],
    "two in another case": {"traceparent": TEXT, "Traceparent": OTHER},
    "two in a list": {"traceparent": [TEXT, OTHER]},
    "two of which one is invalid": [("traceparent", TEXT), ("traceparent", "no")],
    "two in one": httpx.Headers([("traceparent", TEXT), ("traceparent", TEXT)]),  # joined by a comma
    "no text": {"traceparent": 7},
    "no value": {"traceparent": None},
    "no values": {"traceparent": []},
    "bytes that are no text": {"traceparent": b"\xff\xfe"},
}


def check_extract(extract: Extract) -> None:
    for what, (carrier, span) in FOUND.items():
        assert extract(carrier) == span, what
    for what, carrier in NOT_FOUND.items():
        assert extract(carrier) is None, what


@pytest.mark.parametrize("what", FOUND)
def test_it_is_found_in(what: str) -> None:
    carrier, span = FOUND[what]
    assert extract_headers(carrier) == span


@pytest.mark.parametrize("what", NOT_FOUND)
def test_it_is_not_found_in(what: str) -> None:
    assert extract_headers(NOT_FOUND[what]) is None


def test_an_iterable_without_an_end_is_left_after_a_while() -> None:
    pairs = zip(itertools.count(), itertools.count(), strict=True)
    assert extract_headers(itertools.chain([("traceparent", TEXT)], pairs)) == SPAN


class Raises(dict[str, str]):
    def items(self) -> Any:
        raise OSError("the far side is gone")


def test_a_carrier_that_raises_has_none() -> None:
    assert extract_headers(Raises(traceparent=TEXT)) is None
    assert extract_headers(Angry()) is None  # type: ignore[arg-type]  # all that can be asked of it raises


def test_what_raises_inside_is_ignored() -> None:
    assert extract_headers([Angry(), (Angry(), Angry()), ("tracestate", Angry()), ("traceparent", TEXT)]) == SPAN


@pytest.mark.parametrize("carrier", [None, 7, TEXT, TEXT.encode(), object()], ids=lambda value: type(value).__name__)
def test_what_has_no_headers_is_a_type_error_that_names_it(carrier: Any) -> None:
    with pytest.raises(TypeError, match=type(carrier).__name__):
        extract_headers(carrier)


ODD = st.recursive(
    st.none() | st.integers() | st.text() | st.binary() | st.sampled_from(["traceparent", "tracestate", TEXT, "a=1"]),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.binary(), inner),
    max_leaves=10,
)


@ANY_SPEED
@given(st.lists(st.tuples(ODD, ODD) | ODD) | st.dictionaries(st.sampled_from(["traceparent", b"tracestate"]), ODD))
def test_no_pairs_make_it_raise(pairs: Any) -> None:
    assert extract_headers(pairs) in (None, SPAN, a_span(tracestate="a=1"))


# Written -----------------------------------------------------------------------------------------------------------


class NamesTwice(dict[str, str]):
    """A multi-mapping with two values for each name, which deletes both at once."""

    def __iter__(self) -> Iterator[str]:
        for name in super().__iter__():
            yield from (name, name)


BEFORE: dict[str, Callable[[], Any]] = {
    "nothing": dict,
    "others": lambda: {"host": "a", "Trace": "b"},
    "old ones": lambda: {"traceparent": OTHER, "tracestate": "old=1"},
    "old ones in another case": lambda: {"Traceparent": OTHER, "TRACESTATE": "old=1", "TRACEPARENT": "x"},
    "keys that are no text": lambda: {7: "a", b"Traceparent": OTHER},
    "a CIMultiDict": lambda: CIMultiDict([("Traceparent", OTHER), ("TRACEPARENT", OTHER), ("Tracestate", "old=1")]),
    "a MultiDict": lambda: MultiDict([("Traceparent", OTHER), ("traceparent", OTHER), ("tracestate", "old=1")]),
    "headers of httpx": lambda: httpx.Headers([("Traceparent", OTHER), ("tracestate", "old=1"), ("tracestate", "b=2")]),
    "a multi-mapping that names each twice": lambda: NamesTwice({"Traceparent": OTHER, "tracestate": "old=1"}),
    "headers of Starlette": lambda: MutableHeaders({"Traceparent": OTHER, "tracestate": "old=1"}),
}


def check_inject(inject: Inject) -> None:
    for what, make in BEFORE.items():
        for span in (SPAN, WITH_STATE):
            carrier = make()
            kept = [key for key in carrier if _plain(key) not in ("traceparent", "tracestate")]
            inject(carrier, span)
            assert extract_headers(carrier) == span, what
            assert carrier["traceparent"] == TEXT, what
            assert ("tracestate" in carrier) is bool(span.tracestate), what
            assert [key for key in carrier if _plain(key) not in ("traceparent", "tracestate")] == kept, what


def _plain(key: object) -> str:
    return key.decode().lower() if isinstance(key, bytes) else str(key).lower()


def check_that_only_valid_state_is_written(inject: Inject) -> None:
    for tracestate in ("a", "a=1\r\nx-admin: 1", "a=1,A=2", "a=é", ","):
        carrier: dict[str, str] = {}
        inject(carrier, a_span(tracestate=tracestate))
        assert carrier == {"traceparent": TEXT}, tracestate


@pytest.mark.parametrize("check", [check_inject, check_that_only_valid_state_is_written])
def test_what_is_written_is_what_a_reader_finds(check: Callable[[Inject], None]) -> None:
    check(inject_headers)


def test_a_span_that_no_header_can_name_changes_nothing() -> None:
    carrier = {"Traceparent": OTHER}
    with pytest.raises(MisuseError):
        inject_headers(carrier, a_span(trace_id=""))
    assert carrier == {"Traceparent": OTHER}


@ANY_SPEED
@given(SPANS, st.dictionaries(st.text(), st.text()))
def test_what_is_written_beside_anything_is_read_back(span: RemoteSpan, carrier: dict[str, str]) -> None:
    inject_headers(carrier, span)
    assert extract_headers(carrier) == span


# The checks themselves -------------------------------------------------------------------------------------------


def knows_one_case(carrier: Any) -> RemoteSpan | None:
    names = ("traceparent", "tracestate", b"traceparent", b"tracestate")
    pairs = carrier.items() if hasattr(carrier, "items") else carrier
    return extract_headers([pair for pair in pairs if isinstance(pair, tuple | list) and pair[0] in names])


def knows_text_only(carrier: Any) -> RemoteSpan | None:
    pairs = carrier.items() if hasattr(carrier, "items") else carrier
    return extract_headers([pair for pair in pairs if isinstance(pair, tuple | list) and isinstance(pair[0], str)])


def asks_a_mapping_for_one_value(carrier: Any) -> RemoteSpan | None:
    return extract_headers({name: carrier[name] for name in carrier} if isinstance(carrier, Mapping) else carrier)


def takes_the_first_of_two(carrier: Any) -> RemoteSpan | None:
    pairs = list(carrier.items() if hasattr(carrier, "items") else carrier)
    parents = [pair for pair in pairs if extract_headers([pair])]
    return extract_headers([*parents[:1], *(pair for pair in pairs if pair not in parents)]) if parents else None


def lets_the_state_decide(carrier: Any) -> RemoteSpan | None:
    span = extract_headers(carrier)
    return span if span is None or span.tracestate or "tracestate" not in carrier else None


@pytest.mark.parametrize(
    "broken",
    [knows_one_case, knows_text_only, asks_a_mapping_for_one_value, takes_the_first_of_two, lets_the_state_decide],
)
def test_the_check_notices_a_reader_that(broken: Extract) -> None:
    with pytest.raises(AssertionError):
        check_extract(broken)


def test_the_check_passes_for_the_real_reader() -> None:
    check_extract(extract_headers)


def leaves_old_ones_in_another_case(carrier: MutableMapping[str, str], span: RemoteSpan) -> None:
    carrier["traceparent"] = format_traceparent(span)
    carrier.pop("tracestate", None)
    if span.tracestate:
        carrier["tracestate"] = span.tracestate


def leaves_the_old_state(carrier: MutableMapping[str, str], span: RemoteSpan) -> None:
    state = carrier.get("tracestate")
    inject_headers(carrier, span)
    if state is not None and not span.tracestate:
        carrier["tracestate"] = state


def removes_the_others(carrier: MutableMapping[str, str], span: RemoteSpan) -> None:
    for name in list(carrier):
        if name in carrier:
            del carrier[name]
    inject_headers(carrier, span)


def writes_an_empty_state(carrier: MutableMapping[str, str], span: RemoteSpan) -> None:
    inject_headers(carrier, span)
    carrier.setdefault("tracestate", "")


@pytest.mark.parametrize(
    "broken",
    [leaves_old_ones_in_another_case, leaves_the_old_state, removes_the_others, writes_an_empty_state],
)
def test_the_check_notices_a_writer_that(broken: Inject) -> None:
    with pytest.raises((AssertionError, AttributeError)):
        check_inject(broken)


def writes_any_state(carrier: MutableMapping[str, str], span: RemoteSpan) -> None:
    carrier["traceparent"], carrier["tracestate"] = format_traceparent(span), span.tracestate


def test_a_writer_of_any_state_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_that_only_valid_state_is_written(writes_any_state)


def test_two_parents_that_are_valid_by_themselves_differ() -> None:
    assert parse_traceparent(TEXT) != parse_traceparent(OTHER)
