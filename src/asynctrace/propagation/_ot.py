"""OpenTelemetry's own member of a `tracestate`: with what probability a trace is recorded, and by which chance.

    ot=th:fd70a4;rv:6e6d1a75832a2f
       ▲         ▲ randomness, 14 hex digits: in place of the last 7 bytes of the trace id
       threshold, 1 to 14 hex digits from the left: recorded is who has at least that much randomness

Source: OpenTelemetry specification, "TraceState Handling" and "TraceState: Probability Sampling".
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ._w3c import parse_tracestate

__all__ = ["LARGEST_THRESHOLD", "Chances", "parse_chances", "with_threshold"]

_BITS = 56
LARGEST_THRESHOLD = 1 << _BITS
"""Of a probability of zero: more than any randomness, and never written."""

_KEY = "ot"
_DIGITS = 14
_MOST_CHARACTERS = 256
_MOST_MEMBERS = 32
_THRESHOLD = re.compile(r"[0-9a-f]{1,14}")
_RANDOMNESS = re.compile(r"[0-9a-f]{14}")


class Chances(NamedTuple):
    """What a `tracestate` says of a trace's chances; None where it says nothing, or nothing valid."""

    threshold: int | None = None
    randomness: int | None = None
    rest: tuple[str, ...] = ()
    """Fields of others, as they came."""


_NONE = Chances()


def parse_chances(tracestate: str) -> Chances:
    """Of a `tracestate` that `parse_tracestate()` let through."""
    text = _members(tracestate).get(_KEY, "")
    if not text or len(text) > _MOST_CHARACTERS:
        return _NONE
    fields = text.split(";")
    known = {name: value for name, _, value in (field.partition(":") for field in fields)}
    threshold, randomness = known.get("th", ""), known.get("rv", "")
    return Chances(
        int(threshold.ljust(_DIGITS, "0"), 16) if _THRESHOLD.fullmatch(threshold) else None,
        int(randomness, 16) if _RANDOMNESS.fullmatch(randomness) else None,
        tuple(field for field in fields if not field.startswith(("th:", "rv:"))),
    )


def with_threshold(tracestate: str, threshold: int | None) -> str:
    """`tracestate` with this threshold, or without one; as it is where it says so already.

    A member that changes comes first, as W3C Trace Context asks; of 32 others the last one goes.
    """
    chances = parse_chances(tracestate)
    if chances.threshold == threshold:
        return tracestate
    fields = [*chances.rest]
    if chances.randomness is not None:
        fields.insert(0, f"rv:{chances.randomness:0{_DIGITS}x}")
    if threshold is not None:
        fields.insert(0, f"th:{f'{threshold:0{_DIGITS}x}'.rstrip('0') or '0'}")
    others = [f"{key}={value}" for key, value in _members(tracestate).items() if key != _KEY]
    if not fields:
        return ",".join(others)
    while len(";".join(fields)) > _MOST_CHARACTERS:
        fields.pop()
    return parse_tracestate([",".join([f"{_KEY}={';'.join(fields)}", *others[: _MOST_MEMBERS - 1]])])


def _members(tracestate: str) -> dict[str, str]:
    pairs = (member.partition("=") for member in tracestate.split(",") if member)
    return {key: value for key, _, value in pairs}
