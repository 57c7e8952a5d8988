"""OTLP/JSON back to spans.

Promises, for every sequence of bytes

1. The answer is spans or a `WireError` that names the place, nothing else.
2. Read are: what `_json` writes; what the JSON mapping of protobuf allows (integers as number or text, `null`
   for a default, unknown fields, base64 in both alphabets, with or without padding); hex ids in either case;
   and enum names, although OTLP forbids them. Field names are camelCase only, as OTLP wants them.

Source: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from __future__ import annotations

import binascii
import functools
from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar, cast

import msgspec

from .._contracts import AttributeValue, Event, Link, Resource, Scope, Span, SpanKind, StatusCode
from .._errors import WireError
from ._decode import MAX_DEPTH, Attributes, ResourceSpans
from ._logs import Log

__all__ = ["JsonLogs", "JsonSpans", "parse_json_request", "read_json_logs", "read_json_spans"]

Number = int | float | str | None
"""How senders write integers: proto3's text, JavaScript's number, a default as null."""

T = TypeVar("T")
Decoded = TypeVar("Decoded")

JsonSpans: TypeAlias = tuple[Resource, Scope, list[Span | WireError]]
"""The spans of one (resource, scope) pair; in the place of one that makes no sense, what is wrong with it."""
JsonLogs: TypeAlias = tuple[Resource, Scope, list[Log | WireError]]
"""The same for log records."""


class _Message(msgspec.Struct, rename="camel"):
    """The fields of a message as JSON names them; absent and null are the default."""


class _ArrayValue(_Message):
    values: list[_AnyValue | None] | None = None


class _KeyValueList(_Message):
    values: list[_KeyValue | None] | None = None


class _AnyValue(_Message):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: Number = None
    double_value: float | str | None = None
    array_value: _ArrayValue | None = None
    kvlist_value: _KeyValueList | None = None
    bytes_value: str | None = None


class _KeyValue(_Message):
    key: str | None = None
    value: _AnyValue | None = None


class _Attributed(_Message):
    attributes: list[_KeyValue | None] | None = None


class _Event(_Attributed):
    time_unix_nano: Number = None
    name: str | None = None
    dropped_attributes_count: Number = None


class _Link(_Attributed):
    trace_id: str | None = None
    span_id: str | None = None
    trace_state: str | None = None
    dropped_attributes_count: Number = None
    flags: Number = None


class _Status(_Message):
    message: str | None = None
    code: Number = None


class _Span(_Attributed):
    trace_id: str | None = None
    span_id: str | None = None
    trace_state: str | None = None
    parent_span_id: str | None = None
    flags: Number = None
    name: str | None = None
    kind: Number = None
    start_time_unix_nano: Number = None
    end_time_unix_nano: Number = None
    dropped_attributes_count: Number = None
    events: list[_Event | None] | None = None
    dropped_events_count: Number = None
    links: list[_Link | None] | None = None
    dropped_links_count: Number = None
    status: _Status | None = None


class _Scope(_Attributed):
    name: str | None = None
    version: str | None = None


class _Log(_Attributed):
    time_unix_nano: Number = None
    observed_time_unix_nano: Number = None
    severity_number: Number = None
    severity_text: str | None = None
    body: _AnyValue | None = None
    dropped_attributes_count: Number = None
    flags: Number = None
    trace_id: str | None = None
    span_id: str | None = None
    event_name: str | None = None


Item = TypeVar("Item")


class _Scoped(_Message, Generic[Item]):
    scope: _Scope | None = None
    spans: list[Item | None] | None = None
    log_records: list[Item | None] | None = None
    schema_url: str | None = None


class _Resourced(_Message, Generic[Item]):
    resource: _Attributed | None = None
    scope_spans: list[_Scoped[Item] | None] | None = None
    scope_logs: list[_Scoped[Item] | None] | None = None
    schema_url: str | None = None


class _Request(_Message, Generic[Item]):
    resource_spans: list[_Resourced[Item] | None] | None = None
    resource_logs: list[_Resourced[Item] | None] | None = None


def parse_json_request(body: bytes | bytearray | memoryview | str) -> list[ResourceSpans]:
    """Decode an OTLP/JSON `ExportTraceServiceRequest`: one `ResourceSpans` for each (resource, scope) pair.

    Raises `WireError`.
    """
    groups = []
    for resource, scope, read in read_json_spans(body):
        groups.append(ResourceSpans(resource=resource, scope=scope, spans=tuple(map(_whole, read))))
    return groups


def _whole(read: Decoded | WireError) -> Decoded:
    if isinstance(read, WireError):
        raise read
    return read


def read_json_spans(body: bytes | bytearray | memoryview | str) -> list[JsonSpans]:
    """The spans of an OTLP/JSON `ExportTraceServiceRequest`: one that makes no sense spoils no other. `WireError`."""
    return [
        (_resource(item), _scope(part), [_read_one(_Span, _span, each) for each in _items(part.spans)])
        for item in _items(_request(body, _Span).resource_spans)
        for part in _items(item.scope_spans)
    ]


def read_json_logs(body: bytes | bytearray | memoryview | str) -> list[JsonLogs]:
    """The log records of an OTLP/JSON `ExportLogsServiceRequest`. Raises `WireError`."""
    return [
        (_resource(item), _scope(part), [_read_one(_Log, _log, each) for each in _items(part.log_records)])
        for item in _items(_request(body, _Log).resource_logs)
        for part in _items(item.scope_logs)
    ]


def _request(body: bytes | bytearray | memoryview | str, item: type[_Message]) -> _Request[Any]:
    """With its items typed; else, one of them being mistyped, with all of them unread."""
    try:
        try:
            return _decoder(item).decode(body)
        except msgspec.ValidationError:
            return _decoder(_unread(item)).decode(body)
    except RecursionError:
        raise WireError("the JSON is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise WireError(f"no OTLP/JSON: {error}") from None


@functools.cache
def _decoder(item: type[_Message]) -> msgspec.json.Decoder[_Request[Any]]:
    """Made at first use: most programs never read JSON."""
    return msgspec.json.Decoder(_Request[item])  # type: ignore[valid-type]


@functools.cache
def _unread(item: type[_Message]) -> type[_Message]:
    """The message with every field as it stands in the text: it holds what is mistyped, but nothing that is no object."""
    fields = [(field.name, msgspec.Raw, msgspec.Raw(b"null")) for field in msgspec.structs.fields(item)]
    unread: Any = msgspec.defstruct(f"Unread{item.__name__}", fields, bases=(_Message,), rename="camel")
    return cast("type[_Message]", unread)


@functools.cache
def _item_decoder(item: type[Decoded]) -> msgspec.json.Decoder[Decoded]:
    return msgspec.json.Decoder(item)


def _read_one(kind: type[_Message], convert: Callable[[Any], Decoded], item: _Message) -> Decoded | WireError:
    try:
        if not isinstance(item, kind):
            item = _item_decoder(kind).decode(msgspec.json.encode(item))
        return convert(item)
    except RecursionError:
        return WireError("the JSON is nested too deeply")
    except (msgspec.DecodeError, UnicodeError) as error:
        return WireError(f"no OTLP/JSON: {error}")
    except WireError as error:
        return error


def _items(values: list[T | None] | None) -> list[T]:
    return [value for value in values if value is not None] if values else []


def _resource(message: _Resourced[Any]) -> Resource:
    return Resource(attributes=_attributes(message.resource), schema_url=message.schema_url or "")


def _scope(message: _Scoped[Any]) -> Scope:
    scope = message.scope or _Scope()
    return Scope(
        name=scope.name or "",
        version=scope.version or "",
        attributes=_attributes(scope),
        schema_url=message.schema_url or "",
    )


def _span(message: _Span) -> Span:
    status = message.status or _Status()
    return Span(
        trace_id=_hex(message.trace_id),
        span_id=_hex(message.span_id),
        parent_id=_hex(message.parent_span_id),
        name=message.name or "",
        kind=_enum(message.kind, SpanKind, "SPAN_KIND_"),
        start_ns=_integer(message.start_time_unix_nano, 0, 2**64 - 1),
        end_ns=_integer(message.end_time_unix_nano, 0, 2**64 - 1),
        attributes=_attributes(message),
        events=tuple(map(_event, _items(message.events))),
        links=tuple(map(_link, _items(message.links))),
        status=_enum(status.code, StatusCode, "STATUS_CODE_"),
        status_message=status.message or "",
        trace_state=message.trace_state or "",
        flags=_count(message.flags),
        dropped_attributes=_count(message.dropped_attributes_count),
        dropped_events=_count(message.dropped_events_count),
        dropped_links=_count(message.dropped_links_count),
    )


def _log(message: _Log) -> Log:
    return Log(
        time_ns=_integer(message.time_unix_nano, 0, 2**64 - 1),
        observed_ns=_integer(message.observed_time_unix_nano, 0, 2**64 - 1),
        severity=_severity(message.severity_number),
        severity_text=message.severity_text or "",
        body=_any_value(message.body, MAX_DEPTH),
        attributes=_attributes(message),
        trace_id=_hex(message.trace_id),
        span_id=_hex(message.span_id),
        event_name=message.event_name or "",
        dropped_attributes=_count(message.dropped_attributes_count),
        flags=_count(message.flags),
    )


def _event(message: _Event) -> Event:
    return Event(
        time_ns=_integer(message.time_unix_nano, 0, 2**64 - 1),
        name=message.name or "",
        attributes=_attributes(message),
        dropped_attributes=_count(message.dropped_attributes_count),
    )


def _link(message: _Link) -> Link:
    return Link(
        trace_id=_hex(message.trace_id),
        span_id=_hex(message.span_id),
        trace_state=message.trace_state or "",
        attributes=_attributes(message),
        dropped_attributes=_count(message.dropped_attributes_count),
        flags=_count(message.flags),
    )


def _attributes(message: _Attributed | None) -> Attributes:
    return _map(message.attributes, MAX_DEPTH) if message is not None else {}


def _map(values: list[_KeyValue | None] | None, depth: int) -> Attributes:
    return {item.key or "": _any_value(item.value, depth) for item in _items(values)}


def _any_value(message: _AnyValue | None, depth: int) -> AttributeValue:
    if depth < 1:
        raise WireError(f"more than {MAX_DEPTH} values inside one another")
    if message is None:
        return None
    for name, read in _VALUES.items():
        value = getattr(message, name)
        if value is not None:
            return read(value)
    if message.array_value is not None:
        return [_any_value(item, depth - 1) for item in message.array_value.values or ()]
    if message.kvlist_value is not None:
        return _map(message.kvlist_value.values, depth - 1)
    return None


def _hex(text: str | None) -> str:
    if not text:
        return ""
    try:
        digits = bytes.fromhex(text).hex()
    except ValueError:
        digits = ""
    if len(digits) != len(text):  # fromhex() skips blanks
        raise WireError(f"an id is hex digits, not {text!r:.60}")
    return digits


def _integer(value: Number, least: int, most: int) -> int:
    if value is None:
        return 0
    try:
        if isinstance(value, str) and not (value.isascii() and value.removeprefix("-").isdecimal()):
            raise ValueError  # int() would take blanks and underscores
        number = int(value)
    except (ValueError, OverflowError):
        raise WireError(f"an integer is digits, not {value!r:.60}") from None
    if isinstance(value, float) and number != value:
        raise WireError(f"an integer has no fraction: {value!r}")
    if not least <= number <= most:
        raise WireError(f"an integer from {least} to {most} was expected, not {value!r:.60}")
    return number


def _count(value: Number) -> int:
    return _integer(value, 0, 2**32 - 1)


def _severity(value: Number) -> int:
    """A number; a name, which OTLP forbids, is passed over: `severityText` says it too."""
    return 0 if isinstance(value, str) and value.startswith("SEVERITY_") else _count(value)


def _signed(value: Number) -> int:
    return _integer(value, -(2**63), 2**63 - 1)


def _double(value: float | str) -> float:
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise WireError(f"a double is a number, not {value!r:.60}") from None


def _bytes(text: str) -> bytes:
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return binascii.a2b_base64(standard + "=" * (-len(standard) % 4), strict_mode=True)
    except (binascii.Error, ValueError):
        raise WireError(f"bytes are base64, not {text!r:.60}") from None


def _same(value: Any) -> Any:
    return value


E_ = TypeVar("E_", SpanKind, StatusCode)


def _enum(value: Number, kind: type[E_], prefix: str) -> E_:
    """An unknown number reads as the member 0, as in the binary decoder."""
    if isinstance(value, str) and value.startswith(prefix):
        return kind.__members__.get(value.removeprefix(prefix), kind(0))
    number = _integer(value, -(2**31), 2**31 - 1)
    return kind(number) if number in kind.__members__.values() else kind(0)


_VALUES: dict[str, Callable[[Any], AttributeValue]] = {
    "string_value": _same,
    "bool_value": _same,
    "int_value": _signed,
    "double_value": _double,
    "bytes_value": _bytes,
}
