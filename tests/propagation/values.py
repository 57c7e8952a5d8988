"""Spans, headers and runs, as hypothesis makes them."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from asynctrace.propagation import NO_BAGGAGE, Baggage, Carried, RemoteSpan

__all__ = ["ANY_SPEED", "BAGGAGE", "CARRIED", "PLAIN", "SPANS", "TEXTS", "TOKENS", "TRACESTATES", "a_span"]

ANY_SPEED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
"""Nothing is said about how long an example takes: machines are busy."""

_VALUE_CHARACTERS = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")


def _ids(digits: int) -> st.SearchStrategy[str]:
    return st.integers(1, 16**digits - 1).map(lambda number: f"{number:0{digits}x}")


_KEYS = st.from_regex(r"[a-z0-9][a-z0-9_\-*/@]{0,20}", fullmatch=True)
_VALUES = st.text(_VALUE_CHARACTERS, min_size=1, max_size=30).filter(lambda text: not text.endswith(" "))
TRACESTATES = (
    st.dictionaries(_KEYS, _VALUES, max_size=32)
    .map(lambda members: ",".join(f"{key}={value}" for key, value in members.items()))
    .filter(lambda text: len(text) <= 512)
)
"""Valid ones, which are short enough to go on as they are."""

SPANS = st.builds(
    RemoteSpan,
    trace_id=_ids(32),
    span_id=_ids(16),
    is_sampled=st.booleans(),
    tracestate=TRACESTATES,
    is_random=st.booleans(),
    is_debug=st.just(False),
)


def _a_baggage(entries: dict[str, str]) -> Baggage:
    baggage = NO_BAGGAGE
    for key, value in entries.items():
        baggage = baggage.with_entry(key, value) or baggage
    return baggage


TOKENS = st.from_regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,20}", fullmatch=True)
BAGGAGE = st.dictionaries(TOKENS, st.text(st.characters(exclude_categories=["Cs"])), max_size=8).map(_a_baggage)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
_LONG_TEXTS = st.builds(lambda text, times: text * times, TEXTS, st.integers(1, 300))
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
PLAIN = st.recursive(_LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=20)
"""What JSON can say."""

_FIELD = TEXTS | _LONG_TEXTS
CARRIED = st.builds(
    Carried,
    span=SPANS,
    run_id=st.none() | _FIELD,
    name=_FIELD,
    session_id=st.none() | _FIELD,
    user_id=st.none() | _FIELD,
    project=st.none() | _FIELD,
    tags=st.lists(_FIELD, max_size=5).map(tuple),
    metadata=st.dictionaries(TEXTS, PLAIN | _LONG_TEXTS, max_size=5),
    baggage=BAGGAGE,
)


def a_span(**fields: Any) -> RemoteSpan:
    return RemoteSpan("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", is_sampled=True)._replace(**fields)
