"""Snapshots of a program's values: plain, masked, bounded text, taken at the moment they are given.

- Nothing of the value changes, nothing of its own code runs (the `__str__` of an exception excepted).
- What does not fit is replaced by a marker; what comes out is never larger than its limit.
- Nothing raises: what goes wrong in here becomes a marker too. `KeyboardInterrupt` and its like pass.
"""

from __future__ import annotations

from collections.abc import Callable

from .._contracts import AttributeValue
from ._capture_cut import SLACK, cut_text, cut_window, fingerprint, fit_utf8, text_marker
from ._capture_exception import exception_message, exception_type, stack_trace
from ._capture_types import Kind, kind_of, type_name
from ._capture_walk import FAILED, Plain, Walk, encode
from ._limits import Limits
from ._masking import MASKED, Masker

__all__ = ["JSON", "TEXT", "Capture"]

TEXT = "text/plain"
JSON = "application/json"

_TOO_LARGE = "[asynctrace: left out, over {} bytes]"


class Capture:
    """Takes snapshots within `limits`, through `masker`. Safe from any thread; keeps nothing of a value."""

    __slots__ = ("_attribute_bytes", "_limits", "_mask_value", "_masker", "_monotonic_ns", "_short")

    def __init__(self, limits: Limits, masker: Masker, monotonic_ns: Callable[[], int]) -> None:
        self._limits = limits
        self._masker = masker
        self._monotonic_ns = monotonic_ns
        self._attribute_bytes = limits.attribute_bytes
        self._short = limits.attribute_bytes // 4  # so many characters fit, whatever they are
        self._mask_value = masker.mask_value

    def snapshot(self, value: object, key: str = "") -> tuple[str, bytes]:
        """MIME type and UTF-8 bytes, at most `limits.value_bytes`: a plain str as it is, all else as JSON.

        `key` is the name of the field, for the masker.
        """
        try:
            if type(value) is str:
                return TEXT, _utf8(self._text(value, self._limits.value_bytes, key))
            return JSON, self._json(value, key, self._limits.value_bytes)
        except Exception as error:  # noqa: BLE001 - the last resort: a span without its value, not an error
            return JSON, encode(_failed(error))

    def attribute(self, value: object, key: str = "") -> AttributeValue:
        """A value as OTLP can carry it: scalars and bytes as such, lists and tuples as tuple, dicts as dict,
        all else as text. A text is at most `limits.attribute_bytes`, as is a container."""
        try:
            cls = type(value)
            if cls is str:
                if len(value) <= self._short:  # type: ignore[arg-type]
                    masked = self._mask_value(key, value)  # type: ignore[arg-type]
                    if len(masked) <= self._short:
                        return masked
                return self._text(value, self._attribute_bytes, key)  # type: ignore[arg-type]
            if value is None or cls is bool:
                return value  # type: ignore[return-value]
            if self._masker.is_secret_key(key):
                return MASKED
            if cls is float or (cls is int and -(10**12) < value < 10**12):  # type: ignore[operator]
                return value  # type: ignore[return-value]
            return self._compound(value, key)
        except Exception as error:  # noqa: BLE001 - the last resort: a span without its value, not an error
            return _failed(error)

    def text(self, value: str, limit: int, key: str = "") -> str:
        """A text (a name, a message), masked and cut to `limit` bytes of UTF-8, as an exact str."""
        try:
            if type(value) is not str:
                value = str.__str__(value)
            return self._text(value, limit, key)
        except Exception as error:  # noqa: BLE001 - as above
            return _failed(error)

    def exception(self, exc: BaseException) -> tuple[str, str, str]:
        """Class, message, stack trace; masked and cut to `limits.attribute_bytes`, no local variables."""
        limit = self._attribute_bytes
        try:
            message = self._text(exception_message(exc), limit, "exception.message")
            trace = self._text(stack_trace(exc), limit, "exception.stacktrace")
            return self._text(exception_type(exc), limit, "exception.type"), message, trace
        except Exception as error:  # noqa: BLE001 - as above
            return "[asynctrace: unknown]", _failed(error), ""

    def _text(self, value: str, limit: int, key: str) -> str:
        """An exact str, masked whole when it may fit, else masked and cut."""
        if len(value) <= limit:
            masked = self._mask_value(key, value)
            if len(masked) <= limit // 4 or _utf8_size(masked) <= limit:
                return masked
        if self._masker.is_secret_key(key):
            return MASKED
        mask: Callable[[str], str] = lambda window: fit_utf8(self._masker.mask_leaf(key, window))  # noqa: E731
        return cut_text(value, limit, mask, _utf8_size, fingerprint(value))

    def _json(self, value: object, key: str, limit: int) -> bytes:
        """JSON text of at most `limit` bytes.

        The first walk does not look for escapes and lone surrogates, which are rare; when there were some, a
        second one counts every byte.
        """
        for careful in (False, True):
            try:
                encoded = encode(self._plain(value, key, limit, careful))
            except UnicodeEncodeError:
                continue
            if len(encoded) <= limit:
                return encoded
        return encode(_TOO_LARGE.format(limit))

    def _plain(self, value: object, key: str, limit: int, careful: bool = False) -> Plain:
        if self._masker.is_secret_key(key):
            return MASKED
        return Walk(self._limits, self._masker, self._monotonic_ns, limit, careful).value(value, key)

    def _compound(self, value: object, key: str) -> AttributeValue:
        kind = kind_of(type(value))
        if kind is Kind.BYTES and type(value) is bytes:
            return self._bytes(value, key)
        plain = self._plain(value, key, self._attribute_bytes)
        if type(plain) is dict and kind is Kind.MAPPING:
            return plain
        if type(plain) is list and type(value) in (list, tuple):
            return tuple(plain)
        if type(plain) in (dict, list):
            return self._json(value, key, self._attribute_bytes).decode()
        return plain

    def _bytes(self, value: bytes, key: str) -> AttributeValue:
        """Bytes stay bytes; masked as the text they may be, cut with a marker."""
        limit = self._attribute_bytes
        if len(value) > limit:
            marker = text_marker(len(value), "bytes", fingerprint(value))
            window = value[: limit + SLACK].decode("latin-1")
            mask: Callable[[str], str] = lambda part: self._masker.mask_leaf(key, part)  # noqa: E731
            return cut_window(window, limit, mask, len, marker).encode("latin-1", "replace")
        text = value.decode("latin-1")
        masked = self._masker.mask_leaf(key, text)
        return value if masked is text else masked.encode("utf-8", "replace")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return fit_utf8(text).encode()


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _failed(error: Exception) -> str:
    return FAILED.format(type_name(type(error)))
