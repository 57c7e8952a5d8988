"""`AnyValue` and `KeyValue`: attribute values as bytes.

Promises

1. What is written is always accepted by a conforming parser: text is valid UTF-8, integers fit in 64 bits,
   and nesting stays within the 100 messages beyond which the C++, Python and Java parsers refuse the
   *whole* request.
2. A value of a type that OTLP cannot carry is a `TypeError` at the call; nothing is turned into text
   behind the caller's back, with two exceptions: an integer outside signed 64 bits becomes its decimal
   text, and a surrogate without its partner becomes U+FFFD.
3. A key is encoded once and remembered, up to `_REMEMBERED_KEYS` keys; more keys cost time, not memory.

Source: opentelemetry/proto/common/v1/common.proto of OTLP 1.x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from struct import Struct

from .._contracts import AttributeValue
from ._varint import MASK_64, TABLE_SIZE, VARINTS, encode_varint, length_delimited

__all__ = [
    "MAX_DEPTH",
    "encode_any_value",
    "encode_attribute",
    "encode_attributes",
    "encode_key_value",
    "encode_text",
]

MAX_DEPTH = 32
"""Values inside one another, the innermost included.

A map costs three nested messages a level. An event's attribute value is the sixth message below the
request (resource spans, scope spans, span, event, key-value, value), so 6 + 3 * 31 + 1 = 100 is the most
that parsers accept.
"""

_REMEMBERED_KEYS = 4096
_REMEMBERED_KEY_LENGTH = 128

_pack_double = Struct("<d").pack
_pack_double_field = Struct("<3sd").pack
_LEAST, _MOST = -(2**63), 2**63 - 1
_EMPTY = b""
_TRUE = b"\x10\x01"
_FALSE = b"\x10\x00"
_TRUE_FIELD = b"\x12\x02\x10\x01"
_FALSE_FIELD = b"\x12\x02\x10\x00"


def encode_text(text: str) -> bytes:
    """UTF-8. A surrogate pair becomes its character, a lone surrogate U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def encode_any_value(value: AttributeValue) -> bytes:
    """An `AnyValue` message.

    `None` is the empty message. An integer outside signed 64 bits becomes its decimal text, and its
    hexadecimal text where Python refuses the decimal one (more than 4,300 digits). Raises `TypeError` for
    a type that OTLP cannot carry, `ValueError` for more than 32 values inside one another.
    """
    return _any_value(value, MAX_DEPTH)


def encode_key_value(key: str, value: AttributeValue) -> bytes:
    """A `KeyValue` message. Errors as in `encode_any_value()`."""
    return _key_value(key, value, MAX_DEPTH)


# Going through `encode_key_value()` and `length_delimited()` would be shorter and takes twice the time for
# a short text; this is what a traced program pays for each attribute.
def encode_attribute(tag: bytes, key: str, value: AttributeValue) -> bytes:
    """A `KeyValue` as a field of the message around it: `tag`, length, `KeyValue`.

    `tag` is `b"\\x4a"` in a span, `b"\\x1a"` in an event and in a scope, `b"\\x22"` in a link, `b"\\x0a"`
    in a resource. Errors as in `encode_any_value()`.
    """
    try:
        key_field = _key_fields[key]
    except KeyError:
        key_field = _remember(key)
    try:
        if type(value) is str:
            text = value.encode()
            head = _TEXT_HEADS[len(text)]
            return b"".join((tag, VARINTS[len(key_field) + len(head) + len(text)], key_field, head, text))
        field = _value_field(value)
        return b"".join((tag, VARINTS[len(key_field) + len(field)], key_field, field))
    except (UnicodeEncodeError, IndexError):
        field = length_delimited(b"\x12", _any_value(value, MAX_DEPTH))
        return b"".join((tag, encode_varint(len(key_field) + len(field)), key_field, field))


def encode_attributes(tag: bytes, attributes: Mapping[str, AttributeValue]) -> bytes:
    """`encode_attribute()` for each item, end to end."""
    if not attributes:
        return _EMPTY
    return b"".join([encode_attribute(tag, key, value) for key, value in attributes.items()])


_key_fields: dict[str, bytes] = {}


def _remember(key: str) -> bytes:
    """The key as field 1 of a `KeyValue`."""
    if not isinstance(key, str):
        raise TypeError(f"an attribute key is a str, not {type(key).__name__}: {key!r:.80}")
    text = encode_text(key)
    field = length_delimited(b"\x0a", text)
    if len(_key_fields) < _REMEMBERED_KEYS and len(field) <= _REMEMBERED_KEY_LENGTH:
        _key_fields[key] = field
    return field


