"""Carriers, good and bad, and what a reader has to say of each."""

from __future__ import annotations

import itertools
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import httpx

from asynctrace.propagation import Carried, make_carrier

from .odd import NOT_PLAIN, Angry, LyingDict, LyingList, LyingText, laughs, nested
from .values import a_span

__all__ = ["GOOD", "READ", "REFUSED", "TEXT", "TOO_LARGE", "WHOLE", "Pairs", "raising"]

WHOLE = Carried(
    span=a_span(tracestate="foo=1"),
    run_id="r-1",
    name="checkout",
    session_id="s-1",
    user_id="u-7",
    project="shop",
    tags=("a", "b"),
    metadata={"tier": "gold", "deep": {"a": [1, None, True, 0.5]}},
)
GOOD = make_carrier(WHOLE)
TEXT: str = make_carrier(Carried(span=a_span()))["traceparent"]


def own(**fields: Any) -> dict[str, Any]:
    return {"traceparent": TEXT, "asynctrace": {"version": 1, **fields}}


def carried(**fields: Any) -> Carried:
    return Carried(span=a_span(), **fields)


class Pairs(Mapping[Any, Any]):
    """A mapping that says what it is told to, and counts what was taken from it."""

    def __init__(self, pairs: Iterable[Any], length: int = 1) -> None:
        self.pairs, self.length, self.taken = pairs, length, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        return (pair[0] for pair in self.items())

    def __getitem__(self, key: Any) -> Any:
        return next(pair[1] for pair in self.items() if pair[0] == key)

    def items(self) -> Any:
        for pair in self.pairs:
            self.taken += 1
            yield pair


def raising(error: type[BaseException] = OSError) -> Iterator[Any]:
    yield ("traceparent", TEXT)
    raise error


class ClaimsToBeADict:
    __class__ = dict  # type: ignore[assignment]


class ClaimsToBeText:
    __class__ = str  # type: ignore[assignment]


class RaisingKey:
    """A key that lies where `"asynctrace"` would lie, so that whoever looks that up compares the two."""

    def __hash__(self) -> int:
        return hash("asynctrace")

    def __eq__(self, other: object) -> bool:
        raise OSError


class RunsCode(dict[str, Any]):
    """A `dict` whose own methods must not be run."""

    def _run(self, *arguments: Any) -> Any:
        raise BaseExceptionGroup("code of a carrier was run", [KeyboardInterrupt()])

    __len__ = __iter__ = __getitem__ = __contains__ = get = keys = values = items = copy = _run  # type: ignore[assignment]


def cycle() -> dict[str, Any]:
    value = dict(GOOD)
    value["self"] = value
    return value


def wide_cycle() -> dict[str, Any]:
    value: list[Any] = []
    value += [value] * 60_000
    return {**GOOD, "self": value}


READ: dict[str, tuple[Any, Carried]] = {
    "a carrier": (GOOD, WHOLE),
    "a carrier from JSON": (json.loads(json.dumps(GOOD)), WHOLE),
    "a carrier in another mapping": (OrderedDict(GOOD), WHOLE),
    "a carrier that cannot be written to": (MappingProxyType(GOOD), WHOLE),
    "a carrier in a mapping that lies about its length": (Pairs(list(GOOD.items()), length=10**9), WHOLE),
    "a carrier in dicts with code of their own": (
        RunsCode({**GOOD, "asynctrace": RunsCode(GOOD["asynctrace"])}),
        WHOLE,
    ),
    "a carrier among other headers": ({**GOOD, "task": "add", "retries": 3, "odd": Angry(), 7: Angry()}, WHOLE),
    "a carrier among long headers": ({**GOOD, "cookie": "x" * 60_000}, WHOLE),
    "keys of ours that we do not know": (own(name="n", colour=["blue"], left_out=["tags"]), carried(name="n")),
    "keys of ours that are no texts": (
        {"traceparent": TEXT, "asynctrace": {"version": 1, 7: 8, b"name": 9}},
        carried(),
    ),
    "keys of ours that we do not know and that are no JSON": (own(odd=Angry()), carried()),
    "fields that are null": (own(run_id=None, session_id=None, user_id=None, project=None), carried()),
    "metadata with code of its own": (own(metadata=RunsCode(a=LyingText("b"))), carried(metadata={"a": "b"})),
    "metadata of 20 levels": (own(metadata={"a": nested(19)}), carried(metadata={"a": nested(19)})),
    "tags in a list that lies": (own(tags=LyingList(["a"])), carried(tags=("a",))),
    "tags in a tuple": (own(tags=("a", "b")), carried(tags=("a", "b"))),
    "nothing of ours": ({"traceparent": TEXT}, carried()),
    "headers in another case": ({"TraceParent": TEXT, "Host": "a"}, carried()),
    "headers of bytes": ({b"traceparent": TEXT.encode(), b"host": b"a"}, carried()),
    "headers of httpx": (httpx.Headers({"traceparent": TEXT}), carried()),
    "a later version of trace context": ({"traceparent": f"cc{TEXT[2:]}-more"}, carried()),
    "an invalid tracestate": ({"traceparent": TEXT, "tracestate": "a=1,A=2"}, carried()),
    "100 keys": ({"traceparent": TEXT, **{f"key-{number}": number for number in range(99)}}, carried()),
    "headers beside a key that raises": ({RaisingKey(): 1, "traceparent": TEXT}, carried()),
}

