"""The query language: one parser for the page, the command line, addresses and tests.

    service:x name:"chat*" attr.k=v dur>2s status:error is:open cost>0.05 input:"refund" session:s1 -kind:internal since:1h

    query    = [ term *( space term ) ]              all terms must hold
    term     = [ "-" ] ( key operator value / word )  "-" turns it round
    key      = a name of `KEYS` / "attr." name
    operator = ":" / "=" / ">" / ">=" / "<" / "<="
    value    = characters without space and quote / quoted
    word     = value                                  the name of a span contains it
    quoted   = DQUOTE *( any character / "\\" ( DQUOTE / "\\" / "*" / "n" / "t" ) ) DQUOTE

A `*` at the start or the end of a value stands for any text, also for none; `\\*` in quotes is the character. The case
of values never counts.

Promises: `parse()` ends in time that grows with the text alone; what it refuses is a `QueryError` that names the place;
`parse(str(query)) == query`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec

from ..._errors import AsynctraceError
from ._terms import (
    EDGES,
    EPOCH,
    FIELDS,
    JOINERS,
    KEYS,
    LOWER,
    NS_OF_UNIT,
    NUMBERS,
    STATES,
    TEXTS,
    WORDS,
    Attribute,
    Compare,
    Contains,
    Field,
    Identity,
    Not,
    Operator,
    Pattern,
    Plain,
    Query,
    State,
    Term,
    When,
    Word,
)

__all__ = ["LONGEST_QUERY", "QueryError", "parse"]

LONGEST_QUERY: Final = 4096
"""Characters; an address of that length still passes through proxies."""
LARGEST_NUMBER: Final = 10**18
"""Fits the integers of the databases."""

_SPACE: Final = re.compile(r"\s*")
_RUN: Final = re.compile(r'[^\s"]*')
_KEY: Final = re.compile(r'[^\s":=<>]*')
_OPERATOR: Final = re.compile(r">=|<=|[:=<>]")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)(")?', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_NUMBER: Final = re.compile(r"(\d{1,19}(?:\.\d{1,18})?)([a-zµ]*)", re.ASCII)
_IDENTITY: Final = re.compile(r"[0-9a-fA-F]{1,32}", re.ASCII)
ESCAPES: Final = {'"': '"', "\\": "\\", "*": "*", "n": "\n", "t": "\t"}


class QueryError(AsynctraceError, ValueError):
    """The text is no query. `start` and `end` count characters (code points) of the text: the place that is wrong."""

    def __init__(self, message: str, start: int, end: int) -> None:
        super().__init__(message)
        self.message, self.start, self.end = message, start, end

    def __reduce__(self) -> tuple[type[QueryError], tuple[str, int, int]]:
        return (QueryError, (self.message, self.start, self.end))


def parse(text: str) -> Query:
    """The query that `text` writes down; `QueryError` when it is none."""
    if len(text) > LONGEST_QUERY:
        raise QueryError(f"a query has at most {LONGEST_QUERY} characters", LONGEST_QUERY, len(text))
    return Query(tuple(_Reader(text).terms()))


class _Value(msgspec.Struct, frozen=True):
    """A value and its place."""

    pattern: Pattern
    start: int
    end: int
    is_quoted: bool = False

    @property
    def text(self) -> str:
        """With the stars at its ends."""
        return f"{'*' * self.pattern.before}{self.pattern.text}{'*' * self.pattern.after}"

    def error(self, message: str) -> QueryError:
        return QueryError(message, self.start, self.end)


class _Reader:
    """A place in a text, moving to its end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def terms(self) -> Iterator[Term]:
        while self._skip_space():
            yield self._term()

    def _skip_space(self) -> bool:
        """Whether there is more."""
        self._take(_SPACE)
        return self._at < len(self._text)

    def _take(self, expression: re.Pattern[str]) -> str:
        found = expression.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found[0]

    def _term(self) -> Term:
        start = self._at
        if self._text[start] != "-":
            return self._plain()
        self._at += 1
        if self._at == len(self._text) or self._text[self._at].isspace():
            raise QueryError("- needs a term behind it: -kind:internal", start, start + 1)
        if self._text[self._at] == "-":
            raise QueryError("one - is enough; quote a word that begins with it", start, start + 2)
        return Not(self._plain())

    def _plain(self) -> Plain:
        start = self._at
        key = self._take(_KEY)
        if key == "attr." and self._text.startswith('"', self._at):
            return self._attribute(self._quoted(is_name=True).pattern.text, start)
        operator = self._take(_OPERATOR)
        if not operator:
            self._at = start
            return _word(self._value("a word"))
        if key.startswith("attr."):
            self._at -= len(operator)
            return self._attribute(key[5:], start)
        return self._keyed(key, operator, start)

    def _keyed(self, key: str, operator: str, start: int) -> Plain:
        name, end = key.lower(), start + len(key)
        if not key:
            raise QueryError(f"a key is missing before {operator}", start, start + len(operator))
        if name not in KEYS:
            raise QueryError(f"{_cut(key)} is no key: write attr.{_cut(key)} for an attribute, or quote it", start, end)
        if operator in ":=":
            operator = "="
        elif name not in NUMBERS:
            raise QueryError(f"{name} is no number: write {name}:value", end, end + len(operator))
        return _READ[name](name, operator, self._value(name))  # type: ignore[arg-type]  # the expression knows four

    def _attribute(self, name: str, start: int) -> Attribute:
        where = self._at
        operator = self._take(_OPERATOR)
        if not name or not operator:
            raise QueryError("an attribute needs a name, an operator and a value: attr.http.route:/pay", start, where)
        value = self._value(f"attr.{name}")
        if operator in ":=":
            return Attribute(name, "=", value.pattern)
        return Attribute(name, operator, float(_plain_number(value)))  # type: ignore[arg-type]

    def _value(self, key: str) -> _Value:
        """Everything up to the next space, or a text in quotes."""
        start = self._at
        if self._text.startswith('"', start):
            return self._quoted()
        run = self._take(_RUN)
        if self._text.startswith('"', self._at):
            raise QueryError('quote the whole value: "…"', self._at, self._at + 1)
        if not run:
            raise QueryError(f"{_cut(key)} needs a value", max(0, start - 1), start)
        before, after = run.startswith("*"), run.endswith("*")
        return _Value(Pattern(run[before : max(before, len(run) - after)], before, after), start, self._at)

    def _quoted(self, *, is_name: bool = False) -> _Value:
        start = self._at
        found = _QUOTED.match(self._text, start)
        if found is None or not found[2]:
            raise QueryError("the quote is not closed", start, len(self._text))
        self._at = found.end()
        follows = self._text[self._at : self._at + 1]
        if follows and not follows.isspace() and not is_name:
            raise QueryError("a space is missing after the quote", self._at, self._at + 1)
        inner = found[1]
        before, after = inner.startswith("*"), inner.endswith("*") and not _ends_escaped(inner)
        text = _unescaped(inner[before : max(before, len(inner) - after)], start + 1 + before)
        return _Value(Pattern(text, before, after), start, self._at, is_quoted=True)


