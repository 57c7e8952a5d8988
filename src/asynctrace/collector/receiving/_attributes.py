"""What encoded attributes say: each short one is read once, and remembered as the very bytes that it is.

    field ── known ─▶ what it says
      └───── learn() ── keys ─▶ a text or a number under a known key ─▶ remembered
                         └────▶ anything else: read(), which decodes ──▶ remembered

A field is an attribute with the tag and the length before it, so whoever looks for one in `known` needs to look at neither.

Promises: what is remembered is bounded, and a field says the same whether it was remembered, learned or read.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from struct import Struct
from typing import Any, Final, TypeAlias

from ..._contracts import AttributeValue
from ..._errors import WireError
from ...wire import decode_attribute, encode_any_value, encode_varint, length_delimited, read_varint
from .._rows import hashed
from ._dialects import Finding, Known, Rule, findings, know_by, rules_for

__all__ = ["REMEMBERED", "Attributes", "Remembered", "before_text", "check_depth"]

REMEMBERED: Final = 96
"""Bytes of an attribute that is remembered. Fewer than `LONGEST_TOKEN`: each short text has a token."""
MOST_REMEMBERED: Final = 8192
"""Attributes, each some 400 bytes with what is known of it. Then those that are not seen again are forgotten, and all of
those that say more than one thing."""
MOST_KEYS: Final = 4096
MOST_SIZES: Final = 4096
"""Of values that are texts."""

Remembered: TypeAlias = tuple[bytes, int, int, Any]
"""What nearly all attributes say: one search token and at most one finding (its slot, rank and value; slot 0 for none). One
object instead of four: a memory that others use as well makes reading them the larger part of the time."""
_NOT_FOUND: Final[Finding] = (0, 0, None)
_double_at = Struct("<d").unpack_from


class Attributes:
    """The memory. Used by several threads at once."""

    def __init__(self) -> None:
        self.known: dict[bytes, Remembered] = {}
        """By the field; replaced by another object when it is full."""
        self.keys: dict[bytes, tuple[str, bytes, tuple[Rule, ...]]] = {}
        """By the encoded key, with its tag and length: the key, what its tokens begin with, and what it says."""
        self._earlier: dict[bytes, Remembered] = {}
        self._others: dict[bytes, Known] = {}

    def learn(self, field: bytes) -> Known:
        """What a field of at most `REMEMBERED` bytes says that is not among the known ones. `WireError`."""
        remembered = self._earlier.get(field)
        if remembered is not None:
            self._remember(field, remembered)
            return remembered[:1], (remembered[1:],)
        known = self._others.get(field)
        if known is not None:
            return known
        content = field[2:]
        known = self._read_quickly(content) or self.read(content)
        tokens, found = known
        if len(tokens) == 1 and len(found) <= 1:
            slot, rank, value = found[0] if found else _NOT_FOUND
            self._remember(field, (tokens[0], slot, rank, value))
        else:
            if len(self._others) >= MOST_REMEMBERED:
                self._others.clear()
            self._others[field] = known
        return known

    def read(self, content: bytes) -> Known:
        """What any attribute says, without its tag and length. `WireError`."""
        key, value = decode_attribute(content)
        check_depth((value,))
        head = length_delimited(b"\x0a", key.encode())
        if len(head) < 0x80 and content.startswith(head):
            if len(self.keys) >= MOST_KEYS:
                self.keys.clear()
            self.keys[head] = (key, head[2:] + b"=", rules_for(key))
        return know_by(key, rules_for(key), value)

    def _remember(self, field: bytes, remembered: Remembered) -> None:
        if len(self.known) >= MOST_REMEMBERED:
            self._earlier, self.known = self.known, {}
        self.known[field] = remembered

    def _read_quickly(self, content: bytes) -> Known | None:
        """Of a short one: for a known key with a text or a number that fills it to its end; `None` for anything else."""
        try:
            middle = content[1] + 2
            key, prefix, rules = self.keys[content[:middle]]
            size = len(content) - middle
            before = before_text(size)
            if before is not None and content.startswith(before, middle):
                encoded = content[middle + len(before) :]
                if not encoded.isascii():
                    return know_by(key, rules, encoded.decode())
                return (hashed(prefix + encoded.lower()),), (findings(rules, encoded.decode()) if rules else ())
            lead, length, tag = content[middle], content[middle + 1], content[middle + 2]
            if lead != 0x12 or length != size - 2:
                return None
            if tag == 0x21 and length == 9:
                (double,) = _double_at(content, middle + 3)
                return (hashed(prefix + repr(double).encode()),), findings(rules, double)
            if tag != 0x18 or length > 3:
                return None
            integer, end = read_varint(content, middle + 3, len(content))
            return ((hashed(prefix + b"%d" % integer),), findings(rules, integer)) if end == len(content) else None
        except (IndexError, KeyError, UnicodeDecodeError, WireError):
            return None


@lru_cache(MOST_SIZES)
def before_text(size: int) -> bytes | None:
    """What stands before the text in a value that is a text and takes, as a field of its attribute, `size` bytes. `None`: no
    text takes so many when its lengths are as short as they can be."""
    outer = _before(b"\x12", size)
    inner = _before(b"\x0a", size - len(outer)) if outer else None
    return outer + inner if outer and inner else None


def _before(tag: bytes, size: int) -> bytes | None:
    for width in range(1, 6):
        length = size - 1 - width
        if length >= 0 and len(encoded := encode_varint(length)) == width:
            return tag + encoded
    return None


def check_depth(values: Iterable[AttributeValue]) -> None:
    """Values can be nested deeper than we write them: such a span could be kept, and not given back. `WireError`."""
    for value in values:
        if isinstance(value, list | dict):
            try:
                encode_any_value(value)
            except ValueError as error:
                raise WireError(str(error)) from None
