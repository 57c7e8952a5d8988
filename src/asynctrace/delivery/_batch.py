"""Consecutive records on their way to an exporter."""

from __future__ import annotations

from collections.abc import Sequence

from .._contracts import Resource, Span
from ..wire import decode_records

__all__ = ["RecordBatch"]


class RecordBatch:
    """The `Batch` that lanes hand to exporters."""

    __slots__ = ("_spans", "count", "key", "payload", "resource", "resource_bytes", "scope_bytes", "size")

    def __init__(
        self,
        payload: Sequence[bytes | memoryview],
        count: int,
        resource: Resource,
        resource_bytes: bytes,
        scope_bytes: bytes,
        key: str,
    ) -> None:
        self.payload = payload
        self.count = count
        self.size = sum(map(len, payload))
        self.resource = resource
        self.resource_bytes = resource_bytes
        self.scope_bytes = scope_bytes
        self.key = key
        self._spans: tuple[Span, ...] | None = None

    def spans(self) -> tuple[Span, ...]:
        """The records decoded, on first use. Raises `WireError` for damaged bytes."""
        if self._spans is None:
            self._spans = decode_records(self.payload)
        return self._spans

    def __repr__(self) -> str:
        return f"<RecordBatch {self.key} {self.count} records, {self.size} bytes>"