def _unescaped(inner: str, start: int) -> str:
    for found in _ESCAPE.finditer(inner):
        if found[1] not in ESCAPES:
            raise QueryError(
                r"in quotes, \ stands before \" \\ \* \n and \t only", start + found.start(), start + found.end()
            )
    return _ESCAPE.sub(lambda found: ESCAPES[found[1]], inner)


def _ends_escaped(inner: str) -> bool:
    """Whether the last character of a quoted text is escaped."""
    slashes = len(inner) - 1 - len(inner[:-1].rstrip("\\"))
    return slashes % 2 == 1


# ── one reader for each kind of key ─────────────────────────────────────────────────────────────────────────


def _word(value: _Value) -> Plain:
    if not value.is_quoted and value.text in JOINERS:
        raise value.error(f'all terms must hold, "-" turns one round; quote "{value.text}" to look for it')
    return Word(value.text) if value.pattern.is_exact else Field("name", value.pattern)


def _field(key: str, operator: Operator, value: _Value) -> Field:
    pattern = value.pattern
    if key in LOWER:
        pattern = Pattern(pattern.text.lower(), pattern.before, pattern.after)
    if key in WORDS and not any(map(pattern.fits, WORDS[key])):
        raise value.error(f"{key} is one of {', '.join(WORDS[key])}")
    return Field(key, pattern)


def _contains(key: str, operator: Operator, value: _Value) -> Contains:
    return Contains(key, value.pattern.text)  # stars at the ends say what is true anyway


def _state(key: str, operator: Operator, value: _Value) -> State:
    if value.text.lower() not in STATES:
        raise value.error(f"is: knows {', '.join(STATES)}")
    return State(value.text.lower())


def _identity(key: str, operator: Operator, value: _Value) -> Identity:
    text = value.pattern.text  # a star behind it says what is true anyway
    if value.pattern.before or not _IDENTITY.fullmatch(text):
        raise value.error("id is the beginning of a trace or span id: 1 to 32 hex digits")
    return Identity(text.lower())


def _compare(key: str, operator: Operator, value: _Value) -> Compare:
    if key == "dur":
        return Compare(key, operator, _nanoseconds(value))
    number = _plain_number(value)
    if key != "cost" and number != int(number):
        raise value.error(f"{key} is a whole number")
    return Compare(key, operator, float(number) if key == "cost" else int(number))


def _when(key: str, operator: Operator, value: _Value) -> When:
    if value.text and value.text[-1] in "smhd":
        return When(key, _nanoseconds(value))
    ns = _since_epoch(value.text)
    if ns is None or not 0 <= ns < 2**63:
        raise value.error(f"{key} is an age (30s, 10m, 1h, 7d) or a time (2026-11-21, 2026-11-21T10:00Z; UTC)")
    return When(key, ns, is_ago=False)


def _plain_number(value: _Value) -> Decimal:
    found = _NUMBER.fullmatch(value.text)
    if found is None or found[2] or Decimal(found[1]) > LARGEST_NUMBER:
        raise value.error(f"a number is needed, like 1000 or 0.05, not {_cut(value.text)}")
    return Decimal(found[1])


def _nanoseconds(value: _Value) -> int:
    found = _NUMBER.fullmatch(value.text)
    unit = found and (found[2] or "s")
    if found is None or unit not in NS_OF_UNIT:
        raise value.error(f"a duration is needed, like 250ms, 2s or 1h, not {_cut(value.text)}")
    ns = int(Decimal(found[1]) * NS_OF_UNIT[unit])
    if ns >= 2**63:
        raise value.error("a duration has at most 292 years")
    return ns


_READ: Final[dict[str, Callable[[str, Operator, _Value], Plain]]] = {
    **dict.fromkeys(FIELDS, _field),
    **dict.fromkeys(TEXTS, _contains),
    **dict.fromkeys(NUMBERS, _compare),
    **dict.fromkeys(EDGES, _when),
    "is": _state,
    "id": _identity,
}


def _since_epoch(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1) * 1000


def _cut(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"
