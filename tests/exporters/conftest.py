"""Batches for exporter tests, made of real records."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from asynctrace import wire
from asynctrace._contracts import Resource, Scope, Span, StatusCode
from asynctrace.delivery import Origin, RecordBatch


def batch_of(spans: Sequence[Span], *, key: str = "k-1") -> RecordBatch:
    """A lane's batch over encoded spans, in two slices as a segment border would cut them."""
    records = [wire.frame(wire.encode_span(each)) for each in spans]
    half = len(records) // 2
    origin = Origin.of("log-1", Resource(attributes={"service.name": "shop"}), Scope(name="asynctrace", version="0"))
    payload = [memoryview(b"".join(records[:half])), b"".join(records[half:])]
    return RecordBatch(origin, key, len(records), payload)


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


MakeBatch = Callable[..., RecordBatch]


@pytest.fixture
def make_batch() -> MakeBatch:
    """`make_batch(count, key=…, first=…, size=…, trace=…)`: spans numbered from `first`."""

    def make(count: int = 3, *, key: str = "k-1", first: int = 1, size: int = 0, trace: int = 0xAB) -> RecordBatch:
        spans = [a_span(first + index, size=size, trace=trace) for index in range(count)]
        return batch_of(spans, key=key)

    return make
