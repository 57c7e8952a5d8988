"""Consecutive records on their way to an exporter."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .._contracts import Resource, Scope, Span
from ..wire import decode_records, decode_request, encode_request, encode_resource, encode_scope

__all__ = ["Origin", "RecordBatch"]


class Origin(msgspec.Struct, frozen=True):
    """Whose records these are: this process's, or as a dead one recorded it."""

    log_id: str
    resource: Resource
    resource_bytes: bytes
    scope_bytes: bytes

    @classmethod
    def of(cls, log_id: str, resource: Resource, scope: Scope) -> Origin:
        return cls(log_id, resource, encode_resource(resource), encode_scope(scope))

    @classmethod
    def recorded(cls, log_id: str, resource_bytes: bytes, scope_bytes: bytes) -> Origin:
        """Raises `WireError` for damaged bytes."""
        groups = decode_request(b"".join(encode_request(resource_bytes, scope_bytes, [])))
        return cls(log_id, groups[0].resource if groups else Resource(), resource_bytes, scope_bytes)

    def key(self, first: int, count: int) -> str:
        """Names a batch of these records for ever."""
        return f"{self.log_id}:{first}:{count}"


class RecordBatch:
    """The `Batch` that lanes hand to exporters."""

    __slots__ = ("_spans", "count", "is_scoped", "key", "payload", "resource", "resource_bytes", "scope_bytes", "size")

    def __init__(
        self, origin: Origin, key: str, count: int, payload: Sequence[bytes | memoryview], is_scoped: bool = False
    ) -> None:
        self.payload = payload
        self.count = count
        self.size = sum(map(len, payload))
        self.resource = origin.resource
        self.resource_bytes = origin.resource_bytes
        self.scope_bytes = origin.scope_bytes
        self.is_scoped = is_scoped
        self.key = key
        self._spans: tuple[Span, ...] | None = None

    def spans(self) -> tuple[Span, ...]:
        """The records decoded, on first use. Raises `WireError` for damaged bytes."""
        if self._spans is None:
            self._spans = decode_records(self.payload)
        return self._spans

    def __repr__(self) -> str:
        return f"<RecordBatch {self.key} {self.count} records, {self.size} bytes>"
