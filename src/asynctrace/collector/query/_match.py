"""Whether a query holds: for one span inside its trace, and for a trace as a whole.

A trace holds when its summary satisfies the terms of a trace and *one* of its spans satisfies all terms of a span. Inside a
trace every term is asked of the span. What an index answered is checked with the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final

from ..._contracts import AttributeValue, Span
from ...wire import decode_resource, decode_scope, decode_span
from ._terms import (
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
    compare,
)

if TYPE_CHECKING:
    from .._rows import Origin, SpanRow
    from ..store import RunSummary

__all__ = ["Candidate", "ending_of", "matches", "matches_trace", "trace_holds"]

DEEPEST: Final = 16
"""Levels of a nested attribute value that are searched."""


class Candidate:
    """A span that a query is asked about. Its message is decoded when a term needs it, once."""

    __slots__ = ("_span", "is_late", "is_lost", "origin", "row")

    def __init__(self, row: SpanRow, origin: Origin, *, is_late: bool = False, is_lost: bool = False) -> None:
        self.row, self.origin = row, origin
        self.is_late, self.is_lost = is_late, is_lost
        self._span: Span | None = None

    @property
    def span(self) -> Span:
        if self._span is None:
            self._span = decode_span(self.row.message)
        return self._span

    def attribute(self, name: str) -> AttributeValue:
        """Its own, else its resource's."""
        own = self.span.attributes
        return own[name] if name in own else _resource(self.origin.resource).get(name)


def matches(query: Query, span: Candidate, trace: RunSummary, now_ns: int) -> bool:
    """Whether every term holds for one span of a trace."""
    return all(_span_holds(term, span, trace, now_ns) for term in query.terms)


def matches_trace(query: Query, trace: RunSummary, spans: Callable[[], Iterable[Candidate]], now_ns: int) -> bool:
    """Whether a trace belongs on a list. `spans` is only called when the summary cannot decide."""
    if not all(trace_holds(term, trace, now_ns) for term in query.of_trace):
        return False
    wanted = Query(query.of_span)
    return not wanted.terms or any(matches(wanted, span, trace, now_ns) for span in spans())


def ending_of(row: SpanRow) -> str:
    """How a span ended; `open` while it has not."""
    if not row.end_ns:
        return row.facts.ending or "open"
    return row.facts.ending or ("error" if row.status == STATUSES.index("error") else "ok")


# ── a term and a trace ──────────────────────────────────────────────────────────────────────────────────────


def trace_holds(term: Term, trace: RunSummary, now_ns: int) -> bool:
    """Whether a term of `Query.of_trace` holds."""
    if isinstance(term, Not):
        return not trace_holds(term.term, trace, now_ns)
    if isinstance(term, Field):
        return term.pattern.fits(str(getattr(trace, term.key)))
    if isinstance(term, Compare):
        return term.holds(_of_trace(trace, term.key))
    if isinstance(term, State):
        return _TRACE_STATES[term.state](trace)
    if isinstance(term, When):
        return _in_time(term, trace.start_ns, now_ns)
    return isinstance(term, Identity) and trace.trace_id.startswith(term.prefix)


def _of_trace(trace: RunSummary, key: str) -> float:
    return trace.input_tokens + trace.output_tokens if key == "tokens" else float(getattr(trace, key))


_TRACE_STATES: Final[dict[str, Callable[[RunSummary], bool]]] = {
    "open": lambda trace: trace.open > 0,
    "ended": lambda trace: not trace.open,
    "lost": lambda trace: trace.lost > 0,
    "error": lambda trace: trace.errors > 0,
    "root": lambda trace: trace.has_root,
    "pinned": lambda trace: trace.pinned,
    "late": lambda trace: trace.late > 0,
}


def _in_time(term: When, start_ns: int, now_ns: int) -> bool:
    moment = term.moment(now_ns)
    return start_ns >= moment if term.edge == "since" else start_ns <= moment


# ── a term and a span ───────────────────────────────────────────────────────────────────────────────────────


def _span_holds(term: Term, span: Candidate, trace: RunSummary, now_ns: int) -> bool:
    if isinstance(term, Not):
        return not _span_holds(term.term, span, trace, now_ns)
    if isinstance(term, Word):
        return term.text.lower() in span.row.name.lower()
    if isinstance(term, Field):
        return term.pattern.fits(_FIELDS[term.key](span))
    if isinstance(term, Attribute):
        return _attribute_holds(term, span.attribute(term.name))
    if isinstance(term, Contains):
        return _contains(term, span)
    if isinstance(term, Compare):
        return term.holds(_NUMBERS[term.key](span, now_ns))
    if isinstance(term, State):
        return trace.pinned if term.state == "pinned" else _SPAN_STATES[term.state](span)
    if isinstance(term, When):
        return _in_time(term, span.row.start_ns, now_ns)
    return trace.trace_id.startswith(term.prefix) or span.row.span_id.hex().startswith(term.prefix)


