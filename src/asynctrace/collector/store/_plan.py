"""What the index of a segment can say about a query: conditions on lines of traces, and search tokens of chunks.

Everything here only narrows down: what is found is asked again, decoded. A chunk has a token when one of its spans has
what the token stands for; one span that satisfies all terms therefore lies in a chunk that has all their tokens.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from .._rows import LONGEST_TOKEN, token
from ..query._terms import (
    KINDS,
    STATUSES,
    Attribute,
    Compare,
    Contains,
    Field,
    Identity,
    Not,
    Pattern,
    Query,
    State,
    Term,
    When,
    Word,
)
from ._store import LARGEST
from ._writing import FIELDS, field_token

__all__ = ["Conditions", "conditions", "needles", "needs_messages", "token_groups"]

MOST_NAMES: Final = 200
"""Names that a pattern may stand for; of more, the index is not asked."""
SAFE_LENGTH: Final = LONGEST_TOKEN // 3
"""Characters. Changing the case of a text that is not ASCII can make it three times as long."""
DERIVED: Final = frozenset({"ok", "error", "open", "lost"})
"""Endings that a span can have without saying so."""

_COLUMN: Final = {
    "spans": "spans",
    "errors": "errors",
    "cost": "cost",
    "tokens": "input_tokens + output_tokens",
}
_STATE: Final = {"open": "open", "lost": "lost", "error": "errors", "late": "late"}


class Conditions(msgspec.Struct, frozen=True):
    """What SQL can say of the lines that a query wants."""

    since_ns: int
    until_ns: int
    where: str
    values: tuple[Any, ...]


def conditions(query: Query, now_ns: int) -> Conditions:
    """From the terms of a trace; those that SQL cannot decide are left out."""
    since, until = 0, LARGEST
    where, values = [], []
    for term in query.of_span:
        for condition, *some in _of_longest(term):
            where.append(condition)
            values += some
    for term in query.of_trace:
        if isinstance(term, When):
            moment = max(0, min(term.moment(now_ns), LARGEST))
            since, until = (max(since, moment), until) if term.edge == "since" else (since, min(until, moment))
        for condition, *some in _condition(term):
            where.append(condition)
            values += some
    return Conditions(since, until, "".join(f" AND {each}" for each in where), tuple(values))


def _condition(term: Term) -> Iterator[tuple[Any, ...]]:
    if isinstance(term, Field) and term.pattern.is_exact and term.pattern.text.isascii():
        yield f"{term.key} = ? COLLATE NOCASE", term.pattern.text
        if term.key == "session" and term.pattern.text:
            yield ("session <> ''",)  # so that its index, which has no empty ones, may be used
    elif isinstance(term, Compare):
        yield f"{_COLUMN[term.key]} {term.operator} ?", term.number
    elif isinstance(term, State) and term.state in _STATE:
        yield (f"{_STATE[term.state]} > 0",)
    elif isinstance(term, Identity):
        yield "trace_id BETWEEN ? AND ?", *(bytes.fromhex(term.prefix.ljust(32, fill)) for fill in "0f")


def _of_longest(term: Term) -> Iterator[tuple[Any, ...]]:
    """A span is no longer than its trace; and when one has failed, the trace has errors."""
    if isinstance(term, Compare) and term.key == "dur" and term.operator.startswith(">"):
        yield "(open > 0 OR end_ns - start_ns >= ?)", int(term.number)
    elif isinstance(term, Field) and term.key == "status" and term.pattern.text == "error" and term.pattern.is_exact:
        yield ("errors > 0",)


def token_groups(query: Query, connection: sqlite3.Connection) -> list[list[bytes]]:
    """The wanted chunks have of each group one token at least. No group: the index has nothing to say."""
    groups = (_tokens(term, connection) for term in query.of_span)
    return [group for group in groups if group is not None]


def _tokens(term: Term, connection: sqlite3.Connection) -> list[bytes] | None:
    if isinstance(term, Attribute):
        return _attribute(term)
    if isinstance(term, Word):
        return _named("name", Pattern(term.text, before=True, after=True), connection)
    if isinstance(term, Field) and term.key in FIELDS:
        return _named(term.key, term.pattern, connection)
    if isinstance(term, Field) and term.pattern.is_exact:
        return _closed(term.key, term.pattern.text)
    return None


def _attribute(term: Attribute) -> list[bytes] | None:
    pattern = term.value
    if not isinstance(pattern, Pattern) or not pattern.is_exact:
        return None
    if len(pattern.text) > (LONGEST_TOKEN if pattern.text.isascii() else SAFE_LENGTH):
        return None
    return [token(term.name, pattern.text)]


def _named(field: str, pattern: Pattern, connection: sqlite3.Connection) -> list[bytes] | None:
    """What the pattern stands for in this segment. An empty text has no token."""
    if pattern.fits(""):
        return None
    found = connection.execute(f"SELECT DISTINCT {field} FROM name")  # noqa: S608  (one of FIELDS)
    values = [value for (value,) in found if pattern.fits(value)]
    return [field_token(field, value) for value in values] if len(values) <= MOST_NAMES else None


def _closed(field: str, word: str) -> list[bytes] | None:
    """Of a status, a kind, an ending. Numbers that OTLP does not know read as the first, so that has no token of its own."""
    for key, words in (("status", STATUSES), ("kind", KINDS)):
        if field == key and word in words[1:]:
            return [field_token(field, str(words.index(word)))]
    if field == "ending" and word not in DERIVED:
        return [field_token(field, word)]
    return None


def needs_messages(query: Query) -> bool:
    """Whether a span must be decoded to say whether it is wanted."""
    plain = [term.term if isinstance(term, Not) else term for term in query.of_span]
    return any(
        isinstance(term, Attribute | Contains) or (isinstance(term, Field) and term.key not in FIELDS) for term in plain
    )


def needles(query: Query) -> Sequence[bytes]:
    """Lower-case bytes that the messages of a chunk contain when one of its spans is wanted. A text that might be that of a
    number, and characters beyond ASCII, whose case is more than bytes can tell, are left out."""
    found = []
    for term in query.of_span:
        if isinstance(term, Contains) and not _may_be_number(term.text):
            runs = "".join(each if each.isascii() else "\0" for each in term.text).split("\0")
            found.append(max(runs, key=len).lower().encode())
    return [each for each in found if each]


def _may_be_number(text: str) -> bool:
    return text.lower() in "true false inf nan" or not text.strip("0123456789.e+-")
