"""What a query is: terms, as a tree, with what can be asked. Written down they are the text that the parser reads."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, Literal, TypeAlias

import msgspec

__all__ = [
    "EDGES",
    "ENDINGS",
    "EPOCH",
    "FIELDS",
    "JOINERS",
    "KEYS",
    "KINDS",
    "LOWER",
    "NS_OF_UNIT",
    "NUMBERS",
    "STATES",
    "STATUSES",
    "TEXTS",
    "WORDS",
    "Attribute",
    "Compare",
    "Contains",
    "Field",
    "Identity",
    "Not",
    "Operator",
    "Pattern",
    "Plain",
    "Query",
    "State",
    "Term",
    "When",
    "Word",
    "compare",
]

Operator: TypeAlias = Literal["=", ">", ">=", "<", "<="]

FIELDS: Final = ("service", "name", "session", "user", "type", "model", "scope", "status", "kind", "ending")
TEXTS: Final = ("input", "output", "text")
NUMBERS: Final = ("dur", "cost", "tokens", "spans", "errors")
EDGES: Final = ("since", "until")
KEYS: Final = (*FIELDS, *TEXTS, *NUMBERS, *EDGES, "is", "id")
"""Every key but `attr.…`."""

STATES: Final = ("open", "ended", "lost", "error", "root", "pinned", "late")
STATUSES: Final = ("unset", "ok", "error")
"""In the order of OTLP's status codes."""
KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
"""In the order of OTLP's span kinds."""
ENDINGS: Final = ("ok", "error", "cancelled", "timeout", "abandoned", "incomplete", "lost", "open")

WORDS: Final = {"status": STATUSES, "kind": KINDS, "ending": ENDINGS, "is": STATES}
"""Keys whose values are a closed list of words."""
LOWER: Final = frozenset({"type", *WORDS})
"""Keys whose values are lower case however they are written."""
JOINERS: Final = frozenset({"AND", "OR", "NOT"})
"""Words that other languages have; ours has them in quotes only."""
OF_TRACE: Final = frozenset({"service", "session", "user", "cost", "tokens", "spans", "errors"})

