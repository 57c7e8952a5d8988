"""The OTLP bytes: encode a span, scan records, decode. Knows no other folder.

    _varint   numbers and lengths          _fields   the fields of any message
    _values   attribute values             _scan     where records begin and end
    _scalars  numbers, keys encoded before
    _span     event, link, status, span    _decode   bytes back to spans
    _request  request and response         _json     OTLP/JSON, and _json_read back
                                           _shrink   a record that is too large

The hot path is `encode_attribute`, `encode_event` and `frame`; the rest runs once a batch or elsewhere.
"""

from __future__ import annotations

from ._decode import ResourceSpans, decode_records, decode_request, decode_response, decode_span
from ._json import join_json_request, json_record, json_request, json_span
from ._json_read import parse_json_request
from ._request import encode_request, encode_resource, encode_response, encode_scope, request_size
from ._scalars import ScalarHeads
from ._scan import record_trace_id, scan_records
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
    # OTLP/JSON
    "join_json_request",
    "json_record",
    "json_request",
    "json_span",
    "parse_json_request",
]
