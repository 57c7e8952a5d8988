"""`AnyValue` and `KeyValue`: attribute values as bytes.

Promises

1. What is written is always accepted by a conforming parser: text is valid UTF-8, integers fit in 64 bits, and nesting
   stays below the 100 messages at which the C++, Python and Java parsers refuse the *whole* request.
2. A value of a type that OTLP cannot carry is a `TypeError` at the call; nothing is turned into text behind the
   caller's back, with two exceptions that lose nothing a reader needs: an integer outside signed 64 bits becomes its
   decimal text, and a surrogate without its partner becomes U+FFFD.
3. A key is encoded once and remembered, up to `_REMEMBERED_KEYS` keys; more keys cost time, not memory.

Source: opentelemetry/proto/common/v1/common.proto of OTLP 1.x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from struct import Struct

from .._contracts import AttributeValue
from ._varint import MASK_64, TABLE_SIZE, VARINTS, encode_varint

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

A map costs three nested messages a level. Request, resource spans, scope spans, span, event, key-value and value are
six below the request, so 6 + 3 × 31 + 1 = 100 is the deepest that a parser with the usual limit accepts.
"""

_REMEMBERED_KEYS = 4096
_REMEMBERED_KEY_LENGTH = 128

_pack_double = Struct("<d").pack
_EMPTY = b""
_TRUE = b"\x10\x01"
_FALSE = b"\x10\x00"


def encode_text(text: str) -> bytes:
    """UTF-8. A surrogate pair becomes its character, a lone surrogate U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def encode_any_value(value: AttributeValue) -> bytes:
    """An `AnyValue` message.

    `None` is the empty message. An integer outside signed 64 bits becomes its decimal text, and its hexadecimal text
    where Python refuses the decimal one (more than 4,300 digits). Raises `TypeError` for a type that OTLP cannot carry,
    `ValueError` for more than 32 values inside one another.
    """
    return _any_value(value, MAX_DEPTH)


def encode_key_value(key: str, value: AttributeValue) -> bytes:
    """A `KeyValue` message. Errors as in `encode_any_value()`."""
    return _key_value(key, value, MAX_DEPTH)


# The three branches below repeat what `_key_value` does in general. Going through it costs 1.6 times as much for
# a short text, and this is the function a traced program pays for each attribute.
def encode_attribute(tag: bytes, key: str, value: AttributeValue) -> bytes:
    """A `KeyValue` as a field of the message around it: `tag`, length, `KeyValue`.

    `tag` is `b"\\x4a"` in a span, `b"\\x1a"` in an event and in a scope, `b"\\x22"` in a link, `b"\\x0a"` in a resource.
    Errors as in `encode_any_value()`.
    """
    try:
        key_field = _key_fields[key]
    except KeyError:
        key_field = _remember(key)
    kind = type(value)
    if kind is str:
        try:
            text = value.encode()  # type: ignore[union-attr]
            head = _TEXT_HEADS[len(text)]
            return b"".join((tag, VARINTS[len(key_field) + len(head) + len(text)], key_field, head, text))
        except (UnicodeEncodeError, IndexError):
            pass
    elif kind is int and -1 < value < _SMALL_INTEGERS:  # type: ignore[operator]
        field = _INTEGER_FIELDS[value]  # type: ignore[index]
        return b"".join((tag, encode_varint(len(key_field) + len(field)), key_field, field))
    message = _any_value(value, MAX_DEPTH)
    size = encode_varint(len(message))
    length = encode_varint(len(key_field) + 1 + len(size) + len(message))
    return b"".join((tag, length, key_field, b"\x12", size, message))


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
    field = b"".join((b"\x0a", encode_varint(len(text)), text))
    if len(_key_fields) < _REMEMBERED_KEYS and len(field) <= _REMEMBERED_KEY_LENGTH:
        _key_fields[key] = field
    return field


def _key_value(key: str, value: AttributeValue, depth: int) -> bytes:
    key_field = _key_fields.get(key) or _remember(key)
    message = _any_value(value, depth)
    return b"".join((key_field, b"\x12", encode_varint(len(message)), message))


def _any_value(value: AttributeValue, depth: int) -> bytes:
    if depth < 1:
        raise ValueError(f"an attribute holds at most {MAX_DEPTH} values inside one another")
    encode = _ENCODERS.get(type(value))
    return encode(value, depth) if encode is not None else _of_subclass(value, depth)


def _text(value: str, depth: int) -> bytes:
    text = encode_text(value)
    return b"".join((b"\x0a", encode_varint(len(text)), text))


def _boolean(value: bool, depth: int) -> bytes:
    return _TRUE if value else _FALSE


def _integer(value: int, depth: int) -> bytes:
    if 0 <= value < TABLE_SIZE:
        return b"\x18" + VARINTS[value]
    if -0x8000_0000_0000_0000 <= value <= 0x7FFF_FFFF_FFFF_FFFF:
        return b"\x18" + encode_varint(value & MASK_64)
    try:
        return _text(str(value), depth)
    except ValueError:  # sys.get_int_max_str_digits(): the decimal text would take quadratic time
        return _text(hex(value), depth)


def _double(value: float, depth: int) -> bytes:
    return b"\x21" + _pack_double(value)


def _bytes(value: bytes | bytearray | memoryview, depth: int) -> bytes:
    content = bytes(value)
    return b"".join((b"\x3a", encode_varint(len(content)), content))


def _none(value: None, depth: int) -> bytes:
    return _EMPTY


def _array(values: Sequence[AttributeValue], depth: int) -> bytes:
    parts: list[bytes] = []
    for value in values:
        message = _any_value(value, depth - 1)
        parts += (b"\x0a", encode_varint(len(message)), message)
    body = b"".join(parts)
    return b"".join((b"\x2a", encode_varint(len(body)), body))


def _map(values: Mapping[str, AttributeValue], depth: int) -> bytes:
    parts: list[bytes] = []
    for key, value in values.items():
        message = _key_value(key, value, depth - 1)
        parts += (b"\x0a", encode_varint(len(message)), message)
    body = b"".join(parts)
    return b"".join((b"\x32", encode_varint(len(body)), body))


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
        f"OTLP cannot carry a {type(value).__name__}; give str, int, float, bool, bytes, None, or a list or dict of them"
    )


def _text_head(length: int) -> bytes:
    inner = VARINTS[length]
    return b"".join((b"\x12", encode_varint(1 + len(inner) + length), b"\x0a", inner))


_SMALL_INTEGERS = 1024
_INTEGER_FIELDS = tuple(
    b"".join((b"\x12", VARINTS[1 + len(VARINTS[n])], b"\x18", VARINTS[n])) for n in range(_SMALL_INTEGERS)
)
"""Field 2 of a `KeyValue` for the integers 0 … 1,023: counts, HTTP status codes, ports of the ordinary kind."""

_TEXT_HEADS = tuple(map(_text_head, range(TABLE_SIZE - _REMEMBERED_KEY_LENGTH - 8)))
"""What stands in a `KeyValue` between the key and a text of n bytes: both lengths, both tags."""
