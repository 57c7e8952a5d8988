"""Export requests and their answers.

A request is a header and the records, untouched:

    0x0a <length> ─ ResourceSpans
      0x0a <length> <Resource message>
      0x12 <length> ─ ScopeSpans
        0x0a <length> <InstrumentationScope message>
        0x12 <length> <Span message>   ┐
        0x12 <length> <Span message>   ├ the payload: records as they lie in the span log
        …                              ┘

Promise: the payload is neither copied nor read; the parts joined are one `ExportTraceServiceRequest`.

Source: opentelemetry/proto/collector/trace/v1/trace_service.proto of OTLP 1.x.
"""

from __future__ import annotations

from collections.abc import Sequence

from .._contracts import Resource, Scope
from ._values import encode_attributes, encode_text
from ._varint import encode_varint, length_delimited

__all__ = ["encode_request", "encode_resource", "encode_response", "encode_scope", "request_size"]


def encode_resource(resource: Resource) -> bytes:
    """A `Resource` message (no tag, no length). Errors as in `encode_any_value()`."""
    return encode_attributes(b"\x0a", resource.attributes)


def encode_scope(scope: Scope) -> bytes:
    """An `InstrumentationScope` message (no tag, no length). Errors as in `encode_any_value()`."""
    name = length_delimited(b"\x0a", encode_text(scope.name)) if scope.name else b""
    version = length_delimited(b"\x12", encode_text(scope.version)) if scope.version else b""
    return name + version + encode_attributes(b"\x1a", scope.attributes)


def encode_request(resource: bytes, scope: bytes, payload: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    """An `ExportTraceServiceRequest` of one resource and one scope: a header, then `payload` as it is."""
    return [_header(resource, scope, sum(map(len, payload))), *payload]


def request_size(resource: bytes, scope: bytes, payload_size: int) -> int:
    """Bytes of the request that `encode_request()` makes of records of `payload_size` bytes altogether."""
    return len(_header(resource, scope, payload_size)) + payload_size


def encode_response(rejected: int = 0, message: str = "") -> bytes:
    """An `ExportTraceServiceResponse`; empty when everything was accepted and there is nothing to say."""
    body = b"\x08" + encode_varint(rejected) if rejected else b""
    if message:
        body += length_delimited(b"\x12", encode_text(message))
    return length_delimited(b"\x0a", body) if body else b""


def _header(resource: bytes, scope: bytes, payload_size: int) -> bytes:
    scope_field = length_delimited(b"\x0a", scope)
    resource_field = length_delimited(b"\x0a", resource)
    scope_spans = b"\x12" + encode_varint(len(scope_field) + payload_size)
    size = len(resource_field) + len(scope_spans) + len(scope_field) + payload_size
    return b"".join((b"\x0a", encode_varint(size), resource_field, scope_spans, scope_field))
