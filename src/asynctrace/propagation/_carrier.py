"""A run as a value that any transport takes: a few kB of plain `dict`, with W3C trace context inside.

    {"traceparent": "00-…", "tracestate": "…", "baggage": "…",      what any tracing system reads
     "asynctrace": {"version": 1, "run_id": …, "session_id": …,     what this one adds; only fields that are set
                    "left_out": ["metadata"]}}                      and those that did not fit

- Made: JSON can say it, pickle can, and its JSON text has less than 2000 bytes, also as `json.dumps` writes it when
  nothing is said: with spaces, and `\\u` for what is not ASCII.
- A field arrives as it was, or not at all. First to go is what nobody needs in order to find the trace.
- Read: whatever is given, the answer is a `Carried` or the reason why not, after a bounded amount of work and without
  an exception. Nothing of what is given is believed, and none of its code runs where it is a `dict`.
- Keys that this version does not know are left alone. What a later version says is not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from json import dumps
from typing import Any

import msgspec

from ._baggage import NO_BAGGAGE, Baggage
from ._headers import BAGGAGE, TRACESTATE, format_headers
from ._plain import copy_plain, is_larger
from ._propagators import W3C
from ._w3c import RemoteSpan

__all__ = ["CARRIER_VERSION", "MOST_CARRIER_BYTES", "Carried", "make_carrier", "read_carrier"]

CARRIER_VERSION = 1
MOST_CARRIER_BYTES = 2000
"""Its JSON text has less. Headers of messages and environment variables take that much without a second thought."""

OWN = "asynctrace"
_MOST_READ = 64 * 1024
"""Characters of a carrier that are looked at: it may lie among other headers, which are larger than it."""
_MOST_KEYS = 100

MALFORMED, TOO_LARGE, NEWER_VERSION = "malformed", "too_large", "newer_version"


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """What a carrier tells: where the trace goes on, and what its run is called and belongs to."""

    span: RemoteSpan
    run_id: str | None = None
    name: str = ""
    session_id: str | None = None
    user_id: str | None = None
    project: str | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    baggage: Baggage = NO_BAGGAGE


_FIELDS: dict[str, tuple[Any, Any]] = {
    "metadata": (dict[str, Any], {}),
    "tags": (list[str], []),
    "name": (str, ""),
    "project": (str | None, None),
    "user_id": (str | None, None),
    "session_id": (str | None, None),
    "run_id": (str | None, None),
}
"""What each field is in a carrier, and when it is not set. A `tracestate` is not among them: 512 characters always fit."""
_ORDER = ["metadata", BAGGAGE, *list(_FIELDS)[1:], TRACESTATE]
"""In which they are left out."""


def make_carrier(carried: Carried) -> dict[str, Any]:
    """The carrier of `carried`, made of builtin types and shared with nobody.

    Left out are fields that JSON cannot say, then those that would be too large alone, and then, until the rest fits, in
    this order: metadata, baggage, tags, name, project, user, session, run. Raises `MisuseError` when the span has no valid
    ids, and for nothing else.
    """
    ids = format_headers(carried.span)
    fields, left_out = _fields_of(carried)
    if carried.span.tracestate and TRACESTATE not in ids:
        left_out.append(TRACESTATE)
    carrier = _laid_out(ids, fields, left_out)
    if _is_too_large(carrier):
        fits_alone = {name: not _is_too_large(_laid_out(ids, {name: fields[name]}, [])) for name in fields}
        waiting = sorted(sorted(fields, key=_ORDER.index), key=fits_alone.__getitem__)
        while _is_too_large(carrier):
            left_out.append(waiting.pop(0))
            del fields[left_out[-1]]
            carrier = _laid_out(ids, fields, left_out)
    return carrier


def _fields_of(carried: Carried) -> tuple[dict[str, Any], list[str]]:
    """The fields that are set, as they stand in a carrier, and the names of those that cannot."""
    fields, left_out = {}, []
    for name, (kind, unset) in _FIELDS.items():
        try:
            value = msgspec.convert(copy_plain(getattr(carried, name), MOST_CARRIER_BYTES), kind)
        except (ValueError, msgspec.ValidationError):
            left_out.append(name)
        else:
            if value != unset:
                fields[name] = value
    if type(carried.baggage) is not Baggage:
        left_out.append(BAGGAGE)
    elif carried.baggage:
        fields[BAGGAGE] = carried.baggage.header()
    return fields, left_out


def _laid_out(ids: dict[str, str], fields: dict[str, Any], left_out: list[str]) -> dict[str, Any]:
    own: dict[str, Any] = {"version": CARRIER_VERSION, **fields}
    if BAGGAGE in own:  # which is no field of ours
        ids = {**ids, BAGGAGE: own.pop(BAGGAGE)}
    return {**ids, OWN: {**own, "left_out": sorted(left_out, key=_ORDER.index)} if left_out else own}


def _is_too_large(carrier: dict[str, Any]) -> bool:
    return len(dumps(carrier)) >= MOST_CARRIER_BYTES


def read_carrier(carrier: object) -> Carried | str:
    """What `carrier` tells, or why it tells nothing: `"malformed"`, `"too_large"`, `"newer_version"`.

    Takes what `make_carrier` made, also among other keys and after any transport that keeps JSON what it is, and a mapping
    of headers with nothing of ours. Never raises; more than 100 keys or 64 Ki characters are not walked. (Ctrl-C, and what
    else is no `Exception`, passes through.)
    """
    try:
        return _read(carrier)
    except Exception:  # noqa: BLE001 - a mapping's own code, a value of the wrong type
        return MALFORMED


def _read(carrier: object) -> Carried | str:
    pairs = _pairs_of(carrier)
    if len(pairs) > _MOST_KEYS or is_larger(pairs, _MOST_READ):
        return TOO_LARGE
    own = _own_part(pairs)
    version = own.pop("version", None)
    if type(version) is not int or version < 1:
        return MALFORMED
    if version > CARRIER_VERSION:
        return NEWER_VERSION
    span, baggage, _ = W3C.extract(pairs)
    fields = {name: copy_plain(own[name], _MOST_READ) for name in _FIELDS if name in own}
    if span is None:
        return MALFORMED
    return msgspec.convert({"span": span, "baggage": baggage, **fields}, Carried)


def _pairs_of(carrier: object) -> list[tuple[Any, Any]]:
    """Its keys and values, some more than are allowed where there are more."""
    if issubclass(type(carrier), dict):
        return list(islice(dict.items(carrier), _MOST_KEYS + 1))  # type: ignore[arg-type]
    if not isinstance(carrier, Mapping):
        raise TypeError("no mapping")
    return list(islice(carrier.items(), _MOST_KEYS + 1))


def _own_part(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    """What stands under our key, its own keys being texts; without one, what says nothing."""
    parts = [value for key, value in pairs if _is(key, OWN)]
    if not parts:
        return {"version": CARRIER_VERSION}
    return {str.__str__(key): value for key, value in dict.items(parts[-1]) if issubclass(type(key), str)}


def _is(key: Any, text: str) -> bool:
    return issubclass(type(key), str) and str.__eq__(key, text) is True