LARGE = {
    "a list of itself",
    "100 to the power of 15 lists",
    "100,000 levels",
    "a long text that lies",
    "a large mapping that lies",
}
"""What is too large where a carrier is made, and something else where one is read."""

MALFORMED: dict[str, Any] = {
    "None": None,
    "a number": 7,
    "a text": TEXT,
    "JSON": json.dumps(GOOD),
    "bytes": b"traceparent",
    "a list": [],
    "pairs": list(GOOD.items()),
    "an object": object(),
    "a class": dict,
    "an object that raises": Angry(),
    "an object that claims to be a dict": ClaimsToBeADict(),
    "an empty mapping": {},
    "a mapping that raises": Pairs(raising()),
    "a mapping of no pairs": Pairs([1, 2]),
    "a mapping of triples": Pairs([("a", "b", "c")]),
    "no traceparent": {"asynctrace": GOOD["asynctrace"]},
    "no traceparent that is text": {**GOOD, "traceparent": 7},
    "a traceparent that claims to be text": {**GOOD, "traceparent": ClaimsToBeText()},
    "a traceparent that raises": {**GOOD, "traceparent": Angry()},
    "an invalid traceparent": {**GOOD, "traceparent": TEXT.upper()},
    "a traceparent of zeros": {**GOOD, "traceparent": f"00-{'0' * 32}-{'0' * 16}-01"},
    "two traceparents": {**GOOD, "Traceparent": f"00-{'1' * 32}-{'1' * 16}-01"},
    **{
        f"{value!r} of ours": {"traceparent": TEXT, "asynctrace": value}
        for value in (None, 1, "a", [], [["version", 1]])
    },
    "ours raises": {"traceparent": TEXT, "asynctrace": Angry()},
    "no version": {"traceparent": TEXT, "asynctrace": {}},
    **{f"version {version!r}": own(version=version) for version in (None, "1", 1.0, True, 0, -1, [1])},
    "a version that raises": own(version=Angry()),
    **{
        f"{name} {value!r}": own(**{name: value})
        for name in ("run_id", "session_id", "user_id", "project", "name")
        for value in (7, b"a", ["a"], "\ud800", True)
    },
    "a name that is null": own(name=None),
    **{f"tags {value!r}": own(tags=value) for value in (None, "ab", 7, [7], [None], {"a": "b"}, ["\ud800"], [["a"]])},
    **{f"metadata {value!r}": own(metadata=value) for value in (None, 7, "a", [], [["a", "b"]])},
    **{f"metadata with {what}": own(metadata={"odd": value}) for what, value in NOT_PLAIN.items() if what not in LARGE},
    "metadata of 21 levels": own(metadata={"a": nested(20)}),
    "metadata whose keys are no text": own(metadata={1: "a"}),
}

TOO_LARGE: dict[str, Any] = {
    "101 keys": {"traceparent": TEXT, **{f"key-{number}": number for number in range(100)}},
    "a million keys": {**GOOD, **dict.fromkeys(range(1_000_000))},
    "keys without an end": Pairs(itertools.chain(GOOD.items(), zip(itertools.count(), itertools.count(), strict=True))),
    "a long text": {**GOOD, "cookie": "x" * 65_536},
    "long bytes": {**GOOD, "cookie": b"x" * 65_536},
    "a long text that lies": {**GOOD, "cookie": LyingText("x" * 65_536)},
    "a long key": {**GOOD, "x" * 65_536: ""},
    "many texts": {**GOOD, "cookies": ["x" * 700] * 95},
    "a long run id": own(run_id="x" * 65_536),
    "a long traceparent": {"traceparent": f"cc{TEXT[2:]}-{'x' * 65_536}"},
    "long metadata": own(metadata={"a": ["x" * 40_000, {"b": "x" * 40_000}]}),
    "a million tags": own(tags=["a"] * 1_000_000),
    "many small things": own(metadata={"a": [[]] * 70_000}),
    "100 to the power of 20 lists": own(metadata={"a": laughs(20)}),
    "the same in what is not ours": {**GOOD, "a": laughs(20)},
    "the same as headers": {"traceparent": laughs(20)},
    "100,000 levels": own(metadata={"a": nested(100_000)}),
    "itself": cycle(),
    "itself many times": wide_cycle(),
    "metadata in itself": own(metadata=wide_cycle()),
    "in a dict with code of its own": RunsCode(own(run_id="x" * 65_536)),
    "among a dict that lies": {**GOOD, "more": LyingDict(a="x" * 65_536)},
}

NEWER: dict[str, Any] = {
    "version 2": {**GOOD, "asynctrace": {**GOOD["asynctrace"], "version": 2}},
    "a much later version": own(version=10**30),
    "a later version that changes everything": {"asynctrace": {"version": 2, "name": ["a"], "traceparent": {}}},
    "a later version beside an invalid traceparent": {"traceparent": "x", "asynctrace": {"version": 3}},
}

REFUSED = {"malformed": MALFORMED, "too_large": TOO_LARGE, "newer_version": NEWER}
