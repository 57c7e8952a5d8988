"""Batches for exporter tests, made of real records."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from asynctrace import wire
from asynctrace._contracts import Resource, Scope, Span, StatusCode


class RecordsOf:
    """The `Batch` protocol over encoded spans, in several slices as a segment border would cut them."""

    def __init__(self, spans: Sequence[Span], *, key: str = "k-1", service: str = "shop") -> None:
        self._spans = tuple(spans)
        records = [wire.frame(wire.encode_span(each)) for each in spans]
        half = len(records) // 2
        self.payload: Sequence[bytes | memoryview] = [
            memoryview(b"".join(records[:half])),
            b"".join(records[half:]),
        ]
        self.count = len(records)
        self.size = sum(map(len, self.payload))
        self.resource = Resource(attributes={"service.name": service})
        self.resource_bytes = wire.encode_resource(self.resource)
        self.scope_bytes = wire.encode_scope(Scope(name="asynctrace", version="0"))
        self.key = key

    def spans(self) -> tuple[Span, ...]:
        return self._spans


def a_span(number: int, *, parent: int = 0, size: int = 0, trace: int = 0xAB) -> Span:
    return Span(
        trace_id=f"{trace:032x}",
        span_id=f"{number:016x}",
        parent_id=f"{parent:016x}" if parent else "",
        name=f"span {number}",
        start_ns=1_000_000_000 + number,
        end_ns=1_005_000_000 + number,
        attributes={"input.value": "x" * size} if size else {},
        status=StatusCode.OK,
    )


MakeBatch = Callable[..., RecordsOf]


@pytest.fixture
def make_batch() -> MakeBatch:
    """`make_batch(count, key=…, first=…, size=…, trace=…)`: spans numbered from `first`."""

    def make(
        count: int = 3, *, key: str = "k-1", first: int = 1, size: int = 0, trace: int = 0xAB
    ) -> RecordsOf:
        spans = [a_span(first + index, size=size, trace=trace) for index in range(count)]
        return RecordsOf(spans, key=key)

    return make
