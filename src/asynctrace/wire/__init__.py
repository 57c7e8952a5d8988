"""The OTLP bytes: encode a span, scan records, decode. Knows no other folder.

    _varint   numbers and lengths          _fields   the fields of any message
    _values   attribute values             _scan     where records begin and end
    _scalars  numbers, keys encoded before
    _span     event, link, status, span    _decode   bytes back to spans
    _request  request and response         _json     OTLP/JSON, and _json_read back
    _scopes   records of other scopes      _shrink   a record that is too large
    _logs     log records, both ways

The hot path is `encode_attribute`, `encode_event` and `frame`; the rest runs once a batch or elsewhere.
"""

from __future__ import annotations

from ._decode import (
    ResourceSpans,
    decode_attribute,
    decode_event,
    decode_link,
    decode_records,
    decode_request,
    decode_resource,
    decode_response,
    decode_scope,
    decode_span,
    decode_status,
)
from ._fields import read_fields, read_varint
from ._json import join_json_request, json_record, json_request, json_span
from ._json_read import JsonLogs, JsonSpans, parse_json_request, read_json_logs, read_json_spans
from ._logs import Log, decode_log, encode_log
from ._request import encode_request, encode_resource, encode_response, encode_scope, request_size
from ._scalars import ScalarHeads
from ._scan import record_trace_id, scan_records
from ._scopes import encode_scoped_request, group_by_scope, scope_fields, scope_of, take_scope
from ._shrink import shrink_record
from ._span import encode_event, encode_link, encode_span, encode_status, frame
from ._values import encode_any_value, encode_attribute, encode_attributes, encode_key_value
from ._varint import encode_varint, length_delimited

__all__ = [
    # numbers and lengths
    "encode_varint",
    "length_delimited",
    # values
    "encode_any_value",
    "encode_attribute",
    "encode_attributes",
    "encode_key_value",
    "ScalarHeads",
    # spans
    "encode_event",
    "encode_link",
    "encode_span",
    "encode_status",
    "frame",
    # requests
    "encode_request",
    "encode_resource",
    "encode_response",
    "encode_scope",
    "request_size",
    # scopes
    "encode_scoped_request",
    "group_by_scope",
    "scope_fields",
    "scope_of",
    "take_scope",
    # records
    "record_trace_id",
    "scan_records",
    "shrink_record",
    # bytes back to spans
    "ResourceSpans",
    "decode_records",
    "decode_request",
    "decode_response",
    "decode_span",
    # bytes back to what spans are made of, and to logs
    "Log",
    "decode_attribute",
    "decode_event",
    "decode_link",
    "decode_log",
    "encode_log",
    "decode_resource",
    "decode_scope",
    "decode_status",
    "read_fields",
    "read_varint",
    # OTLP/JSON
    "join_json_request",
    "json_record",
    "json_request",
    "json_span",
    "parse_json_request",
    "read_json_logs",
    "read_json_spans",
    "JsonLogs",
    "JsonSpans",
]
