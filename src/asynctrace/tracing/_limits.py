"""How much of a program's values a span may hold.

Every limit is a hard bound: what is over it is left out, and a marker in its place says how much. Nothing is
ever cut silently, and no limit makes a call fail.
"""

from __future__ import annotations

import msgspec

from .._errors import ConfigurationError

__all__ = ["Limits"]

_LEAST = {
    "attributes": 0,
    "events": 0,
    "links": 0,
    "value_bytes": 1024,  # a marker with a hash needs about 160
    "attribute_bytes": 256,
    "span_bytes": 4096,
    "depth": 1,
    "nodes": 1,
    "name_bytes": 256,
}
_DEEPEST = 32
"""What the OTLP encoder and common JSON readers take without trouble."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds for one span; each must be an integer, except `capture_seconds`.

        Limits(value_bytes=64 * 1024, depth=8)

    Raises `ConfigurationError`, naming the field, for a wrong type or a value out of range.
    """

    attributes: int = 128
    """Attributes of one span (the default of OTel's SpanLimits)."""
    events: int = 128
    """Events of one span."""
    links: int = 128
    """Links of one span."""
    value_bytes: int = 258_048
    """Bytes of one captured input or output: 252 KiB, which leaves room for the rest in `span_bytes`."""
    attribute_bytes: int = 16_384
    """Bytes of one attribute text, log field, exception message or stack trace."""
    span_bytes: int = 262_144
    """Bytes of one encoded span."""
    depth: int = 16
    """Containers inside one another, at most 32."""
    nodes: int = 10_000
    """Items of containers visited in one capture."""
    capture_seconds: float = 0.002
    """Seconds one walk over a value may take."""
    name_bytes: int = 1024
    """Bytes of a span's or event's name, or of a key."""

    def __post_init__(self) -> None:
        for field, least in _LEAST.items():
            _check_integer(field, getattr(self, field), least)
        if self.depth > _DEEPEST:
            raise ConfigurationError(f"Limits(depth={self.depth}): at most {_DEEPEST}")
        seconds = self.capture_seconds
        if type(seconds) not in (int, float) or not 0 < seconds < float("inf"):
            raise ConfigurationError(
                f"Limits(capture_seconds={seconds!r}): seconds above 0, for example capture_seconds=0.002"
            )


def _check_integer(field: str, value: object, least: int) -> None:
    if type(value) is not int:
        raise ConfigurationError(f"Limits({field}={value!r}): an integer, for example {field}={least}")
    if value < least:
        raise ConfigurationError(f"Limits({field}={value}): at least {least}")
