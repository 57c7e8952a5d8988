"""The span that a trace goes on from, and its text in W3C Trace Context Level 2.

    00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03
    ▲  trace id                         span id          ▲
    version                                              flags: 1 sampled, 2 random trace id

- What is parsed was valid: ids of lower-case hex digits that are not all zero, any version but `ff`.
- What is formatted is valid, of version `00`, and parses to the same span.
- A `tracestate` is valid as a whole or empty; it never decides about the `traceparent` beside it.

Source: https://www.w3.org/TR/trace-context-2/, "traceparent Header" and "tracestate Header".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from .._errors import MisuseError

__all__ = ["MOST_TRACESTATE", "RemoteSpan", "format_traceparent", "parse_traceparent", "parse_tracestate"]

MOST_TRACESTATE = 512
"""Characters that are passed on: what the recommendation asks for at least ("tracestate Limits"), and in a carrier all
of them leave room for the rest."""

_MOST_READ = 32 * 1024
"""Twice what 32 members of the longest keys and values take: nobody needs more white space than that."""
_MOST_MEMBERS = 32
_LONG_MEMBER = 128
"""A member longer than this goes before others where the whole is too long ("tracestate Limits")."""

_SAMPLED, _RANDOM = 1, 2

_TRACEPARENT = re.compile(
    r"[ \t]*(?!ff)([0-9a-f]{2})"
    r"-(?!0{32})([0-9a-f]{32})"
    r"-(?!0{16})([0-9a-f]{16})"
    r"-([0-9a-f]{2})"
    r"(?:(-.*)|[ \t]*)"  # what a later version may add; one branch or the other, so that no text takes long
)
_IDS = re.compile(r"(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}")
_MEMBER = re.compile(r"([0-9a-z][0-9a-z_\-*/@]{0,255})=[ -+\--<>-~]{0,255}[!-+\--<>-~]")


class RemoteSpan(NamedTuple):
    """A span elsewhere, which a span here becomes the child of.

    `trace_id` has 32 and `span_id` 16 lower-case hex digits, not all zero. `tracestate` is what other tracing systems
    pass along, as received but for white space and empty members; `""` when there was none or it was invalid.
    `is_random` says that the right-most 7 bytes of the trace id are random: who passes a trace on passes it on too.
    `is_debug` is B3's, and handed on to neighbors that speak it; such a span is sampled.
    """

    trace_id: str
    span_id: str
    is_sampled: bool
    tracestate: str = ""
    is_random: bool = False
    is_debug: bool = False


def format_traceparent(span: RemoteSpan) -> str:
    """The value of a `traceparent` header, version `00`. Raises `MisuseError` for ids that no header may have."""
    ids = f"{span.trace_id}-{span.span_id}"
    if _IDS.fullmatch(ids) is None:
        raise MisuseError(
            f"a trace goes on from ids of 32 and 16 lower-case hex digits, not from {ids[:64]!r}: "
            "async with tracer.trace('name') as run: …, and then run.to_carrier()"
        )
    return f"00-{ids}-{_SAMPLED * span.is_sampled | _RANDOM * span.is_random:02x}"


def parse_traceparent(text: str) -> RemoteSpan | None:
    """The span that a `traceparent` header names, without a `tracestate`; `None` when the text is invalid.

    Of a later version the fields of this one are read, and what may follow after a dash is left alone ("Versioning of
    traceparent"). Spaces and tabs around the value are no part of it.
    """
    found = _TRACEPARENT.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if rest is not None and version == "00":
        return None
    bits = int(flags, 16)
    return RemoteSpan(trace_id, span_id, bool(bits & _SAMPLED), is_random=bool(bits & _RANDOM))


def parse_tracestate(values: Sequence[str]) -> str:
    """The `tracestate` to pass on, from the values of all headers of that name in their order; `""` when invalid.

    Invalid is a member that does not follow the grammar, and more than 32 members. Of a key that comes twice the first,
    which is the latest that was written, is kept. Of more than 512 characters whole members are left out, those longer than
    128 first, and of these and of the others the last ones first. Empty members and white space around members are dropped
    and not counted.
    """
    values = [values] if isinstance(values, str) else values  # a text is a sequence of texts, too
    if len(values) + sum(map(len, values)) > _MOST_READ:
        return ""
    members = [stripped for member in ",".join(values).split(",") if (stripped := member.strip(" \t"))]
    if len(members) > _MOST_MEMBERS:
        return ""
    by_key: dict[str, str] = {}
    for member in members:
        match = _MEMBER.fullmatch(member)
        if match is None:
            return ""
        by_key.setdefault(match[1], member)
    return ",".join(_that_fit(list(by_key.values())))


def _that_fit(members: list[str]) -> list[str]:
    long = [member for member in members if len(member) > _LONG_MEMBER]
    short = [member for member in members if len(member) <= _LONG_MEMBER]
    kept = [*short, *long]
    while len(",".join(kept)) > MOST_TRACESTATE:
        kept.pop()
    return [member for member in members if member in kept]