@lru_cache(maxsize=256)
def _scope_name(message: bytes) -> str:
    return decode_scope(message).name


@lru_cache(maxsize=256)
def _resource(message: bytes) -> Mapping[str, AttributeValue]:
    return decode_resource(message).attributes


_FIELDS: Final[dict[str, Callable[[Candidate], str]]] = {
    "service": lambda span: span.origin.service,
    "name": lambda span: span.row.name,
    "session": lambda span: span.row.facts.session,
    "user": lambda span: span.row.facts.user,
    "type": lambda span: span.row.facts.type,
    "model": lambda span: span.row.facts.model,
    "scope": lambda span: _scope_name(span.origin.scope),
    "status": lambda span: _named(STATUSES, span.row.status),
    "kind": lambda span: _named(KINDS, span.row.kind),
    "ending": lambda span: "lost" if span.is_lost else ending_of(span.row),
}

_NUMBERS: Final[dict[str, Callable[[Candidate, int], float]]] = {
    "dur": lambda span, now_ns: max(0, (span.row.end_ns or now_ns) - span.row.start_ns),
    "cost": lambda span, now_ns: span.row.facts.cost,
    "tokens": lambda span, now_ns: span.row.facts.input_tokens + span.row.facts.output_tokens,
    "spans": lambda span, now_ns: 1,
    "errors": lambda span, now_ns: span.row.status == STATUSES.index("error"),
}

_SPAN_STATES: Final[dict[str, Callable[[Candidate], bool]]] = {
    "open": lambda span: not span.row.end_ns and not span.is_lost,
    "ended": lambda span: bool(span.row.end_ns),
    "lost": lambda span: span.is_lost or span.row.facts.ending == "lost",
    "error": lambda span: span.row.status == STATUSES.index("error"),
    "root": lambda span: not span.row.parent_id,
    "late": lambda span: span.is_late,
}


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else names[0]


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────


def _attribute_holds(term: Attribute, value: AttributeValue) -> bool:
    if isinstance(term.value, Pattern):
        if term.value.is_any:
            return value is not None
        return any(map(term.value.fits, _as_texts(value)))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and compare(value, term.operator, term.value)  # type: ignore[arg-type]


def _as_texts(value: AttributeValue) -> Iterator[str]:
    """A value as text, as search tokens write it; of an array, each element."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, int | float):
        yield repr(value)
    elif isinstance(value, list | tuple):
        for element in value:
            yield from () if isinstance(element, list | tuple) else _as_texts(element)


def _contains(term: Contains, span: Candidate) -> bool:
    wanted = term.text.lower()
    if term.key == "text":
        return any(wanted in text.lower() for text in _all_texts(span.span))
    return any(wanted in text.lower() for text in _said(span.span, term.key))


def _said(span: Span, side: str) -> Iterator[str]:
    """The input or output of a span, in whatever dialect it is told."""
    for key, value in span.attributes.items():
        if _says(key, side):
            yield from _leaves(value)
    for event in span.events:
        if _event_says(event.name, side):
            yield from _leaves(event.attributes)


def _all_texts(span: Span) -> Iterator[str]:
    yield span.name
    yield span.status_message
    yield from _leaves(span.attributes)
    for event in span.events:
        yield event.name
        yield from _leaves(event.attributes)


def _leaves(value: AttributeValue, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping) and depth < DEEPEST:
        for each in value.values():
            yield from _leaves(each, depth + 1)
    elif isinstance(value, list | tuple) and depth < DEEPEST:
        for each in value:
            yield from _leaves(each, depth + 1)
    else:
        yield from _as_texts(value)


@lru_cache(maxsize=4096)
def _says(key: str, side: str) -> bool:
    from .._rows import Facts
    from ..receiving._dialects import rules_for  # not above: receiving knows the store, and the store asks here

    return any(Facts._fields[slot] == side for slot, _, _ in rules_for(key))


@cache
def _event_says(name: str, side: str) -> bool:
    from ..receiving._dialects import EVENTS

    return name in EVENTS and EVENTS[name][0] == side
