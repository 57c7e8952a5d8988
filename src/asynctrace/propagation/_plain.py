"""Values that mean the same wherever they arrive: what JSON can say, in Python's own types.

- A copy holds `None`, `bool`, `int`, `float`, `str`, `list` and `dict` with `str` keys, exactly these types, and shares
  nothing that can change. Tuples become lists; members of an `Enum` of texts or numbers become those.
- Refused whole: any other type, numbers that are not finite or have more than 64 bits, text that has no UTF-8, more
  than 20 levels, more than a number of characters.
- No code of a value runs, and the work is bounded by that number of characters, also for values that contain
  themselves.

Source: RFC 8259, sections 3 to 7; RFC 7493, section 2.1.
"""

from __future__ import annotations

import re
from itertools import islice
from math import isfinite
from typing import Any, NoReturn

__all__ = ["MOST_LEVELS", "NotPlain", "copy_plain", "is_larger"]

MOST_LEVELS = 20
"""Containers inside containers. Deeper ones are a defect or an attack; decoders have limits of their own."""


_HALF = re.compile("[\ud800-\udfff]")


class NotPlain(ValueError):
    """The value cannot be said in JSON, or is too large."""


def copy_plain(value: object, most: int) -> Any:
    """A copy of `value` in builtin types. Raises `NotPlain`.

    `most` is how many characters its texts may have, where each value counts as one more.
    """
    return _Copy(most).of(value, MOST_LEVELS)


class _Copy:
    """One walk over one value, with what is left of its budget."""

    __slots__ = ("_left",)

    def __init__(self, most: int) -> None:
        self._left = most

    # The methods of the builtin types are called by name: those of a subclass may say anything.

    def of(self, value: object, levels: int) -> Any:
        kind = type(value)
        self._take(1)
        if value is None or kind is bool:
            return value
        if issubclass(kind, str):
            return self._text(value)
        if issubclass(kind, int):
            return _whole_number(value)
        if issubclass(kind, float):
            return _number(value)
        return self._container(value, kind, levels - 1)

    def _container(self, value: Any, kind: type, levels: int) -> Any:
        if levels < 0:
            raise NotPlain("too many levels")
        if issubclass(kind, dict):
            items = list(islice(dict.items(value), self._left + 1))  # at once: another thread may write to it
            return {self._key(key): self.of(inner, levels) for key, inner in items}
        if issubclass(kind, list):
            return [self.of(inner, levels) for inner in list.__iter__(value)]
        if issubclass(kind, tuple):
            return [self.of(inner, levels) for inner in tuple.__iter__(value)]
        _refuse(kind)

    def _key(self, key: object) -> str:
        return self._text(key) if issubclass(type(key), str) else _refuse(type(key))

    def _text(self, value: Any) -> str:
        self._take(str.__len__(value))
        text = str.__str__(value)
        if not text.isascii() and _HALF.search(text) is not None:
            raise NotPlain("half a character")
        return text

    def _take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise NotPlain("too large")


def _whole_number(value: Any) -> int:
    if not -(2**63) <= (number := int.__int__(value)) < 2**64:
        raise NotPlain("more than 64 bits")
    return number


def _number(value: Any) -> float:
    if not isfinite(number := float.__float__(value)):
        raise NotPlain("not finite")
    return number


def _refuse(kind: type) -> NoReturn:
    raise NotPlain(f"{kind.__qualname__} is no JSON")


def is_larger(value: object, most: int) -> bool:
    """Whether `value` has more than `most` characters, where each value in a container counts as one more.

    What is no container and no text counts as one character. Stops as soon as the answer is known.
    """
    left, waiting = most, [value]
    while waiting and left >= 0:
        inner: Any = waiting.pop()
        kind = type(inner)
        for text_kind in (str, bytes, bytearray):
            if issubclass(kind, text_kind):
                left -= text_kind.__len__(inner)
        for container in (dict, list, tuple):
            if issubclass(kind, container):
                left -= container.__len__(inner)
                if left >= 0:  # counted before it is walked: what waits is never more than `most`
                    waiting += container.__iter__(inner)
                    if container is dict:
                        waiting += dict.values(inner)
    return left < 0