def _value_field(value: AttributeValue) -> bytes:
    """Field 2 of a `KeyValue`; the scalar types first, for their lengths are known."""
    kind = type(value)
    if kind is int:
        if -1 < value < _SMALL_INTEGERS:  # type: ignore[operator]
            return _INTEGER_FIELDS[value]  # type: ignore[index]
        if _LEAST <= value <= _MOST:  # type: ignore[operator]
            number = encode_varint(value & MASK_64)  # type: ignore[operator]
            return b"".join((b"\x12", VARINTS[1 + len(number)], b"\x18", number))
    elif kind is bool:
        return _TRUE_FIELD if value else _FALSE_FIELD
    elif kind is float:
        return _pack_double_field(b"\x12\x09\x21", value)
    return length_delimited(b"\x12", _any_value(value, MAX_DEPTH))


def _key_value(key: str, value: AttributeValue, depth: int) -> bytes:
    key_field = _key_fields.get(key) or _remember(key)
    return key_field + length_delimited(b"\x12", _any_value(value, depth))


def _any_value(value: AttributeValue, depth: int) -> bytes:
    if depth < 1:
        raise ValueError(f"an attribute holds at most {MAX_DEPTH} values inside one another")
    encode = _ENCODERS.get(type(value))
    return encode(value, depth) if encode is not None else _of_subclass(value, depth)


def _text(value: str, depth: int) -> bytes:
    return length_delimited(b"\x0a", encode_text(value))


def _boolean(value: bool, depth: int) -> bytes:
    return _TRUE if value else _FALSE


def _integer(value: int, depth: int) -> bytes:
    if 0 <= value < TABLE_SIZE:
        return b"\x18" + VARINTS[value]
    if _LEAST <= value <= _MOST:
        return b"\x18" + encode_varint(value & MASK_64)
    try:
        return _text(str(value), depth)
    except ValueError:  # sys.get_int_max_str_digits(): the decimal text would take quadratic time
        return _text(hex(value), depth)


def _double(value: float, depth: int) -> bytes:
    return b"\x21" + _pack_double(value)


def _bytes(value: bytes | bytearray | memoryview, depth: int) -> bytes:
    return length_delimited(b"\x3a", bytes(value))


def _none(value: None, depth: int) -> bytes:
    return _EMPTY


def _array(values: Sequence[AttributeValue], depth: int) -> bytes:
    messages = [length_delimited(b"\x0a", _any_value(value, depth - 1)) for value in values]
    return length_delimited(b"\x2a", b"".join(messages))


def _map(values: Mapping[str, AttributeValue], depth: int) -> bytes:
    messages = [length_delimited(b"\x0a", _key_value(key, value, depth - 1)) for key, value in values.items()]
    return length_delimited(b"\x32", b"".join(messages))


_ENCODERS: dict[type, Callable[..., bytes]] = {
    str: _text,
    bool: _boolean,
    int: _integer,
    float: _double,
    bytes: _bytes,
    type(None): _none,
    list: _array,
    tuple: _array,
    dict: _map,
    bytearray: _bytes,
    memoryview: _bytes,
}

_SUBCLASSES: tuple[tuple[type, Callable[..., bytes]], ...] = (
    (str, _text),
    (int, _integer),
    (float, _double),
    (bytes, _bytes),
    (Mapping, _map),
    (Sequence, _array),
)
"""Asked in this order: text and bytes are sequences, too."""


def _of_subclass(value: AttributeValue, depth: int) -> bytes:
    for kind, encode in _SUBCLASSES:
        if isinstance(value, kind):
            return encode(value, depth)
    raise TypeError(
        f"OTLP cannot carry a {type(value).__name__}; "
        "give str, int, float, bool, bytes, None, or a list or dict of them"
    )


def _text_head(length: int) -> bytes:
    inner = VARINTS[length]
    return b"".join((b"\x12", encode_varint(1 + len(inner) + length), b"\x0a", inner))


_SMALL_INTEGERS = 1024
_INTEGER_FIELDS = tuple(
    b"".join((b"\x12", VARINTS[1 + len(VARINTS[n])], b"\x18", VARINTS[n])) for n in range(_SMALL_INTEGERS)
)
"""Field 2 of a `KeyValue` for the integers 0 … 1,023: counts, HTTP status codes, milliseconds."""

_TEXT_HEADS = tuple(map(_text_head, range(TABLE_SIZE - _REMEMBERED_KEY_LENGTH - 8)))
"""What stands in a `KeyValue` between the key and a text of n bytes: both lengths, both tags."""
