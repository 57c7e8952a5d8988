"""A query as conditions of SQL: what spans, and traces, it *may* hold for.

Nothing here takes away what is wanted; what is found is asked again with the functions that all stores share
(`query._match`). SQL knows no case but that of ASCII, so a text with other characters may always be wanted; but where an
index is asked for a whole text, U+212A (the sign of Kelvin) is no k.

Promise: no text of a query becomes text of a statement. Each value is bound, as a parameter of ClickHouse (`{p0:String}`).
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Final

from .._rows import LONGEST_TOKEN, token
from ..query import Query
from ..query._terms import (
    KINDS,
    STATUSES,
    Attribute,
    Compare,
    Field,
    Not,
    Pattern,
    State,
    Term,
    Word,
    compare,
)
from ..store._plan import SAFE_LENGTH, needles
from ._select import Bound

__all__ = ["indexed", "may_hold", "somewhere", "text_fits", "tokens_of"]

ENDING: Final = "if(ending != '', ending, multiIf(end_ns = 0, 'open', status = 2, 'error', 'ok'))"
_TEXTS: Final = {"name": "name", "type": "type", "model": "model", "ending": ENDING}
_OF_TRACE: Final = {"service": "service", "session": "session", "user": "user"}
_CODES: Final = {"status": STATUSES, "kind": KINDS}
_NOT_ZERO: Final = {"errors": "status = 2", "cost": "cost != 0", "tokens": "input_tokens != 0 OR output_tokens != 0"}
_STATES: Final = {
    "open": "end_ns = 0",
    "lost": "ending = 'lost'",
    "error": "status = 2",
    "root": "parent_id = toFixedString('', 8)",
}
BEYOND: Final = "length({column}) != lengthUTF8({column})"
"""Not all of it is ASCII."""
IN_RESOURCE: Final = "origin IN (SELECT origin FROM origins WHERE {})"
IN_MESSAGE: Final = "(trace_id, span_id) IN (SELECT trace_id, span_id FROM span_io WHERE {within} AND {condition})"


# ── a span ──────────────────────────────────────────────────────────────────────────────────────────────────


def may_hold(query: Query, bound: Bound, now_ns: int, within: str) -> list[str]:
    """What a row of `spans` satisfies, if all terms that are asked of a span hold for it. `within` says which rows there are:
    the messages of no others are read."""
    found = []
    for term in query.of_span:
        plain, is_turned = (term.term, True) if isinstance(term, Not) else (term, False)
        if isinstance(plain, Compare):
            condition = _duration(plain, bound, now_ns, is_turned=is_turned)
        elif isinstance(plain, Word | Field):
            condition = _field(plain, bound, is_turned=is_turned)
        else:
            condition = "" if is_turned else _in_message(plain, bound, within)
        if condition:
            found.append(f"({condition})")
    return found


def _field(term: Word | Field, bound: Bound, *, is_turned: bool) -> str:
    if isinstance(term, Word):
        return text_fits("name", Pattern(term.text, before=True, after=True), bound, is_turned=is_turned)
    if term.key in _CODES:
        words = _CODES[term.key]
        codes = [code for code, word in enumerate(words) if term.pattern.fits(word)]
        known = f"if({term.key} BETWEEN 0 AND {len(words) - 1}, {term.key}, 0)"
        return f"{'NOT ' * is_turned}has({bound(codes, 'Array(Int32)')}, {known})"
    column = _TEXTS.get(term.key)
    return text_fits(column, term.pattern, bound, is_turned=is_turned) if column else ""


def text_fits(column: str, pattern: Pattern, bound: Bound, *, is_turned: bool = False) -> str:
    """A text of other than ASCII characters is beyond what SQL can say."""
    wanted = pattern.text.lower()
    is_beyond = BEYOND.format(column=column)
    if not wanted.isascii():
        return "" if is_turned else is_beyond
    place = bound(wanted, "String")
    if pattern.before and pattern.after:
        fits = f"positionCaseInsensitive({column}, {place}) > 0"
    elif pattern.is_exact:
        fits = f"lower({column}) = {place}"
    else:
        fits = f"{'endsWith' if pattern.before else 'startsWith'}(lower({column}), {place})"
    return f"{'NOT ' * is_turned}({fits}) OR {is_beyond}"


def _in_message(term: Term, bound: Bound, within: str) -> str:
    if isinstance(term, Attribute):
        return _attribute(term, bound, within)
    found = needles(Query((term,)))
    if not found:
        return ""
    condition = f"positionCaseInsensitive(message, {bound(found[0].decode(), 'String')}) > 0"
    return IN_MESSAGE.format(within=within, condition=condition)


def _attribute(term: Attribute, bound: Bound, within: str) -> str:
    """By its token where it has one, else by its name: both stand in the message, or in that of the resource."""
    number = _token_of(term)
    if number is not None:
        has_token = f"has(tokens, {bound(number, 'UInt64')})"
        return f"{has_token} OR {IN_RESOURCE.format(has_token)}"
    name = bound(term.name, "String")
    named = IN_MESSAGE.format(within=within, condition=f"position(message, {name}) > 0")
    return f"{named} OR {IN_RESOURCE.format(f'position(resource, {name}) > 0')}"


def _token_of(term: Attribute) -> int | None:
    pattern = term.value
    if not isinstance(pattern, Pattern) or not pattern.is_exact:
        return None
    if len(pattern.text) > (LONGEST_TOKEN if pattern.text.isascii() else SAFE_LENGTH):
        return None
    return int.from_bytes(token(term.name, pattern.text), "little")


def _duration(term: Compare, bound: Bound, now_ns: int, *, is_turned: bool) -> str:
    until = f"if(end_ns = 0, {bound(now_ns, 'UInt64')}, end_ns)"
    lasted = f"greatest(toInt128(0), toInt128({until}) - toInt128(start_ns))"
    return f"{'NOT ' * is_turned}({lasted} {term.operator} {bound(int(term.number), 'Int128')})"


# ── a trace, by one of its spans ────────────────────────────────────────────────────────────────────────────


def somewhere(query: Query, bound: Bound) -> Iterator[str]:
    """For terms that are asked of a trace: what one span of it, each time another perhaps, satisfies."""
    for term in query.of_trace:
        if isinstance(term, Field) and not term.pattern.fits(""):
            yield f"({text_fits(_OF_TRACE[term.key], term.pattern, bound)})"
        elif isinstance(term, Compare) and term.key in _NOT_ZERO and not compare(0, term.operator, term.number):
            yield f"({_NOT_ZERO[term.key]})"
        elif isinstance(term, State) and term.state in _STATES:
            yield f"({_STATES[term.state]})"


# ── the indexes ─────────────────────────────────────────────────────────────────────────────────────────────

INDEXED: Final = ("name", "service", "type", "model", "session", "user")


def indexed(query: Query, bound: Bound, of_resources: Container[int]) -> list[str]:
    """Each what one span of a wanted trace satisfies, and an index of `spans` has something to say about. A span has not the
    tokens of its resource: those that a resource has are in `of_resources`, and left out."""
    together = [each for each in (_by_index(term, bound, of_resources) for term in query.of_span) if each]
    apart = [each for each in (_by_index(term, bound, of_resources) for term in query.of_trace) if each]
    return [" AND ".join(together), *apart] if together else apart


def tokens_of(query: Query) -> list[int]:
    """Of the attributes that are asked for."""
    numbers = (_token_of(term) for term in query.of_span if isinstance(term, Attribute))
    return [number for number in numbers if number is not None]


def _by_index(term: Term, bound: Bound, of_resources: Container[int]) -> str:
    """The case of a text that is not ASCII no index knows."""
    if isinstance(term, Attribute):
        number = _token_of(term)
        return f"has(tokens, {bound(number, 'UInt64')})" if number is not None and number not in of_resources else ""
    if isinstance(term, Field) and term.key in INDEXED and term.pattern.is_exact and term.pattern.text:
        wanted = term.pattern.text.lower()
        return f"lower({term.key}) = {bound(wanted, 'String')}" if wanted.isascii() else ""
    return ""
