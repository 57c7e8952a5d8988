"""One entry of the stream: one OTLP request, as the fields of a Redis stream entry.

    v     version of whoever wrote it          s     signal: traces | logs
    r     oldest version that may read it      n     how many spans or log records
    key   its request key, or nothing          z     codec of the body: identity | gzip | zstd
    body  the request: ExportTraceServiceRequest or ExportLogsServiceRequest, protobuf

Promises: what version n writes, n + 1 reads; what n + 1 writes, n reads unless the writer said that it may not (`r`), and
keeps the fields it does not know; any other set of fields is a `MessageError` of one line, never another exception.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from .._errors import MessageError

__all__ = ["CODECS", "MESSAGE_VERSION", "SIGNALS", "Message"]

MESSAGE_VERSION: Final = 1
SIGNALS: Final = ("traces", "logs")
CODECS: Final = ("identity", "gzip", "zstd")

_KNOWN: Final = (b"v", b"r", b"s", b"key", b"n", b"z", b"body")
_LONGEST_NUMBER: Final = 18
"""Digits: below 2^63."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One OTLP request on its way to the store."""

    signal: str = "traces"
    """`traces` or `logs`."""
    key: str = ""
    """Its request key, `<log id>:<first>:<count>` as in `x-asynctrace-key`; empty: it has none."""
    records: int
    """Spans or log records."""
    codec: str = "identity"
    """Of the body: `identity`, `gzip` or `zstd`."""
    body: bytes
    version: int = MESSAGE_VERSION
    readable_by: int = 1
    """The oldest version that may read it."""
    extra: dict[bytes, bytes] = {}
    """Fields that a newer version added."""

    @property
    def size(self) -> int:
        """Bytes it is counted with: those of the body, the key and the unknown fields."""
        return len(self.body) + len(self.key) + sum(len(name) + len(value) for name, value in self.extra.items())

    def to_fields(self) -> dict[bytes, bytes]:
        """The fields of the entry."""
        return {
            b"v": b"%d" % self.version,
            b"r": b"%d" % self.readable_by,
            b"s": self.signal.encode(),
            b"key": self.key.encode(),
            b"n": b"%d" % self.records,
            b"z": self.codec.encode(),
            b"body": self.body,
            **self.extra,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Message:
        """The message that an entry holds; `MessageError` where it holds none that this version can read."""
        version = _number(fields, b"v")
        readable_by = _number(fields, b"r")
        if readable_by > MESSAGE_VERSION:
            raise MessageError(
                f"written by version {version} for readers from version {readable_by} on; "
                f"this one is {MESSAGE_VERSION}: update the workers"
            )
        return cls(
            signal=_word(fields, b"s", SIGNALS),
            key=_text(fields, b"key"),
            records=_number(fields, b"n"),
            codec=_word(fields, b"z", CODECS),
            body=_field(fields, b"body"),
            version=version,
            readable_by=readable_by,
            extra={name: value for name, value in fields.items() if name not in _KNOWN},
        )


def _field(fields: Mapping[bytes, bytes], name: bytes) -> bytes:
    value = fields.get(name)
    if value is None:
        raise MessageError(f"damaged: the field {name.decode()} is missing")
    return value


def _number(fields: Mapping[bytes, bytes], name: bytes) -> int:
    value = _field(fields, name)
    if not (value.isdigit() and len(value) <= _LONGEST_NUMBER):
        raise MessageError(f"damaged: the field {name.decode()} is no number: {value[:20]!r}")
    return int(value)


def _text(fields: Mapping[bytes, bytes], name: bytes) -> str:
    value = _field(fields, name)
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise MessageError(f"damaged: the field {name.decode()} is no text: {value[:20]!r}") from None


def _word(fields: Mapping[bytes, bytes], name: bytes, known: tuple[str, ...]) -> str:
    word = _text(fields, name)
    if word not in known:
        raise MessageError(f"damaged: the field {name.decode()} is none of {', '.join(known)}: {word[:20]!r}")
    return word
