"""One budgeted walk over a value: a plain, masked copy comes out, small enough to be encoded at once.

- Four budgets: bytes of JSON text, depth, items visited, time. Where one ends, a marker says what is missing.
- Nothing of the value's own code runs: see `_capture_types`.
- The items of a container are copied in one C call before they are visited, so a thread that changes the
  container meanwhile cannot break the walk.
- Time is looked at every 64 items only, and one pause counts at most a quarter of the budget: a value of less
  than 256 items is never cut because the operating system ran something else meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, tzinfo
from itertools import islice
from typing import Any, TypeAlias

import msgspec

from ._capture_cut import SAMPLE, SLACK, cut_bytes_text, cut_text, fingerprint, fit_utf8, sampled
from ._capture_types import (
    Kind,
    exception_args,
    fields_of,
    instance_dict,
    kind_of,
    marker_for,
    tuple_names,
    type_name,
)
from ._limits import Limits
from ._masking import MASKED, Masker

__all__ = ["Plain", "Walk", "encode"]

Plain: TypeAlias = bool | int | float | str | list["Plain"] | dict[str, "Plain"] | None
"""What JSON can say."""

CYCLE = "[asynctrace: cycle]"
TOO_DEEP = "[asynctrace: too deep, {}]"
FAILED = "[asynctrace: could not be captured: {}]"
LEFT_OUT = "[asynctrace: {} left out]"

_MARKER_ROOM = 80
"""Bytes of the marker that each open container may still need."""
_HASHED = 1024 * 1024
"""Bytes hashed whole in one walk."""
_PERIOD = 64
_PERIOD_WITH_USER_CODE = 16
_BITS_AS_TEXT = 4096
"""`str()` of an integer takes quadratic time."""

_zone: Callable[[datetime], tzinfo | None] = datetime.__dict__["tzinfo"].__get__

encode = msgspec.json.Encoder().encode


class Walk:
    """The budgets of one capture. Used once, by one thread."""

    __slots__ = (
        "_bytes",
        "_careful",
        "_check_at",
        "_depth",
        "_hashable",
        "_last",
        "_limits",
        "_masker",
        "_nodes",
        "_now",
        "_path",
        "_period",
        "_spent",
        "_time",
    )  # fmt: skip

    def __init__(
        self,
        limits: Limits,
        masker: Masker,
        now_ns: Callable[[], int],
        size: int,
        careful: bool = False,
    ) -> None:
        self._limits = limits
        self._masker = masker
        self._now = now_ns
        self._careful = careful
        self._depth = limits.depth
        self._nodes = limits.nodes
        self._bytes = size - min(_MARKER_ROOM * (limits.depth + 1), size // 2)
        self._period = _PERIOD_WITH_USER_CODE if masker.calls_user_code else _PERIOD
        self._check_at = limits.nodes - self._period
        self._path: set[int] = set()
        self._hashable = _HASHED
        self._spent = 0
        self._time = int(limits.capture_seconds * 1e9)
        self._last = now_ns()

    # --- one value ---

    def value(self, value: object, key: str) -> Plain:
        """A plain copy of a value under a harmless name."""
        cls = type(value)
        if cls is str:
            return self.text(value, key)  # type: ignore[arg-type]
        if cls is int:
            return self.integer(value)  # type: ignore[arg-type]
        if value is None or cls is bool:
            self._bytes -= 6
            return value  # type: ignore[return-value]
        if cls is float:
            return self._float(value)  # type: ignore[arg-type]
        try:
            return self._READERS[kind_of(cls)](self, value, key)
        except Exception as error:  # noqa: BLE001 - this value becomes a marker, and only this
            return self._charge(FAILED.format(type_name(type(error))))

    def text(self, text: str, key: str) -> str:
        """An exact str: masked, and cut when it does not fit."""
        if len(text) <= self._bytes:
            masked = self._masker.mask_leaf(key, text)
            if self._careful:
                masked = fit_utf8(masked)
            size = self._size(masked) + 1
            if size <= self._bytes:
                self._bytes -= size
                return masked
        return self._cut(text, key)

    def _cut(self, text: str, key: str) -> str:
        """Seven eighths of what is left at most, so that the values behind a long text are still seen."""
        cut = cut_text(
            text, self._room(), lambda window: self._masked(key, window), self._size, self._fingerprint(text)
        )
        self._bytes -= self._size(cut) + 1
        return cut

    def _masked(self, key: str, text: str) -> str:
        masked = self._masker.mask_leaf(key, text)
        return fit_utf8(masked) if self._careful else masked

    def _room(self) -> int:
        return self._bytes * 7 // 8

    def _fingerprint(self, value: str | bytes) -> str:
        made = fingerprint(value, self._hashable)
        self._hashable -= min(len(value), self._hashable)
        return made

    def _size(self, text: str) -> int:
        """Bytes as a JSON text; escapes, which are rare, count in the careful walk only."""
        if self._careful:
            return len(encode(text))
        return len(text) + 2 if text.isascii() else len(text.encode("utf-8", "surrogatepass")) + 2

    def integer(self, value: int) -> int | str:
        """An exact int: as it is within 64 bits, else its decimal text; card numbers are masked."""
        self._bytes -= 21
        if -(2**63) <= value < 2**63:
            return value if value < 10**12 else self._masker.mask_int(value)
        bits = value.bit_length()
        if bits > _BITS_AS_TEXT:
            return f"[asynctrace: integer of {bits} bits]"
        text = str(value)
        self._bytes -= len(text)
        return text

    def _float(self, value: float) -> float | str:
        self._bytes -= 25
        if value - value == 0.0:
            return value
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"

    def _charge(self, text: str) -> str:
        """A text that was made here, not given."""
        if self._careful:
            text = fit_utf8(text)
        self._bytes -= self._size(text) + 1
        return text

    # --- scalars that are not exact ---

    def _any_text(self, value: Any, key: str) -> Plain:
        return self.text(str.__str__(value), key)

    def _any_int(self, value: object, key: str) -> Plain:
        return self.integer(int.__int__(value))  # type: ignore[arg-type]

    def _any_float(self, value: object, key: str) -> Plain:
        return self._float(float.__float__(value))  # type: ignore[arg-type]

    def _any_bytes(self, value: object, key: str) -> Plain:
        """Text when it is UTF-8, else a marker with length and hash."""
        length = _bytes_length(value)
        if type(value) is not bytes and length > _HASHED:
            return self._charge(f"[asynctrace: {length} bytes, {_sampled(value, length)}]")
        raw = _exact_bytes(value)
        mask: Callable[[str], str] = lambda window: self._masked(key, window)  # noqa: E731
        try:
            if b"\0" in raw[:SLACK]:
                return self._binary(raw)
            if len(raw) <= self._bytes:
                return self.text(raw.decode(), key)
            cut = cut_bytes_text(raw, self._room(), mask, self._size, self._fingerprint(raw))
        except UnicodeDecodeError:
            return self._binary(raw)
        self._bytes -= self._size(cut) + 1
        return cut

    def _binary(self, raw: bytes) -> str:
        return self._charge(f"[asynctrace: {len(raw)} bytes, {self._fingerprint(raw)}]")

    def _enum(self, value: object, key: str) -> Plain:
        own = instance_dict(value) or {}
        plain = own.get("_value_")
        return self.value(plain, key) if not _is_container(plain) else self._opaque(value, key)

    def _moment(self, value: Any, key: str) -> Plain:
        """ISO 8601. A time zone that is not of the standard library is not asked for its offset."""
        zone = _zone(value)
        if zone is None or kind_of(type(zone)) is Kind.PRINTED:
            return self._charge(datetime.isoformat(value))
        naive = datetime.combine(datetime.date(value), datetime.time(value))
        return self._charge(f"{naive.isoformat()} {marker_for(zone)}")

    def _printed(self, value: object, key: str) -> Plain:
        return self.text(str(value), key)

    def _opaque(self, value: object, key: str) -> Plain:
        return self._charge(marker_for(value))

    # --- containers ---

    def _mapping(self, value: Any, key: str) -> Plain:
        return self._enter(value, lambda: self._items(islice(dict.items(value), self._take()), dict.__len__(value)))

    def _sequence(self, value: Any, key: str) -> Plain:
        base = next(base for base in _ITERATE if issubclass(type(value), base))
        iterate, count = _ITERATE[base]
        return self._enter(value, lambda: self._elements(islice(iterate(value), self._take()), count(value), key))

    def _named_tuple(self, value: Any, key: str) -> Plain:
        names = tuple_names(type(value))
        if len(names) != tuple.__len__(value):
            return self._sequence(value, key)
        return self._enter(value, lambda: self._items(zip(names, tuple.__iter__(value), strict=True), len(names)))

    def _fields(self, value: object, key: str) -> Plain:
        return self._enter(value, lambda: self._items(islice(fields_of(value), self._take()), 0))

    def _exception(self, value: Any, key: str) -> Plain:
        """Its class and arguments: `str()` would be the exception's own code."""
        fields = {"exception": type_name(type(value)), "args": exception_args(value)}
        return self._enter(value, lambda: self._items(iter(fields.items()), 2))

    def _enter(self, value: object, read: Callable[[], Plain]) -> Plain:
        identity = id(value)
        if identity in self._path:
            return self._charge(CYCLE)
        if self._depth <= 0:
            return self._charge(TOO_DEEP.format(type_name(type(value))))
        self._depth -= 1
        self._path.add(identity)
        self._bytes -= 3
        try:
            return read()
        finally:
            self._path.discard(identity)
            self._depth += 1

    def _take(self) -> int:
        """How many items are worth copying: each needs at least two bytes."""
        return max(0, min(self._nodes, self._bytes // 2)) + 1

    def _elements(self, items: Iterable[object], total: int, key: str) -> Plain:
        elements = list(items)
        plain: list[Plain] = []
        for element in elements:
            if self._exhausted():
                plain.append(self._left_out(total - len(plain), "items"))
                break
            plain.append(self.value(element, key))
        return plain

    def _items(self, items: Iterable[tuple[object, object]], total: int) -> Plain:
        pairs = list(items)
        total = total or len(pairs)
        plain: dict[str, Plain] = {}
        decided = self._masker.decided
        key: Any  # str from the middle of the loop on; a narrowing would cost a call
        for seen, (key, value) in enumerate(pairs):
            if self._exhausted():
                plain[self._free_key(plain, "…")] = self._left_out(total - seen, "items")
                break
            secret = decided(key) if type(key) is str else None
            if secret is None or self._careful:
                secret, key = self._new_key(key)
            if key in plain:
                key = self._free_key(plain, key)
            self._bytes -= len(key) + 4
            plain[key] = self._secret(value) if secret else self.value(value, key)
        return plain

    def _secret(self, value: object) -> Plain:
        """All under a secret name is replaced, but `None` and booleans: they only tell whether it is set."""
        self._bytes -= 11
        return value if value is None or value is True or value is False else MASKED

    def _new_key(self, key: object) -> tuple[bool, str]:
        """A name as masked text, and whether it announces a secret."""
        name = key if type(key) is str else self._key_text(key)
        limit = min(self._limits.name_bytes, max(self._bytes, _MARKER_ROOM))
        secret = self._masker.is_secret_key(name)
        if len(name) > limit // 4 and self._size(name) > limit:
            name = cut_text(name, limit, self._masker.mask_text, self._size, self._fingerprint(name))
        else:
            name = self._masker.mask_text(name)
        if self._careful:
            name = fit_utf8(name)
        self._bytes -= self._size(name) - len(name)
        return secret, name

    def _key_text(self, key: object) -> str:
        plain = self.value(key, "")
        return plain if isinstance(plain, str) else encode(plain).decode()

    def _free_key(self, plain: dict[str, Plain], key: str) -> str:
        """Two names that became the same text (`1` and `"1"`) are told apart by a number."""
        number = len(plain) + 1
        while key in plain:
            key, number = f"{key} ({number})", number + 1
        return key

    def _exhausted(self) -> bool:
        """Counts one item; whether a budget is at its end."""
        nodes = self._nodes
        if nodes <= 0 or self._bytes <= 0:
            return True
        self._nodes = nodes - 1
        return nodes <= self._check_at and self._late()

    def _late(self) -> bool:
        now = self._now()
        self._spent += min(now - self._last, self._time // 4 + 1)
        self._last = now
        if self._spent < self._time:
            self._check_at = self._nodes - self._period
            return False
        self._nodes = 0
        return True

    def _left_out(self, count: int, unit: str) -> str:
        return LEFT_OUT.format(f"{count} {unit}")

    _READERS: dict[Kind, Callable[[Walk, Any, str], Plain]] = {  # noqa: RUF012 - filled once, below
        Kind.TEXT: _any_text,
        Kind.BYTES: _any_bytes,
        Kind.INT: _any_int,
        Kind.FLOAT: _any_float,
        Kind.MAPPING: _mapping,
        Kind.SEQUENCE: _sequence,
        Kind.NAMED_TUPLE: _named_tuple,
        Kind.ENUM: _enum,
        Kind.MOMENT: _moment,
        Kind.PRINTED: _printed,
        Kind.EXCEPTION: _exception,
        Kind.FIELDS: _fields,
        Kind.OPAQUE: _opaque,
    }


_ITERATE: dict[type, tuple[Callable[[Any], Iterator[object]], Callable[[Any], int]]] = {
    list: (list.__iter__, list.__len__),
    tuple: (tuple.__iter__, tuple.__len__),
    set: (set.__iter__, set.__len__),
    frozenset: (frozenset.__iter__, frozenset.__len__),
    deque: (deque.__iter__, deque.__len__),
}


def _bytes_base(value: object) -> Any:
    return bytes if issubclass(type(value), bytes) else bytearray


def _bytes_length(value: object) -> int:
    length: int = _bytes_base(value).__len__(value)
    return length


def _exact_bytes(value: object) -> bytes:
    """Exact bytes of the base class's content; a bytearray or subclass is copied."""
    return value if type(value) is bytes else bytes(_bytes_base(value).__getitem__(value, slice(None)))


def _sampled(value: object, length: int) -> str:
    """The fingerprint of a long bytearray or subclass of bytes, of which only the ends are copied."""
    part = _bytes_base(value).__getitem__
    return sampled(bytes(part(value, slice(SAMPLE))), bytes(part(value, slice(-SAMPLE, None))), length)


def _is_container(value: object) -> bool:
    return kind_of(type(value)) in (
        Kind.MAPPING,
        Kind.SEQUENCE,
        Kind.NAMED_TUPLE,
        Kind.FIELDS,
        Kind.EXCEPTION,
    )
