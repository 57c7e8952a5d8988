"""Values that are no JSON, and objects that lie about what they are."""

from __future__ import annotations

import datetime
import enum
from typing import Any, NamedTuple

__all__ = [
    "NOT_PLAIN",
    "Angry",
    "Level",
    "LyingDict",
    "LyingList",
    "LyingText",
    "LyingTuple",
    "Point",
    "Tier",
    "laughs",
    "nested",
]


class Angry:
    """Everything that can be asked of it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise OSError(name)

    __repr__ = __str__ = __len__ = __iter__ = __hash__ = __eq__ = __bool__ = lambda self, *_: 1 / 0  # type: ignore


class Tier(enum.StrEnum):
    GOLD = "gold"


class Level(enum.IntEnum):
    TOP = 3


class Plain(enum.Enum):
    A = 1


class Point(NamedTuple):
    x: int
    y: int


class LyingText(str):
    __slots__ = ()

    def __len__(self) -> int:
        raise OSError

    def __str__(self) -> str:
        raise OSError

    def isascii(self) -> bool:
        raise OSError


class LyingDict(dict[str, Any]):
    def __len__(self) -> int:
        return 1

    def items(self) -> Any:
        raise OSError

    __iter__ = keys = values = items  # type: ignore[assignment]


class LyingList(list[Any]):
    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Any:
        raise OSError


class LyingTuple(tuple[Any, ...]):
    __slots__ = ()

    def __iter__(self) -> Any:
        raise OSError


def laughs(levels: int) -> list[Any]:
    """100 lists of 100 lists of …, so many times over, in the memory of a few thousand."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value] * 100
    return value


def cyclic() -> list[Any]:
    cycle: list[Any] = []
    cycle += [cycle] * 50
    return cycle


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


NOT_PLAIN: dict[str, Any] = {
    "an object": object(),
    "an object that raises": Angry(),
    "a function": print,
    "a type": int,
    "a time": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    "bytes": b"a",
    "a set": {1},
    "an Enum": Plain.A,
    "complex": 1j,
    "not a number": float("nan"),
    "infinity": float("-inf"),
    "65 bits": 2**64,
    "very many bits": 10**100_000,
    "below 64 bits": -(2**63) - 1,
    "half a character": "a\ud800",
    "keys that are no text": {1: "a"},
    "a key that is half a character": {"\udfff": 1},
    "a list of itself": cyclic(),
    "100 to the power of 15 lists": laughs(15),
    "21 levels": nested(21),
    "100,000 levels": nested(100_000),
    "an exception": ValueError("a"),
    "a long text that lies": LyingText("x" * 5000),
    "a large mapping that lies": LyingDict(a="x" * 5000),
}
