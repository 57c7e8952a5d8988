"""What can be learned of an object without running a line of its class.

Every function here goes through the C slots of `type`, `object` and the builtin types. `getattr`,
`isinstance`, `repr`, `hash` and `==` on a stranger are forbidden in this file: each can be answered by user
code (a metaclass, a `__class__` property, a lazy attribute that queries a store).
"""

from __future__ import annotations

import enum
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from types import FunctionType, GetSetDescriptorType, MappingProxyType, MemberDescriptorType
from typing import Any

import msgspec

__all__ = [
    "Kind",
    "exception_args",
    "fields_of",
    "instance_dict",
    "kind_of",
    "marker_for",
    "tuple_names",
    "type_name",
]

_mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_class_dict: Callable[[type], MappingProxyType[str, Any]] = type.__dict__["__dict__"].__get__
_module: Callable[[type], object] = type.__dict__["__module__"].__get__
_qualname: Callable[[type], str] = type.__dict__["__qualname__"].__get__
exception_args: Callable[[BaseException], tuple[Any, ...]] = BaseException.__dict__["args"].__get__


class Kind(enum.Enum):
    """How a value is read."""

    TEXT = "str and subclasses"
    BYTES = "bytes, bytearray and subclasses"
    INT = "int and subclasses"
    FLOAT = "float and subclasses"
    MAPPING = "dict and subclasses"
    SEQUENCE = "containers that hold their items"
    NAMED_TUPLE = "tuple with names"
    ENUM = "enumeration member"
    MOMENT = "datetime and subclasses"
    PRINTED = "exact types whose str() is their own"
    EXCEPTION = "exception"
    FIELDS = "dataclass, attrs, pydantic, msgspec.Struct"
    OPAQUE = "everything else: never touched"


_BASES: tuple[tuple[type, Kind], ...] = (
    (enum.Enum, Kind.ENUM),
    (str, Kind.TEXT),
    (int, Kind.INT),
    (float, Kind.FLOAT),
    (bytes, Kind.BYTES),
    (bytearray, Kind.BYTES),
    (dict, Kind.MAPPING),
    (list, Kind.SEQUENCE),
    (tuple, Kind.SEQUENCE),
    (set, Kind.SEQUENCE),
    (frozenset, Kind.SEQUENCE),
    (deque, Kind.SEQUENCE),
    (datetime, Kind.MOMENT),
    (BaseException, Kind.EXCEPTION),
    (msgspec.Struct, Kind.FIELDS),
)
"""The metaclass of each is `type` or one of C or of the standard library: `issubclass` runs nothing of the
user's."""

_PRINTED = {
    "datetime": ("date", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "uuid": ("UUID",),
    "fractions": ("Fraction",),
    "ipaddress": ("IPv4Address", "IPv6Address"),
    "pathlib": ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"),
    "pathlib._local": ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"),
    "builtins": ("complex", "range"),
    "zoneinfo": ("ZoneInfo",),
}
_SIGNS_OF_FIELDS = (
    "__dataclass_fields__",
    "__attrs_attrs__",
    "__pydantic_core_schema__",
    "__pydantic_fields__",
    "__validators__",  # pydantic 1
)

_MOST_KNOWN = 1024
_known: dict[int, tuple[type, Kind]] = {}
"""By `id()`, because hashing a class can call its metaclass. The class is kept, so its id cannot be
reused."""


def kind_of(cls: type) -> Kind:
    """How instances of exactly this class are read."""
    known = _known.get(id(cls))
    if known is not None:
        return known[1]
    kind = _classify(cls)
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[id(cls)] = (cls, kind)
    return kind


def _classify(cls: type) -> Kind:
    for base, kind in _BASES:
        if issubclass(cls, base):
            return Kind.NAMED_TUPLE if base is tuple and tuple_names(cls) else kind
    if _is_one_of(cls, _PRINTED):
        return Kind.PRINTED
    if any(sign in _class_dict(base) for base in _mro(cls) for sign in _SIGNS_OF_FIELDS):
        return Kind.FIELDS
    return Kind.OPAQUE


def _is_one_of(cls: type, names: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether it *is* that class of that module: a class can claim any name."""
    for module, members in names.items():
        loaded = sys.modules.get(module)
        if loaded is not None and any(vars(loaded).get(member) is cls for member in members):
            return True
    return False


def tuple_names(cls: type) -> tuple[str, ...]:
    """The field names of a named tuple class; empty for any other tuple."""
    for base in _mro(cls):
        names = _class_dict(base).get("_fields")
        if type(names) is tuple and all(type(name) is str for name in names):
            return names
    return ()


def instance_dict(value: object) -> dict[str, Any] | None:
    """The object's own `__dict__`, past any property or `__getattribute__` in its way; `None` if it has
    none."""
    for base in _mro(type(value)):
        found = _class_dict(base).get("__dict__")
        if type(found) is GetSetDescriptorType:
            own = found.__get__(value)
            return own if type(own) is dict else None
    return None


def fields_of(value: object) -> Iterator[tuple[str, Any]]:
    """Public fields that have a value: slots from the base class down, then the `__dict__`. Nothing is
    computed."""
    for base in reversed(_mro(type(value))):
        for name, member in tuple(_class_dict(base).items()):
            if type(member) is MemberDescriptorType and type(name) is str and name[:1] != "_":
                try:
                    yield name, member.__get__(value)
                except AttributeError:  # a slot without a value
                    continue
    for name, field in tuple(dict.items(instance_dict(value) or {})):
        if type(name) is str and name[:1] != "_":
            yield name, field


def type_name(cls: type) -> str:
    """`module.QualName` as the class itself has it, at most 256 characters."""
    try:
        module: object = _module(cls)
    except AttributeError:
        module = "?"
    return f"{module if type(module) is str else '?'}.{_qualname(cls)}"[:256]


def marker_for(value: object) -> str:
    """`<module.QualName>`; of a class or a function its own name follows."""
    cls = type(value)
    if issubclass(cls, type):
        return f"<{type_name(cls)} {type_name(value)}>"  # type: ignore[arg-type]
    if cls is FunctionType:
        return f"<{type_name(cls)} {value.__qualname__}>"[:512]  # type: ignore[attr-defined]
    return f"<{type_name(cls)}>"
