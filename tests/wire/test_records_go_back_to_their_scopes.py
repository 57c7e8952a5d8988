"""A record that names another scope by its attributes stands in that scope in the request, without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from asynctrace import wire
from asynctrace._contracts import Resource, Scope, Span

from . import _official as official

OWN = Scope(name="asynctrace", version="1")
RESOURCE = Resource(attributes={"service.name": "shop"})
Scoped: TypeAlias = tuple[Scope | None, Span]
Encode: TypeAlias = Callable[[Sequence[bytes]], bytes]

A_SPAN = Span(trace_id="ab" * 16, span_id="cd" * 8, name="GET", start_ns=1, end_ns=2, attributes={"a": 1, "b": "two"})
LIBRARY = Scope(name="library", version="2", attributes={"tier": 1}, schema_url="https://example.org/1")


def record_of(scope: Scope | None, span: Span) -> bytes:
    """As the tracer writes it: name and kind, what names the scope, the times, and then what the user has set."""
    bare = msgspec.structs.replace(span, attributes={}, name="", kind=0, start_ns=0, end_ns=0)
    front = wire.encode_span(Span(trace_id="", span_id="", name=span.name, kind=span.kind))
    fields = wire.scope_fields(scope) if scope is not None else b""
    rest = wire.encode_span(
        Span(trace_id="", span_id="", start_ns=span.start_ns, end_ns=span.end_ns, attributes=span.attributes)
    )
    return wire.frame(wire.encode_span(bare) + front + fields + rest)


def encode(records: Sequence[bytes]) -> bytes:
    groups = wire.group_by_scope(map(wire.take_scope, records))
    return wire.encode_scoped_request(wire.encode_resource(RESOURCE), wire.encode_scope(OWN), groups)


def check(given_spans: Sequence[Scoped], encode_request: Encode = encode) -> None:
    """The official parser finds each span in its scope, in order, and nothing else on it."""
    records = [record_of(scope, span) for scope, span in given_spans]
    body = encode_request(records)
    request = ExportTraceServiceRequest.FromString(body)
    assert len(request.resource_spans) == 1
    found = {(group.scope.name, group.scope.schema_url): group for group in official.groups_of(request)}
    assert len(found) == len(official.groups_of(request)), "one for each scope"
    for scope in {scope or OWN: None for scope, _ in _hashable(given_spans)}:
        group = found.pop((scope.scope.name, scope.scope.schema_url))
        assert official.exact(group.scope) == official.exact(scope.scope)
        wanted = [span for its, span in given_spans if (its or OWN) == scope.scope]
        assert [official.exact(span) for span in group.spans] == [official.exact(span) for span in wanted]
    assert not found
    payload = sum(map(len, records))
    assert len(body) <= wire.request_size(wire.encode_resource(RESOURCE), wire.encode_scope(OWN), payload)


class _Key:
    """A scope that can be a key."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.scope == self.scope

    def __hash__(self) -> int:
        return hash((self.scope.name, self.scope.schema_url))


def _hashable(given_spans: Sequence[Scoped]) -> list[tuple[_Key, Span]]:
    return [(_Key(scope or OWN), span) for scope, span in given_spans]


def numbered(*scopes: Scope | None) -> list[Scoped]:
    return [(scope, msgspec.structs.replace(A_SPAN, name=f"span {n}")) for n, scope in enumerate(scopes)]


LONG = Scope(name="n" * 200, version="v" * 200)
MIXED = numbered(None, LIBRARY, Scope(name="other"), LIBRARY, LONG, None, Scope(name=""))


def test_each_record_stands_in_its_own_scope_and_without_the_attributes() -> None:
    check(MIXED)
    check(numbered(LIBRARY))
    check(numbered(None))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scopes = st.none() | st.builds(
    Scope,
    name=texts,
    version=texts,
    schema_url=texts,
    attributes=st.dictionaries(st.text("abc.", min_size=1, max_size=5), official.scalars, max_size=2),
)


@st.composite
def some_spans(draw: st.DrawFn) -> list[Scoped]:
    known = draw(
        st.lists(
            scopes, min_size=1, max_size=3, unique_by=lambda s: (s.name, s.schema_url) if s else ("asynctrace", "")
        )
    )
    return [(draw(st.sampled_from(known)), draw(official.spans)) for _ in range(draw(st.integers(0, 5)))]


@given(some_spans())
@settings(deadline=None, max_examples=60)
def test_whatever_spans_hold_they_keep_it_and_their_scope(given_spans: list[Scoped]) -> None:
    if given_spans:
        check(given_spans)


@given(official.spans)
@settings(deadline=None, max_examples=40)
def test_a_text_that_looks_like_a_scope_is_none(span: Span) -> None:
    looks_so = wire.scope_fields(LIBRARY).decode("utf-8", "ignore")
    odd = msgspec.structs.replace(span, name=looks_so, attributes={"otel.scope": looks_so, **span.attributes})
    record = wire.frame(wire.encode_span(odd))
    assert wire.take_scope(record) == (b"", record)


def test_a_record_whose_fields_stand_in_order_of_number_is_read_too() -> None:
    """As after `set_attribute("otel.scope.name", …)`, which has the record encoded anew."""
    named = {"otel.scope.name": "library", "otel.scope.version": "3", "mine": 1}
    fields, rest = wire.take_scope(wire.frame(wire.encode_span(msgspec.structs.replace(A_SPAN, attributes=named))))
    assert wire.scope_of(fields) == Scope(name="library", version="3")
    assert wire.decode_records([rest])[0].attributes == {"mine": 1}


def that_forgets_the_schema(records: Sequence[bytes]) -> bytes:
    taken = [wire.take_scope(record) for record in records]
    bare = [
        (wire.scope_fields(msgspec.structs.replace(wire.scope_of(f), schema_url="")) if f else f, r) for f, r in taken
    ]
    return wire.encode_scoped_request(wire.encode_resource(RESOURCE), wire.encode_scope(OWN), wire.group_by_scope(bare))


def that_leaves_the_attributes(records: Sequence[bytes]) -> bytes:
    taken = [(wire.take_scope(record)[0], record) for record in records]
    return wire.encode_scoped_request(
        wire.encode_resource(RESOURCE), wire.encode_scope(OWN), wire.group_by_scope(taken)
    )


def that_ignores_scopes(records: Sequence[bytes]) -> bytes:
    return b"".join(wire.encode_request(wire.encode_resource(RESOURCE), wire.encode_scope(OWN), records))


def that_turns_the_order_round(records: Sequence[bytes]) -> bytes:
    return encode(records[::-1])


def that_makes_a_group_of_each_run(records: Sequence[bytes]) -> bytes:
    bodies = [encode([record]) for record in records]
    merged = ExportTraceServiceRequest.FromString(b"".join(bodies))
    for other in merged.resource_spans[1:]:
        merged.resource_spans[0].scope_spans.extend(other.scope_spans)
    del merged.resource_spans[1:]
    return merged.SerializeToString()


@pytest.mark.parametrize(
    "wrong",
    [
        that_forgets_the_schema,
        that_leaves_the_attributes,
        that_ignores_scopes,
        that_turns_the_order_round,
        that_makes_a_group_of_each_run,
    ],
)
def test_the_check_notices_an_encoder(wrong: Encode) -> None:
    with pytest.raises((AssertionError, KeyError)):
        check(MIXED, wrong)