NS_OF_UNIT: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
}
PRINTED_UNITS: Final = ("h", "m", "s", "ms", "us", "ns")
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Pattern(msgspec.Struct, frozen=True):
    """A text with any text before it (`*x`), after it (`x*`), both or neither. Case does not count."""

    text: str
    before: bool = False
    after: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether only one text fits."""
        return not (self.before or self.after)

    @property
    def is_any(self) -> bool:
        """Whether every text fits, and only its presence counts."""
        return not self.text and not self.is_exact

    def fits(self, value: str) -> bool:
        """Whether `value` is such a text."""
        text, value = self.text.lower(), value.lower()
        if self.before:
            return text in value if self.after else value.endswith(text)
        return value.startswith(text) if self.after else value == text

    def __str__(self) -> str:
        if self.is_any and self.before and self.after:
            return "*"
        is_plain = self.text and _is_plain(self.text)
        inner = f"{'*' * self.before}{self.text if is_plain else _escaped(self.text)}{'*' * self.after}"
        return inner if is_plain else f'"{inner}"'


class Word(msgspec.Struct, frozen=True, tag=True):
    """The name of the span contains `text`."""

    text: str

    def __str__(self) -> str:
        reads_otherwise = not self.text or re.search("^-|[:=<>]", self.text) or self.text in JOINERS
        return self.text if _is_plain(self.text) and not reads_otherwise else f'"{_escaped(self.text)}"'


class Field(msgspec.Struct, frozen=True, tag=True):
    """A field of a span (`name`, `status`, …) or of a trace (`service`, `session`, `user`) fits a pattern."""

    key: str
    pattern: Pattern

    def __str__(self) -> str:
        return f"{self.key}:{self.pattern}"


class Attribute(msgspec.Struct, frozen=True, tag=True):
    """An attribute of a span: its value as text fits a pattern, or is a number on one side of another."""

    name: str
    operator: Operator
    value: Pattern | float

    def __str__(self) -> str:
        name = self.name if _is_plain(self.name) and not re.search("[:=<>]", self.name) else f'"{_escaped(self.name)}"'
        value = str(self.value) if isinstance(self.value, Pattern) else _number(self.value)
        return f"attr.{name}{self.operator}{value}"


class Contains(msgspec.Struct, frozen=True, tag=True):
    """`input`, `output`, or any text of a span (`text`) contains `text`."""

    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.key}:{Pattern(self.text)}"


class Compare(msgspec.Struct, frozen=True, tag=True):
    """A number against a bound: `dur` of a span in nanoseconds, `cost`, `tokens`, `spans`, `errors`."""

    key: str
    operator: Operator
    number: float

    def holds(self, value: float) -> bool:
        """Whether `value` is on the right side."""
        return compare(value, self.operator, self.number)

    def __str__(self) -> str:
        number = _duration(int(self.number)) if self.key == "dur" else _number(self.number)
        return f"{self.key}{self.operator}{number}"


class State(msgspec.Struct, frozen=True, tag=True):
    """One of `STATES`."""

    state: str

    def __str__(self) -> str:
        return f"is:{self.state}"


class When(msgspec.Struct, frozen=True, tag=True):
    """It started `since` or `until` a moment: `ns` before now, or `ns` after the Unix epoch."""

    edge: str
    ns: int
    is_ago: bool = True

    def moment(self, now_ns: int) -> int:
        """Nanoseconds since the Unix epoch."""
        return now_ns - self.ns if self.is_ago else self.ns

    def __str__(self) -> str:
        return f"{self.edge}:{_duration(self.ns) if self.is_ago else _iso(self.ns)}"


class Identity(msgspec.Struct, frozen=True, tag=True):
    """The trace id, inside a trace also the span id, begins with `prefix` (lower-case hex digits)."""

    prefix: str

    def __str__(self) -> str:
        return f"id:{self.prefix}"


class Not(msgspec.Struct, frozen=True, tag=True):
    """The term does not hold."""

    term: Plain

    def __str__(self) -> str:
        return f"-{self.term}"


Plain: TypeAlias = Word | Field | Attribute | Contains | Compare | State | When | Identity
Term: TypeAlias = Plain | Not


class Query(msgspec.Struct, frozen=True):
    """Terms that all must hold; none: everything fits."""

    terms: tuple[Term, ...] = ()

    @property
    def of_trace(self) -> tuple[Term, ...]:
        """The terms that a list of traces asks of the trace as a whole."""
        return tuple(term for term in self.terms if _is_of_trace(term))

    @property
    def of_span(self) -> tuple[Term, ...]:
        """The terms that one span of a trace must satisfy together."""
        return tuple(term for term in self.terms if not _is_of_trace(term))

    def __str__(self) -> str:
        return " ".join(map(str, self.terms))


def _is_of_trace(term: Term) -> bool:
    if isinstance(term, Not):
        return _is_of_trace(term.term)
    if isinstance(term, Field | Compare):
        return term.key in OF_TRACE
    return isinstance(term, State | When | Identity)


def compare(value: float, operator: Operator, bound: float) -> bool:
    """Whether `value operator bound` is true."""
    if operator == "=":
        return value == bound
    if operator.startswith(">"):
        return value > bound or (value == bound and operator == ">=")
    return value < bound or (value == bound and operator == "<=")


# ── a tree as text ──────────────────────────────────────────────────────────────────────────────────────────


def _is_plain(text: str) -> bool:
    """Whether a text needs no quotes: no space, no quote, no star that would be read as an open end."""
    return not re.search(r'[\s"]', text) and not text.startswith("*") and not text.endswith("*")


def _escaped(text: str) -> str:
    """As it stands in quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return re.sub(r"\A\*|\*\Z", r"\\*", escaped).replace("\n", "\\n").replace("\t", "\\t")


def _number(number: float) -> str:
    return format(Decimal(repr(number)), "f")


def _duration(ns: int) -> str:
    unit = next(unit for unit in PRINTED_UNITS if ns % NS_OF_UNIT[unit] == 0) if ns else "s"
    return f"{ns // NS_OF_UNIT[unit]}{unit}"


def _iso(ns: int) -> str:
    return (EPOCH + timedelta(microseconds=ns // 1000)).replace(tzinfo=None).isoformat() + "Z"
